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

shared=${CARGO_TARGET_DIR:-target}
bin="$shared/cross/$target/$floor/bin"
# Cargo does not see that the linker is another: each floor but the usual one has a folder of its own.
if [ "$floor" = current ]; then built="$shared"; else built="$shared/cross/$target/$floor/cargo"; fi
"$here/env.sh" "$target" "$floor" ./tests/cargo.sh build --release --locked --bins \
    --target-dir "$built" --features "$features" -p headwater-agent -p headwater-pipelines -p headwater-gateway

mkdir -p "$bin"
for name in headwater-agent headwater-worker headwater-gateway headwater; do
    cp -f "$built/$triple/release/$name" "$bin/$name.new"
    mv "$bin/$name.new" "$bin/$name"
done
"$here/floor.sh" "$floor" "$bin"/*
"$here/sizes.sh" "$target" "$floor" "$bin"
