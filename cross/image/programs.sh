#!/bin/sh
# The board's programs for arm64: built, or taken from the user's cache folder, where the last three builds are kept by
# what they were made of. So a change elsewhere costs no build for the board.
# usage: programs.sh       leaves them where `cross/build.sh` does
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
names="headwater-agent headwater-worker headwater-setup"
bin="${CARGO_TARGET_DIR:-target}/cross/arm64/current/bin"
cache=""
if [ -n "${XDG_CACHE_HOME:-${HOME:-}}" ]; then
    cache="${XDG_CACHE_HOME:-$HOME/.cache}/headwater/programs"
    if ! mkdir -p "$cache" 2>/dev/null || [ ! -w "$cache" ]; then cache=""; fi
fi
# All that goes into them; tests do not.
sources() {
    compiler=$(rustc -vV)
    {
        echo "$compiler"
        env | LC_ALL=C sort | grep -E '^(RUSTFLAGS|CARGO_(BUILD|PROFILE|ENCODED)_)' || true
        find Cargo.toml Cargo.lock protocol agent pipelines cross/image/setup cross/floors cross/*.* -type f \
            ! -path '*/tests/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c 1-16
}
key=$(sources)

if [ -n "$cache" ] && [ -d "$cache/$key" ]; then
    echo "image: the board's programs are those of an earlier build of the same sources" >&2
    touch "$cache/$key"
    mkdir -p "$bin"
    for name in $names; do
        cp -p "$cache/$key/$name" "$bin/$name.new"
        mv "$bin/$name.new" "$bin/$name"
    done
    exit 0
fi
./cross/build.sh arm64 current board
# Sources that were changed while they were built made nobody knows what.
if [ -z "$cache" ] || [ "$(sources)" != "$key" ]; then exit 0; fi
new="$cache/new-$$"
trap 'rm -rf "$new"' EXIT
trap 'exit 1' INT TERM HUP
mkdir "$new"
for name in $names; do cp -p "$bin/$name" "$new/"; done
[ -d "$cache/$key" ] || mv "$new" "$cache/$key"
find "$cache" -mindepth 1 -maxdepth 1 -type d ! -name 'new-*' -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d ' ' -f 2- |
    while read -r old; do rm -rf "$old"; done
