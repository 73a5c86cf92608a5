//! Whether an order makes sense here, before anything is fetched.

use headwater_protocol::update::{BundleKind, UpdateOrder};
use headwater_protocol::{Code, Fault};

use crate::system::wire::Status;

/// What speaks against an order before anything is fetched. `here`: None where the helper does not answer.
pub(crate) fn refusal(order: &UpdateOrder, here: Result<&Status, &Fault>) -> Option<Fault> {
    let status = match here {
        Ok(status) => status,
        Err(fault) => return Some(fault.clone()),
    };
    let name = |kind| match kind {
        BundleKind::Rauc => "RAUC bundles",
        BundleKind::Deb => "bundles of packages",
    };
    match status.updates_by {
        None => Some(Fault::new(Code::Unsupported, &*status.explanation)),
        Some(kind) if kind != order.bundle.kind => {
            let text = format!("this node is updated by {}, not by {}", name(kind), name(order.bundle.kind));
            Some(Fault::new(Code::Unsupported, text))
        }
        Some(_) if status.compatible != order.bundle.compatible => {
            let text =
                format!("the bundle is for {:?}, this is {:?}", order.bundle.compatible, status.compatible);
            Some(Fault::new(Code::BadBundle, text))
        }
        Some(_) => {
            let digest = &order.bundle.sha256;
            let good =
                digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (!good).then(|| Fault::new(Code::BadBundle, "the order has no SHA-256"))
        }
    }
}
