//! Audio of a transport stream, cut into the frames that MP4 wants, and what MP4 must know of them.

use bytes::{Buf, Bytes, BytesMut};

use super::adts::{self, Aac};
use crate::es::AudioFormat;

/// What a sample entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Config {
    Aac {
        config: Bytes,
    },
    Mpeg,
    /// The `dac3` box.
    Ac3([u8; 3]),
    /// The `dec3` box.
    Eac3([u8; 5]),
    Opus {
        pre_skip: u16,
        rate: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) config: Config,
    pub(crate) rate: u32,
    pub(crate) channels: u16,
}

#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) data: Bytes,
    /// Audio samples in it.
    pub(crate) samples: u32,
}

/// Cuts the packets of one track into frames. Parts of a frame wait for the next packet.
#[derive(Debug)]
pub(crate) struct Cutter {
    source: AudioFormat,
    pub(crate) format: Option<Format>,
    rest: Bytes,
}

/// More than a frame of any kind: what is longer and yields nothing is not audio.
const MAX_REST: usize = 64 << 10;

impl Cutter {
    /// None: MP4 does not carry it.
    pub(crate) fn new(source: &AudioFormat) -> Option<Self> {
        let format = match source {
            AudioFormat::Other { .. } => return None,
            AudioFormat::Adts | AudioFormat::Mpeg | AudioFormat::Ac3 | AudioFormat::Eac3 => None,
            AudioFormat::Aac { config, rate, channels } => Some(Format {
                config: Config::Aac { config: config.clone() },
                rate: Aac::of_config(config).map_or(*rate, Aac::rate),
                // Sample entries say 2 for anything; the codec knows.
                channels: Aac::of_config(config).map_or(*channels, |aac| match aac.channels {
                    0 => *channels,
                    7 => 8,
                    count => u16::from(count),
                }),
            }),
            AudioFormat::Opus { channels, pre_skip, rate } => Some(Format {
                config: Config::Opus { pre_skip: *pre_skip, rate: *rate },
                rate: 48_000,
                channels: u16::from(*channels),
            }),
        };
        Some(Self { source: source.clone(), format, rest: Bytes::new() })
    }

    /// Bytes of an earlier packet that the next frame begins with.
    pub(crate) fn pending(&self) -> bool {
        !self.rest.is_empty()
    }

    pub(crate) fn cut(&mut self, packet: &Bytes) -> Vec<Cut> {
        let mut data = match (&self.source, self.rest.is_empty()) {
            (AudioFormat::Aac { .. }, _) => {
                return vec![Cut { data: packet.clone(), samples: 1024 }];
            }
            (AudioFormat::Opus { .. }, _) => {
                return vec![Cut { data: packet.clone(), samples: opus_samples(packet) }];
            }
            (_, true) => packet.clone(),
            (_, false) => {
                let mut joined = BytesMut::from(self.rest.as_ref());
                joined.extend_from_slice(packet);
                joined.freeze()
            }
        };
        let found = match self.source {
            AudioFormat::Adts => self.adts(&mut data),
            AudioFormat::Mpeg => self.synced(&mut data, mpeg_frame),
            AudioFormat::Ac3 | AudioFormat::Eac3 => self.synced(&mut data, ac3_frame),
            AudioFormat::Aac { .. } | AudioFormat::Opus { .. } | AudioFormat::Other { .. } => Vec::new(),
        };
        self.rest = if data.len() > MAX_REST { Bytes::new() } else { data };
        found
    }

    fn adts(&mut self, data: &mut Bytes) -> Vec<Cut> {
        let frames = adts::frames(data);
        if let (None, Some(first)) = (&self.format, frames.first()) {
            self.format = Some(Format {
                config: Config::Aac { config: Bytes::copy_from_slice(&first.aac.config()) },
                rate: first.aac.rate(),
                channels: match first.aac.channels {
                    7 => 8,
                    channels => u16::from(channels),
                },
            });
        }
        frames.into_iter().map(|frame| Cut { data: frame.data, samples: 1024 }).collect()
    }

    fn synced(&mut self, data: &mut Bytes, read: fn(&[u8]) -> Option<Header>) -> Vec<Cut> {
        let mut found = Vec::new();
        while data.len() >= 8 {
            let Some(header) = read(data) else {
                // Damage: go on at what may be a sync word.
                let next = memchr::memchr2(0xff, 0x0b, &data[1..]).map_or(data.len(), |at| at + 1);
                data.advance(next);
                continue;
            };
            if data.len() < header.len {
                break;
            }
            found.push(Cut { data: data.split_to(header.len), samples: header.samples });
            self.format.get_or_insert(header.format);
        }
        found
    }
}

struct Header {
    len: usize,
    samples: u32,
    format: Format,
}

/// A frame of MPEG audio, layer II or III.
fn mpeg_frame(data: &[u8]) -> Option<Header> {
    let [0xff, b, c, d, ..] = *data else { return None };
    let (version, layer) = (b >> 3 & 3, b >> 1 & 3);
    let (bit_rate, rate) = (usize::from(c >> 4), usize::from(c >> 2 & 3));
    if b & 0xe0 != 0xe0
        || version == 1
        || !matches!(layer, 1 | 2)
        || !(1..15).contains(&bit_rate)
        || rate == 3
    {
        return None;
    }
    let first = version == 3;
    let kilobits: u32 = match (first, layer) {
        (true, 2) => [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        (true, _) => [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        (false, _) => [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    }[bit_rate - 1];
    let rate = [44_100, 48_000, 32_000][rate]
        >> match version {
            3 => 0,
            2 => 1,
            _ => 2,
        };
    let samples = if layer == 1 && !first { 576 } else { 1152 };
    let len = samples / 8 * kilobits * 1000 / rate + u32::from(c >> 1 & 1);
    let channels = if d >> 6 == 3 { 1 } else { 2 };
    Some(Header { len: len as usize, samples, format: Format { config: Config::Mpeg, rate, channels } })
}

/// A frame of AC-3, or of E-AC-3, which tells itself apart by its version.
fn ac3_frame(data: &[u8]) -> Option<Header> {
    if data.get(..2)? != [0x0b, 0x77] {
        return None;
    }
    let version = data.get(5)? >> 3;
    if version <= 10 { ac3_classic(data) } else { ac3_enhanced(data, version) }
}

fn ac3_classic(data: &[u8]) -> Option<Header> {
    const KILOBITS: [u32; 19] =
        [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];
    let (rate_code, size_code) = (data[4] >> 6, data[4] & 0x3f);
    let rate = *[48_000, 44_100, 32_000].get(usize::from(rate_code))?;
    let kilobits = *KILOBITS.get(usize::from(size_code >> 1))?;
    let words = kilobits * 1000 / 8 * 1536 / rate / 2 + u32::from(rate_code == 1 && size_code & 1 == 1);
    let (version, mode) = (data[5] >> 3, data[5] & 7);
    let (channel_mode, word) = (data[6] >> 5, u16::from(data[6]) << 8 | u16::from(data.get(7).copied()?));
    // The flag for the low channel comes after fields that depend on the channels.
    let mut at = 3;
    if channel_mode & 1 == 1 && channel_mode != 1 {
        at += 2;
    }
    if channel_mode & 4 != 0 {
        at += 2;
    }
    if channel_mode == 2 {
        at += 2;
    }
    let low = (word >> (15 - at) & 1) as u8;
    let bits = u32::from(rate_code) << 22
        | u32::from(version) << 17
        | u32::from(mode) << 14
        | u32::from(channel_mode) << 11
        | u32::from(low) << 10
        | u32::from(size_code >> 1) << 5;
    let [_, a, b, c] = bits.to_be_bytes();
    let format = Format { config: Config::Ac3([a, b, c]), rate, channels: ac3_channels(channel_mode, low) };
    Some(Header { len: words as usize * 2, samples: 1536, format })
}

fn ac3_enhanced(data: &[u8], version: u8) -> Option<Header> {
    let len = (usize::from(data[2] & 7) << 8 | usize::from(data[3])) * 2 + 2;
    let (rate_code, blocks) = (data[4] >> 6, data[4] >> 4 & 3);
    let (rate, blocks) = match rate_code {
        3 => (*[24_000, 22_050, 16_000].get(usize::from(blocks))?, 6),
        code => ([48_000, 44_100, 32_000][usize::from(code)], [1, 2, 3, 6][usize::from(blocks)]),
    };
    let (channel_mode, low) = (data[4] >> 1 & 7, data[4] & 1);
    // A dependent substream belongs to the frame before and has no time of its own.
    let samples = if data[2] >> 6 == 1 { 0 } else { blocks * 256 };
    let kilobits = len as u64 * 8 * u64::from(rate) / u64::from(blocks * 256) / 1000;
    let bits = (kilobits & 0x1fff) << 27
        | u64::from(rate_code) << 22
        | u64::from(version) << 17
        | u64::from(channel_mode) << 9
        | u64::from(low) << 8;
    let [_, _, _, a, b, c, d, e] = bits.to_be_bytes();
    let format =
        Format { config: Config::Eac3([a, b, c, d, e]), rate, channels: ac3_channels(channel_mode, low) };
    Some(Header { len, samples, format })
}

fn ac3_channels(mode: u8, low: u8) -> u16 {
    [2, 1, 2, 3, 3, 4, 4, 5][usize::from(mode & 7)] + u16::from(low)
}

/// Length of an Opus packet at 48 kHz, from its first bytes.
fn opus_samples(packet: &[u8]) -> u32 {
    let Some(&toc) = packet.first() else { return 0 };
    let config = toc >> 3;
    let frame = match config {
        0..12 => [480, 960, 1920, 2880][usize::from(config & 3)],
        12..16 => [480, 960][usize::from(config & 1)],
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1).map_or(1, |c| c & 0x3f)),
    };
    frame * count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mpeg_header_gives_length_and_rate() {
        let header = mpeg_frame(&[0xff, 0xfb, 0x90, 0x44]).unwrap();
        assert_eq!(
            (header.len, header.samples, header.format.rate, header.format.channels),
            (417, 1152, 44_100, 2)
        );
        assert!(mpeg_frame(&[0xff, 0xff, 0xff, 0xff]).is_none());
    }

    #[test]
    fn an_ac3_header_gives_length_and_channels() {
        // 48 kHz, 192 kb/s, stereo.
        let header = ac3_frame(&[0x0b, 0x77, 0, 0, 0x14, 0x40, 0x40, 0]).unwrap();
        assert_eq!((header.len, header.format.rate, header.format.channels), (768, 48_000, 2));
    }

    #[test]
    fn frames_may_lie_across_packets() {
        let mut frame = vec![0x55; 417];
        frame[..4].copy_from_slice(&[0xff, 0xfb, 0x90, 0x44]);
        let two = [frame.clone(), frame].concat();
        for at in 0..two.len() {
            let mut cutter = Cutter::new(&AudioFormat::Mpeg).unwrap();
            let first = cutter.cut(&Bytes::copy_from_slice(&two[..at])).len();
            assert_eq!(first + cutter.cut(&Bytes::copy_from_slice(&two[at..])).len(), 2, "cut at {at}");
        }
    }
}
