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

use bytes::{Buf, BytesMut};
use headwater_protocol::Codec;

use super::au::Assembler;
use super::error::DemuxError;
use super::psi::{self, Kind, Section, Table};
use super::route::{Audio, Route, Sink, Time};
use super::sniff::{PACKET, SYNC, find_grid};
use crate::es::{AudioFormat, Item, Tracks, VideoTrack};

/// Bytes kept until the program is known, so that what lies before a late PMT is not lost.
const MAX_HELD: usize = 8 << 20;

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
    time: Time,
}

#[derive(Debug)]
struct Program {
    pid: u16,
    section: Section,
    table: Option<Table>,
}

#[derive(Debug)]
struct Chosen {
    pmt: u16,
    section: Section,
    table: Table,
    routes: Vec<Route>,
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
            time: Time::default(),
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
            let found = self.programs.iter().position(|p| p.table.is_some());
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
        self.tick(pid, packet);
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
            if let Some(table) = sections.iter().rev().find_map(|s| psi::parse_pmt(s)) {
                let has_video = table.streams.iter().any(|s| matches!(s.kind, Kind::Video(_)));
                self.programs[index].table = Some(table);
                if has_video || self.programs.iter().all(|p| p.table.is_some()) {
                    self.choose(index, out)?;
                }
            }
        } else if self.programs.is_empty() && start && payload.get(1) == Some(&2) {
            // The PAT was lost, but this is a PMT if its CRC says so.
            let mut section = Section::default();
            let found = section.push(start, payload, &mut 0);
            if let Some(table) = found.iter().find_map(|s| psi::parse_pmt(s)) {
                self.programs.push(Program { pid, section, table: Some(table) });
                self.choose(0, out)?;
            }
        }
        Ok(())
    }

    fn tick(&mut self, pid: u16, packet: &[u8; PACKET]) {
        if self.chosen.as_ref().is_some_and(|chosen| chosen.table.clock == pid) {
            self.time.clock = clock(packet).or(self.time.clock);
        }
    }

    fn read_pat(&mut self, start: bool, payload: &[u8]) {
        for section in self.pat.push(start, payload, &mut self.errors) {
            let Some(pids) = psi::parse_pat(&section) else { continue };
            if self.chosen.is_none() {
                self.programs.retain(|p| pids.contains(&p.pid));
                for pid in pids {
                    if !self.programs.iter().any(|p| p.pid == pid) {
                        self.programs.push(Program { pid, section: Section::default(), table: None });
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
        let mut chosen = Chosen {
            pmt: program.pid,
            section: Section::default(),
            table: Table::default(),
            routes: Vec::new(),
        };
        self.errors += chosen.set(program.table.unwrap_or_default(), out)?;
        self.chosen = Some(chosen);
        let held = std::mem::take(&mut self.held);
        for packet in held.chunks_exact(PACKET) {
            let Ok(packet) = <&[u8; PACKET]>::try_from(packet) else { continue };
            let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
            self.tick(pid, packet);
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
            for table in sections.iter().filter_map(|s| psi::parse_pmt(s)) {
                self.errors += chosen.set(table, out)?;
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

/// The clock reference in a packet, without its finer part.
fn clock(packet: &[u8; PACKET]) -> Option<u64> {
    // Flags and six bytes.
    let carries = packet[3] & 0x20 != 0 && packet[4] >= 7 && packet[5] & 0x10 != 0;
    let [a, b, c, d, e] = [6, 7, 8, 9, 10].map(|at: usize| u64::from(packet[at]));
    carries.then_some(a << 25 | b << 17 | c << 9 | d << 1 | e >> 7)
}

impl Chosen {
    /// Takes a program table over. Streams that stay keep their state. Returns how many frames of others were broken.
    fn set(&mut self, table: Table, out: &mut Vec<Item>) -> Result<u32, DemuxError> {
        self.table.clock = table.clock;
        if table == self.table && !table.streams.is_empty() {
            return Ok(0);
        }
        let streams = &table.streams;
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
            let mut route = kept.unwrap_or_else(|| Route::new(*pid, Sink::Audio(Audio::new(track))));
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
        self.table = table;
        let video = video.map(|(_, codec): (u16, Codec)| VideoTrack { codec, rotation: Default::default() });
        let tracks = Tracks { video, audio: audio.into_iter().map(|(_, format)| format).collect() };
        out.push(Item::Tracks(tracks));
        Ok(errors)
    }
}
