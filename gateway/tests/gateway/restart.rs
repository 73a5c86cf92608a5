use std::sync::Arc;

use headwater_protocol::Code;
use headwater_protocol::message::{EventKind, NodeState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Gateway, until};
use crate::node::{Manner, Node, put_all, report};

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

// A trigger stands for the disk that is full.
#[tokio::test]
async fn a_segment_whose_end_cannot_be_stored_fails_and_the_stream_goes_on_once_the_database_writes() {
    let gateway = Gateway::start().await;
    let mut node = Node::start(&gateway, "a", Manner::Hangs).await;
    let push = tokio::spawn(gateway.push("/live/m/0.ts").body("x").send());
    let offer = node.offer().await;
    until("the segment to be stored", async || gateway.text("/api/v1/streams/m").await.1.contains("running"))
        .await;
    let database = gateway.database();
    let full =
        "CREATE TRIGGER full BEFORE UPDATE ON tasks BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    database.execute_batch(full).unwrap();
    let base = format!("https://{}", gateway.nodes);
    put_all(&node.certificate.https(), &base, &offer).await;
    node.say(&offer, EventKind::Done { report: Box::new(report(&offer)) }).await;
    let answer = push.await.unwrap().unwrap();
    assert_eq!(answer.status(), 500);
    assert!(answer.text().await.unwrap().contains("the disk is full"));
    database.execute_batch("DROP TRIGGER full").unwrap();
    until("the segment to fail", async || gateway.stream("m").await.segments_failed == 1).await;
    let certificate = Arc::clone(&node.certificate);
    drop(node);
    gateway.wait_state("a", NodeState::Offline).await;
    let _node = Node::connect(&gateway, certificate, Manner::Works).await;
    assert_eq!(gateway.push("/live/m/1.ts").body("x").send().await.unwrap().status(), 200);
    let list = gateway.text("/stream/m/source.m3u8").await.1;
    assert!(list.contains("/stream/m/source/1.ts") && !list.contains("source/0.ts"), "{list}");
}

// One folder stands in the way of the database, which a later start may find gone.
#[tokio::test]
async fn a_database_that_cannot_be_opened_now_may_be_at_the_next_start() {
    let mut gateway = Gateway::start().await;
    gateway.end(Signal::SIGTERM);
    let database = gateway.state().join("gateway.db");
    std::fs::remove_file(&database).unwrap();
    std::fs::create_dir(&database).unwrap();
    let output = gateway.run_again();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    std::fs::remove_dir(&database).unwrap();
    gateway.relaunch().await;
}

#[tokio::test]
async fn two_gateways_do_not_share_their_media() {
    let media = tempfile::tempdir().unwrap();
    let tables = format!("[media]\nurl = \"file://{}\"", media.path().display());
    let first = Gateway::start_with(&tables).await;
    let second = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_headwater-gateway"))
        .arg("--config")
        .arg(first.dir.path().join("gateway.toml"))
        .arg("--state-dir")
        .arg(second.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains(&format!("another gateway uses {}", media.path().display())), "{told}");
}

#[tokio::test]
async fn a_second_gateway_on_the_same_state_is_refused() {
    let gateway = Gateway::start().await;
    let output = gateway.run_again();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another gateway uses"));
}
