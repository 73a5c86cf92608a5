die() {
    bbfatal_log "$*"
}
bbfatal_log() {
    echo "ERROR: $*"
    exit 1
}

addtask fetch
addtask unpack after do_fetch
addtask patch after do_unpack
addtask prepare_recipe_sysroot after do_fetch
addtask configure after do_patch do_prepare_recipe_sysroot
addtask compile after do_configure
addtask install after do_compile
addtask populate_sysroot after do_install
addtask package after do_install
addtask build after do_package

python base_do_fetch() {
    bb.fetch2.Fetch((d.getVar('SRC_URI') or '').split(), d).download()
}
python base_do_unpack() {
    bb.fetch2.Fetch((d.getVar('SRC_URI') or '').split(), d).unpack(d.getVar('UNPACKDIR') or d.getVar('WORKDIR'))
}
do_unpack[dirs] = "${WORKDIR}"
base_do_patch() {
    :
}
base_do_configure() {
    :
}
base_do_compile() {
    :
}
base_do_install() {
    :
}
do_prepare_recipe_sysroot() {
    :
}
do_populate_sysroot() {
    :
}
do_package() {
    :
}
do_build() {
    :
}
do_configure[dirs] = "${B}"
do_compile[dirs] = "${B}"
do_install[dirs] = "${B}"
EXPORT_FUNCTIONS do_fetch do_unpack do_patch do_configure do_compile do_install

python () {
    # OpenEmbedded-Core's own QA at parse time, as far as it can fail a recipe of ours.
    if d.getVar('LICENSE') == 'INVALID':
        bb.fatal('%s: LICENSE is not set' % d.getVar('PN'))
    series, workdir = d.getVar('CHECK_SERIES'), d.getVar('WORKDIR')
    if series == 'wrynose' and os.path.normpath(d.getVar('S')) == workdir:
        bb.fatal('%s: S = "${WORKDIR}" is an error since styhead' % d.getVar('PN'))
    for name in (d.getVar('PACKAGECONFIG') or '').split():
        known = d.getVarFlag('PACKAGECONFIG', name)
        if known is None:
            bb.fatal('%s: unknown PACKAGECONFIG %s' % (d.getVar('PN'), name))
        items = (known.split(',') + [''] * 4)[:4]
        d.appendVar('DEPENDS', ' ' + items[2])
        d.appendVar('RDEPENDS:' + d.getVar('PN'), ' ' + items[3])
}
