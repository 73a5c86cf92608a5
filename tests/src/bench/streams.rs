//! 1, 2, 4 and 8 streams at once on two cores: together they must not do less than one, and none may starve.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Lab, Must, RUNGS, Row, ladder, median};
use crate::process::binary;
use crate::worker::Worker;

const AT_ONCE: [usize; 4] = [1, 2, 4, 8];

/// Until every worker is in the middle of its work.
const LEAD: Duration = Duration::from_secs(3);

/// Encoded frames a second of each of `count` workers, side by side, once all are at work.
fn rates(lab: &Lab, count: usize, window: Duration) -> Result<Vec<f64>> {
    let bytes = fs::read(&lab.segments[1])?;
    let ladder = ladder("h264", "ts")?;
    let mut workers = (0..count)
        .map(|_| {
            let mut command = Command::new("taskset");
            command.args(["-c", "0,1"]).arg(binary("headwater-worker")?);
            Worker::start_command(command, &ladder)
        })
        .collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let from = Instant::now() + LEAD;
        let running: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                let bytes = &bytes;
                scope.spawn(move || worker.frames_between(bytes, RUNGS.len(), from, from + window))
            })
            .collect();
        running
            .into_iter()
            .map(|one| one.join().map_err(|_| anyhow::anyhow!("a stream's thread panicked"))?)
            .collect()
    })
}

/// The least that a figure of `totals` is of the best one before it.
fn least_kept(totals: &[f64]) -> f64 {
    let mut best = 0.0_f64;
    let kept = totals.iter().map(|total| {
        best = best.max(*total);
        total / best
    });
    kept.fold(1.0, f64::min)
}

pub fn rows(lab: &Lab, window: Duration) -> Result<Vec<Row>> {
    let mut totals: Vec<Vec<f64>> = vec![Vec::new(); AT_ONCE.len()];
    let mut shares: Vec<Vec<f64>> = vec![Vec::new(); AT_ONCE.len()];
    for round in 0..lab.rounds {
        eprintln!("  streams at once: round {} of {}", round + 1, lab.rounds);
        for (at, &count) in AT_ONCE.iter().enumerate() {
            let rates = rates(lab, count, window)?;
            let most = rates.iter().copied().fold(0.0, f64::max);
            let least = rates.iter().copied().fold(f64::MAX, f64::min);
            totals[at].push(rates.iter().sum());
            shares[at].push(least / most);
        }
    }
    let totals: Vec<f64> = totals.iter_mut().map(|totals| median(totals)).collect();
    let note: Vec<String> = AT_ONCE
        .iter()
        .zip(&totals)
        .map(|(count, total)| format!("{count}: {:.1} fps", total / RUNGS.len() as f64))
        .collect();
    let fairest = shares.iter_mut().map(|shares| median(shares)).reduce(f64::min).context("no shares")?;
    Ok(vec![
        Row::new(
            "streams at once: throughput against the best of fewer, worst",
            least_kept(&totals),
            "x",
            // Turns of one and the same load differ by a few percent on a shared machine.
            Must::AtLeast(0.95),
            note.join(", "),
        ),
        Row::new(
            "streams at once: slowest against fastest, worst",
            fairest,
            "x",
            Must::AtLeast(0.5),
            "least and most frames of 1, 2, 4 and 8 workers on two cores",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_slide_is_held_against_the_best_and_not_the_last() {
        assert_eq!(least_kept(&[50.0, 100.0, 96.0, 92.0]), 0.92);
        assert_eq!(least_kept(&[50.0, 40.0, 100.0]), 0.8);
        assert_eq!(least_kept(&[50.0, 60.0, 70.0]), 1.0);
    }
}
