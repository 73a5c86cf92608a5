#!/bin/sh
# Signs a slot's content as a RAUC bundle.
# usage: bundle.sh SLOT.ext4 VERSION KEY CERT CA BUNDLE [COMPATIBLE]
set -eu
slot=$1 version=$2 key=$3 cert=$4 ca=$5 bundle=$6 compatible=${7:-headwater-arm64-generic}
work=$(mktemp -d "$(dirname "$bundle")/bundle.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
mkdir "$work/content"
ln "$slot" "$work/content/rootfs.ext4"
cat >"$work/content/manifest.raucm" <<MANIFEST
[update]
compatible=$compatible
version=$version

[bundle]
format=verity

[image.rootfs]
filename=rootfs.ext4
MANIFEST
rm -f "$bundle"
rauc bundle --cert "$cert" --key "$key" --keyring "$ca" \
    --mksquashfs-args="-comp zstd -Xcompression-level ${ZSTD:-9} -processors 2 -no-progress" \
    "$work/content" "$bundle" >"$work/log" 2>&1 || { tail "$work/log" >&2; exit 1; }
