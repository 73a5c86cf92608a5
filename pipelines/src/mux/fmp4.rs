//! Fragmented MP4: a header, then a fragment per group of pictures.
//!
//! ```text
//! ftyp │ moov │ moof: video from dts, audio from pts │ mdat │ moof │ mdat │ …
//! ```
//!
//! The header needs the parameter sets of the first keyframe and the first header of each audio track, so
//! it is written with the first fragment. Times are the working ones: a fragment's is its absolute time.

use bytes::{BufMut, Bytes, BytesMut};
use headwater_protocol::Codec;

use super::MuxVideo;
use super::boxes::{self, Config, Kind, put_box, put_full, put32, put64};
use super::sound::Cutter;
use crate::coded::{av1, vpx};
use crate::es::{AudioFormat, AudioPacket, CLOCK, Frame};
use crate::nal::{self, ParameterSets};

/// A fragment is not longer than this, even without a keyframe.
const MAX_FRAGMENT: i64 = CLOCK;
/// An audio track that has shown nothing after this much video is left out.
const PATIENCE: i64 = 5 * CLOCK;

const VIDEO_ID: u32 = 1;
const SYNC: u32 = 0x0200_0000;
const NOT_SYNC: u32 = 0x0101_0000;

#[derive(Debug)]
pub(super) struct Fmp4Muxer {
    video: MuxVideo,
    /// None until the first keyframe.
    config: Option<Config>,
    frames: Vec<Sample>,
    audio: Vec<Option<AudioTrack>>,
    /// Added to all times, where the segment begins before 0. None until the header is written.
    shift: Option<i64>,
    sequence: u32,
    last_duration: Option<i64>,
    /// Packets of sound that came when the header was written without their track.
    lost: u32,
}

#[derive(Debug)]
struct Sample {
    dts: i64,
    offset: i64,
    key: bool,
    data: Bytes,
}

#[derive(Debug)]
struct AudioTrack {
    cutter: Cutter,
    sounds: Vec<Sound>,
    /// Where the last one ended, in samples.
    next: Option<i64>,
    /// In the header.
    listed: bool,
}

#[derive(Debug)]
struct Sound {
    time: i64,
    duration: u32,
    data: Bytes,
}

impl Fmp4Muxer {
    pub(super) fn new(video: MuxVideo, audio: &[AudioFormat]) -> Self {
        Self {
            video,
            config: None,
            frames: Vec::new(),
            audio: audio.iter().map(AudioTrack::new).collect(),
            shift: None,
            sequence: 0,
            last_duration: None,
            lost: 0,
        }
    }

    pub(super) fn tracks(&mut self, audio: &[AudioFormat]) {
        self.audio.extend(audio.iter().skip(self.audio.len()).map(AudioTrack::new));
    }

    pub(super) fn video(&mut self, frame: &Frame, out: &mut BytesMut) {
        if let Some(first) = self.frames.first() {
            let span = frame.dts.0 - first.dts;
            if frame.key || span >= MAX_FRAGMENT {
                self.fragment(Some(frame.dts.0), span >= PATIENCE, out);
            }
        }
        let data = self.sample(&frame.data);
        self.frames.push(Sample {
            dts: frame.dts.0,
            offset: frame.pts.0 - frame.dts.0,
            key: frame.key,
            data,
        });
    }

    pub(super) fn audio(&mut self, packet: &AudioPacket) {
        let Some(Some(track)) = self.audio.get_mut(packet.track) else { return };
        if self.shift.is_some() && !track.listed {
            self.lost += 1;
        } else {
            track.push(packet);
        }
    }

    pub(super) fn lost(&self) -> u32 {
        self.lost
    }

    pub(super) fn finish(&mut self, out: &mut BytesMut) {
        self.fragment(None, true, out);
    }

    /// A frame as MP4 holds it; what the header must say of it is kept until that is written.
    fn sample(&mut self, data: &Bytes) -> Bytes {
        let late = self.shift.is_some();
        match self.video.codec {
            Codec::H264 | Codec::Hevc => self.length_prefixed(data),
            Codec::Av1 => {
                if !late && let Some(header) = av1::sequence(data) {
                    let sequence = av1::parse_sequence(header).unwrap_or_default();
                    self.config = Some(Config::Av1 { sequence, header: header.to_vec() });
                }
                av1::without_delimiters(data)
            }
            Codec::Vp9 | Codec::Vp8 => {
                let vp9 = self.video.codec == Codec::Vp9;
                let frame = if vp9 { vpx::look_vp9(data) } else { vpx::look_vp8(data) };
                if !late && let Some(format) = frame.format {
                    self.config = Some(Config::Vpx(format));
                }
                data.clone()
            }
            // No ladder asks for them here.
            Codec::Jpeg | Codec::Fwht => data.clone(),
        }
    }

    /// Start codes become lengths. Delimiters and what the header has go.
    fn length_prefixed(&mut self, unit: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(unit.len() + 16);
        let Config::Sets(sets) = self.config.get_or_insert_with(|| Config::Sets(ParameterSets::default()))
        else {
            return out.freeze();
        };
        for nal in nal::units(unit) {
            let keep = match nal::kind(self.video.codec, nal) {
                nal::Kind::Delimiter => false,
                nal::Kind::ParameterSet if self.shift.is_none() => {
                    sets.put(self.video.codec, nal);
                    false
                }
                nal::Kind::ParameterSet => !sets.has(nal),
                nal::Kind::Slice(_) | nal::Kind::Sei | nal::Kind::Prefix | nal::Kind::Other => true,
            };
            if keep {
                out.put_u32(nal.len() as u32);
                out.put_slice(nal);
            }
        }
        out.freeze()
    }

    /// The video's size, where its own headers say it; None: there is nothing to decode.
    fn described(&self) -> Option<(MuxVideo, &Config)> {
        let config = self.config.as_ref()?;
        let size = match config {
            Config::Sets(sets) => {
                let sps = sets.sps().next()?;
                nal::parse_sps(self.video.codec, sps).map(|sps| (sps.width, sps.height))
            }
            Config::Av1 { sequence, .. } => Some((sequence.width, sequence.height)),
            Config::Vpx(format) => Some((format.width, format.height)),
        };
        let (width, height) = size.unwrap_or((self.video.width, self.video.height));
        Some((MuxVideo { width, height, ..self.video }, config))
    }

    /// Writes what there is. `next`: when the next frame is decoded. Without `force` it may wait for audio.
    fn fragment(&mut self, next: Option<i64>, force: bool, out: &mut BytesMut) {
        if self.shift.is_none() {
            let silent = |t: &AudioTrack| t.cutter.format.is_none();
            if !force && self.audio.iter().flatten().any(silent) {
                return;
            }
            self.header(out);
        }
        let shift = self.shift.unwrap_or(0);
        let usual = self.video.fps.map(|fps| CLOCK * i64::from(fps.den()) / i64::from(fps.num()));
        let last = self.last_duration.or(usual).unwrap_or(CLOCK / 30);
        let ends = self.frames.iter().skip(1).map(|f| Some(f.dts)).chain([next]);
        let durations: Vec<i64> = self
            .frames
            .iter()
            .zip(ends)
            .map(|(f, end)| end.map_or_else(|| usual.unwrap_or(last), |e| e - f.dts))
            .collect();
        self.last_duration = durations.last().copied().or(self.last_duration);

        let sounds = self.audio.iter().flatten().filter(|t| t.listed).flat_map(|t| &t.sounds);
        let media: usize = self.frames.iter().map(|f| f.data.len()).chain(sounds.map(|s| s.data.len())).sum();
        if media == 0 {
            return;
        }
        self.sequence += 1;
        let mut moof = Vec::with_capacity(256 + self.frames.len() * 16);
        // Where each run's offset stands, and how far into the media its data lies.
        let mut offsets: Vec<(usize, usize)> = Vec::new();
        let mut at = 0;
        put_box(&mut moof, b"moof", |moof| {
            put_full(moof, b"mfhd", 0, 0, |moof| put32(moof, self.sequence));
            if let Some(first) = self.frames.first() {
                let start = first.dts + shift;
                put_run(
                    moof,
                    VIDEO_ID,
                    NOT_SYNC,
                    start,
                    self.frames.len(),
                    0xf00,
                    &mut offsets,
                    at,
                    |moof| {
                        for (frame, duration) in self.frames.iter().zip(&durations) {
                            put32(moof, u32::try_from(*duration).unwrap_or(0));
                            put32(moof, frame.data.len() as u32);
                            put32(moof, if frame.key { SYNC } else { NOT_SYNC });
                            put32(moof, i32::try_from(frame.offset).unwrap_or(0).cast_unsigned());
                        }
                    },
                );
                at += self.frames.iter().map(|f| f.data.len()).sum::<usize>();
            }
            for (id, track) in listed(&self.audio) {
                let (Some(first), Some(format)) = (track.sounds.first(), &track.cutter.format) else {
                    continue;
                };
                let start = first.time + scale(shift, format.rate);
                put_run(moof, id, SYNC, start, track.sounds.len(), 0x300, &mut offsets, at, |moof| {
                    for sound in &track.sounds {
                        put32(moof, sound.duration);
                        put32(moof, sound.data.len() as u32);
                    }
                });
                at += track.sounds.iter().map(|s| s.data.len()).sum::<usize>();
            }
        });
        let before = moof.len() + 8;
        for (place, offset) in offsets {
            moof[place..place + 4].copy_from_slice(&((before + offset) as u32).to_be_bytes());
        }
        out.reserve(before + media);
        out.put_slice(&moof);
        // A fragment is at most a second or a group of pictures of an input of 300 MB.
        out.put_u32((media + 8) as u32);
        out.put_slice(b"mdat");
        self.frames.drain(..).for_each(|frame| out.put_slice(&frame.data));
        for track in self.audio.iter_mut().flatten() {
            track.sounds.drain(..).for_each(|sound| out.put_slice(&sound.data));
        }
    }

    fn header(&mut self, out: &mut BytesMut) {
        let video = self.frames.iter().map(|f| f.dts.min(f.dts + f.offset)).min();
        let audio = self.audio.iter().flatten().filter_map(|track| {
            let rate = track.cutter.format.as_ref()?.rate;
            let time = i128::from(track.sounds.first()?.time);
            Some((time * i128::from(CLOCK) / i128::from(rate.max(1)) - 1) as i64)
        });
        let first = video.into_iter().chain(audio).min().unwrap_or(0);
        let shift = (-first).max(0);
        self.shift = Some(shift);
        let mut tracks = Vec::new();
        for track in self.audio.iter_mut().flatten() {
            track.listed = track.cutter.format.is_some();
        }
        if self.described().is_none() {
            self.frames.clear();
        }
        if let Some((video, config)) = self.described() {
            tracks.push(boxes::Track {
                id: VIDEO_ID,
                timescale: CLOCK as u32,
                starts_at: shift as u64,
                kind: Kind::Video(video, config),
            });
        }
        for (id, track) in listed(&self.audio) {
            if let Some(format) = &track.cutter.format {
                tracks.push(boxes::Track {
                    id,
                    timescale: format.rate,
                    starts_at: scale(shift, format.rate) as u64,
                    kind: Kind::Audio(format),
                });
            }
        }
        out.put_slice(&boxes::header(&tracks));
    }
}

fn listed(audio: &[Option<AudioTrack>]) -> impl Iterator<Item = (u32, &AudioTrack)> {
    (VIDEO_ID + 1..).zip(audio).filter_map(|(id, track)| Some((id, track.as_ref().filter(|t| t.listed)?)))
}

/// 90 kHz to samples, to the nearest.
fn scale(ticks: i64, rate: u32) -> i64 {
    let (clock, scaled) = (i128::from(CLOCK), i128::from(ticks) * i128::from(rate));
    (scaled * 2 + clock).div_euclid(2 * clock) as i64
}

/// A `traf` with one run.
#[expect(clippy::too_many_arguments, reason = "the fields of one box, written in one place")]
fn put_run(
    out: &mut Vec<u8>,
    id: u32,
    default_flags: u32,
    start: i64,
    count: usize,
    fields: u32,
    offsets: &mut Vec<(usize, usize)>,
    data_at: usize,
    entries: impl FnOnce(&mut Vec<u8>),
) {
    put_box(out, b"traf", |out| {
        // Default flags are here; offsets count from the moof.
        put_full(out, b"tfhd", 0, 0x02_0020, |out| {
            put32(out, id);
            put32(out, default_flags);
        });
        put_full(out, b"tfdt", 1, 0, |out| put64(out, u64::try_from(start).unwrap_or(0)));
        put_full(out, b"trun", 1, 1 | fields, |out| {
            put32(out, count as u32);
            offsets.push((out.len(), data_at));
            put32(out, 0);
            entries(out);
        });
    });
}

impl AudioTrack {
    /// None: MP4 does not carry the format.
    fn new(format: &AudioFormat) -> Option<Self> {
        let cutter = Cutter::new(format)?;
        Some(Self { cutter, sounds: Vec::new(), next: None, listed: false })
    }

    fn push(&mut self, packet: &AudioPacket) {
        // A timestamp is that of the first frame that begins in its packet.
        let mut carried = self.cutter.pending();
        let cuts = self.cutter.cut(&packet.data);
        let Some(format) = &self.cutter.format else { return };
        let mut stamp = scale(packet.pts.0, format.rate);
        for cut in cuts {
            let time = match self.next {
                Some(next) if carried => next,
                // Stamps are rounded: what is nearer than a hundredth of a second follows at once.
                Some(next) if (stamp - next).abs() <= i64::from(format.rate) / 100 => next,
                // Audio cannot overlap; a gap is the last frame's to fill.
                Some(next) if stamp < next => next,
                Some(next) => {
                    if let Some(last) = self.sounds.last_mut() {
                        let gap = u32::try_from(stamp - next).unwrap_or(0);
                        last.duration = last.duration.saturating_add(gap);
                    }
                    stamp
                }
                None => stamp,
            };
            if !carried {
                stamp += i64::from(cut.samples);
            }
            carried = false;
            self.next = Some(time + i64::from(cut.samples));
            self.sounds.push(Sound { time, duration: cut.samples, data: cut.data });
        }
    }
}
