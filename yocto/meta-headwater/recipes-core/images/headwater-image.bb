SUMMARY = "A board of a Headwater fleet"
DESCRIPTION = "Headwater's agent and worker on a read-only root file system, with what outlives updates on a partition of its \
own. With meta-rauc in the build, updates over the air."
LICENSE = "MIT"

inherit core-image
inherit ${@'headwater-efi-image' if d.getVar('HEADWATER_BOOT') == 'grub-efi' else ''}

IMAGE_FEATURES += "read-only-rootfs"

# Bundles are made from it. Appended: the machine's own types, such as Jetson's tegraflash, stay.
IMAGE_FSTYPES:append = " ext4"

IMAGE_INSTALL:append = " \
    ca-certificates \
    headwater-agent \
    headwater-board \
    headwater-worker \
"

# Formatted where it is blank, grown with its partition, written seldom, whole again after a power cut.
headwater_mount_data() {
    echo '/dev/disk/by-partlabel/${HEADWATER_DATA_PARTITION} /data ext4 noatime,nodev,nosuid,commit=30,x-systemd.makefs,x-systemd.growfs 0 2' \
        >> ${IMAGE_ROOTFS}${sysconfdir}/fstab
}
ROOTFS_POSTPROCESS_COMMAND:append = " headwater_mount_data;"
