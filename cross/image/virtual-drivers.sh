#!/bin/sh
# Builds the kernel's virtual codec and radio for the image's kernel, which tests load on the board.
# usage: virtual-drivers.sh IMAGE-FOLDER     prints the modules' folder on standard output; ends with 69 where Debian's
#                                          archive does not give the kernel's sources, or not any more
set -eu
here=$(cd "$(dirname "$0")" && pwd)
image=$1
release=$(ls "$image/tree/usr/lib/modules")
version=$(sed -n "s/^linux-image-$release \([^ ]*\) .*/\1/p" "$image/tree/usr/share/headwater/packages")
[ -n "$version" ] || { echo "image: its list of packages has no linux-image-$release" >&2; exit 1; }
exec "$here/../../tests/vm/modules.sh" "$image" arm64 "$release" "$version" bookworm
