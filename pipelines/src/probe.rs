//! `probe`: what this machine can do, each candidate proved by working in front of our eyes.
//!
//! A registry lists elements whose hardware is not there, and drivers hang; so each candidate runs in a child process
//! of its own, with a deadline, one after the other so that each has the machine to itself.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_video as gst_video;

use headwater_protocol::media::Unproved;
use headwater_protocol::{
    Audio, BitsPerSecond, Capability, CapabilityKind, Code, Codec, Container, Fault, FrameRate, Gop, Ladder,
    Pixels, ProbeReport, Profile, Rate, Rendition, RenditionName,
};

use crate::board::{Board, SYSTEM};
use crate::demux::Demuxer;
use crate::es::{CLOCK, Frame, Item, Rotation, Ticks};
use crate::fit::{Origin, Size};
use crate::graph::{self, Chain, Faults, Taker};
use crate::log;
use crate::machine::Machine;
use crate::plan::{self, DecodePlan, Trust};
use crate::scale::{Canvas, Picture};
use crate::stage::lock;

/// A candidate gets so long, dlopen and driver included, then it is killed.
const DEADLINE: Duration = Duration::from_secs(30);
/// Pictures a candidate must get through.
const PICTURES: u64 = 60;
const SIZE: Size = Size::new(1280, 720);
/// Scaled from here to [`SIZE`].
const LARGE: Size = Size::new(1920, 1080);

const H264_SAMPLE: &[u8] = include_bytes!("../boards/samples/h264.ts");
const HEVC_SAMPLE: &[u8] = include_bytes!("../boards/samples/hevc.ts");
const AV1_SAMPLE: &[u8] = include_bytes!("../boards/samples/av1.mp4");
const VP9_SAMPLE: &[u8] = include_bytes!("../boards/samples/vp9.webm");
const VP8_SAMPLE: &[u8] = include_bytes!("../boards/samples/vp8.webm");

/// One thing to be proved.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    kind: CapabilityKind,
    codec: Option<Codec>,
    element: String,
    /// Where its pictures are.
    memory: String,
    /// Brings the element where it is missing.
    package: String,
}

/// Headwater's own scaler, in every worker.
const OWN_SCALER: &str = "libyuv";

fn candidates(board: &Board, machine: &Machine) -> Vec<Candidate> {
    // The one of the names that is here, or the first.
    let name = |factories: &[String]| {
        let here = machine.first(factories).map(|(name, _)| name.to_owned());
        here.or_else(|| factories.first().cloned()).unwrap_or_default()
    };
    let decoders = board.decoders.iter().map(|decoder| Candidate {
        kind: CapabilityKind::Decode,
        codec: Some(decoder.codec),
        element: name(&decoder.factory),
        memory: decoder.out.memory.clone(),
        package: decoder.package.clone(),
    });
    let scaler = Candidate {
        kind: CapabilityKind::Scale,
        codec: None,
        element: OWN_SCALER.to_owned(),
        memory: SYSTEM.to_owned(),
        package: "libyuv0".to_owned(),
    };
    let encoders = board.encoders.iter().map(|encoder| Candidate {
        kind: CapabilityKind::Encode,
        codec: Some(encoder.codec),
        element: name(&encoder.factory),
        memory: encoder.input.memory.clone(),
        package: encoder.package.clone(),
    });
    decoders.chain([scaler]).chain(encoders).collect()
}

/// Proves every candidate of the board's profile, each in a child process.
pub fn probe(board: &Board, machine: &Machine) -> ProbeReport {
    let mut report = ProbeReport {
        worker_version: env!("CARGO_PKG_VERSION").to_owned(),
        gstreamer_version: gst::version_string().to_string(),
        profile: board.id.clone(),
        capabilities: Vec::new(),
        unproved: Vec::new(),
    };
    for (number, candidate) in candidates(board, machine).into_iter().enumerate() {
        let proved = match candidate.kind {
            CapabilityKind::Decode | CapabilityKind::Encode
                if machine.usable(&candidate.element).is_none() =>
            {
                Err(missing(&candidate))
            }
            CapabilityKind::Decode | CapabilityKind::Scale | CapabilityKind::Encode => {
                in_child(number, &candidate)
            }
        };
        match proved {
            Ok(capability) => report.capabilities.push(capability),
            Err(fault) => report.unproved.push(Unproved { element: candidate.element, fault }),
        }
    }
    report
}

fn missing(candidate: &Candidate) -> Fault {
    let code = match candidate.kind {
        CapabilityKind::Decode => Code::NoDecoder,
        CapabilityKind::Encode => Code::NoEncoder,
        CapabilityKind::Scale => Code::PipelineFailed,
    };
    Fault::new(
        code,
        format!("{} is not installed; package {} brings it", candidate.element, candidate.package),
    )
}

fn in_child(number: usize, candidate: &Candidate) -> Result<Capability, Fault> {
    let element = &candidate.element;
    let start = |error: std::io::Error| {
        Fault::new(Code::WorkerStart, format!("the probe of {element} could not be started: {error}"))
    };
    let program = std::env::current_exe().map_err(start)?;
    let mut child = Command::new(program)
        .args(["probe-one", &number.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(start)?;
    let (done, ended) = channel();
    if let Some(mut output) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What was read before an error is judged as it is. A child's answer is far below the limit.
            let _ = output.by_ref().take(1 << 20).read_to_end(&mut text);
            let _ = done.send(text);
        });
    }
    let Ok(text) = ended.recv_timeout(DEADLINE) else {
        // It may have ended just now, which is as good.
        let _ = child.kill();
        let _ = child.wait();
        let text = format!("{element} did nothing for {} s and was killed", DEADLINE.as_secs());
        return Err(Fault::new(Code::WorkerHung, text));
    };
    let status = child.wait().map_err(start)?;
    if let Ok(capability) = serde_json::from_slice::<Capability>(&text)
        && status.success()
    {
        return Ok(capability);
    }
    Err(serde_json::from_slice::<Fault>(&text).unwrap_or_else(|_| {
        Fault::new(Code::WorkerCrashed, format!("{element} is registered but its probe ended with {status}"))
    }))
}

/// Runs one candidate in this process.
pub fn probe_one(board: &Board, machine: &Machine, number: usize) -> Result<Capability, Fault> {
    let candidate = candidates(board, machine)
        .into_iter()
        .nth(number)
        .ok_or_else(|| Fault::new(Code::PipelineFailed, format!("there is no candidate {number}")))?;
    // Only the candidate itself, so that the plan cannot choose another element.
    let mut machine = machine.clone();
    machine.elements.retain(|name, _| *name == candidate.element);
    let (pictures, time) = match (candidate.kind, candidate.codec) {
        (CapabilityKind::Decode, Some(codec)) => decode(board, &machine, codec)?,
        (CapabilityKind::Encode, Some(codec)) => encode(board, &machine, codec)?,
        (CapabilityKind::Scale, _) | (CapabilityKind::Decode | CapabilityKind::Encode, None) => scale()?,
    };
    Ok(Capability {
        kind: candidate.kind,
        codec: candidate.codec,
        element: candidate.element,
        memory: candidate.memory,
        speed_fps: (pictures as f64 / time.as_secs_f64().max(1e-6) * 10.0).round() / 10.0,
        width: Pixels(SIZE.width),
        height: Pixels(SIZE.height),
    })
}

/// Counts what comes out of a chain.
#[derive(Debug, Default)]
struct Count {
    samples: u64,
    first_key: Option<bool>,
    size: Option<(u32, u32)>,
}

struct Counter {
    count: Arc<Mutex<Count>>,
    done: Sender<()>,
}

impl Taker for Counter {
    fn sample(&mut self, sample: gst::Sample) -> Result<(), gst::FlowError> {
        let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
        let mut count = lock(&self.count);
        count.samples += 1;
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        count.first_key.get_or_insert(key);
        count.size = sample
            .caps()
            .and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok())
            .map(|info| (info.width(), info.height()));
        Ok(())
    }

    fn end(&mut self) {
        // The other side gives up only when the process ends.
        let _ = self.done.send(());
    }
}

/// Feeds a chain to its end and gives what came out.
fn drive(
    faults: &Faults,
    chain: impl FnOnce(Counter) -> Result<Chain, Fault>,
    feed: impl FnOnce(&Chain) -> Result<(), gst::FlowError>,
) -> Result<(Count, Duration), Fault> {
    let count = Arc::new(Mutex::new(Count::default()));
    let (done, ended) = channel();
    let chain = chain(Counter { count: Arc::clone(&count), done })?;
    let started = Instant::now();
    let fed = feed(&chain);
    chain.end();
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(fault) = faults.first() {
            return Err(fault);
        }
        if ended.recv_timeout(Duration::from_millis(20)).is_ok() {
            break;
        }
        if Instant::now() > deadline {
            return Err(Fault::new(Code::WorkerHung, "it never came to its end").with_detail(log::tail()));
        }
    }
    let time = started.elapsed();
    if let Err(flow) = fed {
        return Err(Fault::new(Code::PipelineFailed, format!("it refused its input: {flow}")));
    }
    let count = std::mem::take(&mut *lock(&count));
    Ok((count, time))
}

fn frames(sample: &'static [u8]) -> Result<Vec<Frame>, Fault> {
    let mut demuxer = Demuxer::new(Container::Ts);
    let mut items = Vec::new();
    demuxer.push(bytes::Bytes::from_static(sample), &mut items)?;
    demuxer.finish(&mut items)?;
    let frames = items.into_iter().filter_map(|item| match item {
        Item::Video(frame) => Some(frame),
        Item::Tracks(_) | Item::Audio(_) => None,
    });
    Ok(frames.collect())
}

fn nanoseconds(time: Ticks) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(time.0.unsigned_abs() * 100_000 / 9)
}

fn decode(board: &Board, machine: &Machine, codec: Codec) -> Result<(u64, Duration), Fault> {
    let sample = match codec {
        Codec::H264 => H264_SAMPLE,
        Codec::Hevc => HEVC_SAMPLE,
        Codec::Av1 => AV1_SAMPLE,
        Codec::Vp9 => VP9_SAMPLE,
        Codec::Vp8 => VP8_SAMPLE,
        Codec::Jpeg => {
            return Err(Fault::new(Code::UnsupportedCodec, "pictures are not read".to_owned()));
        }
    };
    let plan = plan::decoder(board, machine, codec, Trust::Whole)?;
    let frames = frames(sample)?;
    let faults = Arc::new(Faults::default());
    // The sample again and again, each time later, until there are enough.
    let rounds = PICTURES.div_ceil(frames.len().max(1) as u64);
    let length = frames.len() as i64 * CLOCK / 30;
    let want = rounds * frames.len() as u64;
    let (count, time) = drive(
        &faults,
        |counter| graph::decode_chain(&plan, &faults, counter),
        |chain| {
            for round in 0..rounds {
                for frame in &frames {
                    let mut buffer = gst::Buffer::from_slice(frame.data.clone());
                    if let Some(fresh) = buffer.get_mut() {
                        fresh.set_pts(nanoseconds(Ticks(frame.pts.0 + round as i64 * length)));
                        fresh.set_dts(nanoseconds(Ticks(frame.dts.0 + round as i64 * length)));
                    }
                    chain.push(buffer)?;
                }
            }
            Ok(())
        },
    )?;
    if count.samples != want || count.size != Some((SIZE.width, SIZE.height)) {
        let text = format!("of {want} frames it decoded {} as {:?}", count.samples, count.size);
        return Err(Fault::new(Code::PipelineFailed, text).with_detail(log::tail()));
    }
    Ok((count.samples, time))
}

fn info(size: Size) -> Result<gst_video::VideoInfo, Fault> {
    gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, size.width, size.height)
        .fps(gst::Fraction::new(30, 1))
        .build()
        .map_err(|error| Fault::new(Code::PipelineFailed, error.to_string()))
}

/// A moving gradient: neither still nor noise.
fn picture(number: u64, size: Size) -> gst::Buffer {
    let (width, height) = (size.width as usize, size.height as usize);
    let mut bytes = vec![128_u8; width * height * 3 / 2];
    for (row, line) in bytes[..width * height].chunks_exact_mut(width).enumerate() {
        for (column, pixel) in line.iter_mut().enumerate() {
            *pixel = (row / 2 + column / 3 + number as usize * 4) as u8 ^ (column as u8 & 7);
        }
    }
    let mut buffer = gst::Buffer::from_slice(bytes);
    if let Some(fresh) = buffer.get_mut() {
        fresh.set_pts(gst::ClockTime::from_nseconds(number * 1_000_000_000 / 30));
    }
    buffer
}

fn encode(board: &Board, machine: &Machine, codec: Codec) -> Result<(u64, Duration), Fault> {
    let wrong = |text: String| Fault::new(Code::PipelineFailed, text);
    let still = codec == Codec::Jpeg;
    let rendition = Rendition {
        name: RenditionName::new("probe").map_err(|bad| wrong(bad.to_string()))?,
        codec,
        width: Pixels(SIZE.width),
        height: Pixels(SIZE.height),
        fps: None,
        rate: if still { Rate::Quality(11) } else { Rate::Bitrate(BitsPerSecond(3_000_000)) },
        gop: Gop::Segment,
        profile: Profile::Auto,
        // Carries every codec; what comes out is only counted.
        container: if still { Container::Jpeg } else { Container::Mp4 },
        audio: Audio::Copy,
        tiles: None,
    };
    let ladder = Ladder::new(vec![rendition]).map_err(|bad| wrong(bad.to_string()))?;
    let picture_facts = plan::Picture {
        coded: SIZE,
        aspect: (1, 1),
        rotation: Rotation::None,
        rate: FrameRate::new(30, 1).ok(),
        interlaced: false,
        format: "I420".to_owned(),
        hdr: false,
    };
    let plan = plan::outputs(board, machine, &ladder, &DecodePlan::nothing(), &picture_facts)?;
    let rung = plan.rungs.first().ok_or_else(|| wrong("the plan is empty".to_owned()))?;
    let faults = Arc::new(Faults::default());
    let pictures: Vec<gst::Buffer> = (0..PICTURES).map(|number| picture(number, SIZE)).collect();
    let input = info(SIZE)?;
    let (count, time) = drive(
        &faults,
        |counter| graph::encode_chain(rung, Some(&input), &faults, counter),
        |chain| pictures.into_iter().try_for_each(|picture| chain.push(picture)),
    )?;
    if count.samples != PICTURES || count.first_key != Some(true) {
        let (samples, key) = (count.samples, count.first_key);
        let text = format!("of {PICTURES} pictures it encoded {samples}; the first a keyframe: {key:?}");
        return Err(wrong(text).with_detail(log::tail()));
    }
    Ok((count.samples, time))
}

fn scale() -> Result<(u64, Duration), Fault> {
    let canvases = [Canvas::new(info(SIZE)?)?];
    let source = picture(0, LARGE);
    let large = info(LARGE)?;
    let started = Instant::now();
    for number in 0..PICTURES {
        let mut picture = Picture::new(Ticks(number as i64), source.clone(), large.clone(), 1);
        picture.at(0, &[Origin::Decoded], &canvases)?;
    }
    Ok((PICTURES, started.elapsed()))
}
