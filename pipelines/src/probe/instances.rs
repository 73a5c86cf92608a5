//! How many of a device's elements run at once: 1, 2, 4, 8, until one fails. What ran before that is then the limit,
//! though one more might have run too: a session too many can cost a board more than one too few.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gstreamer as gst;
use headwater_protocol::Fault;

use super::drive::Driven;
use crate::graph::Chain;

/// Whoever runs so many is not asked for more, and has no limit as far as we know.
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
    /// No more than this, where the profile knows.
    pub limit: Option<u32>,
    pub patience: Duration,
}

/// As a profile says it, in which 0 stands for not known.
pub(super) fn known(max_instances: u32) -> Option<u32> {
    (max_instances > 0).then_some(max_instances)
}

/// A limit that the profile knows is the last step.
fn steps(limit: Option<u32>) -> impl Iterator<Item = u32> {
    let below = STEPS.into_iter().filter(move |count| limit.is_none_or(|limit| *count < limit));
    below.chain(limit.filter(|limit| *limit <= STEPS[STEPS.len() - 1]))
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
    /// The last that went well is the limit then; none where all did.
    pub(super) fn count(&self, say: &mut dyn FnMut(u32)) -> Option<u32> {
        let mut good = 1;
        for count in steps(self.limit) {
            if !self.run(count) {
                return Some(good);
            }
            say(count);
            good = count;
        }
        None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_limit_is_tried_last_where_it_is_within_reach() {
        let all = |limit| steps(limit).collect::<Vec<u32>>();
        assert_eq!(all(None), [1, 2, 4, 8]);
        assert_eq!(all(Some(1)), [1]);
        assert_eq!(all(Some(3)), [1, 2, 3]);
        assert_eq!(all(Some(8)), [1, 2, 4, 8]);
        assert_eq!(all(Some(30)), [1, 2, 4, 8]);
    }
}
