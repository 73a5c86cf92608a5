# The system's RAUC configuration: files/grub-efi or files/tegra. Any other machine brings a directory of its own.
HEADWATER_RAUC_FILES = "${@d.getVar('HEADWATER_BOOT') or 'none'}"
HEADWATER_RAUC_FILES:tegra = "tegra"

# HEADWATER_KEYS holds ca.cert.pem. Searched, not named by an absolute path, which rauc-conf would not find.
FILESEXTRAPATHS:prepend := "${HEADWATER_KEYS}:${THISDIR}/files/${HEADWATER_RAUC_FILES}:"

PACKAGE_ARCH = "${MACHINE_ARCH}"

# What RAUC calls to choose the slot.
RDEPENDS:${PN} += "${HEADWATER_BACKEND}"
HEADWATER_BACKEND = "${@'headwater-boot-slot' if d.getVar('HEADWATER_BOOT') == 'grub-efi' else ''}"
HEADWATER_BACKEND:tegra = "headwater-nvbootctrl"

do_install:append() {
    sed -i 's,@COMPATIBLE@,${HEADWATER_COMPATIBLE},' ${D}${sysconfdir}/rauc/system.conf
}
