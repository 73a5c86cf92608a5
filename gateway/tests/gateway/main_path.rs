use headwater_protocol::message::{EventKind, NodeState};
use headwater_protocol::{Code, Fault, Millis};
use nix::sys::signal::Signal;

use crate::harness::{Gateway, LONG, until};
use crate::node::{Manner, Node, content, put_all, report};

const TWO: &str = r#"{"presets":["P240p30fps16x9","P360p30fps16x9"]}"#;
const CONFIG: &str = "Livepeer-Transcode-Configuration";

#[tokio::test]
async fn a_push_is_answered_with_its_renditions_to_the_byte() {
    let gateway = Gateway::start().await;
    let _node = Node::start(&gateway, "a", Manner::Works).await;
    let push =
        gateway.push("/live/movie/10.ts").header(CONFIG, TWO).header("Content-Resolution", "1920x1080");
    let response = push.body("a segment").send().await.unwrap();
    assert_eq!(response.status(), 200, "{}", gateway.log());
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let boundary = kind.strip_prefix("multipart/mixed; boundary=").unwrap();
    assert!(boundary.len() == 20 && boundary.bytes().all(|b| b.is_ascii_hexdigit()), "{boundary}");
    assert_eq!(response.headers()["transfer-encoding"], "chunked");
    let mut expected = String::new();
    for (index, name) in ["P240p30fps16x9", "P360p30fps16x9"].iter().enumerate() {
        let data = String::from_utf8(content(name)).unwrap();
        expected += &format!(
            "{}--{boundary}\r\nContent-Disposition: attachment; filename=\"{name}_10.ts\"\r\n\
             Content-Length: {}\r\nContent-Type: video/mp2t; name=\"{name}_10.ts\"\r\nRendition-Name: {name}\r\n\r\n{data}",
            if index == 0 { "" } else { "\r\n" },
            data.len()
        );
    }
    expected += &format!("\r\n--{boundary}--\r\n");
    assert!(response.text().await.unwrap() == expected, "the answer is another one");

    let (status, master) = gateway.text("/stream/movie.m3u8").await;
    assert_eq!(status, 200);
    assert!(master.contains("RESOLUTION=1920x1080\nmovie/source.m3u8\n"), "{master}");
    let (_, list) = gateway.text("/stream/movie/P240p30fps16x9.m3u8").await;
    assert!(list.ends_with("#EXTINF:2.000,\n/stream/movie/P240p30fps16x9/10.ts\n"), "{list}");
    let segment = gateway.get("/stream/movie/P240p30fps16x9/10.ts").await;
    assert_eq!(segment.headers()["content-type"], "video/mp2t");
    assert_eq!(segment.headers()["access-control-allow-origin"], "*");
    assert_eq!(segment.bytes().await.unwrap(), content("P240p30fps16x9"));
    assert_eq!(gateway.text("/stream/movie/source/10.ts").await.1, "a segment");
    let missing = gateway.text("/stream/other.m3u8").await;
    assert_eq!((missing.0.as_u16(), missing.1.as_str()), (404, "ErrNotFound\n"));
}

#[tokio::test]
async fn without_accept_the_answer_is_empty_and_the_ladder_of_the_first_segment_stays() {
    let gateway = Gateway::start().await;
    let mut node = Node::start(&gateway, "a", Manner::Works).await;
    let plain = |path: &str| gateway.client.put(gateway.url(path)).body("x").timeout(LONG);
    let response = plain("/live/m/0.ts").header(CONFIG, TWO).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (200, ""));
    let other = r#"{"presets":["P144p30fps16x9"]}"#;
    assert_eq!(plain("/live/m/1.ts").header(CONFIG, other).send().await.unwrap().status(), 200);
    assert_eq!(node.offer().await.ladder, node.offer().await.ladder);
    let response = plain("/live/n/0.ts").header(CONFIG, r#"{"profiles":[]}"#).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (200, ""));
}

#[tokio::test]
async fn a_segment_that_a_node_fails_is_done_by_another() {
    let gateway = Gateway::start().await;
    let crash = Fault::new(Code::WorkerCrashed, "signal 11");
    let mut broken = Node::start(&gateway, "a", Manner::Fails(crash)).await;
    let _good = Node::start(&gateway, "b", Manner::Works).await;
    assert_eq!(gateway.push("/live/m/0.ts").body("x").send().await.unwrap().status(), 200);
    assert_eq!(broken.offer().await.epoch.0, 1);
    let stream = gateway.stream("m").await;
    assert_eq!(stream.segments[0].attempts, 2);
    assert_eq!(stream.segments[0].node.as_ref().unwrap().as_str(), "b");
}

#[tokio::test]
async fn a_result_that_was_never_put_does_not_win() {
    let gateway = Gateway::start().await;
    let _liar = Node::start(&gateway, "a", Manner::Lies).await;
    let _good = Node::start(&gateway, "b", Manner::Works).await;
    assert_eq!(gateway.push("/live/m/0.ts").body("x").send().await.unwrap().status(), 200);
    assert_eq!(gateway.stream("m").await.segments[0].node.as_ref().unwrap().as_str(), "b");
}

#[tokio::test]
async fn a_node_that_goes_away_loses_its_attempt_at_once() {
    let gateway = Gateway::start().await;
    let mut gone = Node::start(&gateway, "a", Manner::Hangs).await;
    let push = tokio::spawn(gateway.push("/live/m/0.ts").body("x").send());
    gone.offer().await;
    let _good = Node::start(&gateway, "b", Manner::Works).await;
    gone.cut();
    assert_eq!(push.await.unwrap().unwrap().status(), 200);
    gateway.wait_state("a", NodeState::Offline).await;
}

#[tokio::test]
async fn an_event_is_acknowledged_after_it_counted_and_again_when_it_comes_again() {
    let gateway = Gateway::start().await;
    let mut node = Node::start(&gateway, "a", Manner::Hangs).await;
    let push = tokio::spawn(gateway.push("/live/m/0.ts").body("x").send());
    let offer = node.offer().await;
    let base = format!("https://{}", gateway.nodes);
    put_all(&node.certificate.https(), &base, &offer).await;
    node.say(&offer, EventKind::Done { report: Box::new(report(&offer)) }).await;
    assert_eq!(push.await.unwrap().unwrap().status(), 200);
    let mut ack = async || tokio::time::timeout(LONG, node.acks.recv()).await.unwrap().unwrap().number.n;
    assert_eq!((ack().await, ack().await), (1, 2));
    *node.outbox.lock().unwrap() = 1;
    let done = EventKind::Done { report: Box::new(report(&offer)) };
    node.say(&offer, done).await;
    assert_eq!(tokio::time::timeout(LONG, node.acks.recv()).await.unwrap().unwrap().number.n, 2);
    assert_eq!(gateway.nodes_list().await[0].done, 1);
}

#[tokio::test]
async fn players_follow_a_stream_whose_encoder_begins_anew_and_a_hole_in_it() {
    let gateway = Gateway::start().await;
    let _node = Node::start(&gateway, "a", Manner::Works).await;
    for (number, content) in [(20, "a"), (21, "b"), (23, "c"), (0, "d"), (0, "d"), (1, "e")] {
        let push = gateway.push(&format!("/live/m/{number}.ts")).body(content).send().await.unwrap();
        assert_eq!(push.status(), 200);
        if number == 23 {
            let (_, list) = gateway.text("/stream/m/source.m3u8").await;
            assert!(list.contains("source/21.ts\n#EXT-X-DISCONTINUITY\n#EXTINF"), "{list}");
        }
    }
    let (_, list) = gateway.text("/stream/m/source.m3u8").await;
    assert!(list.contains("#EXT-X-MEDIA-SEQUENCE:3\n"), "{list}");
    assert!(list.contains("#EXT-X-DISCONTINUITY-SEQUENCE:2\n"), "{list}");
    assert!(list.ends_with("/stream/m/source/1.ts\n") && list.matches("EXTINF").count() == 2, "{list}");
    assert_eq!(gateway.text("/stream/m/source/0.ts").await.1, "d");
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_nothing_behind() {
    let gateway = Gateway::start().await;
    let mut node = Node::start(&gateway, "a", Manner::Hangs).await;
    let push = tokio::spawn(gateway.push("/live/m/0.ts").body("x").send());
    let offer = node.offer().await;
    push.abort();
    until("the media to go", async || gateway.media().is_empty()).await;
    let late = node.certificate.https().get(format!("https://{}{}", gateway.nodes, offer.input.path));
    until("the attempt to end", async || gateway.nodes_list().await[0].running.is_empty()).await;
    assert_eq!(late.send().await.unwrap().status(), 410);
}

#[tokio::test]
async fn watchers_get_lists_and_prometheus_numbers() {
    use futures_util::StreamExt;
    let mut gateway = Gateway::start().await;
    let _node = Node::start(&gateway, "a", Manner::Works).await;
    assert_eq!(gateway.push("/live/m/0.ts").body("x").send().await.unwrap().status(), 200);
    let mut events = gateway.get("/api/v1/events").await.bytes_stream();
    let mut seen = String::new();
    while !(seen.contains("event: nodes\ndata: [{") && seen.contains("event: streams\ndata: [{")) {
        let chunk = tokio::time::timeout(LONG, events.next()).await.unwrap().unwrap().unwrap();
        seen += std::str::from_utf8(&chunk).unwrap();
    }
    let metrics = gateway.text("/metrics").await.1;
    for line in [
        "headwater_segments_total{outcome=\"done\"} 1",
        "headwater_nodes{state=\"online\"} 1",
        "headwater_delay_seconds_count 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    until("the delay", async || gateway.stream("m").await.segments[0].delay_ms.is_some()).await;
    assert!(gateway.stream("m").await.segments[0].duration == Millis(2000));
    let log = gateway.log();
    let offered = log.lines().find(|line| line.contains("offered")).unwrap();
    for key in ["stream=m", "segment=0", "task=", "epoch=1", "node=a"] {
        assert!(offered.contains(key), "{key} is not in {offered}");
    }
    assert!(gateway.end(Signal::SIGTERM).success());
    assert!(!log.contains(&gateway.operator_token()));
}
