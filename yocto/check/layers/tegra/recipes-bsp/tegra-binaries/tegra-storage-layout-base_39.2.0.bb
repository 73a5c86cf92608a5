SUMMARY = "Storage layouts of NVIDIA's BSP"
LICENSE = "MIT"
do_install() {
    install -d ${D}${datadir}/l4t-storage-layout
    touch ${D}${datadir}/l4t-storage-layout/flash_l4t_t234_nvme_rootfs_ab.xml
}
