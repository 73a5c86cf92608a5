#!/bin/sh
# Makes what the emulated machine boots from: Debian's kernel, and an initramfs with the virtual codecs.
# usage: build.sh FOLDER     prints the folder of the finished machine, FOLDER/KERNEL, on standard output
# The host is not changed: packages are fetched with apt and unpacked into FOLDER. A finished machine is kept.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)

stop() { echo "vm: $*" >&2; exit 1; }
# The value of a field of the newest version of a package.
field() { apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n "s/^$2: //p" | head -n 1; }
# The first dependency of a package whose name matches.
needs() { field "$1" Depends | tr ',|' '\n\n' | sed 's/^ *//; s/ .*//' | grep -m 1 -E "$2"; }

image=$(needs linux-image-amd64 '^linux-image-[0-9]') || {
    # Where apt's lists were never fetched, or are empty.
    as_root=""; [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update -qq >&2 || true
    image=$(needs linux-image-amd64 '^linux-image-[0-9]') || stop "apt knows no linux-image-amd64; this needs Debian"
}
release=${image#linux-image-}
release=${release%-unsigned}
version=$(field "$image" Version)
# Scripts of this folder make the machine too: a change of theirs makes a new one.
key="$release-$version-$(cat "$here/build.sh" "$here/init" "$here/modules.sh" "$here/Makefile" | sha256sum | cut -c 1-8)"
machine="$folder/$key"
if [ -e "$machine/initramfs" ]; then
    echo "$machine"
    exit 0
fi

# Fetched and built, or kept from an earlier time.
modules=$("$here/modules.sh" "$folder" "$(dpkg --print-architecture)" "$release" "$version") ||
    stop "without the virtual codecs there is no machine"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
mkdir "$work/debs" "$work/root" "$work/init"
echo "vm: fetching Debian's kernel $release ($version)" >&2
(
    cd "$work/debs"
    apt-get -o APT::Sandbox::User=root download -qq "$image=$version" >&2
) || stop "apt could not fetch the kernel; run 'apt-get update' and try again"
dpkg-deb -x "$work/debs"/linux-image-*.deb "$work/root"

echo "vm: packing the initramfs" >&2
tree="$work/root/lib/modules/$release"
[ -d "$tree" ] || tree="$work/root/usr/lib/modules/$release"
mkdir "$tree/extra"
cp "$modules"/*.ko "$tree/extra/"
top=${tree%/lib/modules/*}
depmod -b "$top" "$release"
mkdir "$work/init/bin" "$work/init/modules" "$work/init/proc" "$work/init/sys" "$work/init/dev" "$work/init/mnt"
for module in virtio_pci 9pnet_virtio 9p vicodec vim2m vivid; do
    modprobe -d "$top" -S "$release" --show-depends "$module" || stop "the kernel has no $module"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$work/files"
while read -r file; do
    name=$(basename "$file")
    case "$file" in
        *.xz) name=${name%.xz}; xz -dc "$file" >"$work/init/modules/$name" ;;
        *) cp "$file" "$work/init/modules/$name" ;;
    esac
    # vivid is loaded by the guest script, where a camera is wanted.
    [ "$name" = vivid.ko ] || echo "$name" >>"$work/init/modules/order"
done <"$work/files"
cp "$(command -v busybox)" "$work/init/bin/busybox"
cp "$here/init" "$work/init/init"
chmod 755 "$work/init/init"
mkdir "$work/machine"
cp "$work/root/boot/vmlinuz-$release" "$work/machine/vmlinuz"
echo "$release" >"$work/machine/release"
(cd "$work/init" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/machine/initramfs"
rm -rf "$machine" "$machine.new"
cp -r "$work/machine" "$machine.new"
mv "$machine.new" "$machine"
echo "$machine"
