//! What came out of a probe, and what a plan makes of it: unproved hardware is not used, broken software neither.

use headwater_protocol::media::Unproved;
use headwater_protocol::{Capability, CapabilityKind, Code, Fault, Pixels, ProbeReport};
use serde::{Deserialize, Serialize};

use super::candidate::{Candidate, candidates};
use super::{SIZE, words};
use crate::board::{Board, Quirk};
use crate::machine::Machine;

/// What an element did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Pictures a second of [`SIZE`], one instance, nothing else at work.
    pub speed_fps: f64,
    /// How many ran at once; None where it was not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// It works, but not after a flush: a new one for each segment.
    #[serde(default)]
    pub fresh: bool,
    /// What a person should know of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Proved(Proof),
    /// It is not here.
    Missing(Fault),
    /// It is here and broke a promise.
    Failed(Fault),
    /// It could not be tried.
    NotTried(Fault),
}

impl Outcome {
    pub fn proof(&self) -> Option<&Proof> {
        match self {
            Outcome::Proved(proof) => Some(proof),
            Outcome::Missing(_) | Outcome::Failed(_) | Outcome::NotTried(_) => None,
        }
    }

    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Outcome::Proved(_) => None,
            Outcome::Missing(fault) | Outcome::Failed(fault) | Outcome::NotTried(fault) => Some(fault),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    #[serde(flatten)]
    pub candidate: Candidate,
    pub outcome: Outcome,
}

/// The results for all candidates of one board, in their order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    pub board: String,
    pub found: Vec<Finding>,
}

/// One machine and what is used of it.
#[derive(Debug, Clone)]
pub struct Known {
    pub board: Board,
    pub machine: Machine,
}

impl Findings {
    /// Whether something was busy and may work later, so that these results should not be remembered.
    pub fn passing(&self) -> bool {
        let mut faults = self.found.iter().filter_map(|finding| finding.outcome.fault());
        faults.any(|fault| fault.code == Code::Busy)
    }

    /// For the agent.
    pub fn report(&self) -> ProbeReport {
        let mut report = ProbeReport {
            worker_version: env!("CARGO_PKG_VERSION").to_owned(),
            gstreamer_version: gstreamer::version_string().to_string(),
            profile: self.board.clone(),
            capabilities: Vec::new(),
            unproved: Vec::new(),
        };
        for Finding { candidate, outcome } in &self.found {
            match outcome {
                Outcome::Proved(proof) => report.capabilities.push(Capability {
                    kind: candidate.kind,
                    codec: candidate.codec,
                    element: candidate.element.clone(),
                    memory: candidate.memory.clone(),
                    speed_fps: proof.speed_fps,
                    width: Pixels(SIZE.width),
                    height: Pixels(SIZE.height),
                    instances: proof.instances,
                }),
                Outcome::Missing(fault) | Outcome::Failed(fault) | Outcome::NotTried(fault) => {
                    report
                        .unproved
                        .push(Unproved { element: candidate.element.clone(), fault: fault.clone() });
                }
            }
        }
        report
    }
}

/// Takes from the machine what is not proved. Without findings software is believed and hardware is not.
pub fn apply(findings: Option<&Findings>, board: Board, machine: Machine) -> Known {
    let mut known = Known { board, machine };
    for candidate in candidates(&known.board, &known.machine) {
        let key = candidate.key();
        let found = findings
            .and_then(|findings| findings.found.iter().find(|finding| finding.candidate.key() == key));
        match found.map(|finding| &finding.outcome) {
            Some(Outcome::Proved(proof)) => {
                let quirk = match candidate.kind {
                    CapabilityKind::Decode => Some(Quirk::FreshDecoderPerSegment),
                    CapabilityKind::Encode => Some(Quirk::FreshEncoderPerSegment),
                    CapabilityKind::Scale => None,
                };
                let learned = quirk.filter(|quirk| proof.fresh && !known.board.quirks.contains(quirk));
                known.board.quirks.extend(learned);
            }
            Some(Outcome::Failed(fault)) => {
                known.machine.refused.insert(key, fault.text.clone());
            }
            // What is missing is not in the machine's list of elements either.
            Some(Outcome::Missing(_)) => {}
            Some(Outcome::NotTried(_)) | None if candidate.software => {}
            Some(Outcome::NotTried(fault)) => {
                known.machine.refused.insert(key, fault.text.clone());
            }
            None => {
                known.machine.refused.insert(key, words::unproved(&candidate));
            }
        }
    }
    known
}
