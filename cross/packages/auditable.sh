#!/bin/sh
# Cargo as cargo-auditable calls it. Cargo makes the path of a wrapper a part of each crate's name, and so of the bytes;
# by its name alone, which is looked for in PATH, the wrapper is the same in every folder.
# usage: CARGO=auditable.sh cargo-auditable auditable ARGUMENT...       in the repository's root
set -eu
export RUSTC_WORKSPACE_WRAPPER=cargo-auditable
unset CARGO
exec ./tests/cargo.sh "$@"
