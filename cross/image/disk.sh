#!/bin/sh
# Makes the disk image: boot partition (GRUB, headwater.toml), slot A, an empty slot B, a small data partition.
# usage: disk.sh ROOT.tar.zst SLOT.ext4 FOLDER      leaves FOLDER/headwater-arm64.img
set -eu
here=$(cd "$(dirname "$0")" && pwd)
archive=$1 slot=$2 folder=$3
work="$folder/disk"
rm -rf "$work"
mkdir -p "$work/input/EFI/BOOT" "$work/input/headwater" "$work/none" "$work/grub"

tar -xf "$archive" -C "$work/grub" ./usr/lib/grub/arm64-efi
grub-mkimage -O arm64-efi -d "$work/grub/usr/lib/grub/arm64-efi" -p /headwater -c "$here/boot/early.cfg" \
    -o "$work/input/BOOTAA64.EFI" \
    part_gpt fat ext2 linux normal test loadenv echo search search_fs_file configfile regexp sleep reboot
cp "$here/boot/grub.cfg" "$here/boot/headwater.toml" "$work/input/"
# Slot A holds what was flashed, and is as good as it gets; B holds nothing.
grub-editenv "$work/input/grubenv" create
grub-editenv "$work/input/grubenv" set "ORDER=A B" A_OK=1 A_TRY=0 B_OK=0 B_TRY=0 confirmed=A
ln -f "$slot" "$work/input/slot-a.ext4"
mke2fs -q -t ext4 -L data -b 4096 -m 1 -I 256 -i 65536 -O '^orphan_file,^metadata_csum_seed' \
    -E lazy_itable_init=0,lazy_journal_init=0 -J size=8 "$work/input/data.ext4" 96M 2>/dev/null

cat >"$work/genimage.cfg" <<'CFG'
image boot.vfat {
    vfat {
        label = "HEADWATER"
        file EFI/BOOT/BOOTAA64.EFI { image = "BOOTAA64.EFI" }
        file headwater/grub.cfg { image = "grub.cfg" }
        file headwater/grubenv { image = "grubenv" }
        file headwater.toml { image = "headwater.toml" }
    }
    size = 64M
}
image headwater-arm64.img {
    hdimage {
        partition-table-type = "gpt"
        align = 1M
    }
    partition boot { image = "boot.vfat" partition-type-uuid = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" }
    partition root-a { image = "slot-a.ext4" size = 512M partition-type-uuid = "b921b045-1df0-41c3-af44-4c6f280d3fae" }
    partition root-b { size = 512M partition-type-uuid = "b921b045-1df0-41c3-af44-4c6f280d3fae" }
    partition data { image = "data.ext4" partition-type-uuid = "0fc63daf-8483-4772-8e79-3d69d8477de4" }
}
CFG
genimage --loglevel 1 --config "$work/genimage.cfg" --inputpath "$work/input" --rootpath "$work/none" \
    --outputpath "$folder" --tmppath "$work/tmp" >"$folder/genimage.log" 2>&1 || { tail "$folder/genimage.log" >&2; exit 1; }
rm -rf "$work" "$folder/boot.vfat"
