//! Updates by packages on a real system: its dpkg, its apt, its systemd.

use anyhow::{Result, ensure};

use super::Site;
use super::life::{ONLINE, enrolled};
use super::machine::Machine;

/// A signer whom the board trusts, and two bundles of version 0.2.0: as packed, and one whose agent ends at once.
const BUNDLES: &str = r#"
    cd /tmp
    openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=signer -keyout key.pem -out cert.pem 2>/dev/null
    cp cert.pem /etc/headwater/update-keyring.pem
    mkdir bad
    dpkg-deb --raw-extract /shared/next/headwater-agent_*.deb tree
    printf '#!/bin/sh\nexit 1\n' >tree/usr/bin/headwater-agent
    dpkg-deb --root-owner-group -Zgzip -z1 --build tree bad >/dev/null
    headwater bundle bad/*.deb --key key.pem --cert cert.pem -o bad.hwb
    headwater bundle /shared/next/headwater-agent_*.deb /shared/next/headwater-worker_*.deb --key key.pem --cert cert.pem -o good.hwb
"#;

fn versions(board: &Machine) -> Result<String> {
    board.ok("dpkg-query -W -f '${Package} ${db:Status-Abbrev}${Version};' headwater-agent headwater-worker")
}

pub(crate) fn the_first_one_goes_back(site: &Site) -> Result<()> {
    let board = enrolled(site)?;
    let before = versions(&board)?;
    board.ok("sed -i 's/^#interval_seconds = 30/interval_seconds = 31/' /etc/headwater/agent.toml")?;
    board.ok(BUNDLES)?;
    // Nothing that an update has brought is kept yet.
    board.ok("test ! -e /var/lib/headwater-system/packages/current")?;
    let update = "headwater update board-1 --waves 100% --health 20s --detach";
    board.ok(&format!("{update} /tmp/bad.hwb"))?;
    board.wait_for("version that does not work", "dpkg-query -W headwater-agent | grep -q '0\\.2\\.0$'")?;
    board.wait_for("word of the way back", "headwater updates --json | grep -q 'rolled back'")?;
    ensure!(versions(&board)? == before, "{}", versions(&board)?);
    board.wait_for("node that is online again", ONLINE)?;
    board.ok("grep -q '^interval_seconds = 31' /etc/headwater/agent.toml")?;

    board.ok(&format!("{update} /tmp/good.hwb"))?;
    board.wait_for("end of the good update", "headwater updates --json | grep -q '\"done\": 1'")?;
    let after = versions(&board)?;
    ensure!(after == before.replace("0.1.0", "0.2.0"), "{after}");
    board.wait_for("node with the new version", ONLINE)?;
    Ok(())
}
