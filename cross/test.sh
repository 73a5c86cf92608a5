#!/bin/sh
# Runs tests built for a target on this machine: target's programs through emulation, with that Debian's GStreamer.
# usage: test.sh TARGET FLOOR SUITE ARGUMENTS...       arguments are those of 'cargo test'
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1 floor=$2 suite=$3
shift 3
stop() { echo "cross: $*" >&2; exit 1; }
. "$here/target.sh"
[ -r "$here/floors/$floor.conf" ] || stop "there is no floor '$floor': see cross/floors"
. "$here/floors/$floor.conf"

mkdir -p "${CARGO_TARGET_DIR:-target}/cross/$target"
root=$(cd "${CARGO_TARGET_DIR:-target}/cross/$target" && pwd)/board-$suite
"$here/root.sh" "$root" "$suite" "$target" libc6 gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
    gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-tools
# Looked at once, before many processes would at the same time.
"$here/board.sh" "$root" "$target" "$root/usr/bin/gst-inspect-1.0" --version >/dev/null
"$here/board.sh" "$root" "$target" "$root/usr/bin/gst-inspect-1.0" identity >/dev/null

# Encoders are 10 to 20 times slower in emulation; the longest deadline that `probe` takes is 300 s.
export HEADWATER_TEST_PATIENCE="${HEADWATER_TEST_PATIENCE:-5}"
runner="target.$triple.runner = ['$here/once-more.sh', '${HEADWATER_TEST_LIMIT:-1500}', '$here/board.sh', '$root', '$target']"
exec "$here/env.sh" "$target" "$floor" ./tests/cargo.sh --config "$runner" test --locked --features "$features" "$@"
