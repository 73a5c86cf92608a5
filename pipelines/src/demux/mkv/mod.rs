//! Matroska and WebM, as an index of samples like that of MP4.
//!
//! ```text
//! EBML │ Segment: Info │ Tracks │ Cluster: time, blocks │ Cluster … │ Cues
//!                                  └─▶ index: (track, offset, size, pts, key)
//! ```
//!
//! The walk is our own: it must survive files that are cut off, of unknown length or damaged, never trust a size, and
//! leave frames where they lie. Blocks have one time, that of presentation; decoding times are made from the order.

mod ebml;
mod track;

use bytes::Bytes;

use self::ebml::{Head, elements, find, number, unsigned, unsigned_in};
use super::DemuxError;
use super::mp4::entry::Entry;
use super::mp4::index::{Index, MAX_SAMPLES, Sample, Track, to_ticks};
use super::mp4::{MAX_HEADER, Source, read};
use crate::es::AudioFormat;

pub(crate) const MAGIC: &[u8] = &[0x1a, 0x45, 0xdf, 0xa3];

const SEGMENT: u32 = 0x1853_8067;
const INFO: u32 = 0x1549_a966;
const TRACKS: u32 = 0x1654_ae6b;
const CLUSTER: u32 = 0x1f43_b675;
const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;
const BLOCK_GROUP: u32 = 0xa0;
const BLOCK: u32 = 0xa1;
const REFERENCE: u32 = 0xfb;
const TRACK_ENTRY: u32 = 0xae;

const NANOSECONDS: i64 = 1_000_000_000;

/// What a track needs besides what the index keeps.
#[derive(Debug, Clone, Copy)]
struct Numbered {
    number: u64,
    /// Shown so much before its time, in nanoseconds: Opus.
    delay: i64,
    /// Length of a frame in nanoseconds, where a block holds several.
    length: i64,
}

struct Walk<'a, S> {
    source: &'a S,
    index: Index,
    numbers: Vec<Numbered>,
    /// Nanoseconds in a unit of time.
    scale: i64,
    cluster: i64,
    has_tracks: bool,
}

/// Reads the index of a file.
pub(crate) fn index(source: &impl Source) -> Result<Index, DemuxError> {
    let mut walk = Walk {
        source,
        index: Index::default(),
        numbers: Vec::new(),
        scale: 1_000_000,
        cluster: 0,
        has_tracks: false,
    };
    let mut at = 0;
    while at < source.len() && walk.index.samples.len() < MAX_SAMPLES {
        at = walk.element(at)?;
    }
    if !walk.has_tracks {
        return Err(DemuxError::NoTracks);
    }
    walk.index.check_video()?;
    decoding_times(&mut walk.index);
    Ok(walk.index)
}

impl<S: Source> Walk<'_, S> {
    /// Reads what is at `at`; gives where to go on.
    fn element(&mut self, at: u64) -> Result<u64, DemuxError> {
        let head = read(self.source, at, Head::MOST)?;
        let Some(head) = Head::parse(&head) else { return self.resync(at + 1) };
        let body = at + head.len as u64;
        let next = head.size.and_then(|size| body.checked_add(size));
        match head.id {
            // Their children are read as if they were side by side, so it does not matter where they end.
            SEGMENT => return Ok(body),
            CLUSTER => {
                self.cluster = 0;
                return Ok(body);
            }
            INFO | TRACKS | TIMESTAMP | BLOCK_GROUP => {
                let Some(size) = head.size else { return self.resync(body) };
                if size > MAX_HEADER {
                    return Err(DemuxError::BrokenMatroska { what: "a header is larger than 256 MiB" });
                }
                // Groups hold a frame; of those only what stands around it is wanted.
                let data = read(self.source, body, size as usize)?;
                match head.id {
                    INFO => {
                        let scale = unsigned_in(&data, 0x2a_d7b1).and_then(|scale| i64::try_from(scale).ok());
                        self.scale = scale.filter(|scale| *scale > 0).unwrap_or(self.scale);
                    }
                    TRACKS => self.tracks(&data),
                    TIMESTAMP => self.cluster = i64::try_from(unsigned(&data)).unwrap_or(0),
                    _ => self.group(&data, body),
                }
            }
            SIMPLE_BLOCK => {
                let start = read(self.source, body, BLOCK_START)?;
                let flags = number(&start).and_then(|(_, len)| start.get(len + 2).copied()).unwrap_or(0);
                self.block(body, head.size.unwrap_or(0), &start, flags & 0x80 != 0)?;
            }
            _ => {}
        }
        match next {
            Some(next) => Ok(next),
            None => self.resync(body),
        }
    }

    /// Looks for the next cluster after damage.
    fn resync(&mut self, from: u64) -> Result<u64, DemuxError> {
        const PIECE: usize = 64 * 1024;
        self.index.errors = self.index.errors.saturating_add(1);
        let mut at = from;
        while at < self.source.len() {
            let piece = read(self.source, at, PIECE)?;
            if let Some(found) = memchr::memmem::find(&piece, &CLUSTER.to_be_bytes()) {
                return Ok(at + found as u64);
            }
            // The id may lie across two pieces.
            at += (piece.len() as u64).saturating_sub(3).max(1);
        }
        Ok(self.source.len())
    }

    fn tracks(&mut self, data: &[u8]) {
        // A second list is that of a second file put behind the first.
        if std::mem::replace(&mut self.has_tracks, true) {
            return;
        }
        for (_, body) in elements(data).filter(|(id, _)| *id == TRACK_ENTRY) {
            let Some(number) = unsigned_in(body, 0xd7) else { continue };
            let nanoseconds = |id| unsigned_in(body, id).and_then(|t| i64::try_from(t).ok()).unwrap_or(0);
            let (entry, stripped) = track::read(body);
            let usual = match &entry {
                Entry::Audio(AudioFormat::Aac { rate, .. }) => 1024 * NANOSECONDS / i64::from(*rate).max(1),
                Entry::Audio(_)
                | Entry::Video { .. }
                | Entry::Unsupported(_)
                | Entry::Encrypted
                | Entry::Other => 0,
            };
            let length = Some(nanoseconds(0x23_e383)).filter(|length| *length > 0).unwrap_or(usual);
            self.numbers.push(Numbered { number, delay: nanoseconds(0x56_aa), length });
            self.index.tracks.push(Track::timed(entry, true, stripped));
        }
    }

    fn group(&mut self, data: &[u8], at: u64) {
        let key = !elements(data).any(|(id, _)| id == REFERENCE);
        let Some(block) = find(data, BLOCK) else { return };
        let offset = at + (block.as_ptr() as usize - data.as_ptr() as usize) as u64;
        let start = Bytes::copy_from_slice(&block[..block.len().min(BLOCK_START)]);
        // What is in memory already cannot fail to be read.
        let _ = self.block(offset, block.len() as u64, &start, key);
    }

    /// One frame, or several laced into one block. `start` has the first bytes of it.
    fn block(&mut self, at: u64, size: u64, start: &[u8], key: bool) -> Result<(), DemuxError> {
        let Some((number, len)) = number(start) else { return Ok(()) };
        let Some(track) = self.numbers.iter().position(|numbered| numbered.number == number) else {
            return Ok(());
        };
        let Some(&[high, low, flags]) = start.get(len..len + 3) else { return Ok(()) };
        let relative = i64::from(i16::from_be_bytes([high, low]));
        let Numbered { delay, length, .. } = self.numbers[track];
        let time = (self.cluster.saturating_add(relative)).saturating_mul(self.scale).saturating_sub(delay);
        let head = len + 3;
        let sizes = match flags >> 1 & 3 {
            0 => Some((head, vec![size.saturating_sub(head as u64)])),
            lacing => {
                // Sizes of at most 256 frames stand in front.
                let table = read(self.source, at, usize::try_from(size).unwrap_or(usize::MAX).min(4096))?;
                lace(lacing, table.get(head..).unwrap_or_default(), size.saturating_sub(head as u64))
                    .map(|(table, sizes)| (head + table, sizes))
            }
        };
        let Some((head, sizes)) = sizes else {
            self.index.errors = self.index.errors.saturating_add(1);
            return Ok(());
        };
        let mut offset = at + head as u64;
        for (nth, size) in sizes.into_iter().enumerate() {
            let pts = to_ticks(time.saturating_add(length.saturating_mul(nth as i64)), NANOSECONDS);
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            self.index.samples.push(Sample { track: track as u32, size, offset, pts, dts: pts, sync: key });
            offset = offset.saturating_add(u64::from(size));
        }
        Ok(())
    }
}

/// Bytes of a block that tell its track, time and flags.
const BLOCK_START: usize = 11;

/// Sizes of laced frames: bytes of the table, and each size.
fn lace(kind: u8, data: &[u8], total: u64) -> Option<(usize, Vec<u64>)> {
    const XIPH: u8 = 1;
    const FIXED: u8 = 2;
    let frames = u64::from(*data.first()?) + 1;
    let mut at = 1;
    let mut sizes = Vec::new();
    if kind == FIXED {
        let size = total.checked_sub(1)? / frames;
        return Some((at, vec![size; frames as usize]));
    }
    for nth in 0..frames - 1 {
        if kind == XIPH {
            let mut size = 0;
            loop {
                let byte = *data.get(at)?;
                at += 1;
                size += u64::from(byte);
                if byte != 255 {
                    break;
                }
            }
            sizes.push(size);
        } else {
            let (value, len) = number(data.get(at..)?)?;
            at += len;
            // After the first one differences stand here, moved so that they are not negative.
            let middle = (1i64 << (7 * len - 1)) - 1;
            let size = match (nth, sizes.last()) {
                (0, _) | (_, None) => value,
                (_, Some(&last)) => last.checked_add_signed(i64::try_from(value).ok()? - middle)?,
            };
            sizes.push(size);
        }
    }
    let known = sizes.iter().try_fold(at as u64, |sum, size: &u64| sum.checked_add(*size))?;
    sizes.push(total.checked_sub(known)?);
    Some((at, sizes))
}

/// A frame is decoded in its turn: at the time of the frame that is shown in that turn, and all so much earlier
/// that none is shown before it is decoded.
fn decoding_times(index: &mut Index) {
    for track in 0..index.tracks.len() as u32 {
        let mut times: Vec<i64> = index.samples.iter().filter(|s| s.track == track).map(|s| s.pts).collect();
        if times.is_sorted() {
            continue;
        }
        times.sort_unstable();
        let own = || index.samples.iter().filter(|s| s.track == track);
        let early = own().zip(&times).map(|(sample, time)| time - sample.pts).max().unwrap_or(0);
        for (sample, time) in index.samples.iter_mut().filter(|s| s.track == track).zip(times) {
            sample.dts = time - early;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laced_frames_are_told_apart_in_all_three_ways() {
        assert_eq!(lace(1, &[2, 255, 1, 3], 300), Some((4, vec![256, 3, 37])));
        assert_eq!(lace(2, &[2], 31), Some((1, vec![10, 10, 10])));
        // 800, then 500 by a difference of -300, then the rest.
        assert_eq!(lace(3, &[2, 0x43, 0x20, 0x5e, 0xd3], 2305), Some((5, vec![800, 500, 1000])));
        assert_eq!(lace(1, &[2, 255], 300), None);
        assert_eq!(lace(1, &[1, 200], 100), None);
    }

    #[test]
    fn reordered_frames_are_decoded_in_turn_and_before_they_are_shown() {
        let mut index = Index::default();
        index.tracks.push(Track::timed(Entry::Other, true, Bytes::new()));
        for pts in [0, 9000, 3000, 6000, 12_000] {
            let sample = Sample { track: 0, size: 1, offset: 0, pts, dts: pts, sync: false };
            index.samples.push(sample);
        }
        decoding_times(&mut index);
        let dts: Vec<i64> = index.samples.iter().map(|sample| sample.dts).collect();
        assert_eq!(dts, [-3000, 0, 3000, 6000, 9000]);
    }
}
