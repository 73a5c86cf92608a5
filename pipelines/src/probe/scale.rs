//! A scaler's proof: every picture comes out at half its size, and looks as Headwater's own scaler makes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_protocol::{Codec, Fault};

use super::drive::{Driven, Shelf, take};
use super::finding::Proof;
use super::pictures::{Luma, draw, info, psnr};
use super::prove::{Bench, proof, speed};
use super::sample;
use super::{PICTURES, SIZE, words};
use crate::board::{Properties, SYSTEM, Scaler};
use crate::es::Ticks;
use crate::fit::{Origin, Size};
use crate::graph;
use crate::plan::{self, DecodePlan, Element, raw_caps};
use crate::scale::{Canvas, Picture};
use crate::stage::lock;

/// Headwater's own scaler makes [`SIZE`] of this.
const LARGE: Size = Size::new(1920, 1080);
/// Scalers differ in how they treat fine detail; below this it is another picture, or one without filtering.
const ALIKE: f64 = 25.0;

/// Half of [`SIZE`].
const HALF: Size = Size::new(SIZE.width / 2, SIZE.height / 2);

pub(super) fn prove(bench: &Bench<'_>) -> Result<Proof, Fault> {
    match bench.candidate.from.as_deref() {
        None => own(bench.candidate.pictures()),
        Some(from) => element(bench, from),
    }
}

fn own(pictures: u64) -> Result<Proof, Fault> {
    let canvases = [Canvas::new(info(SIZE)?)];
    let source = draw(0, LARGE);
    let large = info(LARGE)?;
    let started = Instant::now();
    for number in 0..pictures {
        let mut picture = Picture::new(Ticks(number as i64), source.clone(), large.clone(), 1);
        picture.at(0, &[Origin::Decoded], &canvases)?;
    }
    Ok(proof(speed(pictures, started.elapsed())))
}

fn plain(factory: &str) -> Element {
    Element { factory: factory.to_owned(), properties: Properties::new() }
}

/// Where a scaler's pictures come from.
enum Source {
    Drawn,
    Decoded(DecodePlan, sample::Clip),
}

fn element(bench: &Bench<'_>, from: &str) -> Result<Proof, Fault> {
    let candidate = bench.candidate;
    let wrong = |text: String| words::wrong(candidate, text);
    let entry = bench.board.scalers.iter().find(|one| {
        one.factory.contains(&candidate.element)
            && one.input.iter().any(|memory| memory == from)
            && one.out.contains(&candidate.memory)
    });
    let entry = entry.ok_or_else(|| wrong("is not in the profile".to_owned()))?;
    let facts = bench.machine.usable(&candidate.element);
    let facts = facts.ok_or_else(|| wrong("is not installed".to_owned()))?;
    let properties = plan::fixed(facts, &entry.set, &entry.set_if)
        .map_err(|why| wrong(format!("cannot be used as its profile says: {why}")))?;
    let scaler = Element { factory: candidate.element.clone(), properties };
    let (source, mut line) = into(bench, entry, from)?;
    let format = entry.formats.first().map_or("NV12", String::as_str);
    line.push(scaler);
    line.push(raw_caps(bench.board.memory.get(&candidate.memory), format, Some(HALF)));
    let back = out_of(bench, &candidate.memory);
    line.extend(back.iter().flatten().cloned());
    let shelf = Shelf::default();
    let onto = Arc::clone(&shelf);
    let seen = Arc::new(std::sync::Mutex::new(0_u64));
    let counted = Arc::clone(&seen);
    let input = match source {
        Source::Drawn => Some(info(SIZE)?),
        Source::Decoded(..) => None,
    };
    // A device has few pictures to hold back, and the processor may not see into them.
    let looked_at = back.is_some() && input.is_some();
    let driven = Driven::new(
        move |sample| {
            *lock(&counted) += 1;
            if looked_at {
                lock(&onto).extend(Luma::of(&sample));
            }
            Ok(())
        },
        |faults, hand| graph::picture_chain(&line, input.as_ref(), faults, hand),
    )
    .map_err(|unready| unready.told(candidate))?;
    let ran = run(bench, &driven, source);
    let seen = *lock(&seen);
    let time = match ran {
        Err(fault) if seen == 0 => return Err(words::nothing(candidate, &fault)),
        ran => ran?,
    };
    if seen != PICTURES {
        return Err(wrong(format!("scaled {seen} of {PICTURES} pictures")));
    }
    let mut found = proof(speed(PICTURES, time));
    if looked_at {
        let ours = drawn_half()?;
        let likeness = psnr(&take(&shelf), &ours);
        tracing::debug!(element = candidate.element, likeness, "scaled");
        if likeness < ALIKE {
            return Err(wrong(format!(
                "makes another picture than Headwater's own scaler ({likeness:.1} dB)"
            )));
        }
    } else {
        found.notes.push("its pictures were counted and not looked at".to_owned());
    }
    Ok(found)
}

/// The elements that bring pictures into the scaler's memory, or the decoder that gives them there.
fn into(bench: &Bench<'_>, entry: &Scaler, from: &str) -> Result<(Source, Vec<Element>), Fault> {
    let format = entry.formats.first().map_or("NV12", String::as_str);
    let mut line = vec![plain("videoconvert"), raw_caps(None, format, None)];
    let Some(memory) = bench.board.memory.get(from) else { return Ok((Source::Drawn, line)) };
    if let Some((carrier, _)) = bench.machine.first(&memory.from_system) {
        line.push(plain(carrier));
        line.push(raw_caps(Some(memory), format, None));
        return Ok((Source::Drawn, line));
    }
    let decoders =
        bench.board.decoders.iter().filter(|one| one.codec == Codec::H264 && one.out.memory == from);
    for one in decoders {
        if let (Ok(decode), Some(clip)) =
            (plan::decode_with(bench.board, bench.machine, one), sample::clip(Codec::H264)?)
        {
            return Ok((Source::Decoded(decode, clip), Vec::new()));
        }
    }
    Err(words::wrong(
        bench.candidate,
        format!("cannot be tried: nothing here brings pictures into {from} memory"),
    ))
}

/// The elements that bring its pictures where the processor sees them; None where there are none.
fn out_of(bench: &Bench<'_>, memory: &str) -> Option<Vec<Element>> {
    let mut line = Vec::new();
    if memory != SYSTEM {
        let (carrier, _) = bench.machine.first(&bench.board.memory.get(memory)?.to_system)?;
        line.push(plain(carrier));
    }
    line.extend([plain("videoconvert"), raw_caps(None, "I420", None)]);
    Some(line)
}

fn run(bench: &Bench<'_>, driven: &Driven, source: Source) -> Result<Duration, Fault> {
    match source {
        Source::Drawn => {
            let pictures: Vec<_> = (0..PICTURES).map(|number| draw(number, SIZE)).collect();
            driven.segment(bench.first, move |chain| {
                pictures.into_iter().try_for_each(|picture| chain.push(picture))
            })
        }
        Source::Decoded(plan, clip) => {
            let into = Arc::clone(driven.chain());
            let decode = Driven::new(
                move |sample| into.push_sample(&sample),
                |faults, hand| graph::decode_chain(&plan, faults, hand),
            )?;
            let rounds = PICTURES / clip.len().max(1);
            let time = decode.segment(bench.first, move |chain| clip.feed(chain, rounds))?;
            driven.segment(bench.again, |_| Ok(())).map(|rest| time + rest)
        }
    }
}

/// What Headwater's own scaler makes of the drawn pictures.
fn drawn_half() -> Result<Vec<Luma>, Fault> {
    let canvases = [Canvas::new(info(HALF)?)];
    let (whole, half) = (info(SIZE)?, info(HALF)?);
    let mut all = Vec::new();
    for number in 0..PICTURES {
        let mut picture = Picture::new(Ticks(number as i64), draw(number, SIZE), whole.clone(), 1);
        let made = picture.at(0, &[Origin::Decoded], &canvases)?;
        all.extend(Luma::read(&made, &half));
    }
    Ok(all)
}
