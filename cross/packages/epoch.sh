# The time that programs and packages bear: that of the last commit, or SOURCE_DATE_EPOCH. Sourced in the repository's root.
# shellcheck shell=sh
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH
