//! One stream of a transport stream: the payloads of its packets to PES, and those to frames or to packets of sound.

use bytes::{Bytes, BytesMut};

use super::au::Assembler;
use super::pes::{Header, Judge, Parsed, Unwrap, parse_header};
use super::sniff::PACKET;
use crate::es::{AudioPacket, Item, Ticks};

/// An audio PES is at most 64 KiB; packets that go on without end are cut here.
const MAX_AUDIO: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Time {
    unwrap: Unwrap,
    /// The program's latest clock reference.
    pub(super) clock: Option<u64>,
}

/// Where a PID's payload goes.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) pid: u16,
    pes: Pes,
    judge: Judge,
    pub(super) sink: Sink,
    /// The last packet: a repeated one is the same to the byte.
    pub(super) last: [u8; PACKET],
}

#[derive(Debug)]
pub(super) enum Sink {
    Video(Box<Assembler>),
    Audio(Audio),
}

#[derive(Debug)]
pub(super) struct Audio {
    pub(super) track: usize,
    data: BytesMut,
    pts: Option<i64>,
}

#[derive(Debug)]
enum Pes {
    /// No start seen, or a broken one.
    Closed,
    /// A header that goes on in the next packet.
    Header(Vec<u8>),
    /// `left` bytes to come, where the header says it.
    Open { left: Option<usize> },
}

impl Route {
    pub(super) fn new(pid: u16, sink: Sink) -> Self {
        Self { pid, pes: Pes::Closed, judge: Judge::default(), sink, last: [0; PACKET] }
    }

    pub(super) fn payload(
        &mut self,
        start: bool,
        payload: &[u8],
        time: &mut Time,
        errors: &mut u32,
        out: &mut Vec<Item>,
    ) {
        if start {
            if let Sink::Video(assembler) = &mut self.sink {
                *errors += assembler.drain(&mut |frame| out.push(Item::Video(frame)));
            }
            self.pes = Pes::Header(Vec::new());
        }
        let mut rest = payload;
        let joined;
        if let Pes::Header(head) = &mut self.pes {
            let before = head.len();
            let parsed = if before == 0 {
                parse_header(payload)
            } else {
                head.extend_from_slice(payload);
                parse_header(head)
            };
            match parsed {
                Parsed::More => {
                    if before == 0 {
                        head.extend_from_slice(payload);
                    }
                    return;
                }
                Parsed::Bad => {
                    *errors += 1;
                    self.pes = Pes::Closed;
                    return;
                }
                Parsed::Header(header) => {
                    if before > 0 {
                        joined = std::mem::take(head);
                        rest = &joined;
                    }
                    rest = &rest[header.len..];
                    self.pes = Pes::Open { left: header.payload };
                    *errors += self.begin(&header, time, out);
                }
            }
        }
        let Pes::Open { left } = &mut self.pes else { return };
        if let Some(left) = left {
            rest = &rest[..rest.len().min(*left)];
            *left -= rest.len();
        }
        match &mut self.sink {
            Sink::Video(assembler) => assembler.extend(rest),
            Sink::Audio(audio) => {
                audio.data.extend_from_slice(rest);
                if audio.data.len() > MAX_AUDIO {
                    audio.flush(out);
                }
            }
        }
    }

    /// Returns how many timestamps were damaged.
    fn begin(&mut self, header: &Header, time: &mut Time, out: &mut Vec<Item>) -> u32 {
        let mut errors = 0;
        let mut read = |stamp: u64| {
            let sound = self.judge.is_sound(stamp, time.clock);
            errors += u32::from(!sound);
            sound.then(|| time.unwrap.unwrap(stamp))
        };
        let dts = header.dts.and_then(&mut read);
        let pts = header.pts.and_then(read);
        match &mut self.sink {
            Sink::Video(assembler) => assembler.mark(pts, dts),
            Sink::Audio(audio) => {
                // Without a time of its own it goes on where the last one ended.
                if pts.is_some() {
                    audio.flush(out);
                    audio.pts = pts;
                }
            }
        }
        errors
    }

    /// Returns how many frames were broken.
    pub(super) fn end(&mut self, out: &mut Vec<Item>) -> u32 {
        self.pes = Pes::Closed;
        match &mut self.sink {
            Sink::Video(assembler) => assembler.finish(&mut |frame| out.push(Item::Video(frame))),
            Sink::Audio(audio) => {
                audio.flush(out);
                0
            }
        }
    }
}

impl Audio {
    pub(super) fn new(track: usize) -> Self {
        Self { track, data: BytesMut::new(), pts: None }
    }

    pub(super) fn flush(&mut self, out: &mut Vec<Item>) {
        if self.data.is_empty() {
            return;
        }
        let data: Bytes = self.data.split().freeze();
        // Before the first timestamp there is nothing to place it by.
        if let Some(pts) = self.pts {
            out.push(Item::Audio(AudioPacket { track: self.track, pts: Ticks(pts), data }));
        }
    }
}
