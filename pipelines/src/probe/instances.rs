//! How many of a device's elements run at once: 1, 2, 4, 8, until one fails.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gstreamer as gst;
use headwater_protocol::Fault;

use super::drive::Driven;
use crate::graph::Chain;

/// More than any known device gives to one process that has other work too.
const STEPS: [u32; 4] = [1, 2, 4, 8];

type Build = dyn Fn(Arc<Mutex<u64>>) -> Result<Driven, Fault> + Sync;
type Feed = dyn Fn(&Chain) -> Result<(), gst::FlowError> + Send + Sync;

/// A way to start one more of the same.
pub(super) struct AtOnce {
    /// A fresh chain that counts what comes out of it.
    pub build: Box<Build>,
    pub feed: Arc<Feed>,
    /// What must come out of each.
    pub pictures: u64,
    /// No more than this, where the profile knows; 0: not known.
    pub limit: u32,
    pub patience: Duration,
}

/// Where all wait for the last, so that every session is open at the same time.
#[derive(Default)]
struct Meeting(Mutex<(u32, bool)>, Condvar);

impl Meeting {
    /// True if all came in time and none failed.
    fn wait(&self, all: u32, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        self.1.notify_all();
        while state.0 < all && !state.1 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !state.1
    }

    fn fail(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.1.notify_all();
    }
}

impl AtOnce {
    /// Says each number that went well, and stops at the first that did not: more would only disturb the device.
    pub(super) fn count(&self, say: &mut dyn FnMut(u32)) {
        let limit = if self.limit == 0 { u32::MAX } else { self.limit };
        for count in STEPS.into_iter().filter(|count| *count <= limit) {
            if !self.run(count) {
                return;
            }
            say(count);
        }
    }

    fn run(&self, count: u32) -> bool {
        let meeting = Arc::new(Meeting::default());
        thread::scope(|scope| {
            let running: Vec<_> = (0..count)
                .map(|_| {
                    let meeting = Arc::clone(&meeting);
                    scope.spawn(move || {
                        let done = self.one(count, &meeting);
                        if !done {
                            meeting.fail();
                        }
                        done
                    })
                })
                .collect();
            let done: Vec<bool> = running.into_iter().map(|one| one.join().unwrap_or(false)).collect();
            done.into_iter().all(|one| one)
        })
    }

    fn one(&self, all: u32, meeting: &Arc<Meeting>) -> bool {
        let seen = Arc::new(Mutex::new(0));
        let Ok(driven) = (self.build)(Arc::clone(&seen)) else { return false };
        let (feed, meeting, patience) = (Arc::clone(&self.feed), Arc::clone(meeting), self.patience);
        let ran = driven.segment(patience, move |chain| {
            feed(chain)?;
            if meeting.wait(all, patience) { Ok(()) } else { Err(gst::FlowError::Error) }
        });
        ran.is_ok() && *crate::stage::lock(&seen) == self.pictures
    }
}
