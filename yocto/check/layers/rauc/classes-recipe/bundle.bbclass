inherit nopackages
PACKAGE_ARCH = "${MACHINE_ARCH}"
S = "${WORKDIR}/sources"
UNPACKDIR = "${S}"
B = "${WORKDIR}/build"
DEPENDS = "rauc-native squashfs-tools-native"
RAUC_BUNDLE_COMPATIBLE ??= "${MACHINE}"
RAUC_BUNDLE_VERSION ??= "${PV}"
RAUC_BUNDLE_DESCRIPTION ??= "${SUMMARY}"
RAUC_BUNDLE_FORMAT ??= ""
RAUC_KEY_FILE ??= ""
RAUC_CERT_FILE ??= ""
RAUC_KEYRING_FILE ??= ""
RAUC_VARFLAGS_SLOTS = "name type fstype file hooks adaptive rename offset depends convert"

python () {
    if d.getVar('RAUC_BUNDLE_FORMAT') not in ('verity', 'crypt'):
        bb.warn("No RAUC_BUNDLE_FORMAT set")
    for slot in (d.getVar('RAUC_BUNDLE_SLOTS') or '').split():
        image = d.getVar('RAUC_SLOT_' + slot)
        if not image:
            bb.fatal("No image set for slot '%s'" % slot)
        for flag in d.getVarFlags('RAUC_SLOT_' + slot) or {}:
            if flag not in d.getVar('RAUC_VARFLAGS_SLOTS').split() and not flag.startswith('_') and flag not in ('vardeps', 'defaultval'):
                bb.fatal("RAUC_SLOT_%s has no flag '%s'" % (slot, flag))
        d.appendVarFlag('do_unpack', 'depends', ' %s:do_image_complete' % image)
}
