#!/bin/sh
# Everything about the Yocto layer that can be checked without OpenEmbedded. usage: check.sh   (`make yocto-check`)
# Python packages come by the machine's own pip configuration and stay in the target folder.
set -eu
cd "$(dirname "$0")/.."
venv="${CARGO_TARGET_DIR:-target}/yocto-venv"
python="$venv/bin/python"
if ! cmp -s yocto/check/requirements.txt "$venv/requirements.txt"; then
    echo "yocto: installing BitBake's parser and oelint-adv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement yocto/check/requirements.txt
    cp yocto/check/requirements.txt "$venv/requirements.txt"
fi

bad=0
check() {
    echo "yocto: $1"
    shift
    "$@" || bad=1
}
check "lists of crates" python3 yocto/scripts/crates.py --check
check "style" yocto/check/lint.sh "$venv/bin/oelint-adv" yocto/meta-headwater
check "recipes, as BitBake parses them" "$python" yocto/check/parse.py
check "recipes and the tree they build" "$python" yocto/check/tree.py
# Where cargo keeps what it fetched; see tests/cargo.sh.
./tests/cargo.sh fetch --quiet --locked
for home in "${CARGO_TARGET_DIR:-target}/cargo-home" "${CARGO_HOME:-$HOME/.cargo}"; do
    for cache in "$home"/registry/cache/*/; do
        [ -n "$(find "$cache" -name '*.crate' 2>/dev/null | head -n 1)" ] || continue
        check "crates, fetched and unpacked by BitBake" "$python" yocto/check/crates.py "$cache"
        break 2
    done
done
check "tests" "$python" -m unittest discover --quiet --start-directory yocto/tests
[ "$bad" = 0 ] && echo "yocto: all holds"
exit "$bad"
