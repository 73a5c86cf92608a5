# What a target is called by each tool, and how the kernel knows its programs. Sourced with $target set; the caller
# has `stop`.
# shellcheck shell=sh disable=SC2034
case "$target" in
    arm64)
        triple=aarch64-unknown-linux-gnu multiarch=aarch64-linux-gnu qemu=aarch64 cpu=max,pauth-impdef=on
        machine='\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
        ;;
    armhf)
        triple=armv7-unknown-linux-gnueabihf multiarch=arm-linux-gnueabihf qemu=arm cpu=max
        machine='\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00'
        ;;
    *) stop "TARGET is arm64 or armhf, not '$target'" ;;
esac

# Where cargo builds for a floor: it does not see that the linker is another one, so each but the usual one has a
# folder of its own.
built() {
    if [ "$1" = current ]; then echo "${CARGO_TARGET_DIR:-target}"; else echo "${CARGO_TARGET_DIR:-target}/cross/$target/$1/cargo"; fi
}
