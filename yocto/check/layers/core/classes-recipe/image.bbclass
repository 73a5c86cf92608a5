IMAGE_FEATURES ?= ""
IMAGE_INSTALL ?= ""
IMAGE_FSTYPES ?= "ext4"
IMAGE_LINGUAS ?= ""
ROOTFS_POSTPROCESS_COMMAND ?= ""
PACKAGES = ""
# What core-image and image know; a feature they do not know fails the build.
IMAGE_FEATURES_KNOWN = "hwcodecs read-only-rootfs ssh-server-openssh splash package-management"
FEATURE_PACKAGES_hwcodecs = "${MACHINE_HWCODECS}"

addtask rootfs before do_build after do_prepare_recipe_sysroot
addtask image before do_build after do_rootfs
addtask image_complete after do_image before do_build
do_rootfs() {
    :
}
do_image() {
    :
}
do_image_wic() {
    :
}
do_image_complete() {
    :
}
do_fetch[noexec] = "1"
do_unpack[noexec] = "1"
do_patch[noexec] = "1"
do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"
deltask do_package

python () {
    for feature in d.getVar('IMAGE_FEATURES').split():
        if feature not in d.getVar('IMAGE_FEATURES_KNOWN').split():
            bb.fatal("'%s' in IMAGE_FEATURES is not a valid image feature" % feature)
    for command in d.getVar('ROOTFS_POSTPROCESS_COMMAND').replace(';', ' ').split():
        if not d.getVar(command, False):
            bb.fatal('%s: ROOTFS_POSTPROCESS_COMMAND names %s, which is no function' % (d.getVar('PN'), command))
    if any(kind.startswith('wic') for kind in d.getVar('IMAGE_FSTYPES').split()):
        name = d.getVar('WKS_FILE')
        paths = [os.path.join(layer, folder) for layer in d.getVar('BBPATH').split(':') for folder in ('files/wic', 'wic')]
        if d.getVar('CHECK_SERIES') == 'wrynose':
            paths = [path for path in paths if path.endswith('files/wic')]
        if not any(os.path.exists(os.path.join(path, name)) for path in paths):
            bb.fatal("No kickstart files from WKS_FILES were found: %s" % name)
}
