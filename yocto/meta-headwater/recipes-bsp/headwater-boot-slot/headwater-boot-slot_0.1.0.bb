SUMMARY = "RAUC's way to the slots that GRUB starts"
DESCRIPTION = "Boot loader backend for RAUC: reads and changes GRUB's variables on the EFI system partition. The same file as in the \
reference image."
SECTION = "bootloaders"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

# The file is where the reference image has it.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${HEADWATER_TREE}/cross/image:"
SRC_URI = "file://boot-slot.sh"
S = "${UNPACKDIR}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/boot-slot.sh ${D}${nonarch_libdir}/headwater/boot-slot
}

FILES:${PN} += "${nonarch_libdir}/headwater"

# sync with -f, and grub-editenv.
RDEPENDS:${PN} = "coreutils grub-editenv"
