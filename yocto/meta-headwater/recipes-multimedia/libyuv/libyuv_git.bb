SUMMARY = "Scaling and conversion of YUV pictures"
DESCRIPTION = "The library that Headwater's worker scales pictures with in software. The revision is that of Debian 12, \
with which the worker is tested."
HOMEPAGE = "https://chromium.googlesource.com/libyuv/libyuv"
SECTION = "libs"
LICENSE = "BSD-3-Clause"
LIC_FILES_CHKSUM = "file://LICENSE;md5=464282cfb405b005b9637f11103a7325"

PV = "0.0+git20230123"
SRC_URI = "git://chromium.googlesource.com/libyuv/libyuv;protocol=https;branch=main;destsuffix=libyuv"
SRCREV = "b2528b0be934de1918e20c85fc170d809eeb49ab"
S = "${UNPACKDIR}/libyuv"

inherit cmake

# Its CMakeLists.txt asks for CMake 2.8, which CMake 4 no longer plays.
EXTRA_OECMAKE = "-DCMAKE_POLICY_VERSION_MINIMUM=3.5"

# Upstream gives its library no version, so the unversioned file is the library itself.
FILES_SOLIBSDEV = ""
FILES:${PN} += "${libdir}/libyuv.so"
# nooelint: oelint.vars.insaneskip
INSANE_SKIP:${PN} += "dev-so"
