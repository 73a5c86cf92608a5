//! Sample entries: which codec, and what its decoder must know beforehand.

use bytes::Bytes;
use headwater_protocol::Codec;

use super::boxes::{boxes, find, u16_at, u32_at};
use super::index::audio_rate;
use crate::es::AudioFormat;
use crate::nal::ParameterSets;

#[derive(Debug)]
pub(crate) enum Entry {
    Video {
        codec: Codec,
        framing: Framing,
    },
    Audio(AudioFormat),
    /// Video in a codec with this name.
    Unsupported(String),
    Encrypted,
    /// Subtitles, data, cover pictures, audio that nothing carries.
    Other,
}

/// How a sample holds its coded frame.
#[derive(Debug)]
pub(crate) enum Framing {
    /// NAL units behind their lengths.
    Lengths {
        /// Bytes of a length.
        length: usize,
        sets: ParameterSets,
    },
    /// The frame itself.
    Bare {
        /// What a key needs before it: AV1's sequence header.
        head: Bytes,
    },
}

pub(super) fn read(handler: [u8; 4], kind: [u8; 4], body: &[u8]) -> Entry {
    match &handler {
        b"vide" => video(kind, body),
        b"soun" => audio(kind, body).map_or(Entry::Other, Entry::Audio),
        _ => Entry::Other,
    }
}

fn video(kind: [u8; 4], body: &[u8]) -> Entry {
    let children = body.get(78..).unwrap_or_default();
    let config = match &kind {
        b"avc1" | b"avc3" => find(children, b"avcC").and_then(avc_config),
        b"hvc1" | b"hev1" => find(children, b"hvcC").and_then(hevc_config),
        b"av01" => find(children, b"av1C").map(av1_config),
        b"vp09" => Some(bare(Codec::Vp9)),
        b"vp08" => Some(bare(Codec::Vp8)),
        b"encv" => return Entry::Encrypted,
        // Covers.
        b"jpeg" | b"mjpg" | b"mjpa" | b"png " => return Entry::Other,
        _ => None,
    };
    config.unwrap_or_else(|| {
        let name = match &kind {
            b"av01" => "AV1 without a decoder configuration",
            b"mp4v" => "MPEG-4 part 2",
            b"apch" | b"apcn" | b"apcs" | b"apco" | b"ap4h" | b"ap4x" => "ProRes",
            b"avc1" | b"avc3" => "H.264 without a decoder configuration",
            b"hvc1" | b"hev1" => "HEVC without a decoder configuration",
            b"dvh1" | b"dvhe" => "Dolby Vision",
            _ => return Entry::Unsupported(kind.escape_ascii().to_string()),
        };
        Entry::Unsupported(name.to_owned())
    })
}

pub(crate) fn bare(codec: Codec) -> Entry {
    Entry::Video { codec, framing: Framing::Bare { head: Bytes::new() } }
}

pub(crate) fn av1_config(av1c: &[u8]) -> Entry {
    let head = Bytes::copy_from_slice(av1c.get(4..).unwrap_or_default());
    Entry::Video { codec: Codec::Av1, framing: Framing::Bare { head } }
}

pub(crate) fn avc_config(avcc: &[u8]) -> Option<Entry> {
    let length = usize::from(avcc.get(4)? & 3) + 1;
    let mut sets = ParameterSets::default();
    let mut rest = avcc.get(5..)?;
    for mask in [0x1f, 0xff] {
        let (count, after) = rest.split_first()?;
        rest = after;
        for _ in 0..count & mask {
            let len = usize::from(u16_at(rest, 0)?);
            sets.put(Codec::H264, rest.get(2..2 + len)?);
            rest = &rest[2 + len..];
        }
    }
    Some(Entry::Video { codec: Codec::H264, framing: Framing::Lengths { length, sets } })
}

pub(crate) fn hevc_config(hvcc: &[u8]) -> Option<Entry> {
    let length = usize::from(hvcc.get(21)? & 3) + 1;
    let mut sets = ParameterSets::default();
    let mut rest = hvcc.get(23..)?;
    for _ in 0..hvcc[22] {
        let count = u16_at(rest, 1)?;
        rest = rest.get(3..)?;
        for _ in 0..count {
            let len = usize::from(u16_at(rest, 0)?);
            sets.put(Codec::Hevc, rest.get(2..2 + len)?);
            rest = &rest[2 + len..];
        }
    }
    Some(Entry::Video { codec: Codec::Hevc, framing: Framing::Lengths { length, sets } })
}

fn audio(kind: [u8; 4], body: &[u8]) -> Option<AudioFormat> {
    let (channels, rate) = audio_rate(body)?;
    // QuickTime has longer entries of version 1 and 2.
    let children = body.get(
        match u16_at(body, 8)? {
            1 => 44,
            2 => 64,
            _ => 28,
        }..,
    )?;
    match &kind {
        b"mp4a" => {
            let esds = find(children, b"esds").or_else(|| find(find(children, b"wave")?, b"esds"))?;
            let (object_type, config) = decoder_config(esds.get(4..)?)?;
            match object_type {
                0x40 | 0x66..=0x68 if config.len() >= 2 => {
                    let config = Bytes::copy_from_slice(config);
                    Some(AudioFormat::Aac { config, rate, channels })
                }
                0x69 | 0x6b => Some(AudioFormat::Mpeg),
                0xa5 => Some(AudioFormat::Ac3),
                0xa6 => Some(AudioFormat::Eac3),
                _ => None,
            }
        }
        b".mp3" => Some(AudioFormat::Mpeg),
        b"ac-3" => Some(AudioFormat::Ac3),
        b"ec-3" => Some(AudioFormat::Eac3),
        b"Opus" => {
            let dops = find(children, b"dOps")?;
            Some(AudioFormat::Opus {
                channels: *dops.get(1)?,
                pre_skip: u16_at(dops, 2)?,
                rate: u32_at(dops, 4)?,
            })
        }
        _ => None,
    }
}

/// Object type and decoder-specific bytes of an ES descriptor.
fn decoder_config(data: &[u8]) -> Option<(u8, &[u8])> {
    let (_, es) = descriptor(data, 3)?;
    let flags = *es.get(2)?;
    let mut at = 3;
    if flags & 0x80 != 0 {
        at += 2;
    }
    if flags & 0x40 != 0 {
        at += 1 + usize::from(*es.get(at)?);
    }
    if flags & 0x20 != 0 {
        at += 2;
    }
    let (_, config) = descriptor(es.get(at..)?, 4)?;
    let object_type = *config.first()?;
    let specific = config.get(13..).and_then(|rest| descriptor(rest, 5)).map_or(&[][..], |(_, body)| body);
    Some((object_type, specific))
}

/// A descriptor with this tag at the start of `data`.
fn descriptor(data: &[u8], tag: u8) -> Option<(u8, &[u8])> {
    let (found, mut rest) = data.split_first()?;
    if *found != tag {
        return None;
    }
    let mut len = 0usize;
    for _ in 0..4 {
        let (byte, after) = rest.split_first()?;
        rest = after;
        len = len << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((tag, rest.get(..len.min(rest.len()))?))
}

/// Whether a list of boxes has one that says the file is fragmented.
pub(super) fn is_fragmented(moov: &[u8]) -> bool {
    boxes(moov).any(|(kind, _)| &kind == b"mvex")
}
