# What RAUC mounts a bundle with, what GRUB's slots are found with, and the emulated board's watchdog.
FILESEXTRAPATHS:prepend:headwater := "${THISDIR}/files:"
SRC_URI:append:headwater = " file://headwater.cfg"
