//! The embedded broker: a mosquitto with a generated configuration, started, watched and stopped here.
//!
//! ```text
//! state_dir/broker/{mosquitto.conf, acl, ca.pem, server.pem, server.key}
//! TLS, client certificates required, user name = certificate's common name = client id
//! ```
//!
//! It dies with the gateway: `setpriv --pdeathsig` where util-linux has it, and a pid file by which the
//! next start finds one that was left over. As root, mosquitto stays root (`user root`): it could not
//! read the key otherwise; the service runs unprivileged, where the line has no effect.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use headwater_protocol::topic::{Channel, ROOT, Writer};
use headwater_protocol::{FleetId, message};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::identity::{GATEWAY, Identity};
use crate::secret;

#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot start {program}: {source}; install mosquitto, or set broker.mosquitto or broker.url")]
    Start { program: PathBuf, source: std::io::Error },
    #[error("mosquitto ended at once ({status}); it said: {said}")]
    Ended { status: std::process::ExitStatus, said: String },
    #[error("mosquitto did not listen on {0} within 10 s")]
    Silent(SocketAddr),
    #[error("cannot listen on {address} (broker.listen): {source}")]
    Port { address: SocketAddr, source: std::io::Error },
}

#[derive(Debug)]
pub struct Embedded {
    program: PathBuf,
    dir: PathBuf,
    pub listen: SocketAddr,
}

/// Longest time that mosquitto gets for its end before it is killed.
const STOP: Duration = Duration::from_secs(3);
/// Messages that wait for one client. The gateway gets the last words of all nodes at once when it subscribes, up to four of
/// each of the 4096 that may connect, and what does not fit the broker drops without a word to either side.
const QUEUED: usize = 20_000;

impl Embedded {
    /// Writes configuration and certificates, and stops a broker that an earlier life left behind.
    pub async fn prepare(
        dir: &Path,
        program: &Path,
        listen: SocketAddr,
        fleet: &FleetId,
        identity: &Identity,
    ) -> Result<Self, BrokerError> {
        std::fs::create_dir_all(dir).map_err(|source| BrokerError::Write { path: dir.to_owned(), source })?;
        stop_stale(dir).await;
        let listen = free_port(listen).map_err(|source| BrokerError::Port { address: listen, source })?;
        let files = [
            ("ca.pem", identity.ca_pem.clone(), 0o644),
            ("server.pem", identity.server.certificate.clone(), 0o644),
            ("server.key", identity.server.key.clone(), 0o600),
            // Mosquitto 2.1 and later warn about an ACL file that others can read.
            ("acl", acl(fleet), 0o600),
            ("mosquitto.conf", config(dir, listen), 0o644),
        ];
        for (name, text, mode) in files {
            let path = dir.join(name);
            secret::write_file(&path, text.as_bytes(), mode)
                .map_err(|source| BrokerError::Write { path, source })?;
        }
        Ok(Self { program: program.to_owned(), dir: dir.to_owned(), listen })
    }

    /// Starts mosquitto and waits until it listens.
    pub async fn start(&self) -> Result<Running, BrokerError> {
        let mut child = self.spawn()?;
        let mut said = std::collections::VecDeque::new();
        let mut lines = child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
        let deadline = tokio::time::sleep(Duration::from_secs(10));
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = status.map_err(|source| BrokerError::Start {
                        program: self.program.clone(), source,
                    })?;
                    // What is still in the pipe says why.
                    while let Some(lines) = &mut lines && let Ok(Some(line)) = lines.next_line().await {
                        said.push_back(line);
                    }
                    return Err(BrokerError::Ended { status, said: Vec::from(said).join("; ") });
                }
                Some(line) = next_line(&mut lines) => {
                    tracing::debug!(target: "mosquitto", "{line}");
                    if said.len() == 8 {
                        said.pop_front();
                    }
                    said.push_back(line);
                }
                () = tokio::time::sleep(Duration::from_millis(15)) => {
                    if tokio::net::TcpStream::connect(self.listen).await.is_ok() {
                        break;
                    }
                }
                () = &mut deadline => return Err(BrokerError::Silent(self.listen)),
            }
        }
        if let Some(pid) = child.id() {
            let path = self.dir.join("pid");
            secret::write_file(&path, pid.to_string().as_bytes(), 0o644)
                .map_err(|source| BrokerError::Write { path, source })?;
        }
        let log = tokio::spawn(async move {
            while let Some(line) = next_line(&mut lines).await {
                // Nothing else would tell why a node is not heard of.
                if line.contains("being dropped") {
                    tracing::warn!(target: "mosquitto", "{line}");
                } else {
                    tracing::debug!(target: "mosquitto", "{line}");
                }
            }
        });
        Ok(Running { child, log, pid_file: self.dir.join("pid") })
    }

    /// Keeps it running until told to stop: an end is logged and followed by a start after a back-off.
    pub async fn supervise(self, mut running: Running, stop: CancellationToken) {
        let mut wait = Duration::from_millis(100);
        loop {
            let started = tokio::time::Instant::now();
            tokio::select! {
                () = stop.cancelled() => return running.stop().await,
                status = running.child.wait() => tracing::error!(?status, "broker ended; starting it again"),
            }
            if started.elapsed() > Duration::from_secs(30) {
                wait = Duration::from_millis(100);
            }
            running = loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(Duration::from_secs(10));
                match self.start().await {
                    Ok(running) => break running,
                    Err(error) => tracing::error!(%error, "broker does not start"),
                }
            };
        }
    }

    fn spawn(&self) -> Result<Child, BrokerError> {
        let mut command = match setpriv() {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "TERM", "--"]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command
            .arg("-c")
            .arg(self.dir.join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            // A Ctrl-C in the terminal is for the gateway, which stops the broker last.
            .process_group(0);
        command.spawn().map_err(|source| BrokerError::Start { program: self.program.clone(), source })
    }
}

async fn next_line(
    lines: &mut Option<tokio::io::Lines<BufReader<tokio::process::ChildStderr>>>,
) -> Option<String> {
    lines.as_mut()?.next_line().await.ok().flatten()
}

#[derive(Debug)]
pub struct Running {
    child: Child,
    log: tokio::task::JoinHandle<()>,
    pid_file: PathBuf,
}

impl Running {
    async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended by itself; waiting tells.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP, self.child.wait()).await.is_err() {
            tracing::warn!("broker does not end; killing it");
            if let Err(error) = self.child.kill().await {
                tracing::error!(%error, "broker cannot be killed");
            }
        }
        self.log.abort();
        if let Err(error) = std::fs::remove_file(&self.pid_file) {
            tracing::debug!(%error, "no pid file to remove");
        }
    }
}

fn setpriv() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("setpriv")).find(|file| file.is_file())
}

/// Port 0 becomes a port that is free now; another one must be free, or the start would take whoever
/// listens there for our broker.
fn free_port(address: SocketAddr) -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind(address)?.local_addr()
}

/// Ends the process of the pid file if it runs our configuration.
async fn stop_stale(dir: &Path) {
    let Ok(text) = std::fs::read_to_string(dir.join("pid")) else { return };
    let Ok(pid) = text.trim().parse::<i32>() else { return };
    let conf = dir.join("mosquitto.conf");
    let ours = move || {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0).any(|arg| arg == conf.as_os_str().as_encoded_bytes())
        })
    };
    if !ours() {
        return;
    }
    tracing::warn!(pid, "stopping a broker that an earlier gateway left behind");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let _ = kill(Pid::from_raw(pid), signal);
        for _ in 0..100 {
            if !ours() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn config(dir: &Path, listen: SocketAddr) -> String {
    let dir = dir.display();
    // The topic and MQTT's own fields come on top of the message.
    let packet = message::MAX_MESSAGE + 4096;
    let (ip, port) = (listen.ip(), listen.port());
    let user = match nix::unistd::geteuid().is_root() {
        true => "user root\n",
        false => "",
    };
    format!(
        "# Written by headwater-gateway at each start; changes are lost.\n\
         {user}per_listener_settings false\n\
         persistence false\n\
         log_dest stderr\n\
         log_type error\nlog_type warning\nlog_type notice\n\
         connection_messages false\n\
         allow_anonymous false\n\
         acl_file {dir}/acl\n\
         max_inflight_messages 64\n\
         max_queued_messages {QUEUED}\n\
         max_packet_size {packet}\n\
         message_size_limit {packet}\n\
         set_tcp_nodelay true\n\
         sys_interval 0\n\
         listener {port} {ip}\n\
         max_connections 4096\n\
         cafile {dir}/ca.pem\n\
         certfile {dir}/server.pem\n\
         keyfile {dir}/server.key\n\
         tls_version tlsv1.2\n\
         require_certificate true\n\
         use_identity_as_username true\n\
         use_username_as_clientid true\n"
    )
}

/// A node writes and reads its own channels, each in its direction; the gateway all of its fleet.
fn acl(fleet: &FleetId) -> String {
    let mut text = format!("user {GATEWAY}\ntopic readwrite {ROOT}/{fleet}/#\n");
    for channel in Channel::ALL {
        let way = match channel.writer() {
            Writer::Node => "write",
            Writer::Gateway => "read",
        };
        text.push_str(&format!("\npattern {way} {ROOT}/{fleet}/%u/{}", channel.as_str()));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acl_gives_each_channel_one_direction() {
        let text = acl(&FleetId::new("home").unwrap());
        assert!(text.starts_with("user gateway\ntopic readwrite headwater/v1/home/#\n"));
        assert!(text.contains("pattern write headwater/v1/home/%u/event\n"));
        assert!(text.contains("pattern read headwater/v1/home/%u/offer\n"));
        assert_eq!(text.matches("pattern ").count(), Channel::ALL.len());
    }
}
