//! What becomes of a stream's sound in a rendition.

use serde::{Deserialize, Serialize};

use crate::units::{BitsPerSecond, Hertz};

/// Every audio track of the input is treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audio {
    /// Byte for byte, with its timestamps.
    #[default]
    Copy,
    /// No sound.
    None,
    /// Encoded anew. Only where one process sees the whole stream: see [`crate::Ladder::alone`].
    Aac(Aac),
    /// As `Aac`; always at 48 kHz.
    Opus(Opus),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aac {
    pub bitrate: BitsPerSecond,
    /// Samples a second, whatever the source has.
    #[serde(default = "usual_rate")]
    pub rate: Hertz,
    /// 1, 2 or 6 (5.1), whatever the source has.
    #[serde(default = "stereo")]
    pub channels: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opus {
    pub bitrate: BitsPerSecond,
    /// 1 or 2.
    #[serde(default = "stereo")]
    pub channels: u8,
}

fn usual_rate() -> Hertz {
    Hertz(48_000)
}

fn stereo() -> u8 {
    2
}

/// Which rule a wish breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AudioError {
    #[error("AAC at {rate}; it must be one of 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000")]
    Rate { rate: Hertz },
    #[error("{codec} with {channels} channels; it must be {rule}")]
    Channels { codec: &'static str, channels: u8, rule: &'static str },
    #[error("{codec} with {bitrate}; it must be {min} to {max} bit/s")]
    Bitrate { codec: &'static str, bitrate: BitsPerSecond, min: u32, max: u32 },
}

/// Rates that both an AAC header can name and people use.
const AAC_RATES: [u32; 9] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];
/// Below this no encoder makes anything of use.
const MIN_BITRATE: u32 = 8_000;
/// libopus takes no more for two channels.
const MAX_OPUS: u32 = 512_000;

impl Audio {
    pub fn check(&self) -> Result<(), AudioError> {
        match *self {
            Audio::Copy | Audio::None => Ok(()),
            Audio::Aac(Aac { bitrate, rate, channels }) => {
                if !AAC_RATES.contains(&rate.0) {
                    return Err(AudioError::Rate { rate });
                }
                if !matches!(channels, 1 | 2 | 6) {
                    return Err(AudioError::Channels { codec: "AAC", channels, rule: "1, 2 or 6" });
                }
                // A frame of 1024 samples has at most 6144 bits for each channel.
                let max = (6 * rate.0 * u32::from(channels)).min(1_000_000);
                in_range("AAC", bitrate, max)
            }
            Audio::Opus(Opus { bitrate, channels }) => {
                if !matches!(channels, 1 | 2) {
                    return Err(AudioError::Channels { codec: "Opus", channels, rule: "1 or 2" });
                }
                in_range("Opus", bitrate, MAX_OPUS)
            }
        }
    }

    /// Neither copied nor left out.
    pub fn is_encoded(&self) -> bool {
        match self {
            Audio::Copy | Audio::None => false,
            Audio::Aac(_) | Audio::Opus(_) => true,
        }
    }

    pub fn is_copy(&self) -> bool {
        *self == Audio::Copy
    }
}

fn in_range(codec: &'static str, bitrate: BitsPerSecond, max: u32) -> Result<(), AudioError> {
    if (MIN_BITRATE..=max).contains(&bitrate.0) {
        Ok(())
    } else {
        Err(AudioError::Bitrate { codec, bitrate, min: MIN_BITRATE, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Audio, String> {
        let audio: Audio = serde_json::from_str(json).map_err(|error| error.to_string())?;
        audio.check().map_err(|error| error.to_string()).map(|()| audio)
    }

    #[test]
    fn a_wish_is_a_word_or_a_codec_with_its_numbers() {
        assert_eq!(read(r#""copy""#), Ok(Audio::Copy));
        assert_eq!(read(r#""none""#), Ok(Audio::None));
        let aac = Aac { bitrate: BitsPerSecond(128_000), rate: Hertz(48_000), channels: 2 };
        assert_eq!(read(r#"{"aac":{"bitrate":128000}}"#), Ok(Audio::Aac(aac)));
        let opus = Opus { bitrate: BitsPerSecond(24_000), channels: 1 };
        assert_eq!(read(r#"{"opus":{"bitrate":24000,"channels":1}}"#), Ok(Audio::Opus(opus)));
    }

    #[test]
    fn a_wish_that_breaks_a_rule_is_refused_with_the_rule() {
        let refused = |json: &str, rule: &str| {
            let error = read(json).unwrap_err();
            assert!(error.contains(rule), "{json}: {error}");
        };
        refused(r#"{"aac":{"bitrate":128000,"rate":44000}}"#, "44100");
        refused(r#"{"aac":{"bitrate":128000,"channels":3}}"#, "1, 2 or 6");
        refused(r#"{"aac":{"bitrate":128000,"rate":8000}}"#, "8000 to 96000 bit/s");
        refused(r#"{"opus":{"bitrate":1000}}"#, "8000 to 512000 bit/s");
        refused(r#"{"opus":{"bitrate":64000,"channels":6}}"#, "1 or 2");
        refused(r#"{"opus":{"bitrate":64000,"rate":44100}}"#, "unknown field");
        refused(r#""mp3""#, "unknown variant");
    }
}
