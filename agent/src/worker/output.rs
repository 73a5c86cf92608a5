//! What a worker and the libraries inside it print, on standard output or standard error: one pipe for both.
//!
//! Vendors' libraries print what they like, as much as they like. The end of it is kept as evidence; some of it
//! goes to the agent's log at level debug, as part of the segment in work; the rest is counted. A library that
//! floods the pipe waits in its own write, so that it cannot make the agent busy.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep_until};

/// Last bytes that are kept as evidence.
const TAIL: usize = 8 * 1024;
/// Bytes a second that are read: far more than a talkative driver's line per frame and rendition.
const READ: usize = 8 << 20;
/// Bytes a second that go to the agent's log.
const LOGGED: usize = 4 * 1024;
const WINDOW: Duration = Duration::from_secs(1);

/// So many bytes a second.
#[derive(Debug)]
struct Budget {
    most: usize,
    left: usize,
    since: Instant,
}

impl Budget {
    fn new(most: usize, now: Instant) -> Self {
        Self { most, left: most, since: now }
    }

    /// Takes `wanted` or what is left of this second's.
    fn take(&mut self, wanted: usize, now: Instant) -> usize {
        if now >= self.since + WINDOW {
            (self.left, self.since) = (self.most, now);
        }
        let granted = wanted.min(self.left);
        self.left -= granted;
        granted
    }
}

#[derive(Debug)]
struct Kept {
    bytes: VecDeque<u8>,
    /// The segment in work, for the log.
    span: tracing::Span,
}

/// The end of what a worker has printed.
#[derive(Debug, Clone)]
pub(crate) struct Output(Arc<Mutex<Kept>>);

impl Output {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Kept { bytes: VecDeque::new(), span: tracing::Span::none() })))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here can be half done; the bytes are only evidence.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is printed from now on is part of this segment's log.
    pub(crate) fn belongs_to(&self, span: tracing::Span) {
        self.lock().span = span;
    }

    fn push(&self, bytes: &[u8]) {
        let kept = &mut self.lock().bytes;
        let new = &bytes[bytes.len().saturating_sub(TAIL)..];
        let excess = (kept.len() + new.len()).saturating_sub(TAIL);
        kept.drain(..excess);
        kept.extend(new);
    }

    pub(crate) fn text(&self) -> String {
        tame(self.lock().bytes.make_contiguous())
    }
}

/// Text without control characters: a terminal that shows it must not obey it.
fn tame(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let harmless = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}

/// Reads until the last process that holds the other end is gone.
pub(super) async fn follow(mut pipe: Receiver, output: Output) {
    let now = Instant::now();
    let (mut reading, mut logging) = (Budget::new(READ, now), Budget::new(LOGGED, now));
    let mut unsaid = 0;
    let mut buffer = [0; 8 * 1024];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let (new, now) = (&buffer[..count], Instant::now());
        output.push(new);
        let said = logging.take(count, now);
        if said > 0 {
            let span = output.lock().span.clone();
            let dropped = std::mem::take(&mut unsaid);
            span.in_scope(|| tracing::debug!(target: "worker", dropped, "{}", tame(&new[..said]).trim_end()));
        }
        unsaid += count - said;
        if reading.take(count, now) < count {
            sleep_until(reading.since + WINDOW).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn evidence_is_the_end_of_what_was_written_however_much_it_was() {
        let output = Output::new();
        for _ in 0..100 {
            output.push(&[b'x'; 3000]);
        }
        output.push(b"last");
        assert_eq!(output.text().len(), TAIL);
        assert!(output.text().ends_with("xlast"));
        output.push(&[b'y'; 3 * TAIL]);
        assert_eq!(output.text(), "y".repeat(TAIL));
    }

    #[test]
    fn garbage_becomes_text_that_no_terminal_obeys() {
        let output = Output::new();
        output.push(b"fine\n\x1b[2Jgone\xff\0");
        assert_eq!(output.text(), "fine\n\u{fffd}[2Jgone\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_second_has_its_bytes_and_no_more() {
        let now = Instant::now();
        let mut budget = Budget::new(10, now);
        assert_eq!([budget.take(6, now), budget.take(6, now), budget.take(6, now)], [6, 4, 0]);
        assert_eq!(budget.take(6, now + WINDOW), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_no_faster_than_the_budget() {
        let (read, mut write) = std::io::pipe().unwrap();
        let pipe = Receiver::from_owned_fd(read.into()).unwrap();
        let output = Output::new();
        let began = Instant::now();
        let writing = std::thread::spawn(move || {
            for _ in 0..3 * READ / 4096 {
                write.write_all(&[b'x'; 4096]).unwrap();
            }
            write.write_all(b"end").unwrap();
        });
        follow(pipe, output.clone()).await;
        writing.join().unwrap();
        // The clock is the test's: only `follow` itself moves it.
        assert!(began.elapsed() >= 2 * WINDOW, "{:?}", began.elapsed());
        assert!(output.text().ends_with("end"));
    }
}
