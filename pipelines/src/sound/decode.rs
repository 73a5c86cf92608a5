//! Coded sound to samples: packets of a track are cut into frames, and each frame's samples have its time.

use bytes::{Buf, Bytes, BytesMut};
use gstreamer as gst;

use headwater_protocol::Fault;

use super::elements::{self, CONVERT, Coding};
use super::line::to_ticks;
use super::strand::Strand;
use crate::es::{AudioFormat, AudioPacket, Ticks};
use crate::mux::adts::{self, Aac};
use crate::mux::sound::Cutter;

/// Samples of one frame.
#[derive(Debug)]
pub(super) struct Pcm {
    /// None: they follow the ones before.
    pub(super) at: Option<Ticks>,
    pub(super) caps: gst::Caps,
    pub(super) rate: u32,
    /// Interleaved, 32-bit floats.
    pub(super) data: gst::Buffer,
    pub(super) samples: i64,
}

/// One coded frame.
struct Unit {
    coding: Coding,
    caps: gst::Caps,
    data: Bytes,
    samples: u32,
    rate: u32,
}

#[derive(Debug)]
pub(super) struct Decoder {
    cut: Cut,
    strand: Option<(gst::Caps, Strand)>,
}

#[derive(Debug)]
enum Cut {
    /// Bytes of a frame that goes on in the next packet.
    Adts(Bytes),
    Frames(AudioFormat, Cutter),
    /// Opus as a transport stream has it, with so many channels.
    OpusTs(u8),
}

/// A frame longer than this is damage.
const MAX_REST: usize = 64 << 10;

/// Channels of Opus in a transport stream, if that is what these descriptors mean.
fn opus_ts(stream_type: u8, descriptors: &[u8]) -> Option<u8> {
    let mut rest = descriptors;
    let (mut named, mut channels) = (false, 2);
    while let [tag, len, after @ ..] = rest {
        let body = after.get(..usize::from(*len))?;
        match (tag, body) {
            (0x05, [b'O', b'p', b'u', b's', ..]) => named = true,
            // 0 means two channels that have nothing to do with each other.
            (0x7f, [0x80, code, ..]) => channels = if *code == 0 { 2 } else { *code },
            _ => {}
        }
        rest = &after[usize::from(*len)..];
    }
    (stream_type == 0x06 && named && channels <= 2).then_some(channels)
}

/// Whether a track can be decoded at all.
pub(super) fn is_known(format: &AudioFormat) -> bool {
    match format {
        AudioFormat::Adts
        | AudioFormat::Aac { .. }
        | AudioFormat::Mpeg
        | AudioFormat::Ac3
        | AudioFormat::Eac3 => true,
        AudioFormat::Opus { channels, .. } => *channels <= 2,
        AudioFormat::Other { stream_type, descriptors } => opus_ts(*stream_type, descriptors).is_some(),
    }
}

impl Decoder {
    /// None for what [`is_known`] denies.
    pub(super) fn new(format: &AudioFormat) -> Option<Self> {
        let cut = match format {
            AudioFormat::Adts => Cut::Adts(Bytes::new()),
            AudioFormat::Other { stream_type, descriptors } => {
                Cut::OpusTs(opus_ts(*stream_type, descriptors)?)
            }
            AudioFormat::Aac { .. }
            | AudioFormat::Mpeg
            | AudioFormat::Ac3
            | AudioFormat::Eac3
            | AudioFormat::Opus { .. } => Cut::Frames(format.clone(), Cutter::new(format)?),
        };
        Some(Self { cut, strand: None })
    }

    /// Frames that cannot be decoded are counted, and their time is left to whoever follows the clock.
    pub(super) fn packet(&mut self, packet: &AudioPacket, errors: &mut u32) -> Result<Vec<Pcm>, Fault> {
        // The stamp is that of the first frame that begins in the packet.
        let (units, mut carried) = self.cut.units(&packet.data);
        let mut found = Vec::new();
        let mut ticks = 0;
        for unit in units {
            let at = if carried { None } else { Some(Ticks(packet.pts.0 + ticks)) };
            if !carried {
                ticks += to_ticks(i64::from(unit.samples), unit.rate);
            }
            carried = false;
            match self.unit(unit, at)? {
                Some(pcm) => found.push(pcm),
                None => *errors += 1,
            }
        }
        Ok(found)
    }

    fn unit(&mut self, unit: Unit, at: Option<Ticks>) -> Result<Option<Pcm>, Fault> {
        if self.strand.as_ref().is_none_or(|(caps, _)| *caps != unit.caps) {
            let element = elements::decoder(unit.coding)?;
            let plain =
                gst::Caps::builder("audio/x-raw").field("format", "F32LE").field("layout", "interleaved");
            // A frame that is broken costs itself and nothing else.
            let row = [(element, vec![("max-errors", "-1".to_owned())]), (CONVERT, Vec::new())];
            let mut strand = Strand::new(&row, Some(&plain.build()))?;
            strand.set_caps(&unit.caps);
            self.strand = Some((unit.caps, strand));
        }
        let Some((_, strand)) = &self.strand else { return Ok(None) };
        let Ok(buffers) = strand.push(gst::Buffer::from_slice(unit.data)) else {
            self.strand = None;
            return Ok(None);
        };
        let Some(caps) = strand.exit_caps() else { return Ok(None) };
        let number = |name| caps.structure(0).and_then(|s| s.get::<i32>(name).ok()).unwrap_or(0);
        let (rate, channels) = (number("rate").cast_unsigned(), number("channels"));
        if rate == 0 || channels <= 0 {
            return Ok(None);
        }
        let mut all = gst::Buffer::new();
        for buffer in buffers {
            all.append(buffer);
        }
        let samples = (all.size() / 4 / channels as usize) as i64;
        Ok((samples > 0).then_some(Pcm { at, caps, rate, data: all, samples }))
    }
}

impl Cut {
    /// The frames that end in a packet, and whether the first of them began in an earlier one.
    fn units(&mut self, packet: &Bytes) -> (Vec<Unit>, bool) {
        match self {
            Cut::Adts(rest) => {
                let carried = !rest.is_empty();
                let mut data = match carried {
                    false => packet.clone(),
                    true => {
                        let mut joined = BytesMut::from(rest.as_ref());
                        joined.extend_from_slice(packet);
                        joined.freeze()
                    }
                };
                let units = adts::frames(&mut data)
                    .into_iter()
                    .map(|frame| aac(&frame.aac.config(), frame.aac.rate(), frame.data))
                    .collect();
                *rest = if data.len() > MAX_REST { Bytes::new() } else { data };
                (units, carried)
            }
            Cut::Frames(format, cutter) => {
                let carried = cutter.pending();
                let cuts = cutter.cut(packet);
                let rate = cutter.format.as_ref().map_or(48_000, |format| format.rate);
                let units = cuts.into_iter().filter_map(|cut| {
                    let (coding, caps) = match &*format {
                        AudioFormat::Aac { config, rate, .. } => {
                            let rate = Aac::of_config(config).map_or(*rate, Aac::rate);
                            return Some(aac(config, rate, cut.data));
                        }
                        AudioFormat::Mpeg => mpeg(&cut.data)?,
                        AudioFormat::Ac3 | AudioFormat::Eac3 => match cut.data.get(5)? >> 3 {
                            ..=10 => (Coding::Ac3, gst::Caps::new_empty_simple("audio/x-ac3")),
                            _ => (Coding::Eac3, gst::Caps::new_empty_simple("audio/x-eac3")),
                        },
                        AudioFormat::Opus { channels, .. } => (Coding::Opus, opus_caps(*channels)),
                        AudioFormat::Adts | AudioFormat::Other { .. } => return None,
                    };
                    Some(Unit { coding, caps, data: cut.data, samples: cut.samples, rate })
                });
                (units.collect(), carried)
            }
            Cut::OpusTs(channels) => {
                let opus = AudioFormat::Opus { channels: *channels, pre_skip: 0, rate: 48_000 };
                let Some(mut cutter) = Cutter::new(&opus) else { return (Vec::new(), false) };
                let cuts = opus_packets(packet.clone()).into_iter().flat_map(|packet| cutter.cut(&packet));
                let units = cuts.map(|cut| Unit {
                    coding: Coding::Opus,
                    caps: opus_caps(*channels),
                    data: cut.data,
                    samples: cut.samples,
                    rate: 48_000,
                });
                (units.collect(), false)
            }
        }
    }
}

fn aac(config: &[u8], rate: u32, data: Bytes) -> Unit {
    let caps = gst::Caps::builder("audio/mpeg")
        .field("mpegversion", 4)
        .field("framed", true)
        .field("stream-format", "raw")
        .field("codec_data", gst::Buffer::from_slice(config.to_vec()))
        .build();
    Unit { coding: Coding::Aac, caps, data, samples: 1024, rate }
}

fn mpeg(frame: &[u8]) -> Option<(Coding, gst::Caps)> {
    let (coding, layer) = match frame.get(1)? >> 1 & 3 {
        1 => (Coding::Mp3, 3),
        2 => (Coding::Mp2, 2),
        _ => return None,
    };
    let caps = gst::Caps::builder("audio/mpeg").field("mpegversion", 1).field("layer", layer);
    Some((coding, caps.field("parsed", true).build()))
}

fn opus_caps(channels: u8) -> gst::Caps {
    gst::Caps::builder("audio/x-opus")
        .field("channel-mapping-family", 0)
        .field("channels", i32::from(channels))
        .field("rate", 48_000)
        .build()
}

/// Packets of a PES, each behind a control header: a prefix with flags, the size, trims, an extension.
fn opus_packets(mut data: Bytes) -> Vec<Bytes> {
    let mut found = Vec::new();
    while data.len() > 2 && data[0] == 0x7f && data[1] & 0xe0 == 0xe0 {
        let flags = data[1];
        data.advance(2);
        let mut size = 0;
        loop {
            if data.is_empty() {
                return found;
            }
            let byte = data.get_u8();
            size += usize::from(byte);
            if byte != 0xff {
                break;
            }
        }
        let mut skip = usize::from(flags >> 4 & 1) * 2 + usize::from(flags >> 3 & 1) * 2;
        if flags & 4 != 0 {
            skip += 1 + usize::from(data.get(skip).copied().unwrap_or(0));
        }
        if data.len() < skip + size {
            break;
        }
        data.advance(skip);
        found.push(data.split_to(size));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opus_in_a_transport_stream_is_known_by_its_descriptors() {
        assert_eq!(opus_ts(6, b"\x05\x04Opus\x7f\x02\x80\x01"), Some(1));
        assert_eq!(opus_ts(6, b"\x05\x04Opus"), Some(2));
        assert_eq!(opus_ts(6, b"\x05\x04Opus\x7f\x02\x80\x06"), None);
        assert_eq!(opus_ts(6, b"\x05\x04DTS1"), None);
    }

    #[test]
    fn opus_packets_come_out_of_their_headers() {
        let long = vec![7; 300];
        let mut pes = vec![0x7f, 0xe0, 3, 1, 2, 3];
        pes.extend([0x7f, 0xf0, 0xff, 45, 0, 9]);
        pes.extend(&long);
        pes.extend([0x7f, 0xe4, 1, 2, 0, 0, 9]);
        assert_eq!(opus_packets(pes.into()), [&[1, 2, 3][..], &long, &[9]]);
    }
}
