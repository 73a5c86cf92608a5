//! `doctor`: what this machine is, what was proved, what is missing and what to do about it, for a person.
//!
//! ```text
//! survey ─ probe ─▶ Diagnosis (plain data) ─┬▶ text: a page of 80 columns
//!                                           └▶ report: a file to share, without anything that names a person or a unit
//! ```

mod report;
mod text;

use std::collections::BTreeMap;
use std::path::Path;

use headwater_protocol::{Codec, Fault};
use serde::{Deserialize, Serialize};

pub use self::report::{Report, Secrets};
pub use self::text::{Style, page};
use crate::board::{BadProfile, Boards, Status, user_folder};
use crate::environment;
use crate::exit::Exit;
use crate::machine::Machine;
use crate::plan::{Explanation, Input, Trust, explain};
use crate::probe::{self, Candidate, Findings, Options, Outcome, cache};
use crate::{standard, survey};

/// What the machine is, in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub model: String,
    /// The chip, as the device tree names it.
    pub chip: String,
    pub arch: String,
    pub cores: u32,
    pub memory_mb: u64,
    pub gstreamer: String,
    /// Kernel, drivers and board packages to version.
    pub drivers: BTreeMap<String, String>,
}

/// The profile in use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    pub id: String,
    pub title: String,
    pub status: Status,
    /// Somebody asked for it; it may not match.
    pub asked_for: bool,
    pub notes: Vec<String>,
    /// Variables that it wants in the environment and that were not set.
    pub lacking: Vec<String>,
}

/// A profile that is not in use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Other {
    pub id: String,
    pub why_not: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All hardware that the profile names, or none is named and software does it.
    Works,
    /// Some of the hardware that the profile names is not used.
    Partly,
    /// The standard ladder cannot be made.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    pub worker: String,
    pub facts: Facts,
    pub chosen: Chosen,
    pub others: Vec<Other>,
    pub findings: Findings,
    /// Files of plugins that GStreamer could not load.
    pub broken_plugins: Vec<String>,
    /// What would be done with 1080p30 and the standard ladder.
    pub plan: Option<Explanation>,
    pub no_plan: Option<Fault>,
    pub verdict: Verdict,
}

impl Verdict {
    pub fn exit(self) -> Exit {
        match self {
            Verdict::Works => Exit::Done,
            Verdict::Partly => Exit::Partly,
            Verdict::Nothing => Exit::Failed,
        }
    }
}

/// A diagnosis, and the machine with everything that any profile asks for.
pub fn diagnose(
    options: &Options,
    tell: &mut dyn FnMut(&Candidate, usize, usize),
) -> Result<(Diagnosis, Machine), BadProfile> {
    let boards = Boards::with_folder(&user_folder())?;
    let mut whole = survey::machine(&boards);
    let named = options.board.clone().or_else(survey::named_board);
    let (board, machine) = survey::choose(options.board.as_deref())?;
    // A profile that was only looked at is not what a worker will use.
    let findings = match options.board {
        None => probe::probe_and_remember(&board, &machine, options, tell),
        Some(_) => probe::probe(&board, &machine, options, tell),
    };
    let others = boards.all().filter(|profile| profile.board.id != board.id);
    let others = others.map(|profile| Other {
        id: profile.board.id.clone(),
        why_not: match profile.board.check(&whole) {
            Err(mismatch) => mismatch.to_string(),
            Ok(()) => format!("it matches too, but {} comes first", board.id),
        },
    });
    let others = others.collect();
    let chosen = Chosen {
        id: board.id.clone(),
        title: board.title.clone(),
        status: board.status,
        asked_for: named.is_some(),
        notes: board.notes.clone(),
        lacking: environment::lacking(&board)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
    };
    let facts = facts(&machine);
    let mut known = probe::apply(Some(&findings), board, machine);
    survey::look_at_usable(&mut known.machine, &known.board);
    let plan = explain(
        &known.board,
        &known.machine,
        &standard::ladder(),
        Input::any(Codec::H264, Trust::Lossy),
        &standard::picture(&known.board, &known.machine),
    );
    let (plan, no_plan) = match plan {
        Ok(plan) => (Some(plan), None),
        Err(fault) => (None, Some(fault)),
    };
    // What failed may hang whoever loads it; so it stays a name in the report.
    let failed = |name: &&str| {
        findings.found.iter().any(|one| one.candidate.element == **name && one.outcome.proof().is_none())
    };
    survey::look_at(&mut whole, boards.factories().filter(|name| !failed(name)));
    findings.tell_controls(&mut whole);
    let diagnosis = Diagnosis {
        worker: env!("CARGO_PKG_VERSION").to_owned(),
        facts,
        chosen,
        others,
        verdict: verdict(&findings, plan.is_some()),
        findings,
        broken_plugins: probe::broken_plugins(),
        plan,
        no_plan,
    };
    Ok((diagnosis, whole))
}

fn verdict(findings: &Findings, planned: bool) -> Verdict {
    let lost = findings.found.iter().any(|finding| {
        !finding.candidate.software
            && match finding.outcome {
                Outcome::Missing(_) | Outcome::Failed(_) => true,
                Outcome::Proved(_) | Outcome::NotTried(_) => false,
            }
    });
    match (planned, lost) {
        (false, _) => Verdict::Nothing,
        (true, true) => Verdict::Partly,
        (true, false) => Verdict::Works,
    }
}

fn facts(machine: &Machine) -> Facts {
    let dmi = |name: &str| cache::text(&Path::new("/sys/class/dmi/id").join(name));
    let model = match machine.device_tree.model.as_str() {
        "" => format!("{} {}", dmi("sys_vendor"), dmi("product_name")).trim().to_owned(),
        model => model.to_owned(),
    };
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    Facts {
        model,
        chip: machine.device_tree.compatible.last().cloned().unwrap_or_default(),
        arch: machine.arch.clone(),
        cores: machine.cores,
        memory_mb: kilobytes.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default() / 1024,
        gstreamer: machine.gstreamer.to_string(),
        drivers: cache::drivers(),
    }
}
