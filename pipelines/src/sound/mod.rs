//! Sound encoded anew, for whoever sees the whole stream.
//!
//! ```text
//! packets ─ cut ─ decode ─┬─ resample ─ line ─ encode ─▶ packets of wish 0      a lane for each track and wish
//!                         └─ resample ─ line ─ encode ─▶ packets of wish 1
//! ```
//!
//! One encoder runs over the whole stream, and its frames are handed out by their times: segments put one after the
//! other hold exactly what it made. Frames are counted from the first sample on and shifted by the encoder's delay,
//! so decoded sound is where the source's was; clocks of containers only say where sound begins and where a hole is.
//! Holes up to ten seconds are filled with silence. Everything here works in the caller's thread.

mod decode;
mod elements;
mod encode;
mod lane;
mod line;
mod reader;
mod strand;

use bytes::Bytes;
use gstreamer as gst;

use headwater_protocol::{Aac, Audio, Code, Fault, Hertz, Ladder, Opus};

use self::decode::Decoder;
use self::lane::Lane;
use crate::es::{AudioFormat, AudioPacket, Ticks, Tracks};
use crate::log;

pub use self::reader::{Soundtrack, Zero};

/// A packet of one of the ladder's [`wants`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub want: usize,
    /// Its track counts those of [`formats`].
    pub packet: AudioPacket,
}

/// Distinct encodings of a ladder, in its order.
pub fn wants(ladder: &Ladder) -> Vec<Audio> {
    let mut found = Vec::new();
    for audio in ladder.renditions().iter().map(|rendition| rendition.audio) {
        if audio.is_encoded() && !found.contains(&audio) {
            found.push(audio);
        }
    }
    found
}

/// What a rendition's audio tracks are. Those that cannot be decoded are left out where sound is encoded.
pub fn formats(tracks: &Tracks, want: &Audio) -> Vec<AudioFormat> {
    let coded = match want {
        Audio::Copy => return tracks.audio.clone(),
        Audio::None => return Vec::new(),
        Audio::Aac(Aac { rate, channels, .. }) => {
            // Low complexity; the rate is one of the table's.
            let index = crate::mux::adts::RATES.iter().position(|known| *known == rate.0).unwrap_or(3) as u8;
            let config = [2 << 3 | index >> 1, (index & 1) << 7 | channels << 3];
            AudioFormat::Aac {
                config: Bytes::copy_from_slice(&config),
                rate: rate.0,
                channels: u16::from(*channels),
            }
        }
        // The times of the packets say what precedes the sound, so nothing is left for a decoder to skip.
        Audio::Opus(Opus { channels, .. }) => {
            AudioFormat::Opus { channels: *channels, pre_skip: 0, rate: 48_000 }
        }
    };
    tracks.audio.iter().filter(|format| decode::is_known(format)).map(|_| coded.clone()).collect()
}

/// Samples before an encoder: interleaved, 32-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    rate: u32,
    channels: u8,
}

impl Shape {
    fn of(want: &Audio) -> Option<Self> {
        match *want {
            Audio::Copy | Audio::None => None,
            Audio::Aac(Aac { rate: Hertz(rate), channels, .. }) => Some(Self { rate, channels }),
            Audio::Opus(Opus { channels, .. }) => Some(Self { rate: 48_000, channels }),
        }
    }

    /// Bytes of a sample of all channels.
    fn bytes(self) -> usize {
        4 * usize::from(self.channels)
    }

    fn caps(self) -> gst::Caps {
        // Front left and right; for 5.1 also centre, low, and the two at the back.
        let mask = match self.channels {
            6 => Some(gst::Bitmask::new(0x3f)),
            2 => Some(gst::Bitmask::new(0x3)),
            _ => None,
        };
        gst::Caps::builder("audio/x-raw")
            .field("format", "F32LE")
            .field("layout", "interleaved")
            .field("rate", self.rate.cast_signed())
            .field("channels", i32::from(self.channels))
            .field_if_some("channel-mask", mask)
            .build()
    }
}

fn failed(what: &str) -> Fault {
    Fault::new(Code::PipelineFailed, format!("sound: {what}")).with_detail(log::tail())
}

/// All tracks of a stream in all wanted forms.
struct Sound {
    wants: Vec<Audio>,
    /// What is before this is not heard.
    from: Option<Ticks>,
    tracks: Vec<Track>,
    /// Index into the input's tracks to index into `tracks`.
    numbers: Vec<Option<usize>>,
    /// Frames that could not be decoded.
    errors: u32,
}

struct Track {
    format: AudioFormat,
    decoder: Decoder,
    lanes: Vec<Lane>,
}

impl Sound {
    fn new(wants: Vec<Audio>, from: Option<Ticks>) -> Self {
        Self { wants, from, tracks: Vec::new(), numbers: Vec::new(), errors: 0 }
    }

    /// How many tracks give packets.
    fn tracks(&self) -> usize {
        self.tracks.len()
    }

    /// The tracks from here on. One that stays in its place goes on, even in another format.
    fn set(&mut self, tracks: &Tracks, out: &mut Vec<Heard>) -> Result<(), Fault> {
        self.numbers.clear();
        let mut count = 0;
        for format in &tracks.audio {
            let Some(decoder) = Decoder::new(format) else {
                tracing::warn!(?format, "a track of sound cannot be decoded and is left out");
                self.numbers.push(None);
                continue;
            };
            self.numbers.push(Some(count));
            match self.tracks.get_mut(count) {
                Some(track) if track.format == *format => {}
                Some(track) => (track.format, track.decoder) = (format.clone(), decoder),
                None => self.tracks.push(Track {
                    format: format.clone(),
                    decoder,
                    lanes: self.wants.iter().filter_map(|want| Lane::new(*want, self.from)).collect(),
                }),
            }
            count += 1;
        }
        for number in count..self.tracks.len() {
            self.end(number, out)?;
        }
        self.tracks.truncate(count);
        Ok(())
    }

    fn packet(&mut self, packet: &AudioPacket, out: &mut Vec<Heard>) -> Result<(), Fault> {
        let Some(number) = self.numbers.get(packet.track).copied().flatten() else { return Ok(()) };
        let Some(track) = self.tracks.get_mut(number) else { return Ok(()) };
        for pcm in track.decoder.packet(packet, &mut self.errors)? {
            for (want, lane) in track.lanes.iter_mut().enumerate() {
                let mut coded = Vec::new();
                lane.take(&pcm, &mut coded)?;
                out.extend(coded.into_iter().map(|coded| heard(want, number, coded)));
            }
        }
        Ok(())
    }

    fn end(&mut self, number: usize, out: &mut Vec<Heard>) -> Result<(), Fault> {
        let Some(track) = self.tracks.get_mut(number) else { return Ok(()) };
        for (want, lane) in track.lanes.iter_mut().enumerate() {
            let mut coded = Vec::new();
            lane.finish(&mut coded)?;
            out.extend(coded.into_iter().map(|coded| heard(want, number, coded)));
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<Heard>) -> Result<(), Fault> {
        (0..self.tracks.len()).try_for_each(|number| self.end(number, out))
    }
}

fn heard(want: usize, track: usize, (pts, data): encode::Coded) -> Heard {
    Heard { want, packet: AudioPacket { track, pts, data } }
}
