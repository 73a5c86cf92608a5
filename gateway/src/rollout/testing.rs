//! Made-up nodes and updates.

use headwater_protocol::message::{Birth, Board, Extra, Header, Limits, TimeSource};
use headwater_protocol::update::{Bundle, BundleKind, Installation};
use headwater_protocol::{FleetId, Millis, NodeId};

pub fn header() -> Header {
    Header { v: 1, ts: Millis(1), ts_src: TimeSource::Rtc, boot_id: "boot".into(), seq: 1 }
}

/// Of a board that an image for `board-x` updates.
pub fn birth(name: &str, version: &str) -> Birth {
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
        capabilities: Vec::new(),
        avoids: Vec::new(),
        limits: Limits { workers: 1, in_flight: 1, queue: 1, max_input_bytes: 1 },
        installation: Some(Installation {
            updates_by: Some(BundleKind::Rauc),
            compatible: "board-x".into(),
            version: version.into(),
            slot: Some("A".into()),
            privileged: true,
        }),
        config: None,
        extra: Extra::new(),
    }
}

pub fn bundle(version: &str) -> Bundle {
    let sha256 = crate::secret::sha256_hex(version.as_bytes());
    Bundle {
        kind: BundleKind::Rauc,
        compatible: "board-x".into(),
        version: version.into(),
        bytes: 1000,
        path: format!("/v1/bundles/{sha256}"),
        sha256,
    }
}
