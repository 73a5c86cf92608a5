//! Runs a chain from its first frame to its end, with a deadline.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use headwater_protocol::{Code, Fault};

use super::candidate::Candidate;
use super::words;
use crate::graph::{Chain, Faults, Taker};
use crate::log;
use crate::stage::lock;

/// How often faults are looked at.
const TICK: Duration = Duration::from_millis(20);
/// An element that refused its input says why on the bus, a little later.
const LAST_WORD: Duration = Duration::from_millis(500);

/// How long a chain may take: what is slow is not taken for what hangs.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    /// Without a picture that comes out.
    pub still: Duration,
    /// When all must be over, however well it moves.
    pub until: Instant,
    /// Called while pictures come out.
    pub moved: &'a dyn Fn(),
}

impl Patience<'_> {
    /// So long and no longer.
    pub(super) fn fixed(time: Duration) -> Self {
        Self { still: time, until: Instant::now() + time, moved: &|| () }
    }
}

/// What came out of a chain so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub pictures: u64,
    pub last: Option<Instant>,
}

/// Hands samples to a function.
pub(super) struct Hand {
    seen: Arc<Mutex<Seen>>,
    each: Box<dyn FnMut(gst::Sample) -> Result<(), gst::FlowError> + Send>,
    ended: Sender<()>,
}

impl Taker for Hand {
    fn sample(&mut self, sample: gst::Sample) -> Result<(), gst::FlowError> {
        {
            let mut seen = lock(&self.seen);
            *seen = Seen { pictures: seen.pictures + 1, last: Some(Instant::now()) };
        }
        (self.each)(sample)
    }

    fn end(&mut self) {
        // The other side gives up only when the process ends.
        let _ = self.ended.send(());
    }
}

pub(super) struct Driven {
    chain: Arc<Chain>,
    faults: Arc<Faults>,
    seen: Arc<Mutex<Seen>>,
    ended: Receiver<()>,
}

/// Where samples are put by the chain's thread and taken by ours.
pub(super) type Shelf<T> = Arc<Mutex<Vec<T>>>;

pub(super) fn take<T>(shelf: &Shelf<T>) -> Vec<T> {
    std::mem::take(&mut *lock(shelf))
}

/// Why there is no chain to run.
#[derive(Debug)]
pub(super) enum Unready {
    /// It could not be put together.
    Unbuilt(Fault),
    /// Its elements are there and refused to start.
    Unstarted(Fault),
}

impl Unready {
    /// What that says of the candidate whose chain it is.
    pub(super) fn told(self, candidate: &Candidate) -> Fault {
        match self {
            Unready::Unbuilt(fault) => fault,
            Unready::Unstarted(fault) => words::nothing(candidate, &fault),
        }
    }
}

impl From<Unready> for Fault {
    fn from(unready: Unready) -> Self {
        match unready {
            Unready::Unbuilt(fault) | Unready::Unstarted(fault) => fault,
        }
    }
}

impl Driven {
    pub(super) fn new(
        each: impl FnMut(gst::Sample) -> Result<(), gst::FlowError> + Send + 'static,
        build: impl FnOnce(&Arc<Faults>, Hand) -> Result<Chain, Fault>,
    ) -> Result<Self, Unready> {
        let faults = Arc::new(Faults::default());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (sender, ended) = channel();
        let hand = Hand { seen: Arc::clone(&seen), each: Box::new(each), ended: sender };
        let chain = build(&faults, hand).map_err(|fault| {
            if faults.first().is_some() { Unready::Unstarted(fault) } else { Unready::Unbuilt(fault) }
        })?;
        Ok(Self { chain: Arc::new(chain), faults, seen, ended })
    }

    pub(super) fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    pub(super) fn seen(&self) -> Seen {
        *lock(&self.seen)
    }

    /// Feeds the chain, ends it, and waits until everything came out. Gives the time that took.
    pub(super) fn segment(
        &self,
        patience: Patience<'_>,
        feed: impl FnOnce(&Chain) -> Result<(), gst::FlowError> + Send + 'static,
    ) -> Result<Duration, Fault> {
        let started = Instant::now();
        let (sender, fed) = channel();
        let chain = Arc::clone(&self.chain);
        // In its own thread, for a full chain that stands still never lets go of its feeder.
        std::thread::spawn(move || {
            let result = feed(&chain);
            chain.end();
            let _ = sender.send(result);
        });
        let mut last = started;
        loop {
            if let Some(fault) = self.faults.first() {
                return Err(fault);
            }
            match self.ended.recv_timeout(TICK) {
                Ok(()) => break,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            match fed.try_recv() {
                Ok(Err(flow)) => return Err(self.refused(flow)),
                Ok(Ok(())) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
            let now = Instant::now();
            if let Some(newer) = self.seen().last.filter(|newer| *newer > last) {
                last = newer;
                (patience.moved)();
            }
            let stands = now.saturating_duration_since(last) > patience.still;
            if stands || now > patience.until {
                // Stopping a chain whose threads are stuck would wait for them.
                std::mem::forget(Arc::clone(&self.chain));
                let text =
                    if stands { "it never came to its end" } else { "it was too slow to come to its end" };
                return Err(Fault::new(Code::WorkerHung, text).with_detail(log::tail()));
            }
        }
        Ok(started.elapsed())
    }

    fn refused(&self, flow: gst::FlowError) -> Fault {
        let until = Instant::now() + LAST_WORD;
        while Instant::now() < until {
            if let Some(fault) = self.faults.first() {
                return fault;
            }
            std::thread::sleep(TICK);
        }
        Fault::new(Code::PipelineFailed, format!("it refused its input: {flow}")).with_detail(log::tail())
    }
}
