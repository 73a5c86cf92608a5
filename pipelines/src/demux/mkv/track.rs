//! A track entry: its codec, what that codec's decoder must know, and what was taken off its frames.

use bytes::Bytes;
use headwater_protocol::Codec;

use super::ebml::{find, unsigned_in};
use crate::demux::mp4::entry::{self, Entry};
use crate::es::AudioFormat;

/// What a track carries, and the bytes its frames leave out.
pub(super) fn read(body: &[u8]) -> (Entry, Bytes) {
    const VIDEO: u64 = 1;
    const AUDIO: u64 = 2;
    let mut stripped = Bytes::new();
    if let Some(encoding) = find(body, 0x6d80).and_then(|list| find(list, 0x6240)) {
        let Some(compression) = find(encoding, 0x5034) else { return (Entry::Encrypted, stripped) };
        match unsigned_in(compression, 0x4254) {
            // Header stripping; all else unpacks.
            Some(3) => stripped = Bytes::copy_from_slice(find(compression, 0x4255).unwrap_or_default()),
            _ => return (Entry::Unsupported("a compressed Matroska track".to_owned()), stripped),
        }
    }
    let codec = find(body, 0x86).map(String::from_utf8_lossy).unwrap_or_default();
    let codec = codec.trim_end_matches('\0');
    let private = find(body, 0x63a2).unwrap_or_default();
    let entry = match unsigned_in(body, 0x83) {
        Some(VIDEO) => video(codec, private),
        Some(AUDIO) => {
            audio(codec, private, find(body, 0xe1).unwrap_or_default()).map_or(Entry::Other, Entry::Audio)
        }
        _ => Entry::Other,
    };
    (entry, stripped)
}

fn video(codec: &str, private: &[u8]) -> Entry {
    let entry = match codec {
        "V_MPEG4/ISO/AVC" => entry::avc_config(private),
        "V_MPEGH/ISO/HEVC" => entry::hevc_config(private),
        "V_AV1" => Some(entry::av1_config(private)),
        "V_VP9" => Some(entry::bare(Codec::Vp9)),
        "V_VP8" => Some(entry::bare(Codec::Vp8)),
        // Covers.
        "V_MJPEG" => return Entry::Other,
        _ => None,
    };
    entry.unwrap_or_else(|| Entry::Unsupported(codec.to_owned()))
}

fn audio(codec: &str, private: &[u8], settings: &[u8]) -> Option<AudioFormat> {
    let channels = unsigned_in(settings, 0x9f).unwrap_or(1);
    let rate = find(settings, 0xb5).map_or(8000.0, |body| match *body {
        [a, b, c, d] => f64::from(f32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => f64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => 8000.0,
    });
    match codec {
        "A_AAC" if private.len() >= 2 => Some(AudioFormat::Aac {
            config: Bytes::copy_from_slice(private),
            // Saturates: sizes of broken files are no numbers to trust, only to survive.
            rate: rate as u32,
            channels: channels as u16,
        }),
        "A_MPEG/L1" | "A_MPEG/L2" | "A_MPEG/L3" => Some(AudioFormat::Mpeg),
        "A_AC3" => Some(AudioFormat::Ac3),
        "A_EAC3" => Some(AudioFormat::Eac3),
        // An `OpusHead`, little end first.
        "A_OPUS" if private.len() >= 16 => Some(AudioFormat::Opus {
            channels: private[9],
            pre_skip: u16::from_le_bytes([private[10], private[11]]),
            rate: u32::from_le_bytes([private[12], private[13], private[14], private[15]]),
        }),
        _ => None,
    }
}
