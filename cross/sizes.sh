#!/bin/sh
# Shows the sizes of a target's binaries beside those in `sizes`; one above its limit is a failure.
# usage: sizes.sh TARGET FLOOR FOLDER        UPDATE_SIZES=1 writes them down
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1 floor=$2 folder=$3
table="$here/sizes"

measured=$(cd "$folder" && wc -c headwater* | awk -v kind="$target $floor" '$2 != "total" { print kind, $2, $1 }')
echo "$measured" | awk -v table="$table" '
    BEGIN {
        while ((getline line <table) > 0) { split(line, part, " "); key = part[1] " " part[2] " " part[3]
            kept[key] = part[4]; limit[key] = part[5] }
        printf "%-6s %-8s %-18s %10s %10s %10s\n", "target", "floor", "binary", "bytes", "kept", "limit"
    }
    {
        key = $1 " " $2 " " $3
        printf "%-6s %-8s %-18s %10d %10s %10s\n", $1, $2, $3, $4, key in kept ? kept[key] : "-", limit[key] ? limit[key] : "-"
        if (limit[key] && $4 > limit[key]) { print "sizes: " $3 " is larger than it may be"; bad = 1 }
    }
    END { exit bad }
'
[ -n "${UPDATE_SIZES:-}" ] || exit 0
echo "$measured" | awk -v table="$table" '
    { size[$1 " " $2 " " $3] = $4 }
    END {
        while ((getline line <table) > 0) {
            split(line, part, " "); key = part[1] " " part[2] " " part[3]
            if (key in size) { line = key " " size[key] (part[5] ? " " part[5] : ""); delete size[key] }
            print line
        }
        for (key in size) print key, size[key]
    }
' >"$table.new"
mv "$table.new" "$table"
