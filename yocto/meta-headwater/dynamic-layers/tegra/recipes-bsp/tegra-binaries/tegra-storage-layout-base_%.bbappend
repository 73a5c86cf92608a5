# A partition for what outlives updates, behind the slots, where it can grow. NVIDIA's own, UDA, has 400 MiB, stands before
# them, and is NVIDIA's to use. For Headwater's distribution only: the layout is the whole machine's.
HEADWATER_LAYOUT:headwater := "${THISDIR}/files/headwater-layout"

do_install:append:headwater() {
    python3 ${HEADWATER_LAYOUT} ${D}${datadir}/l4t-storage-layout/*.xml
}
do_install[file-checksums] += "${@d.getVar('HEADWATER_LAYOUT') + ':True' if d.getVar('HEADWATER_LAYOUT') else ''}"
