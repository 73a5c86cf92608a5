CARGO = "cargo"
B = "${WORKDIR}/build"
RUST_HOST_SYS = "aarch64-oe-linux-gnu"
export CARGO_HOME = "${UNPACKDIR}/cargo_home"
CARGO_VENDORING_DIRECTORY ?= "${CARGO_HOME}/bitbake"
CARGO_SRC_DIR ??= ""
CARGO_MANIFEST_PATH ??= "${S}/${CARGO_SRC_DIR}/Cargo.toml"
BUILD_MODE = "--release"
CARGO_BUILD_FLAGS = "-v --frozen --target ${RUST_HOST_SYS} ${BUILD_MODE} --manifest-path=${CARGO_MANIFEST_PATH}"
CARGO_TARGET_SUBDIR = "${RUST_HOST_SYS}/release"
DEPENDS:append:class-target = " rust-native cargo-native libstd-rs"

cargo_do_configure() {
    mkdir -p ${CARGO_HOME}/bitbake
    cat > ${CARGO_HOME}/config.toml <<- EOF
	[source.bitbake]
	directory = "${CARGO_VENDORING_DIRECTORY}"
	[source.crates-io]
	replace-with = "bitbake"
	local-registry = "/nonexistent"
	EOF
}
oe_cargo_build() {
    "${CARGO}" build ${CARGO_BUILD_FLAGS} "$@"
}
cargo_do_compile() {
    oe_cargo_build
}
cargo_do_install() {
    for program in "${B}/target/${CARGO_TARGET_SUBDIR}/"*; do
        if [ -f "$program" ] && [ -x "$program" ]; then
            install -d "${D}${bindir}"
            install -m755 "$program" "${D}${bindir}"
        fi
    done
}
EXPORT_FUNCTIONS do_configure do_compile do_install
