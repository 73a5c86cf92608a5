//! What a caller wants out of a stream.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::ids::RenditionName;
use crate::sound::{Audio, AudioError};
use crate::units::{BitsPerSecond, FrameRate, Millis, Pixels};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    H264,
    Hevc,
    Av1,
    Vp9,
    Vp8,
    /// Still pictures: see [`Tiles`].
    Jpeg,
    /// What the Linux kernel's virtual device, vicodec, encodes and decodes: a board's way through V4L2 is run with it
    /// where there is no such board. No player knows it.
    Fwht,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    /// MPEG transport stream.
    Ts,
    /// Fragmented MP4, one file with its own header.
    Mp4,
    /// A JPEG file.
    Jpeg,
}

impl Container {
    /// File name extension, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Container::Ts => "ts",
            Container::Mp4 => "mp4",
            Container::Jpeg => "jpg",
        }
    }

    /// Whether players know video of this codec in this container; of FWHT, whether Headwater does.
    pub fn carries(self, codec: Codec) -> bool {
        match (self, codec) {
            (Container::Ts, Codec::H264 | Codec::Hevc | Codec::Fwht) => true,
            (Container::Ts, Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Jpeg) => false,
            (Container::Mp4, Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Vp9 | Codec::Vp8) => true,
            (Container::Mp4, Codec::Jpeg | Codec::Fwht) => false,
            (Container::Jpeg, Codec::Jpeg) => true,
            (
                Container::Jpeg,
                Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Fwht,
            ) => false,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Container::Ts => "video/mp2t",
            Container::Mp4 => "video/mp4",
            Container::Jpeg => "image/jpeg",
        }
    }
}

/// How many bits a rendition may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// Average and peak over one second of buffer.
    Bitrate(BitsPerSecond),
    /// Constant quality on the H.264 scale: 1 is best, 51 is worst.
    Quality(u8),
}

/// Distance of keyframes inside a segment; the first frame is always one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gop {
    /// One keyframe per segment.
    #[default]
    Segment,
    /// A keyframe each so many milliseconds.
    Every(Millis),
    /// Every frame is a keyframe.
    Intra,
}

/// H.264 profile; for other codecs `Auto` is the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// The encoder's best without B-frames.
    #[default]
    Auto,
    Baseline,
    Main,
    High,
    /// High without B-frames.
    ConstrainedHigh,
}

/// Makes a sheet of small pictures out of a JPEG rendition: the segment's first one, then one each so many milliseconds,
/// row by row. Where the segment is over before the sheet is full, the rest is black; where it goes on, the file has
/// further sheets, one JPEG after the other. Without tiles the rendition is the segment's first picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tiles {
    pub columns: u8,
    pub rows: u8,
    pub every: Millis,
}

/// One wanted output.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rendition {
    pub name: RenditionName,
    pub codec: Codec,
    /// Box the picture is fitted into: the longer side of the input goes to the longer side of
    /// the box, the other follows the aspect ratio.
    pub width: Pixels,
    pub height: Pixels,
    /// None keeps the source's frames and timestamps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<FrameRate>,
    pub rate: Rate,
    #[serde(default)]
    pub gop: Gop,
    #[serde(default)]
    pub profile: Profile,
    pub container: Container,
    #[serde(default, skip_serializing_if = "Audio::is_copy")]
    pub audio: Audio,
    /// The box is that of one tile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiles: Option<Tiles>,
}

/// The renditions of a stream: 1 to [`Ladder::MAX`], each with its own name, each within the codec's limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Rendition>", into = "Vec<Rendition>")]
pub struct Ladder(Vec<Rendition>);

/// Which rule a ladder breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LadderError {
    #[error("the ladder has no rendition; give at least one")]
    Empty,
    #[error("the ladder has {count} renditions, at most {max} are allowed")]
    TooMany { count: usize, max: usize },
    #[error("two renditions are called {name}; give each its own name")]
    SameName { name: RenditionName },
    #[error(
        "rendition {name} is {width}x{height}; width must be {min_w} to {max_w} and height {min_h} to {max_h}"
    )]
    Size { name: RenditionName, width: u32, height: u32, min_w: u32, max_w: u32, min_h: u32, max_h: u32 },
    #[error("rendition {name} is {width}x{height}; both must be even")]
    OddSize { name: RenditionName, width: u32, height: u32 },
    #[error("rendition {name} wants {bitrate}; it must be 1000 bit/s to 400 Mbit/s")]
    Bitrate { name: RenditionName, bitrate: BitsPerSecond },
    #[error("rendition {name} wants quality {quality}; it must be 1 to 51")]
    Quality { name: RenditionName, quality: u8 },
    #[error("rendition {name} wants a keyframe each {gop}; it must be 1 ms to 5 minutes")]
    Gop { name: RenditionName, gop: Millis },
    #[error("rendition {name} wants codec {codec:?}; outputs are h264, hevc, av1, jpeg or fwht")]
    Codec { name: RenditionName, codec: Codec },
    #[error(
        "rendition {name} wants codec {codec:?} in {}, which has no place for it; ask for {other}",
        .container.extension()
    )]
    Container { name: RenditionName, codec: Codec, container: Container, other: &'static str },
    #[error("rendition {name} wants a bitrate, which codec fwht does not know; ask for a quality")]
    NoBitrate { name: RenditionName },
    #[error("rendition {name} wants an H.264 profile for codec {codec:?}; leave the profile out")]
    Profile { name: RenditionName, codec: Codec },
    #[error("rendition {name} wants {source}")]
    Audio { name: RenditionName, source: AudioError },
    #[error(
        "rendition {name} wants its audio encoded; audio is re-encoded only where the whole stream is seen \
         (headwater-worker transcode); ask for audio \"copy\" or \"none\""
    )]
    AudioAlone { name: RenditionName },
    #[error("rendition {name}: codec jpeg and container jpeg go together")]
    JpegContainer { name: RenditionName },
    #[error("rendition {name} is a JPEG: {key} has to be {rule}")]
    Jpeg { name: RenditionName, key: &'static str, rule: &'static str },
    #[error("rendition {name} has tiles; only codec jpeg can have them")]
    NoTiles { name: RenditionName },
    #[error(
        "rendition {name}: its sheets have {pixels} pixels, at most {max} are allowed; make fewer or smaller tiles"
    )]
    Sheet { name: RenditionName, pixels: u64, max: u64 },
}

impl Ladder {
    /// More than any published ladder; bounds what one offer can ask of a board.
    pub const MAX: usize = 16;

    /// Pixels of a sheet of tiles, which is in memory as a whole.
    pub const MAX_SHEET: u64 = 4096 * 4096;

    pub fn new(renditions: Vec<Rendition>) -> Result<Self, LadderError> {
        if renditions.is_empty() {
            return Err(LadderError::Empty);
        }
        if renditions.len() > Self::MAX {
            return Err(LadderError::TooMany { count: renditions.len(), max: Self::MAX });
        }
        let mut names = HashSet::new();
        for rendition in &renditions {
            rendition.check()?;
            if !names.insert(&rendition.name) {
                return Err(LadderError::SameName { name: rendition.name.clone() });
            }
        }
        Ok(Self(renditions))
    }

    pub fn renditions(&self) -> &[Rendition] {
        &self.0
    }

    /// Whether a segment can be done without its neighbours, as each task is. Encoded sound cannot: every frame of
    /// AAC and Opus overlaps the next, so a segment that begins one anew is heard as a click at each boundary.
    pub fn alone(&self) -> Result<(), LadderError> {
        match self.0.iter().find(|rendition| rendition.audio.is_encoded()) {
            Some(rendition) => Err(LadderError::AudioAlone { name: rendition.name.clone() }),
            None => Ok(()),
        }
    }
}

impl Rendition {
    fn check(&self) -> Result<(), LadderError> {
        let name = || self.name.clone();
        // What LPMS clamps to; we refuse instead, so that nobody gets a size they did not ask for.
        let (min_w, max_w, min_h, max_h) = match self.codec {
            Codec::H264 => (146, 4096, 50, 4096),
            Codec::Hevc | Codec::Av1 => (132, 8192, 40, 8192),
            Codec::Jpeg => (16, 4096, 16, 4096),
            // The driver's own, in whole blocks of 16.
            Codec::Fwht => (640, 4096, 368, 2160),
            Codec::Vp8 | Codec::Vp9 => return Err(LadderError::Codec { name: name(), codec: self.codec }),
        };
        let still = self.codec == Codec::Jpeg || self.container == Container::Jpeg;
        if !still && !self.container.carries(self.codec) {
            let (codec, container) = (self.codec, self.container);
            let other = if Container::Ts.carries(codec) { "ts" } else { "mp4" };
            return Err(LadderError::Container { name: name(), codec, container, other });
        }
        let (width, height) = (self.width.0, self.height.0);
        // A portrait box is a landscape box turned.
        let (long, short) = (width.max(height), width.min(height));
        if !(min_w..=max_w).contains(&long) || !(min_h..=max_h).contains(&short) {
            return Err(LadderError::Size { name: name(), width, height, min_w, max_w, min_h, max_h });
        }
        if width % 2 == 1 || height % 2 == 1 {
            return Err(LadderError::OddSize { name: name(), width, height });
        }
        match self.rate {
            Rate::Bitrate(_) if self.codec == Codec::Fwht => {
                return Err(LadderError::NoBitrate { name: name() });
            }
            Rate::Bitrate(bitrate) if !(1_000..=400_000_000).contains(&bitrate.0) => {
                return Err(LadderError::Bitrate { name: name(), bitrate });
            }
            Rate::Quality(quality) if !(1..=51).contains(&quality) => {
                return Err(LadderError::Quality { name: name(), quality });
            }
            Rate::Bitrate(_) | Rate::Quality(_) => {}
        }
        match self.gop {
            Gop::Every(gop) if !(1..=300_000).contains(&gop.0) => {
                return Err(LadderError::Gop { name: name(), gop });
            }
            Gop::Every(_) | Gop::Segment | Gop::Intra => {}
        }
        if self.codec != Codec::H264 && self.profile != Profile::Auto {
            return Err(LadderError::Profile { name: name(), codec: self.codec });
        }
        self.audio.check().map_err(|source| LadderError::Audio { name: name(), source })?;
        self.check_still()
    }

    fn check_still(&self) -> Result<(), LadderError> {
        let name = || self.name.clone();
        if (self.codec == Codec::Jpeg) != (self.container == Container::Jpeg) {
            return Err(LadderError::JpegContainer { name: name() });
        }
        if self.codec != Codec::Jpeg {
            return if self.tiles.is_some() { Err(LadderError::NoTiles { name: name() }) } else { Ok(()) };
        }
        let wrong = |key, rule| Err(LadderError::Jpeg { name: name(), key, rule });
        if !matches!(self.rate, Rate::Quality(_)) {
            return wrong("its rate", "a quality");
        }
        if self.fps.is_some() {
            return wrong("fps", "left out; tiles say how often");
        }
        if self.gop != Gop::Segment {
            return wrong("gop", "left out");
        }
        let Some(Tiles { columns, rows, every }) = self.tiles else { return Ok(()) };
        if columns == 0 || rows == 0 {
            return wrong("tiles", "at least one column and one row");
        }
        let long = u32::max(self.width.0, self.height.0);
        if long * u32::from(u8::max(columns, rows)) > 16_384 {
            return wrong("tiles", "sheets of at most 16384 pixels on each side");
        }
        if !(1..=3_600_000).contains(&every.0) {
            return wrong("every", "1 ms to an hour");
        }
        let tiles = u64::from(columns) * u64::from(rows);
        let pixels = tiles * u64::from(self.width.0) * u64::from(self.height.0);
        if pixels > Ladder::MAX_SHEET {
            return Err(LadderError::Sheet { name: name(), pixels, max: Ladder::MAX_SHEET });
        }
        Ok(())
    }
}

impl TryFrom<Vec<Rendition>> for Ladder {
    type Error = LadderError;
    fn try_from(renditions: Vec<Rendition>) -> Result<Self, LadderError> {
        Self::new(renditions)
    }
}

impl From<Ladder> for Vec<Rendition> {
    fn from(ladder: Ladder) -> Self {
        ladder.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendition(name: &str) -> Rendition {
        Rendition {
            name: RenditionName::new(name).unwrap(),
            codec: Codec::H264,
            width: Pixels(1280),
            height: Pixels(720),
            fps: None,
            rate: Rate::Bitrate(BitsPerSecond(3_000_000)),
            gop: Gop::Segment,
            profile: Profile::Auto,
            container: Container::Ts,
            audio: Audio::Copy,
            tiles: None,
        }
    }

    fn thumbnail() -> Rendition {
        Rendition {
            codec: Codec::Jpeg,
            container: Container::Jpeg,
            rate: Rate::Quality(10),
            ..rendition("thumb")
        }
    }

    #[test]
    fn a_ladder_that_breaks_a_rule_is_refused_with_the_rule() {
        let one = |change: fn(&mut Rendition)| {
            let mut r = rendition("a");
            change(&mut r);
            Ladder::new(vec![r]).unwrap_err().to_string()
        };
        assert!(one(|r| r.width = Pixels(0)).contains("width must be"));
        assert!(one(|r| r.height = Pixels(719)).contains("both must be even"));
        assert!(one(|r| r.rate = Rate::Bitrate(BitsPerSecond(0))).contains("1000 bit/s"));
        assert!(one(|r| r.rate = Rate::Quality(0)).contains("1 to 51"));
        assert!(one(|r| r.codec = Codec::Vp8).contains("outputs are"));
        assert!(one(|r| r.codec = Codec::Av1).contains("ask for mp4"));
        assert!(one(|r| r.codec = Codec::Fwht).contains("ask for a quality"));
        let fwht_in_mp4 = |r: &mut Rendition| (r.codec, r.container) = (Codec::Fwht, Container::Mp4);
        assert!(one(fwht_in_mp4).contains("in mp4, which has no place for it; ask for ts"));
        assert_eq!(Ladder::new(vec![]), Err(LadderError::Empty));
        assert!(matches!(
            Ladder::new(vec![rendition("a"), rendition("a")]),
            Err(LadderError::SameName { .. })
        ));
        let forty = (0..40).map(|i| rendition(&format!("r{i}"))).collect();
        assert_eq!(Ladder::new(forty), Err(LadderError::TooMany { count: 40, max: Ladder::MAX }));
    }

    #[test]
    fn sound_that_is_copied_is_not_spoken_of() {
        let mut one = rendition("a");
        assert!(!serde_json::to_string(&one).unwrap().contains("audio"));
        let opus = crate::sound::Opus { bitrate: BitsPerSecond(96_000), channels: 2 };
        for audio in [Audio::Copy, Audio::None, Audio::Opus(opus)] {
            one.audio = audio;
            let text = serde_json::to_string(&one).unwrap();
            assert_eq!(serde_json::from_str::<Rendition>(&text).unwrap(), one, "{text}");
            assert_eq!(Ladder::new(vec![one.clone()]).unwrap().alone().is_err(), audio.is_encoded());
        }
    }

    #[test]
    fn a_jpeg_has_a_quality_a_container_of_its_own_and_nothing_of_video() {
        assert!(Ladder::new(vec![thumbnail()]).is_ok());
        let one = |change: fn(&mut Rendition)| {
            let mut r = thumbnail();
            change(&mut r);
            Ladder::new(vec![r]).unwrap_err().to_string()
        };
        assert!(one(|r| r.container = Container::Ts).contains("go together"));
        assert!(one(|r| r.codec = Codec::H264).contains("go together"));
        assert!(one(|r| r.rate = Rate::Bitrate(BitsPerSecond(1_000_000))).contains("a quality"));
        assert!(one(|r| r.gop = Gop::Intra).contains("gop"));
        assert!(one(|r| r.fps = FrameRate::new(1, 1).ok()).contains("fps"));
        let tiles = |columns, rows, every| Some(Tiles { columns, rows, every: Millis(every) });
        let sheet = |tiles| Ladder::new(vec![Rendition { tiles, ..thumbnail() }]);
        assert!(sheet(tiles(4, 4, 500)).is_ok());
        assert!(sheet(tiles(0, 4, 500)).unwrap_err().to_string().contains("at least one column"));
        assert!(sheet(tiles(4, 4, 0)).unwrap_err().to_string().contains("every"));
        assert!(sheet(tiles(10, 10, 500)).unwrap_err().to_string().contains("smaller tiles"));
        let video = Rendition { tiles: tiles(2, 2, 500), ..rendition("a") };
        assert!(Ladder::new(vec![video]).unwrap_err().to_string().contains("only codec jpeg"));
    }

    #[test]
    fn a_portrait_box_has_the_limits_of_the_same_box_turned() {
        let mut r = rendition("p");
        (r.width, r.height) = (Pixels(202), Pixels(360));
        assert!(Ladder::new(vec![r]).is_ok());
    }
}
