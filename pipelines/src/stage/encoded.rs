//! End of an encoder's chain.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gstreamer as gst;

use headwater_protocol::{Code, Fault};

use super::event::{Counters, Event, Events, lock, send};
use crate::es::Ticks;
use crate::graph::{Faults, Taker};

/// End of an encoder's chain: gives each coded frame the exact time of its picture.
pub(super) struct Encoded {
    pub rung: usize,
    pub inside: Arc<Mutex<VecDeque<Ticks>>>,
    /// Encoders shift their times (x264enc by 1000 hours): first time out and first time in.
    pub offset: Option<(gst::ClockTime, Ticks)>,
    pub events: Events,
    pub counters: Arc<Counters>,
    pub faults: Arc<Faults>,
}

impl Taker for Encoded {
    fn sample(&mut self, sample: gst::Sample) -> Result<(), gst::FlowError> {
        let buffer = sample.buffer_owned().ok_or(gst::FlowError::Error)?;
        let pts = buffer.pts();
        let mapped = buffer.into_mapped_buffer_readable().map_err(|_| gst::FlowError::Error)?;
        let data = Bytes::from_owner(mapped);
        if data.is_empty() {
            // Rockchip's encoder hands on an error of its device like that.
            let text = format!("rendition {}: the encoder gave a frame without bytes", self.rung);
            self.faults.report(Fault::new(Code::BadOutput, text));
            return Err(gst::FlowError::Error);
        }
        let time = lock(&self.inside).pop_front();
        let (Some(time), Some(pts)) = (time, pts) else {
            self.faults.report(Fault::new(Code::BadOutput, "an encoder gave more frames than it got"));
            return Err(gst::FlowError::Error);
        };
        let (first_out, first_in) = *self.offset.get_or_insert((pts, time));
        let out = (i128::from(pts.nseconds()) - i128::from(first_out.nseconds())) * 9 / 100_000;
        if (out - i128::from(time.0 - first_in.0)).abs() > 1 {
            self.faults.report(Fault::new(
                Code::BadOutput,
                format!("rendition {} lost or reordered a frame in its encoder", self.rung),
            ));
            return Err(gst::FlowError::Error);
        }
        self.counters.encoded.fetch_add(1, Relaxed);
        send(&self.events, Event::Encoded { rung: self.rung, time, data })
    }

    fn end(&mut self) {
        self.offset = None;
        let lost = std::mem::take(&mut *lock(&self.inside)).len();
        if lost > 0 {
            let text = format!("rendition {}: the encoder swallowed {lost} frames", self.rung);
            self.faults.report(Fault::new(Code::BadOutput, text));
            return;
        }
        // Nobody may be there to hear it, after a cancel.
        let _ = send(&self.events, Event::Done { rung: self.rung });
    }
}
