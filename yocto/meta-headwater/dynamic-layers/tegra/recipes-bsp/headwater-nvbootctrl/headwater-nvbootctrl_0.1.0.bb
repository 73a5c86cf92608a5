SUMMARY = "RAUC's way to the slots of a Jetson"
DESCRIPTION = "Boot loader backend for RAUC over nvbootctrl and UEFI's variables, and a check before an update is installed that the \
firmware would start the new slot at all."
SECTION = "bootloaders"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

SRC_URI = "\
    file://headwater-nvbootctrl \
    file://headwater-nvbootctrl-preflight \
    file://nv_update_verifier.conf \
"
S = "${UNPACKDIR}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${libexecdir}
    install -m 0755 ${S}/headwater-nvbootctrl ${S}/headwater-nvbootctrl-preflight ${D}${libexecdir}/
    install -D -m 0644 ${S}/nv_update_verifier.conf ${D}${systemd_system_unitdir}/nv_update_verifier.service.d/headwater.conf
}

FILES:${PN} += "${systemd_system_unitdir}"

# od and sync; chattr; nvbootctrl and nv_update_verifier
RDEPENDS:${PN} = "coreutils e2fsprogs tegra-redundant-boot"
