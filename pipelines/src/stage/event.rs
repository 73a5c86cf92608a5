//! What is said between the threads of a segment, and the times they count in.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gstreamer as gst;

use headwater_protocol::media::Hdr;
use headwater_protocol::{Container, FrameRate};

use crate::es::{AudioPacket, CLOCK, Rotation, Ticks, Tracks};
use crate::fit::Size;
use crate::plan::DecodePlan;
use crate::sound::Heard;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in a callback has become a fault by then; the data is thrown away with the chains.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the chains tell the collector, in order for each rendition.
#[derive(Debug)]
pub(crate) enum Event {
    Tracks(Tracks),
    /// How far before 0 an MP4 begins.
    Before(Ticks),
    Audio(AudioPacket),
    /// Encoded sound, for the renditions that wish for it.
    Sound(Heard),
    Encoded {
        rung: usize,
        time: Ticks,
        data: Bytes,
    },
    /// A rendition has all its frames.
    Done {
        rung: usize,
    },
    /// The first picture is there: its size as shown, whether it is tone-mapped, and size and rate of each rendition.
    Planned {
        shown: Size,
        hdr: Option<Hdr>,
        rungs: Vec<(Size, FrameRate)>,
    },
    /// There is no video frame: every rendition is the input.
    Copy {
        container: Container,
        bytes: Vec<Bytes>,
    },
    /// The decoder came to its end without a picture.
    NoPicture,
}

/// Where events of the segment in work go; empty between segments.
pub(crate) type Events = Arc<Mutex<Option<SyncSender<Event>>>>;

/// Waits while the collector has enough to do: a slow reader of the output slows the encoders down.
pub(crate) fn send(events: &Events, event: Event) -> Result<(), gst::FlowError> {
    let sender = lock(events).clone();
    sender.ok_or(gst::FlowError::Flushing)?.send(event).map_err(|_| gst::FlowError::Flushing)
}

/// Counts that prove life.
#[derive(Debug)]
pub(crate) struct Counters {
    pub fed: AtomicU64,
    pub decoded: AtomicU64,
    pub pixels: AtomicU64,
    pub encoded: AtomicU64,
    /// A picture at this time or later is there only for others to refer to; see `coded::hidden`.
    pub hidden_from: AtomicI64,
}

/// Times in a segment as the chains count them: nanoseconds from ten seconds before the first frame, so that
/// reordered frames before it stay positive.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Origo(i64);

impl Origo {
    pub(crate) fn of(first: Ticks) -> Self {
        Self(first.0 - 10 * CLOCK)
    }

    /// None for a time more than ten seconds before the first frame's.
    pub(crate) fn nanoseconds(self, time: Ticks) -> Option<gst::ClockTime> {
        let ticks = u64::try_from(time.0.checked_sub(self.0)?).ok()?;
        // A tick is 11111.1 ns, so rounding to nanoseconds loses nothing.
        Some(gst::ClockTime::from_nseconds(ticks.checked_mul(100_000)? / 9))
    }

    pub(crate) fn ticks(self, time: gst::ClockTime) -> Ticks {
        let ticks = (u128::from(time.nseconds()) * 9 + 50_000) / 100_000;
        Ticks(self.0 + ticks as i64)
    }
}

/// What is known of a segment before its first picture.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub decode: Arc<DecodePlan>,
    pub origo: Origo,
    pub rotation: Rotation,
    pub rate: Option<FrameRate>,
}

impl Segment {
    /// Nothing was decoded yet.
    pub(super) fn unknown() -> Self {
        Self {
            decode: Arc::new(DecodePlan::nothing()),
            origo: Origo::default(),
            rotation: Rotation::None,
            rate: None,
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        let hidden_from = AtomicI64::new(i64::MAX);
        Self { fed: zero(), decoded: zero(), pixels: zero(), encoded: zero(), hidden_from }
    }
}

impl Counters {
    pub(crate) fn reset(&self) {
        for count in [&self.fed, &self.decoded, &self.pixels, &self.encoded] {
            count.store(0, Relaxed);
        }
        self.hidden_from.store(i64::MAX, Relaxed);
    }
}
