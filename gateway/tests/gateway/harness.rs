//! A gateway process on free ports, its folder, and requests to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headwater_gateway::views::{EnrollReply, EnrollRequest, NodeView, StreamView};
use headwater_protocol::NodeId;
use headwater_protocol::enroll::Token;
use headwater_protocol::message::NodeState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Client, Response, StatusCode};

/// Longest wait for anything; a test that reaches it fails.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Gateway {
    pub(crate) dir: tempfile::TempDir,
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) nodes: SocketAddr,
    pub(crate) broker: SocketAddr,
    pub(crate) client: Client,
}

#[derive(serde::Deserialize)]
struct Run {
    http: SocketAddr,
    nodes: SocketAddr,
    broker: SocketAddr,
    pid: u32,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With tables added to the configuration.
    pub(crate) async fn start_with(tables: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let config = format!(
            "state_dir = {state:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[nodes]\nlisten = \"127.0.0.1:0\"\n\
             [broker]\nlisten = \"127.0.0.1:0\"\n{tables}\n"
        );
        std::fs::write(dir.path().join("gateway.toml"), config).unwrap();
        let (child, run) = launch(dir.path()).await;
        let client = Client::builder().no_proxy().build().unwrap();
        Self { dir, child, http: run.http, nodes: run.nodes, broker: run.broker, client }
    }

    /// Ends the process by a signal and starts another on the same state.
    pub(crate) async fn restart(&mut self, signal: Signal) {
        self.end(signal);
        self.relaunch().await;
    }

    /// Starts again after an end.
    pub(crate) async fn relaunch(&mut self) {
        let (child, run) = launch(self.dir.path()).await;
        (self.child, self.http, self.nodes, self.broker) = (child, run.http, run.nodes, run.broker);
    }

    /// A further process on the same state, which is expected to end by itself.
    pub(crate) fn run_again(&self) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_headwater-gateway"))
            .arg("--config")
            .arg(self.dir.path().join("gateway.toml"))
            .output()
            .unwrap()
    }

    pub(crate) fn end(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        let status = self.child.wait().unwrap();
        let _ = std::fs::remove_file(self.state().join("run.json"));
        status
    }

    /// Its database, which it goes on using.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        let database = rusqlite::Connection::open(self.state().join("gateway.db")).unwrap();
        database.busy_timeout(LONG).unwrap();
        database
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    pub(crate) async fn text(&self, path: &str) -> (StatusCode, String) {
        let response = self.get(path).await;
        (response.status(), response.text().await.unwrap())
    }

    pub(crate) fn push(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(self.url(path)).header("Accept", "multipart/mixed").timeout(LONG)
    }

    /// Pushes and gives status and text.
    pub(crate) async fn refused(&self, path: &str, body: &'static [u8]) -> (u16, String) {
        let response = self.push(path).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) fn operator_token(&self) -> String {
        std::fs::read_to_string(self.state().join("operator.token")).unwrap().trim().to_owned()
    }

    pub(crate) async fn issue(&self, name: &str) -> Response {
        let request = EnrollRequest { node: NodeId::new(name).unwrap(), valid: None };
        let request = self.client.post(self.url("/api/v1/enroll")).json(&request);
        request.bearer_auth(self.operator_token()).send().await.unwrap()
    }

    pub(crate) async fn token(&self, name: &str) -> Token {
        let reply: EnrollReply = self.issue(name).await.json().await.unwrap();
        reply.token.parse().unwrap()
    }

    pub(crate) async fn nodes_list(&self) -> Vec<NodeView> {
        self.get("/api/v1/nodes").await.json().await.unwrap()
    }

    pub(crate) async fn stream(&self, name: &str) -> StreamView {
        self.get(&format!("/api/v1/streams/{name}")).await.json().await.unwrap()
    }

    pub(crate) async fn wait_state(&self, name: &str, state: NodeState) {
        until("the node's state", async || {
            let nodes = self.nodes_list().await;
            nodes.iter().any(|node| node.node.as_str() == name && node.state == state && node.birth.is_some())
        })
        .await;
    }

    /// The operator's command, in its own process.
    pub(crate) async fn headwater(&self, arguments: &[&str]) -> std::process::Output {
        self.headwater_command(arguments).output().await.unwrap()
    }

    pub(crate) fn headwater_command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_headwater"));
        command
            .args(["--gateway", &self.url("")])
            .arg("--token-file")
            .arg(self.state().join("operator.token"))
            .args(arguments)
            .env("SSL_CERT_FILE", "/dev/null")
            .env("SSL_CERT_DIR", "/nonexistent")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Every file below the media folder.
    pub(crate) fn media(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => walk(&path, found),
                    path => found.push(path),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.state().join("media"), &mut found);
        found
    }

    /// The process id of the broker.
    pub(crate) fn broker_pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.state().join("broker/pid")).unwrap();
        text.trim().parse().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- gateway ---\n{}", self.log());
        }
    }
}

/// Asks again until it is true; fails after [`LONG`].
pub(crate) async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !ask().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn launch(dir: &Path) -> (Child, Run) {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_headwater-gateway"))
        .args(["run", "--config"])
        .arg(dir.join("gateway.toml"))
        // OpenSSL reads the system's roots for every context, also where none of them is trusted; that
        // takes longer than all else at a start.
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + LONG;
    loop {
        if let Ok(text) = std::fs::read(dir.join("state/run.json"))
            && let Ok(run) = serde_json::from_slice::<Run>(&text)
            && run.pid == child.id()
        {
            return (child, run);
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("gateway ended: {status}\n{}", std::fs::read_to_string(dir.join("log")).unwrap());
        }
        assert!(Instant::now() < deadline, "gateway not ready");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
