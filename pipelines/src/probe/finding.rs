//! What came out of a probe, and what a plan makes of it: unproved hardware is not used, broken software neither.

use std::collections::BTreeSet;

use headwater_protocol::media::{Unproved, pool};
use headwater_protocol::worker::Sessions;
use headwater_protocol::{Capability, Code, Fault, Pixels, ProbeReport};
use serde::{Deserialize, Serialize};

use super::candidate::{Candidate, candidates};
use super::{SIZE, words};
use crate::board::Board;
use crate::machine::Machine;

/// What an element did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// Pictures a second of [`SIZE`], one instance, nothing else at work.
    pub speed_fps: f64,
    /// How many ran at once; None where it was not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// No more than this run at once; None where no limit was met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
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
    /// V4L2 controls of its device; None where it takes none or they could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<BTreeSet<String>>,
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

    /// What the devices were heard to have, for whoever plans on the machine or reports of it.
    pub fn tell_controls(&self, machine: &mut Machine) {
        for Finding { candidate, controls, .. } in &self.found {
            if let Some(controls) = controls {
                machine.learn_controls(&candidate.element, controls);
            }
        }
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
        for Finding { candidate, outcome, .. } in &self.found {
            match outcome {
                Outcome::Proved(proof) => report.capabilities.push(Capability {
                    kind: candidate.kind,
                    codec: candidate.codec,
                    element: candidate.element.clone(),
                    block: candidate.block.clone(),
                    memory: candidate.memory.clone(),
                    speed_fps: proof.speed_fps,
                    width: Pixels(SIZE.width),
                    height: Pixels(SIZE.height),
                    instances: proof.instances,
                    limit: proof.limit,
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
    if let Some(findings) = findings {
        findings.tell_controls(&mut known.machine);
    }
    for candidate in candidates(&known.board, &known.machine) {
        let key = candidate.key();
        let found = findings
            .and_then(|findings| findings.found.iter().find(|finding| finding.candidate.key() == key));
        match found.map(|finding| &finding.outcome) {
            Some(Outcome::Proved(proof)) => {
                if proof.fresh {
                    known.machine.fresh.insert(key);
                }
                if let Some(limit) = proof.limit {
                    // Which of its uses a device is opened for is not known beforehand, so the least of them counts.
                    let pool = pool(candidate.kind, &candidate.block, &candidate.element);
                    let sessions = known.machine.sessions.entry(pool);
                    let sessions = sessions.or_insert(Sessions { most: limit, ours: limit });
                    *sessions = Sessions { most: sessions.most.min(limit), ours: sessions.ours.min(limit) };
                }
            }
            // What is missing is not in the machine's list of elements either; a plan says why.
            Some(Outcome::Failed(fault) | Outcome::Missing(fault)) => {
                known.machine.refused.insert(key, fault.text.clone());
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{ElementFacts, Use};
    use headwater_protocol::Codec;

    const BOARD: &str = r#"
        schema = 1
        id = "toy"
        title = "Toy"
        status = "experimental"
        [memory.toy]
        [[decoder]]
        codec = "h264"
        factory = ["toydec"]
        package = "toy"
        out = { memory = "toy", formats = ["NV12"] }
        [[decoder]]
        codec = "av1"
        factory = ["toydec"]
        package = "toy"
        out = { memory = "toy", formats = ["NV12"] }
        [[encoder]]
        codec = "h264"
        factory = ["toyenc"]
        package = "toy"
        in = { formats = ["NV12"] }
        [[encoder]]
        codec = "h264"
        factory = ["softenc"]
        package = "soft"
        in = { formats = ["I420"] }
    "#;

    fn toy() -> (Board, Machine) {
        let mut board: Board = toml::from_str(BOARD).unwrap();
        board.encoders[1].software = true;
        let elements = ["toydec", "toyenc", "softenc"];
        let elements = elements.map(|name| (name.to_owned(), ElementFacts::default())).into();
        (board, Machine { elements, ..Machine::default() })
    }

    fn findings(outcome: impl Fn(&Candidate) -> Outcome) -> Findings {
        let (board, machine) = toy();
        let finding = |candidate: Candidate| Finding {
            outcome: outcome(&candidate),
            controls: (candidate.element == "toyenc").then(|| BTreeSet::from(["gop".to_owned()])),
            candidate,
        };
        let found = candidates(&board, &machine).into_iter().map(finding).collect();
        Findings { board: board.id, found }
    }

    fn refused(findings: Option<&Findings>) -> Vec<String> {
        let (board, machine) = toy();
        apply(findings, board, machine).machine.refused.into_keys().collect()
    }

    #[test]
    fn without_results_software_is_believed_and_hardware_is_not() {
        assert_eq!(
            refused(None),
            ["decode:av1:toydec:toy", "decode:h264:toydec:toy", "encode:h264:toyenc:system"]
        );
    }

    #[test]
    fn a_decoder_is_used_for_the_codecs_that_it_proved() {
        let av1 = |one: &Candidate| one.codec == Some(Codec::Av1);
        let found = findings(|one| match one {
            one if av1(one) => Outcome::Failed(Fault::new(Code::BadOutput, "toydec decoded 3 of 60 frames")),
            _ => Outcome::Proved(Proof::default()),
        });
        assert_eq!(refused(Some(&found)), ["decode:av1:toydec:toy"]);
        let (board, machine) = toy();
        let machine = apply(Some(&found), board, machine).machine;
        let toydec = ["toydec".to_owned()];
        assert!(machine.first_for(&toydec, Use::Decode { codec: Codec::H264, memory: "toy" }).is_some());
        assert!(machine.first_for(&toydec, Use::Decode { codec: Codec::Av1, memory: "toy" }).is_none());
    }

    #[test]
    fn what_was_not_tried_is_used_only_where_it_is_software() {
        let found = findings(|_| Outcome::NotTried(Fault::new(Code::UnsupportedCodec, "not tried")));
        assert_eq!(refused(Some(&found)).len(), 3);
        let broken = findings(|_| Outcome::Failed(Fault::new(Code::BadOutput, "broken")));
        assert!(refused(Some(&broken)).contains(&"encode:h264:softenc:system".to_owned()));
    }

    #[test]
    fn an_encoder_that_survives_no_flush_is_made_anew_for_each_segment_and_no_other_is() {
        let found =
            findings(|one| Outcome::Proved(Proof { fresh: one.element == "toyenc", ..Proof::default() }));
        let (board, machine) = toy();
        let machine = apply(Some(&found), board, machine).machine;
        assert!(machine.needs_fresh("toyenc", Use::Encode { codec: Codec::H264, memory: "system" }));
        assert_eq!(machine.fresh.len(), 1, "the board's other elements are kept");
    }

    #[test]
    fn a_plan_knows_the_controls_that_the_probe_heard_of() {
        let found = findings(|_| Outcome::Failed(Fault::new(Code::BadOutput, "broken")));
        let (board, machine) = toy();
        let machine = apply(Some(&found), board, machine).machine;
        assert_eq!(machine.elements["toyenc"].controls, Some([("gop".to_owned(), None)].into()));
        assert_eq!(machine.elements["toydec"].controls, None, "nothing was heard of its device");
    }

    #[test]
    fn an_element_is_open_no_more_often_than_the_use_of_it_that_takes_the_least() {
        let limit = |one: &Candidate| match (one.element.as_str(), one.codec) {
            ("toydec", Some(Codec::Av1)) => Some(1),
            ("toydec", _) => Some(3),
            _ => None,
        };
        let found = findings(|one| Outcome::Proved(Proof { limit: limit(one), ..Proof::default() }));
        let (board, machine) = toy();
        let machine = apply(Some(&found), board, machine).machine;
        assert_eq!(machine.sessions, [("toydec".to_owned(), Sessions { most: 1, ours: 1 })].into());
    }

    #[test]
    fn elements_of_one_device_have_their_least_limit_together() {
        let (mut board, machine) = toy();
        board.decoders[0].block = "TOYDEC".to_owned();
        board.decoders[1].block = "TOYDEC".to_owned();
        board.decoders[1].factory = vec!["toyav1dec".to_owned()];
        let limit = |one: &Candidate| match one.codec {
            Some(Codec::Av1) => Some(2),
            _ => Some(3),
        };
        let decodes = |one: &Candidate| one.kind == headwater_protocol::CapabilityKind::Decode;
        let all = candidates(&board, &machine).into_iter().filter(decodes);
        let proved = |candidate: Candidate| Finding {
            outcome: Outcome::Proved(Proof { limit: limit(&candidate), ..Proof::default() }),
            candidate,
            controls: None,
        };
        let found = Findings { board: board.id.clone(), found: all.map(proved).collect() };
        let sessions = apply(Some(&found), board, machine).machine.sessions;
        assert_eq!(sessions, [("TOYDEC decoder".to_owned(), Sessions { most: 2, ours: 2 })].into());
    }

    #[test]
    fn a_busy_device_is_asked_again() {
        assert!(findings(|_| Outcome::Failed(Fault::new(Code::Busy, "busy"))).passing());
        assert!(!findings(|_| Outcome::Failed(Fault::new(Code::BadOutput, "broken"))).passing());
    }
}
