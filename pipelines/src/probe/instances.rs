//! How many of a device's elements run at once: 1, 2, 4, 8, until one fails. What ran before that is then the limit,
//! though one more might have run too: a session too many can cost a board more than one too few.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gstreamer as gst;
use headwater_protocol::{Code, Fault};

use super::drive::{Driven, Patience, Seen};
use crate::graph::Chain;

/// Whoever runs so many is not asked for more, and has no limit as far as we know.
const STEPS: [u32; 4] = [1, 2, 4, 8];

/// Whether pictures still came when the time was over: such a chain would have come to its end.
fn was_moving(seen: Seen, patience: Duration) -> bool {
    seen.last.is_some_and(|last| last.elapsed() < patience / 2)
}

type Build = dyn Fn() -> Result<Driven, Fault> + Sync;
type Feed = dyn Fn(&Chain) -> Result<(), gst::FlowError> + Send + Sync;

/// A way to start one more of the same.
pub(super) struct AtOnce {
    /// A fresh chain.
    pub build: Box<Build>,
    pub feed: Arc<Feed>,
    /// What must come out of each.
    pub pictures: u64,
    /// No more than this, where the profile knows.
    pub limit: Option<u32>,
    /// For each round, whether it moves or not.
    pub patience: Duration,
    /// Not long before this process is killed. No round begins that could not end by then.
    pub until: Instant,
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

/// How a round, or one of its chains, went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ran {
    Whole,
    /// Pictures came until the time was over: this is slow and no limit.
    Late,
    Failed,
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
    /// The last that went well is the limit then; none where all did, were but slow, or no time is left to try.
    pub(super) fn count(&self, say: &mut dyn FnMut(u32)) -> Option<u32> {
        let mut good = 1;
        for count in steps(self.limit) {
            // Building and stopping them takes time too.
            if Instant::now() + self.patience + self.patience / 2 > self.until {
                return None;
            }
            match self.run(count) {
                Ran::Whole => {}
                Ran::Late => return None,
                Ran::Failed => return Some(good),
            }
            say(count);
            good = count;
        }
        None
    }

    fn run(&self, count: u32) -> Ran {
        let meeting = Arc::new(Meeting::default());
        thread::scope(|scope| {
            let running: Vec<_> = (0..count)
                .map(|_| {
                    let meeting = Arc::clone(&meeting);
                    scope.spawn(move || {
                        let ran = self.one(count, &meeting);
                        if ran != Ran::Whole {
                            meeting.fail();
                        }
                        ran
                    })
                })
                .collect();
            let ran: Vec<Ran> = running.into_iter().map(|one| one.join().unwrap_or(Ran::Failed)).collect();
            let worst = [Ran::Failed, Ran::Late].into_iter().find(|worst| ran.contains(worst));
            worst.unwrap_or(Ran::Whole)
        })
    }

    fn one(&self, all: u32, meeting: &Arc<Meeting>) -> Ran {
        let Ok(driven) = (self.build)() else { return Ran::Failed };
        let (feed, meeting, patience) = (Arc::clone(&self.feed), Arc::clone(meeting), self.patience);
        // It has been fed, and waits for the others; or they let it down.
        let for_others = Arc::new(AtomicBool::new(false));
        let waits = Arc::clone(&for_others);
        let ran = driven.segment(Patience::fixed(patience), move |chain| {
            feed(chain)?;
            waits.store(true, Ordering::Release);
            if meeting.wait(all, patience) {
                waits.store(false, Ordering::Release);
                return Ok(());
            }
            Err(gst::FlowError::Error)
        });
        let seen = driven.seen();
        match ran {
            Ok(_) if seen.pictures == self.pictures => Ran::Whole,
            // Another was not whole, and says itself how it went.
            Err(_) if for_others.load(Ordering::Acquire) => Ran::Late,
            Err(fault) if fault.code == Code::WorkerHung && was_moving(seen, patience) => Ran::Late,
            Ok(_) | Err(_) => Ran::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_stood_still_for_half_of_its_time_was_not_slow() {
        let ten = Duration::from_secs(10);
        assert!(!was_moving(Seen::default(), ten), "nothing came");
        assert!(was_moving(Seen { pictures: 1, last: Some(Instant::now()) }, ten));
        let last = Instant::now().checked_sub(Duration::from_secs(6));
        assert!(!was_moving(Seen { pictures: 1, last }, ten));
    }

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
