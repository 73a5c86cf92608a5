//! What is shown while something long runs: a bar on a terminal, a line every few seconds in a log, or nothing.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::human;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Progress(Kind);

#[derive(Debug)]
enum Kind {
    None,
    Bar(ProgressBar),
    Lines { last: Cell<Instant> },
}

/// How far a push is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) segments: u64,
    pub(crate) failed: u64,
    /// Media of the segments that are back.
    pub(crate) done: Duration,
    /// Of the whole input; zero where nobody knows.
    pub(crate) total: Duration,
    pub(crate) elapsed: Duration,
}

impl Progress {
    pub(crate) fn none() -> Self {
        Self(Kind::None)
    }

    pub(crate) fn new(quiet: bool) -> Self {
        if quiet {
            return Self::none();
        }
        if !std::io::stderr().is_terminal() {
            return Self(Kind::Lines { last: Cell::new(Instant::now()) });
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(Kind::Bar(bar))
    }

    /// Bytes of a download or of standard input.
    pub(crate) fn reading(&self, bytes: u64, of: Option<u64>) {
        let text = || match of {
            Some(of) => format!("reading the input: {} of {}", human::bytes(bytes), human::bytes(of)),
            None => format!("reading the input: {}", human::bytes(bytes)),
        };
        self.show(text, bytes, of.unwrap_or(0));
    }

    pub(crate) fn step(&self, step: &Step) {
        self.show(|| line(step), step.done.as_millis() as u64, step.total.as_millis() as u64);
    }

    /// So many of so many things, in the caller's words.
    pub(crate) fn at(&self, text: &str, done: u64, of: u64) {
        self.show(|| text.to_owned(), done, of);
    }

    fn show(&self, text: impl FnOnce() -> String, position: u64, length: u64) {
        match &self.0 {
            Kind::None => {}
            Kind::Bar(bar) => {
                bar.set_length(length.max(position));
                bar.set_position(position);
                bar.set_message(text());
            }
            Kind::Lines { last } => {
                if last.get().elapsed() >= LINE_EVERY {
                    last.set(Instant::now());
                    eprintln!("{}", text());
                }
            }
        }
    }

    /// A sentence that stays, above the bar.
    pub(crate) fn note(&self, text: &str) {
        match &self.0 {
            Kind::None => {}
            Kind::Bar(bar) => bar.println(text),
            Kind::Lines { .. } => eprintln!("{text}"),
        }
    }

    pub(crate) fn clear(&self) {
        if let Kind::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// What matters comes first: a narrow terminal cuts off the end, never breaks the line.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner:.cyan} {bar:12.cyan/238} {percent:>3}%  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

fn line(step: &Step) -> String {
    let Step { segments, failed, done, total, elapsed } = *step;
    let mut text = human::span(done);
    if !total.is_zero() {
        text = format!("{text} of {}", human::span(total));
    }
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 && !done.is_zero() {
        let speed = done.as_secs_f64() / seconds;
        text = format!("{text}, {speed:.2} x real time");
        let left = total.saturating_sub(done).as_secs_f64() / speed;
        if left.is_finite() && left > 0.0 {
            text = format!("{text}, {} left", human::span(Duration::from_secs_f64(left.ceil())));
        }
    }
    if failed > 0 {
        text = format!("{text}, {failed} failed");
    }
    format!("{text}, {}", human::count(segments as usize, "segment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_done_how_fast_and_what_is_left() {
        let mut step = Step {
            segments: 3,
            failed: 0,
            done: Duration::from_secs(6),
            total: Duration::from_secs(60),
            elapsed: Duration::from_secs(2),
        };
        assert_eq!(line(&step), "6.00 s of 60.0 s, 3.00 x real time, 18.0 s left, 3 segments");
        step.total = Duration::ZERO;
        step.failed = 1;
        assert_eq!(line(&step), "6.00 s, 3.00 x real time, 1 failed, 3 segments");
    }
}
