//! How soon a worker gives its first byte.

use std::fs;
use std::time::Instant;

use anyhow::Result;

use super::{Lab, Must, RUNGS, Row, ladder, median};
use crate::process::binary;
use crate::worker::Worker;

pub fn rows(lab: &Lab) -> Result<Vec<Row>> {
    let (mut ready, mut first, mut both) = (Vec::new(), Vec::new(), Vec::new());
    let bytes = fs::read(&lab.segments[0])?;
    let ladder = ladder("h264", "ts")?;
    for _ in 0..lab.rounds.max(5) {
        let started = Instant::now();
        let mut worker = Worker::start(&binary("headwater-worker")?, &ladder)?;
        let waited = started.elapsed().as_secs_f64() * 1e3;
        let (_, byte) = worker.first_byte(&bytes, RUNGS.len())?;
        let byte = byte.as_secs_f64() * 1e3;
        ready.push(waited);
        first.push(byte);
        both.push(waited + byte);
    }
    Ok(vec![
        Row::new(
            "a pre-warmed worker's first output byte",
            median(&mut first),
            "ms",
            Must::AtMost(150.0),
            "after Ready: from the start of its first segment to the first byte of any rung, 1080p30 to four rungs",
        ),
        Row::new(
            "start of a worker to its being pre-warmed",
            median(&mut ready),
            "ms",
            Must::Nothing,
            format!("exec to Ready; with the first byte {:.0} ms", median(&mut both)),
        ),
    ])
}
