//! A gateway with its broker and any number of enrolled agents, on free ports, in one folder.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::process::{MARK, Process, binary, marked};
use crate::push::{Answer, Push};

/// How long a part may take to be ready; a busy machine is slow, a broken part says so at once.
pub const READY: Duration = Duration::from_secs(60);

/// What a fleet is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// One agent each.
    pub nodes: Vec<String>,
    /// TOML put into the gateway's `[http]` table.
    pub http: String,
    /// TOML put at the end of the gateway's configuration.
    pub gateway_tables: String,
    /// TOML put at the end of each agent's configuration.
    pub agent_tables: String,
    /// The worker the agents run.
    pub worker: Option<PathBuf>,
    /// Port of the HTTP interface, 0 for a free one.
    pub http_port: u16,
    /// Under which name boards in emulated machines reach this one; they come from there to its loopback.
    pub advertise_host: Option<String>,
}

impl Options {
    pub fn nodes(names: &[&str]) -> Self {
        Self {
            nodes: names.iter().map(|name| (*name).to_owned()).collect(),
            http: String::new(),
            gateway_tables: String::new(),
            agent_tables: String::new(),
            worker: None,
            http_port: 0,
            advertise_host: None,
        }
    }
}

#[derive(Debug)]
pub struct Fleet {
    pub folder: PathBuf,
    pub gateway: Process,
    pub agents: Vec<(String, Process)>,
    /// `http://127.0.0.1:port`
    pub http: String,
    pub client: reqwest::Client,
    options: Options,
    mark: String,
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl Fleet {
    /// Starts everything below `folder` and waits until every node is online and proved.
    pub async fn start(folder: &Path, options: Options) -> Result<Self> {
        let mut fleet = Self::gateway_only(folder, options).await?;
        for name in fleet.options.nodes.clone() {
            fleet.enroll(&name)?;
            fleet.start_agent(&name)?;
        }
        fleet.wait_online().await?;
        Ok(fleet)
    }

    /// The same without agents.
    pub async fn gateway_only(folder: &Path, options: Options) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        // Fixed for the fleet's life, so that a restarted gateway is found by its agents.
        let (nodes, broker) = (free_port()?, free_port()?);
        let http = if options.http_port == 0 { free_port()? } else { options.http_port };
        let host = |host: &String| format!("advertise_host = \"{host}\"\n");
        let host = options.advertise_host.as_ref().map(host).unwrap_or_default();
        let config = format!(
            "fleet = \"test\"\nstate_dir = \"{state}\"\n\n\
             [http]\nlisten = \"127.0.0.1:{http}\"\n{more}\n\n\
             [nodes]\nlisten = \"127.0.0.1:{nodes}\"\n{host}\n\
             [broker]\nlisten = \"127.0.0.1:{broker}\"\n{host}\n{tables}\n",
            state = folder.join("gateway").display(),
            more = options.http,
            tables = options.gateway_tables,
        );
        fs::write(folder.join("gateway.toml"), config)?;
        let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
        let gateway = spawn_gateway(&folder, &mark)?;
        let mut fleet = Self {
            folder,
            gateway,
            agents: Vec::new(),
            http: format!("http://127.0.0.1:{http}"),
            client,
            options,
            mark,
        };
        fleet.wait_gateway().await?;
        Ok(fleet)
    }

    async fn wait_gateway(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            let health = self.client.get(format!("{}/healthz", self.http)).send().await;
            if health.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = self.gateway.ended() {
                bail!("the gateway ended with {status}:\n{}", self.gateway.log_tail());
            }
            ensure!(Instant::now() < deadline, "the gateway is not healthy:\n{}", self.gateway.log_tail());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGKILL for the gateway, or SIGTERM where `gently`, then a new one on the same ports.
    pub async fn restart_gateway(&mut self, gently: bool) -> Result<()> {
        if gently {
            let status = self.gateway.terminate()?;
            ensure!(status.success(), "the gateway ended with {status}:\n{}", self.gateway.log_tail());
        } else {
            self.gateway.kill();
        }
        self.gateway = spawn_gateway(&self.folder, &self.mark)?;
        self.wait_gateway().await
    }

    pub fn gateway_state(&self) -> PathBuf {
        self.folder.join("gateway")
    }

    pub fn agent_config(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("agent.toml")
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(binary(program)?);
        command.env(MARK, &self.mark);
        Ok(command)
    }

    /// The operator's command against this gateway.
    pub fn headwater(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command("headwater")?;
        command.arg("--gateway").arg(&self.http);
        command.arg("--token-file").arg(self.gateway_state().join("operator.token"));
        command.args(arguments).output().context("headwater")
    }

    /// A fresh enrolment token for a node.
    pub fn token(&self, name: &str) -> Result<String> {
        let output = self.headwater(&["enroll", name])?;
        ensure!(output.status.success(), "headwater enroll: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Writes an agent's configuration and enrols it.
    pub fn enroll(&self, name: &str) -> Result<()> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        let worker = match &self.options.worker {
            Some(worker) => worker.clone(),
            None => binary("headwater-worker")?,
        };
        fs::write(
            self.agent_config(name),
            format!(
                "state_dir = \"{}\"\nworker = \"{}\"\n\n{}\n",
                folder.join("state").display(),
                worker.display(),
                self.options.agent_tables
            ),
        )?;
        let token = self.token(name)?;
        let output = self
            .command("headwater-agent")?
            .arg("enroll")
            .arg(&token)
            .arg("--config")
            .arg(self.agent_config(name))
            .output()?;
        ensure!(
            output.status.success(),
            "headwater-agent enroll ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    pub fn start_agent(&mut self, name: &str) -> Result<()> {
        let mut command = self.command("headwater-agent")?;
        command.arg("run").arg("--config").arg(self.agent_config(name));
        let agent = Process::start(name, command, &self.folder.join(format!("{name}.log")))?;
        self.agents.push((name.to_owned(), agent));
        Ok(())
    }

    pub fn agent(&mut self, name: &str) -> Result<&mut Process> {
        let agent = self.agents.iter_mut().find(|(known, _)| known == name);
        agent.map(|(_, agent)| agent).with_context(|| format!("no agent is called {name}"))
    }

    /// Waits until the gateway sees every started agent online with its capabilities.
    pub async fn wait_online(&mut self) -> Result<()> {
        let names: Vec<String> = self.agents.iter().map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + READY;
        loop {
            let nodes = self.get("/api/v1/nodes").await?;
            let online = |name: &str| {
                nodes.as_array().is_some_and(|nodes| {
                    nodes.iter().any(|node| {
                        node["node"] == name
                            && node["state"] == "online"
                            && node["birth"]["capabilities"].as_array().is_some_and(|list| !list.is_empty())
                    })
                })
            };
            if names.iter().all(|name| online(name)) {
                return Ok(());
            }
            for (name, agent) in &mut self.agents {
                if let Some(status) = agent.ended() {
                    bail!("agent {name} ended with {status}:\n{}", agent.log_tail());
                }
            }
            if Instant::now() > deadline {
                let logs: Vec<String> = self.agents.iter().map(|(_, agent)| agent.log_tail()).collect();
                bail!("not online: {names:?}\n{nodes:#}\n{}", logs.join("\n---\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// GET of the gateway's API.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let response = self.client.get(format!("{}{path}", self.http)).send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "GET {path}: {status} {text}");
        serde_json::from_str(&text).with_context(|| text)
    }

    pub async fn text(&self, path: &str) -> Result<(u16, String)> {
        let response = self.client.get(format!("{}{path}", self.http)).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Pushes one segment and asks for multipart.
    pub async fn push(
        &self,
        stream: &str,
        file: &str,
        configuration: Option<&str>,
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer> {
        let url = format!("{}/live/{stream}/{file}", self.http);
        Push { url, configuration, duration_ms: 2000, multipart: true }.send(&self.client, body).await
    }

    /// The same on its own, so that something can be done to the fleet while the segment is in work.
    pub fn push_apart(
        &self,
        stream: &str,
        file: &str,
        configuration: &'static str,
        body: Vec<u8>,
    ) -> tokio::task::JoinHandle<Result<Answer>> {
        let (client, url) = (self.client.clone(), format!("{}/live/{stream}/{file}", self.http));
        tokio::spawn(async move {
            let push = Push { url, configuration: Some(configuration), duration_ms: 2000, multipart: true };
            push.send(&client, body).await
        })
    }

    /// Every log of the fleet, for a failed test's output.
    pub fn logs(&self) -> String {
        let mut text = format!("== gateway\n{}\n", self.gateway.log());
        for (name, agent) in &self.agents {
            text += &format!("== {name}\n{}\n", agent.log());
        }
        text
    }

    /// Pids and command lines of everything this fleet started.
    pub fn processes(&self) -> Vec<(i32, String)> {
        marked(&self.mark).into_iter().collect()
    }

    /// Pids of the workers that run now.
    pub fn workers(&self) -> Vec<i32> {
        self.processes()
            .into_iter()
            .filter(|(_, command)| command.contains("worker") && command.contains(" serve"))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// SIGTERM for all, in the order of a shutdown; fails when one ends badly or leaves a process behind.
    pub fn stop(mut self) -> Result<()> {
        for (name, agent) in &mut self.agents {
            if agent.ended().is_some() {
                continue;
            }
            let status = agent.terminate()?;
            ensure!(status.success(), "agent {name} ended with {status}:\n{}", agent.log_tail());
        }
        let status = self.gateway.terminate()?;
        ensure!(status.success(), "the gateway ended with {status}:\n{}", self.gateway.log_tail());
        let left = self.processes();
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }
}

fn spawn_gateway(folder: &Path, mark: &str) -> Result<Process> {
    let mut command = Command::new(binary("headwater-gateway")?);
    command.arg("--config").arg(folder.join("gateway.toml")).env(MARK, mark);
    Process::start("gateway", command, &folder.join("gateway.log"))
}
