#!/bin/sh
# usage: initramfs.sh TREE RELEASE FILE     TREE/early: the modules; busybox comes from TREE
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tree=$1 release=$2 file=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
mkdir -p "$work/bin" "$work/lib/modules/$release" "$work/proc" "$work/sys" "$work/dev" "$work/root"
cp -a "$tree/early/kernel" "$work/lib/modules/$release/kernel"
for list in builtin builtin.modinfo order; do
    cp "$tree/usr/lib/modules/$release/modules.$list" "$work/lib/modules/$release/"
done
depmod -b "$work" "$release"
cp "$tree/usr/bin/busybox" "$work/bin/busybox"
install -m 755 "$here/init" "$work/init"
(cd "$work" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet --reproducible) | gzip -n -9 >"$file"
echo "image: the initramfs has $(du -k "$file" | cut -f 1) KB" >&2
