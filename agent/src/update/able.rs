//! What a version must be able to do to be stayed with: no less than the one before it.

use headwater_protocol::{Capability, CapabilityKind};
use serde::{Deserialize, Serialize};

/// The two halves of the work, each by whatever element. A node without one of them does nothing for its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Able {
    decodes: bool,
    encodes: bool,
}

impl Able {
    /// Of a version that did not write it down: it had work, or nobody would have sent it an update.
    pub(crate) const BOTH: Self = Self { decodes: true, encodes: true };

    pub(crate) fn of<'a>(capabilities: impl Iterator<Item = &'a Capability>) -> Self {
        let mut able = Self { decodes: false, encodes: false };
        for capability in capabilities {
            match capability.kind {
                CapabilityKind::Decode => able.decodes = true,
                CapabilityKind::Encode => able.encodes = true,
                CapabilityKind::Scale => {}
            }
        }
        able
    }

    /// Codecs may come and go with a version; a whole half may not.
    pub(crate) fn is_no_less_than(self, before: Self) -> bool {
        (self.decodes || !before.decodes) && (self.encodes || !before.encodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_may_lose_no_half_that_the_one_before_it_had() {
        let able = |decodes, encodes| Able { decodes, encodes };
        let none = able(false, false);
        for before in [none, able(true, false), able(false, true), Able::BOTH] {
            assert!(before.is_no_less_than(before) && Able::BOTH.is_no_less_than(before), "{before:?}");
            assert!(before == none || !none.is_no_less_than(before), "{before:?}");
        }
        assert!(!able(true, false).is_no_less_than(able(false, true)));
        assert_eq!(Able::of([].iter()), none);
    }
}
