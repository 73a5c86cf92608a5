//! What the reader of the socket hands to the engine, in order and bounded.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_protocol::worker::{Open, SegmentStart};

use super::ServeError;

/// Input bytes that may wait. A full inbox stops the reading of the socket, and with it the agent's sending;
/// a cancel behind that much data is read as soon as the decoder has taken some.
const INBOX: usize = 32 << 20;
/// What a letter without bytes takes, so that many of them are bounded too.
const LETTER: usize = 64;

/// What waits for the engine.
#[derive(Debug)]
pub(super) enum Letter {
    Open(Box<Open>),
    Segment {
        start: SegmentStart,
        tag: u16,
        cancel: Arc<AtomicBool>,
    },
    Data {
        tag: u16,
        bytes: Bytes,
    },
    End {
        tag: u16,
    },
    /// Close, or the end of the socket.
    Close,
    Broken(ServeError),
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    letters: Mutex<(VecDeque<Letter>, usize)>,
    changed: Condvar,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<Letter>, usize)> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, letter: Letter) {
        let mut inbox = self.lock();
        while inbox.1 >= INBOX {
            inbox = self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        inbox.1 += size(&letter);
        inbox.0.push_back(letter);
        self.changed.notify_all();
    }

    /// The first letter if it comes within `wait` and `mine` says so of it.
    pub(super) fn take_if(&self, wait: Duration, mine: impl Fn(&Letter) -> bool) -> Taken {
        let deadline = Instant::now().checked_add(wait);
        let mut inbox = self.lock();
        loop {
            if let Some(first) = inbox.0.front() {
                if !mine(first) {
                    return Taken::NotMine;
                }
                let Some(letter) = inbox.0.pop_front() else { return Taken::Nothing };
                inbox.1 -= size(&letter);
                self.changed.notify_all();
                return Taken::Letter(letter);
            }
            let left = deadline.map_or(wait, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Taken::Nothing;
            }
            inbox = self.changed.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn take(&self) -> Letter {
        loop {
            // Idle between segments: the agent or the end of its socket ends the wait.
            if let Taken::Letter(letter) = self.take_if(Duration::from_secs(3600), |_| true) {
                return letter;
            }
        }
    }
}

pub(super) enum Taken {
    Letter(Letter),
    NotMine,
    Nothing,
}

fn size(letter: &Letter) -> usize {
    match letter {
        Letter::Data { bytes, .. } => LETTER + bytes.len(),
        Letter::Open(_) | Letter::Segment { .. } | Letter::End { .. } | Letter::Close | Letter::Broken(_) => {
            LETTER
        }
    }
}
