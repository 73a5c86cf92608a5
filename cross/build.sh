#!/bin/sh
# Builds what ships for a target and a floor, checks that it keeps the floor, and shows how large it is.
# usage: build.sh TARGET FLOOR       the binaries: target/cross/TARGET/FLOOR/bin
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1 floor=$2
stop() { echo "cross: $*" >&2; exit 1; }
. "$here/target.sh"
[ -r "$here/floors/$floor.conf" ] || stop "there is no floor '$floor': see cross/floors"
. "$here/floors/$floor.conf"

"$here/env.sh" "$target" "$floor" ./tests/cargo.sh build --release --locked --bins --features "$features" \
    -p headwater-agent -p headwater-pipelines -p headwater-gateway \
    -p headwater-setup

release="$(built "$floor")/$triple/release"
set -- headwater-agent headwater-worker headwater-gateway headwater headwater-setup
for name; do "$here/floor.sh" "$floor" "$release/$name" || broken=1; done
[ -z "${broken:-}" ] || stop "nothing of this is put into bin"

bin="${CARGO_TARGET_DIR:-target}/cross/$target/$floor/bin"
mkdir -p "$bin"
for name; do
    # Renamed into place: who runs the old one keeps it.
    cp -p "$release/$name" "$bin/$name.new"
    mv "$bin/$name.new" "$bin/$name"
done
"$here/sizes.sh" "$target" "$floor" "$bin"
