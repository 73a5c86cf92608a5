//! Runs segments of one stream: bytes in, renditions out.
//!
//! ```text
//!  feeder thread                GStreamer's threads                          caller's thread
//!  input ─ demux ─ frames ────▶ decode ─ scale ─┬▶ encode 0 ─┐
//!             │                                 └▶ encode 1 ─┴─ Event::Encoded ─▶ mux ─ output
//!             └── Event::Audio ─────────────────────────────────────────────────▶
//! ```
//!
//! Each arrow is bounded, and a full one holds back what is before it: a slow reader of the output slows the
//! reading of the input. A failed segment throws all chains away, so that the next finds fresh ones.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use headwater_protocol::media::VideoFacts;
use headwater_protocol::worker::Progress;
use headwater_protocol::{
    Class, Code, Codec, Container, Evidence, Fault, FrameRate, InputFacts, Ladder, Pixels, RenditionReport,
    SegmentReport,
};

use crate::board::Board;
use crate::collect::{Collector, Watch, millis};
use crate::es::{CLOCK, Item, Rotation, Ticks};
use crate::exit::Exit;
use crate::feed::{Fed, Feeder, Shared};
use crate::fit::Size;
use crate::graph::{self, Chain, Faults, Stoppers};
use crate::leash::Leash;
use crate::log;
use crate::machine::Machine;
use crate::plan::{self, DecodePlan, Trust};
use crate::sound::Heard;
use crate::stage::{Counters, Decoded, Event, Events, Front, Setup, Stage, lock};

/// Where a segment's bytes come from.
pub trait Input: Send {
    fn next(&mut self, wait: Duration) -> Next;

    /// Whether it knows the whole stream. Else no rendition may wish for encoded sound.
    fn sees_all(&self) -> bool {
        false
    }

    /// The segment's encoded sound before `until`, or all that is left of it, and how many frames of it were lost.
    fn sound(&mut self, _until: Option<Ticks>) -> Result<(Vec<Heard>, u32), Fault> {
        Ok(Default::default())
    }
}

#[derive(Debug)]
pub enum Next {
    Bytes(Bytes),
    /// What was in a container that the caller has read. All of an input comes so, or nothing.
    Items(Vec<Item>),
    /// Nothing came within the time.
    Nothing,
    End,
}

/// The reader of the output is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Where renditions go.
pub trait Output {
    fn data(&mut self, rendition: usize, bytes: Bytes) -> Result<(), Gone>;
    fn whole(&mut self, _rendition: usize, _report: &RenditionReport) -> Result<(), Gone> {
        Ok(())
    }
    fn progress(&mut self, _progress: Progress) -> Result<(), Gone> {
        Ok(())
    }
    /// What people may want to see of the failure that is reported next.
    fn evidence(&mut self, _evidence: Evidence) -> Result<(), Gone> {
        Ok(())
    }
    /// Threads do not come back, and only the end of the process frees them. Says so and ends it.
    fn hung(&mut self, fault: Fault) -> ! {
        tracing::error!(code = %fault.code, "{}\n{}", fault.text, fault.detail);
        Exit::Hung.now()
    }
}

/// A segment may be as long as this.
pub const MAX_DURATION: Duration = Duration::from_secs(300);
/// Coded frames that wait for the muxers, over all renditions; a full queue holds the encoders back.
const EVENT_QUEUE: usize = 256;
/// How often cancel, faults and life are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// Longest time without any sign of life before a segment counts as hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// What most segments are.
const USUAL: plan::Input = plan::Input { codec: Codec::H264, trust: Trust::Lossy, coded: None };

/// 1080p30, as most input is, to warm a device up with: of another size some rungs would need another plan.
const SAMPLE: &[u8] = include_bytes!("../boards/samples/h264-1080p.ts");

/// Input that is there at once, whole.
pub(crate) struct Once(pub Option<Bytes>);

impl Input for Once {
    fn next(&mut self, _wait: Duration) -> Next {
        self.0.take().map_or(Next::End, Next::Bytes)
    }
}

/// For work of which nobody wants the result.
pub(crate) struct Nowhere;

impl Output for Nowhere {
    fn data(&mut self, _rendition: usize, _bytes: Bytes) -> Result<(), Gone> {
        Ok(())
    }
}

/// Why a segment has no report.
#[derive(Debug, Clone, PartialEq)]
pub enum Stopped {
    Failed(Fault),
    /// Nobody reads the output any more.
    Gone,
}

#[derive(Debug)]
pub struct Engine {
    setup: Arc<Setup>,
    chains: Option<Chains>,
    max_duration: Duration,
    rotation: Option<Rotation>,
}

/// A decoder's chain and its plan.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    pub plan: Arc<DecodePlan>,
    pub chain: Arc<Chain>,
}

/// All that lives from one segment to the next.
struct Chains {
    faults: Arc<Faults>,
    events: Events,
    counters: Arc<Counters>,
    stoppers: Arc<Stoppers>,
    stage: Arc<Mutex<Stage>>,
    front: Arc<Mutex<Front>>,
    decode: Mutex<Option<Decoder>>,
}

impl std::fmt::Debug for Chains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chains").finish_non_exhaustive()
    }
}

impl Chains {
    fn new(setup: &Arc<Setup>) -> Self {
        let faults = Arc::new(Faults::of(&setup.board));
        let events = Events::default();
        let counters = Arc::new(Counters::default());
        let stoppers = Arc::new(Stoppers::default());
        let stage = Arc::new(Mutex::new(Stage::new(
            Arc::clone(setup),
            Arc::clone(&faults),
            Arc::clone(&events),
            Arc::clone(&counters),
            Arc::clone(&stoppers),
        )));
        let front =
            Arc::new(Mutex::new(Front::new(Arc::clone(&stage), Arc::clone(&faults), Arc::clone(&stoppers))));
        Self { faults, events, counters, stoppers, stage, front, decode: Mutex::default() }
    }

    /// The decoder for `input`, the present one if it fits.
    fn decoder(&self, setup: &Setup, input: plan::Input) -> Result<Decoder, Fault> {
        let plan = plan::decoder(&setup.board, &setup.machine, input)?;
        let mut decode = lock(&self.decode);
        if let Some(ready) = &*decode
            && *ready.plan == plan
        {
            return Ok(ready.clone());
        }
        *decode = None;
        let chain = Arc::new(graph::decode_chain(&plan, &self.faults, Decoded(Arc::clone(&self.front)))?);
        chain.join(&self.stoppers);
        Ok(decode.insert(Decoder { plan: Arc::new(plan), chain }).clone())
    }

    /// Lets every thread go that waits in a queue.
    fn stop(&self) {
        *lock(&self.events) = None;
        self.stoppers.stop();
    }

    /// After a segment that went well: every chain is drained.
    fn recycle(&self) {
        *lock(&self.events) = None;
        let mut decode = lock(&self.decode);
        match &*decode {
            Some(ready) if ready.plan.fresh => *decode = None,
            Some(ready) => ready.chain.recycle(),
            None => {}
        }
        drop(decode);
        lock(&self.front).recycle();
        lock(&self.stage).recycle();
    }
}

impl Drop for Chains {
    fn drop(&mut self) {
        self.stop();
        // The decoder's thread calls into the others, so it ends first.
        *lock(&self.decode) = None;
    }
}

impl Engine {
    pub fn new(board: Board, machine: Machine, ladder: Ladder) -> Self {
        let setup = Arc::new(Setup { board, machine, ladder });
        Self { setup, chains: None, max_duration: MAX_DURATION, rotation: None }
    }

    /// Takes input of any length, where the caller runs a whole file at once.
    pub fn unlimited(&mut self) {
        self.max_duration = Duration::MAX;
    }

    /// Turns the pictures, where the caller knows of a rotation that the input's container cannot say.
    pub fn turned(mut self, rotation: Rotation) -> Self {
        self.rotation = Some(rotation);
        self
    }

    /// Builds the usual plan's chains and has them work once, so that the first segment finds them warm.
    /// A machine without an encoder for the ladder is told here.
    pub fn prewarm(&mut self) -> Result<(), Fault> {
        let decode = plan::decoder(&self.setup.board, &self.setup.machine, USUAL);
        match decode {
            // A device's driver, firmware and memory are paid for by a real segment only.
            Ok(decode) if decode.hardware => {
                let nobody = AtomicBool::new(false);
                let mut input = Once(Some(Bytes::from_static(SAMPLE)));
                match self.run(Container::Ts, &mut input, &mut Nowhere, &nobody) {
                    Ok(_) | Err(Stopped::Gone) => Ok(()),
                    Err(Stopped::Failed(fault)) => Err(fault),
                }
            }
            Ok(_) | Err(_) => self.prewarm_encoders(),
        }
    }

    /// Encoders take one grey picture, and the decoder of the usual codec is built.
    fn prewarm_encoders(&mut self) -> Result<(), Fault> {
        let chains = Chains::new(&self.setup);
        let rate = FrameRate::new(30, 1).map_err(|bad| Fault::new(Code::PipelineFailed, bad.to_string()))?;
        let (sender, receiver) = sync_channel(EVENT_QUEUE);
        *lock(&chains.events) = Some(sender);
        lock(&chains.stage).prewarm(Size::new(1920, 1080), rate)?;
        let deadline = Instant::now() + PATIENCE;
        let mut left = self.setup.ladder.renditions().len();
        while left > 0 {
            if let Some(fault) = chains.faults.first() {
                return Err(fault);
            }
            if Instant::now() > deadline {
                let text = "the encoders did not encode one picture in time";
                return Err(Fault::new(Code::PipelineFailed, text).with_detail(log::tail()));
            }
            if let Ok(Event::Done { .. }) = receiver.recv_timeout(TICK) {
                left -= 1;
            }
        }
        chains.recycle();
        chains.decoder(&self.setup, USUAL)?;
        self.chains = Some(chains);
        Ok(())
    }

    /// Runs one segment. `cancel` may be set at any time by another thread.
    pub fn run(
        &mut self,
        hint: Container,
        input: &mut dyn Input,
        output: &mut dyn Output,
        cancel: &AtomicBool,
    ) -> Result<SegmentReport, Stopped> {
        let started = Instant::now();
        let cpu = cpu_us();
        log::clear();
        if let Err(rule) = self.setup.ladder.alone()
            && !input.sees_all()
        {
            return Err(Stopped::Failed(Fault::new(Code::BadLadder, rule.to_string())));
        }
        // Declared before the chains, so that it outlives them.
        let mut leash = None;
        let chains = self.chains.take().unwrap_or_else(|| Chains::new(&self.setup));
        chains.counters.reset();
        let built = lock(&chains.stage).built();
        let (sender, receiver) = sync_channel(EVENT_QUEUE);
        *lock(&chains.events) = Some(sender);
        let shared = Shared::default();
        let feeder = Feeder {
            events: &chains.events,
            stage: &chains.stage,
            faults: &chains.faults,
            counters: &chains.counters,
            shared: &shared,
            cancel,
            max_duration: self.max_duration,
            rotation: self.rotation,
        };
        let watch = Watch {
            faults: &chains.faults,
            counters: &chains.counters,
            shared: &shared,
            cancel,
            stoppers: &chains.stoppers,
            patience: PATIENCE,
        };
        let mut collector = Collector::new(&self.setup.ladder, output);
        let decoder = |input| chains.decoder(&self.setup, input);
        let (end, fed) = std::thread::scope(|scope| {
            let feeding = scope.spawn(move || feeder.run(hint, input, decoder));
            let end = collector.run(&receiver, &watch);
            leash = Leash::new(PATIENCE);
            shared.give_up.store(true, Relaxed);
            if let Err(stopped) = &end {
                if is_ours(stopped) {
                    collector.evidence(&chains.stoppers);
                }
                // In this order: senders wake up by the first, the feeder and the decoder by the second.
                drop(receiver);
                chains.stop();
            }
            (end, feeding.join())
        });
        end?;
        let fed = fed.map_err(|_| {
            Stopped::Failed(Fault::new(Code::PipelineFailed, "the reader of the input panicked"))
        })?;
        chains.recycle();
        let report = SegmentReport {
            input: facts(&fed, &chains.counters, &collector),
            renditions: collector.reports.into_iter().flatten().collect(),
            wall_us: started.elapsed().as_micros() as u64,
            cpu_us: cpu_us().saturating_sub(cpu),
            warm: built > 0 && lock(&chains.stage).built() == built,
        };
        // What broke after the last frame is not the next segment's.
        self.chains = chains.faults.first().is_none().then_some(chains);
        drop(leash);
        Ok(report)
    }
}

/// Whether a look at the pipeline could tell more than the fault does.
fn is_ours(stopped: &Stopped) -> bool {
    match stopped {
        Stopped::Failed(fault) => fault.code.class() == Class::Node || fault.code == Code::Undecodable,
        Stopped::Gone => false,
    }
}

fn facts(fed: &Fed, counters: &Counters, collector: &Collector<'_>) -> InputFacts {
    let frame = fed.rate.map_or(0.0, |rate| CLOCK as f64 / rate.as_f64());
    let span = match (fed.first, fed.last) {
        (Some(first), Some(last)) => (last.0 - first.0) as f64 + frame,
        (Some(_), None) | (None, Some(_)) | (None, None) => 0.0,
    };
    let video = fed.codec.zip(collector.shown).map(|(codec, shown)| VideoFacts {
        codec,
        width: Pixels(shown.width),
        height: Pixels(shown.height),
        fps: fed.rate,
        frames: fed.frames,
        decoded: counters.decoded.load(Relaxed),
        pixels: counters.pixels.load(Relaxed),
        hdr: collector.hdr,
    });
    InputFacts {
        container: fed.container,
        bytes: fed.bytes,
        video,
        audio_streams: fed.audio_streams,
        duration: millis(span),
        errors: fed.errors + collector.lost,
    }
}

/// User and system time of this process so far.
pub(crate) fn cpu_us() -> u64 {
    // Cannot fail for the own process; a zero would only spoil a statistic.
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    usage.map_or(0, |usage| {
        (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()).unsigned_abs()
    })
}
