//! MP4 and QuickTime, progressive or in fragments; and any file that is read by an index of its samples.
//!
//! ```text
//! ftyp │ moov: tracks, tables │ mdat │ moof: runs │ mdat │ …
//!          └─▶ index: (track, offset, size, pts, dts) ─▶ sorted by dts ─▶ frames
//! ```
//!
//! The walk is our own: files of cameras and phones have boxes that a strict parser refuses, and only a few
//! boxes matter here. Frames are read from where they lie, so a file need not be in memory.

mod boxes;
pub(super) mod entry;
pub(super) mod index;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::{BufMut, Bytes, BytesMut};
use headwater_protocol::Codec;

use self::boxes::Head;
use self::entry::{Entry, Framing};
pub(crate) use self::index::{Index, Sample};
use super::{DemuxError, mkv};
use crate::coded::{self, av1};
use crate::es::{AudioPacket, Frame, Item, Ticks, Tracks, VideoTrack};
use crate::nal::{self, ParameterSets, Picture};

/// Boxes of headers larger than this are not read: ten hours of tables take a tenth.
pub(super) const MAX_HEADER: u64 = 256 << 20;

/// Bytes that can be read anywhere.
pub(crate) trait Source {
    fn len(&self) -> u64;
    /// Fewer bytes than asked for at the end.
    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes>;
}

impl Source for Bytes {
    fn len(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let total = self.as_ref().len();
        let from = usize::try_from(offset).unwrap_or(total).min(total);
        Ok(self.slice(from..from.saturating_add(len).min(total)))
    }
}

#[derive(Debug)]
pub(crate) struct FileSource {
    file: File,
    len: u64,
}

impl FileSource {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut data = vec![0; len.min(left)];
        self.file.read_exact_at(&mut data, offset)?;
        Ok(data.into())
    }
}

pub(super) fn read(source: &impl Source, offset: u64, len: usize) -> Result<Bytes, DemuxError> {
    source
        .read(offset, len)
        .map_err(|error| DemuxError::Read { path: "the input".to_owned(), error: error.to_string() })
}

/// A file whose headers have been read.
#[derive(Debug)]
pub(crate) struct Movie {
    index: Index,
    /// Index in `index.tracks` to index in [`Tracks::audio`].
    audio: Vec<Option<usize>>,
    video: Option<usize>,
    tracks: Tracks,
    sets: ParameterSets,
}

impl Movie {
    pub(crate) fn open(source: &impl Source) -> Result<Self, DemuxError> {
        let mut index = if read(source, 0, mkv::MAGIC.len())?.as_ref() == mkv::MAGIC {
            mkv::index(source)?
        } else {
            Self::boxes(source)?
        };
        index.sort();
        Ok(Self::of(index))
    }

    fn boxes(source: &impl Source) -> Result<Index, DemuxError> {
        let mut index = Index::default();
        let mut at = 0;
        let mut found = false;
        while let Some(head) = Head::parse(&read(source, at, 16)?) {
            let left = source.len() - at;
            let size = head.size.unwrap_or(left);
            match &head.kind {
                b"moov" | b"moof" if size > MAX_HEADER => {
                    return Err(DemuxError::BrokenMovie { what: "a header is larger than 256 MiB" });
                }
                b"moov" if !found => {
                    let body = read(source, at + head.len as u64, size.min(left) as usize - head.len)?;
                    if size > left && !entry::is_fragmented(&body) {
                        return Err(DemuxError::BrokenMovie { what: "its movie header is cut off" });
                    }
                    index.movie(&body)?;
                    found = true;
                }
                // Fragments before the header cannot be understood.
                b"moof" if found => {
                    let body = read(source, at + head.len as u64, size.min(left) as usize - head.len)?;
                    index.fragment(&body, at);
                }
                _ => {}
            }
            match at.checked_add(size) {
                Some(next) if next < source.len() => at = next,
                Some(_) | None => break,
            }
        }
        if found { Ok(index) } else { Err(DemuxError::NoMovie) }
    }

    fn of(index: Index) -> Self {
        let mut audio = Vec::new();
        let mut numbers = Vec::new();
        for track in &index.tracks {
            numbers.push(match &track.entry {
                Entry::Audio(format) => {
                    audio.push(format.clone());
                    Some(audio.len() - 1)
                }
                Entry::Video { .. } | Entry::Unsupported(_) | Entry::Encrypted | Entry::Other => None,
            });
        }
        let video = index
            .video()
            .map(|(number, codec, track)| (number, VideoTrack { codec, rotation: track.rotation }));
        let sets = match video.as_ref().map(|(number, _)| &index.tracks[*number].entry) {
            Some(Entry::Video { framing: Framing::Lengths { sets, .. }, .. }) => sets.clone(),
            Some(
                Entry::Video { .. }
                | Entry::Audio(_)
                | Entry::Unsupported(_)
                | Entry::Encrypted
                | Entry::Other,
            )
            | None => ParameterSets::default(),
        };
        Self {
            audio: numbers,
            video: video.as_ref().map(|(number, _)| *number),
            tracks: Tracks { video: video.map(|(_, track)| track), audio },
            index,
            sets,
        }
    }

    pub(crate) fn tracks(&self) -> &Tracks {
        &self.tracks
    }

    /// Those of the chosen tracks, in the order of decoding.
    pub(crate) fn samples(&self) -> &[Sample] {
        &self.index.samples
    }

    pub(crate) fn is_audio(&self, sample: Sample) -> bool {
        self.audio.get(sample.track as usize).copied().flatten().is_some()
    }

    pub(crate) fn errors(&self) -> u32 {
        self.index.errors
    }

    /// From the first to the last picture, in ticks.
    pub(crate) fn span(&self) -> Option<i64> {
        let video = self.samples().iter().filter(|s| self.video == Some(s.track as usize));
        let (min, max) = video.fold((i64::MAX, i64::MIN), |(min, max), s| (min.min(s.pts), max.max(s.pts)));
        max.checked_sub(min).filter(|span| *span >= 0)
    }

    /// Reads a sample. None: of no chosen track, or cut off.
    pub(crate) fn item(&mut self, source: &impl Source, sample: Sample) -> Result<Option<Item>, DemuxError> {
        let number = sample.track as usize;
        let audio = self.audio.get(number).copied().flatten();
        if audio.is_none() && self.video != Some(number) {
            return Ok(None);
        }
        let end = sample.offset.checked_add(u64::from(sample.size));
        if sample.size == 0 || end.is_none_or(|end| end > source.len()) {
            self.index.errors += 1;
            return Ok(None);
        }
        let mut data = read(source, sample.offset, sample.size as usize)?;
        let stripped = &self.index.tracks[number].stripped;
        if !stripped.is_empty() {
            data = [stripped.as_ref(), &data].concat().into();
        }
        if let Some(track) = audio {
            return Ok(Some(Item::Audio(AudioPacket { track, pts: Ticks(sample.pts), data })));
        }
        let track = &self.index.tracks[number];
        let Entry::Video { codec, framing } = &track.entry else { return Ok(None) };
        let frame = match framing {
            Framing::Lengths { length, .. } => {
                let sync = sample.sync && track.has_sync;
                annex_b(*codec, *length, sync, &data, &mut self.sets)
            }
            Framing::Bare { head } => Some(bare(*codec, head, data)),
        };
        if frame.is_none() {
            self.index.errors += 1;
        }
        Ok(frame.map(|(key, data)| {
            Item::Video(Frame { pts: Ticks(sample.pts), dts: Ticks(sample.dts), key, data })
        }))
    }
}

/// The frame as it is; a key gets the sequence header that the file may have once for all.
fn bare(codec: Codec, head: &Bytes, data: Bytes) -> (bool, Bytes) {
    let key = coded::facts(codec, &data).key;
    if key && codec == Codec::Av1 && !av1::look(&data).has_sequence {
        return (key, [head.as_ref(), &data].concat().into());
    }
    (key, data)
}

/// Replaces lengths by start codes and puts parameter sets before a key that has none.
fn annex_b(
    codec: Codec,
    length: usize,
    sync: bool,
    sample: &[u8],
    sets: &mut ParameterSets,
) -> Option<(bool, Bytes)> {
    let mut units = Vec::new();
    let mut picture = Picture { intra: true, ..Picture::default() };
    let mut rest = sample;
    while rest.len() > length {
        let (head, after) = rest.split_at(length);
        let len = head.iter().fold(0usize, |len, byte| len << 8 | usize::from(*byte));
        // A sample that was damaged is used as far as it goes.
        let unit = &after[..len.min(after.len())];
        rest = &after[unit.len()..];
        if !unit.is_empty() {
            picture.add(codec, unit, sets);
            units.push(unit);
        }
    }
    if !picture.has_slice {
        return None;
    }
    let key = sync || picture.key();
    let mut out = BytesMut::with_capacity(sample.len() + 4 * units.len() + 256);
    // A delimiter stays in front of everything.
    let delimiter = usize::from(units.first().is_some_and(|u| nal::kind(codec, u) == nal::Kind::Delimiter));
    let put = |out: &mut BytesMut, unit: &[u8]| {
        out.put_slice(&[0, 0, 0, 1]);
        out.put_slice(unit);
    };
    units[..delimiter].iter().for_each(|unit| put(&mut out, unit));
    if key && !picture.has_sps {
        sets.annex_b(&mut out);
    }
    units[delimiter..].iter().for_each(|unit| put(&mut out, unit));
    Some((key, out.freeze()))
}

/// A whole file in memory.
pub(super) fn demux(data: &Bytes, out: &mut Vec<Item>) -> Result<u32, DemuxError> {
    let mut movie = Movie::open(data)?;
    out.push(Item::Tracks(movie.tracks().clone()));
    for at in 0..movie.samples().len() {
        let sample = movie.samples()[at];
        out.extend(movie.item(data, sample)?);
    }
    Ok(movie.errors())
}
