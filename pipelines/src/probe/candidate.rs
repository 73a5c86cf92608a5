//! What is to be proved: each use of each element that the board's profile names.

use std::collections::BTreeSet;

use headwater_protocol::{CapabilityKind, Codec};
use serde::{Deserialize, Serialize};

use super::{PICTURES, SIZE, SOFTWARE_ENCODES, SOFTWARE_PICTURES, SOFTWARE_SIZE};
use crate::board::{Board, SYSTEM};
use crate::fit::Size;
use crate::machine::{Machine, Use};

/// One thing to be proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub kind: CapabilityKind,
    /// None for scaling.
    pub codec: Option<Codec>,
    pub element: String,
    /// Where a scaler's pictures come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where a decoder's or scaler's pictures come out and an encoder's go in, by the profile's name.
    pub memory: String,
    /// Brings the element where it is missing.
    pub package: String,
    /// Drives no device.
    pub software: bool,
    /// What people call the device: NVENC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub block: String,
}

/// Headwater's own scaler, in every worker.
pub const OWN_SCALER: &str = "headwater";

impl Candidate {
    /// Pictures it must get through.
    pub(super) fn pictures(&self) -> u64 {
        match (self.software, self.kind) {
            (false, _) => PICTURES,
            (true, CapabilityKind::Encode) => SOFTWARE_ENCODES,
            (true, CapabilityKind::Decode | CapabilityKind::Scale) => SOFTWARE_PICTURES,
        }
    }

    /// Of an encoder's pictures.
    pub(super) fn size(&self) -> Size {
        if self.software { SOFTWARE_SIZE } else { SIZE }
    }

    /// The use that this proves; None for Headwater's own scaler, which no plan asks for.
    fn used(&self) -> Option<Use<'_>> {
        match (self.kind, self.codec, &self.from) {
            (CapabilityKind::Decode, Some(codec), _) => Some(Use::Decode { codec, memory: &self.memory }),
            (CapabilityKind::Encode, Some(codec), _) => Some(Use::Encode { codec, memory: &self.memory }),
            (CapabilityKind::Scale, _, Some(from)) => Some(Use::Scale { from, to: &self.memory }),
            (CapabilityKind::Scale, _, None) | (CapabilityKind::Decode | CapabilityKind::Encode, None, _) => {
                None
            }
        }
    }

    /// Its name between processes and in the machine's list of what is refused.
    pub fn key(&self) -> String {
        self.used().map_or_else(|| format!("scale:{}", self.element), |used| used.key(&self.element))
    }
}

/// Every use of every element of the board, those of the last resort included. Where a profile has several names for
/// an element, each that is here is a candidate; where none is, the first.
pub fn candidates(board: &Board, machine: &Machine) -> Vec<Candidate> {
    let here = |factories: &[String]| -> Vec<String> {
        let known =
            |name: &&String| machine.elements.contains_key(*name) || machine.refused.contains_key(*name);
        let known: Vec<String> = factories.iter().filter(known).cloned().collect();
        if known.is_empty() { factories.first().cloned().into_iter().collect() } else { known }
    };
    let decoders = board.decoders.iter().flat_map(|one| {
        here(&one.factory).into_iter().map(|element| Candidate {
            kind: CapabilityKind::Decode,
            codec: Some(one.codec),
            element,
            from: None,
            memory: one.out.memory.clone(),
            package: one.package.clone(),
            software: one.software,
            block: one.block.clone(),
        })
    });
    let own = Candidate {
        kind: CapabilityKind::Scale,
        codec: None,
        element: OWN_SCALER.to_owned(),
        from: None,
        memory: SYSTEM.to_owned(),
        package: "headwater".to_owned(),
        software: true,
        block: String::new(),
    };
    let scalers = board.scalers.iter().flat_map(|one| {
        let ways = one.input.iter().flat_map(|from| one.out.iter().map(move |to| (from, to)));
        let ways: Vec<_> = ways.collect();
        here(&one.factory).into_iter().flat_map(move |element| {
            ways.clone().into_iter().map(move |(from, to)| Candidate {
                kind: CapabilityKind::Scale,
                codec: None,
                element: element.clone(),
                from: Some(from.clone()),
                memory: to.clone(),
                package: one.package.clone(),
                software: false,
                block: String::new(),
            })
        })
    });
    let encoders = board.encoders.iter().flat_map(|one| {
        here(&one.factory).into_iter().map(|element| Candidate {
            kind: CapabilityKind::Encode,
            codec: Some(one.codec),
            element,
            from: None,
            memory: one.input.memory.clone(),
            package: one.package.clone(),
            software: one.software,
            block: one.block.clone(),
        })
    });
    // Two entries of a profile may differ only in limits or properties; the better one stands first.
    let mut seen = BTreeSet::new();
    let all = decoders.chain([own]).chain(scalers).chain(encoders);
    all.filter(|candidate| seen.insert(candidate.key())).collect()
}
