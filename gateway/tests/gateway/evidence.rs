//! What a failed attempt leaves behind, from the node that had it to the people who ask.

use headwater_gateway::views::EvidenceView;
use headwater_protocol::{Code, Evidence, Fault, Graph};

use crate::harness::{Gateway, until};
use crate::node::{Manner, Node};

#[tokio::test]
async fn evidence_is_taken_from_the_attempts_node_also_after_its_end_and_shown_with_its_segment() {
    let gateway = Gateway::start().await;
    let fault = Fault::new(Code::NoVideo, "there is no video stream");
    let mut node = Node::start(&gateway, "a", Manner::Fails(fault.clone())).await;
    assert_eq!(gateway.refused("/live/show/7.ts", b"x").await.0, 422);
    let offer = node.offer().await;
    let url = format!("https://{}{}", gateway.nodes, offer.evidence.unwrap());

    let graph = Graph { chain: "decode".into(), dot: "digraph {}".into() };
    let evidence = Evidence { fault: Some(fault), graphs: vec![graph], ..Evidence::default() };
    let stranger = Node::start(&gateway, "b", Manner::Works).await;
    let put = async |by: &Node, body: Vec<u8>| {
        by.certificate.https().put(&url).body(body).send().await.unwrap().status().as_u16()
    };
    let body = serde_json::to_vec(&evidence).unwrap();
    assert_eq!(put(&stranger, body.clone()).await, 403, "another node's attempt");
    assert_eq!(put(&node, b"{".to_vec()).await, 400);
    assert_eq!(put(&node, vec![b' '; Evidence::MAX_JSON + 1]).await, 400, "too much");
    assert_eq!(put(&node, body).await, 201);

    let mut shown: Vec<EvidenceView> = Vec::new();
    until("the evidence is stored", async || {
        shown = gateway.get("/api/v1/streams/show/7/evidence").await.json().await.unwrap();
        !shown.is_empty()
    })
    .await;
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].evidence, evidence);
    assert_eq!(shown[0].node.as_str(), "a");
    assert_eq!(gateway.text("/api/v1/streams/show/8/evidence").await.1, "[]");
    assert_eq!(gateway.text("/api/v1/streams/show/x/evidence").await.0, 400);
}
