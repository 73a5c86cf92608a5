//! Where the samples of an MP4 lie and when they are shown: `moov` with its tables, `moof` with its runs.

use bytes::Bytes;
use headwater_protocol::Codec;

use super::boxes::{boxes, dig, find, table, u16_at, u32_at, u64_at};
use super::entry::{self, Entry};
use crate::demux::DemuxError;
use crate::es::{CLOCK, Rotation};

/// Samples of all tracks; ten hours of 60 fps with audio have about four million.
pub(crate) const MAX_SAMPLES: usize = 8 << 20;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Index into [`Index::tracks`].
    pub(crate) track: u32,
    pub(crate) size: u32,
    pub(crate) offset: u64,
    pub(crate) pts: i64,
    pub(crate) dts: i64,
    pub(crate) sync: bool,
}

#[derive(Debug)]
pub(crate) struct Track {
    id: u32,
    timescale: i64,
    /// What edits add to media time, in media ticks, and after scaling, in 90 kHz.
    minus: i64,
    plus: i64,
    pub(crate) rotation: Rotation,
    pub(crate) entry: Entry,
    /// The file says which samples are sync samples.
    pub(crate) has_sync: bool,
    /// Bytes that all samples begin with and that the file leaves out; Matroska's only compression here.
    pub(crate) stripped: Bytes,
    defaults: Defaults,
    /// Where the next fragment without a time of its own goes on.
    next: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Defaults {
    duration: u32,
    size: u32,
    flags: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) tracks: Vec<Track>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) errors: u32,
}

pub(crate) fn to_ticks(media: i64, timescale: i64) -> i64 {
    let scaled = i128::from(media) * i128::from(CLOCK);
    let scale = i128::from(timescale.max(1));
    // To the nearest, halves up.
    // Three centuries either way: sums of what a broken file says stay in range.
    const MOST: i128 = 1 << 50;
    (scaled * 2 + scale).div_euclid(scale * 2).clamp(-MOST, MOST) as i64
}

impl Track {
    /// A track whose samples have their final times.
    pub(crate) fn timed(entry: Entry, has_sync: bool, stripped: Bytes) -> Self {
        Self {
            id: 0,
            timescale: CLOCK,
            minus: 0,
            plus: 0,
            rotation: Rotation::None,
            entry,
            has_sync,
            stripped,
            defaults: Defaults::default(),
            next: 0,
        }
    }

    fn time(&self, media: i64) -> i64 {
        to_ticks(media.saturating_sub(self.minus), self.timescale).saturating_add(self.plus)
    }
}

impl Index {
    pub(crate) fn video(&self) -> Option<(usize, Codec, &Track)> {
        self.tracks.iter().enumerate().find_map(|(index, track)| match track.entry {
            Entry::Video { codec, .. } => Some((index, codec, track)),
            Entry::Audio(_) | Entry::Unsupported(_) | Entry::Encrypted | Entry::Other => None,
        })
    }

    /// Reads the movie header and, of a file that is not fragmented, all samples.
    pub(crate) fn movie(&mut self, moov: &[u8]) -> Result<(), DemuxError> {
        let movie_scale = find(moov, b"mvhd").and_then(header_scale).map_or(1000, |(scale, _)| scale);
        for (_, trak) in boxes(moov).filter(|(kind, _)| kind == b"trak") {
            // A track that makes no sense is no reason to drop the others.
            let Some(mut track) = read_track(trak, movie_scale) else { continue };
            if let Some(trex) = find(moov, b"mvex")
                .and_then(|mvex| boxes(mvex).find(|(k, b)| k == b"trex" && u32_at(b, 4) == Some(track.id)))
                .map(|(_, body)| body)
            {
                let word = |at| u32_at(trex, at).unwrap_or(0);
                track.defaults = Defaults { duration: word(12), size: word(16), flags: word(20) };
            }
            let number = self.tracks.len() as u32;
            if let Some(stbl) = dig(trak, &[b"mdia", b"minf", b"stbl"])
                && matches!(track.entry, Entry::Video { .. } | Entry::Audio(_))
            {
                self.read_table(stbl, &mut track, number);
            }
            self.tracks.push(track);
        }
        self.check_video()
    }

    /// A file whose only video cannot be read is refused by its name.
    pub(crate) fn check_video(&self) -> Result<(), DemuxError> {
        if self.video().is_none() {
            for track in &self.tracks {
                match &track.entry {
                    Entry::Encrypted => return Err(DemuxError::Encrypted),
                    Entry::Unsupported(name) => {
                        return Err(DemuxError::UnsupportedVideo { codec: name.clone() });
                    }
                    Entry::Video { .. } | Entry::Audio(_) | Entry::Other => {}
                }
            }
        }
        Ok(())
    }

    fn read_table(&mut self, stbl: &[u8], track: &mut Track, number: u32) -> Option<()> {
        let stsz = find(stbl, b"stsz")?;
        let (fixed, count) = (u32_at(stsz, 4)?, u32_at(stsz, 8)? as usize);
        let mut sizes = stsz.get(12..)?.as_chunks::<4>().0.iter();
        let mut size = || match fixed {
            0 => sizes.next().map(|s| u32::from_be_bytes(*s)),
            size => Some(size),
        };
        let mut times = find(stbl, b"stts").into_iter().flat_map(|b| table::<8>(b, 4)).flat_map(pair_run);
        let mut shifts = find(stbl, b"ctts").into_iter().flat_map(|b| table::<8>(b, 4)).flat_map(pair_run);
        let mut syncs =
            find(stbl, b"stss").map(|b| table::<4>(b, 4).map(|e| u32::from_be_bytes(*e)).peekable());
        track.has_sync = syncs.is_some();
        let chunk_offsets: Vec<u64> = match (find(stbl, b"stco"), find(stbl, b"co64")) {
            (Some(stco), _) => table::<4>(stco, 4).map(|e| u64::from(u32::from_be_bytes(*e))).collect(),
            (None, Some(co64)) => table::<8>(co64, 4).map(|e| u64::from_be_bytes(*e)).collect(),
            (None, None) => return None,
        };
        let mut runs = table::<12>(find(stbl, b"stsc")?, 4)
            .map(|e| (u32_at(e, 0).unwrap_or(1), u32_at(e, 4).unwrap_or(0)))
            .peekable();
        let (mut in_chunk, mut done, mut media) = (0, 0usize, 0i64);
        for (chunk, offset) in chunk_offsets.into_iter().enumerate() {
            while let Some((_, samples)) = runs.next_if(|(first, _)| *first as usize <= chunk + 1) {
                in_chunk = samples;
            }
            let mut at = offset;
            for _ in 0..in_chunk {
                if done >= count || self.samples.len() >= MAX_SAMPLES {
                    return Some(());
                }
                let size = size()?;
                done += 1;
                let sync = syncs.as_mut().is_none_or(|s| {
                    while s.next_if(|n| (*n as usize) < done).is_some() {}
                    s.next_if(|n| *n as usize == done).is_some()
                });
                let shift = shifts.next().unwrap_or(0) as i32;
                let (dts, pts) = (track.time(media), track.time(media + i64::from(shift)));
                self.samples.push(Sample { track: number, size, offset: at, pts, dts, sync });
                at = at.saturating_add(u64::from(size));
                media = media.saturating_add(i64::from(times.next().unwrap_or(0)));
            }
        }
        track.next = media;
        Some(())
    }

    /// Reads a movie fragment that begins at `at` in the file.
    pub(crate) fn fragment(&mut self, moof: &[u8], at: u64) {
        let mut end_of_last = at;
        for (_, traf) in boxes(moof).filter(|(kind, _)| kind == b"traf") {
            if self.track_fragment(traf, at, &mut end_of_last).is_none() {
                self.errors += 1;
            }
        }
    }

    fn track_fragment(&mut self, traf: &[u8], at: u64, end_of_last: &mut u64) -> Option<()> {
        let tfhd = find(traf, b"tfhd")?;
        let (flags, id) = (u32_at(tfhd, 0)? & 0x00ff_ffff, u32_at(tfhd, 4)?);
        let number = self.tracks.iter().position(|t| t.id == id)?;
        let track = &mut self.tracks[number];
        let wanted = matches!(track.entry, Entry::Video { .. } | Entry::Audio(_));
        let mut fields = Fields { data: tfhd, at: 8 };
        let mut base = if flags & 0x02_0000 != 0 { at } else { *end_of_last };
        if flags & 1 != 0 {
            base = u64::from(fields.word()?) << 32 | u64::from(fields.word()?);
        }
        if flags & 2 != 0 {
            fields.word()?;
        }
        let mut defaults = track.defaults;
        for (flag, slot) in [(8, &mut defaults.duration), (16, &mut defaults.size), (32, &mut defaults.flags)]
        {
            if flags & flag != 0 {
                *slot = fields.word()?;
            }
        }
        let mut media = match find(traf, b"tfdt") {
            Some(tfdt) if *tfdt.first()? == 1 => i64::try_from(u64_at(tfdt, 4)?).ok()?,
            Some(tfdt) => i64::from(u32_at(tfdt, 4)?),
            None => track.next,
        };
        track.has_sync = true;
        let mut offset = base;
        for (_, trun) in boxes(traf).filter(|(kind, _)| kind == b"trun") {
            let (flags, count) = (u32_at(trun, 0)? & 0x00ff_ffff, u32_at(trun, 4)?);
            let mut fields = Fields { data: trun, at: 8 };
            if flags & 1 != 0 {
                offset = base.checked_add_signed(i64::from(fields.word()? as i32))?;
            }
            let mut first_flags = if flags & 4 != 0 { Some(fields.word()?) } else { None };
            // Runs without fields of their own cost nothing to claim.
            let most = if flags & 0xf00 == 0 { 4096 } else { u32::MAX };
            for _ in 0..count.min(most) {
                let mut field = |flag, default| if flags & flag != 0 { fields.word() } else { Some(default) };
                let duration = field(0x100, defaults.duration)?;
                let size = field(0x200, defaults.size)?;
                let sample_flags = field(0x400, defaults.flags)?;
                let shift = field(0x800, 0)? as i32;
                let sample_flags = first_flags.take().unwrap_or(sample_flags);
                let (dts, pts) = (track.time(media), track.time(media.saturating_add(i64::from(shift))));
                if wanted && self.samples.len() < MAX_SAMPLES {
                    let sync = sample_flags & 0x1_0000 == 0;
                    self.samples.push(Sample { track: number as u32, size, offset, pts, dts, sync });
                }
                offset = offset.saturating_add(u64::from(size));
                media = media.saturating_add(i64::from(duration));
            }
        }
        *end_of_last = offset;
        track.next = media;
        Some(())
    }

    /// In the order of decoding over all tracks.
    pub(crate) fn sort(&mut self) {
        // With negative offsets a frame is shown before its decoding time: decode all a little earlier.
        let mut early = vec![0i64; self.tracks.len()];
        for sample in &self.samples {
            let slot = &mut early[sample.track as usize];
            *slot = (*slot).max(sample.dts.saturating_sub(sample.pts));
        }
        for sample in &mut self.samples {
            sample.dts = sample.dts.saturating_sub(early[sample.track as usize]);
        }
        self.samples.sort_by_key(|sample| sample.dts);
    }
}

struct Fields<'a> {
    data: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn word(&mut self) -> Option<u32> {
        let value = u32_at(self.data, self.at)?;
        self.at += 4;
        Some(value)
    }
}

/// An entry of `stts` or `ctts`: a count and what holds for so many samples.
fn pair_run(entry: &[u8; 8]) -> impl Iterator<Item = u32> {
    let count = u32_at(entry, 0).unwrap_or(0);
    let value = u32_at(entry, 4).unwrap_or(0);
    std::iter::repeat_n(value, count as usize)
}

/// Timescale and duration of `mvhd` and `mdhd`.
fn header_scale(body: &[u8]) -> Option<(i64, u64)> {
    let (scale, duration) = match body.first()? {
        1 => (u32_at(body, 20)?, u64_at(body, 24)?),
        _ => (u32_at(body, 12)?, u64::from(u32_at(body, 16)?)),
    };
    (scale > 0).then_some((i64::from(scale), duration))
}

fn read_track(trak: &[u8], movie_scale: i64) -> Option<Track> {
    let tkhd = find(trak, b"tkhd")?;
    let long = if *tkhd.first()? == 1 { 12 } else { 0 };
    let id = u32_at(tkhd, if long > 0 { 20 } else { 12 })?;
    let mdia = find(trak, b"mdia")?;
    let (timescale, _) = find(mdia, b"mdhd").and_then(header_scale)?;
    let handler = *find(mdia, b"hdlr")?.get(8..12)?.first_chunk()?;
    let stsd = dig(mdia, &[b"minf", b"stbl", b"stsd"])?;
    let (kind, body) = boxes(stsd.get(8..)?).next()?;
    let (mut minus, mut plus) = (0, 0);
    if let Some(elst) = dig(trak, &[b"edts", b"elst"]) {
        (minus, plus) = read_edits(elst, movie_scale);
    }
    Some(Track {
        id,
        timescale,
        minus,
        plus,
        rotation: read_rotation(tkhd.get(40 + long..)?),
        entry: entry::read(handler, kind, body),
        has_sync: false,
        stripped: Bytes::new(),
        defaults: Defaults::default(),
        next: 0,
    })
}

/// Empty edits put the track later, the first other one says where in the media it begins.
fn read_edits(elst: &[u8], movie_scale: i64) -> (i64, i64) {
    let long = elst.first() == Some(&1);
    let entries: Vec<(i64, i64)> = if long {
        table::<20>(elst, 4)
            .map(|e| (u64_at(e, 0).unwrap_or(0) as i64, u64_at(e, 8).unwrap_or(0) as i64))
            .collect()
    } else {
        table::<12>(elst, 4)
            .map(|e| (i64::from(u32_at(e, 0).unwrap_or(0)), i64::from(u32_at(e, 4).unwrap_or(0) as i32)))
            .collect()
    };
    let mut empty = 0i64;
    for (duration, media_time) in entries {
        if media_time >= 0 {
            return (media_time, to_ticks(empty, movie_scale));
        }
        empty = empty.saturating_add(duration.max(0));
    }
    (0, to_ticks(empty, movie_scale))
}

/// From the display matrix; mirrored and sheared ones count as upright.
fn read_rotation(matrix: &[u8]) -> Rotation {
    let cell = |n: usize| u32_at(matrix, 4 * n).map_or(0, |v| (v as i32).signum());
    match (cell(0), cell(1), cell(3), cell(4)) {
        (0, 1, -1, 0) => Rotation::Clockwise90,
        (-1, 0, 0, -1) => Rotation::Half,
        (0, -1, 1, 0) => Rotation::Clockwise270,
        _ => Rotation::None,
    }
}

pub(crate) fn audio_rate(body: &[u8]) -> Option<(u16, u32)> {
    Some((u16_at(body, 16)?, u32_at(body, 24)? >> 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_time_is_scaled_to_the_nearest_tick() {
        assert_eq!(to_ticks(1001, 30_000), 3003);
        assert_eq!((to_ticks(1, 48_000), to_ticks(-1, 48_000)), (2, -2));
        assert_eq!((to_ticks(1, 60_000), to_ticks(1, 180_000), to_ticks(-1, 180_000)), (2, 1, 0));
    }

    #[test]
    fn edits_shift_a_track_both_ways() {
        let edits = |list: &[(i32, i32)]| {
            let mut elst = vec![0; 4];
            elst.extend((list.len() as u32).to_be_bytes());
            for (duration, time) in list {
                elst.extend(duration.to_be_bytes());
                elst.extend(time.to_be_bytes());
                elst.extend([0, 1, 0, 0]);
            }
            read_edits(&elst, 1000)
        };
        assert_eq!(edits(&[(2000, 1024)]), (1024, 0));
        assert_eq!(edits(&[(500, -1), (2000, 512)]), (512, 45_000));
        assert_eq!(edits(&[]), (0, 0));
    }
}
