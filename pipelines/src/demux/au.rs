//! An elementary video stream, cut into access units.
//!
//! ```text
//! PES payloads ─▶ │ AUD SPS PPS SEI slice slice │ AUD slice slice │ AUD sl…
//!                  ▲ pts, dts                    ▲ pts, dts
//! ```
//!
//! Boundaries come from the NAL units and not from PES packets: a PES may carry several access units,
//! a part of one, or come without its first bytes. A timestamp goes to the first access unit that begins
//! in the PES it came with. Two fields that make a frame are handed out as one.
//!
//! Frames of FWHT are no NAL units; each says its own length.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use headwater_protocol::Codec;
use memchr::memmem;

use crate::coded::{fwht, is_nal};
use crate::es::{Frame, Ticks};
use crate::nal::{self, Field, Kind, ParameterSets};

/// An access unit larger than this is not one: 8K intra at the highest level stays below.
const MAX_UNIT: usize = 48 << 20;

/// Length of a frame where nothing tells: 30 fps.
const DEFAULT_FRAME: i64 = 3_000;

#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Position in the stream from which the timestamps hold.
    at: u64,
    pts: Option<i64>,
    dts: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Assembler {
    codec: Codec,
    /// Bytes of the current access unit and what came after it.
    data: BytesMut,
    /// Position of `data[0]` in the stream.
    base: u64,
    /// Start codes before this index of `data` have been seen.
    scanned: usize,
    /// Index of the current access unit's first NAL unit's header.
    head: Option<usize>,
    /// The current access unit has a slice; its `first`.
    last_slice: Option<u32>,
    marks: VecDeque<Mark>,
    /// No mark before this place of the stream begins a frame within the present one.
    looked: u64,
    sets: ParameterSets,
    /// The first field of a frame, while the second may follow.
    half: Option<(Frame, Field)>,
    clock: Clock,
    seen_key: bool,
}

impl Assembler {
    pub(super) fn new(codec: Codec) -> Self {
        Self {
            codec,
            data: BytesMut::new(),
            base: 0,
            scanned: 0,
            head: None,
            last_slice: None,
            marks: VecDeque::new(),
            looked: 0,
            sets: ParameterSets::default(),
            half: None,
            clock: Clock::default(),
            seen_key: false,
        }
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// A PES begins: its timestamps hold from the next byte on.
    pub(super) fn mark(&mut self, pts: Option<i64>, dts: Option<i64>) {
        let at = self.base + self.data.len() as u64;
        self.marks.pop_back_if(|last| last.at == at);
        self.marks.push_back(Mark { at, pts, dts });
    }

    pub(super) fn extend(&mut self, payload: &[u8]) {
        self.data.extend_from_slice(payload);
    }

    /// Hands out the access units that are whole. Returns how many were broken.
    pub(super) fn drain(&mut self, out: &mut impl FnMut(Frame)) -> u32 {
        if !is_nal(self.codec) {
            return self.frames(out);
        }
        self.scan(false, out);
        if self.data.len() <= MAX_UNIT {
            return 0;
        }
        self.skip(self.data.len());
        self.head = None;
        self.last_slice = None;
        1
    }

    /// The stream ends: hands out the last one too. Returns how many were broken.
    pub(super) fn finish(&mut self, out: &mut impl FnMut(Frame)) -> u32 {
        if !is_nal(self.codec) {
            // What is left of the last is no frame.
            return self.frames(out) + u32::from(!self.data.is_empty());
        }
        self.scan(true, out);
        self.cut(self.data.len(), out);
        if let Some((frame, _)) = self.half.take() {
            out(frame);
        }
        0
    }

    fn scan(&mut self, all: bool, out: &mut impl FnMut(Frame)) {
        while let Some(found) = memmem::find(&self.data[self.scanned..], b"\0\0\x01") {
            let head = self.scanned + found + 3;
            let nal = &self.data[head..self.data.len().min(head + nal::HEAD)];
            if nal.len() < nal::HEAD && !all {
                // Its first bytes are still to come.
                self.scanned = head - 3;
                return;
            }
            let kind = nal::kind(self.codec, nal);
            self.scanned = head;
            let begins = match (self.last_slice, kind) {
                (Some(last), Kind::Slice(slice)) => {
                    slice.first <= last && (slice.first == 0 || self.codec == Codec::H264)
                }
                (Some(_), Kind::ParameterSet | Kind::Delimiter | Kind::Sei | Kind::Prefix) => true,
                (Some(_), Kind::Other) | (None, _) => false,
            };
            if begins {
                // A fourth byte of the start code belongs to the unit it opens.
                let start = head - 3;
                let start = if start > 0 && self.data[start - 1] == 0 { start - 1 } else { start };
                self.cut(start, out);
                self.head = Some(self.scanned);
                self.last_slice = None;
            } else if self.head.is_none() {
                self.head = Some(head);
            }
            if let Kind::Slice(slice) = kind {
                self.last_slice = Some(slice.first);
            }
        }
        self.scanned = self.scanned.max(self.data.len().saturating_sub(2));
    }

    /// Hands out the whole frames of FWHT; returns what was skipped. One of which bytes were lost is skipped too: its
    /// decoder would take them from the next.
    fn frames(&mut self, out: &mut impl FnMut(Frame)) -> u32 {
        let mut errors = 0;
        loop {
            let found = memmem::find(&self.data, fwht::MAGIC);
            // Without one the end may be its beginning.
            let junk = found.unwrap_or_else(|| (self.data.len() + 1).saturating_sub(fwht::MAGIC.len()));
            errors += u32::from(junk > 0);
            self.skip(junk);
            if found.is_none() || self.data.len() < fwht::HEADER {
                return errors;
            }
            let Some(frame) = fwht::look(&self.data) else {
                self.skip(fwht::MAGIC.len());
                errors += 1;
                continue;
            };
            if let Some(next) = self.cut_short(frame.len) {
                self.skip(next);
                errors += 1;
                continue;
            }
            if self.data.len() < frame.len {
                return errors;
            }
            let mark = self.mark_of(self.base);
            let data = self.skip(frame.len);
            let (pts, dts) = self.clock.time(mark.pts, mark.dts);
            out(Frame { pts: Ticks(pts), dts: Ticks(dts), key: frame.key, data });
        }
    }

    /// Where, before `len` bytes are over, a PES begins with another frame. Each is looked at once, however often this
    /// is asked while the frame grows.
    fn cut_short(&mut self, len: usize) -> Option<usize> {
        let from = self.looked.max(self.base + 1);
        let first = self.marks.partition_point(|mark| mark.at < from);
        for mark in self.marks.range(first..) {
            let at = usize::try_from(mark.at - self.base).ok().filter(|at| *at < len)?;
            let head = self.data.get(at..at + fwht::MAGIC.len())?;
            if head == fwht::MAGIC {
                return Some(at);
            }
            self.looked = mark.at + 1;
        }
        None
    }

    /// The latest timestamp that came before the unit began. Those before it had no unit of their own.
    fn mark_of(&mut self, begins: u64) -> Mark {
        let mut mark = Mark { at: 0, pts: None, dts: None };
        while let Some(next) = self.marks.pop_front_if(|next| next.at <= begins) {
            mark = next;
        }
        mark
    }

    /// Takes `len` bytes off the front.
    fn skip(&mut self, len: usize) -> Bytes {
        self.base += len as u64;
        self.scanned = self.scanned.saturating_sub(len);
        self.data.split_to(len).freeze()
    }

    fn cut(&mut self, end: usize, out: &mut impl FnMut(Frame)) {
        let begins = self.head.take().map(|head| self.base + head as u64);
        let data = self.skip(end);
        let (Some(begins), Some(_)) = (begins, self.last_slice.take()) else {
            // No slice: left over from a cut, or parameter sets at the very end.
            return;
        };
        let mark = self.mark_of(begins);
        let picture = nal::look(self.codec, &data, &mut self.sets);
        if picture.has_sps
            && let Some(sps) = self.sets.sps().next().and_then(|n| nal::parse_sps(self.codec, n))
        {
            self.clock.nominal = sps.frame_ticks.map(i64::from);
        }
        let key = picture.key() || (!self.seen_key && picture.intra && picture.has_sps);
        self.seen_key |= key;
        if let Some((first, other)) = self.half.take() {
            if picture.field.is_some_and(|field| field.frame == other.frame && field.bottom != other.bottom) {
                // A decoder takes both as the one frame that they are.
                out(Frame { data: [first.data, data].concat().into(), ..first });
                return;
            }
            out(first);
        }
        let data = if key && !picture.has_sps { with_sets(&self.sets, &data) } else { data };
        let (pts, dts) = self.clock.time(mark.pts, mark.dts);
        let frame = Frame { pts: Ticks(pts), dts: Ticks(dts), key, data };
        match picture.field {
            Some(field) => self.half = Some((frame, field)),
            None => out(frame),
        }
    }
}

fn with_sets(sets: &ParameterSets, unit: &Bytes) -> Bytes {
    if sets.is_empty() {
        return unit.clone();
    }
    let mut out = BytesMut::with_capacity(unit.len() + 256);
    sets.annex_b(&mut out);
    out.extend_from_slice(unit);
    out.freeze()
}

/// Fills in the timestamps a stream leaves out.
#[derive(Debug, Default)]
struct Clock {
    nominal: Option<i64>,
    last: Option<(i64, i64)>,
    step: Option<i64>,
}

impl Clock {
    fn time(&mut self, pts: Option<i64>, dts: Option<i64>) -> (i64, i64) {
        let step = self.nominal.or(self.step).unwrap_or(DEFAULT_FRAME);
        let next = self.last.map(|(_, dts)| dts + step);
        let (pts, dts) = match (pts, dts, next) {
            (Some(pts), Some(dts), _) => (pts, dts),
            // Without a DTS of its own a frame is decoded when it is shown.
            (Some(pts), None, _) => (pts, pts),
            (None, Some(dts), _) => (dts, dts),
            (None, None, Some(next)) => (next, next),
            (None, None, None) => (0, 0),
        };
        if let Some((_, last)) = self.last {
            let between = dts - last;
            // Gaps and jumps say nothing about the length of a frame.
            if (90..=90_000).contains(&between) {
                self.step = Some(between);
            }
        }
        self.last = Some((pts, dts));
        (pts, dts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURE: &[u8] =
        &[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x41, 0x9a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];

    fn units(feed: impl Fn(&mut Assembler)) -> Vec<Frame> {
        let mut assembler = Assembler::new(Codec::H264);
        let mut frames = Vec::new();
        feed(&mut assembler);
        assembler.drain(&mut |f| frames.push(f));
        assembler.finish(&mut |f| frames.push(f));
        frames
    }

    #[test]
    fn a_start_code_may_lie_across_two_packets() {
        let two = [PICTURE, PICTURE].concat();
        for cut in 0..two.len() {
            let frames = units(|a| {
                a.mark(Some(9000), None);
                a.extend(&two[..cut]);
                a.drain(&mut |_| {});
                a.extend(&two[cut..]);
            });
            // The first unit may have gone to the closure inside.
            let last = frames.last().unwrap();
            assert_eq!(&last.data[..], PICTURE, "cut at {cut}");
        }
    }

    /// Bits, spaces aside, to bytes of a NAL unit with its start code.
    fn unit(head: u8, bits: &str) -> Vec<u8> {
        let mut bits: Vec<u8> = bits.bytes().filter(|b| *b != b' ').map(|b| b - b'0').collect();
        bits.resize(bits.len().next_multiple_of(8), 0);
        let bytes = bits.chunks(8).map(|byte| byte.iter().fold(0, |value, bit| value << 1 | bit));
        [0, 0, 0, 1, head].into_iter().chain(bytes).collect()
    }

    #[test]
    fn two_fields_are_one_frame_and_a_field_alone_is_one_too() {
        // Main profile, four bits of frame number, order of decoding, 320x192, fields.
        let sps = "01001101 00000000 00011110 1 1 011 010 0 00001 0100 00110 0 0 1 0 0 1";
        let sets = [unit(0x67, sps), unit(0x68, "1 1 0 0 1 1 1 00 1 1 1 0 0 0 1")].concat();
        // First macroblock, kind, set, frame number, field, bottom.
        let field =
            |frame: &str, bottom: &str| unit(0x41, &format!("1 00110 1 {frame} 1 {bottom} 1111 0000 1111"));
        let delimiter = || unit(9, "1111 0000");
        let frames = units(|a| {
            for (at, (frame, bottom)) in
                [("0001", "0"), ("0001", "1"), ("0010", "0"), ("0011", "0"), ("0011", "1")]
                    .into_iter()
                    .enumerate()
            {
                // The second field has no time of its own.
                a.mark(Some(1800 * at as i64).filter(|_| bottom == "0"), None);
                a.extend(
                    &[delimiter(), if at == 0 { sets.clone() } else { Vec::new() }, field(frame, bottom)]
                        .concat(),
                );
            }
        });
        assert_eq!(frames.iter().map(|frame| frame.pts.0).collect::<Vec<_>>(), [0, 3600, 5400]);
        assert_eq!(
            frames[0].data.len(),
            [delimiter(), sets, field("0001", "0"), delimiter(), field("0001", "1")].concat().len()
        );
        assert_eq!(frames[1].data[..], [delimiter(), field("0010", "0")].concat()[..]);
    }

    fn fwht_frames(pieces: &[(Option<i64>, &[u8])]) -> (Vec<(i64, bool, usize)>, u32) {
        let mut assembler = Assembler::new(Codec::Fwht);
        let (mut frames, mut errors) = (Vec::new(), 0);
        let mut out = |frame: Frame| frames.push((frame.pts.0, frame.key, frame.data.len()));
        for (time, piece) in pieces {
            if time.is_some() {
                assembler.mark(*time, None);
            }
            assembler.extend(piece);
            errors += assembler.drain(&mut out);
        }
        errors += assembler.finish(&mut out);
        (frames, errors)
    }

    #[test]
    fn frames_of_fwht_end_where_they_say_wherever_their_bytes_are_cut() {
        let (key, other) = (fwht::made(true, 100), fwht::made(false, 50));
        let all = [&key[..], &other].concat();
        for cut in 1..all.len() {
            let pieces = [(Some(9000), &all[..cut]), (None, &all[cut..])];
            let wanted = vec![(9000, true, 144), (12_000, false, 94)];
            assert_eq!(fwht_frames(&pieces), (wanted, 0), "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_of_fwht_that_lost_bytes_is_skipped_and_those_around_it_are_kept() {
        let (key, other) = (fwht::made(true, 100), fwht::made(false, 50));
        let bad = fwht::MAGIC.repeat(3);
        for short in 8..key.len() {
            let pieces = [
                (Some(0), &other[..]),
                (Some(3000), &key[..short]),
                (Some(6000), &other),
                (Some(9000), &key),
            ];
            let (frames, errors) = fwht_frames(&pieces);
            assert_eq!(frames, [(0, false, 94), (6000, false, 94), (9000, true, 144)], "{short} bytes");
            assert!(errors > 0);
        }
        let (frames, errors) = fwht_frames(&[(Some(0), &other), (Some(3000), &key[..40])]);
        assert_eq!((frames.len(), errors), (1, 1), "one whose end never came");
        let (frames, errors) = fwht_frames(&[(Some(0), &[7; 500]), (Some(3000), &bad), (Some(6000), &key)]);
        assert_eq!(frames, [(6000, true, 144)]);
        assert!(errors > 0);
    }

    #[test]
    fn further_units_of_a_pes_get_the_next_times() {
        let frames = units(|a| {
            a.mark(Some(9000), None);
            a.extend(&[PICTURE, PICTURE].concat());
            a.mark(Some(15_000), None);
            a.extend(PICTURE);
        });
        let times: Vec<i64> = frames.iter().map(|f| f.pts.0).collect();
        assert_eq!(times, [9000, 12_000, 15_000]);
    }

    #[test]
    fn a_unit_that_goes_on_in_the_next_pes_keeps_its_time() {
        let frames = units(|a| {
            a.mark(Some(0), None);
            a.extend(PICTURE);
            a.mark(Some(3000), None);
            a.extend(&[0, 0, 1, 0x41, 0x60, 1, 2, 3, 4]);
            a.extend(PICTURE);
        });
        let times: Vec<i64> = frames.iter().map(|f| f.pts.0).collect();
        assert_eq!(times, [0, 3000]);
    }
}
