SUMMARY = "RAUC's way to the slots of a Jetson"
DESCRIPTION = "Boot loader backend for RAUC over nvbootctrl and UEFI's variables, and a check before an update is installed that the \
firmware would start the new slot at all."
SECTION = "bootloaders"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

SRC_URI = "\
    file://headwater-nvbootctrl \
    file://headwater-nvbootctrl-preflight \
"
S = "${UNPACKDIR}"

# od; chattr; nvbootctrl without the unit that calls every boot good
RDEPENDS:${PN} = "coreutils e2fsprogs tegra-redundant-boot-base"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${libexecdir}
    install -m 0755 ${S}/headwater-nvbootctrl ${S}/headwater-nvbootctrl-preflight ${D}${libexecdir}/
}
