#!/bin/sh
# Runs a command, mostly cargo, so that it builds for a target and a floor.
# usage: env.sh TARGET FLOOR COMMAND...      env.sh arm64 current cargo build --release -p headwater-agent
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1 floor=$2
shift 2
stop() { echo "cross: $*" >&2; exit 1; }
. "$here/target.sh"
[ -r "$here/floors/$floor.conf" ] || stop "FLOOR is one of:$(cd "$here/floors" && printf ' %s' ./*.conf | sed 's,\./,,g; s/\.conf//g')"
. "$here/floors/$floor.conf"

mkdir -p "${CARGO_TARGET_DIR:-target}/cross"
kit=$(cd "${CARGO_TARGET_DIR:-target}/cross" && pwd)
"$here/kit.sh" "$kit" "$target"
root="$kit/$target/root"
site=$(echo "$kit"/tools/lib/python3*/site-packages/ziglang)
tools="$kit/$target/$floor/tools"
mkdir -p "$tools"
# usage: tool NAME TEXT     writes a script only where it would change
tool() {
    printf '#!/bin/sh\n%s\n' "$2" >"$tools/$1.new"
    chmod 755 "$tools/$1.new"
    cmp -s "$tools/$1.new" "$tools/$1" && rm "$tools/$1.new" || mv "$tools/$1.new" "$tools/$1"
}
caches="export CARGO_ZIGBUILD_ZIG_PATH='$site/zig' ZIG_GLOBAL_CACHE_DIR='$kit/zig' ZIG_LOCAL_CACHE_DIR='$kit/zig'"
for compiler in cc c++; do
    # -g: zig strips otherwise. It also adds checks for undefined behaviour, which libraries are not built for.
    tool "$compiler" "$caches
exec '$kit/tools/bin/cargo-zigbuild' zig $compiler -- -g -fno-sanitize=all -target $multiarch.$glibc -idirafter '$root/usr/include/$multiarch' \"\$@\""
done
for program in ar ranlib; do
    tool "$program" "$caches
exec '$site/zig' $program \"\$@\""
done

lower=$(echo "$triple" | tr - _)
upper=$(echo "$lower" | tr a-z A-Z)
CARGO_TARGET_DIR=$(built "$floor")
export CARGO_TARGET_DIR CARGO_BUILD_TARGET="$triple"
export "CC_$lower=$tools/cc" "CXX_$lower=$tools/c++" "AR_$lower=$tools/ar" "RANLIB_$lower=$tools/ranlib"
export "CARGO_TARGET_${upper}_LINKER=$tools/cc"
export "PKG_CONFIG_ALLOW_CROSS_$lower=1" "PKG_CONFIG_SYSROOT_DIR_$lower=$root"
export "PKG_CONFIG_LIBDIR_$lower=$root/usr/lib/$multiarch/pkgconfig:$root/usr/share/pkgconfig"
if [ -d "$kit/$target/rust" ] && [ ! -d "$(rustc --print sysroot)/lib/rustlib/$triple" ]; then
    for program in rustc rustdoc; do
        tool "$program" "LD_LIBRARY_PATH='$kit/$target/rust/usr/lib/x86_64-linux-gnu' exec '$kit/$target/rust/usr/bin/$program' \"\$@\""
    done
    export RUSTC="$tools/rustc" RUSTDOC="$tools/rustdoc"
fi
exec "$@"
