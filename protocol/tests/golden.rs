//! One golden file per message and released version: what is written today must read back for ever.
//!
//! A missing file is written and the test fails once, so that a new message is looked at before it is kept.

use std::fs;
use std::path::Path;

use headwater_protocol::message::{
    Ack, Birth, Board, Command, CommandKind, DesiredConfig, Event, EventKind, EventNumber, Header, Input,
    Lease, Limits, Logs, NodeState, Offer, Output, Reply, ReportedConfig, Revoke, Status, Telemetry,
    TimeSource, WorkerState,
};
use headwater_protocol::rendition::{Codec, Container, Gop, Ladder, Profile, Rate, Rendition};
use headwater_protocol::update::{
    Bundle, BundleKind, Installation, UpdateOrder, UpdateState, UpdateStatus, Window,
};
use headwater_protocol::worker::Avoid;
use headwater_protocol::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, message: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(format!("{name}.json"));
    let written = serde_json::to_string_pretty(message).unwrap() + "\n";
    let Ok(golden) = fs::read_to_string(&path) else {
        fs::write(&path, written).unwrap();
        panic!("{} was missing and has been written; read it, then run again", path.display());
    };
    assert_eq!(written, golden, "{name} is written in another way than its golden file says");
    assert_eq!(&serde_json::from_str::<T>(&golden).unwrap(), message);

    // A newer program's field is kept by this one.
    let mut newer: serde_json::Value = serde_json::from_str(&golden).unwrap();
    newer["from_the_future"] = serde_json::json!({"answer": 42});
    let kept = serde_json::to_value(serde_json::from_value::<T>(newer).unwrap()).unwrap();
    assert_eq!(kept["from_the_future"]["answer"], 42, "{name} lost a field it does not know");
}

fn header(boot_id: &str) -> Header {
    Header {
        v: VERSION,
        ts: Millis(1_790_000_000_123),
        ts_src: TimeSource::Ntp,
        boot_id: boot_id.into(),
        seq: 7,
    }
}

fn from_node() -> Header {
    header("3f0c9a52-0d61-4c4c-9f8e-1f1f6f9b7a10")
}

fn task() -> TaskId {
    TaskId::new("019b0f4e-8f1c-7d3a-9a64-0a4c3a1b2c3d").unwrap()
}

fn name(text: &str) -> RenditionName {
    RenditionName::new(text).unwrap()
}

fn ladder() -> Ladder {
    Ladder::new(vec![
        Rendition {
            name: name("720p"),
            codec: Codec::H264,
            width: Pixels(1280),
            height: Pixels(720),
            fps: Some(FrameRate::new(30000, 1001).unwrap()),
            rate: Rate::Bitrate(BitsPerSecond(3_000_000)),
            gop: Gop::Every(Millis(1000)),
            profile: Profile::ConstrainedHigh,
            container: Container::Ts,
            audio: Audio::Copy,
            tiles: None,
        },
        Rendition {
            name: name("360p"),
            codec: Codec::Hevc,
            width: Pixels(640),
            height: Pixels(360),
            fps: None,
            rate: Rate::Quality(28),
            gop: Gop::Segment,
            profile: Profile::Auto,
            container: Container::Mp4,
            audio: Audio::Copy,
            tiles: None,
        },
    ])
    .unwrap()
}

fn fault() -> Fault {
    Fault::new(Code::Busy, "both workers have work; try again or ask another node")
}

fn report() -> SegmentReport {
    SegmentReport {
        input: InputFacts {
            container: Container::Ts,
            bytes: 1_504_000,
            video: Some(media::VideoFacts {
                codec: Codec::H264,
                width: Pixels(1920),
                height: Pixels(1080),
                fps: Some(FrameRate::new(30, 1).unwrap()),
                frames: 60,
                decoded: 60,
                pixels: 124_416_000,
                hdr: None,
            }),
            audio_streams: 1,
            duration: Millis(2000),
            errors: 0,
        },
        renditions: vec![RenditionReport {
            name: name("720p"),
            container: Container::Ts,
            bytes: 760_000,
            width: Pixels(1280),
            height: Pixels(720),
            frames: 60,
            keyframes: 2,
            pixels: 55_296_000,
            first_pts: 8_589_934_000,
            duration: Millis(2000),
            copied: false,
        }],
        wall_us: 512_345,
        cpu_us: 901_234,
        warm: true,
    }
}

fn event(number: Option<u64>, event: EventKind) -> Event {
    Event {
        header: from_node(),
        number: number.map(|n| EventNumber { outbox: "c0ffee00c0ffee00".into(), n }),
        task: task(),
        epoch: Epoch(1),
        event,
        extra: Default::default(),
    }
}

#[test]
fn birth_is_written_as_released() {
    let capability = |kind, codec, element: &str, speed_fps| Capability {
        kind,
        codec,
        element: element.into(),
        block: String::new(),
        memory: "system".into(),
        speed_fps,
        width: Pixels(1280),
        height: Pixels(720),
        instances: None,
        limit: None,
    };
    let mut birth = Birth {
        header: from_node(),
        node: NodeId::new("orin-1").unwrap(),
        fleet: FleetId::new("village").unwrap(),
        agent_version: "0.1.0".into(),
        worker_version: "0.1.0".into(),
        board: Board {
            profile: "software".into(),
            model: "NVIDIA Jetson Orin Nano".into(),
            arch: "aarch64".into(),
            os: "Ubuntu 22.04.5 LTS".into(),
            kernel: "5.15.148-tegra".into(),
            cpus: 6,
            memory_bytes: 8_000_000_000,
        },
        capabilities: vec![
            capability(CapabilityKind::Decode, Some(Codec::H264), "avdec_h264", 410.5),
            capability(CapabilityKind::Scale, None, "hwscale", 2000.0),
            capability(CapabilityKind::Encode, Some(Codec::H264), "x264enc", 120.25),
        ],
        avoids: vec![Avoid { element: "nvv4l2h265enc".into(), reason: "its driver hung".into() }],
        limits: Limits { workers: 2, in_flight: 2, queue: 1, max_input_bytes: 314_572_800 },
        installation: None,
        config: None,
        extra: Default::default(),
    };
    check("birth", &birth);
    birth.installation = Some(Installation {
        updates_by: Some(BundleKind::Rauc),
        compatible: "headwater-arm64-generic".into(),
        version: "0.1.0".into(),
        slot: Some("A".into()),
        privileged: true,
    });
    let fault = Fault::new(Code::BadConfig, "limits.wokers: there is no such key");
    birth.config = Some(ReportedConfig { revision: 3, fault: Some(fault) });
    check("birth-installed", &birth);
}

#[test]
fn status_is_written_as_released() {
    check("status", &Status { header: from_node(), state: NodeState::Draining, extra: Default::default() });
}

#[test]
fn telemetry_is_written_as_released() {
    check(
        "telemetry",
        &Telemetry {
            header: from_node(),
            uptime: Millis(86_400_000),
            load: 1.5,
            memory_available_bytes: 5_000_000_000,
            agent_memory_bytes: 6_400_000,
            temperature_c: Some(48.5),
            power_w: Some(7.25),
            throttled: Some(false),
            workers: vec![WorkerState {
                stream: StreamId::new("Show_1").unwrap(),
                segments: 12,
                busy: true,
                memory_bytes: 190_000_000,
            }],
            outbox: 0,
            extra: Default::default(),
        },
    );
}

fn offer() -> Offer {
    let output = |rendition: &str| Output {
        rendition: name(rendition),
        path: format!("/v1/attempts/{}/1/{rendition}", task()),
    };
    Offer {
        header: header(""),
        task: task(),
        epoch: Epoch(1),
        stream: StreamId::new("Show_1").unwrap(),
        segment: 41,
        lease: Lease { accept: Millis(3000), progress: Millis(10_000), runtime: Millis(30_000) },
        ladder: ladder(),
        input: Input {
            path: format!("/v1/attempts/{}/1/input", task()),
            container: Container::Ts,
            bytes: 1_504_000,
            duration: Millis(2000),
        },
        outputs: vec![output("720p"), output("360p")],
        evidence: Some(format!("/v1/evidence/{}/1", task())),
        extra: Default::default(),
    }
}

#[test]
fn offer_is_written_as_released() {
    check("offer", &offer());
}

#[test]
fn what_came_later_is_written_as_released() {
    let sheet = Rendition {
        name: name("board"),
        codec: Codec::Jpeg,
        width: Pixels(160),
        height: Pixels(90),
        rate: Rate::Quality(12),
        gop: Gop::Segment,
        fps: None,
        profile: Profile::Auto,
        container: Container::Jpeg,
        audio: Audio::Copy,
        tiles: Some(Tiles { columns: 5, rows: 5, every: Millis(1000) }),
    };
    let mut offer = offer();
    offer.ladder = Ladder::new(vec![sheet]).unwrap();
    offer.outputs =
        vec![Output { rendition: name("board"), path: format!("/v1/attempts/{}/1/board", task()) }];
    offer.evidence = None;
    check("offer-pictures", &offer);
    let mut report = report();
    if let Some(video) = &mut report.input.video {
        video.hdr = Some(media::Hdr::Pq);
    }
    check("event-done-hdr", &event(Some(3), EventKind::Done { report: Box::new(report) }));
}

#[test]
fn events_are_written_as_released() {
    check("event-accepted", &event(Some(1), EventKind::Accepted));
    check("event-refused", &event(Some(2), EventKind::Refused { fault: fault() }));
    check("event-progress", &event(None, EventKind::Progress { decoded: 30, encoded: 118 }));
    check("event-done", &event(Some(3), EventKind::Done { report: Box::new(report()) }));
    check(
        "event-failed",
        &event(
            Some(4),
            EventKind::Failed {
                fault: Fault::new(Code::WorkerCrashed, "the worker ended by signal 11")
                    .with_detail("last line"),
            },
        ),
    );
}

#[test]
fn revoke_and_ack_are_written_as_released() {
    check("revoke", &Revoke { header: header(""), task: task(), epoch: Epoch(1), extra: Default::default() });
    let number = EventNumber { outbox: "c0ffee00c0ffee00".into(), n: 4 };
    check("ack", &Ack { header: header(""), number, extra: Default::default() });
}

#[test]
fn command_and_reply_are_written_as_released() {
    check(
        "command",
        &Command {
            header: header(""),
            id: "7".into(),
            command: CommandKind::Drain,
            extra: Default::default(),
        },
    );
    check(
        "reply",
        &Reply { header: from_node(), id: "7".into(), fault: Some(fault()), extra: Default::default() },
    );
}

#[test]
fn what_manages_a_fleet_is_written_as_released() {
    let id = UpdateId::new("0-2-0-1790000000").unwrap();
    let command =
        |command| Command { header: header(""), id: "8".into(), command, extra: Default::default() };
    let order = UpdateOrder {
        id: id.clone(),
        bundle: Bundle {
            kind: BundleKind::Rauc,
            compatible: "headwater-arm64-generic".into(),
            version: "0.2.0".into(),
            bytes: 150_000_000,
            sha256: "69b1ec2a".repeat(8),
            path: format!("/v1/bundles/{}", "69b1ec2a".repeat(8)),
        },
        window: Some(Window { from: 120, until: 300 }),
        allow_downgrade: false,
        health: Millis(600_000),
    };
    check("command-update", &command(CommandKind::Update(Box::new(order.clone()))));
    let older = UpdateOrder { allow_downgrade: true, ..order };
    check("command-update-downgrade", &command(CommandKind::Update(Box::new(older))));
    check("command-cancel-update", &command(CommandKind::CancelUpdate { id: id.clone() }));
    check(
        "command-logs",
        &command(CommandKind::Logs(Logs { path: "/v1/logs/8".into(), max_bytes: 262_144 })),
    );
    let status = |state| UpdateStatus {
        header: from_node(),
        id: id.clone(),
        version: "0.2.0".into(),
        state,
        extra: Default::default(),
    };
    check("update-fetching", &status(UpdateState::Fetching { bytes: 1_000_000 }));
    check("update-installing", &status(UpdateState::Installing { percent: 40 }));
    check("update-verifying", &status(UpdateState::Verifying));
    let fault = Fault::new(Code::Unhealthy, "the agent did not connect within 10 minutes");
    check("update-rolled-back", &status(UpdateState::RolledBack { fault }));
    let settings = serde_json::json!({"limits": {"workers": 1}, "log": {"level": "debug"}});
    let settings = settings.as_object().unwrap().clone();
    check("config", &DesiredConfig { header: header(""), revision: 3, settings, extra: Default::default() });
}

#[test]
fn a_message_with_an_invalid_ladder_or_id_is_not_a_message() {
    let good = serde_json::to_value(ladder()).unwrap();
    let mut zero = good.clone();
    zero[0]["width"] = 0.into();
    assert!(serde_json::from_value::<Ladder>(zero).unwrap_err().to_string().contains("width must be"));
    let mut escape = good;
    escape[0]["name"] = "../x".into();
    assert!(serde_json::from_value::<Ladder>(escape).is_err());
}

#[test]
fn the_protocol_document_names_every_channel_kind_and_error_code() {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../PROTOCOL.md")).unwrap();
    for code in Code::ALL {
        let class = serde_json::to_value(code.class()).unwrap();
        let row = format!("| `{code}` | {} |", class.as_str().unwrap());
        assert!(document.contains(&row), "PROTOCOL.md has no row that starts with {row}");
    }
    for channel in topic::Channel::ALL {
        let row = format!("| `{}` | ", channel.as_str());
        assert!(document.contains(&row), "PROTOCOL.md has no row that starts with {row}");
    }
}
