//! A made-up node, for unit tests and for the tests in `gateway/tests` alike.

use headwater_protocol::message::{Birth, Board, Extra, Header, Limits, TimeSource};
use headwater_protocol::{Capability, CapabilityKind, Codec, FleetId, Millis, NodeId, Pixels};

pub(crate) fn header() -> Header {
    Header { v: 1, ts: Millis(1), ts_src: TimeSource::Rtc, boot_id: "boot".into(), seq: 1 }
}

/// Of a board that decodes and encodes H.264, and that nobody updates.
pub(crate) fn birth(name: &str) -> Birth {
    let capability = |kind| Capability {
        kind,
        codec: Some(Codec::H264),
        element: "test".into(),
        block: String::new(),
        memory: "system".into(),
        speed_fps: 100.0,
        width: Pixels(1280),
        height: Pixels(720),
        instances: None,
        limit: None,
    };
    Birth {
        header: header(),
        node: NodeId::new(name).unwrap(),
        fleet: FleetId::new("home").unwrap(),
        agent_version: "0.1.0".into(),
        worker_version: "0.1.0".into(),
        board: Board {
            profile: "generic".into(),
            model: String::new(),
            arch: "x86_64".into(),
            os: String::new(),
            kernel: String::new(),
            cpus: 1,
            memory_bytes: 1,
        },
        capabilities: vec![capability(CapabilityKind::Decode), capability(CapabilityKind::Encode)],
        avoids: Vec::new(),
        limits: Limits { workers: 4, in_flight: 1, queue: 4, max_input_bytes: 1 << 30 },
        installation: None,
        config: None,
        extra: Extra::new(),
    }
}
