//! A fleet on this machine: a real mosquitto with TLS, an HTTPS server as the gateway's node address, the agent's own
//! binary, and a worker that has faults on demand. The gateway's side of MQTT is `mosquitto_sub` and `mosquitto_pub`.

pub(crate) mod board;
pub(crate) mod follow;
pub(crate) mod pki;
pub(crate) mod proxy;
pub(crate) mod server;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use headwater_protocol::enroll::Token;
use headwater_protocol::{FleetId, NodeId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use pki::Ca;
use server::Server;

/// A test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const NODE: &str = "orin-1";
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Ends its process when it goes.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "a process did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody has, below those that the kernel hands out by itself: a broker that restarts must get it back.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() % 1000 * 20;
    loop {
        let port = 10_000 + (start as u16 + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) struct Fleet {
    // Dropped in this order: the folder last.
    pub(crate) broker: Option<Running>,
    pub(crate) port: u16,
    _sub: Running,
    messages: Receiver<(String, Value)>,
    pub(crate) server: Server,
    pub(crate) ca: Ca,
    pub(crate) home: TempDir,
    pub(crate) workers: u32,
    /// `segments_in_flight` and `spare_worker` of the agent.
    pub(crate) in_flight: u32,
    pub(crate) spare: bool,
    /// `worker_idle_seconds`.
    pub(crate) idle: u32,
    /// `config_seconds`.
    pub(crate) config_limit: u32,
    /// `reserve_mib`.
    pub(crate) reserve: u32,
    pub(crate) proxy: String,
    /// Further lines of `[limits]`.
    pub(crate) limits: String,
}

impl Fleet {
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let ca = Ca::new("home");
        ca.write(home.path(), "broker", "127.0.0.1");
        ca.write(home.path(), "gateway", "gateway");
        let port = free_port();
        let broker = start_broker(home.path(), port, "ca", "");
        let server = Server::start(&ca, port);
        let (sub, messages) = subscribe(home.path(), port);
        Self {
            broker: Some(broker),
            port,
            _sub: sub,
            messages,
            server,
            ca,
            home,
            workers: 1,
            in_flight: 1,
            spare: false,
            idle: 30,
            config_limit: 300,
            reserve: 0,
            proxy: String::new(),
            limits: String::new(),
        }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.home.path().join("state")
    }

    pub(crate) fn token(&self) -> Token {
        Token {
            fleet: FleetId::new("home").unwrap(),
            node: NodeId::new(NODE).unwrap(),
            ca_sha256: self.ca.fingerprint(),
            secret: SECRET.into(),
            url: self.server.url(),
        }
    }

    pub(crate) fn command(&self) -> Command {
        self.command_with(&fake_worker())
    }

    pub(crate) fn command_with(&self, worker: &Path) -> Command {
        let config = self.home.path().join("agent.toml");
        let text = format!(
            "proxy = {:?}\n[limits]\nworkers = {}\nqueue = 1\nsegments_in_flight = {}\nspare_worker = {}\nworker_idle_seconds = {}\n{}\n[telemetry]\ninterval_seconds = 1\n[mqtt]\nkeep_alive_seconds = 5\n\
             [deadlines]\nworker_silence_seconds = 2\ndrain_seconds = 20\n\
             worker_start_seconds = 300\nprobe_seconds = 60\ntransfer_silence_seconds = 300\nconfig_seconds = {}\n[log]\nlevel = \"debug\"\n[system]\nsocket = {:?}\nreserve_mib = {}\n",
            self.proxy,
            self.workers,
            self.in_flight,
            self.spare,
            self.idle,
            self.limits,
            self.config_limit,
            self.home.path().join("system.sock"),
            self.reserve
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-agent"));
        command.arg("--config").arg(config).arg("--state-dir").arg(self.state_dir());
        // Every process below it is found by this folder.
        command.arg("--worker").arg(worker).current_dir(self.home.path()).env_remove("RUST_LOG");
        let proc = self.home.path().join("proc");
        if proc.exists() {
            command.env("HEADWATER_PROC", proc);
        }
        command
    }

    pub(crate) fn enroll(&self, token: &Token) -> std::process::Output {
        self.command().arg("enroll").arg(token.to_string()).output().unwrap()
    }

    /// An enrolled agent that has published its birth.
    pub(crate) fn agent(&self) -> Running {
        if !self.state_dir().exists() {
            let output = self.enroll(&self.token());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let agent = self.silent_agent();
        // In whatever order: the status comes with the connection, the birth when the probe has ended.
        let (mut born, mut online) = (false, false);
        self.receive("birth and status", |channel, message| {
            born |= channel == "birth" && message["node"] == NODE;
            online |= channel == "status" && message["state"] == "online";
            born && online
        });
        agent
    }

    /// An enrolled agent of which nothing is known yet.
    pub(crate) fn silent_agent(&self) -> Running {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home.path().join("agent.log"))
            .unwrap();
        Running(self.command().arg("run").stderr(log).spawn().unwrap())
    }

    /// The same, which tries again after 5 s where a probe was not good enough.
    pub(crate) fn agent_that_soon_probes_again(&self) -> Running {
        let mut command = self.command();
        let config = self.home.path().join("agent.toml");
        let text = fs::read_to_string(&config).unwrap().replace("probe_seconds = 60", "probe_seconds = 5");
        fs::write(config, text).unwrap();
        let log = fs::File::create(self.home.path().join("agent.log")).unwrap();
        Running(command.arg("run").stderr(log).spawn().unwrap())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("agent.log")).unwrap_or_default()
    }

    pub(crate) fn publish(&self, channel: &str, message: &Value) {
        self.send(channel, message, &[]);
    }

    pub(crate) fn retain(&self, channel: &str, message: &Value) {
        self.send(channel, message, &["-r"]);
    }

    fn send(&self, channel: &str, message: &Value, flags: &[&str]) {
        let status = client("mosquitto_pub", self.home.path(), self.port, "gateway")
            .args(flags)
            .args([
                "-q",
                "1",
                "-t",
                &format!("headwater/v1/home/{NODE}/{channel}"),
                "-m",
                &message.to_string(),
            ])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The next message that the test waits for; others are passed over.
    pub(crate) fn receive(&self, what: &str, mut wanted: impl FnMut(&str, &Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((topic, message)) = self.messages.recv_timeout(left) else {
                panic!("no {what} came; running: {:?}; the agent's log:\n{}", self.processes(), self.log());
            };
            let channel = topic.rsplit('/').next().unwrap();
            if wanted(channel, &message) {
                return message;
            }
        }
    }

    pub(crate) fn message(&self, channel: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.receive(channel, |on, message| on == channel && wanted(message))
    }

    pub(crate) fn event(&self, task: &str, kind: &str) -> Value {
        self.message("event", |event| event["task"] == task && event["event"]["kind"] == kind)
    }

    /// The end of an attempt, whatever it is.
    pub(crate) fn end(&self, task: &str) -> Value {
        let ends = ["done", "failed", "refused"];
        let wanted = |e: &Value| e["task"] == task && ends.iter().any(|end| e["event"]["kind"] == **end);
        self.message("event", wanted)
    }

    pub(crate) fn offer(&self, task: &str, stream: &str, input: &[u8]) {
        self.server.put_input(&format!("/in/{task}"), input);
        self.publish("offer", &offer(task, stream, input.len()));
    }

    /// Another broker instead, with further lines in its configuration; the gateway's side does not follow.
    pub(crate) fn replace_broker(&mut self, ca: &str, lines: &str) {
        drop(self.broker.take());
        self.broker = Some(start_broker(self.home.path(), self.port, ca, lines));
    }

    pub(crate) fn restart_broker(&mut self) {
        self.replace_broker("ca", "");
        (self._sub, self.messages) = subscribe(self.home.path(), self.port);
    }

    /// Waits until the gateway's side is subscribed.
    pub(crate) fn hear(&self) {
        self.publish("status", &json!({ "state": "heard" }));
        let deadline = Instant::now() + PATIENCE;
        while !self.messages.try_iter().any(|(_, message)| message["state"] == "heard") {
            assert!(Instant::now() < deadline, "the gateway's side does not come back");
            std::thread::sleep(Duration::from_millis(50));
            self.publish("status", &json!({ "state": "heard" }));
        }
    }

    /// Processes that run in this fleet's folder.
    pub(crate) fn processes(&self) -> Vec<String> {
        self.running().into_iter().map(|(_, command)| command).collect()
    }

    fn running(&self) -> Vec<(Pid, String)> {
        let home = self.home.path().canonicalize().unwrap();
        let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let here = entries.filter(|path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == home));
        here.filter_map(|path| {
            let pid = path.file_name()?.to_str()?.parse().ok()?;
            let command = fs::read_to_string(path.join("cmdline")).unwrap_or_default();
            Some((Pid::from_raw(pid), command.replace('\0', " ")))
        })
        .collect()
    }

    /// Workers that run now, the spare one too.
    pub(crate) fn workers(&self) -> Vec<Pid> {
        let workers = self.running().into_iter().filter(|(_, command)| command.contains("fake-worker serve"));
        workers.map(|(pid, _)| pid).collect()
    }

    pub(crate) fn no_process_is_left(&self) {
        until("all processes end", || self.processes().is_empty());
    }
}

pub(crate) fn fake_worker() -> PathBuf {
    let path =
        Path::new(env!("CARGO_BIN_EXE_headwater-agent")).with_file_name("examples").join("fake-worker");
    assert!(path.exists(), "build it with `cargo build -p headwater-agent --examples`; `cargo test` does");
    path
}

fn start_broker(home: &Path, port: u16, ca: &str, lines: &str) -> Running {
    let config = home.join("mosquitto.conf");
    let folder = home.display();
    fs::write(
        &config,
        format!(
            "user root\nlistener {port} 127.0.0.1\ncafile {folder}/{ca}.crt\ncertfile {folder}/broker.crt\n\
             keyfile {folder}/broker.key\nrequire_certificate true\nuse_identity_as_username true\n\
             persistence false\n{lines}\n"
        ),
    )
    .unwrap();
    let broker =
        Command::new("mosquitto").arg("-c").arg(config).stderr(Stdio::null()).stdout(Stdio::null()).spawn();
    let broker = Running(broker.expect("mosquitto is installed"));
    until("the broker listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    broker
}

fn client(program: &str, home: &Path, port: u16, name: &str) -> Command {
    // Debian has the daemon in sbin, which is not in everyone's PATH; the clients are in bin.
    let mut command = Command::new(program);
    command.args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &port.to_string()]);
    command.arg("--cafile").arg(home.join("ca.crt"));
    command.arg("--cert").arg(home.join(format!("{name}.crt")));
    command.arg("--key").arg(home.join(format!("{name}.key")));
    command
}

fn subscribe(home: &Path, port: u16) -> (Running, Receiver<(String, Value)>) {
    let mut child = client("mosquitto_sub", home, port, "gateway")
        .args(["-q", "1", "-t", "headwater/v1/home/+/+", "-F", "%t %p"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, messages) = channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let Some((topic, payload)) = line.split_once(' ') else { continue };
            let Ok(payload) = serde_json::from_str(payload) else { continue };
            if sender.send((topic.to_owned(), payload)).is_err() {
                return;
            }
        }
    });
    (Running(child), messages)
}

fn header() -> Value {
    json!({ "v": 1, "ts": 0, "ts_src": "rtc", "seq": 0 })
}

pub(crate) fn with_header(mut message: Value) -> Value {
    message.as_object_mut().unwrap().extend(header().as_object().unwrap().clone());
    message
}

pub(crate) fn offer(task: &str, stream: &str, bytes: usize) -> Value {
    let rendition = |name: &str| {
        json!({ "name": name, "codec": "h264", "width": 320, "height": 180, "rate": { "bitrate": 250_000 },
                "container": "ts" })
    };
    with_header(json!({
        "task": task, "epoch": 1, "stream": stream, "segment": 1,
        "lease": { "accept": 5000, "progress": 5000, "runtime": 60_000 },
        "ladder": [rendition("high"), rendition("low")],
        "input": { "path": format!("/in/{task}"), "container": "ts", "bytes": bytes, "duration": 2000 },
        "outputs": [
            { "rendition": "high", "path": format!("/out/{task}/high") },
            { "rendition": "low", "path": format!("/out/{task}/low") },
        ],
        "evidence": format!("/evidence/{task}"),
    }))
}

pub(crate) fn revoke(task: &str) -> Value {
    with_header(json!({ "task": task, "epoch": 1 }))
}

pub(crate) fn ack(event: &Value) -> Value {
    with_header(event["number"].clone())
}

pub(crate) fn order(id: &str, command: impl Into<Value>) -> Value {
    let command = command.into();
    with_header(json!({ "id": id, "command": command }))
}
