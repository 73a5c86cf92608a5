//! From what the user typed to a [`Ladder`], and from there to the header of a push.
//!
//! ```text
//! "720p,480p" ─ names ──┐
//! "hd.toml"   ─ file ───┼─▶ Vec<Rendition> ─▶ Ladder ─▶ Livepeer-Transcode-Configuration
//! "name=…"    ─ inline ─┘                     (rules)
//! ```

use std::path::{Path, PathBuf};

use headwater_protocol::units::BadFrameRate;
use headwater_protocol::{
    Audio, BadId, BitsPerSecond, Codec, Container, FrameRate, Gop, Ladder, LadderError, Millis, Pixels,
    Profile, Rate, Rendition, RenditionName, livepeer,
};
use serde_json::{Value, json};

use crate::human;

/// A ladder file is a few hundred bytes; more is another file by mistake.
const MAX_FILE: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error(transparent)]
    Rule(#[from] LadderError),
    #[error(
        "no ladder is called {name:?}; use standard, names such as 720p or P720p30fps16x9, a .json or .toml \
         file, or name=…,size=…,bitrate=…"
    )]
    Unknown { name: String },
    #[error("cannot read the ladder file {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the ladder file {} is larger than 1 MB; is it the right file?", path.display())]
    FileSize { path: PathBuf },
    #[error("the ladder file {} is not {format}: {text}", path.display())]
    Parse { path: PathBuf, format: &'static str, text: String },
    #[error(
        "the ladder file {} holds no list; write [ … ] or, in TOML, one [[renditions]] for each",
        path.display()
    )]
    NoList { path: PathBuf },
    #[error("rendition {number} of {}: {text}", path.display())]
    Item { path: PathBuf, number: usize, text: String },
    #[error("in {part:?}: {text}")]
    Inline { part: String, text: String },
}

/// `--ladder`, each time it was given.
pub(crate) fn parse(specs: &[String]) -> Result<Ladder, SpecError> {
    let mut renditions = Vec::new();
    for spec in specs {
        renditions.extend(parse_one(spec.trim())?);
    }
    let ladder = Ladder::new(renditions)?;
    ladder.alone()?;
    Ok(ladder)
}

fn parse_one(spec: &str) -> Result<Vec<Rendition>, SpecError> {
    let path = Path::new(spec);
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some("toml") if !spec.contains('=') => return from_file(path, true),
        Some("json") if !spec.contains('=') => return from_file(path, false),
        Some(_) | None => {}
    }
    if spec.contains('=') {
        return spec.split(';').map(str::trim).filter(|part| !part.is_empty()).map(inline).collect();
    }
    let mut renditions = Vec::new();
    for name in spec.split([',', ';', ' ']).map(str::trim).filter(|name| !name.is_empty()) {
        renditions.extend(by_name(name).ok_or_else(|| SpecError::Unknown { name: name.to_owned() })?);
    }
    Ok(renditions)
}

/// Name, width, height, bit/s: 16:9 and what most services spend on it with H.264.
const SIZES: &[(&str, u32, u32, u32)] = &[
    ("2160p", 3840, 2160, 16_000_000),
    ("1440p", 2560, 1440, 9_000_000),
    ("1080p", 1920, 1080, 6_000_000),
    ("720p", 1280, 720, 3_000_000),
    ("576p", 1024, 576, 2_000_000),
    ("480p", 854, 480, 1_600_000),
    ("360p", 640, 360, 800_000),
    ("240p", 426, 240, 250_000),
    ("144p", 256, 144, 150_000),
];

fn by_name(name: &str) -> Option<Vec<Rendition>> {
    if name.eq_ignore_ascii_case("standard") {
        let rungs = ["720p", "480p", "360p", "240p"].iter().filter_map(|rung| by_name(rung));
        return Some(rungs.flatten().collect());
    }
    let mut sizes = SIZES.iter().copied();
    if let Some((name, width, height, rate)) = sizes.find(|(known, ..)| known.eq_ignore_ascii_case(name)) {
        return Some(vec![Rendition {
            // A table's name is an id: the tests build every row.
            name: RenditionName::new(name).ok()?,
            codec: Codec::H264,
            width: Pixels(width),
            height: Pixels(height),
            fps: None,
            rate: Rate::Bitrate(BitsPerSecond(rate)),
            gop: Gop::Segment,
            profile: Profile::Auto,
            container: Container::Ts,
            audio: Audio::Copy,
            tiles: None,
        }]);
    }
    let preset = livepeer::PRESETS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))?;
    let profile = livepeer::preset(preset.0).ok()?;
    Some(vec![livepeer::rendition(0, &profile, Container::Ts).ok()?])
}

/// `name=720p,size=1280x720,bitrate=3M,fps=30,gop=2s`
fn inline(part: &str) -> Result<Rendition, SpecError> {
    let error = |text: String| SpecError::Inline { part: part.to_owned(), text };
    let (mut name, mut size, mut rate, mut fps) = (None, None, None, None);
    let (mut codec, mut gop, mut profile, mut container) = (Codec::H264, Gop::Segment, Profile::Auto, None);
    let mut audio = Audio::Copy;
    for pair in part.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| error(format!("{pair:?} has no value; write KEY=VALUE")))?;
        let value = value.trim();
        match key.trim() {
            "name" => name = Some(RenditionName::new(value).map_err(|e: BadId| error(e.to_string()))?),
            "size" => size = Some(parse_size(value).map_err(error)?),
            "bitrate" => {
                rate = Some(Rate::Bitrate(BitsPerSecond(human::parse_bitrate(value).map_err(error)?)));
            }
            "quality" => {
                let quality =
                    value.parse().map_err(|_| error(format!("quality {value:?} is not 1 to 51")))?;
                rate = Some(Rate::Quality(quality));
            }
            "fps" => fps = Some(value.parse().map_err(|e: BadFrameRate| error(e.to_string()))?),
            "gop" => gop = parse_gop(value).map_err(error)?,
            "codec" => codec = word(value, "codec", "h264, hevc, av1 or jpeg").map_err(error)?,
            "profile" => {
                profile =
                    word(value, "profile", "baseline, main, high or constrained-high").map_err(error)?;
            }
            "container" => container = Some(word(value, "container", "ts, mp4 or jpeg").map_err(error)?),
            "audio" => audio = word(value, "audio", "copy or none").map_err(error)?,
            other => {
                return Err(error(format!(
                    "{other:?} is not known; keys are name, size, bitrate, quality, fps, gop, codec, profile, \
                     container, audio"
                )));
            }
        }
    }
    let (width, height) = size.ok_or_else(|| error("size is missing; write size=1280x720".to_owned()))?;
    let rate = rate.ok_or_else(|| error("bitrate is missing; write bitrate=3M".to_owned()))?;
    let name = match name {
        Some(name) => name,
        None => RenditionName::new(format!("{height}p")).map_err(|e| error(e.to_string()))?,
    };
    Ok(Rendition {
        name,
        codec,
        width: Pixels(width),
        height: Pixels(height),
        fps,
        rate,
        gop,
        profile,
        container: container.unwrap_or_else(|| own_container(codec)),
        audio,
        tiles: None,
    })
}

fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let bad = || format!("{text:?} is not a size; write 1280x720");
    let (width, height) = text.split_once(['x', 'X']).ok_or_else(bad)?;
    Ok((width.parse().map_err(|_| bad())?, height.parse().map_err(|_| bad())?))
}

fn parse_gop(text: &str) -> Result<Gop, String> {
    match text {
        "intra" => Ok(Gop::Intra),
        "segment" | "" => Ok(Gop::Segment),
        span => Ok(Gop::Every(Millis(human::parse_span(span)?.as_millis() as u64))),
    }
}

/// A word of the protocol's, as its JSON spells it; `-` is as good as `_`.
fn word<T: serde::de::DeserializeOwned>(text: &str, what: &str, known: &str) -> Result<T, String> {
    serde_json::from_value(Value::String(text.to_ascii_lowercase().replace('-', "_")))
        .map_err(|_| format!("{what} {text:?} is not {known}"))
}

fn from_file(path: &Path, toml: bool) -> Result<Vec<Rendition>, SpecError> {
    let read = |source| SpecError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_FILE {
        return Err(SpecError::FileSize { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    from_text(path, &text, toml)
}

fn from_text(path: &Path, text: &str, toml: bool) -> Result<Vec<Rendition>, SpecError> {
    let parse = |format, text: String| SpecError::Parse { path: path.to_owned(), format, text };
    let value: Value = if toml {
        toml::from_str(text).map_err(|e| parse("TOML", e.to_string()))?
    } else {
        serde_json::from_str(text).map_err(|e| parse("JSON", e.to_string()))?
    };
    let list = match &value {
        Value::Array(list) => list,
        Value::Object(map) => ["renditions", "profiles", "ladder"]
            .iter()
            .find_map(|key| map.get(*key)?.as_array())
            .ok_or_else(|| SpecError::NoList { path: path.to_owned() })?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(SpecError::NoList { path: path.to_owned() });
        }
    };
    let items = list.iter().enumerate().map(|(index, item)| {
        from_item(item).map_err(|text| SpecError::Item { path: path.to_owned(), number: index + 1, text })
    });
    items.collect()
}

/// A rendition of ours has a `rate`; a Livepeer profile has a `bitrate` or a `quality` at its top.
fn from_item(item: &Value) -> Result<Rendition, String> {
    if item.get("rate").is_some() {
        return serde_json::from_value(item.clone()).map_err(|e| e.to_string());
    }
    let keys = item.as_object().map(|map| map.keys()).into_iter().flatten();
    if let Some(key) = keys.into_iter().find(|key| !livepeer::Profile::KEYS.contains(&key.as_str())) {
        return Err(format!("unknown field `{key}`, expected one of {}", livepeer::Profile::KEYS.join(", ")));
    }
    if let Some(key) = ["width", "height"].into_iter().find(|key| item.get(key).is_none()) {
        return Err(format!("missing field `{key}`"));
    }
    let profile: livepeer::Profile = serde_json::from_value(item.clone()).map_err(|e| e.to_string())?;
    livepeer::rendition(0, &profile, Container::Ts).map_err(|e| e.to_string())
}

/// Where nothing is said.
fn own_container(codec: Codec) -> Container {
    match codec {
        Codec::Jpeg => Container::Jpeg,
        Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Vp9 | Codec::Vp8 | Codec::Fwht => Container::Ts,
    }
}

/// Value of the header `Livepeer-Transcode-Configuration`.
pub(crate) fn push_header(ladder: &Ladder) -> String {
    let profiles: Vec<Value> = ladder.renditions().iter().map(profile_json).collect();
    json!({ "profiles": profiles }).to_string()
}

fn profile_json(rendition: &Rendition) -> Value {
    let Rendition { name, codec, width, height, fps, rate, gop, profile, container, audio, tiles } =
        rendition;
    let encoder = match codec {
        Codec::H264 => "H.264",
        Codec::Hevc => "HEVC",
        Codec::Av1 => "AV1",
        Codec::Vp8 => "VP8",
        Codec::Vp9 => "VP9",
        Codec::Jpeg => "JPEG",
        Codec::Fwht => "FWHT",
    };
    let profile = match profile {
        Profile::Auto => "",
        Profile::Baseline => "H264Baseline",
        Profile::Main => "H264Main",
        Profile::High => "H264High",
        Profile::ConstrainedHigh => "H264ConstrainedHigh",
    };
    let gop = match gop {
        Gop::Segment => String::new(),
        Gop::Intra => "intra".to_owned(),
        Gop::Every(span) => format!("{}", span.0 as f64 / 1e3),
    };
    let (bitrate, quality) = match rate {
        Rate::Bitrate(bitrate) => (bitrate.0, 0),
        Rate::Quality(quality) => (0, *quality),
    };
    // Livepeer's own gateway has none of `container`, `audio` and `tiles`, and ignores them.
    let mut profile = json!({
        "name": name, "width": width, "height": height, "bitrate": bitrate, "quality": quality,
        "fps": fps.map_or(0, FrameRate::num), "fpsDen": fps.map_or(0, FrameRate::den),
        "profile": profile, "gop": gop, "encoder": encoder, "container": container,
        "audio": audio,
    });
    if let Some(tiles) = tiles {
        profile["tiles"] = json!(tiles);
    }
    profile
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(spec: &str) -> Result<Ladder, SpecError> {
        parse(&[spec.to_owned()])
    }

    fn names(ladder: &Ladder) -> Vec<&str> {
        ladder.renditions().iter().map(|r| r.name.as_str()).collect()
    }

    #[test]
    fn every_name_in_the_tables_is_a_ladder() {
        for name in
            SIZES.iter().map(|row| row.0).chain(livepeer::PRESETS.iter().map(|row| row.0)).chain(["standard"])
        {
            let ladder = one(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(ladder.renditions().iter().all(|r| r.fps.is_some() == r.name.as_str().starts_with('P')));
        }
        assert_eq!(names(&one("standard").unwrap()), ["720p", "480p", "360p", "240p"]);
        assert_eq!(names(&one("480P, 240p").unwrap()), ["480p", "240p"]);
    }

    #[test]
    fn a_rendition_can_be_written_out() {
        let ladder =
            one("name=hd,size=1280x720,bitrate=3M,fps=30000/1001,gop=2s;size=320x180,bitrate=200k").unwrap();
        let first = &ladder.renditions()[0];
        assert_eq!((first.width, first.height), (Pixels(1280), Pixels(720)));
        assert_eq!(first.rate, Rate::Bitrate(BitsPerSecond(3_000_000)));
        assert_eq!(first.gop, Gop::Every(Millis(2000)));
        assert_eq!(names(&ladder), ["hd", "180p"]);
    }

    #[test]
    fn a_bad_ladder_is_refused_with_the_rule_it_breaks() {
        let text = |spec: &str| one(spec).unwrap_err().to_string();
        assert!(text("name=a,size=1281x720,bitrate=3M").contains("both must be even"));
        assert!(text("name=a,size=0x720,bitrate=3M").contains("width must be"));
        assert!(text("name=a,size=1280x720,bitrate=-1").contains("not a bitrate"));
        assert!(text("name=a,size=1280x720,bitrate=5").contains("1000 bit/s"));
        assert!(text("name=a,size=1280x720,bitrate=1M,codec=mpeg2").contains("h264, hevc, av1 or jpeg"));
        assert!(text("name=a,size=1280x720").contains("bitrate is missing"));
        assert!(text("name=../x,size=1280x720,bitrate=1M").contains("rendition name"));
        assert!(text("720p,720p").contains("two renditions are called 720p"));
        assert!(text("801p").contains("no ladder is called \"801p\""));
        assert!(text("").contains("no rendition"));
        assert!(text("colour=red,size=2x2").contains("keys are"));
        assert!(text("name=a,size=640x360,bitrate=1M,audio=aac").contains("is not copy or none"));
        assert!(text("/nowhere/x.json").contains("cannot read the ladder file /nowhere/x.json"));
    }

    #[test]
    fn files_hold_renditions_or_livepeer_profiles() {
        let path = Path::new("l.json");
        let json = r#"[{"name":"a","codec":"h264","width":640,"height":360,"rate":{"bitrate":800000},"container":"mp4"},
            {"name":"b","width":426,"height":240,"bitrate":250000,"fps":0,"gop":"1","profile":"H264ConstrainedHigh"}]"#;
        let renditions = from_text(path, json, false).unwrap();
        assert_eq!(renditions[0].container, Container::Mp4);
        assert_eq!(renditions[1].gop, Gop::Every(Millis(1000)));
        assert_eq!(renditions[1].profile, Profile::ConstrainedHigh);
        let toml = "[[renditions]]\nname = \"a\"\nwidth = 640\nheight = 360\nbitrate = 800000\n";
        assert_eq!(from_text(path, toml, true).unwrap()[0].name.as_str(), "a");
        let text = |json| from_text(path, json, false).unwrap_err().to_string();
        assert!(text("{}").contains("holds no list"));
        assert!(text("[{\"name\":\"a\"}]").contains("rendition 1 of l.json: missing field `width`"));
        assert!(text("nonsense").contains("is not JSON"));
        assert!(text(r#"[{"width":640,"height":360,"bitrat":1}]"#).contains("unknown field `bitrat`"));
    }

    #[test]
    fn the_push_header_says_what_the_ladder_says() {
        let ladder = one(
            "name=a,size=640x360,bitrate=800k,fps=30000/1001,gop=2.5s,profile=constrained-high,audio=none",
        )
        .unwrap();
        let header: Value = serde_json::from_str(&push_header(&ladder)).unwrap();
        let profile = &header["profiles"][0];
        assert_eq!((profile["fps"].as_u64(), profile["fpsDen"].as_u64()), (Some(30000), Some(1001)));
        assert_eq!((&profile["gop"], &profile["audio"]), (&json!("2.5"), &json!("none")));
        assert_eq!(profile["profile"], "H264ConstrainedHigh");
        assert!(push_header(&ladder).is_ascii());
    }
}
