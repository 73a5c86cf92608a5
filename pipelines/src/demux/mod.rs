//! Containers to elementary streams.

use bytes::Bytes;
use headwater_protocol::{Container, Fault};

use crate::es::Item;

/// Reads one segment. What the bytes are decides, not what they are called: `container` is only a hint.
#[derive(Debug)]
pub struct Demuxer {
    container: Container,
}

impl Demuxer {
    pub fn new(container: Container) -> Self {
        Self { container }
    }

    /// Takes more bytes, appends what is whole to `out`.
    pub fn push(&mut self, _bytes: Bytes, _out: &mut Vec<Item>) -> Result<(), Fault> {
        Ok(())
    }

    /// No more bytes will come: appends the rest.
    pub fn finish(&mut self, _out: &mut Vec<Item>) -> Result<(), Fault> {
        Ok(())
    }

    /// What the bytes turned out to be; the hint until a few have come.
    pub fn container(&self) -> Container {
        self.container
    }

    /// Continuity errors and broken packets so far.
    pub fn errors(&self) -> u32 {
        0
    }
}
