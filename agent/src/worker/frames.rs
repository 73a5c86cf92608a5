//! Frames over a worker's socket.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use headwater_protocol::worker::{HEADER, Header, Kind, MAX_PAYLOAD};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::WorkerError;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) payload: Bytes,
}

impl Frame {
    pub(crate) fn parse<T: serde::de::DeserializeOwned>(&self, what: &'static str) -> Result<T, WorkerError> {
        serde_json::from_slice(&self.payload).map_err(|source| WorkerError::Payload { what, source })
    }
}

/// Both ends of our side of the socket.
pub(super) fn split(socket: UnixStream) -> (Reader, Writer) {
    let (read, write) = socket.into_split();
    (Reader { socket: read, buffer: BytesMut::new() }, Writer { socket: write })
}

/// Reads frames. Waiting for one may be abandoned at any time without loss.
#[derive(Debug)]
pub(crate) struct Reader {
    socket: OwnedReadHalf,
    buffer: BytesMut,
}

impl Reader {
    /// The next frame, or None at the end of the socket.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, WorkerError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn take(&mut self) -> Result<Option<Frame>, WorkerError> {
        let Some(head) = self.buffer.first_chunk::<HEADER>() else {
            self.buffer.reserve(64 * 1024);
            return Ok(None);
        };
        let header = Header::decode(*head)?;
        let whole = HEADER + header.length as usize;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let payload = self.buffer.split_to(header.length as usize).freeze();
        Ok(Some(Frame { header, payload }))
    }
}

/// Writes frames. A write that is abandoned leaves half a frame, so the worker must be killed after that.
#[derive(Debug)]
pub(crate) struct Writer {
    socket: OwnedWriteHalf,
}

impl Writer {
    pub(crate) async fn data(&mut self, tag: u16, bytes: Bytes) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(MAX_PAYLOAD));
            self.frame(Kind::Data, tag, part).await?;
        }
        Ok(())
    }

    pub(crate) async fn empty(&mut self, kind: Kind, tag: u16) -> io::Result<()> {
        self.frame(kind, tag, Bytes::new()).await
    }

    pub(crate) async fn message(&mut self, kind: Kind, tag: u16, message: &impl Serialize) -> io::Result<()> {
        let payload = serde_json::to_vec(message)?;
        self.frame(kind, tag, payload.into()).await
    }

    async fn frame(&mut self, kind: Kind, tag: u16, payload: Bytes) -> io::Result<()> {
        // Callers cut media to MAX_PAYLOAD, and messages are far smaller.
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let header = Header { length, kind, channel: 0, tag }.encode();
        let mut both = Buf::chain(&header[..], payload);
        self.socket.write_all_buf(&mut both).await
    }
}
