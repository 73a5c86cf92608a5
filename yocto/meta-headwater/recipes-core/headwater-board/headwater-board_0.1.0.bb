SUMMARY = "What makes a board of a Headwater fleet look after itself"
DESCRIPTION = "Grows the data partition to the end of its disk at first boot, keeps the agent's state on it, and has the \
hardware watchdog reset a board that hangs."
SECTION = "base"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/COPYING.MIT;md5=3da9cfbcb788c80a0384361b4de20420"

SRC_URI = "\
    file://headwater-grow-data.in \
    file://headwater-grow-data.service.in \
    file://headwater-state.service \
    file://state.mount \
    file://watchdog.conf \
"
S = "${UNPACKDIR}"

inherit systemd

# The data partition's name is the machine's.
PACKAGE_ARCH = "${MACHINE_ARCH}"

# systemd's name for the mount of /var/lib/headwater-agent.
HEADWATER_STATE_MOUNT = "var-lib-headwater\x2dagent.mount"

SYSTEMD_SERVICE:${PN} = "headwater-grow-data.service ${HEADWATER_STATE_MOUNT}"

RDEPENDS:${PN} = "e2fsprogs-mke2fs util-linux-lsblk util-linux-partx util-linux-sfdisk"

do_install() {
    install -d ${D}${systemd_system_unitdir} ${D}${libexecdir} ${D}/data ${D}${localstatedir}/lib/headwater-agent
    sed 's,@PARTITION@,${HEADWATER_DATA_PARTITION},g' ${S}/headwater-grow-data.in > ${D}${libexecdir}/headwater-grow-data
    chmod 0755 ${D}${libexecdir}/headwater-grow-data
    sed 's,@PARTITION@,${HEADWATER_DATA_PARTITION},g' ${S}/headwater-grow-data.service.in \
        > ${D}${systemd_system_unitdir}/headwater-grow-data.service
    install -m 0644 ${S}/headwater-state.service ${D}${systemd_system_unitdir}/
    install -m 0644 ${S}/state.mount '${D}${systemd_system_unitdir}/${HEADWATER_STATE_MOUNT}'
    install -D -m 0644 ${S}/watchdog.conf ${D}${nonarch_libdir}/systemd/system.conf.d/50-headwater-watchdog.conf
}

FILES:${PN} += "/data ${systemd_system_unitdir} ${nonarch_libdir}/systemd/system.conf.d"
