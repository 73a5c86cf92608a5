use std::sync::Arc;

use headwater_protocol::Code;
use headwater_protocol::message::NodeState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Gateway, until};
use crate::node::{Manner, Node};

fn alive(pid: i32) -> bool {
    // A zombie whose new parent has not looked yet is as good as gone.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_broker_that_dies_comes_back_and_so_do_the_nodes() {
    let gateway = Gateway::start().await;
    let _node = Node::start(&gateway, "a", Manner::Works).await;
    let old = gateway.broker_pid();
    kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
    until("a new broker", async || gateway.broker_pid() != old && gateway.text("/healthz").await.0 == 200)
        .await;
    gateway.wait_state("a", NodeState::Online).await;
    assert_eq!(gateway.push("/live/m/0.ts").body("x").send().await.unwrap().status(), 200);
}

// Waiting for the process must not stop the node's own tasks.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_who_waits_and_takes_the_broker_along() {
    let mut gateway = Gateway::start().await;
    let mut node = Node::start(&gateway, "a", Manner::Works).await;
    let push = tokio::spawn(gateway.push("/live/m/0.ts").body("x").send());
    node.offer().await;
    let broker = gateway.broker_pid();
    assert!(gateway.end(Signal::SIGTERM).success());
    assert_eq!(push.await.unwrap().unwrap().status(), 200);
    assert!(!alive(broker));
}

#[tokio::test]
async fn a_gateway_that_is_killed_leaves_no_broker_and_closes_what_ran() {
    let mut gateway = Gateway::start().await;
    let mut node = Node::start(&gateway, "a", Manner::Hangs).await;
    let push = tokio::spawn(gateway.push("/live/m/0.ts").body("x").send());
    node.offer().await;
    // The offer goes out while it is being stored.
    until("the segment to be stored", async || gateway.text("/api/v1/streams/m").await.1.contains("running"))
        .await;
    let ca = std::fs::read(gateway.state().join("ca/ca.pem")).unwrap();
    let (broker, certificate) = (gateway.broker_pid(), Arc::clone(&node.certificate));
    gateway.restart(Signal::SIGKILL).await;
    assert!(push.await.unwrap().is_err());
    until("the old broker to end", async || !alive(broker)).await;
    assert_eq!(std::fs::read(gateway.state().join("ca/ca.pem")).unwrap(), ca);
    let stream = gateway.stream("m").await;
    assert!(!stream.live);
    assert_eq!(stream.segments[0].fault.as_ref().unwrap().code, Code::Interrupted);
    assert!(gateway.media().is_empty(), "{:?}", gateway.media());
    drop(node);
    let _node = Node::connect(&gateway, certificate, Manner::Works).await;
    assert_eq!(gateway.push("/live/m/1.ts").body("x").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_second_gateway_on_the_same_state_is_refused() {
    let gateway = Gateway::start().await;
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_headwater-gateway"))
        .args(["--config"])
        .arg(gateway.dir.path().join("gateway.toml"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another gateway uses"));
}
