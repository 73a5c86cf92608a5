#!/bin/sh
# Says whether binaries run on the oldest systems of a floor: their C library, the functions of GStreamer and GLib
# that they call, the libraries they ask for. Each thing that does not hold is a line, and the exit status is 1.
# usage: floor.sh FLOOR BINARY...
set -eu
here=$(cd "$(dirname "$0")" && pwd)
floor=$1
shift
[ -r "$here/floors/$floor.conf" ] || { echo "floor: there is no floor '$floor'" >&2; exit 2; }
. "$here/floors/$floor.conf"

export LC_ALL=C
for binary in "$@"; do
    readelf -W -h "$binary" >/dev/null
    { readelf -W -d "$binary"; readelf -W -V "$binary"; readelf -W --dyn-syms "$binary"; } |
        awk -v name="$(basename "$binary")" -v floor="$floor" -v glibc="$glibc" -v gstreamer="$gstreamer" \
            -v glib="$glib" -v libraries="$libraries" -v known="$here/floors/symbols" '
        function number(version, part) { split(version, part, "."); return part[1] * 1000000 + part[2] * 1000 + part[3] }
        function broken(why) { print "floor: " name " " why; bad = 1 }
        BEGIN {
            while ((getline line <known) > 0) { split(line, pair, " "); since[pair[1]] = pair[2] }
            count = split(libraries, list, " ")
            for (i = 1; i <= count; i++) allowed[list[i]] = 1
        }
        /\(NEEDED\)/ {
            gsub(/.*\[|\].*/, "")
            if (!($0 in allowed)) broken("wants " $0 ", which floor " floor " does not count on")
        }
        / Name: GLIBC_[0-9]/ {
            match($0, /GLIBC_[0-9.]+/)
            version = substr($0, RSTART + 6, RLENGTH - 6)
            if (number(version) > number(glibc)) broken("wants glibc " version "; floor " floor " has " glibc)
        }
        $7 == "UND" && $8 ~ /^(gst|g)_/ {
            sub(/@.*/, "", $8)
            has = $8 ~ /^gst_/ ? gstreamer : glib
            if (!($8 in since)) broken("calls " $8 ", which cross/floors/symbols does not know")
            else if (number(since[$8]) > number(has)) broken("calls " $8 " of " since[$8] "; floor " floor " has " has)
        }
        END { exit bad }
    ' || bad=1
done
exit "${bad:-0}"
