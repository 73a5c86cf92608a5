//! MPEG transport stream, read packet by packet.
//!
//! ```text
//! packets ─▶ PID ─┬─ 0, PMT ──▶ sections ──▶ streams
//!                 ├─ video ──▶ PES ──▶ assembler ──▶ frames
//!                 └─ audio ──▶ PES ──────────────▶ packets
//! ```
//!
//! A damaged stream is used as far as it goes: a lost packet leaves a hole in its access unit and drops
//! nothing else, for a decoder conceals better than a demuxer guesses.

use bytes::{Buf, Bytes, BytesMut};
use headwater_protocol::Codec;

use super::au::Assembler;
use super::error::DemuxError;
use super::pes::{Header, Parsed, Unwrap, parse_header};
use super::psi::{self, Kind, Section, Stream};
use super::sniff::{PACKET, SYNC, find_grid};
use crate::es::{AudioFormat, AudioPacket, Item, Ticks, Tracks, VideoTrack};

/// Bytes kept until the program is known, so that what lies before a late PMT is not lost.
const MAX_HELD: usize = 8 << 20;

/// An audio PES is at most 64 KiB; packets that go on without end are cut here.
const MAX_AUDIO: usize = 1 << 20;

const PIDS: usize = 0x2000;
const NULL_PID: u16 = 0x1fff;

#[derive(Debug)]
pub(super) struct TsDemuxer {
    /// Bytes that are not yet a packet.
    carry: BytesMut,
    /// Distance of packets; None until found, and where sync was lost.
    stride: Option<usize>,
    /// Packets since the start while no program is chosen.
    held: BytesMut,
    pat: Section,
    programs: Vec<Program>,
    chosen: Option<Chosen>,
    /// Last continuity counter by PID; 0xff before the first.
    counters: Box<[u8; PIDS]>,
    packets: u64,
    errors: u32,
    time: Unwrap,
}

#[derive(Debug)]
struct Program {
    pid: u16,
    section: Section,
    streams: Option<Vec<Stream>>,
}

#[derive(Debug)]
struct Chosen {
    pmt: u16,
    section: Section,
    streams: Vec<Stream>,
    routes: Vec<Route>,
}

/// Where a PID's payload goes.
#[derive(Debug)]
struct Route {
    pid: u16,
    pes: Pes,
    sink: Sink,
    /// The last packet: a repeated one is the same to the byte.
    last: [u8; PACKET],
}

#[derive(Debug)]
enum Sink {
    Video(Box<Assembler>),
    Audio(Audio),
}

#[derive(Debug)]
struct Audio {
    track: usize,
    data: BytesMut,
    pts: Option<i64>,
}

impl TsDemuxer {
    pub(super) fn new() -> Self {
        Self {
            carry: BytesMut::new(),
            stride: None,
            held: BytesMut::new(),
            pat: Section::default(),
            programs: Vec::new(),
            chosen: None,
            counters: Box::new([0xff; PIDS]),
            packets: 0,
            errors: 0,
            time: Unwrap::default(),
        }
    }

    pub(super) fn errors(&self) -> u32 {
        self.errors
    }

    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<Item>) -> Result<(), DemuxError> {
        self.carry.extend_from_slice(bytes);
        self.read(false, out)?;
        self.drain(out);
        Ok(())
    }

    pub(super) fn finish(&mut self, out: &mut Vec<Item>) -> Result<(), DemuxError> {
        self.read(true, out)?;
        self.carry.clear();
        if self.chosen.is_none() {
            // Not all tables came; one without video is better than none.
            let found = self.programs.iter().position(|p| p.streams.is_some());
            let index = found.ok_or(DemuxError::NoProgram { packets: self.packets })?;
            self.choose(index, out)?;
        }
        if let Some(chosen) = &mut self.chosen {
            for route in &mut chosen.routes {
                self.errors += route.end(out);
            }
        }
        Ok(())
    }

    /// Frames that became whole.
    fn drain(&mut self, out: &mut Vec<Item>) {
        for route in self.chosen.iter_mut().flat_map(|c| &mut c.routes) {
            if let Sink::Video(assembler) = &mut route.sink {
                self.errors += assembler.drain(&mut |frame| out.push(Item::Video(frame)));
            }
        }
    }

    fn read(&mut self, all: bool, out: &mut Vec<Item>) -> Result<(), DemuxError> {
        loop {
            let Some(stride) = self.stride else {
                if !self.resync(all) {
                    return Ok(());
                }
                continue;
            };
            if self.carry.len() < PACKET {
                return Ok(());
            }
            if self.carry[0] != SYNC {
                self.errors += 1;
                self.stride = None;
                continue;
            }
            let mut packet = [0; PACKET];
            packet.copy_from_slice(&self.carry[..PACKET]);
            if self.carry.len() < stride && !all {
                return Ok(());
            }
            self.carry.advance(stride.min(self.carry.len()));
            self.packet(&packet, out)?;
        }
    }

    /// Looks for packets in what there is. False: more bytes are needed.
    fn resync(&mut self, all: bool) -> bool {
        const ENOUGH: usize = 5 * 204;
        if self.carry.len() < ENOUGH && !all {
            return false;
        }
        if let Some(grid) = find_grid(&self.carry) {
            self.carry.advance(grid.offset);
            self.stride = Some(grid.stride);
            return true;
        }
        // The end of what there is may be the start of a row.
        let keep = if all { 0 } else { ENOUGH };
        let skip = self.carry.len().saturating_sub(keep).min(super::sniff::ENOUGH);
        self.carry.advance(skip);
        skip > 0 && self.carry.len() >= PACKET
    }

    fn packet(&mut self, packet: &[u8; PACKET], out: &mut Vec<Item>) -> Result<(), DemuxError> {
        self.packets += 1;
        let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
        if pid == NULL_PID {
            return Ok(());
        }
        if self.chosen.is_none() && self.held.len() < MAX_HELD {
            self.held.extend_from_slice(packet);
        }
        let Some(payload) = payload(packet) else { return Ok(()) };
        let start = packet[1] & 0x40 != 0;
        if pid == 0 {
            self.read_pat(start, payload);
            return Ok(());
        }
        if self.chosen.is_some() {
            return self.chosen_packet(pid, packet, payload, out);
        }
        if let Some(index) = self.programs.iter().position(|p| p.pid == pid) {
            let sections = self.programs[index].section.push(start, payload, &mut self.errors);
            if let Some(streams) = sections.iter().rev().find_map(|s| psi::parse_pmt(s)) {
                let has_video = streams.iter().any(|s| matches!(s.kind, Kind::Video(_)));
                self.programs[index].streams = Some(streams);
                if has_video || self.programs.iter().all(|p| p.streams.is_some()) {
                    self.choose(index, out)?;
                }
            }
        } else if self.programs.is_empty() && start && payload.get(1) == Some(&2) {
            // The PAT was lost, but this is a PMT if its CRC says so.
            let mut section = Section::default();
            let found = section.push(start, payload, &mut 0);
            if let Some(streams) = found.iter().find_map(|s| psi::parse_pmt(s)) {
                self.programs.push(Program { pid, section, streams: Some(streams) });
                self.choose(0, out)?;
            }
        }
        Ok(())
    }

    fn read_pat(&mut self, start: bool, payload: &[u8]) {
        for section in self.pat.push(start, payload, &mut self.errors) {
            let Some(pids) = psi::parse_pat(&section) else { continue };
            if self.chosen.is_none() {
                self.programs.retain(|p| pids.contains(&p.pid));
                for pid in pids {
                    if !self.programs.iter().any(|p| p.pid == pid) {
                        self.programs.push(Program { pid, section: Section::default(), streams: None });
                    }
                }
            } else if let Some(chosen) = &mut self.chosen
                && let [only] = pids[..]
                && only != chosen.pmt
            {
                // The one program there is has moved its table.
                chosen.pmt = only;
                chosen.section = Section::default();
            }
        }
    }

    /// Takes a program and reads again what came before its table.
    fn choose(&mut self, index: usize, out: &mut Vec<Item>) -> Result<(), DemuxError> {
        let program = self.programs.swap_remove(index);
        self.programs.clear();
        let streams = program.streams.unwrap_or_default();
        let mut chosen =
            Chosen { pmt: program.pid, section: Section::default(), streams: Vec::new(), routes: Vec::new() };
        self.errors += chosen.set(streams, out)?;
        self.chosen = Some(chosen);
        let held = std::mem::take(&mut self.held);
        for packet in held.chunks_exact(PACKET) {
            let Ok(packet) = <&[u8; PACKET]>::try_from(packet) else { continue };
            let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
            if let Some(payload) = payload(packet)
                && pid != 0
            {
                self.chosen_packet(pid, packet, payload, out)?;
            }
        }
        Ok(())
    }

    fn chosen_packet(
        &mut self,
        pid: u16,
        packet: &[u8; PACKET],
        payload: &[u8],
        out: &mut Vec<Item>,
    ) -> Result<(), DemuxError> {
        let Some(chosen) = &mut self.chosen else { return Ok(()) };
        let start = packet[1] & 0x40 != 0;
        if pid == chosen.pmt {
            let sections = chosen.section.push(start, payload, &mut self.errors);
            for streams in sections.iter().filter_map(|s| psi::parse_pmt(s)) {
                self.errors += chosen.set(streams, out)?;
            }
            return Ok(());
        }
        let Some(route) = chosen.routes.iter_mut().find(|r| r.pid == pid) else { return Ok(()) };
        let counter = packet[3] & 0x0f;
        let last = &mut self.counters[usize::from(pid)];
        if *last == counter && route.last == *packet {
            return Ok(());
        }
        let announced = packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x80 != 0;
        if packet[1] & 0x80 != 0 || (*last != 0xff && (*last + 1) & 0x0f != counter && !announced) {
            self.errors += 1;
        }
        *last = counter;
        route.last = *packet;
        if packet[3] & 0xc0 != 0 {
            // Scrambled.
            self.errors += 1;
            return Ok(());
        }
        route.payload(start, payload, &mut self.time, &mut self.errors, out);
        Ok(())
    }
}

/// What a packet carries, if anything.
fn payload(packet: &[u8; PACKET]) -> Option<&[u8]> {
    let from = match packet[3] & 0x30 {
        0x10 => 4,
        0x30 => 5 + usize::from(packet[4]),
        _ => return None,
    };
    packet.get(from..).filter(|p| !p.is_empty())
}

impl Chosen {
    /// Takes a program table over. Streams that stay keep their state. Returns how many frames of others were broken.
    fn set(&mut self, streams: Vec<Stream>, out: &mut Vec<Item>) -> Result<u32, DemuxError> {
        if streams == self.streams && !self.streams.is_empty() {
            return Ok(0);
        }
        let video = streams.iter().find_map(|s| match s.kind {
            Kind::Video(codec) => Some((s.pid, codec)),
            Kind::UnsupportedVideo(_) | Kind::Audio(_) | Kind::Other => None,
        });
        if video.is_none()
            && let Some(name) = streams.iter().find_map(|s| match s.kind {
                Kind::UnsupportedVideo(name) => Some(name),
                Kind::Video(_) | Kind::Audio(_) | Kind::Other => None,
            })
        {
            return Err(DemuxError::UnsupportedVideo { codec: name.to_owned() });
        }
        let audio: Vec<(u16, AudioFormat)> = streams
            .iter()
            .filter_map(|s| match &s.kind {
                Kind::Audio(format) => Some((s.pid, format.clone())),
                Kind::Video(_) | Kind::UnsupportedVideo(_) | Kind::Other => None,
            })
            .collect();
        let mut old = std::mem::take(&mut self.routes);
        let mut reuse = |pid: u16, fits: &dyn Fn(&Sink) -> bool| {
            let index = old.iter().position(|r| r.pid == pid && fits(&r.sink))?;
            Some(old.swap_remove(index))
        };
        if let Some((pid, codec)) = video {
            let kept = reuse(pid, &|sink| matches!(sink, Sink::Video(a) if a.codec() == codec));
            self.routes
                .push(kept.unwrap_or_else(|| Route::new(pid, Sink::Video(Box::new(Assembler::new(codec))))));
        }
        for (track, (pid, _)) in audio.iter().enumerate() {
            let kept = reuse(*pid, &|sink| matches!(sink, Sink::Audio(_)));
            let mut route = kept.unwrap_or_else(|| {
                Route::new(*pid, Sink::Audio(Audio { track, data: BytesMut::new(), pts: None }))
            });
            if let Sink::Audio(audio) = &mut route.sink
                && audio.track != track
            {
                // What is pending belongs to the track under its old number.
                audio.flush(out);
                audio.track = track;
            }
            self.routes.push(route);
        }
        let errors = old.into_iter().map(|mut gone| gone.end(out)).sum();
        self.streams = streams;
        let video = video.map(|(_, codec): (u16, Codec)| VideoTrack { codec, rotation: Default::default() });
        let tracks = Tracks { video, audio: audio.into_iter().map(|(_, format)| format).collect() };
        out.push(Item::Tracks(tracks));
        Ok(errors)
    }
}

impl Route {
    fn new(pid: u16, sink: Sink) -> Self {
        Self { pid, pes: Pes::Closed, sink, last: [0; PACKET] }
    }

    fn payload(
        &mut self,
        start: bool,
        payload: &[u8],
        time: &mut Unwrap,
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
                    self.begin(&header, time, out);
                }
            }
        }
        let Pes::Open { left } = &mut self.pes else { return };
        let mut ended = false;
        if let Some(left) = left {
            rest = &rest[..rest.len().min(*left)];
            *left -= rest.len();
            ended = *left == 0;
        }
        match &mut self.sink {
            Sink::Video(assembler) => assembler.extend(rest),
            Sink::Audio(audio) => {
                audio.data.extend_from_slice(rest);
                if ended || audio.data.len() > MAX_AUDIO {
                    audio.flush(out);
                }
            }
        }
    }

    fn begin(&mut self, header: &Header, time: &mut Unwrap, out: &mut Vec<Item>) {
        let dts = header.dts.map(|t| time.unwrap(t));
        let pts = header.pts.map(|t| time.unwrap(t));
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
    }

    /// Returns how many frames were broken.
    fn end(&mut self, out: &mut Vec<Item>) -> u32 {
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
    fn flush(&mut self, out: &mut Vec<Item>) {
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

#[derive(Debug)]
enum Pes {
    /// No start seen, or a broken one.
    Closed,
    /// A header that goes on in the next packet.
    Header(Vec<u8>),
    /// `left` bytes to come, where the header says it.
    Open { left: Option<usize> },
}
