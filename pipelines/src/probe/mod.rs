//! `probe`: what this machine can do, each candidate proved by working in front of our eyes.
//!
//! ```text
//! profile ─ candidate ─▶ child: a process each, with a deadline ─▶ Finding ─┬▶ cache ─▶ apply: what plans may use
//!                          └ prove: decode, scale, encode, instances        ├▶ the agent's report
//!                                                                           └▶ doctor
//! ```
//!
//! A registry lists elements whose hardware is not there, and drivers hang; so each candidate runs in a child process
//! of its own, one after the other so that each has the machine to itself.

mod absent;
pub mod cache;
mod candidate;
mod child;
mod coded;
mod colours;
mod decode;
mod drive;
mod encode;
mod finding;
mod instances;
mod nodes;
mod pictures;
mod prove;
mod sample;
mod scale;
pub mod words;

use std::collections::BTreeSet;
use std::time::Duration;

use gstreamer as gst;
use headwater_protocol::CapabilityKind;

pub use self::candidate::{Candidate, OWN_SCALER, candidates};
use self::child::Tried;
pub use self::child::{Said, end_with_parent};
pub use self::finding::{Finding, Findings, Known, Outcome, Proof, apply};
pub use self::prove::prove;
use crate::board::{BadProfile, Board};
use crate::fit::Size;
use crate::machine::Machine;
use crate::survey;

/// A candidate that says nothing for so long, dlopen and driver included, is killed.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Pictures a device's element must get through.
pub const PICTURES: u64 = 60;
/// Of these pictures.
pub const SIZE: Size = Size::new(1280, 720);

/// Software is the same on every board: that it is there, whole and right is seen on fewer pictures. On a small board
/// each costs a tenth of a second and more, and a node takes no work before its probe is through.
const SOFTWARE_PICTURES: u64 = 8;
/// Pictures of software's second segment.
const SOFTWARE_FEW: u64 = 4;
/// What a software encoder gets: enough for two keyframes, of a quarter of the size.
const SOFTWARE_ENCODES: u64 = 16;
const SOFTWARE_SIZE: Size = Size::new(SIZE.width / 2, SIZE.height / 2);

/// How to probe.
#[derive(Debug, Clone)]
pub struct Options {
    /// For each candidate, without a word from it.
    pub deadline: Duration,
    /// The profile that was asked for, where it is not the machine's own.
    pub board: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: DEADLINE, board: None }
    }
}

/// Proves every candidate of the board's profile, each in a child process. `tell` is called before each, with its
/// number from 1 and how many there are.
pub fn probe(
    board: &Board,
    machine: &Machine,
    options: &Options,
    tell: &mut dyn FnMut(&Candidate, usize, usize),
) -> Findings {
    let all = candidates(board, machine);
    let count = all.len();
    let broken = broken_plugins();
    let mut stuck: BTreeSet<String> = BTreeSet::new();
    let mut found = Vec::with_capacity(count);
    for (at, candidate) in all.into_iter().enumerate() {
        tell(&candidate, at + 1, count);
        let Tried { outcome, controls, stuck: is_stuck } =
            match without_trial(&candidate, board, machine, &broken, &stuck) {
                Some(outcome) => Tried { outcome, controls: None, stuck: false },
                None => child::prove(&candidate, options),
            };
        if is_stuck {
            stuck.insert(candidate.element.clone());
        }
        tracing::debug!(candidate = candidate.key(), ?outcome, "probed");
        found.push(Finding { candidate, outcome, controls });
    }
    Findings { board: board.id.clone(), found }
}

/// Probes where the board has hardware of which nothing is known yet, and remembers what was found.
pub fn ensure(tell: &mut dyn FnMut(&Candidate, usize, usize)) -> Result<(), BadProfile> {
    if survey::counts_as_proved() {
        return Ok(());
    }
    let (board, machine) = survey::choose(None)?;
    let here = |one: &Candidate| !one.software && machine.elements.contains_key(&one.element);
    if candidates(&board, &machine).iter().any(here)
        && cache::load(&cache::key(&board, &machine)).is_none_or(|found| found.passing())
    {
        probe_and_remember(&board, &machine, &Options::default(), tell);
    }
    Ok(())
}

/// [`probe`], and the next worker knows it too.
pub fn probe_and_remember(
    board: &Board,
    machine: &Machine,
    options: &Options,
    tell: &mut dyn FnMut(&Candidate, usize, usize),
) -> Findings {
    let findings = probe(board, machine, options, tell);
    let key = cache::key(board, machine);
    // Better results of before stand against those of a busy device.
    if findings.passing() && cache::load(&key).is_some_and(|known| !known.passing()) {
        return findings;
    }
    if let Err(error) = cache::store(key, findings.clone()) {
        let file = cache::file();
        tracing::warn!(%error, file = %file.display(), "what was proved cannot be remembered; --cache names another file");
    }
    findings
}

/// What can be said of a candidate without a process for it.
fn without_trial(
    candidate: &Candidate,
    board: &Board,
    machine: &Machine,
    broken: &[String],
    stuck: &BTreeSet<String>,
) -> Option<Outcome> {
    let element = &candidate.element;
    if element == OWN_SCALER {
        return None;
    }
    if !machine.elements.contains_key(element) {
        return Some(Outcome::Missing(absent::why(candidate, broken)));
    }
    if stuck.contains(element) {
        return Some(Outcome::Failed(words::spared(candidate)));
    }
    let encodes = |codec| board.encoders.iter().any(|one| one.codec == codec);
    let without =
        |codec| candidate.kind == CapabilityKind::Decode && !sample::exists(codec) && !encodes(codec);
    candidate.codec.is_some_and(without).then(|| Outcome::NotTried(words::no_sample(candidate)))
}

/// Files of the plugins that GStreamer could not load and will not try again.
pub fn broken_plugins() -> Vec<String> {
    let plugins = gst::Registry::get().plugins();
    let broken =
        plugins.into_iter().filter(|plugin| plugin.plugin_flags().contains(gst::PluginFlags::BLACKLISTED));
    let file = |plugin: gst::Plugin| Some(plugin.filename()?.file_name()?.to_string_lossy().into_owned());
    broken.filter_map(file).collect()
}
