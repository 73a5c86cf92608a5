//! `split`: a file's segments on standard output, in the frames of [`headwater_protocol::worker`].
//!
//! ```text
//! Ready  (Segment Data… End)…        then the end of the output and status 0
//!        Failed                      at any point, with a fault, and status 1
//! ```

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use headwater_protocol::worker::{Kind, MAX_PAYLOAD, SegmentStart};
use headwater_protocol::{Container, Fault};

use crate::serve::{write_frame, write_message};
use crate::split::{SplitSegment, inspect, split};

/// Payload of the first frame: what the file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Zero where the file does not tell.
    pub duration_ms: u64,
    pub bytes: u64,
    pub container: Container,
    pub worker_version: String,
}

/// Why a file was not cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    #[error("{0}")]
    Input(Fault),
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Cuts the file; a fault is told on the output as well.
pub fn cut(input: &Path, target: Duration) -> Result<(), CutError> {
    // Not `Stdout`, which looks for line ends in the media.
    let mut output = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let done = segments(input, target, &mut output);
    if let Err(CutError::Input(fault)) = &done {
        write_message(&mut output, Kind::Failed, 0, 0, fault)?;
    }
    done
}

fn segments(input: &Path, target: Duration, output: &mut impl io::Write) -> Result<(), CutError> {
    let found = inspect(input).map_err(CutError::Input)?;
    let found = Found {
        duration_ms: found.duration.map_or(0, |duration| duration.0),
        bytes: found.bytes,
        container: found.container,
        worker_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    write_message(output, Kind::Ready, 0, 0, &found)?;
    split(input, target, &mut |segment| write_segment(output, &segment)).map_err(CutError::Input)?;
    Ok(())
}

fn write_segment(output: &mut impl io::Write, segment: &SplitSegment) -> io::Result<()> {
    let tag = (segment.number & 0xffff) as u16;
    let start =
        SegmentStart { number: segment.number, container: segment.container, duration: segment.duration };
    write_message(output, Kind::Segment, 0, tag, &start)?;
    for piece in segment.bytes.chunks(MAX_PAYLOAD) {
        write_frame(output, Kind::Data, 0, tag, piece)?;
    }
    write_frame(output, Kind::End, 0, tag, &[])
}
