//! Program tables of a transport stream: PAT and PMT.

use bytes::Bytes;
use headwater_protocol::Codec;

use crate::es::AudioFormat;

/// CRC-32 of MPEG-2 sections: over a section with its CRC it is 0.
pub(crate) fn crc32(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = (i as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000_0000 != 0 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    data.iter().fold(!0, |crc, byte| crc << 8 ^ TABLE[((crc >> 24) as u8 ^ byte) as usize])
}

/// Puts a section together from the payloads of its packets.
#[derive(Debug, Default)]
pub(super) struct Section {
    data: Vec<u8>,
    open: bool,
}

impl Section {
    const MAX: usize = 1024;

    /// Takes a packet's payload, gives what sections end in it with a good CRC, and counts bad ones.
    pub(super) fn push(&mut self, start: bool, payload: &[u8], errors: &mut u32) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        let mut rest = payload;
        if start {
            let Some((&pointer, after)) = payload.split_first() else { return whole };
            let pointer = usize::from(pointer).min(after.len());
            if self.open {
                self.data.extend_from_slice(&after[..pointer]);
                self.take(&mut whole, errors);
            }
            self.data.clear();
            self.open = true;
            rest = &after[pointer..];
        } else if !self.open {
            return whole;
        }
        self.data.extend_from_slice(rest);
        self.take(&mut whole, errors);
        whole
    }

    fn take(&mut self, whole: &mut Vec<Vec<u8>>, errors: &mut u32) {
        while self.open && self.data.len() >= 3 {
            // Stuffing after the last section of a packet.
            if self.data[0] == 0xff {
                self.open = false;
                break;
            }
            let len = 3 + (usize::from(self.data[1] & 0x0f) << 8 | usize::from(self.data[2]));
            if len > Self::MAX {
                self.open = false;
                *errors += 1;
                break;
            }
            if self.data.len() < len {
                return;
            }
            let rest = self.data.split_off(len);
            let section = std::mem::replace(&mut self.data, rest);
            if len >= 12 && crc32(&section) == 0 {
                whole.push(section);
            } else {
                *errors += 1;
            }
        }
        if !self.open {
            self.data.clear();
        }
    }
}

/// PIDs of the program tables, in the order of the PAT.
pub(super) fn parse_pat(section: &[u8]) -> Option<Vec<u16>> {
    if section[0] != 0 || section[5] & 1 == 0 {
        return None;
    }
    let entries = section.get(8..section.len() - 4)?.chunks_exact(4);
    let programs = entries.filter(|e| (e[0], e[1]) != (0, 0)).map(|e| pid(&e[2..]));
    Some(programs.collect())
}

fn pid(bytes: &[u8]) -> u16 {
    u16::from(bytes[0] & 0x1f) << 8 | u16::from(bytes[1])
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Video(Codec),
    /// Its name, for the person who sent it.
    UnsupportedVideo(&'static str),
    Audio(AudioFormat),
    /// Subtitles, data.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) pid: u16,
    pub(super) kind: Kind,
}

/// What a program table says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Table {
    /// PID of the clock reference.
    pub(super) clock: u16,
    pub(super) streams: Vec<Stream>,
}

pub(super) fn parse_pmt(section: &[u8]) -> Option<Table> {
    if section[0] != 2 || section[5] & 1 == 0 {
        return None;
    }
    let body = section.get(8..section.len() - 4)?;
    let info = usize::from(body.get(2)? & 0x0f) << 8 | usize::from(*body.get(3)?);
    let mut rest = body.get(4 + info..)?;
    let mut streams = Vec::new();
    while rest.len() >= 5 {
        let len = usize::from(rest[3] & 0x0f) << 8 | usize::from(rest[4]);
        let descriptors = rest.get(5..5 + len)?;
        streams.push(Stream { pid: pid(&rest[1..]), kind: stream_kind(rest[0], descriptors) });
        rest = &rest[5 + len..];
    }
    Some(Table { clock: pid(body), streams })
}

fn stream_kind(stream_type: u8, descriptors: &[u8]) -> Kind {
    let other_audio =
        || Kind::Audio(AudioFormat::Other { stream_type, descriptors: Bytes::copy_from_slice(descriptors) });
    match stream_type {
        0x01 | 0x02 => Kind::UnsupportedVideo("MPEG-1/2"),
        0x10 => Kind::UnsupportedVideo("MPEG-4 part 2"),
        0x1b => Kind::Video(Codec::H264),
        0x24 => Kind::Video(Codec::Hevc),
        0x21 => Kind::UnsupportedVideo("JPEG 2000"),
        0x33 => Kind::UnsupportedVideo("VVC"),
        0x42 => Kind::UnsupportedVideo("AVS"),
        0xd1 => Kind::UnsupportedVideo("Dirac"),
        0xea => Kind::UnsupportedVideo("VC-1"),
        0x03 | 0x04 => Kind::Audio(AudioFormat::Mpeg),
        0x0f => Kind::Audio(AudioFormat::Adts),
        0x81 => Kind::Audio(AudioFormat::Ac3),
        0x87 => Kind::Audio(AudioFormat::Eac3),
        // LATM, DTS and its kin, TrueHD.
        0x11 | 0x80 | 0x82..=0x86 | 0x8a => other_audio(),
        0x06 => match private_kind(descriptors) {
            Some(Private::Ac3) => Kind::Audio(AudioFormat::Ac3),
            Some(Private::Eac3) => Kind::Audio(AudioFormat::Eac3),
            Some(Private::OtherAudio) => other_audio(),
            Some(Private::Hevc) => Kind::Video(Codec::Hevc),
            Some(Private::Av1) => Kind::UnsupportedVideo("AV1"),
            Some(Private::Fwht) => Kind::Video(Codec::Fwht),
            None => Kind::Other,
        },
        _ => Kind::Other,
    }
}

enum Private {
    Ac3,
    Eac3,
    OtherAudio,
    Hevc,
    Av1,
    /// Ours: a ladder can ask for it.
    Fwht,
}

/// DVB carries what has no stream type of its own as private data and says what it is in a descriptor.
fn private_kind(descriptors: &[u8]) -> Option<Private> {
    let mut rest = descriptors;
    while let [tag, len, after @ ..] = rest {
        let body = after.get(..usize::from(*len))?;
        match (tag, body) {
            (0x6a, _) | (0x05, [b'A', b'C', b'-', b'3', ..]) => return Some(Private::Ac3),
            (0x7a, _) | (0x05, [b'E', b'A', b'C', b'3', ..]) => return Some(Private::Eac3),
            (0x7b | 0x7c, _) | (0x05, [b'O', b'p', b'u', b's', ..] | [b'D', b'T', b'S', ..]) => {
                return Some(Private::OtherAudio);
            }
            (0x05, [b'H', b'E', b'V', b'C', ..]) => return Some(Private::Hevc),
            (0x05, [b'A', b'V', b'0', b'1', ..]) => return Some(Private::Av1),
            (0x05, [b'F', b'W', b'H', b'T', ..]) => return Some(Private::Fwht),
            _ => rest = &after[usize::from(*len)..],
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_that_of_mpeg_2() {
        assert_eq!(crc32(b"123456789"), 0x0376_e6e7);
    }

    #[test]
    fn a_table_of_ffmpeg_is_read_even_in_pieces() {
        let pat = [0, 0, 0xb0, 0x0d, 0, 1, 0xc1, 0, 0, 0, 1, 0xf0, 0, 0x2a, 0xb1, 0x04, 0xb2];
        for cut in 1..pat.len() {
            let mut section = Section::default();
            let mut errors = 0;
            let mut whole = section.push(true, &pat[..cut], &mut errors);
            whole.extend(section.push(false, &pat[cut..], &mut errors));
            assert_eq!((whole.len(), errors), (1, 0), "cut at {cut}");
            assert_eq!(parse_pat(&whole[0]), Some(vec![0x1000]));
        }
        let mut bad = pat;
        bad[10] ^= 1;
        let mut errors = 0;
        assert!(Section::default().push(true, &bad, &mut errors).is_empty());
        assert_eq!(errors, 1);
    }
}
