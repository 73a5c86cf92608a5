#!/bin/sh
# Builds what is packed: release binaries that hold the list of their libraries (cargo auditable) and no path of the
# machine they were built on, so that the same sources give the same bytes in any folder.
# usage: build.sh ARCHITECTURE FOLDER       the binaries: FOLDER/bin
set -eu
here=$(cd "$(dirname "$0")" && pwd)
arch=$1
mkdir -p "$2/bin"
folder=$(cd "$2" && pwd)
cd "$here/../.."
# shellcheck source=/dev/null
. "$here/epoch.sh"
floor=current
# shellcheck source=/dev/null
. "$here/../floors/$floor.conf"

PATH="$("$here/tools.sh" cargo-auditable):$PATH"
export PATH
cargo_home=${CARGO_HOME:-$HOME/.cargo}
# The same places under the same names, for rustc, and for the compilers of the C in crates.
RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }--remap-path-prefix=$(pwd)=/usr/src/headwater --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$folder=/build"
CFLAGS="${CFLAGS:+$CFLAGS }-ffile-prefix-map=$(pwd)=/usr/src/headwater -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$folder=/build"
export RUSTFLAGS CFLAGS
built="$folder/cargo/release"
if [ "$arch" = "$(dpkg --print-architecture)" ]; then
    set --
else
    target=$arch
    stop() { echo "packages: $*" >&2; exit 1; }
    # shellcheck source=/dev/null
    . "$here/../target.sh"
    # shellcheck disable=SC2154  # of target.sh
    built="$folder/cargo/$triple/release"
    set -- "$here/../env.sh" "$arch" "$floor"
fi
# shellcheck disable=SC2154  # of the floor
"$@" env CARGO="$here/auditable.sh" cargo-auditable auditable build --release --locked --bins --target-dir "$folder/cargo" \
    --features "$features" -p headwater-agent -p headwater-pipelines -p headwater-gateway >&2
set -- headwater-agent headwater-worker headwater-gateway headwater
for name; do "$here/../floor.sh" "$floor" "$built/$name" || broken=1; done
[ -z "${broken:-}" ] || { echo "packages: nothing of this is packed" >&2; exit 1; }
for name; do install -m 755 "$built/$name" "$folder/bin/$name"; done
"$here/../sizes.sh" "$arch" packaged "$folder/bin" >&2
