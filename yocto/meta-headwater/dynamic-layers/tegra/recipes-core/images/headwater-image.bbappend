# Without the second slot, updates look installed and are rolled back in silence.
python headwater_check_redundant_layout() {
    if not bb.utils.to_boolean(d.getVar('USE_REDUNDANT_FLASH_LAYOUT')):
        bb.fatal('This image needs two slots: set USE_REDUNDANT_FLASH_LAYOUT_DEFAULT = "1" in the distribution or in local.conf '
                 '(DISTRO = "headwater" does), or build for a machine that has such a layout.')
}
headwater_check_redundant_layout[doc] = "Fails the build of an image that could not be updated"
do_rootfs[prefuncs] += "${HEADWATER_CHECK_LAYOUT}"
HEADWATER_CHECK_LAYOUT = ""
HEADWATER_CHECK_LAYOUT:tegra = "headwater_check_redundant_layout"
