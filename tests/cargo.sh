#!/bin/sh
# cargo, also where the home folder is read-only: downloads then go to the target folder, unless the
# read-only home already has them all. The machine's own registry configuration is kept.
set -eu
cargo=$(command -v cargo || true)
[ -n "$cargo" ] || cargo="$HOME/.cargo/bin/cargo"
if [ ! -x "$cargo" ]; then
    echo "cargo is not here; install Rust 1.95 or newer with rustup (https://rustup.rs) and try again" >&2
    exit 1
fi
home="${CARGO_HOME:-$HOME/.cargo}"
target="${CARGO_TARGET_DIR:-target}"
if [ ! -w "$home" ] && ! "$cargo" fetch --locked --offline >/dev/null 2>&1; then
    mkdir -p "$target/cargo-home"
    for file in config.toml config credentials.toml; do
        [ ! -e "$home/$file" ] || cp -p "$home/$file" "$target/cargo-home/$file"
    done
    CARGO_HOME=$(cd "$target/cargo-home" && pwd)
    export CARGO_HOME
fi
exec "$cargo" "$@"
