//! Whether an order makes sense here, before anything is fetched.

use headwater_protocol::update::UpdateOrder;
use headwater_protocol::{Code, Fault};

use crate::system::wire::{Status, fits};

/// What speaks against an order before anything is fetched. `here`: None where the helper does not answer.
pub(crate) fn refusal(order: &UpdateOrder, here: Result<&Status, &Fault>) -> Option<Fault> {
    let status = match here {
        Ok(status) => status,
        Err(fault) => return Some(fault.clone()),
    };
    if let Err(fault) = fits(status, order, true) {
        return Some(fault);
    }
    let digest = &order.bundle.sha256;
    let good = digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (!good).then(|| Fault::new(Code::BadBundle, "the order has no SHA-256"))
}
