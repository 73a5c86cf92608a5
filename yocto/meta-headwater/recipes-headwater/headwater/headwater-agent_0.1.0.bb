SUMMARY = "Headwater's agent: takes transcoding work over MQTT and drives the worker"
DESCRIPTION = "Runs on a board of a Headwater fleet: connects to the gateway's broker, fetches segments over HTTPS, \
has the worker transcode them and puts the renditions back. Needs one token to enrol."
SECTION = "multimedia"

DEPENDS = "openssl"

HEADWATER_MEMBERS = "protocol agent"

require headwater.inc
require headwater-agent-crates.inc

inherit systemd useradd

# The same user as in agent/dist/headwater-agent.sysusers, made when the image is: a read-only root has no later.
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system video; --system render"
USERADD_PARAM:${PN} = "--system --user-group --groups video,render --no-create-home \
--home-dir ${localstatedir}/lib/headwater-agent --shell /sbin/nologin --comment 'Headwater agent' headwater-agent"

# Every unit of agent/dist is installed; those that can be enabled are named here.
SYSTEMD_SERVICE:${PN} = "\
    headwater-agent.path \
    headwater-agent.service \
    headwater-system.socket \
    headwater-update-guard.service \
"

do_install:append() {
    for file in ${S}/agent/dist/*; do
        name=$(basename "$file")
        case "$name" in
        *.service|*.socket|*.path|*.timer|*.target|*.mount)
            install -D -m 0644 "$file" "${D}${systemd_system_unitdir}/$name" ;;
        *.sysusers)
            install -D -m 0644 "$file" "${D}${nonarch_libdir}/sysusers.d/${name%.sysusers}.conf" ;;
        *.tmpfiles)
            install -D -m 0644 "$file" "${D}${nonarch_libdir}/tmpfiles.d/${name%.tmpfiles}.conf" ;;
        *.toml)
            install -D -m 0644 "$file" "${D}${sysconfdir}/headwater/$name" ;;
        esac
    done
    # What the units do otherwise on an image with two slots.
    for file in ${S}/agent/dist/image/*.d/*.conf; do
        [ -e "$file" ] || continue
        unit=$(basename "$(dirname "$file")")
        install -D -m 0644 "$file" "${D}${systemd_system_unitdir}/$unit/$(basename "$file")"
    done
}

PACKAGES =+ "${PN}-slots"
ALLOW_EMPTY:${PN}-slots = "1"
FILES:${PN}-slots += "${systemd_system_unitdir}/*.d"
FILES:${PN} += "${systemd_system_unitdir} ${nonarch_libdir}/sysusers.d ${nonarch_libdir}/tmpfiles.d"
CONFFILES:${PN} = "${sysconfdir}/headwater/*.toml"

RRECOMMENDS:${PN} = "headwater-worker"
