SUMMARY = "A board of a Headwater fleet"
DESCRIPTION = "Headwater's agent and worker on a read-only root file system, with what outlives updates on a partition of its \
own. With meta-rauc in the build, updates over the air."
SECTION = "images"
LICENSE = "MIT"

inherit core-image headwater_settings
inherit_defer ${@'headwater_efi_image' if d.getVar('HEADWATER_BOOT') == 'grub-efi' else ''}

# hwcodecs: the machine's own GStreamer elements.
IMAGE_FEATURES += "hwcodecs read-only-rootfs"

# Bundles are made from it. Appended: the machine's own types, such as Jetson's tegraflash, stay.
IMAGE_FSTYPES:append = " ext4"

IMAGE_INSTALL:append = " \
    ca-certificates \
    headwater-agent \
    headwater-board \
    headwater-worker \
    os-release \
"

# For a board that was flashed, and so has no word of RAUC's on what is in its slot; os-release(5).
headwater_image_version() {
    echo 'IMAGE_VERSION=${HEADWATER_VERSION}' >> ${IMAGE_ROOTFS}${nonarch_libdir}/os-release
}
headwater_image_version[doc] = "Writes the image's version into os-release, where the agent looks for it"
ROOTFS_POSTPROCESS_COMMAND:append = " headwater_image_version;"

# Data is formatted where it is blank, grown with its partition, written seldom, and whole again after a power cut. The state
# of the agent and of its helper is on it, behind the places where they look for it, once /var/lib can be written.
headwater_mount_data() {
    install -d ${IMAGE_ROOTFS}/data
    echo '/dev/disk/by-partlabel/${HEADWATER_DATA_PARTITION} /data ext4 noatime,nodev,nosuid,commit=30,x-systemd.makefs,x-systemd.growfs 0 2' \
        >> ${IMAGE_ROOTFS}${sysconfdir}/fstab
    for folder in headwater-agent headwater-system; do
        install -d ${IMAGE_ROOTFS}${localstatedir}/lib/$folder
        echo "/data/$folder ${localstatedir}/lib/$folder none bind,x-systemd.requires=headwater-folders.service,x-systemd.after=var-volatile-lib.service 0 0" \
            >> ${IMAGE_ROOTFS}${sysconfdir}/fstab
    done
}
headwater_mount_data[doc] = "Writes the mounts of the data partition into /etc/fstab"
ROOTFS_POSTPROCESS_COMMAND:append = " headwater_mount_data;"
