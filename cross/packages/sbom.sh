#!/bin/sh
# Writes what is linked into each program, with versions, sources and licences: FOLDER/PROGRAM.cdx.json, CycloneDX.
# usage: sbom.sh TRIPLE FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
triple=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
cd "$here/../.."
PATH="$("$here/tools.sh" cargo-cyclonedx):$PATH"
export PATH

# cargo-cyclonedx writes beside the manifests, so it gets a copy of what cargo looks at.
copy="$folder/sources"
mkdir -p "$copy"
find . -name target -prune -o -name .git -prune -o -type f \( -name '*.rs' -o -name '*.toml' -o -name Cargo.lock \) \
    -exec cp --parents -t "$copy" {} +
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}") ./tests/cargo.sh cyclonedx --quiet --manifest-path "$copy/Cargo.toml" \
    --describe binaries --format json --spec-version 1.5 --target "$triple"
for made in "$copy"/*/*_bin.cdx.json; do
    program=$(basename "$made" _bin.cdx.json)
    sed "s|$copy|/usr/src/headwater|g" "$made" >"$folder/$program.cdx.json"
done
rm -rf "$copy"
