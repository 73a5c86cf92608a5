#!/bin/sh
# Builds what ships for a target and a floor, checks that it keeps the floor, and shows how large it is.
# usage: build.sh TARGET FLOOR [board]       the binaries: target/cross/TARGET/FLOOR/bin; `board`: only what boards run
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1 floor=$2 part=${3:-all}
stop() { echo "cross: $*" >&2; exit 1; }
. "$here/target.sh"
[ -r "$here/floors/$floor.conf" ] || stop "there is no floor '$floor': see cross/floors"
. "$here/floors/$floor.conf"

packages="headwater-agent headwater-pipelines headwater-setup" names="headwater-agent headwater-worker headwater-setup"
if [ "$part" = all ]; then packages="$packages headwater-gateway" names="$names headwater-gateway headwater"; fi
# shellcheck disable=SC2046,SC2086  # a list of packages
"$here/env.sh" "$target" "$floor" ./tests/cargo.sh build --release --locked --bins --features "$features" \
    $(printf ' -p %s' $packages)

release="$(built "$floor")/$triple/release"
for name in $names; do "$here/floor.sh" "$floor" "$release/$name" || broken=1; done
[ -z "${broken:-}" ] || stop "nothing of this is put into bin"

bin="${CARGO_TARGET_DIR:-target}/cross/$target/$floor/bin"
mkdir -p "$bin"
for name in $names; do
    # Renamed into place: who runs the old one keeps it.
    cp -p "$release/$name" "$bin/$name.new"
    mv "$bin/$name.new" "$bin/$name"
done
"$here/sizes.sh" "$target" "$floor" "$bin"
