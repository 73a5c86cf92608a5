#!/bin/sh
# Bundles for `make image-test`: the image's own root with a file or two changed, and bundles that no board may take.
# usage: trial-bundles.sh IMAGE-FOLDER FOLDER       IMAGE-FOLDER is what build.sh made, with its development keys
set -eu
here=$(cd "$(dirname "$0")" && pwd)
image=$(cd "$1" && pwd)
keys="$image/keys"
[ "$(cat "$2/made" 2>/dev/null)" != "$(cat "$image/made")" ] || exit 0
rm -rf "$2"
mkdir -p "$2"
folder=$(cd "$2" && pwd)
cd "$folder"
ca="$keys/ca.pem"
# Made and signed fast; size is no matter here.
export ZSTD=1

# usage: derived NAME VERSION   and debugfs's commands on standard input
derived() {
    cp --sparse=always "$image/slot.ext4" slot
    { sed '/^IMAGE_VERSION=/d' "$image/tree/usr/lib/os-release"; echo "IMAGE_VERSION=$2"; } >os-release
    { printf 'rm usr/lib/os-release\nwrite os-release usr/lib/os-release\n'; cat; } >commands
    debugfs -w -f commands slot >debugfs.log 2>&1
    if grep -iE "not found|error|denied|exists" debugfs.log >&2; then exit 1; fi
    nice "$here/bundle.sh" slot "$2" "$keys/key.pem" "$keys/cert.pem" "$ca" "$1.raucb"
    rm -f slot os-release commands debugfs.log
}

derived good 0.1.1 </dev/null
derived better 0.1.2 </dev/null

# Its agent starts, and never speaks to anyone.
printf '[Service]\nType=exec\nExecStart=\nExecStart=/bin/sleep infinity\nWatchdogSec=0\n' >mute
derived mute 0.1.3 <<'COMMANDS'
write mute usr/lib/systemd/system/headwater-agent.service.d/mute.conf
COMMANDS

# Its kernel hangs while it starts, and waits for nobody.
printf '[Unit]\nAfter=local-fs.target\n[Service]\nType=oneshot\n' >hang
# shellcheck disable=SC2016
printf 'ExecStart=/bin/sh -c "echo headwater: hanging >/dev/console; echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger"\n' >>hang
derived hanging 0.1.4 <<'COMMANDS'
write hang usr/lib/systemd/system/hang.service
symlink etc/systemd/system/multi-user.target.wants/hang.service /usr/lib/systemd/system/hang.service
COMMANDS

# What is refused before it is unpacked need not be large.
head -c 1M /dev/urandom >small
rm -rf stranger
"$here/keys.sh" "$folder/stranger"
"$here/bundle.sh" small 0.1.5 stranger/key.pem stranger/cert.pem stranger/ca.pem stranger.raucb
"$here/bundle.sh" small 0.1.6 "$keys/key.pem" "$keys/cert.pem" "$ca" other-board.raucb headwater-other-board
head -c "$(($(stat -c %s good.raucb) / 2))" good.raucb >cut.raucb
# Whole by its length, with one byte of its content changed: dm-verity finds it when the block is read.
cp good.raucb damaged.raucb
at=$(($(stat -c %s good.raucb) / 2))
byte=$(od -An -tu1 -j "$at" -N 1 good.raucb)
# shellcheck disable=SC2059
printf "\\$(printf %03o $((byte ^ 255)))" | dd of=damaged.raucb bs=1 seek="$at" conv=notrunc status=none
rm -f small mute hang
cp "$image/made" made
