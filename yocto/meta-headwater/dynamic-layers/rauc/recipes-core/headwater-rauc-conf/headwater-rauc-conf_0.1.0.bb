SUMMARY = "RAUC's configuration on boards of a Headwater fleet"
DESCRIPTION = "Slots, boot loader backend and keyring, in place of meta-rauc's rauc-conf: files/grub-efi or files/tegra. A machine that \
starts another way brings a folder with a system.conf of its own by a bbappend."
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

inherit headwater_settings

# The folder with the machine's system.conf, and what RAUC calls to choose the slot.
HEADWATER_RAUC_FILES ??= "${HEADWATER_BOOT}"
HEADWATER_RAUC_FILES:tegra ?= "tegra"
HEADWATER_RAUC_BACKEND ??= "${@'headwater-boot-slot' if d.getVar('HEADWATER_BOOT') == 'grub-efi' else ''}"
HEADWATER_RAUC_BACKEND:tegra ?= "headwater-nvbootctrl"

# Searched, not named by their absolute paths, of which the fetcher would make folders.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${HEADWATER_KEYS}:${THISDIR}/files/${HEADWATER_RAUC_FILES}:"
SRC_URI = "\
    file://ca.cert.pem \
    file://system.conf \
"
S = "${UNPACKDIR}"

PACKAGE_ARCH = "${MACHINE_ARCH}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${sysconfdir}/rauc
    sed 's,@COMPATIBLE@,${HEADWATER_COMPATIBLE},' ${S}/system.conf > ${D}${sysconfdir}/rauc/system.conf
    install -m 0644 ${S}/ca.cert.pem ${D}${sysconfdir}/rauc/
}

RDEPENDS:${PN} = "${HEADWATER_RAUC_BACKEND}"
RPROVIDES:${PN} = "virtual-rauc-conf"
