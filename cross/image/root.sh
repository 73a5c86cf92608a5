#!/bin/sh
# Fetches the packages of the root file system and unpacks them into one archive; none of their programs runs.
# usage: root.sh FOLDER     prints the archive's path on standard output
# Where they come from is for this machine's own package sources to say. Archives are kept in the user's cache folder,
# for all checkouts, or else in FOLDER: the last two that were used. One that is older than a week is made anew, for
# what Debian has mended since; where that fails the old one is good enough.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
suite=bookworm
kept=2

if [ -n "${XDG_CACHE_HOME:-${HOME:-}}" ]; then
    cache="${XDG_CACHE_HOME:-$HOME/.cache}/headwater/image"
    if mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ]; then folder=$cache; fi
fi
key=$(cat "$here/packages" "$here/root.sh" | sha256sum | cut -c 1-12)
archive="$folder/root-$key.tar.zst"
if [ -n "$(find "$archive" -mtime -7 2>/dev/null)" ]; then
    echo "$archive"
    exit 0
fi
list=$(sed '/^#/d' "$here/packages" | tr -s ' \n' ',' | sed 's/,$//')
echo "image: fetching $suite's packages for arm64" >&2
sources=$("$here/../archive.sh" "$suite")
main=$(echo "$sources" | sed -n 1p) security=$(echo "$sources" | sed -n 2p)
new="$folder/new-$$.tar"
trap 'rm -f "$new" "$new.zst"' EXIT
trap 'exit 1' INT TERM HUP
# Unpacking needs no emulation. What was unpacked is listed in the root, for who wants to know.
# shellcheck disable=SC2016  # the hook's $1 is mmdebstrap's
if nice mmdebstrap --quiet --format=tar --variant=extract --architectures=arm64 --components=main --include="$list" \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "5"' \
    --extract-hook='mkdir -p "$1/usr/share/headwater" &&
        (cd "$1/var/cache/apt/archives" && ls *.deb) | sed "s/\.deb$//; s/%3a/:/; s/_/ /g" >"$1/usr/share/headwater/packages"' \
    "$suite" "$new" "$main" ${security:+"$security"} >&2; then
    nice zstd -q -3 -T0 "$new" -o "$new.zst"
    mv "$new.zst" "$archive"
elif [ -e "$archive" ]; then
    echo "image: the packages could not be fetched; those of $(date -r "$archive" +%F) are used" >&2
else
    exit 1
fi
find "$folder" -maxdepth 1 -name 'root-*.tar*' -printf '%T@ %p\n' | sort -rn | tail -n +$((kept + 1)) | cut -d ' ' -f 2- |
    while read -r old; do rm -f "$old"; done
echo "$archive"
