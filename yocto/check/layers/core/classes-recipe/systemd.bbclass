SYSTEMD_PACKAGES ?= "${PN}"
SYSTEMD_AUTO_ENABLE ??= "enable"
python () {
    for package in d.getVar('SYSTEMD_PACKAGES').split():
        if package not in d.getVar('PACKAGES').split():
            bb.fatal('%s: SYSTEMD_PACKAGES has %s, which is no package of it' % (d.getVar('PN'), package))
}
