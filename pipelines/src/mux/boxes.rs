//! The header of a fragmented MP4: `ftyp` and `moov`.

use headwater_protocol::Codec;

use super::MuxVideo;
use super::sound::{Config as Sound, Format};
use crate::coded::{av1, vpx};
use crate::es::Rotation;
use crate::nal::{self, ParameterSets};

/// A box: its size is known when its content is written.
pub(super) fn put_box(out: &mut Vec<u8>, kind: &[u8; 4], content: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    content(out);
    let size = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

pub(super) fn put_full(
    out: &mut Vec<u8>,
    kind: &[u8; 4],
    version: u8,
    flags: u32,
    content: impl FnOnce(&mut Vec<u8>),
) {
    put_box(out, kind, |out| {
        put32(out, u32::from(version) << 24 | flags);
        content(out);
    });
}

pub(super) fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// A track as the header has it.
#[derive(Debug)]
pub(super) struct Track<'a> {
    pub(super) id: u32,
    pub(super) timescale: u32,
    /// Media time that is shown at 0: not 0 where the segment begins before 0.
    pub(super) starts_at: u64,
    pub(super) kind: Kind<'a>,
}

#[derive(Debug)]
pub(super) enum Kind<'a> {
    Video(MuxVideo, &'a Config),
    Audio(&'a Format),
}

/// What a decoder must know beforehand.
#[derive(Debug)]
pub(super) enum Config {
    Sets(ParameterSets),
    Av1 {
        sequence: av1::Sequence,
        /// The sequence header, with its OBU header.
        header: Vec<u8>,
    },
    Vpx(vpx::Format),
}

const MATRIX: [u32; 9] = matrix(Rotation::None);

/// How a picture is to be turned, as ISO/IEC 14496-12 writes it: fixed point, by rows.
const fn matrix(rotation: Rotation) -> [u32; 9] {
    const ONE: u32 = 0x1_0000;
    const MINUS: u32 = ONE.wrapping_neg();
    let (a, b, c, d) = match rotation {
        Rotation::None => (ONE, 0, 0, ONE),
        Rotation::Clockwise90 => (0, ONE, MINUS, 0),
        Rotation::Half => (MINUS, 0, 0, MINUS),
        Rotation::Clockwise270 => (0, MINUS, ONE, 0),
    };
    [a, b, 0, c, d, 0, 0, 0, 0x4000_0000]
}

pub(super) fn header(tracks: &[Track<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    put_box(&mut out, b"ftyp", |out| {
        out.extend_from_slice(b"iso6\0\0\0\0iso6mp41");
        // A track of CMAF is alone in its file (ISO/IEC 23000-19).
        if tracks.len() == 1 {
            out.extend_from_slice(b"cmfc");
        }
    });
    put_box(&mut out, b"moov", |out| {
        put_full(out, b"mvhd", 0, 0, |out| {
            for value in [0, 0, 1000, 0, 0x1_0000, 0x0100_0000, 0, 0] {
                put32(out, value);
            }
            MATRIX.iter().for_each(|cell| put32(out, *cell));
            out.extend_from_slice(&[0; 24]);
            put32(out, tracks.len() as u32 + 1);
        });
        tracks.iter().for_each(|track| put_track(out, track));
        put_box(out, b"mvex", |out| {
            for track in tracks {
                put_full(out, b"trex", 0, 0, |out| {
                    for value in [track.id, 1, 0, 0, 0] {
                        put32(out, value);
                    }
                });
            }
        });
    });
    out
}

fn put_track(out: &mut Vec<u8>, track: &Track<'_>) {
    let (width, height, turn, volume, handler) = match &track.kind {
        Kind::Video(video, _) => (video.width, video.height, matrix(video.rotation), 0, b"vide"),
        Kind::Audio(_) => (0, 0, MATRIX, 0x100, b"soun"),
    };
    put_box(out, b"trak", |out| {
        put_full(out, b"tkhd", 0, 3, |out| {
            for value in [0, 0, track.id, 0, 0, 0, 0, 0] {
                put32(out, value);
            }
            put16(out, volume);
            put16(out, 0);
            turn.iter().for_each(|cell| put32(out, *cell));
            put32(out, width << 16);
            put32(out, height << 16);
        });
        if track.starts_at > 0 {
            put_box(out, b"edts", |out| {
                put_full(out, b"elst", 1, 0, |out| {
                    put32(out, 1);
                    put64(out, 0);
                    put64(out, track.starts_at);
                    put32(out, 0x1_0000);
                });
            });
        }
        put_box(out, b"mdia", |out| {
            put_full(out, b"mdhd", 0, 0, |out| {
                for value in [0, 0, track.timescale, 0, 0x55c4_0000] {
                    put32(out, value);
                }
            });
            put_full(out, b"hdlr", 0, 0, |out| {
                put32(out, 0);
                out.extend_from_slice(handler);
                out.extend_from_slice(&[0; 12]);
                out.extend_from_slice(b"Headwater\0");
            });
            put_box(out, b"minf", |out| {
                match track.kind {
                    Kind::Video(..) => put_full(out, b"vmhd", 0, 1, |out| out.extend_from_slice(&[0; 8])),
                    Kind::Audio(_) => put_full(out, b"smhd", 0, 0, |out| out.extend_from_slice(&[0; 4])),
                }
                put_box(out, b"dinf", |out| {
                    put_full(out, b"dref", 0, 0, |out| {
                        put32(out, 1);
                        put_full(out, b"url ", 0, 1, |_| {});
                    });
                });
                put_box(out, b"stbl", |out| {
                    put_full(out, b"stsd", 0, 0, |out| {
                        put32(out, 1);
                        match &track.kind {
                            Kind::Video(video, config) => put_video_entry(out, *video, config),
                            Kind::Audio(format) => put_audio_entry(out, format),
                        }
                    });
                    for kind in [b"stts", b"stsc", b"stco"] {
                        put_full(out, kind, 0, 0, |out| put32(out, 0));
                    }
                    put_full(out, b"stsz", 0, 0, |out| put64(out, 0));
                });
            });
        });
    });
}

fn put_video_entry(out: &mut Vec<u8>, video: MuxVideo, config: &Config) {
    let kind = match video.codec {
        Codec::H264 => b"avc1",
        Codec::Hevc => b"hvc1",
        Codec::Av1 => b"av01",
        Codec::Vp9 => b"vp09",
        Codec::Vp8 => b"vp08",
        // No ladder asks for them.
        Codec::Jpeg => b"jpeg",
        Codec::Fwht => b"fwht",
    };
    put_box(out, kind, |out| {
        put64(out, 1);
        out.extend_from_slice(&[0; 16]);
        put16(out, video.width as u16);
        put16(out, video.height as u16);
        for value in [0x48_0000, 0x48_0000, 0] {
            put32(out, value);
        }
        put16(out, 1);
        out.extend_from_slice(&[0; 32]);
        out.extend_from_slice(&[0, 24, 0xff, 0xff]);
        match config {
            Config::Sets(sets) if video.codec == Codec::Hevc => {
                put_box(out, b"hvcC", |out| put_hevc_config(out, sets));
            }
            Config::Sets(sets) => put_box(out, b"avcC", |out| put_avc_config(out, sets)),
            Config::Av1 { sequence, header } => put_box(out, b"av1C", |out| {
                out.extend_from_slice(&sequence.config);
                out.extend_from_slice(header);
            }),
            Config::Vpx(format) => put_full(out, b"vpcC", 1, 0, |out| put_vpx_config(out, *format)),
        }
    });
}

/// Level and colours are not told: 0 is "unknown" for the one, 2 for the others.
fn put_vpx_config(out: &mut Vec<u8>, format: vpx::Format) {
    let layout = format.depth << 4 | format.chroma << 1 | u8::from(format.full_range);
    out.extend_from_slice(&[format.profile, 0, layout, 2, 2, 2, 0, 0]);
}

fn put_avc_config(out: &mut Vec<u8>, sets: &ParameterSets) {
    let first = sets.sps().next().map(|sps| sps.as_ref()).unwrap_or_default();
    let byte = |at: usize| first.get(at).copied().unwrap_or(0);
    out.extend_from_slice(&[1, byte(1), byte(2), byte(3), 0xff, 0xe0 | sets.sps().take(31).count() as u8]);
    sets.sps().take(31).for_each(|set| put_set(out, set));
    out.push(sets.pps().count() as u8);
    sets.pps().for_each(|set| put_set(out, set));
    if matches!(byte(1), 100 | 110 | 122 | 144 | 244) {
        let sps = nal::parse_sps(Codec::H264, first).unwrap_or_default();
        let depth = |bits: u8| 0xf8 | bits.saturating_sub(8);
        out.extend_from_slice(&[0xfc | sps.chroma_format, depth(sps.luma_bits), depth(sps.chroma_bits), 0]);
    }
}

fn put_hevc_config(out: &mut Vec<u8>, sets: &ParameterSets) {
    let sps = sets.sps().next().and_then(|sps| nal::parse_sps(Codec::Hevc, sps)).unwrap_or_default();
    out.push(1);
    out.extend_from_slice(&sps.profile_tier_level);
    out.extend_from_slice(&[0xf0, 0, 0xfc, 0xfc | sps.chroma_format]);
    out.extend_from_slice(&[
        0xf8 | sps.luma_bits.saturating_sub(8),
        0xf8 | sps.chroma_bits.saturating_sub(8),
        0,
        0,
        // Temporal layers, nested, lengths of four bytes.
        sps.layers << 3 | 4 | 3,
        3,
    ]);
    let lists: [(u8, Vec<&[u8]>); 3] = [
        (32, sets.vps().map(|set| set.as_ref()).collect()),
        (33, sets.sps().map(|set| set.as_ref()).collect()),
        (34, sets.pps().map(|set| set.as_ref()).collect()),
    ];
    for (kind, list) in lists {
        out.push(0x80 | kind);
        put16(out, list.len() as u16);
        list.into_iter().for_each(|set| put_set(out, set));
    }
}

fn put_set(out: &mut Vec<u8>, set: &[u8]) {
    // Parameter sets are far below 64 KiB: they are kept from NAL units of an encoder.
    put16(out, set.len() as u16);
    out.extend_from_slice(set);
}

fn put_audio_entry(out: &mut Vec<u8>, format: &Format) {
    let kind = match format.config {
        Sound::Aac { .. } | Sound::Mpeg => b"mp4a",
        Sound::Ac3(_) => b"ac-3",
        Sound::Eac3(_) => b"ec-3",
        Sound::Opus { .. } => b"Opus",
    };
    put_box(out, kind, |out| {
        put64(out, 1);
        put64(out, 0);
        put16(out, format.channels);
        put16(out, 16);
        put32(out, 0);
        put32(out, if format.rate < 0x1_0000 { format.rate << 16 } else { 0 });
        match &format.config {
            Sound::Aac { config } => put_esds(out, 0x40, config),
            Sound::Mpeg => put_esds(out, 0x6b, &[]),
            Sound::Ac3(bytes) => put_box(out, b"dac3", |out| out.extend_from_slice(bytes)),
            Sound::Eac3(bytes) => put_box(out, b"dec3", |out| out.extend_from_slice(bytes)),
            Sound::Opus { pre_skip, rate } => put_box(out, b"dOps", |out| {
                out.extend_from_slice(&[0, format.channels as u8]);
                put16(out, *pre_skip);
                put32(out, *rate);
                out.extend_from_slice(&[0, 0, 0]);
            }),
        }
    });
}

fn put_esds(out: &mut Vec<u8>, object_type: u8, config: &[u8]) {
    // An AudioSpecificConfig has a few bytes; lengths stay below 128.
    let config = &config[..config.len().min(64)];
    let specific = if config.is_empty() { 0 } else { 2 + config.len() as u8 };
    put_full(out, b"esds", 0, 0, |out| {
        out.extend_from_slice(&[3, 3 + 2 + 13 + specific + 3, 0, 0, 0]);
        out.extend_from_slice(&[4, 13 + specific, object_type, 0x15, 0, 0, 0]);
        out.extend_from_slice(&[0; 8]);
        if !config.is_empty() {
            out.extend_from_slice(&[5, config.len() as u8]);
            out.extend_from_slice(config);
        }
        out.extend_from_slice(&[6, 1, 2]);
    });
}
