B = "${WORKDIR}/build"
EXTRA_OECMAKE ??= ""
DEPENDS:prepend = "cmake-native "
cmake_do_configure() {
    cmake -S ${S} -B ${B} ${EXTRA_OECMAKE}
}
cmake_do_compile() {
    cmake --build ${B}
}
cmake_do_install() {
    DESTDIR='${D}' cmake --install ${B}
}
EXPORT_FUNCTIONS do_configure do_compile do_install
