use std::time::Duration;

use headwater_gateway::views::{EnrollReply, EnrollRequest};
use headwater_protocol::NodeId;
use headwater_protocol::message::{Extra, NodeState, Status};
use headwater_protocol::topic::{Channel, Topic};
use reqwest::{Client, StatusCode};
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;

use crate::harness::{Gateway, LONG};
use crate::node::{Manner, Node, enroll, fleet, header};

// The aborted push must close its connection while the gateway is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_touch_another_ones_media() {
    let gateway = Gateway::start().await;
    let mut victim = Node::start(&gateway, "a", Manner::Hangs).await;
    let push = tokio::spawn(gateway.push("/live/m/0.ts").body("x").send());
    let offer = victim.offer().await;
    let hostile = enroll(&gateway.token("b").await, "b").await.1.unwrap().https();
    let input = format!("https://{}{}", gateway.nodes, offer.input.path);
    let output = format!("https://{}{}", gateway.nodes, offer.outputs[0].path);
    assert_eq!(hostile.get(&input).send().await.unwrap().status(), 403);
    assert_eq!(hostile.put(&output).body("evil").send().await.unwrap().status(), 403);
    let nobody = Client::builder().no_proxy().danger_accept_invalid_certs(true).build().unwrap();
    assert_eq!(nobody.get(&input).send().await.unwrap().status(), 401);
    let own = victim.certificate.https();
    assert_eq!(own.get(&input).send().await.unwrap().status(), 200);
    let other_epoch = input.replace("/1/input", "/2/input");
    assert_eq!(own.get(&other_epoch).send().await.unwrap().status(), 404);
    let stranger = format!("https://{}/v1/attempts/{}/1/nothing", gateway.nodes, offer.task);
    assert_eq!(own.put(&stranger).body("x").send().await.unwrap().status(), 404);
    push.abort();
}

#[tokio::test]
async fn a_node_cannot_speak_or_listen_on_another_ones_topics() {
    let gateway = Gateway::start().await;
    let mut victim = Node::start(&gateway, "a", Manner::Works).await;
    let mut hostile = Node::start(&gateway, "b", Manner::Works).await;
    while hostile.pubacks.try_recv().is_ok() {}
    let status = Status { header: header(9), state: NodeState::Offline, extra: Extra::new() };
    let payload = serde_json::to_vec(&status).unwrap();
    for (node, channel) in [("a", Channel::Status), ("a", Channel::Event), ("b", Channel::Offer)] {
        let topic = Topic { fleet: fleet(), node: NodeId::new(node).unwrap(), channel }.to_string();
        hostile.client.publish(topic, QoS::AtLeastOnce, false, payload.clone()).await.unwrap();
        let answer = tokio::time::timeout(LONG, hostile.pubacks.recv()).await.unwrap().unwrap();
        assert_eq!(answer, "NotAuthorized");
    }
    gateway.wait_state("a", NodeState::Online).await;

    hostile.client.subscribe("headwater/v1/home/a/#", QoS::AtLeastOnce).await.unwrap();
    hostile.client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
    let push = gateway.push("/live/m/0.ts").body("x").send().await.unwrap();
    assert_eq!(push.status(), 200);
    victim.offer().await;
    assert!(hostile.offers.try_recv().is_err(), "it heard another node's offer");
}

#[tokio::test]
async fn a_connection_under_another_nodes_client_id_does_not_throw_it_out() {
    let gateway = Gateway::start().await;
    let _victim = Node::start(&gateway, "a", Manner::Works).await;
    let hostile = enroll(&gateway.token("b").await, "b").await.1.unwrap();
    let (client, mut events) = AsyncClient::new(hostile.mqtt(gateway.broker.port(), "a"), 8);
    let connected = async {
        loop {
            if let Ok(rumqttc::v5::Event::Incoming(Packet::ConnAck(_))) = events.poll().await {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, connected).await.unwrap();
    // What it may do shows who it is: its own topics, as b.
    assert_eq!(gateway.push("/live/m/0.ts").body("x").send().await.unwrap().status(), 200);
    gateway.wait_state("a", NodeState::Online).await;
    drop(client);
}

#[tokio::test]
async fn the_broker_lets_nobody_in_without_a_certificate() {
    let gateway = Gateway::start().await;
    let node = enroll(&gateway.token("a").await, "a").await.1.unwrap();
    let connector = native_tls::TlsConnector::builder().danger_accept_invalid_certs(true).build().unwrap();
    let mut options = node.mqtt(gateway.broker.port(), "x");
    options.set_transport(rumqttc::Transport::Tls(rumqttc::TlsConfiguration::NativeConnector(connector)));
    let (_client, mut events) = AsyncClient::new(options, 8);
    assert!(events.poll().await.is_err());
}

#[tokio::test]
async fn a_token_enrols_its_own_node_once() {
    let gateway = Gateway::start().await;
    let token = gateway.token("a").await;
    let (status, other) = enroll(&token, "b").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "a request for another name");
    assert!(other.err().unwrap().contains("common name is not a"));
    let mut stolen = token.clone();
    stolen.node = NodeId::new("b").unwrap();
    assert_eq!(enroll(&stolen, "b").await.0, StatusCode::FORBIDDEN);
    assert_eq!(enroll(&token, "a").await.0, StatusCode::OK);
    assert_eq!(enroll(&token, "a").await.0, StatusCode::FORBIDDEN, "a used token");
    let mut guessed = token.clone();
    guessed.secret = "0".repeat(32);
    assert_eq!(enroll(&guessed, "a").await.0, StatusCode::FORBIDDEN);
    assert_eq!(enroll(&gateway.token("a").await, "a").await.0, StatusCode::OK, "a fresh token");
    assert_eq!(gateway.issue("gateway").await.status(), StatusCode::BAD_REQUEST, "the reserved name");
}

#[tokio::test]
async fn a_node_enrolled_again_fetches_with_its_new_certificate_alone() {
    let mut gateway = Gateway::start().await;
    let mut node = Node::start(&gateway, "a", Manner::Hangs).await;
    let old = node.certificate.https();
    let fresh = enroll(&gateway.token("a").await, "a").await.1.unwrap();
    let push = tokio::spawn(gateway.push("/live/m/0.ts").body("x").send());
    let input = format!("https://{}{}", gateway.nodes, node.offer().await.input.path);
    assert_eq!(fresh.https().get(&input).send().await.unwrap().status(), 200);
    let refused = old.get(&input).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(refused.text().await.unwrap().contains("replaced by a later enrolment"));
    push.abort();
    // The same after a restart.
    gateway.restart(nix::sys::signal::Signal::SIGKILL).await;
    let nothing = format!("https://{}/v1/attempts/t/1/input", gateway.nodes);
    assert_eq!(old.get(&nothing).send().await.unwrap().status(), 401);
    assert_eq!(fresh.https().get(&nothing).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn an_expired_token_enrols_nobody() {
    let gateway = Gateway::start().await;
    let request =
        EnrollRequest { node: NodeId::new("a").unwrap(), valid: Some(headwater_protocol::Millis(1000)) };
    let issue = gateway.client.post(gateway.url("/api/v1/enroll")).json(&request);
    let reply: EnrollReply =
        issue.bearer_auth(gateway.operator_token()).send().await.unwrap().json().await.unwrap();
    // The shortest life a token can have; its end is what is waited for.
    while headwater_gateway::owner::unix_millis() <= reply.expires.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(enroll(&reply.token.parse().unwrap(), "a").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn only_the_operator_enrols_and_commands() {
    let gateway = Gateway::start().await;
    let request = EnrollRequest { node: NodeId::new("a").unwrap(), valid: None };
    for token in ["", "wrong"] {
        let issue = gateway.client.post(gateway.url("/api/v1/enroll")).bearer_auth(token).json(&request);
        assert_eq!(issue.send().await.unwrap().status(), 401);
    }
    let command = gateway.client.post(gateway.url("/api/v1/nodes/a/command")).body("{}");
    assert_eq!(command.send().await.unwrap().status(), 401);
}
