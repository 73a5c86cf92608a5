//! The way of a picture from the decoder to each encoder: a search over kinds of memory for the cheapest.
//!
//! ```text
//!             ┌─ nothing: same memory, same size                                     ─┐
//! decoded ────┼─ the encoder scales                                                   ├─▶ encoder    native
//!             ├─ scaler, alone or one of several outputs [, carrier]                  │
//!             └─ carrier to system memory, GStreamer's scaler [, carrier]            ─┘
//! decoded ─ [carrier to system memory] ─ one cascade in software for all ─ [carrier] ──▶ encoder    software
//! ```
//!
//! On the native way still pictures alone come from a cascade, which sees those that are due.

use std::collections::BTreeSet;

use headwater_protocol::{Code, Codec, Fault, Ladder, Rendition};

use super::encode::{Said, Wanted, aligned, candidates, largest_first, no_encoder, say_size, threads};
use super::lacks::Lack;
use super::sessions::Taken;
use super::{DecodePlan, Element, Feed, OutputPlan, Picture, RungPlan, Way, both_fields, upright};
use crate::board::{Board, Memory, SYSTEM, Scaler, Skill};
use crate::es::Rotation;
use crate::fit::{Size, cascade, fit};
use crate::machine::{Machine, Use};
use crate::still::Grid;

/// What a step costs for each pixel that it reads or writes. Only their order matters: a pass of a device's own scaler
/// is nearly free, a copy between memories costs the processor a read and a write, and scaling in software
/// several (measured: 1.2 CPU seconds for a cascade of 500 pictures of 1080p, against 0.3 for copying them).
const DEVICE: f64 = 0.1;
const COPY: f64 = 1.0;
const SOFTWARE: f64 = 4.0;
/// GStreamer's own scaler, not in a cascade.
const PLAIN_SCALER: f64 = 8.0;
const CONVERT: f64 = 0.5;

/// A plan and what it costs per picture, in pixels that the processor would copy.
#[derive(Debug, Clone)]
pub(super) struct Costed {
    pub plan: OutputPlan,
    pub cost: f64,
    pub notes: Vec<String>,
}

/// Raw video caps as an element of the chain. `memory`: None for system memory.
pub(crate) fn raw_caps(memory: Option<&Memory>, format: &str, size: Option<Size>) -> Element {
    let feature = memory.and_then(|memory| memory.feature.as_ref());
    let feature = feature.map_or_else(String::new, |feature| format!("({feature})"));
    let size = size.map_or_else(String::new, |size| {
        format!(",width={},height={},pixel-aspect-ratio=1/1", size.width, size.height)
    });
    let caps = format!("video/x-raw{feature},format={format}{size}");
    Element::plain("capsfilter", &[("caps", caps.as_str())])
}

struct Rungs<'a> {
    board: &'a Board,
    machine: &'a Machine,
    ladder: &'a Ladder,
    picture: &'a Picture,
    fitted: Vec<Size>,
}

impl<'a> Rungs<'a> {
    fn new(board: &'a Board, machine: &'a Machine, ladder: &'a Ladder, picture: &'a Picture) -> Self {
        Self { board, machine, ladder, picture, fitted: fitted(ladder, picture) }
    }

    /// For each rendition the first encoder, best first, that has a session left and for which `route` finds a way.
    fn each<T>(
        &self,
        route: impl Fn(&mut Said<'a>) -> Result<T, String>,
    ) -> Result<Vec<(&'a Rendition, Said<'a>, T)>, Fault> {
        let mut taken = Taken::default();
        let mut all: Vec<_> = self.fitted.iter().map(|_| None).collect();
        for at in largest_first(&self.fitted) {
            let found = self.one(at, &taken, &route)?;
            taken.take(&found.1);
            all[at] = Some(found);
        }
        Ok(all.into_iter().flatten().collect())
    }

    fn one<T>(
        &self,
        at: usize,
        taken: &Taken,
        route: impl Fn(&mut Said<'a>) -> Result<T, String>,
    ) -> Result<(&'a Rendition, Said<'a>, T), Fault> {
        let (rendition, fitted) = (&self.ladder.renditions()[at], self.fitted[at]);
        let all_pixels: u64 = self.fitted.iter().map(|size| size.pixels()).sum();
        let threads = threads(self.machine.cores, fitted.pixels(), all_pixels);
        let wanted = Wanted { rendition, fitted, source_rate: self.picture.rate, threads, taken };
        let mut lacks = Vec::new();
        for (encoder, said) in candidates(self.board, self.machine, wanted) {
            let way = said.and_then(|mut said| Ok(route(&mut said).map(|way| (said, way))?));
            match way {
                Ok((said, way)) => return Ok((rendition, said, way)),
                Err(why) => lacks.push(Lack { factory: &encoder.factory, package: &encoder.package, why }),
            }
        }
        Err(no_encoder(self.board, self.machine, rendition, &lacks))
    }
}

/// The size of the picture in each rendition's box.
pub(super) fn fitted(ladder: &Ladder, picture: &Picture) -> Vec<Size> {
    let (shown, aspect) = upright(picture);
    let boxes = ladder.renditions().iter();
    boxes.map(|one| fit(shown, aspect, Size::new(one.width.0, one.height.0))).collect()
}

fn rung(rendition: &Rendition, said: Said<'_>, feed: Feed, before: Vec<Element>) -> RungPlan {
    let still = (rendition.codec == Codec::Jpeg).then(|| Grid::of(rendition.tiles));
    let size = still.map_or(said.size, |grid| grid.size(said.size));
    RungPlan {
        still,
        codec: rendition.codec,
        feed,
        before,
        hardware: !said.encoder.software,
        element: said.element,
        after: said.after,
        caps: said.caps,
        width: size.width,
        height: size.height,
        rate: said.rate,
        gate: rendition.fps,
        force_key: said.force_key,
        fresh: said.fresh,
        by_ready: said.by_ready,
        copies: said.encoder.copies,
    }
}

fn notes_of(said: &Said<'_>, rendition: &Rendition) -> Vec<String> {
    said.notes.iter().map(|note| format!("{}: {}: {note}", rendition.name, said.element.factory)).collect()
}

/// An error where pictures cannot come into system memory to be worked on.
fn way_out(board: &Board, decode: &DecodePlan) -> Result<(), String> {
    let closed = board.memory.get(&decode.memory).is_some_and(|memory| memory.feature.is_some());
    if closed && decode.download.is_empty() {
        return Err(format!("nothing here carries pictures out of {} memory", decode.memory));
    }
    Ok(())
}

/// Largest first.
fn distinct(sizes: impl Iterator<Item = Size>) -> Vec<Size> {
    let mut sizes: Vec<Size> = sizes.collect();
    sizes.sort_unstable_by_key(|size| (std::cmp::Reverse(size.pixels()), *size));
    sizes.dedup();
    sizes
}

/// Everything in system memory, scaled in one cascade.
pub(super) fn software(
    board: &Board,
    machine: &Machine,
    ladder: &Ladder,
    decode: &DecodePlan,
    picture: &Picture,
) -> Result<Costed, Fault> {
    way_out(board, decode).map_err(|text| Fault::new(Code::NoDecoder, text))?;
    let rungs = Rungs::new(board, machine, ladder, picture);
    let said = rungs.each(|said| into_encoder(board, machine, said))?;
    let sizes = distinct(said.iter().map(|(_, said, _)| said.size));
    // A picture with odd sides loses its last column or row, so it is scaled even to its own size.
    let (shown, _) = upright(picture);
    let origins = cascade(shown, &sizes);
    let mut cost = sizes.iter().map(|size| size.pixels() as f64 * SOFTWARE).sum::<f64>();
    if decode.memory != SYSTEM {
        cost += picture.coded.pixels() as f64 * COPY;
    }
    if picture.format != "I420" {
        cost += picture.coded.pixels() as f64 * CONVERT;
    }
    let mut notes = Vec::new();
    let mut planned = Vec::new();
    for (rendition, said, (before, carried)) in said {
        cost += carried;
        notes.extend(notes_of(&said, rendition));
        let at = sizes.iter().position(|other| *other == said.size).unwrap_or_default();
        planned.push(rung(rendition, said, Feed::Canvas(at), before));
    }
    let plan = OutputPlan { way: Way::Software, sizes, origins, splits: Vec::new(), rungs: planned };
    Ok(Costed { plan, cost, notes })
}

/// From a canvas, which is I420 in system memory, into an encoder.
fn into_encoder(
    board: &Board,
    machine: &Machine,
    said: &mut Said<'_>,
) -> Result<(Vec<Element>, f64), String> {
    let input = &said.encoder.input;
    let pixels = said.size.pixels() as f64;
    let mut before = Vec::new();
    let mut cost = 0.0;
    let format = input.formats.iter().find(|format| *format == "I420").or_else(|| input.formats.first());
    let format = format.ok_or("its profile names no pixel format")?;
    if format != "I420" {
        before.push(Element::plain("videoconvert", &[]));
        before.push(raw_caps(None, format, None));
        cost += pixels * CONVERT;
    }
    if let Some(memory) = board.memory.get(&input.memory) {
        let (carrier, _) = machine
            .first(&memory.from_system)
            .ok_or_else(|| format!("nothing here carries pictures into its memory, {}", input.memory))?;
        before.push(Element::plain(carrier, &[]));
        before.push(raw_caps(Some(memory), format, None));
        cost += pixels * COPY;
    }
    Ok((before, cost))
}

/// One way of one rung.
#[derive(Debug, Clone)]
struct Path {
    before: Vec<Element>,
    cost: f64,
    /// The scaler, by its place in the profile, where its pass can be shared.
    shared: Option<usize>,
}

/// Every rung from the decoded picture by itself.
pub(super) fn native(
    board: &Board,
    machine: &Machine,
    ladder: &Ladder,
    decode: &DecodePlan,
    picture: &Picture,
) -> Result<Costed, String> {
    if picture.mapped {
        return Err("its colours are mapped in software".into());
    }
    let is_still = |rendition: &Rendition| rendition.codec == Codec::Jpeg;
    if ladder.renditions().iter().all(is_still) {
        return Err("there are only still pictures, which are put together in software".into());
    }
    if ladder.renditions().iter().any(is_still) {
        way_out(board, decode)?;
    }
    if picture.interlaced && !decode.deinterlaces && both_fields(ladder, picture.rate) {
        return Err("a picture of each field is made in software".into());
    }
    if decode.memory == SYSTEM && board.scalers.iter().all(|scaler| !scaler.input.contains(&decode.memory)) {
        return Err("pictures are in system memory and no scaler of this board takes them there".into());
    }
    let rungs = Rungs::new(board, machine, ladder, picture);
    let search = Search { board, machine, decode, picture };
    let ways = |said: &mut Said<'_>| {
        if said.encoder.codec != Codec::Jpeg {
            return search.ways(said);
        }
        // Few pictures become still ones: what they cost does not count.
        let (before, _) = into_encoder(board, machine, said)?;
        Ok(vec![Path { before, cost: 0.0, shared: None }])
    };
    let said = rungs.each(ways).map_err(|fault| format!("{fault}\n{}", fault.detail))?;
    let shared = choose_shared(&said, picture, board);
    let stills = said.iter().filter(|(rendition, ..)| is_still(rendition));
    let sizes = distinct(stills.map(|(_, said, _)| said.size));
    let mut plan = OutputPlan {
        way: Way::Native,
        origins: cascade(upright(picture).0, &sizes),
        sizes,
        splits: Vec::new(),
        rungs: Vec::new(),
    };
    let mut places: Vec<usize> = Vec::new();
    let mut cost = 0.0;
    let mut notes = Vec::new();
    for (rendition, mut said, ways) in said {
        notes.extend(notes_of(&said, rendition));
        let Some(way) = cheapest(&ways, &shared) else { continue };
        cost += way.cost;
        let mut before = way.before.clone();
        let feed = match way.shared {
            // The scaler itself stands once, in front of all that share it.
            Some(scaler) if shared.contains(&scaler) => {
                let element = before.remove(0);
                let at = places.iter().position(|place| *place == scaler).unwrap_or_else(|| {
                    places.push(scaler);
                    plan.splits.push(element);
                    cost += picture.coded.pixels() as f64 * DEVICE;
                    places.len() - 1
                });
                Feed::Split(at)
            }
            Some(_) | None if is_still(rendition) => {
                Feed::Canvas(plan.sizes.iter().position(|size| *size == said.size).unwrap_or_default())
            }
            Some(_) | None => Feed::Decoded,
        };
        if before.is_empty() && feed == Feed::Decoded && said.size != upright(picture).0 {
            // The way without any element is the encoder's own scaling.
            say_size(&mut said);
        }
        plan.rungs.push(rung(rendition, said, feed, before));
    }
    for (at, scaler) in places.into_iter().enumerate() {
        let Some(property) = &board.scalers[scaler].outputs_prop else { continue };
        let count = plan.rungs.iter().filter(|rung| rung.feed == Feed::Split(at)).count();
        plan.splits[at].properties.insert(property.clone(), count.to_string());
    }
    Ok(Costed { plan, cost, notes })
}

fn cheapest<'w>(ways: &'w [Path], shared: &BTreeSet<usize>) -> Option<&'w Path> {
    let allowed = ways.iter().filter(|way| way.shared.is_none_or(|scaler| shared.contains(&scaler)));
    allowed.min_by(|a, b| a.cost.total_cmp(&b.cost))
}

/// The scalers with several outputs whose one pass is worth it: of all sets of them the cheapest.
fn choose_shared(
    said: &[(&Rendition, Said<'_>, Vec<Path>)],
    picture: &Picture,
    board: &Board,
) -> BTreeSet<usize> {
    let all: BTreeSet<usize> =
        said.iter().flat_map(|(_, _, ways)| ways).filter_map(|way| way.shared).collect();
    let all: Vec<usize> = all.into_iter().take(8).collect();
    let sets = (0_u32..1 << all.len()).map(|bits| {
        let chosen =
            all.iter().enumerate().filter(|(at, _)| bits & (1 << at) != 0).map(|(_, scaler)| *scaler);
        chosen.collect::<BTreeSet<usize>>()
    });
    let cost = |set: &BTreeSet<usize>| -> f64 {
        let mut total = set.len() as f64 * picture.coded.pixels() as f64 * DEVICE;
        let mut used = vec![0_u32; board.scalers.len()];
        for (_, _, ways) in said {
            match cheapest(ways, set) {
                Some(way) => {
                    total += way.cost;
                    if let Some(scaler) = way.shared {
                        used[scaler] += 1;
                    }
                }
                None => return f64::INFINITY,
            }
        }
        // More rungs than it has outputs cannot share it.
        let over = set.iter().any(|scaler| used[*scaler] > board.scalers[*scaler].outputs);
        if over { f64::INFINITY } else { total }
    };
    sets.min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or_default()
}

struct Search<'a> {
    board: &'a Board,
    machine: &'a Machine,
    decode: &'a DecodePlan,
    picture: &'a Picture,
}

impl Search<'_> {
    /// All ways from the decoded picture into this encoder, at least one.
    fn ways(&self, said: &mut Said<'_>) -> Result<Vec<Path>, String> {
        let from = self.decode.memory.as_str();
        let to = said.encoder.input.memory.as_str();
        let (shown, _) = upright(self.picture);
        let square = self.picture.aspect.0 == self.picture.aspect.1;
        let skills = self.skills();
        let same_size = shown == said.size && square;
        let mut ways = Vec::new();
        let fits = said.encoder.input.formats.contains(&self.picture.format);
        if from == to && fits && skills.is_empty() {
            if same_size {
                ways.push(Path { before: Vec::new(), cost: 0.0, shared: None });
            } else if square && say_size(&mut said.clone()) {
                let cost = said.size.pixels() as f64 * DEVICE;
                ways.push(Path { before: Vec::new(), cost, shared: None });
            }
        }
        for (at, scaler) in self.board.scalers.iter().enumerate() {
            if let Some(way) = self.by_scaler(at, scaler, said, &skills) {
                ways.extend(way);
            }
        }
        if skills.is_empty() && (from == SYSTEM || !self.decode.download.is_empty()) {
            ways.extend(self.by_plain_scaler(said));
        }
        if ways.is_empty() {
            Err(format!("there is no way from {from} memory to {to} memory"))
        } else {
            Ok(ways)
        }
    }

    /// What has to be done to the picture besides scaling.
    fn skills(&self) -> Vec<Skill> {
        let turned = (self.picture.rotation != Rotation::None).then_some(Skill::Rotate);
        let woven = (self.picture.interlaced && !self.decode.deinterlaces).then_some(Skill::Deinterlace);
        turned.into_iter().chain(woven).collect()
    }

    fn by_scaler(&self, at: usize, scaler: &Scaler, said: &Said<'_>, skills: &[Skill]) -> Option<Vec<Path>> {
        let input = &said.encoder.input;
        let to = if scaler.out.contains(&input.memory) { &input.memory } else { SYSTEM };
        let used = Use::Scale { from: &self.decode.memory, to };
        let (factory, facts) = self.machine.first_for(&scaler.factory, used)?;
        let (shown, _) = upright(self.picture);
        let read = self.picture.coded.pixels() as f64;
        let written = said.size.pixels() as f64;
        let factor = f64::max(
            f64::from(shown.width) / f64::from(said.size.width.max(1)),
            f64::from(shown.height) / f64::from(said.size.height.max(1)),
        );
        let able = skills.iter().all(|skill| scaler.can.contains(skill))
            && (shown == said.size || scaler.can.contains(&Skill::Scale))
            && factor <= scaler.max_downscale
            && scaler.input.contains(&self.decode.memory)
            && scaler.formats.contains(&self.picture.format)
            && [self.picture.coded, said.size].iter().all(|&size| aligned(size, scaler.size) == Some(size));
        if !able {
            return None;
        }
        let mut properties = super::encode::fixed(facts, &scaler.set, &scaler.set_if).ok()?;
        if self.picture.rotation != Rotation::None {
            let rotate = scaler.rotate.as_ref()?;
            properties
                .insert(rotate.prop.clone(), rotate.values.get(degrees(self.picture.rotation))?.clone());
        }
        let format = input.formats.iter().find(|format| scaler.formats.contains(*format))?;
        if *format != self.picture.format && !scaler.can.contains(&Skill::Convert) {
            return None;
        }
        let element = Element { factory: factory.to_owned(), properties };
        let target = self.board.memory.get(&input.memory);
        let (mut before, mut cost) = if scaler.out.contains(&input.memory) {
            (vec![element, raw_caps(target, format, Some(said.size))], written * DEVICE)
        } else {
            // Through system memory, into the encoder's.
            let (carrier, _) = self.machine.first(&target?.from_system)?;
            if !scaler.out.iter().any(|memory| memory == SYSTEM) {
                return None;
            }
            let caps = raw_caps(None, format, Some(said.size));
            let carried = raw_caps(target, format, None);
            (vec![element, caps, Element::plain(carrier, &[]), carried], written * (DEVICE + COPY))
        };
        if input.memory == SYSTEM && self.decode.memory != SYSTEM {
            cost += written * COPY;
        }
        let alone = Path { before: before.clone(), cost: cost + read * DEVICE, shared: None };
        // Frames that are dropped or doubled for one rung cannot come out of a pass made for several.
        if scaler.outputs < 2 || said.gated {
            return Some(vec![alone]);
        }
        // Its own input is counted once for all that share it.
        Some(vec![alone, Path { before: std::mem::take(&mut before), cost, shared: Some(at) }])
    }

    fn by_plain_scaler(&self, said: &Said<'_>) -> Option<Path> {
        let input = &said.encoder.input;
        let format = input.formats.first()?;
        let mut before = self.decode.download.clone();
        before.push(Element::plain("videoconvert", &[]));
        before.push(Element::plain("videoscale", &[]));
        before.push(raw_caps(None, format, Some(said.size)));
        let written = said.size.pixels() as f64;
        let mut cost = written * PLAIN_SCALER;
        if self.decode.memory != SYSTEM {
            cost += self.picture.coded.pixels() as f64 * COPY;
        }
        if let Some(memory) = self.board.memory.get(&input.memory) {
            let (carrier, _) = self.machine.first(&memory.from_system)?;
            before.push(Element::plain(carrier, &[]));
            before.push(raw_caps(Some(memory), format, None));
            cost += written * COPY;
        }
        Some(Path { before, cost, shared: None })
    }
}

fn degrees(rotation: Rotation) -> &'static str {
    match rotation {
        Rotation::None => "0",
        Rotation::Clockwise90 => "90",
        Rotation::Half => "180",
        Rotation::Clockwise270 => "270",
    }
}
