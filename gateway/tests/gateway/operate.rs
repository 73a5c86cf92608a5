use headwater_protocol::message::NodeState;
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;

use crate::harness::{Gateway, until};
use crate::node::{Manner, Node};

async fn command(gateway: &Gateway, command: &str) -> u16 {
    let request = gateway.client.post(gateway.url("/api/v1/nodes/a/command"));
    let request = request.bearer_auth(gateway.operator_token()).body(format!("{{\"command\":{command:?}}}"));
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_drained_node_gets_nothing_until_it_is_resumed() {
    let gateway = Gateway::start().await;
    let _node = Node::start(&gateway, "a", Manner::Works).await;
    assert_eq!(command(&gateway, "drain").await, 200);
    gateway.wait_state("a", NodeState::Draining).await;
    assert_eq!(gateway.refused("/live/m/0.ts", b"x").await, (503, "No sessions available\n".to_owned()));
    assert_eq!(command(&gateway, "resume").await, 200);
    gateway.wait_state("a", NodeState::Online).await;
    assert_eq!(gateway.push("/live/m/1.ts").body("x").send().await.unwrap().status(), 200);
    assert_eq!(command(&gateway, "dance").await, 400);
}

#[tokio::test]
async fn a_broker_of_the_operators_own_serves_as_well_and_may_come_late() {
    // A first life makes the CA, and a configuration for a mosquitto that trusts it.
    let mut gateway = Gateway::start().await;
    assert!(gateway.end(Signal::SIGTERM).success());
    let broker = gateway.state().join("broker");
    let own = gateway.dir.path().join("own");
    std::fs::rename(&broker, &own).unwrap();
    let conf = std::fs::read_to_string(own.join("mosquitto.conf")).unwrap();
    let conf = conf.replace(broker.to_str().unwrap(), own.to_str().unwrap());
    std::fs::write(own.join("mosquitto.conf"), conf).unwrap();
    let (address, config) = (gateway.broker, gateway.dir.path().join("gateway.toml"));
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("[broker]\n", &format!("[broker]\nurl = \"mqtts://{address}\"\n"));
    std::fs::write(&config, text).unwrap();

    let mosquitto = std::process::Command::new("mosquitto")
        .arg("-c")
        .arg(own.join("mosquitto.conf"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _mosquitto = Ends(mosquitto);
    gateway.relaunch().await;
    assert_eq!(gateway.broker, address);
    until("the session", async || gateway.text("/healthz").await.0 == 200).await;
    assert!(!broker.exists(), "it started one of its own");
    let _node = Node::start(&gateway, "a", Manner::Works).await;
    assert_eq!(gateway.push("/live/m/0.ts").body("x").send().await.unwrap().status(), 200);
    assert!(gateway.end(Signal::SIGTERM).success());
}

struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_broker_port_that_is_taken_is_said_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "state_dir = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[nodes]\nlisten = \"127.0.0.1:0\"\n\
         [broker]\nlisten = {:?}\n",
        dir.path().join("state"),
        taken.local_addr().unwrap().to_string()
    );
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, config).unwrap();
    let mut gateway = tokio::process::Command::new(env!("CARGO_BIN_EXE_headwater-gateway"))
        .arg("--config")
        .arg(file)
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stderr = gateway.stderr.take().unwrap();
    let ended = async {
        stderr.read_to_string(&mut said).await.unwrap();
        gateway.wait().await.unwrap()
    };
    let status = tokio::time::timeout(crate::harness::LONG, ended).await.expect("it does not end");
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("(broker.listen)"), "{said}");
}

#[tokio::test]
async fn what_a_node_did_is_counted_over_restarts() {
    let mut gateway = Gateway::start().await;
    let node = Node::start(&gateway, "a", Manner::Works).await;
    assert_eq!(gateway.push("/live/m/0.ts").body("x").send().await.unwrap().status(), 200);
    let certificate = std::sync::Arc::clone(&node.certificate);
    drop(node);
    gateway.restart(Signal::SIGTERM).await;
    let _node = Node::connect(&gateway, certificate, Manner::Works).await;
    assert_eq!(gateway.nodes_list().await[0].done, 1);
}

#[tokio::test]
async fn only_so_many_may_watch_and_a_place_that_is_left_is_free_again() {
    let gateway = Gateway::start().await;
    let mut watchers = Vec::new();
    for _ in 0..64 {
        let watcher = gateway.get("/api/v1/events").await;
        assert_eq!(watcher.status(), 200);
        watchers.push(watcher);
    }
    assert_eq!(gateway.get("/api/v1/events").await.status(), 503);
    watchers.pop();
    until("a free place", async || gateway.get("/api/v1/events").await.status() == 200).await;
}
