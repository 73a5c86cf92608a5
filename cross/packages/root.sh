#!/bin/sh
# Makes a Debian system in a folder, its packages configured by their own scripts: what a clean board or server has
# before Headwater is installed, and the packages that ours depend on, so that installing ours needs no network.
# usage: root.sh FOLDER SUITE ARCHITECTURE DEPENDENCY...      as in a Depends field: 'a (>= 1)' 'b | c'
# A root of the same list is kept. Packages come from where this machine's apt has its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$1 suite=$2 arch=$3
shift 3

stop() { echo "packages: $*" >&2; exit 1; }
as_root=""; [ "$(id -u)" = 0 ] || as_root=sudo
wanted=$(printf '%s\n' "$@" | sort -u)
key=$(printf '%s\n' "$suite $arch" "$wanted" "$(cat "$0")" | sha256sum | cut -c 1-16)
mkdir -p "$(dirname "$root")"
exec 9>"$root.lock"
flock 9
[ "$(cat "$root/.key" 2>/dev/null || true)" != "$key" ] || exit 0

sources=$("$here/../archive.sh" "$suite")
main=$(echo "$sources" | sed -n 1p) security=$(echo "$sources" | sed -n 2p)

echo "packages: making a root of $suite $arch in $root" >&2
# systemd as on every board; the rest of a minimal system comes with it.
make() {
    $as_root rm -rf "$root.new"
    $as_root mmdebstrap --quiet --mode=root --variant=minbase --architectures="$arch" \
        --include=systemd,systemd-sysv,dbus,ca-certificates \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "5"' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --customize-hook='printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"' \
        --customize-hook="chroot \"\$1\" env DEBIAN_FRONTEND=noninteractive apt-get satisfy -yqq '$(echo "$wanted" | paste -sd, -)' >/dev/null" \
        --customize-hook='rm "$1/usr/sbin/policy-rc.d"' \
        "$suite" "$root.new" "$@" 2>"$root.log"
}
if [ -z "$security" ] || ! make "$main" "$security"; then
    # Of some architectures the security archive is not whole.
    [ -z "$security" ] || echo "packages: without the security archive: $(tail -n 1 "$root.log")" >&2
    make "$main" || { cat "$root.log" >&2; stop "no root of $suite $arch; see $root.log"; }
fi
echo "$key" | $as_root tee "$root.new/.key" >/dev/null
$as_root rm -rf "$root"
$as_root mv "$root.new" "$root"
