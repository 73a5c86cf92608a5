#!/bin/sh
# Licences, sources, bans and, where the advisory database can be reached or is there already, advisories.
set -eu
tools="${CARGO_TARGET_DIR:-target}/tools"
PATH="$tools/bin:$PATH:$HOME/.cargo/bin"
export PATH
if ! command -v cargo-deny >/dev/null; then
    echo "deny: installing cargo-deny"
    ./tests/cargo.sh install --quiet --locked --version 0.20.2 --root "$tools" cargo-deny
fi
cargo-deny --locked --all-features check bans licenses sources
if cargo-deny --locked fetch db >/dev/null 2>&1; then
    cargo-deny --locked --all-features check advisories
else
    echo "deny: advisories NOT checked: the advisory database cannot be reached from this machine"
fi
