#!/bin/sh
# Fetches the packages of the root file system and unpacks them into one archive; none of their programs runs.
# usage: root.sh FOLDER     prints the archive's path, FOLDER/root-KEY.tar, on standard output
# Where they come from is for this machine's own package sources to say. An archive is kept for its list of packages.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
suite=bookworm

key=$(cat "$here/packages" "$here/root.sh" | sha256sum | cut -c 1-12)
archive="$folder/root-$key.tar"
if [ -e "$archive" ]; then
    echo "$archive"
    exit 0
fi
list=$(sed '/^#/d' "$here/packages" | tr -s ' \n' ',' | sed 's/,$//')
echo "image: fetching $suite's packages for arm64" >&2
# Unpacking needs no emulation. What was unpacked is listed in the root, for who wants to know.
# shellcheck disable=SC2016  # the hook's $1 is mmdebstrap's
nice mmdebstrap --quiet --format=tar --variant=extract --architectures=arm64 --components=main --include="$list" \
    --aptopt='APT::Install-Recommends "false"' \
    --extract-hook='mkdir -p "$1/usr/share/headwater" &&
        (cd "$1/var/cache/apt/archives" && ls *.deb) | sed "s/\.deb$//; s/%3a/:/; s/_/ /g" >"$1/usr/share/headwater/packages"' \
    "$suite" "$archive.new" >&2
mv "$archive.new" "$archive"
echo "$archive"
