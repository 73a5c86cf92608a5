#!/bin/sh
# Fetches what cross-building for a target needs into FOLDER. What is there already, in the right version, is kept.
# usage: kit.sh FOLDER TARGET
set -eu
here=$(cd "$(dirname "$0")" && pwd)
kit=$1 target=$2
stop() { echo "cross: $*" >&2; exit 1; }
. "$here/target.sh"

# What agent, worker, gateway and the operator's command link.
link="libc6-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libssl-dev"

[ "$(uname -m)" = x86_64 ] || stop "cross-building runs on x86-64; on an ARM machine 'make build' makes its own binaries"
mkdir -p "$kit/$target"

# zig links, and compiles the C of crates, against the C library of any age.
if ! cmp -s "$here/requirements.txt" "$kit/tools/requirements.txt"; then
    echo "cross: fetching zig and cargo-zigbuild" >&2
    rm -rf "$kit/tools"
    python3 -m venv "$kit/tools"
    "$kit/tools/bin/pip" install --quiet --no-deps --require-hashes -r "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$kit/tools/requirements.txt"
fi

# Debian 12's, for every floor: what is newer there than on an older board, the floor's check finds.
# shellcheck disable=SC2086  # a list of packages
"$here/root.sh" "$kit/$target/root" bookworm "$target" $link

# Rust's standard library for the target: from rustup, or Debian's own compiler, unpacked.
if [ -d "$(rustc --print sysroot)/lib/rustlib/$triple" ]; then exit 0; fi
if command -v rustup >/dev/null && timeout 300 rustup --quiet target add "$triple" >&2; then exit 0; fi
[ "$target" = arm64 ] || stop "Rust's standard library for $triple is not here, and rustup could not fetch it: make 'rustup target add $triple' work, or unpack its rust-std into $(rustc --print sysroot), and try again. Debian 12's own for $target is older than GStreamer's crates want"
echo "cross: rustup cannot fetch $triple; Debian's rustc-web instead" >&2
"$here/root.sh" "$kit/$target/rust" bookworm "amd64,$target" rustc-web "libstd-rust-web-dev:$target"
