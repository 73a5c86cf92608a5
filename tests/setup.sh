#!/bin/sh
# Installs what building, running and testing Headwater needs and this Debian does not have yet.
# usage: setup.sh build | demo | test | bench      (each includes the one before)
#        setup.sh vm                               (build, and what the emulated machine needs)
#        setup.sh cross | test-arm64               (to build for a board; to run those tests here)
#        setup.sh image | image-test               (cross, and what makes an image; and what runs one here)
#        setup.sh yocto                            (what checking the Yocto layer needs; nothing of build)
#        setup.sh packages | packages-emulated     (build, and what packages need; those of another architecture too)
# Does nothing, and needs no network, where everything is there.
set -eu

build="build-essential pkg-config libssl-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev"
demo="mosquitto gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav ca-certificates"
test="ffmpeg curl openssl chromium chromium-driver mosquitto-clients rauc squashfs-tools grub-common tinyproxy-bin dpkg-repack"
bench="linux-perf"
packages="mmdebstrap dpkg-dev binutils util-linux"
# The kernel itself is fetched by vm/build.sh and unpacked beside the build, not installed.
vm="qemu-system-x86 busybox-static kmod cpio xz-utils make gcc gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-libav v4l-utils"
yocto="python3 python3-venv openssl rauc dbus-daemon squashfs-tools e2fsprogs grub-common mtools dosfstools fdisk"

# No development packages: a board's come from a folder of their own.
cross="build-essential pkg-config mmdebstrap python3-venv util-linux"
# systemd: its systemctl and systemd-sysusers work on a folder; nothing of it is started.
image="$cross uidmap systemd genimage mtools dosfstools grub-common rauc squashfs-tools e2fsprogs kmod cpio openssl zstd"
# The compiler, make and xz: for the kernel's virtual codec, which a scenario loads.
image_test="$image $build gcc-aarch64-linux-gnu make xz-utils mosquitto ffmpeg qemu-system-arm qemu-efi-aarch64 u-boot-qemu ipxe-qemu openssh-client tinyproxy-bin"
# Programs of another architecture print their own manuals when they are packed.
emulated="qemu-user-static"
test_arm64="$cross $emulated ffmpeg mosquitto mosquitto-clients curl openssl tinyproxy-bin dpkg-repack"

case "${1:-}" in
    build) wanted="$build" ;;
    demo) wanted="$build $demo" ;;
    test) wanted="$build $demo $test $packages" ;;
    bench) wanted="$build $demo $test $packages $bench" ;;
    vm) wanted="$build $vm" ;;
    packages) wanted="$build $packages" ;;
    packages-emulated) wanted="$build $packages $cross $emulated" ;;
    cross) wanted="$cross" ;;
    test-arm64) wanted="$test_arm64" ;;
    image) wanted="$image" ;;
    image-test) wanted="$image_test" ;;
    yocto) wanted="$yocto" ;;
    *) sed -n "s/^# *usage/usage/p; s/^#        setup/       setup/p" "$0" >&2; exit 2 ;;
esac

missing=""
for package in $wanted; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "setup: this is not a Debian-like system; install the counterparts of:$missing" >&2
    exit 1
fi
as_root=""
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: please run as root (or install sudo): apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi

echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# mosquitto's package starts a broker of its own on 1883; ours are started by the gateway. A policy file
# that says 101 keeps package scripts from starting services, and is taken away again, also by the next run where this
# one is killed.
policy=/usr/sbin/policy-rc.d
mark="# Headwater's setup, while it installs"
remove_policy() {
    if grep -qsF "$mark" "$policy"; then $as_root rm -f "$policy"; fi
}
trap remove_policy EXIT
trap 'exit 130' INT TERM HUP
remove_policy
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi
code=0
# Another apt that runs is waited for.
# shellcheck disable=SC2086  # a list of package names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $missing >/dev/null || code=$?
if [ "$code" != 0 ]; then
    echo "setup: apt-get could not install the packages above (exit $code); run 'apt-get install$missing' to see why" >&2
fi
exit "$code"
