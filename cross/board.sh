#!/bin/sh
# Runs a command as if this machine had a board's programs and libraries beside its own: those of the target go
# through qemu's user emulation, with the target's GStreamer; what they call of this machine (ffmpeg, mosquitto)
# runs as it is. In a namespace of its own: the machine is not changed, and all is gone with the command.
# usage: board.sh ROOT TARGET COMMAND...       needs Linux 6.7 for binfmt_misc in a namespace
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$1 target=$2
shift 2
stop() { echo "cross: $*" >&2; exit 1; }
. "$here/target.sh"

qemu=$(command -v "qemu-$qemu-static") || stop "qemu-$qemu-static is not here; './tests/setup.sh test-arm64' installs it"
# Plugins are looked at once for a root, not in each process; the pointer authentication that qemu emulates by
# default is slow.
export GST_REGISTRY="$root.registry" QEMU_CPU="${QEMU_CPU:-$cpu}"
# shellcheck disable=SC2016  # for the inner shell
exec unshare --user --map-root-user --mount sh -euc '
    root=$1 qemu=$2 multiarch=$3 machine=$4
    shift 4
    # Names that both have are this machine'\''s, save those of the target'\''s libraries.
    mount -t overlay -o "lowerdir=/usr/lib:$root/usr/lib" overlay /usr/lib
    mount --bind "$root/usr/lib/$multiarch" "/usr/lib/$multiarch"
    # Older kernels have one list for the whole machine, which is not ours to change.
    if ! mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null; then
        [ -e "/proc/sys/fs/binfmt_misc/$(basename "${qemu%-static}")" ] && exec "$@"
        echo "cross: this needs Linux 6.7 or newer, or $(basename "$qemu") in binfmt_misc: systemctl restart systemd-binfmt" >&2
        exit 1
    fi
    mask="\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff"
    printf %s ":board:M::\\x7fELF$machine:$mask:$qemu:F" >/proc/sys/fs/binfmt_misc/register
    exec "$@"
' sh "$root" "$qemu" "$multiarch" "$machine" "$@"
