//! Livepeer's words for renditions: presets and the JSON of a profile, and our ladder made from them.
//!
//! Whoever reads such JSON reads it here: the push interface, the operator's command, the worker's ladder files.

use serde::Deserialize;

use crate::ids::{BadId, RenditionName};
use crate::rendition::{Codec, Container, Gop, Ladder, LadderError, Profile as H264, Rate, Rendition, Tiles};
use crate::sound::Audio;
use crate::units::{BitsPerSecond, FrameRate, Millis, Pixels};

/// One of `profiles` in `Livepeer-Transcode-Configuration`, and of `[ladder]` in the configuration.
/// Integers are wide and signed so that a wrong one is refused with a sentence and not by the parser.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Profile {
    pub name: String,
    pub width: i64,
    pub height: i64,
    pub bitrate: i64,
    pub fps: i64,
    pub fps_den: i64,
    pub profile: String,
    pub gop: String,
    pub encoder: String,
    pub color_depth: i64,
    pub chroma_format: i64,
    pub quality: i64,
    /// Ours, not Livepeer's: the container of this rendition; that of the first segment pushed where it is absent.
    pub container: Option<Container>,
    /// Ours too: `"copy"` or `"none"`.
    pub audio: Audio,
    /// Ours: makes sheets of a JPEG rendition.
    pub tiles: Option<Tiles>,
}

/// Why profiles are not a ladder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadProfiles {
    #[error("unknown preset {0:?}; known are P144p30fps16x9 to P720p60fps16x9, as in Livepeer's list")]
    Preset(String),
    #[error("profile {index} has a bad name: {source}")]
    Name { index: usize, source: BadId },
    #[error("profile {name}: {key} is {value}; it must be {rule}")]
    Number { name: String, key: &'static str, value: i64, rule: &'static str },
    #[error("profile {name}: unrecognized encoder profile {value:?}")]
    H264 { name: String, value: String },
    #[error("profile {name}: gop {value:?} is neither \"intra\" nor a number of seconds")]
    Gop { name: String, value: String },
    #[error("profile {name}: unrecognized video codec {value:?}; write H.264, HEVC or JPEG")]
    Encoder { name: String, value: String },
    #[error("profile {name}: only 8-bit 4:2:0 output is made; leave {key} at 0")]
    Depth { name: String, key: &'static str },
    #[error(transparent)]
    Ladder(#[from] LadderError),
}

impl Profile {
    /// Keys of the JSON, for those who want to tell a person of a misspelt one.
    pub const KEYS: &[&str] = &[
        "name",
        "width",
        "height",
        "bitrate",
        "fps",
        "fpsDen",
        "profile",
        "gop",
        "encoder",
        "colorDepth",
        "chromaFormat",
        "quality",
        "container",
        "audio",
        "tiles",
    ];
}

/// Name, size, frame rate, kbit/s.
pub const PRESETS: &[(&str, i64, i64, i64, i64)] = &[
    ("P720p60fps16x9", 1280, 720, 60, 6000),
    ("P720p30fps16x9", 1280, 720, 30, 4000),
    ("P720p25fps16x9", 1280, 720, 25, 3500),
    ("P720p30fps4x3", 960, 720, 30, 3500),
    ("P576p30fps16x9", 1024, 576, 30, 1500),
    ("P576p25fps16x9", 1024, 576, 25, 1500),
    ("P360p30fps16x9", 640, 360, 30, 1200),
    ("P360p25fps16x9", 640, 360, 25, 1000),
    ("P360p30fps4x3", 480, 360, 30, 1000),
    ("P240p30fps16x9", 426, 240, 30, 600),
    ("P240p25fps16x9", 426, 240, 25, 600),
    ("P240p30fps4x3", 320, 240, 30, 600),
    ("P144p30fps16x9", 256, 144, 30, 400),
    ("P144p25fps16x9", 256, 144, 25, 400),
];

pub fn preset(name: &str) -> Result<Profile, BadProfiles> {
    PRESETS
        .iter()
        .find(|(known, ..)| *known == name)
        .map(|&(name, width, height, fps, kbits)| Profile {
            name: name.to_owned(),
            width,
            height,
            bitrate: kbits * 1000,
            fps,
            ..Profile::default()
        })
        .ok_or_else(|| BadProfiles::Preset(name.to_owned()))
}

/// The ladder these profiles ask for, of segments that are done each by itself; `container` is that of the first segment pushed.
pub fn ladder(profiles: &[Profile], container: Container) -> Result<Ladder, BadProfiles> {
    // Counted before anything is made of them: forty thousand cost no more than forty.
    if profiles.len() > Ladder::MAX {
        return Err(LadderError::TooMany { count: profiles.len(), max: Ladder::MAX }.into());
    }
    let renditions: Result<Vec<_>, _> =
        profiles.iter().enumerate().map(|(index, profile)| rendition(index, profile, container)).collect();
    let ladder = Ladder::new(renditions?)?;
    ladder.alone()?;
    Ok(ladder)
}

/// What a word of `encoder` means; Livepeer's own, exactly, and ours: JPEG and FWHT.
pub fn codec(encoder: &str) -> Option<Codec> {
    match encoder {
        "" | "H.264" => Some(Codec::H264),
        "HEVC" => Some(Codec::Hevc),
        "VP8" => Some(Codec::Vp8),
        "VP9" => Some(Codec::Vp9),
        "AV1" => Some(Codec::Av1),
        "JPEG" => Some(Codec::Jpeg),
        "FWHT" => Some(Codec::Fwht),
        _ => None,
    }
}

/// What a word of `profile` means, in any case.
pub fn h264(profile: &str) -> Option<H264> {
    match profile.to_ascii_lowercase().as_str() {
        "" | "none" => Some(H264::Auto),
        "h264baseline" => Some(H264::Baseline),
        "h264main" => Some(H264::Main),
        "h264high" => Some(H264::High),
        "h264constrainedhigh" => Some(H264::ConstrainedHigh),
        _ => None,
    }
}

/// What `gop` means: seconds, or `intra`.
pub fn gop(text: &str) -> Option<Gop> {
    match text {
        "" => Some(Gop::Segment),
        "intra" => Some(Gop::Intra),
        seconds => match seconds.parse::<f64>() {
            Ok(0.0) => Some(Gop::Segment),
            // Bounded, so the cast is exact enough and cannot wrap.
            Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => {
                Some(Gop::Every(Millis(((seconds * 1000.0).round() as u64).max(1))))
            }
            Ok(_) | Err(_) => None,
        },
    }
}

/// The rendition that the profile at `index` of a list asks for.
pub fn rendition(index: usize, profile: &Profile, container: Container) -> Result<Rendition, BadProfiles> {
    let Profile { width, height, bitrate, .. } = *profile;
    let text = match profile.name.as_str() {
        "" => format!("custom_{width}x{height}_{bitrate}"),
        name => name.to_owned(),
    };
    let name = RenditionName::new(text.clone()).map_err(|source| BadProfiles::Name { index, source })?;
    let number = |key, value: i64, low: i64, high: i64, rule| match (low..=high).contains(&value) {
        // The range fits u32 in every call below.
        true => Ok(u32::try_from(value).unwrap_or(u32::MAX)),
        false => Err(BadProfiles::Number { name: text.clone(), key, value, rule }),
    };
    for (key, value) in [("colorDepth", profile.color_depth), ("chromaFormat", profile.chroma_format)] {
        if value != 0 {
            return Err(BadProfiles::Depth { name: text.clone(), key });
        }
    }
    let fps = match profile.fps {
        0 => None,
        fps => {
            let num = number("fps", fps, 1, 1_000_000, "0 (as the source) to 1000 frames a second")?;
            let den = number("fpsDen", profile.fps_den.max(1), 1, 1_000_000, "1 to 1000000")?;
            Some(FrameRate::new(num, den).map_err(|_| BadProfiles::Number {
                name: text.clone(),
                key: "fps",
                value: fps,
                rule: "0 (as the source) to 1000 frames a second",
            })?)
        }
    };
    let codec = codec(&profile.encoder)
        .ok_or_else(|| BadProfiles::Encoder { name: text.clone(), value: profile.encoder.clone() })?;
    let h264 = h264(&profile.profile)
        .ok_or_else(|| BadProfiles::H264 { name: text.clone(), value: profile.profile.clone() })?;
    let gop = gop(&profile.gop)
        .ok_or_else(|| BadProfiles::Gop { name: text.clone(), value: profile.gop.clone() })?;
    // Quality wins over a bitrate, which would only be its cap.
    let rate = match profile.quality {
        0 => Rate::Bitrate(BitsPerSecond(number(
            "bitrate",
            bitrate,
            1_000,
            400_000_000,
            "1000 to 400000000 bit/s",
        )?)),
        quality => Rate::Quality(u8::try_from(number("quality", quality, 1, 51, "1 to 51")?).unwrap_or(51)),
    };
    Ok(Rendition {
        width: Pixels(number("width", width, 1, 8192, "1 to 8192 pixels")?),
        height: Pixels(number("height", height, 1, 8192, "1 to 8192 pixels")?),
        name,
        codec,
        fps,
        rate,
        gop,
        profile: h264,
        container: match codec {
            Codec::Jpeg => Container::Jpeg,
            Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Fwht => {
                profile.container.unwrap_or(container)
            }
        },
        audio: profile.audio,
        tiles: profile.tiles,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> Profile {
        Profile { name: "720p0".into(), width: 1280, height: 720, bitrate: 3_000_000, ..Profile::default() }
    }

    #[test]
    fn every_preset_is_a_rendition() {
        for (name, ..) in PRESETS {
            ladder(&[preset(name).unwrap()], Container::Ts).unwrap();
        }
        assert!(preset("P9000p").is_err());
    }

    #[test]
    fn a_profile_becomes_what_livepeer_means_by_it() {
        let json = r#"{"width":1280,"height":720,"bitrate":3000000,"fps":30000,"fpsDen":1001,
                       "profile":"H264ConstrainedHigh","gop":"1.5","encoder":"H.264"}"#;
        let profile: Profile = serde_json::from_str(json).unwrap();
        let made = ladder(&[profile], Container::Mp4).unwrap();
        let rendition = &made.renditions()[0];
        assert_eq!(rendition.name.as_str(), "custom_1280x720_3000000");
        assert_eq!(rendition.fps.unwrap().to_string(), "30000/1001");
        assert_eq!(rendition.gop, Gop::Every(Millis(1500)));
        assert_eq!(rendition.profile, H264::ConstrainedHigh);
        assert_eq!(rendition.container, Container::Mp4);
    }

    #[test]
    fn a_picture_is_a_jpeg_whatever_the_stream_comes_in() {
        let json = r#"{"name":"thumb","width":320,"height":180,"quality":10,"encoder":"JPEG",
                       "tiles":{"columns":2,"rows":2,"every":500}}"#;
        let profile: Profile = serde_json::from_str(json).unwrap();
        let made = ladder(&[profile], Container::Ts).unwrap();
        let rendition = &made.renditions()[0];
        assert_eq!((rendition.codec, rendition.container), (Codec::Jpeg, Container::Jpeg));
        assert_eq!(rendition.tiles, Some(Tiles { columns: 2, rows: 2, every: Millis(500) }));
    }

    #[test]
    fn the_virtual_devices_codec_has_a_quality_and_no_bitrate() {
        let mut profile = Profile { encoder: "FWHT".into(), quality: 30, ..usual() };
        let made = ladder(&[profile.clone()], Container::Ts).unwrap();
        assert_eq!((made.renditions()[0].codec, made.renditions()[0].rate), (Codec::Fwht, Rate::Quality(30)));
        profile.quality = 0;
        assert!(ladder(&[profile], Container::Ts).unwrap_err().to_string().contains("ask for a quality"));
    }

    #[test]
    fn a_bad_profile_is_refused_with_its_name_and_the_rule() {
        let error = |change: fn(&mut Profile)| {
            let mut profile = usual();
            change(&mut profile);
            ladder(&[profile], Container::Ts).unwrap_err().to_string()
        };
        assert!(error(|p| p.width = 0).contains("720p0: width is 0"));
        assert!(error(|p| p.height = 719).contains("both must be even"));
        assert!(error(|p| p.bitrate = -1).contains("bitrate is -1"));
        assert!(error(|p| p.encoder = "h264".into()).contains("unrecognized video codec"));
        assert!(error(|p| p.encoder = "VP9".into()).contains("outputs are"));
        assert!(error(|p| p.profile = "h265".into()).contains("unrecognized encoder profile"));
        assert!(error(|p| p.gop = "-1".into()).contains("neither"));
        assert!(error(|p| p.gop = "nan".into()).contains("neither"));
        assert!(error(|p| p.name = "../x".into()).contains("bad name"));
        assert!(error(|p| p.color_depth = 2).contains("8-bit"));
        let aac = r#"{"width":640,"height":360,"bitrate":800000,"audio":{"aac":{"bitrate":96000}}}"#;
        let error = ladder(&[serde_json::from_str(aac).unwrap()], Container::Ts).unwrap_err();
        assert!(error.to_string().contains("only where the whole stream is seen"), "{error}");
        assert!(ladder(&vec![usual(); 40], Container::Ts).unwrap_err().to_string().contains("40 renditions"));
    }
}
