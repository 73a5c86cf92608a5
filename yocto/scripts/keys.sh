#!/bin/sh
# Makes the keys that updates are signed with: a CA that boards trust, and a release key that it vouches for.
# usage: keys.sh FOLDER            (HEADWATER_KEYS of the build; keep it out of every repository, and a copy off-line)
# Whoever has release.key.pem can install on every board that trusts ca.cert.pem.
set -eu
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
folder="$1"
if [ -e "$folder/ca.cert.pem" ]; then
    echo "keys: $folder has keys already; boards in the field trust them, so they stay" >&2
    exit 1
fi
# openssl is talkative when all is well, and must be heard when it is not.
quiet() {
    said=$("$@" 2>&1) || { echo "keys: $1 failed: $said" >&2; exit 1; }
}
umask 077
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d "$folder/new.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
cd "$work"
# 20 years: a board's clock and its owner must both outlive no certificate. A release key can be replaced by the CA.
days=7300
new="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
# shellcheck disable=SC2086  # options
quiet openssl req -x509 $new -keyout ca.key.pem -out ca.cert.pem -days "$days" -subj "/CN=Headwater updates CA" \
    -addext "keyUsage=critical,keyCertSign,cRLSign"
# shellcheck disable=SC2086
quiet openssl req $new -keyout release.key.pem -out release.csr.pem -subj "/CN=Headwater updates"
# RAUC takes certificates for signing e-mail or for anything.
printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=emailProtection\n' > release.ext
quiet openssl x509 -req -in release.csr.pem -CA ca.cert.pem -CAkey ca.key.pem -CAcreateserial -out release.cert.pem -days "$days" \
    -extfile release.ext
# The CA's certificate last: with it the set is whole.
for made in ca.key.pem release.key.pem release.cert.pem ca.cert.pem; do mv "$made" "$folder/$made"; done
echo "keys: $folder has ca.cert.pem (boards), release.cert.pem and release.key.pem (bundles), and ca.key.pem (put it away)"
