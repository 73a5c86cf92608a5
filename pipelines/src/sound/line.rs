//! Where samples belong on the line that an encoder is fed: without a gap, without an overlap, true to the clock.

use crate::es::{CLOCK, Ticks};

/// Silence fills a longer hole than this nowhere: the encoder begins anew behind it, and the hole stays one.
pub(super) const MAX_HOLE: i64 = 10 * CLOCK;
/// Sound that comes again for less than this is left out; a clock further back has jumped.
pub(super) const MAX_AGAIN: i64 = CLOCK;
/// Stamps are rounded, and some clocks count milliseconds: what is nearer than this follows at once.
pub(super) const SLACK: i64 = CLOCK / 100;

/// `samples` of `rate` in ticks, to the nearest.
pub(super) fn to_ticks(samples: i64, rate: u32) -> i64 {
    div(i128::from(samples) * i128::from(CLOCK), i128::from(rate.max(1)))
}

/// Ticks in samples of `rate`, to the nearest.
pub(super) fn to_samples(ticks: i64, rate: u32) -> i64 {
    div(i128::from(ticks) * i128::from(rate), i128::from(CLOCK))
}

fn div(a: i128, b: i128) -> i64 {
    (2 * a + b).div_euclid(2 * b) as i64
}

/// What to do with sound that does not follow what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// First so much silence, then the sound.
    Silence(i64),
    /// The sound without so many samples at its start.
    Skip(i64),
    /// The clock has jumped: what was written ends, and the sound begins a new line.
    Restart,
}

#[derive(Debug)]
pub(super) struct Line {
    rate: u32,
    origin: Ticks,
    written: i64,
}

impl Line {
    pub(super) fn new(rate: u32, origin: Ticks) -> Self {
        Self { rate, origin, written: 0 }
    }

    pub(super) fn write(&mut self, samples: i64) {
        self.written += samples;
    }

    pub(super) fn place(&self, at: Ticks) -> Step {
        let gap = at.0 - self.origin.0 - to_ticks(self.written, self.rate);
        if !(-MAX_AGAIN..=MAX_HOLE).contains(&gap) {
            return Step::Restart;
        }
        match to_samples(at.0 - self.origin.0, self.rate) - self.written {
            hole @ 0.. => Step::Silence(hole),
            again => Step::Skip(-again),
        }
    }
}

/// Decides whether a decoded frame follows the one before: samples of one rate from `start` on.
#[derive(Debug)]
pub(super) struct Run {
    start: Ticks,
    rate: u32,
    samples: i64,
}

impl Run {
    pub(super) fn new(start: Ticks, rate: u32) -> Self {
        Self { start, rate, samples: 0 }
    }

    pub(super) fn end(&self) -> Ticks {
        Ticks(self.start.0 + to_ticks(self.samples, self.rate))
    }

    /// None: the frame goes on wherever the last one ended.
    pub(super) fn goes_on(&self, at: Option<Ticks>) -> bool {
        at.is_none_or(|at| (at.0 - self.end().0).abs() <= SLACK)
    }

    pub(super) fn add(&mut self, samples: i64) {
        self.samples += samples;
    }

    /// All of it at another rate.
    pub(super) fn samples_at(&self, rate: u32) -> i64 {
        div(i128::from(self.samples) * i128::from(rate), i128::from(self.rate.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_and_ticks_are_rounded_to_the_nearest() {
        assert_eq!((to_ticks(1024, 48_000), to_ticks(1024, 44_100)), (1920, 2090));
        assert_eq!((to_samples(1920, 48_000), to_samples(2090, 44_100)), (1024, 1024));
        assert_eq!((to_ticks(-1024, 48_000), to_samples(-1, 48_000)), (-1920, -1));
    }

    #[test]
    fn sound_is_placed_by_its_time() {
        let mut line = Line::new(48_000, Ticks(1000));
        line.write(4800);
        assert_eq!(line.place(Ticks(1000 + 9000)), Step::Silence(0));
        assert_eq!(line.place(Ticks(1000 + 9000 + 900)), Step::Silence(480));
        assert_eq!(line.place(Ticks(1000 + 9000 - 900)), Step::Skip(480));
        assert_eq!(line.place(Ticks(1000 + 9000 + MAX_HOLE + 1)), Step::Restart);
        assert_eq!(line.place(Ticks(1000 + 9000 - MAX_AGAIN - 1)), Step::Restart);
    }

    #[test]
    fn a_million_frames_with_rounded_stamps_are_one_run() {
        let mut run = Run::new(Ticks(77), 44_100);
        for frame in 0..1_000_000 {
            assert!(run.goes_on(Some(Ticks(77 + to_ticks(frame * 1024, 44_100)))), "frame {frame}");
            run.add(1024);
        }
        assert!(!run.goes_on(Some(Ticks(run.end().0 + SLACK + 1))));
        assert_eq!(run.samples_at(88_200), 2 * 1024 * 1_000_000);
    }
}
