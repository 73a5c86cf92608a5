//! 1, 2, 4 and 8 streams at once on two cores: together they must not do less than one, and none may starve.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{Lab, Must, RUNGS, Row, ladder, median};
use crate::process::binary;
use crate::worker::Worker;

const AT_ONCE: [usize; 4] = [1, 2, 4, 8];
const FIRST: usize = 0;

/// Encoded frames a second of each of `count` workers, side by side.
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
        let until = Instant::now() + window;
        let running: Vec<_> = workers
            .iter_mut()
            .map(|worker| {
                let bytes = &bytes;
                scope.spawn(move || worker.frames_until(bytes, RUNGS.len(), until))
            })
            .collect();
        running
            .into_iter()
            .map(|one| one.join().map_err(|_| anyhow::anyhow!("a stream's thread panicked"))?)
            .collect()
    })
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
    let one = median(&mut totals[FIRST].clone());
    let mut note = Vec::new();
    let mut worst = f64::MAX;
    let mut before = one;
    for (at, count) in AT_ONCE.iter().enumerate() {
        let total = median(&mut totals[at]);
        worst = worst.min(total / before);
        before = total;
        note.push(format!("{count}: {:.1} fps", total / RUNGS.len() as f64));
    }
    let fairest = shares.iter_mut().map(|shares| median(shares)).reduce(f64::min).context("no shares")?;
    Ok(vec![
        Row::new(
            "streams at once: throughput against half as many, worst",
            worst,
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
