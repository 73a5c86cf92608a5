python () {
    packages = (d.getVar('USERADD_PACKAGES') or '').split()
    if not packages:
        bb.fatal("%s inherits useradd but doesn't set USERADD_PACKAGES" % d.getVar('FILE', False))
    for package in packages:
        if not any(d.getVar('%s:%s' % (name, package)) for name in ('USERADD_PARAM', 'GROUPADD_PARAM', 'GROUPMEMS_PARAM')):
            bb.fatal('%s inherits useradd but sets no parameters for %s' % (d.getVar('FILE', False), package))
}
