#!/bin/sh
# The reference image, and the bundle that updates a board to it.
# usage: build.sh FOLDER      leaves FOLDER/headwater-arm64.img and FOLDER/headwater-arm64.raucb
#   HEADWATER_BINARIES   folder of the arm64 programs; `make cross TARGET=arm64` fills the one that is taken without it
#   IMAGE_VERSION        what the image and its bundle call themselves; the workspace's version without it
#   KEY, CERT, CA        PEM files: what signs the bundle, and what the image trusts; made for development without them.
#                        CA alone: an image, and no bundle, which is signed elsewhere
# What needs the network (the packages) is kept, see root.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
repository=$(cd "$here/../.." && pwd)
binaries=${HEADWATER_BINARIES:-"${CARGO_TARGET_DIR:-$repository/target}/cross/arm64/current/bin"}
stop() { echo "image: $*" >&2; exit 1; }
for name in headwater-agent headwater-worker headwater-setup; do
    [ -x "$binaries/$name" ] || stop "$binaries/$name is not there; run 'make cross TARGET=arm64' first"
done
binaries=$(cd "$binaries" && pwd)

if [ -z "${KEY:-}${CERT:-}${CA:-}" ]; then
    "$here/keys.sh" "$folder/keys"
    KEY="$folder/keys/key.pem" CERT="$folder/keys/cert.pem" CA="$folder/keys/ca.pem"
fi
case "${KEY:+k}${CERT:+c}${CA:+a}" in
    kca | a) ;;
    *) stop "give KEY, CERT and CA, or CA alone and sign elsewhere, or none of them for development's keys" ;;
esac
for file in ${KEY:+"$KEY"} ${CERT:+"$CERT"} "$CA"; do [ -r "$file" ] || stop "cannot read $file"; done
version=${IMAGE_VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$repository/Cargo.toml" | head -n 1)}
case "$version" in *[!0-9A-Za-z.+~-]* | [!0-9]*) stop "a version such as 0.1.0+20261129, not '$version'" ;; esac

archive=$("$here/root.sh" "$folder")
# Nothing is made again that would come out the same.
key=$({
    echo "$archive $(stat -c %Y "$archive")"
    find "$here" "$repository/agent/dist" -type f -not -path '*/setup/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    sha256sum "$binaries"/headwater-agent "$binaries"/headwater-worker "$binaries"/headwater-setup "$CA" ${CERT:+"$CERT"}
    echo "$version"
} | sha256sum | cut -c 1-16)
if [ "$(cat "$folder/made" 2>/dev/null)" = "$key" ]; then
    echo "image: $folder is up to date"
    exit 0
fi
rm -f "$folder/made"
"$here/slot.sh" "$archive" "$binaries" "$CA" "$version" "$folder"
"$here/disk.sh" "$archive" "$folder/slot.ext4" "$folder"
rm -f "$folder/headwater-arm64.raucb"
if [ -n "${KEY:-}" ]; then
    "$here/bundle.sh" "$folder/slot.ext4" "$version" "$KEY" "$CERT" "$CA" "$folder/headwater-arm64.raucb"
else
    echo "image: without KEY there is no bundle; where the key is, cross/image/bundle.sh makes it of $folder/slot.ext4"
fi
echo "$key" >"$folder/made"
ls -l --block-size=M "$folder"/headwater-arm64.* | awk '{ print "image: " $NF ", " $5 }'
