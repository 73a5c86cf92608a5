//! Made-up boards and bundles.

use headwater_protocol::message::Birth;
use headwater_protocol::update::{Bundle, BundleKind, Installation};

/// Of a board that an image for `board-x` updates.
pub fn birth(name: &str, version: &str) -> Birth {
    let installation = Installation {
        updates_by: Some(BundleKind::Rauc),
        compatible: "board-x".into(),
        version: version.into(),
        slot: Some("A".into()),
        privileged: true,
    };
    Birth { installation: Some(installation), ..crate::testing::birth(name) }
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
