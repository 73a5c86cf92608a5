#!/bin/sh
# Runs in the emulated machine, in the host's root folder (read-only), and leaves what it saw in /run/share:
# NAME.out, NAME.err and NAME.code for every step. It judges nothing; the test on the host does.
cd /run/share || exit 1
# shellcheck source=/dev/null
. ./settings # $worker and $chains: programs of this tree; $clip: a file; $plugins: further ones of GStreamer
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run LC_ALL=C TMPDIR=/tmp XDG_CACHE_HOME=/run/cache
# Only what the steps need: to look at every plugin takes an emulated machine minutes.
export GST_PLUGIN_SYSTEM_PATH=/run/plugins GST_REGISTRY=/run/registry.bin GST_REGISTRY_FORK=no
mkdir -p /run/plugins
for plugin in coreelements app video4linux2 videoconvertscale videoconvert videoscale deinterlace videofilter $plugins; do
    for file in /usr/lib/*-linux-gnu/gstreamer-1.0/libgst$plugin.so; do
        [ ! -e "$file" ] || ln -sf "$file" /run/plugins/
    done
done

# step NAME SECONDS COMMAND...: a step that hangs is ended, and says 124.
step() {
    name=$1 limit=$2
    shift 2
    read -r began _ </proc/uptime
    timeout -k 5 "$limit" "$@" >"$name.out" 2>"$name.err" </dev/null
    code=$?
    read -r ended _ </proc/uptime
    echo "guest: $name ended with $code ($began to $ended s)"
    echo "$code" >"$name.code"
}

step kernel 10 uname -r
step devices 30 "$chains" devices
if command -v v4l2-ctl >/dev/null; then
    step v4l2-ctl 20 v4l2-ctl --list-devices
    step controls-by-v4l2-ctl 20 sh -c 'for at in /dev/video*; do echo "$at"; v4l2-ctl -d "$at" --list-ctrls; done'
fi
step elements 60 "$chains" elements
step controls 30 "$chains" controls
step recycle-ready 60 "$chains" recycle-ready 12
step scale 60 "$chains" scale
for number in 1 2 4 8; do step "instances-$number" 60 "$chains" instances "$number"; done

# The worker: its elements proved, then a file through the device, segment by segment, and back in.
step probe 400 "$worker" probe --deadline 100s
step remembered 10 cat /run/cache/headwater/probe.json
export GST_DEBUG=v4l2:4 GST_DEBUG_NO_COLOR=1 # says which element opens a device
step into-fwht 150 "$worker" transcode "$clip" --ladder ladder.json --output into-fwht --segment 1s --json
cat into-fwht/fwht/?.ts >/tmp/fwht.ts
step from-fwht 150 "$worker" transcode /tmp/fwht.ts --ladder ladder.json --output from-fwht --segment 1s --json
unset GST_DEBUG GST_DEBUG_NO_COLOR

# The device goes away: while it works the kernel refuses, after it the elements are gone.
step unplug-busy 60 "$chains" unplug-busy
rmmod vicodec
step unplugged 60 "$chains" recycle-ready 1
insmod /run/modules/vicodec.ko
step plugged-again 60 "$chains" recycle-ready 1
touch finished
