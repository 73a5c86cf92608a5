//! MPEG transport stream, one program, fixed PIDs.
//!
//! ```text
//! SDT PAT PMT │ PES of a key: PCR, random access │ PES │ audio │ PES … │ PAT PMT │ PES of a key …
//! ```
//!
//! Counters start at 0 in each segment. Timestamps are the working ones modulo 2^33, to the tick.

use bytes::{BufMut, Bytes, BytesMut};
use headwater_protocol::Codec;

use super::adts;
use crate::demux::crc32;
use crate::es::{AudioFormat, AudioPacket, Frame};
use crate::nal::{self, Kind};

const PACKET: usize = 188;
const PAT: u16 = 0;
const SDT: u16 = 0x11;
const PMT: u16 = 0x1000;
const VIDEO: u16 = 0x100;
const FIRST_AUDIO: u16 = 0x101;

/// The clock reference runs this much ahead of decoding: the time in which a large keyframe arrives.
const LEAD: i64 = 18_000;
/// A clock reference at least this often; the standard wants one in 100 ms.
const PCR_EVERY: i64 = 7_200;
/// Gaps longer than this are gaps in the stream and are not filled with clock.
const PCR_GAP: i64 = 10 * 90_000;
const WRAP: i64 = 1 << 33;

/// MP4 has each audio frame by itself; a PES takes as many as fit in this.
const AUDIO_PES: usize = 2_800;
/// …and are shown within this many ticks.
const AUDIO_SPAN: i64 = 13_500;

#[derive(Debug)]
pub(super) struct TsMuxer {
    codec: Codec,
    tables: Tables,
    video: Counter,
    pcr: Option<i64>,
    lead: i64,
    started: bool,
    /// The program table in the output is an old one.
    changed: bool,
    audio: Vec<AudioTrack>,
}

#[derive(Debug)]
struct AudioTrack {
    format: AudioFormat,
    pid: u16,
    stream_id: u8,
    counter: Counter,
    /// Frames that wait for company: those of MP4.
    pending: BytesMut,
    pending_pts: i64,
}

#[derive(Debug, Default)]
struct Counter(u8);

impl Counter {
    fn next(&mut self) -> u8 {
        let value = self.0;
        self.0 = (value + 1) & 0x0f;
        value
    }
}

#[derive(Debug)]
struct Tables {
    /// Of the program table.
    version: u8,
    sdt: Vec<u8>,
    pat: Vec<u8>,
    pmt: Vec<u8>,
    counters: [Counter; 3],
}

impl TsMuxer {
    pub(super) fn new(codec: Codec, audio: &[AudioFormat]) -> Self {
        let audio: Vec<AudioTrack> = (FIRST_AUDIO..PMT).zip(audio).map(AudioTrack::new).collect();
        Self {
            codec,
            tables: Tables::new(codec, &audio, 0),
            video: Counter::default(),
            pcr: None,
            lead: LEAD,
            started: false,
            changed: false,
            audio,
        }
    }

    /// Takes tracks that were added at the end; a new program table tells of them with the next sound.
    pub(super) fn tracks(&mut self, audio: &[AudioFormat]) {
        let old = self.audio.len();
        if audio.len() > old {
            self.audio.extend((FIRST_AUDIO..PMT).zip(audio).skip(old).map(AudioTrack::new));
            self.tables.change(self.codec, &self.audio);
            self.changed = self.started;
        }
    }

    pub(super) fn video(&mut self, frame: &Frame, out: &mut BytesMut) {
        self.start(frame.dts.0, frame.key, out);
        let pcr = frame.dts.0 - self.lead;
        self.advance(pcr, out);
        self.pcr = Some(pcr);

        let mut head = pes_header(0xe0, frame.pts.0, Some(frame.dts.0));
        if !begins_with_delimiter(self.codec, &frame.data) {
            head.extend_from_slice(match self.codec {
                Codec::Hevc => &[0, 0, 0, 1, 0x46, 0x01, 0x50],
                Codec::H264 => &[0, 0, 0, 1, 0x09, 0xf0],
                Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Jpeg | Codec::Fwht => &[],
            });
        }
        set_pes_length(&mut head, frame.data.len());
        let field = Field { random_access: frame.key, pcr: Some(pcr) };
        packets(VIDEO, &mut self.video, &head, &frame.data, field, out);
    }

    pub(super) fn audio(&mut self, packet: &AudioPacket, out: &mut BytesMut) {
        // Tables come again with the pictures; audio alone has no keyframe to put them before.
        self.start(packet.pts.0, false, out);
        let Some(track) = self.audio.get_mut(packet.track) else { return };
        match &track.format {
            AudioFormat::Aac { config, .. } => {
                let header = adts::header(config, packet.data.len());
                let held = track.pending.len();
                let span = packet.pts.0 - track.pending_pts;
                if held > 0 && (held + packet.data.len() > AUDIO_PES || !(0..AUDIO_SPAN).contains(&span)) {
                    track.flush(out);
                }
                if track.pending.is_empty() {
                    track.pending_pts = packet.pts.0;
                }
                track.pending.put_slice(&header);
                track.pending.put_slice(&packet.data);
            }
            AudioFormat::Opus { .. } => {
                // Control header: a prefix, then the size in pieces of up to 255.
                let mut head = vec![0x7f, 0xe0];
                head.extend(std::iter::repeat_n(0xff, packet.data.len() / 255));
                head.push((packet.data.len() % 255) as u8);
                head.extend_from_slice(&packet.data);
                track.write(packet.pts.0, &Bytes::from(head), out);
            }
            AudioFormat::Adts
            | AudioFormat::Mpeg
            | AudioFormat::Ac3
            | AudioFormat::Eac3
            | AudioFormat::Other { .. } => track.write(packet.pts.0, &packet.data, out),
        }
    }

    pub(super) fn finish(&mut self, out: &mut BytesMut) {
        for track in &mut self.audio {
            track.flush(out);
        }
    }

    fn start(&mut self, first: i64, key: bool, out: &mut BytesMut) {
        if !self.started {
            // No clock before 0 where the stream begins there: some players take the wrap for a jump.
            self.lead = if first >= 0 { LEAD.min(first) } else { LEAD };
            self.started = true;
            self.tables.write(true, out);
        } else if self.changed || (key && self.pcr.is_some()) {
            self.tables.write(false, out);
        }
        self.changed = false;
    }

    /// Writes clock references alone where frames are far apart.
    fn advance(&mut self, to: i64, out: &mut BytesMut) {
        let Some(last) = self.pcr else { return };
        if to - last > PCR_GAP {
            return;
        }
        let mut at = last + PCR_EVERY;
        while at < to && to - last > PCR_EVERY + 1800 {
            // A packet without payload does not count: it repeats the counter of the one before.
            let counter = self.video.0.wrapping_sub(1) & 0x0f;
            out.put_slice(&[0x47, (VIDEO >> 8) as u8, VIDEO as u8, 0x20 | counter, 183, 0x10]);
            put_pcr(out, at);
            out.put_bytes(0xff, 176);
            at += PCR_EVERY;
        }
    }
}

impl AudioTrack {
    fn new((pid, format): (u16, &AudioFormat)) -> Self {
        Self {
            format: format.clone(),
            pid,
            stream_id: match format {
                AudioFormat::Adts | AudioFormat::Aac { .. } | AudioFormat::Mpeg => {
                    0xc0 + (pid & 0x1f) as u8 - 1
                }
                // LATM too is MPEG audio; the rest is private.
                AudioFormat::Other { stream_type: 0x11, .. } => 0xc0,
                AudioFormat::Ac3
                | AudioFormat::Eac3
                | AudioFormat::Opus { .. }
                | AudioFormat::Other { .. } => 0xbd,
            },
            counter: Counter::default(),
            pending: BytesMut::new(),
            pending_pts: 0,
        }
    }

    fn flush(&mut self, out: &mut BytesMut) {
        if !self.pending.is_empty() {
            let data = self.pending.split().freeze();
            self.write(self.pending_pts, &data, out);
        }
    }

    fn write(&mut self, pts: i64, data: &Bytes, out: &mut BytesMut) {
        // Only video may leave its length open: what does not fit goes on in a PES without time.
        const MOST: usize = 65_000;
        for (index, part) in data.chunks(MOST).enumerate() {
            let mut head = if index == 0 {
                pes_header(self.stream_id, pts, None)
            } else {
                vec![0, 0, 1, self.stream_id, 0, 0, 0x80, 0, 0]
            };
            set_pes_length(&mut head, part.len());
            let field = Field { random_access: index == 0, pcr: None };
            packets(self.pid, &mut self.counter, &head, part, field, out);
        }
    }
}

/// Without DTS where it is the same.
fn pes_header(stream_id: u8, pts: i64, dts: Option<i64>) -> Vec<u8> {
    let pts = pts.rem_euclid(WRAP);
    let dts = dts.map(|d| d.rem_euclid(WRAP)).filter(|d| *d != pts);
    let mut head = Vec::with_capacity(32);
    head.extend_from_slice(&[0, 0, 1, stream_id, 0, 0, 0x84]);
    match dts {
        None => {
            head.extend_from_slice(&[0x80, 5]);
            put_timestamp(&mut head, 2, pts);
        }
        Some(dts) => {
            head.extend_from_slice(&[0xc0, 10]);
            put_timestamp(&mut head, 3, pts);
            put_timestamp(&mut head, 1, dts);
        }
    }
    head
}

/// Fills the length in where it fits, else leaves it open.
fn set_pes_length(head: &mut [u8], payload: usize) {
    let len = u16::try_from(head.len() - 6 + payload).unwrap_or(0);
    head[4..6].copy_from_slice(&len.to_be_bytes());
}

fn put_timestamp(out: &mut Vec<u8>, prefix: u8, stamp: i64) {
    out.extend_from_slice(&[
        prefix << 4 | (stamp >> 29) as u8 & 0x0e | 1,
        (stamp >> 22) as u8,
        (stamp >> 14) as u8 | 1,
        (stamp >> 7) as u8,
        (stamp << 1) as u8 | 1,
    ]);
}

/// Base of 33 bits at 90 kHz; the extension of 27 MHz is 0, for our clock has no finer ticks.
fn put_pcr(out: &mut impl BufMut, ticks: i64) {
    let base = ticks.rem_euclid(WRAP);
    out.put_u32((base >> 1) as u32);
    out.put_u16((base as u16 & 1) << 15 | 0x7e00);
}

#[derive(Debug, Clone, Copy)]
struct Field {
    random_access: bool,
    pcr: Option<i64>,
}

/// Writes a PES, given as two parts, in packets; what the last one lacks is stuffed.
fn packets(pid: u16, counter: &mut Counter, head: &[u8], body: &[u8], field: Field, out: &mut BytesMut) {
    let total = head.len() + body.len();
    out.reserve((total / 184 + 2) * PACKET);
    let (mut head, mut body) = (head, body);
    let mut first = true;
    while !head.is_empty() || !body.is_empty() {
        let left = head.len() + body.len();
        let flags = match (first, field.random_access, field.pcr) {
            (true, access, pcr) => u8::from(access) << 6 | u8::from(pcr.is_some()) << 4,
            (false, ..) => 0,
        };
        // Length of the adaptation field with its length byte: what flags need, or what is too much.
        let needed = if flags == 0 { 0 } else { 2 + if flags & 0x10 != 0 { 6 } else { 0 } };
        let adaptation = needed.max(184usize.saturating_sub(left));
        let control = if adaptation > 0 { 0x30 } else { 0x10 };
        out.put_slice(&[0x47, u8::from(first) << 6 | (pid >> 8) as u8, pid as u8, control | counter.next()]);
        if adaptation > 0 {
            out.put_u8((adaptation - 1) as u8);
        }
        if adaptation > 1 {
            out.put_u8(flags);
            if let (true, Some(pcr)) = (first, field.pcr) {
                put_pcr(out, pcr);
            }
            out.put_bytes(0xff, adaptation - needed.max(2));
        }
        let mut room = 184 - adaptation;
        let part = head.len().min(room);
        out.put_slice(&head[..part]);
        head = &head[part..];
        room -= part;
        let part = body.len().min(room);
        out.put_slice(&body[..part]);
        body = &body[part..];
        first = false;
    }
}

fn begins_with_delimiter(codec: Codec, data: &[u8]) -> bool {
    let start = &data[..data.len().min(64)];
    nal::units(start).next().is_some_and(|nal| nal::kind(codec, nal) == Kind::Delimiter)
}

impl Tables {
    fn new(codec: Codec, audio: &[AudioTrack], version: u8) -> Self {
        let mut streams = Vec::new();
        let video_type = match codec {
            Codec::H264 => 0x1b,
            Codec::Hevc => 0x24,
            // Private data. What has no descriptor there is known to no player, and a ladder that asks for it is refused.
            Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Jpeg | Codec::Fwht => 0x06,
        };
        let descriptors: &[u8] = if codec == Codec::Fwht { b"\x05\x04FWHT" } else { &[] };
        put_stream(&mut streams, video_type, VIDEO, descriptors);
        for track in audio {
            match &track.format {
                AudioFormat::Adts | AudioFormat::Aac { .. } => put_stream(&mut streams, 0x0f, track.pid, &[]),
                AudioFormat::Mpeg => put_stream(&mut streams, 0x03, track.pid, &[]),
                AudioFormat::Ac3 => put_stream(&mut streams, 0x81, track.pid, b"\x05\x04AC-3"),
                AudioFormat::Eac3 => put_stream(&mut streams, 0x87, track.pid, b"\x05\x04EAC3"),
                AudioFormat::Opus { channels, .. } => {
                    let descriptors = [b"\x05\x04Opus\x7f\x02\x80".as_slice(), &[*channels]].concat();
                    put_stream(&mut streams, 0x06, track.pid, &descriptors);
                }
                AudioFormat::Other { stream_type, descriptors } => {
                    put_stream(&mut streams, *stream_type, track.pid, descriptors);
                }
            }
        }
        let mut pmt = vec![0xe0 | (VIDEO >> 8) as u8, VIDEO as u8, 0xf0, 0];
        pmt.extend_from_slice(&streams);
        let pat = [0, 1, 0xe0 | (PMT >> 8) as u8, PMT as u8];
        let name = b"Headwater";
        let len = name.len() as u8;
        let service = [&[0x48, 3 + 2 * len, 1, len][..], name, &[len], name].concat();
        let mut sdt = vec![0xff, 0x01, 0xff, 0, 1, 0xfc, 0x80, service.len() as u8];
        sdt.extend_from_slice(&service);
        Self {
            version,
            sdt: section(0x42, 0, &sdt),
            pat: section(0x00, 0, &pat),
            pmt: section(0x02, version, &pmt),
            counters: Default::default(),
        }
    }

    fn change(&mut self, codec: Codec, audio: &[AudioTrack]) {
        let version = (self.version + 1) & 0x1f;
        let counters = std::mem::take(&mut self.counters);
        *self = Self { counters, ..Self::new(codec, audio, version) };
    }

    fn write(&mut self, with_service: bool, out: &mut BytesMut) {
        let [sdt, pat, pmt] = &mut self.counters;
        if with_service {
            put_table(SDT, sdt, &self.sdt, out);
        }
        put_table(PAT, pat, &self.pat, out);
        put_table(PMT, pmt, &self.pmt, out);
    }
}

fn put_stream(out: &mut Vec<u8>, stream_type: u8, pid: u16, descriptors: &[u8]) {
    // Descriptors come out of a section of at most 1024 bytes.
    let len = descriptors.len() as u16;
    out.extend_from_slice(&[
        stream_type,
        0xe0 | (pid >> 8) as u8,
        pid as u8,
        0xf0 | (len >> 8) as u8,
        len as u8,
    ]);
    out.extend_from_slice(descriptors);
}

/// Adds header and CRC. The id (transport stream, program) is 1; there is one section.
fn section(table: u8, version: u8, body: &[u8]) -> Vec<u8> {
    let len = 5 + body.len() + 4;
    // The SDT is of DVB, which sets the bit that ISO reserves.
    let bits = if table == 0x42 { 0xf0 } else { 0xb0 };
    let mut out = vec![table, bits | (len >> 8) as u8, len as u8, 0, 1, 0xc1 | version << 1, 0, 0];
    out.extend_from_slice(body);
    let crc = crc32(&out);
    out.extend_from_slice(&crc.to_be_bytes());
    out
}

fn put_table(pid: u16, counter: &mut Counter, section: &[u8], out: &mut BytesMut) {
    let mut rest = section;
    let mut first = true;
    while first || !rest.is_empty() {
        out.put_slice(&[0x47, u8::from(first) << 6 | (pid >> 8) as u8, pid as u8, 0x10 | counter.next()]);
        let mut room = 184;
        if first {
            out.put_u8(0);
            room -= 1;
        }
        let part = rest.len().min(room);
        out.put_slice(&rest[..part]);
        out.put_bytes(0xff, room - part);
        rest = &rest[part..];
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::Container;

    use super::*;
    use crate::coded::fwht;
    use crate::demux::Demuxer;
    use crate::es::{Item, Ticks};

    fn frame(dts: i64, len: usize) -> Frame {
        let mut data = vec![0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x65, 0x88, 0x80];
        data.resize(12 + len, 0x55);
        Frame { pts: Ticks(dts), dts: Ticks(dts), key: true, data: data.into() }
    }

    #[test]
    fn every_length_fills_whole_packets() {
        for len in 0..600 {
            let mut out = BytesMut::new();
            let mut muxer = TsMuxer::new(Codec::H264, &[]);
            muxer.video(&frame(90_000, len), &mut out);
            assert_eq!(out.len() % PACKET, 0, "{len} bytes");
            assert!(out.chunks(PACKET).all(|p| p[0] == 0x47), "{len} bytes");
        }
    }

    #[test]
    fn tables_come_first_and_counters_run_from_zero_without_a_break() {
        let mut out = BytesMut::new();
        let mut muxer = TsMuxer::new(Codec::H264, &[AudioFormat::Ac3]);
        let second = |at: i64| 90_000 * (at + 1);
        for at in 0..4 {
            muxer.video(&frame(second(at), 5000), &mut out);
            let data = vec![0x55; 3000].into();
            muxer.audio(&AudioPacket { track: 0, pts: Ticks(second(at)), data }, &mut out);
        }
        muxer.finish(&mut out);
        let pid = |p: &[u8]| u16::from(p[1] & 0x1f) << 8 | u16::from(p[2]);
        let first: Vec<u16> = out.chunks(PACKET).map(pid).take(4).collect();
        assert_eq!(first, [SDT, PAT, PMT, VIDEO]);
        for stream in [SDT, PAT, PMT, VIDEO, FIRST_AUDIO] {
            let mut next = 0;
            for packet in out.chunks(PACKET).filter(|p| pid(p) == stream) {
                let carries = packet[3] & 0x10 != 0;
                assert_eq!(packet[3] & 0x0f, if carries { next } else { (next + 15) % 16 }, "PID {stream}");
                next = (next + u8::from(carries)) % 16;
                let flags = if packet[3] & 0x20 != 0 && packet[4] > 0 { packet[5] } else { 0 };
                assert_eq!(flags & 0x80, 0, "PID {stream}: a discontinuity");
            }
        }
        assert!(out.chunks(PACKET).all(|p| [SDT, PAT, PMT, VIDEO, FIRST_AUDIO].contains(&pid(p))));
    }

    #[test]
    fn frames_far_apart_have_clock_between_them() {
        let mut out = BytesMut::new();
        let mut muxer = TsMuxer::new(Codec::H264, &[]);
        muxer.video(&frame(90_000, 10), &mut out);
        muxer.video(&frame(180_000, 10), &mut out);
        let clocks: Vec<i64> = out
            .chunks(PACKET)
            .filter(|p| p[1] & 0x1f == 1 && p[2] == 0 && p[3] & 0x20 != 0 && p[5] & 0x10 != 0)
            .map(|p| i64::from(u32::from_be_bytes([p[6], p[7], p[8], p[9]])) << 1 | i64::from(p[10] >> 7))
            .collect();
        assert_eq!((clocks[0], *clocks.last().unwrap()), (72_000, 162_000));
        assert!(clocks.windows(2).all(|w| (1..=9000).contains(&(w[1] - w[0]))), "{clocks:?}");
    }

    #[test]
    fn frames_of_fwht_come_back_as_they_were() {
        let frame = |number: i64| Frame {
            pts: Ticks(90_000 + 3600 * number),
            dts: Ticks(90_000 + 3600 * number),
            key: number % 3 == 0,
            data: fwht::made(number % 3 == 0, 1000 * number as u32).into(),
        };
        // Larger than a PES that says its length, too.
        let frames: Vec<Frame> = (0..100).map(frame).collect();
        let mut out = BytesMut::new();
        let mut muxer = TsMuxer::new(Codec::Fwht, &[AudioFormat::Adts]);
        frames.iter().for_each(|frame| muxer.video(frame, &mut out));
        let (mut demuxer, mut items) = (Demuxer::new(Container::Ts), Vec::new());
        for piece in out.chunks(1000) {
            demuxer.push(Bytes::copy_from_slice(piece), &mut items).unwrap();
        }
        demuxer.finish(&mut items).unwrap();
        let Some(Item::Tracks(tracks)) = items.first() else { panic!("{items:?}") };
        assert_eq!(tracks.video.as_ref().unwrap().codec, Codec::Fwht);
        let video = |item: &Item| match item {
            Item::Video(frame) => Some(frame.clone()),
            Item::Tracks(_) | Item::Audio(_) => None,
        };
        assert_eq!(items.iter().filter_map(video).collect::<Vec<_>>(), frames);
        assert_eq!(demuxer.errors(), 0);
    }

    #[test]
    fn timestamps_are_written_modulo_33_bits() {
        let mut out = Vec::new();
        put_timestamp(&mut out, 2, (1 << 33) - 1);
        assert_eq!(out, [0x2f, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(pes_header(0xe0, (1 << 33) + 5, Some((1 << 33) + 5)), pes_header(0xe0, 5, None));
    }
}
