#!/bin/sh
# Makes keys for signing bundles while developing. Who holds a fleet makes its own, on a machine that is not online.
# usage: keys.sh FOLDER      leaves key.pem, cert.pem and ca.pem there; keys that are there stay
set -eu
folder=$1
[ ! -e "$folder/ca.pem" ] || exit 0
mkdir -p "$folder.new"
cd "$folder.new"
# 30 years: a board that was on a shelf must still take its update.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout ca.key -out ca.pem -days 10950 \
    -subj "/O=Headwater/CN=development CA" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout key.pem -out request.pem \
    -subj "/O=Headwater/CN=development bundles" 2>/dev/null
printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=emailProtection\n' >extensions
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 10950 -extfile extensions \
    -out cert.pem 2>/dev/null
rm -f request.pem extensions ca.srl
chmod 600 ./*.key key.pem
cd - >/dev/null
mv "$folder.new" "$folder"
