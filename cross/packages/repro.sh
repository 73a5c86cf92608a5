#!/bin/sh
# Builds and packs twice, from copies of the sources in two folders of different names,
# and says whether the packages are the same, byte for byte. Two whole release builds: a long run.
# usage: repro.sh ARCHITECTURE FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
arch=$1
rm -rf "$2"
mkdir -p "$2"
folder=$(cd "$2" && pwd)
cd "$here/../.."
shared=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)

for copy in a b-of-another-length; do
    mkdir -p "$folder/$copy"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --preserve=timestamps -t "$folder/$copy"
    # Tools, and what cross-building fetched, are the same for both.
    mkdir -p "$folder/$copy/target"
    for part in tools cross; do [ ! -e "$shared/$part" ] || ln -s "$shared/$part" "$folder/$copy/target/$part"; done
    (
        unset CARGO_TARGET_DIR
        cd "$folder/$copy"
        ./cross/packages/build.sh "$arch" target/packages/build
        ./cross/packages/pack.sh "$arch" target/packages/build/bin target/packages/debs
    )
    (cd "$folder/$copy/target/packages/debs" && sha256sum ./*.deb) >"$folder/$copy.sums"
    # Two builds side by side are several gigabytes.
    rm -rf "$folder/$copy/target/packages/build/cargo"
done
diff "$folder"/*.sums || { echo "packages: two builds of the same sources differ" >&2; exit 1; }
cat "$folder/a.sums"
