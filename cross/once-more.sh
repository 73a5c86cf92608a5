#!/bin/sh
# Runs one program of tests, and once more where it is not over in time: qemu's user emulation (seen with Debian 12's 7.2)
# now and then hangs in a child that a program with threads has forked. What hangs twice has failed.
# usage: once-more.sh SECONDS COMMAND...
set -eu
limit=$1
shift
# timeout makes a group of its own, which Ctrl-C does not reach by itself.
try() {
    timeout --kill-after=10 "$limit" "$@" &
    trap 'kill "$!" 2>/dev/null; exit 130' INT TERM HUP
    wait "$!"
}
ended=0
try "$@" || ended=$?
case $ended in
    124 | 137) echo "cross: not over after $limit s: $*; once more" >&2 ;;
    *) exit "$ended" ;;
esac
try "$@"
