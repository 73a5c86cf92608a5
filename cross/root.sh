#!/bin/sh
# Unpacks Debian packages, and all that they depend on, into a folder: for linking against, or for running in.
# None of their scripts run, so the architecture may be any. Packages come from where this machine's apt has its own.
# usage: root.sh FOLDER SUITE ARCHITECTURE PACKAGE...       a root of the same packages is kept
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$1 suite=$2 arch=$3
shift 3

stop() { echo "cross: $*" >&2; exit 1; }
key=$(echo "$suite $arch $* $(cat "$here/root.sh" "$here/links.py" | sha256sum)" | sha256sum | cut -c 1-16)
mkdir -p "$(dirname "$root")"
exec 9>"$root.lock"
flock 9
[ "$(cat "$root/.key" 2>/dev/null || true)" != "$key" ] || exit 0

as_root=""; [ "$(id -u)" = 0 ] || as_root=sudo
sources=$("$here/archive.sh" "$suite")
main=$(echo "$sources" | sed -n 1p) security=$(echo "$sources" | sed -n 2p)

$as_root rm -rf "$root.new"
unpack() {
    # shellcheck disable=SC2086  # a list of sources
    $as_root mmdebstrap --quiet --mode=root --variant=extract --architectures="$arch" --include="$packages" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "5"' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/icons/*' \
        "$suite" "$root.new" "$@" 2>"$root.log"
}
packages=$(echo "$*" | tr ' ' ,)
echo "cross: unpacking $suite $arch into $root" >&2
if [ -z "$security" ] || ! unpack "$main" "$security"; then
    # Of some architectures and older suites the security archive is not whole.
    [ -z "$security" ] || echo "cross: without the security archive, which could not be used: $(tail -n 1 "$root.log")" >&2
    $as_root rm -rf "$root.new"
    unpack "$main" || { cat "$root.log" >&2; stop "$suite $arch could not be unpacked"; }
fi
[ -z "$as_root" ] || $as_root chown -R "$(id -u):$(id -g)" "$root.new"

# One /usr, as an installed system has it; packages of Debian 12 still bring /lib.
for folder in lib bin sbin; do
    [ -L "$root.new/$folder" ] && continue
    mkdir -p "$root.new/usr/$folder"
    if [ -d "$root.new/$folder" ]; then
        cp -a "$root.new/$folder/." "$root.new/usr/$folder/"
        rm -rf "$root.new/$folder"
    fi
    ln -s "usr/$folder" "$root.new/$folder"
done
python3 "$here/links.py" "$root.new"
for folder in proc sys dev tmp run etc; do mkdir -p "$root.new/$folder"; done
echo "$key" >"$root.new/.key"
rm -rf "$root"
mv "$root.new" "$root"
