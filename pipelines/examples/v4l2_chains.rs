//! Drives real V4L2 devices through GStreamer's own elements and prints what happened as JSON. The test in the
//! emulated machine runs it and judges; it also says on a board what its V4L2 codecs do.
//!
//! usage: `v4l2_chains devices | elements | controls | recycle N | recycle-ready N | round-trip | scale | instances N | unplug-busy`
//!
//! `V4L2_ENCODER`, `V4L2_DECODER` and `V4L2_SCALER` name other elements than those of the kernel's virtual devices.

use std::process::Command;
use std::str::FromStr as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use headwater_pipelines::{log, v4l2};
use serde_json::{Value, json};

/// The smallest picture that the kernel's virtual codec takes.
const SIZE: (usize, usize) = (640, 360);
const PICTURES: usize = 12;
const GOP: i32 = 5;
/// A picture takes an emulated machine well under a second.
const SILENCE: Duration = Duration::from_secs(20);
/// Room for all that one segment gives.
const ROOM: usize = 64;

enum Heard {
    Sample(gst::Sample),
    End,
    /// The first error, in the element's words.
    Fault(String),
}

/// `appsrc ! elements ! appsink`, recycled as the worker's chains are: EOS inside the stream, then a flush.
struct Chain {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    heard: Receiver<Heard>,
    how: Recycling,
}

/// How a drained chain is made ready for its next segment.
#[derive(Clone, Copy)]
enum Recycling {
    /// A flush, as the worker does; the device stays open.
    Flush,
    /// Down to READY and up again; the device stays open, its queues are made anew.
    Ready,
}

impl Chain {
    fn new(caps: &gst::Caps, elements: &[gst::Element], out: Option<&gst::Caps>) -> Result<Self> {
        let source = gst_app::AppSrc::builder().caps(caps).format(gst::Format::Time).max_bytes(0);
        let source = source.build();
        let (to, heard) = sync_channel(ROOM);
        let faults = to.clone();
        let sink = gst_app::AppSink::builder().sync(false).async_(false).callbacks(callbacks(to));
        let sink = if let Some(out) = out { sink.caps(out) } else { sink }.build();
        let pipeline = gst::Pipeline::new();
        let mut all: Vec<&gst::Element> = vec![source.upcast_ref()];
        all.extend(elements);
        all.push(sink.upcast_ref());
        pipeline.add_many(&all)?;
        gst::Element::link_many(&all)?;
        pipeline.bus().context("a pipeline has a bus")?.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                let debug = error.debug().unwrap_or_default();
                // Where the queue is full nobody waits for a fault.
                let _ = faults.try_send(Heard::Fault(format!("{}: {debug}", error.error())));
            }
            gst::BusSyncReply::Drop
        });
        let chain = Self { pipeline, source, heard, how: Recycling::Flush };
        if chain.pipeline.set_state(gst::State::Playing).is_err() {
            bail!("the pipeline does not start: {}", chain.fault());
        }
        Ok(chain)
    }

    /// What went wrong, in the elements' words.
    fn fault(&self) -> String {
        let fault = self.heard.try_iter().find_map(|heard| match heard {
            Heard::Fault(fault) => Some(fault),
            Heard::Sample(_) | Heard::End => None,
        });
        fault.unwrap_or_else(log::tail)
    }

    fn segment(&self, buffers: impl IntoIterator<Item = gst::Buffer>) -> Result<Vec<gst::Sample>> {
        for buffer in buffers {
            if let Err(error) = self.source.push_buffer(buffer) {
                bail!("nothing more is taken ({error}): {}", self.fault());
            }
        }
        self.source.send_event(gst::event::Eos::new());
        let mut samples = Vec::new();
        loop {
            match self.heard.recv_timeout(SILENCE) {
                Ok(Heard::Sample(sample)) => samples.push(sample),
                Ok(Heard::End) => break,
                Ok(Heard::Fault(fault)) => bail!("after {} samples: {fault}\n{}", samples.len(), log::tail()),
                Err(_) => bail!("silent for {SILENCE:?} after {} samples: {}", samples.len(), self.fault()),
            }
        }
        match self.how {
            Recycling::Flush => {
                self.source.send_event(gst::event::FlushStart::new());
                self.source.send_event(gst::event::FlushStop::new(true));
            }
            Recycling::Ready => {
                self.pipeline.set_state(gst::State::Ready)?;
                self.pipeline.set_state(gst::State::Playing)?;
            }
        }
        Ok(samples)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // It goes away either way.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn callbacks(to: SyncSender<Heard>) -> gst_app::AppSinkCallbacks {
    let at_end = to.clone();
    gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            to.send(Heard::Sample(sample)).map_err(|_| gst::FlowError::Flushing)?;
            Ok(gst::FlowSuccess::Ok)
        })
        // The receiver is gone only when the chain is.
        .eos(move |_| drop(at_end.send(Heard::End)))
        .build()
}

/// Colour and interlacing must be in the caps: V4L2 elements refuse caps that leave them open.
fn picture_caps((width, height): (usize, usize)) -> Result<gst::Caps> {
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, width as u32, height as u32)
        .fps(gst::Fraction::new(30, 1))
        .colorimetry(&gst_video::VideoColorimetry::from_str("bt709")?)
        .build()?;
    Ok(info.to_caps()?)
}

/// A slope that moves: every picture differs from the last, and a codec has it easy.
fn pictures() -> impl Iterator<Item = gst::Buffer> {
    (0..PICTURES).map(|number| {
        let (width, height) = SIZE;
        let mut bytes = vec![128_u8; width * height * 3 / 2];
        for (at, luma) in bytes[..width * height].iter_mut().enumerate() {
            *luma = (32 + (at % width + at / width + number * 8) % 192) as u8;
        }
        let mut buffer = gst::Buffer::from_slice(bytes);
        let frame = gst::ClockTime::from_nseconds(1_000_000_000 / 30);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(frame * number as u64);
            buffer.set_duration(frame);
        }
        buffer
    })
}

fn named(variable: &str, usual: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| usual.to_owned())
}

fn make(factory: &str) -> Result<gst::Element> {
    gst::ElementFactory::make(factory).build().with_context(|| format!("there is no {factory}"))
}

fn encoder() -> Result<gst::Element> {
    let encoder = make(&named("V4L2_ENCODER", "v4l2fwhtenc"))?;
    let controls = gst::Structure::builder("controls").field("video_gop_size", GOP).build();
    encoder.set_property("extra-controls", controls);
    Ok(encoder)
}

fn encode_chain(how: Recycling) -> Result<Chain> {
    let mut chain = Chain::new(&picture_caps(SIZE)?, &[encoder()?], None)?;
    chain.how = how;
    Ok(chain)
}

/// Whether a frame needs no other, read from its own header: GStreamer 1.22 marks none of the virtual codec's.
/// The flags are the sixth word of a FWHT frame, and bit 10 says I-frame (`V4L2_FWHT_FL_I_FRAME` of the kernel).
fn is_key(sample: &gst::Sample) -> bool {
    let mut flags = [0; 4];
    let read = sample.buffer().map(|buffer| buffer.copy_to_slice(20, &mut flags));
    matches!(read, Some(Ok(()))) && u32::from_be_bytes(flags) & (1 << 10) != 0
}

fn times(samples: &[gst::Sample]) -> Vec<Option<u64>> {
    let time = |sample: &gst::Sample| sample.buffer()?.pts().map(gst::ClockTime::nseconds);
    samples.iter().map(time).collect()
}

fn said(samples: &[gst::Sample]) -> Value {
    let keys: Vec<usize> =
        samples.iter().enumerate().filter(|(_, sample)| is_key(sample)).map(|(at, _)| at).collect();
    let bytes: usize = samples.iter().filter_map(|sample| sample.buffer()).map(gst::BufferRef::size).sum();
    let expected: Vec<Option<u64>> = pictures().map(|p| p.pts().map(gst::ClockTime::nseconds)).collect();
    json!({"frames": samples.len(), "keys": keys, "bytes": bytes, "times_kept": times(samples) == expected})
}

fn recycle(segments: usize, how: Recycling) -> Result<Value> {
    let chain = encode_chain(how)?;
    let each: Vec<Value> = (0..segments)
        .map(|number| chain.segment(pictures()).with_context(|| format!("segment {number}")))
        .map(|samples| samples.map(|samples| said(&samples)))
        .collect::<Result<_>>()?;
    Ok(json!({"pictures": PICTURES, "gop": GOP, "segments": each}))
}

/// Encodes, decodes, and compares with what went in: peak signal to noise of the luma, in dB, of the worst picture.
fn round_trip() -> Result<Value> {
    let coded = encode_chain(Recycling::Ready)?.segment(pictures())?;
    let caps = coded.first().and_then(|sample| sample.caps()).context("nothing was encoded")?;
    // In the format that was encoded: asked for another, the kernel's virtual decoder writes past its buffer.
    let out = gst::Caps::builder("video/x-raw").field("format", "I420").build();
    let decoder = make(&named("V4L2_DECODER", "v4l2fwhtdec"))?;
    let chain = Chain::new(&caps.to_owned(), &[decoder], Some(&out))?;
    let decoded = chain.segment(coded.iter().filter_map(|sample| sample.buffer_owned()))?;
    // By time, since GStreamer 1.22 may lose the first pictures of this decoder; how many came is told.
    let all = decoded.iter().map(|sample| {
        let time = sample.buffer().and_then(|buffer| buffer.pts());
        let picture = pictures().find(|picture| picture.pts() == time).context("a time that none had")?;
        quality(sample, &picture)
    });
    let worst = all.collect::<Result<Vec<_>>>()?.into_iter().fold(f64::INFINITY, f64::min);
    Ok(json!({"coded": said(&coded), "frames": decoded.len(), "worst_psnr": worst}))
}

fn quality(sample: &gst::Sample, picture: &gst::BufferRef) -> Result<f64> {
    let (width, height) = SIZE;
    let caps = sample.caps().context("a picture without caps")?;
    let info = gst_video::VideoInfo::from_caps(caps)?;
    let buffer = sample.buffer().context("a sample without a buffer")?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)?;
    let stride = usize::try_from(frame.plane_stride()[0])?;
    let luma = frame.plane_data(0)?;
    let wanted = picture.map_readable()?;
    let (wide, high) = (info.width() as usize, info.height() as usize);
    // Decoders may give the whole blocks that were coded: 640x368.
    ensure!(wide == width && (height..height + 16).contains(&high), "a picture of {wide}x{high}");
    let squares: u64 = (0..height)
        .flat_map(|row| luma[row * stride..].iter().zip(&wanted[row * width..(row + 1) * width]))
        .map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2))
        .sum();
    let mean = squares as f64 / (width * height) as f64;
    Ok(10.0 * (255.0 * 255.0 / mean.max(1e-3)).log10())
}

fn scale() -> Result<Value> {
    let half = (SIZE.0 / 2, SIZE.1 / 2);
    let out = gst::Caps::builder("video/x-raw")
        .field("width", half.0 as i32)
        .field("height", half.1 as i32)
        .build();
    let scaler = make(&named("V4L2_SCALER", "v4l2convert"))?;
    // The virtual scaler knows RGB and YUYV only.
    let before = make("videoconvert")?;
    let samples = Chain::new(&picture_caps(SIZE)?, &[before, scaler], Some(&out))?.segment(pictures())?;
    let caps = samples.first().and_then(|sample| sample.caps()).map(|caps| caps.to_string());
    Ok(json!({"pictures": PICTURES, "frames": samples.len(), "caps": caps}))
}

/// Several encoders that are all open before the first works.
fn instances(number: usize) -> Result<Value> {
    let mut chains: Vec<Chain> =
        (0..number).map(|_| encode_chain(Recycling::Ready)).collect::<Result<_>>()?;
    let each = std::thread::scope(|scope| {
        let work = |chain: &mut Chain| chain.segment(pictures()).map(|samples| said(&samples));
        let working: Vec<_> = chains.iter_mut().map(|chain| scope.spawn(move || work(chain))).collect();
        let ended = working.into_iter().map(|thread| thread.join());
        ended
            .map(|result| result.map_err(|_| anyhow::anyhow!("a thread panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    Ok(json!({"pictures": PICTURES, "instances": each}))
}

/// Tries to take the driver away under a working encoder, then goes on.
fn unplug_busy() -> Result<Value> {
    let chain = encode_chain(Recycling::Ready)?;
    let before = chain.segment(pictures())?;
    let removed = Command::new("rmmod").arg("vicodec").output().context("rmmod")?;
    let after = chain.segment(pictures())?;
    Ok(json!({
        "before": said(&before),
        "removed": removed.status.success(),
        "kernel": String::from_utf8_lossy(&removed.stderr).trim(),
        "after": said(&after),
    }))
}

fn elements() -> Vec<String> {
    let features = gst::Registry::get().features_by_plugin("video4linux2");
    let mut names: Vec<String> = features.iter().map(|feature| feature.name().to_string()).collect();
    names.sort();
    names
}

fn controls() -> Result<Value> {
    Ok(json!({
        "encoder": v4l2::controls(&named("V4L2_ENCODER", "v4l2fwhtenc"))?,
        "scaler": v4l2::controls(&named("V4L2_SCALER", "v4l2convert"))?,
    }))
}

fn main() -> Result<()> {
    log::init()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = || arguments.get(1).context("how many?")?.parse::<usize>().context("a number");
    let result = match arguments.first().map_or("", String::as_str) {
        "devices" => json!(v4l2::devices()),
        "elements" => json!(elements()),
        "controls" => controls()?,
        "recycle" => recycle(number()?, Recycling::Flush)?,
        "recycle-ready" => recycle(number()?, Recycling::Ready)?,
        "round-trip" => round_trip()?,
        "scale" => scale()?,
        "instances" => instances(number()?)?,
        "unplug-busy" => unplug_busy()?,
        other => bail!("{other:?} is no step; see the top of this file"),
    };
    println!("{result}");
    Ok(())
}
