//! A board where only an HTTP proxy leads out: tinyproxy, on this machine.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::HOST;
use super::rig::{Rig, Setting};
use super::scenarios::{Amount, Told};
use crate::Process;
use crate::fleet::{READY, free_port};

/// Where the gateway says that it is. To the board this is the board itself: only the proxy, which runs beside the gateway,
/// leads there.
const GATEWAY: &str = "localhost";
const PASSWORD: &str = "s3cret.pass";
/// As it is written in an address.
const ENCODED: &str = "s3cret%2Epass";

/// Another board, flashed and switched on in this one's place, with a gateway of its own.
pub(super) async fn a_board_behind_a_proxy_enrols_and_works_through_it_alone(
    rig: &mut Rig,
    _: &Amount,
) -> Told {
    let (mut proxy, port) = start(rig)?;
    rig.board.cut_power(&mut rig.dice)?;
    let setting = Setting { folder: rig.setting.folder.join("proxied"), ..rig.setting.clone() };
    let line = format!("proxy = \"http://board:{ENCODED}@{HOST}:{port}\"\n");
    let mut other = Rig::flashed(&setting, rig.board.plug.clone(), GATEWAY, &line).await?;
    other.connected_anew().await?;
    let connected = other.since_switched_on().as_secs_f64();
    other.say(&format!("connected {connected:.1} s after it was switched on"));
    other.proved().await?;
    other.job(1).await?;
    other.board.wait_ssh(super::BOOTED)?;
    let told = other.board.ask("journalctl -b | grep -c s3cret || true")?;
    ensure!(told == "0", "the proxy's password is in the journal");
    drop(other);
    ensure!(proxy.ended().is_none(), "{}", proxy.log_tail());
    // To enrol, to the broker, and for media.
    let ways = proxy.log().matches(&format!("CONNECT {GATEWAY}:")).count();
    ensure!(ways >= 3, "{ways} ways were asked for:\n{}", proxy.log_tail());
    rig.start_anew().await?;
    Ok(json!({ "boot_to_connected_s": connected, "ways": ways }))
}

/// A proxy that asks who wants out, and the port on which it listens.
fn start(rig: &Rig) -> Result<(Process, u16)> {
    let port = free_port()?;
    let config = rig.setting.folder.join("tinyproxy.conf");
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\nLogLevel Connect\nBasicAuth board {PASSWORD}\n"
    );
    fs::write(&config, text).with_context(|| config.display().to_string())?;
    let mut command = Command::new("tinyproxy");
    command.arg("-d").arg("-c").arg(&config);
    let mut proxy = Process::start("tinyproxy", command, &rig.setting.folder.join("tinyproxy.log"))?;
    proxy.wait_for("its port", READY, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())?;
    Ok((proxy, port))
}
