//! The child's side: one candidate proved in this process.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use headwater_protocol::{CapabilityKind, Code, Fault};

use super::candidate::{Candidate, candidates};
use super::child::{DEADLINES, Said};
use super::drive::Patience;
use super::finding::Proof;
use super::pictures::Luma;
use super::sample::{self, Clip};
use super::{decode, drive, encode, scale, words};
use crate::board::{Board, SYSTEM};
use crate::machine::{EXTRA_CONTROLS, Machine};
use crate::plan::{self, Input, Trust};
use crate::{busy, graph, v4l2};

/// Decibels. A wrong plane order or a shifted row gives 10 to 20; x264, x265 and OpenH264 gave 42 to 48 at the bitrate
/// asked for.
pub(super) const ALIKE: f64 = 30.0;
/// How often the parent is told that pictures come out.
const MOVED: Duration = Duration::from_secs(1);

/// What a candidate is proved on.
pub(super) struct Bench<'a> {
    pub board: &'a Board,
    pub machine: &'a Machine,
    pub candidate: &'a Candidate,
    /// For the first and longest run.
    pub first: Patience<'a>,
    /// For each of those after it.
    pub again: Patience<'a>,
}

/// Proves the candidate `key` and says what was found, step by step. The machine learns the controls of its device, so
/// that it is proved with those that it has. `deadline` is how long nothing may come of it; all is over in [`DEADLINES`] of
/// them from `started`.
pub fn prove(
    board: &Board,
    machine: &mut Machine,
    key: &str,
    started: Instant,
    deadline: Duration,
    say: &mut dyn FnMut(&Said),
) -> Result<(), Fault> {
    let candidate = candidates(board, machine).into_iter().find(|candidate| candidate.key() == key);
    let candidate = candidate
        .ok_or_else(|| Fault::new(Code::PipelineFailed, format!("{key} is no candidate of {}", board.id)))?;
    if let Some(why) = machine.refused.get(&candidate.element) {
        return Err(words::unloadable(&candidate, why));
    }
    if let Some(controls) = controls(machine, &candidate.element) {
        machine.learn_controls(&candidate.element, &controls);
        say(&Said::Controls(controls));
    }
    let machine = &*machine;
    let say = RefCell::new(say);
    let told = Cell::new(Instant::now());
    let moved = || {
        if told.get().elapsed() > MOVED {
            told.set(Instant::now());
            (*say.borrow_mut())(&Said::Moves);
        }
    };
    // Half of the time for the first run leaves some for those after it, which are short.
    let patience = |still| Patience { still, until: started + deadline * DEADLINES, moved: &moved };
    let (first, again) = (patience(deadline / 2), patience(deadline / 5));
    let bench = Bench { board, machine, candidate: &candidate, first, again };
    // An element that takes no value of a property ends in a panic, which is an answer too.
    let proved = panic::catch_unwind(AssertUnwindSafe(|| match candidate.kind {
        CapabilityKind::Decode => decode::prove(&bench),
        CapabilityKind::Scale => scale::prove(&bench).map(|proof| (proof, None)),
        CapabilityKind::Encode => encode::prove(&bench),
    }));
    let proved = proved.unwrap_or_else(|panicked| Err(words::wrong(&candidate, surprise(&*panicked))));
    let (proof, at_once) = proved.map_err(|fault| bench.told(fault))?;
    let say = say.into_inner();
    say(&Said::Proved(proof));
    if let Some(at_once) = at_once {
        let limit = at_once.count(&mut |count| say(&Said::Instances(count)));
        if let Some(limit) = limit {
            say(&Said::Limit(limit));
        }
    }
    Ok(())
}

/// The V4L2 controls of the element's device, where it takes any and they can be read.
fn controls(machine: &Machine, element: &str) -> Option<BTreeSet<String>> {
    let facts = machine.elements.get(element)?;
    if !facts.properties.contains_key(EXTRA_CONTROLS) {
        return None;
    }
    v4l2::controls(element).inspect_err(|why| tracing::debug!(%why, "controls were not read")).ok()
}

impl Bench<'_> {
    /// The fault with the element's name in it; what a busy device says is no fault of the element.
    fn told(&self, fault: Fault) -> Fault {
        if !self.candidate.software && busy::refused(&fault, busy::memory_means_busy(self.board)) {
            return words::busy(self.candidate, &fault);
        }
        let element = &self.candidate.element;
        if fault.text.starts_with(element.as_str()) {
            return fault;
        }
        Fault { text: format!("{element} does not work: {}", fault.text), ..fault }
    }

    /// The pictures that software makes of a clip; where the codec has no sample, for no software knows it, those that
    /// any decoder makes. None where no other decoder is here.
    pub(super) fn reference(&self, clip: &Clip) -> Result<Option<Vec<Luma>>, Fault> {
        let Some(codec) = self.candidate.codec else { return Ok(None) };
        let mut board = self.board.clone();
        let any = !sample::exists(codec);
        board.decoders.retain(|one| {
            (one.software || any)
                && one.out.memory == SYSTEM
                && !one.factory.contains(&self.candidate.element)
        });
        let input = Input::any(codec, Trust::Whole);
        let Ok(plan) = plan::decoder(&board, self.machine, input) else { return Ok(None) };
        let shelf: drive::Shelf<Luma> = drive::Shelf::default();
        let onto = shelf.clone();
        let driven = drive::Driven::new(
            move |sample| {
                crate::stage::lock(&onto).extend(Luma::of(&sample));
                Ok(())
            },
            |faults, hand| graph::decode_chain(&plan, faults, hand),
        )?;
        let clip = clip.clone();
        driven.segment(self.first, move |chain| clip.feed(chain, 1))?;
        Ok(Some(drive::take(&shelf)))
    }
}

fn surprise(panicked: &(dyn std::any::Any + Send)) -> String {
    let said = panicked.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panicked.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
    format!("cannot be used as its profile says: {said}")
}

/// Pictures a second, with one digit after the point.
pub(super) fn speed(pictures: u64, time: Duration) -> f64 {
    (pictures as f64 / time.as_secs_f64().max(1e-6) * 10.0).round() / 10.0
}

/// What a proof says besides its speed.
pub(super) fn proof(speed_fps: f64) -> Proof {
    Proof { speed_fps, ..Proof::default() }
}
