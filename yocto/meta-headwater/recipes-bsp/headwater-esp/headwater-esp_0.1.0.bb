SUMMARY = "EFI system partition: GRUB that counts tries"
DESCRIPTION = "GRUB with its configuration and its variables, which RAUC changes by way of headwater-boot-slot. A slot that has not \
proved itself after two starts is left for the other; one that has is never left."
SECTION = "bootloaders"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

DEPENDS = "dosfstools-native mtools-native"
INHIBIT_DEFAULT_DEPS = "1"

SRC_URI = "\
    file://grub.cfg.in \
    file://grubenv \
"
S = "${UNPACKDIR}"
B = "${WORKDIR}/build"

# For EFI_BOOT_IMAGE. The file is OpenEmbedded-Core's.
# nooelint: oelint.file.requirenotfound
require conf/image-uefi.conf

inherit deploy nopackages

PACKAGE_ARCH = "${MACHINE_ARCH}"

# GRUB's name for the disk the firmware started it from, and what the kernel is told besides its slot.
HEADWATER_GRUB_DISK ?= "hd0"
HEADWATER_CMDLINE ?= "rootwait ro panic=5 quiet"

do_configure[noexec] = "1"
do_install[noexec] = "1"

do_compile() {
    install -d ${B}/esp/EFI/BOOT ${B}/esp/headwater
    sed -e 's,@DISK@,${HEADWATER_GRUB_DISK},g' -e 's,@KERNEL@,${KERNEL_IMAGETYPE},g' -e 's,@CMDLINE@,${HEADWATER_CMDLINE},g' \
        ${S}/grub.cfg.in > ${B}/esp/EFI/BOOT/grub.cfg
    install -m 0644 ${DEPLOY_DIR_IMAGE}/grub-efi-${EFI_BOOT_IMAGE} ${B}/esp/EFI/BOOT/${EFI_BOOT_IMAGE}
    # A block of exactly 1024 bytes, filled up with number signs: GRUB changes it in place and takes no other.
    { cat ${S}/grubenv; head -c 1024 /dev/zero | tr '\0' '#'; } | head -c 1024 > ${B}/esp/headwater/grubenv

    mkfs.vfat -n ESP -C ${B}/headwater-esp.vfat 65536
    mcopy -i ${B}/headwater-esp.vfat -s ${B}/esp/* ::/
}
do_compile[depends] += "grub-efi:do_deploy"
do_compile[cleandirs] = "${B}"

do_deploy() {
    install -m 0644 ${B}/headwater-esp.vfat ${DEPLOYDIR}/
}
addtask deploy after do_compile before do_build
