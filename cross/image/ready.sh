#!/bin/sh
# Fetches all that `make image-test` needs from outside: programs, the arm64 kit, the image's packages.
# usage: ready.sh TARGET-FOLDER      where something cannot be had here, says what and ends with 1: there is no test then
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1
without() { echo "skipped: $*"; exit 1; }

[ "$(uname -m)" = x86_64 ] || without "the image is built on x86-64 only"
"$here/../../tests/setup.sh" image-test >&2 || without "the programs that make and run the image could not be installed"
mkdir -p "$target/cross" "$target/image"
free=$(df -Pk "$target" | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
[ -e "$target/image/made" ] || [ "$free" -ge 8 ] || without "$target has $free GB free; builds, image and bundles take 8"
"$here/../kit.sh" "$(realpath "$target/cross")" arm64 >&2 || without "what builds for arm64 could not be fetched"
"$here/root.sh" "$target/image" >/dev/null || without "the image's packages could not be fetched"
qemu-system-aarch64 -M help >/dev/null || without "qemu-system-aarch64 does not run here"
firmware=${FIRMWARE:-/usr/share/qemu-efi-aarch64/QEMU_EFI.fd}
[ -r "$firmware" ] || without "there is no firmware $firmware"
