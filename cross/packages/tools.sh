#!/bin/sh
# Installs the programs that packaging needs, in fixed versions, where cargo-deny is too. What is there is kept.
# usage: tools.sh [TOOL...]       prints the folder of the programs
set -eu
tools="${CARGO_TARGET_DIR:-target}/tools"
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
[ $# != 0 ] || set -- cargo-deb cargo-auditable cargo-cyclonedx
for tool; do
    case "$tool" in
        cargo-deb) version=3.8.0 ;;
        cargo-auditable) version=0.7.7 ;;
        cargo-cyclonedx) version=0.5.9 ;;
        *) echo "packages: no version is chosen for $tool" >&2; exit 2 ;;
    esac
    if ! grep -qs "^\"$tool $version " "$tools/.crates.toml"; then
        echo "packages: installing $tool $version" >&2
        ./tests/cargo.sh install --quiet --locked --version "$version" --root "$tools" "$tool" >&2
    fi
done
echo "$tools/bin"
