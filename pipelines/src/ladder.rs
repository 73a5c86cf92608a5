//! Ladder files for people.
//!
//! A JSON list of renditions as the protocol has them, a TOML file of `[[rendition]]`, or a list of Livepeer
//! profiles; each may use the short forms of the others:
//!
//! ```toml
//! [[rendition]]
//! name = "720p"
//! width = 1280
//! height = 720
//! bitrate = "3M"      # or 3000000, or quality = 23
//! gop = "2.0"         # seconds, "intra", or left out: one keyframe per segment
//! audio = { aac = { bitrate = "128k" } }   # or { opus = { … } }, "none", or left out: as it is
//! ```

use std::path::Path;

use headwater_protocol::{Code, Codec, Fault, Ladder, Profile, livepeer};
use serde_json::{Map, Value, json};

/// Why a file is not a ladder.
#[derive(Debug, thiserror::Error)]
pub enum BadLadderFile {
    #[error("{path}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}: {text}")]
    Content { path: String, text: String },
}

impl From<&BadLadderFile> for Fault {
    fn from(bad: &BadLadderFile) -> Self {
        Fault::new(Code::BadLadder, bad.to_string())
    }
}

pub fn read(path: &Path) -> Result<Ladder, BadLadderFile> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|source| BadLadderFile::Read { path: name.clone(), source })?;
    parse(&text).map_err(|text| BadLadderFile::Content { path: name, text })
}

/// A sentence where the text is no ladder.
pub fn parse(text: &str) -> Result<Ladder, String> {
    let value: Value = if text.trim_start().starts_with(['[', '{']) && !text.trim_start().starts_with("[[") {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        toml::from_str(text).map_err(|error| error.to_string())?
    };
    let list = match value {
        Value::Array(list) => list,
        Value::Object(mut table) => match table.remove("rendition").or_else(|| table.remove("profiles")) {
            Some(Value::Array(list)) => list,
            Some(_) | None => return Err("a ladder is a list of renditions, or [[rendition]] tables".into()),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err("a ladder is a list of renditions".into());
        }
    };
    let list = list.into_iter().map(full).collect::<Result<Vec<_>, _>>()?;
    serde_json::from_value(Value::Array(list)).map_err(|error| error.to_string())
}

/// Long form of a rendition.
fn full(value: Value) -> Result<Value, String> {
    let Value::Object(mut short) = value else { return Err("a rendition is a table of keys".into()) };
    if !short.contains_key("name") {
        let height =
            short.get("height").and_then(Value::as_u64).ok_or("a rendition needs a name or a height")?;
        short.insert("name".into(), json!(format!("{height}p")));
    }
    short.entry("codec").or_insert(json!("h264"));
    if let Some(bitrate) = short.remove("bitrate") {
        short.insert("rate".into(), json!({ "bitrate": bits(&bitrate)? }));
    }
    if let Some(quality) = short.remove("quality").filter(|quality| quality.as_u64() != Some(0)) {
        short.insert("rate".into(), json!({ "quality": quality }));
    }
    fps(&mut short)?;
    gop(&mut short)?;
    if let Some(Value::Object(audio)) = short.get_mut("audio") {
        for bitrate in audio.values_mut().filter_map(|codec| codec.get_mut("bitrate")) {
            *bitrate = json!(bits(bitrate)?);
        }
    }
    if let Some(Value::String(profile)) = short.get("profile") {
        let word = profile.to_ascii_lowercase();
        let ours = match livepeer::h264(&word) {
            Some(ours) => json!(ours),
            None if serde_json::from_value::<Profile>(json!(word)).is_ok() => json!(word),
            None => {
                return Err(format!(
                    "{word:?} is no profile; it is baseline, main, high or constrained_high"
                ));
            }
        };
        short.insert("profile".into(), ours);
    }
    // Livepeer's word for the codec.
    if let Some(Value::String(encoder)) = short.remove("encoder") {
        // Its own spelling, and how people write it.
        let codec = match encoder.to_ascii_lowercase().as_str() {
            "h264" => Codec::H264,
            "h265" | "h.265" | "hevc" => Codec::Hevc,
            _ => livepeer::codec(&encoder.to_ascii_uppercase())
                .ok_or_else(|| format!("{encoder:?} is no encoder; it is h264, hevc, av1 or jpeg"))?,
        };
        short.insert("codec".into(), json!(codec));
    }
    let container = if short.get("codec") == Some(&json!("jpeg")) { "jpeg" } else { "ts" };
    short.entry("container").or_insert(json!(container));
    Ok(Value::Object(short))
}

/// `3000000`, `"3M"` or `"800k"`.
fn bits(value: &Value) -> Result<u64, String> {
    if let Some(bits) = value.as_u64() {
        return Ok(bits);
    }
    let bad = || format!("{value} is no bitrate; write 3000000, \"3M\" or \"800k\"");
    let text = value.as_str().ok_or_else(bad)?.trim();
    let (number, unit) = match text.as_bytes().last() {
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(_) | None => (text, 1.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| bad())?;
    if !number.is_finite() || number < 0.0 { Err(bad()) } else { Ok((number * unit).round() as u64) }
}

fn fps(short: &mut Map<String, Value>) -> Result<(), String> {
    let den = short.remove("fpsDen").and_then(|den| den.as_u64()).filter(|den| *den > 0).unwrap_or(1);
    if let Some(Value::Number(fps)) = short.get("fps") {
        match fps.as_u64() {
            Some(0) => drop(short.remove("fps")),
            Some(fps) => drop(short.insert("fps".into(), json!(format!("{fps}/{den}")))),
            None => return Err(format!("{fps} is no frame rate; write 30 or \"30000/1001\"")),
        }
    }
    Ok(())
}

fn gop(short: &mut Map<String, Value>) -> Result<(), String> {
    let seconds = match short.get("gop") {
        Some(Value::String(text)) if text == "segment" => return Ok(()),
        Some(Value::String(text)) => {
            let gop =
                livepeer::gop(text.trim_end_matches('s')).ok_or_else(|| format!("{text:?} is no GOP"))?;
            short.insert("gop".into(), json!(gop));
            return Ok(());
        }
        Some(Value::Number(seconds)) => seconds.as_f64().unwrap_or(-1.0),
        Some(_) | None => return Ok(()),
    };
    if !(seconds > 0.0 && seconds <= 300.0) {
        return Err(format!("a GOP of {seconds} s; write seconds up to 300, \"intra\" or \"segment\""));
    }
    short.insert("gop".into(), json!({ "every": (seconds * 1000.0).round() as u64 }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use headwater_protocol::{Aac, Audio, BitsPerSecond, Codec, Container, Gop, Hertz, Millis, Rate};

    use super::*;

    #[test]
    fn the_three_forms_say_the_same() {
        let toml =
            "[[rendition]]\nname = 'a'\nwidth = 1280\nheight = 720\nbitrate = '3M'\ngop = '2.0'\nfps = 30\n";
        let livepeer = r#"[{"name":"a","width":1280,"height":720,"bitrate":3000000,"fps":30,"fpsDen":1,"gop":"2.0",
            "profile":"","encoder":"H.264"}]"#;
        let ours = r#"[{"name":"a","codec":"h264","width":1280,"height":720,"fps":"30","rate":{"bitrate":3000000},
            "gop":{"every":2000},"profile":"auto","container":"ts"}]"#;
        let want = parse(ours).unwrap();
        assert_eq!(parse(toml).unwrap(), want);
        assert_eq!(parse(livepeer).unwrap(), want);
        let one = &want.renditions()[0];
        assert_eq!((one.rate, one.gop), (Rate::Bitrate(BitsPerSecond(3_000_000)), Gop::Every(Millis(2000))));
    }

    #[test]
    fn sound_may_be_encoded() {
        let toml = "[[rendition]]\nwidth = 640\nheight = 360\nbitrate = '1M'\naudio = { aac = { bitrate = '128k' } }\n\
                    [[rendition]]\nwidth = 320\nheight = 180\nbitrate = '1M'\naudio = 'none'\n";
        let ladder = parse(toml).unwrap();
        let aac = Aac { bitrate: BitsPerSecond(128_000), rate: Hertz(48_000), channels: 2 };
        let audio: Vec<Audio> = ladder.renditions().iter().map(|one| one.audio).collect();
        assert_eq!(audio, [Audio::Aac(aac), Audio::None]);
        let fast = r#"[{"width":640,"height":360,"bitrate":"3M","audio":{"aac":{"bitrate":"fast"}}}]"#;
        assert!(parse(fast).unwrap_err().contains("no bitrate"));
        let high = r#"[{"width":640,"height":360,"bitrate":"3M","audio":{"aac":{"bitrate":"9M"}}}]"#;
        assert!(parse(high).unwrap_err().contains("rendition 360p wants AAC with 9000000 bit/s"));
    }

    #[test]
    fn a_picture_needs_no_container() {
        let toml = "[[rendition]]\nname = 't'\nwidth = 320\nheight = 180\nquality = 10\nencoder = 'JPEG'\n\
                    tiles = { columns = 2, rows = 1, every = 500 }\n";
        let ladder = parse(toml).unwrap();
        let one = &ladder.renditions()[0];
        assert_eq!((one.codec, one.container), (Codec::Jpeg, Container::Jpeg));
        assert_eq!(one.tiles.unwrap().every, Millis(500));
    }

    #[test]
    fn a_bad_ladder_is_told_in_a_sentence() {
        assert!(parse("7").is_err());
        assert!(parse("[7]").unwrap_err().contains("table"));
        let odd = r#"[{"width":1279,"height":720,"bitrate":"3M"}]"#;
        assert!(parse(odd).unwrap_err().contains("must be even"));
        let fast = r#"[{"width":1280,"height":720,"bitrate":"fast"}]"#;
        assert!(parse(fast).unwrap_err().contains("no bitrate"));
    }
}
