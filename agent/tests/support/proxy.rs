//! A real HTTP proxy between the agent and its gateway: tinyproxy.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Fleet, Running, free_port, until};

pub(crate) const USER: &str = "board";
pub(crate) const PASSWORD: &str = "s3cret.pass";
/// As it is written in an address; decoded on the way.
pub(crate) const ENCODED: &str = "s3cret%2Epass";

pub(crate) struct Proxy {
    _process: Running,
    port: u16,
    log: PathBuf,
}

impl Proxy {
    /// Lets through to these ports alone, or to all.
    pub(crate) fn start(fleet: &Fleet, port: u16, allowed: &[u16]) -> Self {
        let folder = fleet.home.path();
        let (config, log) = (folder.join("tinyproxy.conf"), folder.join("tinyproxy.log"));
        let mut text = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\nLogLevel Connect\nLogFile {log:?}\n\
             BasicAuth {USER} {PASSWORD}\n"
        );
        text.extend(allowed.iter().map(|port| format!("ConnectPort {port}\n")));
        fs::write(&config, text).unwrap();
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(config).stdin(Stdio::null());
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = Running(process.expect("tinyproxy is installed"));
        until("the proxy listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { _process: process, port, log }
    }

    pub(crate) fn anywhere(fleet: &Fleet) -> Self {
        Self::start(fleet, free_port(), &[])
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// Ways that it was asked for to a port.
    pub(crate) fn ways_to(&self, port: u16) -> usize {
        let asked = format!("CONNECT 127.0.0.1:{port} ");
        fs::read_to_string(&self.log).unwrap_or_default().matches(&asked).count()
    }
}

pub(crate) fn url(port: u16) -> String {
    format!("http://{USER}:{ENCODED}@127.0.0.1:{port}")
}
