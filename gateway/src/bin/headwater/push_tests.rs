//! A push against a gateway of a few lines, to see what it makes of each answer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use headwater_protocol::worker::{Header, Kind};
use serde_json::{Value, json};

use super::*;
use crate::args::{Cli, Command};

/// What the gateway answers to the first push of a segment; every later one is done.
type Script = HashMap<String, (u16, &'static str)>;

#[derive(Default)]
struct Stage {
    script: Mutex<Script>,
    done: Mutex<Vec<Value>>,
}

async fn live(
    State(stage): State<Arc<Stage>>,
    UrlPath((_, file)): UrlPath<(String, String)>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Response {
    if let Some((status, text)) = stage.script.lock().unwrap().remove(&file) {
        return (StatusCode::from_u16(status).unwrap(), text).into_response();
    }
    assert_eq!(headers["accept"], "multipart/mixed");
    let config: Value =
        serde_json::from_slice(headers["livepeer-transcode-configuration"].as_bytes()).unwrap();
    let (mut answer, mut made) = (String::new(), Vec::new());
    for profile in config["profiles"].as_array().unwrap() {
        let name = profile["name"].as_str().unwrap();
        let data = format!("{name}:{}", std::str::from_utf8(&body).unwrap());
        answer.push_str(&format!(
            "--b0\r\nContent-Length: {}\r\nContent-Type: video/mp2t; name=\"x\"\r\nRendition-Name: {name}\r\n\r\n{data}\r\n",
            data.len()
        ));
        made.push(json!({"name": name, "container": "ts", "bytes": data.len(), "width": profile["width"],
            "height": profile["height"], "frames": 50, "keyframes": 1, "pixels": 1, "first_pts": 0, "duration": 2000}));
    }
    answer.push_str("--b0--\r\n");
    let number: u64 = file.trim_end_matches(".ts").parse().unwrap();
    stage.done.lock().unwrap().push(
        json!({"segment": number, "task": "t", "state": "done", "duration": 2000,
        "bytes": body.len(), "attempts": 1, "node": "demo-a", "delay_ms": 100, "report": {
            "input": {"container": "ts", "bytes": body.len(), "audio_streams": 0, "duration": 2000},
            "renditions": made, "wall_us": 500_000, "cpu_us": 1, "warm": true}}),
    );
    ([(header::CONTENT_TYPE, "multipart/mixed; boundary=b0")], answer).into_response()
}

async fn stream(State(stage): State<Arc<Stage>>, UrlPath(stream): UrlPath<String>) -> axum::Json<Value> {
    let segments = stage.done.lock().unwrap().clone();
    axum::Json(json!({"stream": stream, "live": true, "started": 0, "ladder": ["480p", "240p"],
        "segments_total": segments.len(), "segments_failed": 0, "segments": segments, "playlist": "/stream/s.m3u8"}))
}

struct Run {
    result: Result<Summary, PushError>,
    folder: tempfile::TempDir,
}

impl Run {
    fn files(&self, rendition: &str) -> Vec<String> {
        let dir = self.folder.path().join("out").join(rendition);
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A worker that cuts three segments, whatever it is given.
fn worker(folder: &Path) -> PathBuf {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let frame = |kind, payload: &[u8]| {
        let header = Header { length: payload.len() as u32, kind, channel: 0, tag: 0 };
        [header.encode().as_slice(), payload].concat()
    };
    let mut output = frame(Kind::Ready, br#"{"duration_ms":6000}"#);
    for number in 0..3 {
        let start = json!({"number": number, "container": "ts", "duration": 2000}).to_string();
        output.extend(frame(Kind::Segment, start.as_bytes()));
        output.extend(frame(Kind::Data, format!("segment {number}").as_bytes()));
        output.extend(frame(Kind::End, b""));
    }
    std::fs::write(folder.join("frames"), output).unwrap();
    let path = folder.join("worker");
    let mut file = std::fs::File::create(&path).unwrap();
    write!(file, "#!/bin/sh\nexec cat '{}'\n", folder.join("frames").display()).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn push(script: &[(&str, u16, &'static str)], deadline: &str) -> Run {
    let script = script.iter().map(|&(file, status, text)| (file.to_owned(), (status, text))).collect();
    let stage = Arc::new(Stage { script: Mutex::new(script), done: Mutex::default() });
    let app = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/live/{stream}/{file}", post(live))
        .route("/api/v1/streams/{stream}", get(stream))
        .with_state(stage);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.mp4");
    std::fs::write(&input, "x").unwrap();
    let worker = worker(folder.path());
    let out = folder.path().join("out");
    let args = [
        "headwater",
        "push",
        "--ladder",
        "480p,240p",
        "--stream",
        "s",
        "--gateway",
        &base,
        "--deadline",
        deadline,
    ];
    let paths =
        ["--worker", worker.to_str().unwrap(), "--out", out.to_str().unwrap(), input.to_str().unwrap()];
    let cli = Cli::try_parse_from(args.into_iter().chain(paths)).unwrap();
    let Command::Push(args) = cli.command else { panic!("not a push") };
    let gateway = Gateway::new(cli.global.gateway, cli.global.token_file).unwrap();
    let result = loop {
        match run(&gateway, &args, true).await {
            // Another test's fork may hold the script open for writing for a moment.
            Err(PushError::Split(SplitError::Start { source, .. }))
                if source.kind() == std::io::ErrorKind::ExecutableFileBusy =>
            {
                tokio::task::yield_now().await;
            }
            result => break result,
        }
    };
    server.abort();
    Run { result, folder }
}

#[tokio::test]
async fn a_push_writes_every_segment_and_playlists_that_name_them() {
    let run = push(&[], "1m").await;
    let summary = run.result.as_ref().unwrap();
    assert!(summary.whole, "{:?}", summary.problems);
    assert_eq!(run.files("480p"), ["0.ts", "1.ts", "2.ts", "index.m3u8"]);
    let out = run.folder.path().join("out");
    assert_eq!(std::fs::read_to_string(out.join("240p/1.ts")).unwrap(), "240p:segment 1");
    let master = std::fs::read_to_string(out.join("master.m3u8")).unwrap();
    assert!(master.contains("RESOLUTION=854x480,FRAME-RATE=25.000\n480p/index.m3u8"), "{master}");
}

#[tokio::test]
async fn a_gateway_without_a_free_node_is_asked_again() {
    let run =
        push(&[("1.ts", 503, "No sessions available"), ("0.ts", 503, "No sessions available")], "1m").await;
    let summary = run.result.as_ref().unwrap();
    assert!(summary.whole && summary.sent_again == 2, "{summary:?}");
}

#[tokio::test]
async fn a_segment_that_fails_does_not_stop_the_others_and_is_told() {
    let run = push(&[("1.ts", 422, "No keyframe.\n")], "1m").await;
    let summary = run.result.as_ref().unwrap();
    assert!(!summary.whole);
    assert_eq!(summary.problems, ["segment 1: No keyframe."]);
    assert!(summary.news.is_empty());
    assert_eq!(run.files("240p"), ["0.ts", "2.ts", "index.m3u8"]);
    let playlist = std::fs::read_to_string(run.folder.path().join("out/240p/index.m3u8")).unwrap();
    assert!(playlist.contains("0.ts\n#EXT-X-DISCONTINUITY\n"), "{playlist}");
}

#[tokio::test]
async fn a_gateway_that_refuses_the_push_ends_it_at_once_without_half_files() {
    let refusal = "{\"error\":\"the ladder is bad\"}";
    let run = push(&[("0.ts", 400, refusal), ("1.ts", 400, refusal), ("2.ts", 400, refusal)], "1m").await;
    let error = run.result.as_ref().unwrap_err().to_string();
    assert_eq!(error, "the gateway refuses the push (400 Bad Request): the ladder is bad");
    assert!(run.files("480p").is_empty() && run.files("240p").is_empty());
}
