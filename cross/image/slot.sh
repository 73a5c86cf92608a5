#!/bin/sh
# Makes the content of a root slot: a tree out of the packages, our files and programs, and the slot's ext4 of it.
# usage: slot.sh ROOT.tar.zst BINARIES KEYRING.pem VERSION FOLDER      leaves FOLDER/tree and FOLDER/slot.ext4
set -eu
here=$(cd "$(dirname "$0")" && pwd)
archive=$1 binaries=$2 keyring=$3 version=$4 folder=$5
tree="$folder/tree"
stop() { echo "image: $*" >&2; exit 1; }

[ ! -e "$tree" ] || rm -rf "$tree"
mkdir -p "$tree"
tar -xf "$archive" -C "$tree" --no-same-owner --exclude=./dev
cd "$tree"
# Packages of this suite still ship /bin, /sbin and /lib; programs expect them to be links.
for name in bin sbin lib; do
    cp -a "$name/." "usr/$name/"
    rm -rf "$name"
    ln -s "usr/$name" "$name"
done

# --- what a board has no use for
set +f
sed '/^#/d' "$here/left-out" | tr -s ' ' '\n' >"$folder/left-out"
while read -r pattern; do
    # shellcheck disable=SC2086  # the patterns are meant to match
    rm -rf ./$pattern
done <"$folder/left-out"
plugins=usr/lib/aarch64-linux-gnu/gstreamer-1.0
mkdir plugins
for name in $(sed '/^#/d' "$here/plugins"); do
    mv "$plugins/libgst$name.so" plugins/ || stop "there is no plugin $name"
done
rm -rf "$plugins" usr/lib/aarch64-linux-gnu/gstreamer1.0/gstreamer-1.0/gst-[!p]*
mv plugins "$plugins"

# --- the kernel and its modules
release=$(ls usr/lib/modules)
mv "boot/vmlinuz-$release" boot/vmlinuz
modules="usr/lib/modules/$release"
depmod -b "$tree" "$release"
mkdir kept early
# Modules of the list, and those that they need.
: >"$folder/root.list"
: >"$folder/early.list"
while read -r when path; do
    # shellcheck disable=SC2086  # a pattern
    found=$(cd "$modules" && find kernel/$path -name '*.ko' 2>/dev/null) || true
    [ -n "$found" ] || stop "the kernel has no $path"
    echo "$found" >>"$folder/$when.list"
done <<LIST
$(grep -v '^#' "$here/modules")
LIST
with_needs() {
    awk -F '[: ]+' 'NR == FNR { wanted[$1]; next } $1 in wanted { for (i = 1; i <= NF; i++) if ($i != "") print $i }' \
        - "$modules/modules.dep" | LC_ALL=C sort -u
}
with_needs <"$folder/early.list" | (cd "$modules" && cpio -pdm --quiet "$tree/early")
cat "$folder/early.list" "$folder/root.list" | with_needs | (cd "$modules" && cpio -pdm --quiet "$tree/kept")
rm -rf "$modules/kernel"
mv kept/kernel "$modules/kernel"
rmdir kept
depmod -b "$tree" "$release"
"$here/initramfs.sh" "$tree" "$release" boot/initrd.img
rm -rf early

# --- our files and programs
cp -a "$here/root/." .
install -m 755 "$binaries/headwater-agent" "$binaries/headwater-worker" "$binaries/headwater-setup" usr/bin/
mkdir -p usr/lib/headwater
install -m 755 "$here/boot-slot.sh" usr/lib/headwater/boot-slot
mkdir -p etc/rauc
install -m 644 "$keyring" etc/rauc/keyring.pem
dist="$here/../../agent/dist"
for unit in "$dist"/*.service "$dist"/*.socket "$dist"/*.path; do
    [ ! -e "$unit" ] || install -m 644 "$unit" usr/lib/systemd/system/
done
cp -a "$dist/image/." usr/lib/systemd/system/
install -m 644 "$dist/headwater-agent.sysusers" usr/lib/sysusers.d/headwater-agent.conf
install -m 644 "$dist/headwater-agent.tmpfiles" usr/lib/tmpfiles.d/headwater-agent.conf
printf 'IMAGE_ID=headwater-arm64-generic\nIMAGE_VERSION=%s\n' "$version" >>usr/lib/os-release

# --- what maintainer scripts would have done
ln -sf dash usr/bin/sh
for applet in awk vi less ping wget ps top free hostname nslookup; do
    [ -e "usr/bin/$applet" ] || ln -s busybox "usr/bin/$applet"
done
rm -f etc/passwd etc/group etc/shadow etc/gshadow
systemd-sysusers --root="$tree" >/dev/null 2>&1 || stop "the users could not be made"
sed -i 's#^root:.*#root:x:0:0:root:/root:/bin/sh#' etc/passwd
systemctl --root="$tree" --quiet preset-all 2>/dev/null || stop "the units could not be enabled"
rm -f etc/.pwd.lock etc/*- etc/resolv.conf etc/machine-id
ln -s ../run/systemd/resolve/resolv.conf etc/resolv.conf
: >etc/machine-id
ln -sf ../proc/self/mounts etc/mtab
ln -s regulatory.db-debian usr/lib/firmware/regulatory.db
ln -s regulatory.db.p7s-debian usr/lib/firmware/regulatory.db.p7s
mkdir -p boot/efi data etc/headwater srv root/.ssh proc sys dev run tmp var mnt
rmdir root/.ssh
ln -s ../run/headwater/ssh root/.ssh
rm -rf var tmp run && mkdir var tmp run

# --- libraries that only what is gone has needed
for name in blas lapack; do ln -s "$name/lib$name.so.3" usr/lib/aarch64-linux-gnu/; done
# Loaded by name, by programs that run without them too.
loaded='^(libnss_|ld-linux|libgcc_s|libresolv|libidn2|libip4tc)'
find usr -type f \( -perm -100 -o -name '*.so*' \) -exec readelf -dW {} + 2>/dev/null |
    awk -v keep="$loaded" -f "$here/needed.awk" >"$folder/unneeded" || stop "a library is missing"
xargs rm -f <"$folder/unneeded"
find usr/lib/aarch64-linux-gnu -maxdepth 1 -name '*.so*' -xtype l -delete

# --- the file system: read-only, so with no room to grow; times and names are fixed, so that two builds are alike
used=$(du -sm --apparent-size . | cut -f 1)
echo "image: the root uses $used MB" >&2
[ "$used" -le 400 ] || stop "that is more than the 400 MB that a slot may use"
find . -newermt "@${SOURCE_DATE_EPOCH:=1767225600}" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
rm -f "$folder/slot.ext4"
as_root=""
[ "$(id -u)" = 0 ] || as_root="unshare --map-root-user"
E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH $as_root mke2fs -q -t ext4 -L headwater -m 0 -I 256 -N 16384 \
    -O '^has_journal,^resize_inode,^orphan_file,^metadata_csum_seed' -E lazy_itable_init=0 \
    -U 6b1d3a52-7f0c-4a58-9c39-2f6f0f2d7a11 -E hash_seed=6b1d3a52-7f0c-4a58-9c39-2f6f0f2d7a11 \
    -d "$tree" "$folder/slot.ext4" "$((used * 21 / 20 + 16))M" 2>/dev/null
