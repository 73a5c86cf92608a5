//! A decoder's proof: every picture comes out, and the right one; twice; and a damaged stream does not hang it.

use std::sync::{Arc, Mutex};

use gstreamer_video as gst_video;
use headwater_protocol::{CapabilityKind, Codec, Fault};

use super::candidate::{Candidate, candidates};
use super::drive::{Driven, Shelf, Unready, take};
use super::finding::Proof;
use super::instances::{AtOnce, known};
use super::pictures::{Luma, psnr};
use super::prove::{ALIKE, Bench, proof, speed};
use super::sample::{self, Clip};
use super::{SIZE, SOFTWARE_FEW, encode, words};
use crate::board::{Board, Decoder, LossyInput, SYSTEM};
use crate::es::Rotation;
use crate::graph;
use crate::plan::{self, DecodePlan};
use crate::stage::lock;

/// Pictures of a clip that is encoded here: a second of them, as samples have.
const DRAWN: u64 = 30;

/// What came out, without holding a picture: a decoder has few.
#[derive(Debug, Default)]
struct Count {
    pictures: u64,
    size: Option<(u32, u32)>,
}

pub(super) fn prove(bench: &Bench<'_>) -> Result<(Proof, Option<AtOnce>), Fault> {
    let candidate = bench.candidate;
    let Some(codec) = candidate.codec else { return Err(words::no_sample(candidate)) };
    let sample = sample::clip(codec)?;
    let drawn = sample.is_none();
    let clip = match sample {
        Some(clip) => clip.first(candidate.pictures()),
        None => by_encoder(bench, codec)?,
    };
    let (entry, plan) = plan(bench, codec)?;
    let rounds = candidate.pictures().div_ceil(clip.len().max(1));
    let (driven, count) = counting(&plan).map_err(|unready| unready.told(candidate))?;
    let fed = clip.clone();
    let ran = driven.segment(bench.first, move |chain| fed.feed(chain, rounds));
    let time = judge(bench, ran, &std::mem::take(&mut *lock(&count)), rounds * clip.len())?;
    let mut found = proof(speed(rounds * clip.len(), time));
    let short = if candidate.software { clip.clone().first(SOFTWARE_FEW) } else { clip.clone() };
    again(bench, &plan, &driven, &count, &short, &mut found)?;
    drop(driven);
    // Software could only be compared with other software; its encoders' pictures are looked at through it.
    if !candidate.software {
        compare(bench, &plan, &clip, drawn, &mut found)?;
    }
    if entry.lossy_input == LossyInput::Ok {
        // Software does not hang.
        if !candidate.software {
            damaged(bench, &plan, &clip)?;
        }
    } else {
        found.notes.push("not tried with a damaged stream, which can hang it".to_owned());
    }
    found.limit = known(entry.max_instances);
    let at_once = (!candidate.software).then(|| at_once(bench, &entry, plan, clip));
    Ok((found, at_once))
}

/// What the board's encoder of the codec makes of drawn pictures, where there is no sample.
fn by_encoder(bench: &Bench<'_>, codec: Codec) -> Result<Clip, Fault> {
    let mut last = words::no_sample(bench.candidate);
    let all = candidates(bench.board, bench.machine).into_iter();
    let is_here = |one: &Candidate| bench.machine.elements.contains_key(&one.element);
    let encodes = |one: &Candidate| one.kind == CapabilityKind::Encode && one.codec == Some(codec);
    for encoder in all.filter(|one| encodes(one) && is_here(one)) {
        match encode::drawn(&Bench { candidate: &encoder, ..*bench }, codec, DRAWN) {
            Ok(clip) => return Ok(clip),
            Err(fault) => {
                let Fault { code, text, detail } = fault;
                last = words::no_sample(bench.candidate).with_detail(format!("{text}\n{detail}"));
                last.code = code;
            }
        }
    }
    Err(last)
}

/// The profile's entry, with no other name for it, and its plan.
fn plan(bench: &Bench<'_>, codec: Codec) -> Result<(Decoder, DecodePlan), Fault> {
    let candidate = bench.candidate;
    let entry = bench.board.decoders.iter().find(|one| {
        one.codec == codec && one.out.memory == candidate.memory && one.factory.contains(&candidate.element)
    });
    let mut entry = entry.cloned().ok_or_else(|| words::wrong(candidate, "is not in the profile"))?;
    entry.factory = vec![candidate.element.clone()];
    let board = Board { decoders: vec![entry.clone()], ..bench.board.clone() };
    let plan = plan::decode_with(&board, bench.machine, &entry)
        .map_err(|why| words::wrong(candidate, format!("cannot be used as its profile says: {why}")))?;
    Ok((entry, plan))
}

fn counting(plan: &DecodePlan) -> Result<(Driven, Arc<Mutex<Count>>), Unready> {
    let count = Arc::new(Mutex::new(Count::default()));
    let counted = Arc::clone(&count);
    let driven = Driven::new(
        move |sample| {
            let mut count = lock(&counted);
            count.pictures += 1;
            let info = sample.caps().and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
            count.size = info.map(|info| (info.width(), info.height()));
            Ok(())
        },
        |faults, hand| graph::decode_chain(plan, faults, hand),
    )?;
    Ok((driven, count))
}

fn judge<T>(bench: &Bench<'_>, ran: Result<T, Fault>, count: &Count, want: u64) -> Result<T, Fault> {
    let candidate = bench.candidate;
    let done = match ran {
        Err(fault) if count.pictures == 0 => return Err(words::nothing(candidate, &fault)),
        Err(fault) => return Err(fault),
        Ok(_) if count.pictures == 0 => {
            return Err(words::nothing(candidate, &words::wrong(candidate, "gave none back")));
        }
        Ok(done) => done,
    };
    if count.pictures != want {
        return Err(words::wrong(candidate, format!("decoded {} of {want} frames", count.pictures)));
    }
    if count.size != Some((SIZE.width, SIZE.height)) {
        let (width, height) = count.size.unwrap_or_default();
        let (w, h) = (SIZE.width, SIZE.height);
        return Err(words::wrong(candidate, format!("gave pictures of {width}x{height}, not {w}x{h}")));
    }
    Ok(done)
}

/// A second segment in the same chain, as a worker does it; where that fails, in a new one.
fn again(
    bench: &Bench<'_>,
    plan: &DecodePlan,
    driven: &Driven,
    count: &Arc<Mutex<Count>>,
    clip: &Clip,
    found: &mut Proof,
) -> Result<(), Fault> {
    let run = |driven: &Driven, count: &Arc<Mutex<Count>>, recycle: bool| {
        let fed = clip.clone();
        let ran = driven.segment(bench.again, move |chain| {
            // In the feeder's thread, for a flush may hang too.
            if recycle {
                chain.recycle();
            }
            fed.feed(chain, 1)
        });
        judge(bench, ran, &std::mem::take(&mut *lock(count)), clip.len())
    };
    if !plan.fresh {
        match run(driven, count, true) {
            Ok(_) => return Ok(()),
            Err(fault) if bench.candidate.software => return Err(second(bench, &fault)),
            Err(fault) => {
                found.fresh = true;
                found.notes.push(format!("needs a fresh decoder per segment: {}", fault.text));
            }
        }
    }
    let (driven, count) = counting(plan)?;
    run(&driven, &count, false).map(drop).map_err(|fault| second(bench, &fault))
}

fn second(bench: &Bench<'_>, fault: &Fault) -> Fault {
    let text = format!("did not get through a second segment: {}", fault.text);
    words::wrong(bench.candidate, text).with_detail(fault.detail.clone())
}

/// Its pictures against those of a software decoder, where the processor can see them.
/// `drawn`: it was made of drawn pictures, and these are what it is compared with.
fn compare(
    bench: &Bench<'_>,
    plan: &DecodePlan,
    clip: &Clip,
    drawn: bool,
    found: &mut Proof,
) -> Result<(), Fault> {
    if plan.memory != SYSTEM && plan.download.is_empty() {
        found
            .notes
            .push("its pictures cannot be brought to system memory, so they were not looked at".into());
        return Ok(());
    }
    let reference = if drawn {
        Some((0..clip.len()).map(|number| Luma::drawn(number, SIZE)).collect())
    } else {
        bench.reference(clip)?
    };
    let Some(reference) = reference else {
        found.notes.push("no software decoder is here to compare its pictures with".into());
        return Ok(());
    };
    let shelf = Shelf::default();
    let onto = Arc::clone(&shelf);
    let prepare = Driven::new(
        move |sample| {
            lock(&onto).extend(Luma::of(&sample));
            Ok(())
        },
        |faults, hand| {
            let format = gst_video::VideoFormat::I420;
            graph::prepare_chain(&plan.download, Rotation::None, format, false, faults, hand)
        },
    )?;
    let into = Arc::clone(prepare.chain());
    let decode = Driven::new(
        move |sample| into.push_sample(&sample),
        |faults, hand| graph::decode_chain(plan, faults, hand),
    )?;
    let fed = clip.clone();
    decode.segment(bench.again, move |chain| fed.feed(chain, 1))?;
    prepare.segment(bench.again, |_| Ok(()))?;
    let likeness = psnr(&take(&shelf), &reference);
    if likeness < ALIKE {
        let whose = if drawn { "those that were encoded" } else { "a software decoder" };
        let text = format!("gave other pictures than {whose} ({likeness:.1} dB)");
        return Err(words::wrong(bench.candidate, text));
    }
    Ok(())
}

/// Half a frame and a lost one: it may complain, but must come to its end.
fn damaged(bench: &Bench<'_>, plan: &DecodePlan, clip: &Clip) -> Result<(), Fault> {
    let (driven, _) = counting(plan)?;
    let fed = clip.damaged();
    match driven.segment(bench.again, move |chain| fed.feed(chain, 1)) {
        Err(fault) if fault.code == headwater_protocol::Code::WorkerHung => {
            let text = "hangs on a damaged stream; its profile should say lossy_input = \"avoid\"";
            Err(words::wrong(bench.candidate, text).with_detail(fault.detail))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn at_once(bench: &Bench<'_>, entry: &Decoder, plan: DecodePlan, clip: Clip) -> AtOnce {
    let pictures = clip.len();
    AtOnce {
        build: Box::new(move || {
            Ok(Driven::new(|_| Ok(()), |faults, hand| graph::decode_chain(&plan, faults, hand))?)
        }),
        feed: Arc::new(move |chain| clip.feed(chain, 1)),
        pictures,
        limit: known(entry.max_instances),
        patience: bench.again.still,
        until: bench.again.until,
    }
}
