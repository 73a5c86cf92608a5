#!/bin/sh
# oelint-adv on the whole layer, without findings. usage: lint.sh OELINT LAYER
set -eu
oelint="$1"
layer="$2"
here=$(dirname "$0")
suppressed=$(sed -n '/^#/d; s/^\([^ ]*\) .*/--suppress \1/p' "$here/suppressed")
# .inc files are read where they are required.
files=$(find "$layer" \( -name '*.bb' -o -name '*.bbappend' -o -name '*.bbclass' -o -path '*/conf/*.conf' \) | sort)
# shellcheck disable=SC2086  # lists without spaces in their items
"$oelint" --release wrynose --quiet --jobs 2 --constantmods "+$here/constants.json" $suppressed $files
