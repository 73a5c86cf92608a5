#!/bin/sh
# Prints each function of the libraries that the worker links, and the version that brought it, as Debian's packages
# say. Kept in `symbols`; made anew where a root's GStreamer becomes newer: symbols.sh >symbols
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
cd "$work"
for package in libgstreamer1.0-0 libgstreamer-plugins-base1.0-0 libglib2.0-0; do
    apt-get -o APT::Sandbox::User=root download -qq "$package"
    dpkg-deb -e "$package"_*.deb "$package"
done
awk '
    / .*#MINVER#/ { ours = $1 ~ /^lib(gstreamer|gstbase|gstapp|gstvideo|glib|gobject|gio)-/ }
    ours && /^ (gst|g)_/ { sub(/@.*/, "", $1); sub(/[-+].*/, "", $2); print $1, $2 }
' ./*/symbols | LC_ALL=C sort -u
