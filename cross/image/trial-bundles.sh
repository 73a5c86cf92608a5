#!/bin/sh
# Bundles for `make image-test`: the image's own root with a file or two changed, and bundles that no board may take.
# usage: trial-bundles.sh IMAGE-FOLDER FOLDER NAME...     IMAGE-FOLDER is what build.sh made, with its development keys
#        NAME  good better mute blind hanging unloadable dataless stranger other-board cut damaged   leaves FOLDER/NAME.raucb
# What was made for the same image is kept.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
image=$(cd "$1" && pwd)
mkdir -p "$2"
folder=$(cd "$2" && pwd)
shift 2
keys="$image/keys"
ca="$keys/ca.pem"
cd "$folder"
key=$(cat "$image/made" "$here/trial-bundles.sh" | sha256sum)
if [ "$(cat made 2>/dev/null)" != "$key" ]; then
    rm -rf ./*
    echo "$key" >made
fi
# Made and signed fast; size is no matter here.
export ZSTD=1

# usage: derived NAME VERSION   and debugfs's commands on standard input
derived() {
    cp --sparse=always "$image/slot.ext4" slot
    { sed '/^IMAGE_VERSION=/d' "$image/tree/usr/lib/os-release"; echo "IMAGE_VERSION=$2"; } >os-release
    { printf 'rm usr/lib/os-release\nwrite os-release usr/lib/os-release\n'; cat; } >commands
    debugfs -w -f commands slot >debugfs.log 2>&1
    if grep -iE "not found|error|denied|exists" debugfs.log >&2; then exit 1; fi
    nice "$here/bundle.sh" slot "$2" "$keys/key.pem" "$keys/cert.pem" "$ca" "$1.raucb.new"
    rm -f slot os-release commands debugfs.log
}

# What is refused before it is unpacked need not be large.
# usage: small NAME VERSION KEY CERT CA [COMPATIBLE]
small() {
    head -c 1M /dev/urandom >content
    "$here/bundle.sh" content "$2" "$3" "$4" "$5" "$1.raucb.new" ${6:+"$6"}
    rm -f content
}

# usage: one NAME
one() {
    [ ! -e "$1.raucb" ] || return 0
    case "$1" in cut | damaged) one good ;; esac
    case "$1" in
        good) derived good 0.1.1 </dev/null ;;
        better) derived better 0.1.2 </dev/null ;;
        mute)
            # Its agent starts, and never speaks to anyone.
            printf '[Service]\nType=exec\nExecStart=\nExecStart=/bin/sleep infinity\nWatchdogSec=0\n' >unit
            derived mute 0.1.3 <<'COMMANDS'
write unit usr/lib/systemd/system/headwater-agent.service.d/mute.conf
COMMANDS
            rm unit
            ;;
        blind)
            # Its agent connects, and its worker proves no codec.
            cat >worker <<'WORKER'
#!/bin/sh
[ "$1" = probe ] || exit 1
echo '{"worker_version":"0.1.7","gstreamer_version":"1.22.0","profile":"software","capabilities":[]}'
WORKER
            chmod 755 worker
            derived blind 0.1.7 <<'COMMANDS'
rm usr/bin/headwater-worker
write worker usr/bin/headwater-worker
COMMANDS
            rm worker
            ;;
        hanging)
            # Its kernel hangs while it starts, and waits for nobody.
            {
                printf '[Unit]\nAfter=local-fs.target\n[Service]\nType=oneshot\n'
                printf 'ExecStart=/bin/sh -c "echo headwater: hanging >/dev/console; '
                printf 'echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger"\n'
            } >unit
            derived hanging 0.1.4 <<'COMMANDS'
write unit usr/lib/systemd/system/hang.service
symlink etc/systemd/system/multi-user.target.wants/hang.service /usr/lib/systemd/system/hang.service
COMMANDS
            rm unit
            ;;
        unloadable)
            # The boot loader finds no kernel in it.
            derived unloadable 0.1.8 <<'COMMANDS'
rm boot/vmlinuz
COMMANDS
            ;;
        dataless)
            # It does not know how to mount the data partition. Of two files in an initramfs, the later one counts.
            sed 's/mount -t ext4 -o noatime/false/' "$here/init" >init
            chmod 755 init
            { cat "$image/tree/boot/initrd.img"; echo init | cpio -o -H newc -R 0:0 --quiet | gzip -n; } >initrd
            derived dataless 0.1.9 <<'COMMANDS'
rm boot/initrd.img
write initrd boot/initrd.img
COMMANDS
            rm init initrd
            ;;
        stranger)
            rm -rf strangers
            "$here/keys.sh" "$folder/strangers"
            small stranger 0.1.5 strangers/key.pem strangers/cert.pem strangers/ca.pem
            ;;
        other-board) small other-board 0.1.6 "$keys/key.pem" "$keys/cert.pem" "$ca" headwater-other-board ;;
        cut) head -c "$(($(stat -c %s good.raucb) / 2))" good.raucb >cut.raucb.new ;;
        damaged)
            # Whole by its length, with one byte of its content changed: dm-verity finds it when the block is read.
            cp good.raucb damaged.raucb.new
            at=$(($(stat -c %s good.raucb) / 2))
            byte=$(od -An -tu1 -j "$at" -N 1 good.raucb)
            # shellcheck disable=SC2059
            printf "\\$(printf %03o $((byte ^ 255)))" | dd of=damaged.raucb.new bs=1 seek="$at" conv=notrunc status=none
            ;;
        *) echo "trial-bundles: there is no '$1'" >&2; exit 2 ;;
    esac
    mv "$1.raucb.new" "$1.raucb"
}

for name in "$@"; do one "$name"; done
