//! A row of GStreamer elements that works in the caller's thread: what is pushed in has come out when the push
//! returns. Sound needs no more, for its codecs take microseconds, and so no queue, thread or clock is involved.

use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;

use headwater_protocol::{Code, Fault};

use crate::log;

#[derive(Debug)]
pub(super) struct Strand {
    bin: gst::Bin,
    entry: gst::Pad,
    exit: gst::Pad,
    out: Arc<Mutex<Vec<gst::Buffer>>>,
    caps: Option<gst::Caps>,
}

/// The elements refused what they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

fn failed(what: &str, error: impl std::fmt::Display) -> Fault {
    Fault::new(Code::PipelineFailed, format!("sound: {what}: {error}")).with_detail(log::tail())
}

impl Strand {
    /// `elements` in the order of the stream, with properties as `gst-inspect-1.0` writes them; `last` is what comes
    /// out of them.
    pub(super) fn new(
        elements: &[(&str, Vec<(&str, String)>)],
        last: Option<&gst::Caps>,
    ) -> Result<Self, Fault> {
        let mut made = Vec::new();
        for (factory, properties) in elements {
            let mut builder = gst::ElementFactory::make(factory);
            for (name, value) in properties {
                builder = builder.property_from_str(name, value);
            }
            made.push(builder.build().map_err(|error| failed(factory, error))?);
        }
        if let Some(caps) = last {
            let filter = gst::ElementFactory::make("capsfilter").property("caps", caps).build();
            made.push(filter.map_err(|error| failed("capsfilter", error))?);
        }
        let bin = gst::Bin::new();
        let all: Vec<&gst::Element> = made.iter().collect();
        bin.add_many(&all).map_err(|error| failed("a bin", error))?;
        gst::Element::link_many(&all).map_err(|error| failed("a bin", error))?;

        let out = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&out);
        let entry = gst::Pad::new(gst::PadDirection::Src);
        let exit = gst::Pad::builder(gst::PadDirection::Sink)
            .chain_function(move |_, _, buffer| {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
                Ok(gst::FlowSuccess::Ok)
            })
            .build();
        let pad = |element: Option<&gst::Element>, name: &str| {
            element.and_then(|element| element.static_pad(name)).ok_or_else(|| failed(name, "no such pad"))
        };
        entry.link(&pad(made.first(), "sink")?).map_err(|error| failed("the first link", error))?;
        pad(made.last(), "src")?.link(&exit).map_err(|error| failed("the last link", error))?;
        let strand = Self { bin, entry, exit, out, caps: None };
        strand.start()?;
        Ok(strand)
    }

    fn start(&self) -> Result<(), Fault> {
        self.exit.set_active(true).map_err(|error| failed("the last pad", error))?;
        self.entry.set_active(true).map_err(|error| failed("the first pad", error))?;
        self.bin.set_state(gst::State::Playing).map_err(|error| failed("start", error))?;
        self.entry.push_event(gst::event::StreamStart::new("sound"));
        Ok(())
    }

    /// What the next buffers are.
    pub(super) fn set_caps(&mut self, caps: &gst::Caps) {
        if self.caps.as_ref() == Some(caps) {
            return;
        }
        self.entry.push_event(gst::event::Caps::new(caps));
        if self.caps.is_none() {
            self.entry.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        }
        self.caps = Some(caps.clone());
    }

    /// Takes one buffer and gives what comes out of it, which may be nothing.
    pub(super) fn push(&self, buffer: gst::Buffer) -> Result<Vec<gst::Buffer>, Refused> {
        let flow = self.entry.push(buffer);
        let out = self.take();
        flow.map(|_| out).map_err(|_| Refused)
    }

    /// Gives what is still inside. Nothing may be pushed afterwards.
    pub(super) fn end(&self) -> Vec<gst::Buffer> {
        self.entry.push_event(gst::event::Eos::new());
        self.take()
    }

    fn take(&self) -> Vec<gst::Buffer> {
        std::mem::take(&mut *self.out.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What comes out, once something has.
    pub(super) fn exit_caps(&self) -> Option<gst::Caps> {
        self.exit.current_caps()
    }
}

impl Drop for Strand {
    fn drop(&mut self) {
        // An error here means that the elements are broken already, and they go away either way.
        let _ = self.entry.set_active(false);
        let _ = self.bin.set_state(gst::State::Null);
        let _ = self.exit.set_active(false);
    }
}
