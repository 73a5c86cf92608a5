//! Commands to several nodes, configurations and logs, by the operator's command.

use std::process::Output;
use std::sync::Arc;

use headwater_protocol::message::NodeState;
use nix::sys::signal::Signal;

use crate::board::{Fate, LOG};
use crate::harness::Gateway;
use crate::node::{Manner, Node};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn commands_go_to_every_node_of_a_selector() {
    let gateway = Gateway::start().await;
    let _nodes = [
        Node::start(&gateway, "orin-1", Manner::Works).await,
        Node::start(&gateway, "orin-2", Manner::Works).await,
        Node::start(&gateway, "pi-1", Manner::Works).await,
    ];
    let drained = gateway.headwater(&["drain", "orin-*"]).await;
    assert!(drained.status.success(), "{drained:?}");
    gateway.wait_state("orin-1", NodeState::Draining).await;
    gateway.wait_state("orin-2", NodeState::Draining).await;
    gateway.wait_state("pi-1", NodeState::Online).await;
    let resumed = gateway.headwater(&["resume", "state=draining"]).await;
    assert_eq!(text(&resumed), "orin-1 takes work again\norin-2 takes work again\n");
    for command in ["restart", "reboot", "probe"] {
        assert!(gateway.headwater(&[command, "pi-1"]).await.status.success(), "{command}");
    }
    let nobody = gateway.headwater(&["drain", "xavier-*"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody).contains("no node matches \"xavier-*\""), "{}", text(&nobody));
    assert!(text(&gateway.headwater(&["drain", "colour=red"]).await).contains("\"colour\" cannot be asked"));
    // A caller of the interface chooses no paths for a node.
    let request = gateway.client.post(gateway.url("/api/v1/nodes/pi-1/command"));
    let body = r#"{"command":{"logs":{"path":"/v1/attempts/x/1/y","max_bytes":1}}}"#;
    let refused = request.bearer_auth(gateway.operator_token()).body(body).send().await.unwrap();
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn a_configuration_is_wanted_reported_refused_and_taken_back() {
    let mut gateway = Gateway::start().await;
    let node = Node::start_board(&gateway, "a", Fate::Works).await;
    let nothing = gateway.headwater(&["config", "get", "all"]).await;
    assert_eq!(text(&nothing), "a: nothing is wanted; its own file counts\n");
    let set = gateway.headwater(&["config", "set", "a", "workers.count=2", "log.level=debug"]).await;
    assert!(set.status.success(), "{set:?}");
    assert_eq!(text(&set), "a: revision 1, it holds\n  log.level = \"debug\"\n  workers.count = 2\n");
    let bad = gateway.headwater(&["config", "set", "a", "bad=1"]).await;
    assert_eq!(bad.status.code(), Some(3), "{bad:?}");
    assert!(
        text(&bad).contains("revision 2, refused, the earlier one holds: bad_config: there is no key bad")
    );
    let unset = gateway.headwater(&["config", "unset", "a", "bad", "log.level"]).await;
    assert_eq!(text(&unset), "a: revision 3, it holds\n  workers.count = 2\n");

    // The broker forgets what it retained; the gateway does not.
    let certificate = Arc::clone(&node.certificate);
    drop(node);
    gateway.restart(Signal::SIGTERM).await;
    let _fresh = Node::connect_board(&gateway, certificate, crate::board::Memory::new(Fate::Works)).await;
    crate::harness::until("the configuration to come back", async || {
        text(&gateway.headwater(&["config", "get", "a"]).await).contains("revision 3, it holds")
    })
    .await;
    let stranger = gateway.client.post(gateway.url("/api/v1/nodes/a/config")).body(r#"{"set":{"x":1}}"#);
    assert_eq!(stranger.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_nodes_log_comes_to_who_asked_and_to_nobody_else() {
    let gateway = Gateway::start().await;
    let node = Node::start_board(&gateway, "a", Fate::Works).await;
    let log = gateway.headwater(&["logs", "a"]).await;
    assert_eq!(text(&log), LOG);
    let file = gateway.dir.path().join("a.log");
    let end = gateway.headwater(&["logs", "a", "--bytes", "10", "-o", file.to_str().unwrap()]).await;
    assert!(end.status.success(), "{end:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "last line\n");
    let unasked = format!("https://{}/v1/logs/{}", gateway.nodes, "0".repeat(32));
    let put = node.certificate.https().put(unasked).body("x").send().await.unwrap();
    assert_eq!(put.status(), 404);
    assert!(text(&gateway.headwater(&["logs", "b"]).await).contains("no node is called \"b\""));
}
