# A disk image for EFI machines: GRUB, two slots, data. See files/wic/headwater-efi.wks.in.

# Megabytes of one slot. A root file system that would not fit fails the build.
HEADWATER_SLOT_SIZE ?= "512"
IMAGE_ROOTFS_MAXSIZE ?= "${@int(d.getVar('HEADWATER_SLOT_SIZE')) * 1024}"
IMAGE_OVERHEAD_FACTOR ?= "1.1"

IMAGE_FSTYPES:append = " wic.gz wic.bmap"
WKS_FILE = "headwater-efi.wks.in"
do_image_wic[depends] += "headwater-esp:do_deploy"

# GRUB takes the kernel from the slot. There is no initramfs: the kernel finds its slot by the partition's name.
IMAGE_INSTALL:append = " kernel-image"

headwater_mount_esp() {
    install -d ${IMAGE_ROOTFS}/boot/efi
    echo '/dev/disk/by-partlabel/esp /boot/efi vfat noatime,umask=0077,sync 0 2' >> ${IMAGE_ROOTFS}${sysconfdir}/fstab
}
headwater_mount_esp[doc] = "Writes the mount of the EFI system partition into /etc/fstab"
ROOTFS_POSTPROCESS_COMMAND:append = " headwater_mount_esp;"
