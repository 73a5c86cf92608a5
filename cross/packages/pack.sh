#!/bin/sh
# Packs programs that are built already, with what is made from them, as .deb files.
# usage: pack.sh ARCHITECTURE BINARIES OUT
# From the same binaries, the same bytes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
stop() { echo "packages: $*" >&2; exit 1; }
arch=$1 binaries=$(readlink -f "$2") out=$3
case "$arch" in
    amd64) triple=x86_64-unknown-linux-gnu ;;
    arm64) triple=aarch64-unknown-linux-gnu ;;
    armhf) triple=armv7-unknown-linux-gnueabihf ;;
    *) stop "ARCH is amd64, arm64 or armhf, not '$arch'" ;;
esac
cd "$here/../.."
target=${CARGO_TARGET_DIR:-target}
# shellcheck source=/dev/null
. "$here/epoch.sh"
umask 022

tools=$("$here/tools.sh" cargo-deb cargo-cyclonedx)
PATH="$tools:$PATH"
mkdir -p "$out"
out=$(cd "$out" && pwd)
stage=$(mktemp -d "$out/stage.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' INT TERM HUP
# What cargo-deb takes for cargo's own folder.
release="$stage/target/$triple/release"
mkdir -p "$release/made"

# A program for another machine runs in user emulation. Help shows values of the environment: there are none.
run() {
    if [ "$arch" = "$(dpkg --print-architecture)" ]; then
        env -i PATH="$PATH" HOME=/nonexistent "$@"
    else
        "$here/../board.sh" "$target/cross/$arch/root" "$arch" env -i PATH="$PATH" HOME=/nonexistent "$@"
    fi
}

# What is made from a program: manual, completions.
describe() {
    program=$1 share=$2
    mkdir -p "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/vendor-completions" \
        "$share/fish/vendor_completions.d"
    run "$program" man "$share/man/man1"
    name=$(basename "$program")
    run "$program" completions bash >"$share/bash-completion/completions/$name"
    run "$program" completions zsh >"$share/zsh/vendor-completions/_$name"
    run "$program" completions fish >"$share/fish/vendor_completions.d/$name.fish"
    gzip -9n "$share"/man/man1/*.1
}

"$here/sbom.sh" "$triple" "$stage/sbom"

# usage: package NAME CRATE [cargo-deb's arguments]      a package has the name of its program
package() {
    name=$1 crate=$2
    shift 2
    made="$release/made/$name"
    install -m 755 "$binaries/$name" "$release/$name"
    # Debug builds hold paths and symbols that nobody needs; release builds are stripped.
    [ "$arch" != "$(dpkg --print-architecture)" ] || strip "$release/$name"
    describe "$release/$name" "$made/share"
    doc="$made/share/doc/$name"
    install -D -m 644 "$stage/sbom/$name.cdx.json" "$doc/sbom.cdx.json"
    gzip -9nc CHANGELOG.md >"$doc/NEWS.md.gz"
    {
        echo "$name ($version) stable; urgency=medium"
        printf '\n  * What is new is told in NEWS.md.gz, beside this file.\n\n'
        echo " -- Headwater maintainers <maintainers@headwater.invalid>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")"
    } | gzip -9nc >"$doc/changelog.gz"
    # A program with a service brings every unit of its crate.
    if [ -e "$crate/dist/$name.service" ]; then
        for unit in "$crate"/dist/*.service "$crate"/dist/*.socket "$crate"/dist/*.path "$crate"/dist/*.timer; do
            [ ! -e "$unit" ] || install -D -m 644 -t "$made/lib/systemd/system" "$unit"
        done
    fi
    CARGO_TARGET_DIR="$stage/target" ./tests/cargo.sh deb --quiet --manifest-path "$crate/Cargo.toml" --target "$triple" \
        --no-build --no-strip --locked --output "$stage" "$@" >/dev/null
}

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
package headwater-agent agent
package headwater-worker pipelines
package headwater-gateway gateway --variant gateway
package headwater gateway
# Of another version, they would be two for one name.
for made in "$stage"/*.deb; do
    name=${made##*/}
    rm -f "$out/${name%%_*}"_*.deb
    mv "$made" "$out/"
    echo "$out/${made##*/}"
done
