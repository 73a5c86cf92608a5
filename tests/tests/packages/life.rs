//! From installation to purging.

use anyhow::{Context as _, Result, ensure};

use super::Site;
use super::machine::Machine;

/// The node is online, with what its worker proved.
pub(crate) const ONLINE: &str = r#"headwater nodes --json | tr -d ' \n' | grep -q '"capabilities":\[{' &&
    headwater nodes --json | tr -d ' \n' | grep -q '"state":"online"'"#;
const IDENTITY: &str = "sha256sum /var/lib/headwater-agent/identity/*";

pub(crate) fn enrolled(site: &Site) -> Result<Machine> {
    let board = site.boot()?;
    board.install("/shared/first/*.deb")?;
    board.wait_for("gateway", "systemctl is-active headwater-gateway && headwater nodes")?;
    let before = board.run("systemctl is-active headwater-agent headwater-agent.path")?;
    let before = String::from_utf8_lossy(&before.stdout).into_owned();
    ensure!(before == "inactive\nactive\n", "without an identity the agent waits for one: {before}");
    let told = board.ok("headwater-agent enroll \"$(headwater enroll board-1)\"")?;
    ensure!(told.contains("node board-1"), "{told}");
    board.wait_for("node that is online", ONLINE)?;
    Ok(board)
}

pub(crate) fn one_installation_and_one_token(site: &Site) -> Result<()> {
    let board = enrolled(site)?;
    // Root enrolled; what the service must read belongs to the service.
    let foreign =
        board.ok("find /var/lib/headwater-agent ! -user headwater-agent -o ! -group headwater-agent")?;
    ensure!(foreign.is_empty(), "{foreign}");
    let modes = board.ok("stat -c '%a %U' /var/lib/headwater-agent /var/lib/headwater-gateway")?;
    ensure!(modes == "700 headwater-agent\n750 headwater-gateway\n", "{modes}");
    let main = "/proc/$(systemctl show --value -p MainPID headwater-agent)";
    let user = board.ok(&format!("stat -c %U {main}; sed -n 's/^CapEff:\\t*//p' {main}/status"))?;
    ensure!(user == "headwater-agent\n0000000000000000\n", "{user}");

    // The worker does its work within what the units leave it.
    board
        .ok("headwater push --quiet --in-flight 1 --ladder 240p --out /tmp/out /shared/bbb-720p25-5s.mp4")?;
    board.ok("find /tmp/out -name '*.m3u8' -size +0 | grep -q .")?;
    for program in super::PROGRAMS {
        board.ok(&format!("{program} --version"))?;
    }
    let doctor = board.ok(
        "setpriv --reuid=headwater-agent --regid=headwater-agent --init-groups headwater-worker doctor",
    )?;
    ensure!(doctor.contains("x264enc"), "{doctor}");
    Ok(())
}

pub(crate) fn an_upgrade_keeps_what_is_there(site: &Site) -> Result<()> {
    let board = enrolled(site)?;
    board.ok("sed -i 's/^#interval_seconds = 30/interval_seconds = 31/' /etc/headwater/agent.toml")?;
    let (identity, process) = (board.ok(IDENTITY)?, board.ok("systemctl show -p MainPID headwater-agent")?);
    let events = board.ok("stat -c '%n %U' /var/lib/headwater-agent/outbox/events")?;

    // Both sides changed the file; apt asks, unless it is told to keep what the owner wrote.
    board.install("-o Dpkg::Options::=--force-confold /shared/next/*.deb")?;
    let versions = board.ok("dpkg-query -W -f '${Version} ' 'headwater*'")?;
    ensure!(versions.split_whitespace().all(|version| version == "0.2.0"), "{versions}");
    board.wait_for("node that is online again", ONLINE)?;
    ensure!(process != board.ok("systemctl show -p MainPID headwater-agent")?, "the old program still runs");
    ensure!(identity == board.ok(IDENTITY)?, "the identity is another");
    ensure!(
        events == board.ok("stat -c '%n %U' /var/lib/headwater-agent/outbox/events")?,
        "no outbox any more"
    );
    let conf =
        board.ok("grep -v '^#' /etc/headwater/agent.toml; tail -n 1 /etc/headwater/agent.toml.dpkg-dist")?;
    ensure!(conf.contains("interval_seconds = 31") && conf.contains("# Another default."), "{conf}");
    // Nobody changed this one.
    board.ok("grep -q '^# Another default.' /etc/headwater/gateway.toml")?;
    let failed = board.ok("systemctl list-units --failed --plain --no-legend 'headwater*'")?;
    ensure!(failed.is_empty(), "{failed}");
    Ok(())
}

/// A worker that never gets ready, so that its attempt is open while the gateway goes, and fails without it.
const SLOW_WORKER: &str = r#"
    cat >/usr/local/bin/slow-worker <<'END'
#!/bin/sh
[ "$1" != serve ] || { touch /run/headwater-agent/at-work; exec sleep 1000; }
exec /usr/bin/headwater-worker "$@"
END
    chmod 755 /usr/local/bin/slow-worker
    sed -i -e 's|^#worker = .*|worker = "/usr/local/bin/slow-worker"|' -e 's/^#spare_worker = .*/spare_worker = false/' \
        -e 's/^#worker_start_seconds = .*/worker_start_seconds = 20/' \
        -e 's/^#interval_seconds = .*/interval_seconds = 1/' /etc/headwater/agent.toml
    systemctl restart headwater-agent
"#;
const OUTBOX: &str = "/var/lib/headwater-agent/outbox/events";

pub(crate) fn an_event_outlives_an_upgrade(site: &Site) -> Result<()> {
    let board = enrolled(site)?;
    board.ok(SLOW_WORKER)?;
    board.wait_for("node that is online", ONLINE)?;
    board.ok(
        "setsid headwater push --quiet --in-flight 1 --ladder 240p --out /tmp/out /shared/bbb-720p25-5s.mp4 </dev/null >/dev/null 2>&1 &",
    )?;
    board.wait_for("attempt", "test -e /run/headwater-agent/at-work")?;
    // At once, as in a power cut: it takes no event any more.
    board.ok("systemctl kill --signal=KILL headwater-gateway; systemctl stop headwater-gateway")?;
    let failed = format!("grep '\"kind\":\"failed\"' {OUTBOX}");
    let event = board.wait_for("event that nobody acknowledges", &failed)?;

    board.install(
        "-o Dpkg::Options::=--force-confold /shared/next/headwater-agent_*.deb /shared/next/headwater-worker_*.deb",
    )?;
    let version = board.ok("dpkg-query -W -f '${Version}' headwater-agent")?;
    ensure!(version == "0.2.0", "{version}");
    board.wait_for("new program that runs", "systemctl is-active headwater-agent")?;
    let kept = board.ok(&failed)?;
    ensure!(kept == event, "it was {event}, and is {kept}");

    board.ok("systemctl start headwater-gateway")?;
    // Telemetry is not stored, so this is a new word.
    board.wait_for(
        "word that all events have arrived",
        "headwater nodes --json | tr -d ' \n' | grep -q '\"outbox\":0'",
    )?;
    // It is gone, or the gateway's word for it is beside it. The task is offered once more; that makes other events.
    board.ok("systemctl stop headwater-agent")?;
    let left = board.ok(&format!("cat {OUTBOX}"))?;
    let number = |line: &str, pointer: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line.pointer(pointer)?.as_u64()
    };
    let sent = number(event.trim(), "/number/n").with_context(|| event.clone())?;
    let acknowledged = left.lines().filter_map(|line| number(line, "/acked")).max();
    let arrived = !left.contains(event.trim()) || acknowledged >= Some(sent);
    ensure!(arrived, "{event} is still there: {left}");
    Ok(())
}

pub(crate) fn removal_and_purging(site: &Site) -> Result<()> {
    let board = enrolled(site)?;
    let identity = board.ok(IDENTITY)?;
    board.ok("apt-get remove -yqq headwater-agent 2>&1")?;
    let left = board.ok("pgrep -x headwater-agent || true; find /etc/systemd -xtype l; systemctl list-units --all --plain --no-legend 'headwater-agent*'")?;
    ensure!(left.is_empty(), "{left}");
    ensure!(identity == board.ok(IDENTITY)?, "removal took the identity");
    board.ok("test -e /etc/headwater/agent.toml; id headwater-agent")?;

    board.install("/shared/first/headwater-agent_*.deb")?;
    board.wait_for("node that is online without a new token", ONLINE)?;
    ensure!(identity == board.ok(IDENTITY)?, "the identity is another");

    // As `headwater-agent system trust` leaves it: a board that is installed again must not trust an earlier signer.
    board.ok("touch /etc/headwater/update-keyring.pem")?;
    board.ok("apt-get purge -yqq 'headwater*' 2>&1")?;
    let left = board.ok(
        "find /etc /usr /var/lib /run -name '*headwater*' ! -path '/var/lib/dpkg/*'; pgrep headwater || true",
    )?;
    ensure!(left.is_empty(), "purging leaves {left}");
    board.ok("id headwater-agent; id headwater-gateway")?;
    Ok(())
}

pub(crate) fn without_sysusers(site: &Site) -> Result<()> {
    let board = site.boot()?;
    board.ok("rm /usr/bin/systemd-sysusers")?;
    board.install("/shared/first/headwater-agent_*.deb /shared/first/headwater-gateway_*.deb")?;
    let groups = board.ok("id -Gn headwater-agent")?;
    ensure!(
        ["headwater-agent", "video", "render"]
            .iter()
            .all(|one| groups.split_whitespace().any(|group| group == *one)),
        "{groups}"
    );
    let entry = board.ok("getent passwd headwater-agent headwater-gateway | cut -d: -f 6,7")?;
    ensure!(
        entry == "/var/lib/headwater-agent:/usr/sbin/nologin\n/var/lib/headwater-gateway:/usr/sbin/nologin\n",
        "{entry}"
    );
    board.wait_for("gateway", "systemctl is-active headwater-gateway")?;
    Ok(())
}

pub(crate) fn disabled_stays_disabled(site: &Site) -> Result<()> {
    let board = enrolled(site)?;
    board.ok("systemctl stop headwater-agent; systemctl daemon-reload")?;
    let state = board.run("systemctl is-active headwater-agent headwater-agent.path")?;
    let state = String::from_utf8_lossy(&state.stdout).into_owned();
    ensure!(state == "inactive\nactive\n", "what was stopped on purpose is {state}");
    board.ok("systemctl disable --now headwater-agent headwater-agent.path")?;
    board.install("/shared/next/*.deb")?;
    let state = board.run("systemctl is-enabled headwater-agent headwater-agent.path headwater-gateway")?;
    let state = String::from_utf8_lossy(&state.stdout).into_owned();
    ensure!(state == "disabled\ndisabled\nenabled\n", "{state}");

    // Somebody without rights is told before the token is spent.
    let token = board.ok("headwater enroll board-2")?;
    let refused = board
        .run(&format!("setpriv --reuid=nobody --clear-groups headwater-agent enroll --force {token}"))?;
    let text = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(5) && text.contains("sudo"), "{}: {text}", refused.status);
    board.ok(&format!("headwater-agent enroll --force {token}"))?;
    Ok(())
}
