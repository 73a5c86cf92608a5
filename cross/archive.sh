#!/bin/sh
# Prints where this machine's apt has a Debian suite from, as lines of a sources.list: the main archive, and the
# security archive where apt is told of one.
# usage: archive.sh SUITE
set -eu
suite=$1
# The address of an archive, by its label; its lists say that, so they must be here.
# shellcheck disable=SC2016  # apt's variables
address() { apt-get indextargets --format '$(LABEL)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' |
    sed -n "s/^$1|main|//p" | head -n 1; }
debian=$(address Debian)
if [ -z "$debian" ]; then
    as_root=""; [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get update -qq >&2
    debian=$(address Debian)
fi
[ -n "$debian" ] || { echo "archive: apt has no Debian archive here; this needs Debian 12 or newer" >&2; exit 1; }
security=$(address Debian-Security)
echo "deb $debian $suite main"
[ -z "$security" ] || echo "deb $security $suite-security main"
