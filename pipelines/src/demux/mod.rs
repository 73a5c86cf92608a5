//! Containers to elementary streams.
//!
//! ```text
//! bytes ─▶ sniff ─┬─▶ ts  ─▶ psi, au ─┬─▶ Item::{Tracks, Video, Audio}
//!                 ├─▶ mp4 ─▶ boxes ───┤
//!                 └─▶ mkv ─▶ EBML ────┘
//! ```

mod au;
mod error;
pub(crate) mod mkv;
pub(crate) mod mp4;
mod pes;
mod psi;
mod route;
pub(crate) mod sniff;
mod ts;

use bytes::{Bytes, BytesMut};
use headwater_protocol::{Container, Fault};

pub use self::error::DemuxError;
use self::ts::TsDemuxer;
use crate::es::Item;

pub(crate) use self::psi::crc32;

/// A segment may have this many bytes.
pub const MAX_BYTES: u64 = 300 << 20;

/// Reads one segment. What the bytes are decides, not what they are called.
///
/// `Item::Tracks` comes before the first frame. Transport streams give items as bytes come in; MP4 and
/// Matroska give them at the end, where the index of the one may be.
#[derive(Debug)]
pub struct Demuxer {
    hint: Container,
    inner: Inner,
    bytes: u64,
    limit: u64,
    /// Of an MP4.
    errors: u32,
    matroska: bool,
}

#[derive(Debug)]
enum Inner {
    /// Too few bytes to tell.
    Unknown(BytesMut),
    Ts(Box<TsDemuxer>),
    Mp4(BytesMut),
}

impl Demuxer {
    pub fn new(container: Container) -> Self {
        Self {
            hint: container,
            inner: Inner::Unknown(BytesMut::new()),
            bytes: 0,
            limit: MAX_BYTES,
            errors: 0,
            matroska: false,
        }
    }

    /// For files that are read in pieces and are no segments.
    pub(crate) fn without_limit(container: Container) -> Self {
        Self { limit: u64::MAX, ..Self::new(container) }
    }

    /// Takes more bytes, appends what is whole to `out`.
    pub fn push(&mut self, bytes: Bytes, out: &mut Vec<Item>) -> Result<(), Fault> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.limit {
            return Err(DemuxError::TooLarge { max: self.limit }.into());
        }
        Ok(self.feed(bytes, false, out)?)
    }

    /// No more bytes will come: appends the rest.
    pub fn finish(&mut self, out: &mut Vec<Item>) -> Result<(), Fault> {
        self.feed(Bytes::new(), true, out)?;
        match &mut self.inner {
            Inner::Unknown(_) => {}
            Inner::Ts(ts) => ts.finish(out)?,
            Inner::Mp4(data) => self.errors = mp4::demux(&std::mem::take(data).freeze(), out)?,
        }
        Ok(())
    }

    fn feed(&mut self, bytes: Bytes, all: bool, out: &mut Vec<Item>) -> Result<(), DemuxError> {
        match &mut self.inner {
            Inner::Unknown(head) => {
                head.extend_from_slice(&bytes);
                match sniff::sniff(head, all)? {
                    None => {}
                    Some(Container::Ts) => {
                        let head = std::mem::take(head);
                        let mut ts = Box::new(TsDemuxer::new());
                        let result = ts.push(&head, out);
                        self.inner = Inner::Ts(ts);
                        result?;
                    }
                    Some(Container::Mp4) => {
                        self.matroska = head.starts_with(mkv::MAGIC);
                        self.inner = Inner::Mp4(std::mem::take(head));
                    }
                    Some(Container::Jpeg) => {
                        return Err(DemuxError::OtherContainer { name: "a JPEG picture" });
                    }
                }
                Ok(())
            }
            Inner::Ts(ts) => ts.push(&bytes, out),
            Inner::Mp4(data) => {
                data.extend_from_slice(&bytes);
                Ok(())
            }
        }
    }

    /// What the bytes turned out to be; the hint until a few have come. Matroska counts as MP4, for both are read
    /// by an index of samples.
    pub fn container(&self) -> Container {
        match self.inner {
            Inner::Unknown(_) => self.hint,
            Inner::Ts(_) => Container::Ts,
            Inner::Mp4(_) => Container::Mp4,
        }
    }

    /// Read only: no output is one.
    pub(crate) fn is_matroska(&self) -> bool {
        self.matroska
    }

    /// Continuity errors and broken packets so far.
    pub fn errors(&self) -> u32 {
        match &self.inner {
            Inner::Ts(ts) => ts.errors(),
            Inner::Unknown(_) | Inner::Mp4(_) => self.errors,
        }
    }
}
