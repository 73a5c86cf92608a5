use headwater_protocol::{Code, Fault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Gateway, LONG, until};
use crate::node::{Manner, Node};

const CONFIG: &str = "Livepeer-Transcode-Configuration";

#[tokio::test]
async fn what_no_node_needs_to_see_is_refused_with_livepeers_text() {
    let gateway = Gateway::start().await;
    let http = gateway.http;
    let cases = [
        ("/live/m/0.m3u8", 400, "ignoring file extension: .m3u8\n".to_owned()),
        ("/live/.ts", 400, format!("Bad URL url=http://{http}/live/.ts\n")),
        ("/live/a%2Fb/0.ts", 400, format!("Bad URL url=http://{http}/live/a%2Fb/0.ts\n")),
        ("/live/m/0.ts", 503, "No sessions available\n".to_owned()),
    ];
    for (path, status, text) in cases {
        assert_eq!(gateway.refused(path, b"x").await, (status, text), "{path}");
    }
    let empty = gateway.refused("/live/m/0.ts", b"").await;
    assert_eq!(empty.0, 422);
    assert!(empty.1.contains("no bytes"), "{}", empty.1);
    let wrong = gateway.client.delete(gateway.url("/live/m/0.ts")).send().await.unwrap();
    assert_eq!(wrong.status(), 405);
    assert_eq!(gateway.text("/nowhere").await.0, 404);
    assert_eq!(gateway.get("/live/m/0.ts").await.status(), 405);
    let ladders = [
        (r#"{"profiles":[{"width":0,"height":720,"bitrate":1000000}]}"#, "width is 0"),
        (r#"{"profiles":[{"width":1280,"height":721,"bitrate":1000000}]}"#, "both must be even"),
        (r#"{"profiles":[{"width":1280,"height":720,"bitrate":-1}]}"#, "bitrate is -1"),
        (
            r#"{"profiles":[{"width":1280,"height":720,"bitrate":1000000,"encoder":"MPEG-1"}]}"#,
            "unrecognized",
        ),
        ("{", "failed to parse transcode config header: \""),
    ];
    for (ladder, says) in ladders {
        let push = gateway.push("/live/fresh/0.ts").header(CONFIG, ladder).body("x");
        let response = push.send().await.unwrap();
        assert_eq!(response.status(), 400, "{ladder}");
        let text = response.text().await.unwrap();
        assert!(text.contains(says), "{text}");
    }
    until("the media to go", async || gateway.media().is_empty()).await;
}

/// Paths that a client library would tidy up, as they are.
#[tokio::test]
async fn a_path_out_of_the_folder_is_a_bad_url() {
    let gateway = Gateway::start().await;
    let mut raw = tokio::net::TcpStream::connect(gateway.http).await.unwrap();
    let request = "POST /live/../../etc/passwd.ts HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    raw.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    raw.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.ends_with("Bad URL url=http://x/live/../../etc/passwd.ts\n"), "{answer}");
}

#[tokio::test]
async fn a_segment_is_taken_up_to_the_limit_and_not_one_byte_more() {
    let gateway = Gateway::start_with("[limits]\nmax_segment_mib = 1\n").await;
    let most = vec![7u8; 1 << 20];
    let mut over = most.clone();
    over.push(7);
    let push = |body: reqwest::Body| gateway.push("/live/m/0.ts").body(body).send();
    // Nobody is there to do it; that it gets so far is the point.
    assert_eq!(push(most.into()).await.unwrap().status(), 503);
    let text = "Error reading http request body: input bigger than max buffer size\n";
    let known = push(over.clone().into()).await.unwrap();
    assert_eq!((known.status().as_u16(), known.text().await.unwrap().as_str()), (500, text));
    let halves: Vec<Result<Vec<u8>, std::io::Error>> = over.chunks(100_000).map(|c| Ok(c.to_vec())).collect();
    let chunked = push(reqwest::Body::wrap_stream(futures_util::stream::iter(halves))).await.unwrap();
    assert_eq!((chunked.status().as_u16(), chunked.text().await.unwrap().as_str()), (500, text));
    until("the media to go", async || gateway.media().is_empty()).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing_and_the_next_segment_works() {
    let gateway = Gateway::start().await;
    let _node = Node::start(&gateway, "a", Manner::Works).await;
    let mut raw = tokio::net::TcpStream::connect(gateway.http).await.unwrap();
    raw.write_all(b"POST /live/m/0.ts HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n").await.unwrap();
    raw.write_all(&vec![1; 6 << 20]).await.unwrap();
    drop(raw);
    assert_eq!(gateway.push("/live/m/1.ts").body("x").send().await.unwrap().status(), 200);
    until("the cut-off segment to go", async || {
        gateway.media().iter().all(|file| std::fs::metadata(file).map_or(0, |m| m.len()) < 1 << 20)
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_stops_in_the_middle_of_a_body_is_told_and_let_go() {
    let gateway = Gateway::start_with("[limits]\nbody_idle_seconds = 1\n").await;
    let mut raw = tokio::net::TcpStream::connect(gateway.http).await.unwrap();
    raw.write_all(b"POST /live/m/0.ts HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc").await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(LONG, raw.read_to_string(&mut answer));
    read.await.expect("the connection stays open").unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.ends_with("no data for 1 s\n"), "{answer}");
    until("the media to go", async || gateway.media().is_empty()).await;
}

#[tokio::test]
async fn a_segment_that_kills_workers_on_two_nodes_spares_the_third() {
    let gateway = Gateway::start().await;
    let crash = || Manner::Fails(Fault::new(Code::WorkerCrashed, "signal 11"));
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(Node::start(&gateway, name, crash()).await);
    }
    let (status, text) = gateway.refused("/live/m/0.ts", b"x").await;
    assert_eq!(status, 422);
    assert!(text.contains("killed workers of two nodes") && text.contains("signal 11"), "{text}");
    assert!(nodes[2].offers.try_recv().is_err());
    assert!(gateway.nodes_list().await.iter().all(|node| node.resting_until.is_none()));
    until("the media to go", async || gateway.media().is_empty()).await;
}

#[tokio::test]
async fn an_input_that_two_nodes_find_at_fault_is_not_tried_a_third_time() {
    let gateway = Gateway::start().await;
    let fault = || Manner::Fails(Fault::new(Code::NoVideo, "there is no video stream in it"));
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(Node::start(&gateway, name, fault()).await);
    }
    let (status, text) = gateway.refused("/live/m/0.ts", b"x").await;
    assert_eq!((status, text.as_str()), (422, "no_video: there is no video stream in it\n"));
    assert_eq!(gateway.stream("m").await.segments[0].attempts, 2);
    until("the media to go", async || gateway.media().is_empty()).await;
}

#[tokio::test]
async fn a_segment_that_every_attempt_fails_is_answered_422() {
    let gateway = Gateway::start().await;
    let fault = Fault::new(Code::WorkerCrashed, "signal 11");
    let _node = Node::start(&gateway, "a", Manner::Fails(fault)).await;
    let (status, text) = gateway.refused("/live/m/0.ts", b"x").await;
    assert_eq!(status, 422);
    assert_eq!(text, "hit max transcode attempts: worker_crashed: signal 11\n");
    let view = &gateway.nodes_list().await[0];
    assert!(view.resting_until.is_some() && view.failed == 3);
}

#[tokio::test]
async fn a_worker_that_hangs_costs_its_lease_and_no_more() {
    let gateway = Gateway::start_with("[retry]\nprogress_seconds = 2\n").await;
    let _slow = Node::start(&gateway, "a", Manner::Hangs).await;
    let push = tokio::spawn(gateway.push("/live/m/0.ts").body("x").send());
    until("the offer", async || !gateway.nodes_list().await[0].running.is_empty()).await;
    let _good = Node::start(&gateway, "b", Manner::Works).await;
    assert_eq!(push.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_busy_node_is_asked_again_and_a_draining_one_not() {
    let gateway = Gateway::start_with("[retry]\ndeadline_seconds = 1\n").await;
    let busy = Fault::new(Code::Busy, "all workers have work");
    let mut node = Node::start(&gateway, "a", Manner::Refuses(busy)).await;
    let (status, text) = gateway.refused("/live/m/0.ts", b"x").await;
    assert_eq!(status, 422, "{text}");
    assert_eq!((node.offer().await.epoch.0, node.offer().await.epoch.0), (1, 2));
}
