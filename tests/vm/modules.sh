#!/bin/sh
# Builds the kernel's virtual codecs, which Debian's kernels lack, for one of these kernels, out of its tree; and
# for the image's the virtual radio, which the image lacks.
# usage: modules.sh FOLDER ARCH RELEASE VERSION [SUITE]     prints the modules' folder on standard output
#        ARCH      Debian's word for the kernel's architecture
#        RELEASE   of the kernel, as its `uname -r` says it; VERSION is that of its package
#        SUITE     Debian's suite that has it, where it is not this machine's own kernel; then the virtual radio too
# The host is not changed: packages are fetched with apt and unpacked. What was built is kept in the user's cache folder,
# for all checkouts, or else in FOLDER/modules: the last four that were used. Ends with 69 where apt cannot fetch the sources.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder="$1/modules"
arch=$2 release=$3 version=$4 suite=${5:-}
kept=4

say() { echo "modules: $*" >&2; }
stop() { say "$*"; exit 1; }
without() { say "$*"; exit 69; }

if [ -n "${XDG_CACHE_HOME:-${HOME:-}}" ]; then
    cache="${XDG_CACHE_HOME:-$HOME/.cache}/headwater/modules"
    if mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ]; then folder=$cache; fi
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
built="$folder/$release-$version-$(cat "$here/modules.sh" "$here/Makefile" | sha256sum | cut -c 1-8)"
if [ -d "$built" ]; then
    touch "$built"
    echo "$built"
    exit 0
fi

# Not in FOLDER: the kernel's build takes no path with a space.
work=$(mktemp -d)
new="$folder/new-$$"
trap 'rm -rf "$work" "$new"' EXIT
trap 'exit 1' INT TERM HUP
mkdir "$work/debs" "$work/root" "$work/source" "$work/modules"

own=$(dpkg --print-architecture)
compiler=""
if [ "$arch" != "$own" ]; then
    # shellcheck disable=SC2034  # read by target.sh
    target=$arch
    # shellcheck source=/dev/null
    . "$here/../../cross/target.sh"
    # shellcheck disable=SC2154  # of target.sh
    compiler="$multiarch-"
fi
# apt with lists of its own, so that this machine's stays as it is.
if [ -n "$suite" ]; then
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    "$here/../../cross/archive.sh" "$suite" |
        sed 's|^deb |deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] |' >"$work/apt/sources"
    cat >"$work/apt/conf" <<CONF
APT::Architecture "$own";
APT::Architectures { "$own"; "$arch"; };
Acquire::Languages "none";
Dir::State "$work/apt";
Dir::State::Status "/dev/null";
Dir::Cache "$work/apt/cache";
Dir::Etc::SourceList "$work/apt/sources";
Dir::Etc::SourceParts "/dev/null";
CONF
    export APT_CONFIG="$work/apt/conf"
    apt-get -qq -o APT::Sandbox::User=root -o Acquire::Retries=5 update >&2 || without "apt could not fetch the lists of $suite"
fi

headers="linux-headers-$release"
# The first package that the headers need whose name matches.
needs() {
    apt-cache show "$headers:$arch=$version" 2>/dev/null | sed -n 's/^Depends: //p' | head -n 1 |
        tr ',|' '\n\n' | sed 's/^ *//; s/ .*//' | grep -m 1 -E "$1"
}
common=$(needs '^linux-headers-.*common') ||
    without "apt knows no $headers $version; if it is older than what Debian has now, make what boots it anew"
kbuild=$(needs '^linux-kbuild-') || without "apt knows no kbuild for $headers"
source="linux-source-$(echo "$version" | cut -d . -f 1-2)"
say "fetching the sources of Debian's kernel $release ($version)"
(
    cd "$work/debs"
    # Those of the kernel itself, so that the modules fit it. Of kbuild, whose programs run here, Debian keeps the newest.
    apt-get -qq -o APT::Sandbox::User=root -o Acquire::Retries=5 download "$headers:$arch=$version" "$common=$version" \
        "$kbuild:$own" "$source=$version" >&2
) || without "apt could not fetch the kernel's packages; run 'apt-get update' and try again"

say "building virtual drivers for $release"
for deb in "$work/debs"/linux-[hk]*.deb; do dpkg-deb -x "$deb" "$work/root"; done
drivers="$source/drivers/media"
radio="$source/drivers/net/wireless/mac80211_hwsim"
dpkg-deb --fsys-tarfile "$work/debs/$source"_*.deb | tar -xO "./usr/src/$source.tar.xz" |
    tar -xJ -C "$work/source" --strip-components=3 "$drivers/v4l2-core/v4l2-mem2mem.c" "$drivers/test-drivers" \
        ${suite:+"$radio.c" "$radio.h"}
cp "$work/source/v4l2-core/v4l2-mem2mem.c" "$work/source/test-drivers/vim2m.c" \
    "$work/source/test-drivers/vicodec"/*.[ch] "$here/Makefile" "$work/modules/"
[ -z "$suite" ] || cp "$work/source/wireless"/*.[ch] "$work/modules/"
headers_at="$work/root/usr/src"
# Debian names the compiler of the kernel; any gcc builds a module that loads.
make -s -C "$headers_at/$common" O="$headers_at/$headers" M="$work/modules" CROSS_COMPILE="$compiler" CC="${compiler}gcc" \
    modules >"$work/make.log" 2>&1 ||
    { tail -n 20 "$work/make.log" >&2; stop "the modules could not be built"; }
"${compiler}strip" --strip-debug "$work/modules"/*.ko

mkdir "$new"
cp "$work/modules"/*.ko "$new/"
[ -d "$built" ] || mv "$new" "$built"
find "$folder" -mindepth 1 -maxdepth 1 -type d ! -name 'new-*' -printf '%T@ %p\n' | sort -rn | tail -n +$((kept + 1)) |
    cut -d ' ' -f 2- | while read -r old; do rm -rf "$old"; done
echo "$built"
