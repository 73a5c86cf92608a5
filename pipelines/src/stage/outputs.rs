//! The encoders of a plan, and how a picture comes into each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use gstreamer as gst;
use gstreamer_video as gst_video;

use headwater_protocol::{Code, Fault, FrameRate};

use super::encoded::Encoded;
use super::event::{Origo, lock};
use super::{Failed, Stage};
use crate::es::Ticks;
use crate::fit::{Gate, Origin, Size};
use crate::graph::{self, Chain};
use crate::plan::{Feed, OutputPlan, RungPlan};
use crate::scale::{Canvas, Picture, own};
use crate::still::Sheet;

pub(super) struct Rung {
    pub plan: RungPlan,
    /// Index into [`Outputs::chains`]; rungs behind one scaler share theirs.
    pub chain: usize,
    /// Times of pictures in the encoder, oldest first. Encoders here never reorder.
    pub inside: Arc<Mutex<VecDeque<Ticks>>>,
    pub gate: Option<Gate>,
    /// For stills.
    pub sheet: Option<Sheet>,
}

impl Rung {
    pub(super) fn sheet(
        &self,
        chain: &Chain,
        (time, mut sheet): (Ticks, gst::Buffer),
        origo: Origo,
    ) -> Result<(), Failed> {
        own(&mut sheet)?.set_pts(origo.nanoseconds(time));
        lock(&self.inside).push_back(time);
        Ok(chain.push(sheet)?)
    }
}

pub(super) struct Outputs {
    pub plan: OutputPlan,
    pub colour: String,
    pub canvases: Vec<Canvas>,
    pub chains: Vec<Chain>,
    pub rungs: Vec<Rung>,
}

impl Outputs {
    /// The encoders can do the plan's work. Where a size is scaled from follows each picture, so it does not count.
    pub(super) fn serves(&self, plan: &OutputPlan, colour: &str) -> bool {
        let OutputPlan { way, sizes, origins: _, splits, rungs } = plan;
        self.colour == colour
            && self.plan.way == *way
            && self.plan.sizes == *sizes
            && self.plan.splits == *splits
            && self.plan.rungs == *rungs
    }
}

impl Stage {
    /// Builds what the plan says.
    pub(super) fn build(
        &self,
        plan: OutputPlan,
        colour: String,
        info: &gst_video::VideoInfo,
    ) -> Result<Outputs, Fault> {
        let shape = |size: Size, rate: FrameRate| {
            gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, size.width, size.height)
                .fps(gst::Fraction::new(rate.num() as i32, rate.den() as i32))
                .par(gst::Fraction::new(1, 1))
                .colorimetry(&info.colorimetry())
                .build()
                .map_err(|error| Fault::new(Code::PipelineFailed, error.to_string()))
        };
        let any_rate =
            FrameRate::new(30, 1).map_err(|bad| Fault::new(Code::PipelineFailed, bad.to_string()))?;
        let canvases = plan
            .sizes
            .iter()
            .map(|&size| shape(size, any_rate).map(Canvas::new))
            .collect::<Result<Vec<_>, Fault>>()?;
        let mut chains = Vec::new();
        let mut rungs = Vec::new();
        let mut behind: Vec<Vec<(&RungPlan, Encoded)>> = plan.splits.iter().map(|_| Vec::new()).collect();
        for (at, rung) in plan.rungs.iter().enumerate() {
            let inside = Arc::new(Mutex::new(VecDeque::new()));
            let taker = Encoded {
                rung: at,
                inside: Arc::clone(&inside),
                offset: None,
                events: Arc::clone(&self.events),
                counters: Arc::clone(&self.counters),
                faults: Arc::clone(&self.faults),
            };
            let input = match rung.feed {
                Feed::Canvas(_) => Some(shape(Size::new(rung.width, rung.height), rung.rate)?),
                Feed::Decoded | Feed::Split(_) => None,
            };
            let (sheet, input) = match (rung.still, rung.feed, input) {
                (Some(grid), Feed::Canvas(at), Some(input)) => {
                    let sheet = Sheet::new(grid, plan.sizes[at], input)?;
                    let input = sheet.coded().clone();
                    (Some(sheet), Some(input))
                }
                (_, _, input) => (None, input),
            };
            // Chains of splits come after all others, in their order.
            let chain = match rung.feed {
                Feed::Canvas(_) | Feed::Decoded => {
                    let slabs = match rung.feed {
                        Feed::Canvas(at) => Some(canvases[at].slabs()),
                        Feed::Decoded | Feed::Split(_) => None,
                    };
                    chains.push(graph::encode_chain(rung, input.as_ref(), slabs, &self.faults, taker)?);
                    chains.len() - 1
                }
                Feed::Split(split) => {
                    behind[split].push((rung, taker));
                    usize::MAX
                }
            };
            rungs.push(Rung { plan: rung.clone(), chain, inside, gate: None, sheet });
        }
        let first = chains.len();
        for (scaler, behind) in plan.splits.iter().zip(behind) {
            chains.push(graph::split_chain(scaler, behind, &self.faults)?);
        }
        for rung in &mut rungs {
            if let Feed::Split(split) = rung.plan.feed {
                rung.chain = first + split;
            }
        }
        for chain in &chains {
            chain.join(&self.stoppers);
        }
        Ok(Outputs { plan, colour, canvases, chains, rungs })
    }
}

/// Puts `picture` where it is due on a sheet, and pushes sheets that are full.
pub(super) fn still(
    rung: &mut Rung,
    chain: &Chain,
    picture: &mut Picture,
    origo: Origo,
    origins: &[Origin],
    canvases: &[Canvas],
) -> Result<(), Failed> {
    while let Some(due) = rung.sheet.as_mut().and_then(|sheet| sheet.due(picture.time)) {
        let tile = wanted(rung, picture, origins, canvases)?;
        let Some(sheet) = &mut rung.sheet else { return Ok(()) };
        if let Some(full) = sheet.put(due, &tile)? {
            rung.sheet(chain, full, origo)?;
        }
    }
    Ok(())
}

/// The picture as the rung's chain takes it.
pub(super) fn wanted(
    rung: &Rung,
    picture: &mut Picture,
    origins: &[Origin],
    canvases: &[Canvas],
) -> Result<gst::Buffer, Fault> {
    match rung.plan.feed {
        Feed::Canvas(at) => picture.at(at, origins, canvases),
        Feed::Decoded | Feed::Split(_) => Ok(picture.whole()),
    }
}

/// `caps`: where pictures come as the decoder gives them, theirs.
pub(super) fn push(
    chain: &Chain,
    buffer: gst::Buffer,
    caps: Option<&gst::Caps>,
) -> Result<(), gst::FlowError> {
    match caps {
        None => chain.push(buffer),
        Some(caps) => chain.push_sample(&gst::Sample::builder().buffer(&buffer).caps(caps).build()),
    }
}

/// Pushes a picture as it is shown at another time than its own.
pub(super) fn show(
    rung: &Rung,
    chain: &Chain,
    picture: &gst::Buffer,
    caps: Option<&gst::Caps>,
    time: Ticks,
    origo: Origo,
) -> Result<(), Failed> {
    let mut again = picture.copy();
    if let Some(again) = again.get_mut() {
        again.set_pts(origo.nanoseconds(time));
    }
    lock(&rung.inside).push_back(time);
    push(chain, again, caps)?;
    Ok(())
}
