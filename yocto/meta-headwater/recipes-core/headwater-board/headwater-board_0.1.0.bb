SUMMARY = "What makes a board of a Headwater fleet look after itself"
DESCRIPTION = "Grows the data partition to the end of its disk at first boot, makes the folders on it, and has the hardware \
watchdog reset a board that hangs."
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

SRC_URI = "\
    file://headwater-folders.service \
    file://headwater-grow-data.in \
    file://headwater-grow-data.service.in \
    file://watchdog.conf \
"
S = "${UNPACKDIR}"

inherit headwater_settings systemd

# The data partition's name is the machine's.
PACKAGE_ARCH = "${MACHINE_ARCH}"

SYSTEMD_SERVICE:${PN} = "headwater-folders.service headwater-grow-data.service"

do_install() {
    install -d ${D}${systemd_system_unitdir} ${D}${libexecdir}
    sed 's,@PARTITION@,${HEADWATER_DATA_PARTITION},g' ${S}/headwater-grow-data.in > ${D}${libexecdir}/headwater-grow-data
    chmod 0755 ${D}${libexecdir}/headwater-grow-data
    sed 's,@PARTITION@,${HEADWATER_DATA_PARTITION},g' ${S}/headwater-grow-data.service.in \
        > ${D}${systemd_system_unitdir}/headwater-grow-data.service
    install -m 0644 ${S}/headwater-folders.service ${D}${systemd_system_unitdir}/
    install -D -m 0644 ${S}/watchdog.conf ${D}${nonarch_libdir}/systemd/system.conf.d/50-headwater-watchdog.conf
}

FILES:${PN} += "${systemd_system_unitdir} ${nonarch_libdir}/systemd/system.conf.d"

RDEPENDS:${PN} = "e2fsprogs-mke2fs util-linux-lsblk util-linux-partx util-linux-sfdisk"
