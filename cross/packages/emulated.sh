#!/bin/sh
# Tries packages for another architecture: what they ask for exists in Debian 12 and 13 there and brings every library,
# their programs run in user emulation, and their manuals are those of this machine's packages, where these are made.
# Their scripts are the same as this machine's and are tried there.
# usage: emulated.sh ARCHITECTURE FOLDER-OF-DEBS [FOLDER-OF-THIS-MACHINE'S-DEBS]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1 debs=$2 own=${3:-}
stop() { echo "packages: $*" >&2; exit 1; }
# shellcheck source=/dev/null
. "$here/../target.sh"
roots="${CARGO_TARGET_DIR:-target}/packages/roots"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

wanted=""
for deb in "$debs"/*.deb; do
    [ "$(dpkg-deb -f "$deb" Architecture)" = "$target" ] || stop "$deb is not for $target"
    dpkg-deb -x "$deb" "$work/$target"
    wanted="$wanted $(dpkg-deb -f "$deb" Depends Recommends | sed 's/^[A-Za-z]*://; s/([^)]*)//g; s/,/ /g' | tr '\n' ' ')"
done
wanted=$(printf '%s\n' $wanted | grep -v '^headwater' | sort -u)

for suite in bookworm trixie; do
    root="$roots/$suite-$target"
    # shellcheck disable=SC2086  # a list of packages
    "$here/../root.sh" "$root" "$suite" "$target" $wanted
    for program in "$work/$target"/usr/bin/*; do
        # shellcheck disable=SC2154  # of target.sh
        for library in $(readelf -Wd "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
            [ -e "$root/usr/lib/$multiarch/$library" ] || [ -e "$root/usr/lib/$library" ] ||
                stop "$suite: nothing that the packages ask for brings $library, which $program needs"
        done
        "$here/../board.sh" "$root" "$target" "$program" --version || stop "$suite: $program does not run"
    done
done

[ -n "$own" ] || exit 0
for deb in "$own"/*.deb; do dpkg-deb -x "$deb" "$work/own"; done
for part in man bash-completion zsh fish; do
    diff -r "$work/own/usr/share/$part" "$work/$target/usr/share/$part" || stop "$part is not the same on both architectures"
done
