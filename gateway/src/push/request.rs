//! What a push asks for, from its method, path and headers.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Response, StatusCode};
use headwater_protocol::livepeer::{self, Profile};
use headwater_protocol::{Container, Ladder, Millis, StreamId};
use serde::Deserialize;
use serde_json::Value;

use crate::app::plain;

/// A push that makes sense so far.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) stream: StreamId,
    pub(super) segment: u64,
    pub(super) container: Container,
    pub(super) duration: Millis,
    pub(super) resolution: Option<String>,
    /// The answer carries the renditions.
    pub(super) multipart: bool,
    pub(super) wanted: Result<Option<Ladder>, String>,
    pub(super) url: String,
}

impl Wish {
    /// Something of ours went wrong.
    pub(super) fn broken(&self, error: &dyn std::fmt::Display) -> Response<Body> {
        let text = format!(
            "http push error processing segment url={} manifestID={} err={:?}",
            self.url,
            self.stream,
            error.to_string()
        );
        plain(StatusCode::INTERNAL_SERVER_ERROR, text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("http push request wrong method={method} url={url} host={host}")]
    Method { method: Method, url: String, host: String },
    #[error("ignoring file extension: {0}")]
    Extension(String),
    #[error("Bad URL url={0}")]
    Url(String),
    #[error("Invalid slice config from={from} to={to}")]
    Slice { from: i64, to: i64 },
    #[error(
        "slicing is not supported; send the whole segment without Content-Slice-From and Content-Slice-To"
    )]
    Slicing,
}

impl Refusal {
    pub(super) fn response(&self) -> Response<Body> {
        let status = match self {
            Refusal::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Extension(_) | Refusal::Url(_) | Refusal::Slice { .. } | Refusal::Slicing => {
                StatusCode::BAD_REQUEST
            }
        };
        plain(status, self)
    }
}

/// `Livepeer-Transcode-Configuration`; what else it may hold belongs to Livepeer's own network.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Configuration {
    presets: Vec<String>,
    profiles: Option<Vec<Profile>>,
    object_store: String,
}

pub(super) fn read(request: &Request, default_ladder: &[Profile]) -> Result<Wish, Refusal> {
    let headers = request.headers();
    let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = request.uri().path();
    let url = format!("http://{host}{path}");
    if request.method() != Method::POST && request.method() != Method::PUT {
        return Err(Refusal::Method { method: request.method().clone(), url, host: host.to_owned() });
    }
    let file = path.rsplit('/').next().unwrap_or_default();
    let (name, extension) = match file.rfind('.') {
        Some(dot) => file.split_at(dot),
        None => (file, ""),
    };
    let container = match extension {
        ".ts" => Container::Ts,
        ".mp4" => Container::Mp4,
        other => return Err(Refusal::Extension(other.to_owned())),
    };
    let below = path.strip_prefix("/live").unwrap_or(path).trim_start_matches('/');
    let manifest = match below.split_once('/') {
        Some((manifest, _)) => manifest,
        None => name,
    };
    let stream = StreamId::new(manifest).map_err(|_| Refusal::Url(url.clone()))?;
    slice(headers)?;
    Ok(Wish {
        stream,
        // SQLite's numbers are signed.
        segment: name.parse().ok().filter(|number| *number <= i64::MAX.cast_unsigned()).unwrap_or(0),
        container,
        duration: Millis(duration(headers)),
        resolution: text(headers, "content-resolution").and_then(resolution),
        multipart: text(headers, "accept") == Some("multipart/mixed"),
        wanted: ladder(headers, container, default_ladder),
        url,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn duration(headers: &HeaderMap) -> u64 {
    // Five minutes are the most a segment may have; more is a mistake of the caller's.
    let said = text(headers, "content-duration").and_then(|text| text.parse::<u64>().ok());
    said.filter(|ms| (1..=300_000).contains(ms)).unwrap_or(2000)
}

fn resolution(text: &str) -> Option<String> {
    let (width, height) = text.split_once('x')?;
    let (width, height): (u32, u32) = (width.parse().ok()?, height.parse().ok()?);
    (width > 0 && height > 0).then(|| format!("{width}x{height}"))
}

fn slice(headers: &HeaderMap) -> Result<(), Refusal> {
    let number = |name| text(headers, name).and_then(|text| text.parse::<i64>().ok());
    let (from, to) = (number("content-slice-from"), number("content-slice-to"));
    match (from, to) {
        (None | Some(0), None | Some(0)) => Ok(()),
        (from, Some(to)) if from.unwrap_or(0) > to => Err(Refusal::Slice { from: from.unwrap_or(0), to }),
        (Some(_) | None, Some(_) | None) => Err(Refusal::Slicing),
    }
}

/// Go writes an empty list as `null`, and reads `null` as if the key were not there.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// None where the caller wants no renditions at all.
fn ladder(
    headers: &HeaderMap,
    container: Container,
    default_ladder: &[Profile],
) -> Result<Option<Ladder>, String> {
    let failed = |text: String| format!("failed to parse transcode config header: {text:?}");
    let made = |profiles: &[Profile]| {
        livepeer::ladder(profiles, container).map(Some).map_err(|error| failed(error.to_string()))
    };
    let Some(header) = headers.get("livepeer-transcode-configuration") else { return made(default_ladder) };
    let config = serde_json::from_slice(header.as_bytes())
        .and_then(|value| serde_json::from_value::<Configuration>(without_nulls(value)))
        .map_err(|error| failed(error.to_string()))?;
    if !config.object_store.is_empty() {
        return Err(failed("objectStore is not supported; renditions come in the answer".to_owned()));
    }
    let mut profiles = Vec::new();
    for name in &config.presets {
        profiles.push(livepeer::preset(name).map_err(|error| failed(error.to_string()))?);
    }
    match config.profiles {
        None if profiles.is_empty() => made(default_ladder),
        Some(own) if profiles.is_empty() && own.is_empty() => Ok(None),
        own => {
            profiles.extend(own.unwrap_or_default());
            made(&profiles)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Wish, Refusal> {
        let mut request = Request::builder().method(method).uri(path).header("host", "gw:9935");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let default = [livepeer::preset("P240p30fps4x3").unwrap()];
        read(&request.body(Body::empty()).unwrap(), &default)
    }

    fn error(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        push(method, path, headers).unwrap_err().to_string()
    }

    #[test]
    fn a_path_gives_stream_number_and_container() {
        let wish = push("POST", "/live/movie/17.ts", &[]).unwrap();
        assert_eq!((wish.stream.as_str(), wish.segment, wish.container), ("movie", 17, Container::Ts));
        let wish = push("PUT", "/live/olive/part/x.mp4", &[]).unwrap();
        assert_eq!((wish.stream.as_str(), wish.segment, wish.container), ("olive", 0, Container::Mp4));
        assert_eq!(push("PUT", "/live/movie.ts", &[]).unwrap().stream.as_str(), "movie");
    }

    #[test]
    fn a_bad_request_has_livepeers_text() {
        assert_eq!(
            error("GET", "/live/m/0.ts", &[]),
            "http push request wrong method=GET url=http://gw:9935/live/m/0.ts host=gw:9935"
        );
        assert_eq!(error("POST", "/live/m/index.m3u8", &[]), "ignoring file extension: .m3u8");
        assert_eq!(error("POST", "/live/m/0", &[]), "ignoring file extension: ");
        assert_eq!(error("POST", "/live/.ts", &[]), "Bad URL url=http://gw:9935/live/.ts");
        assert_eq!(
            error("POST", "/live/../../etc/0.ts", &[]),
            "Bad URL url=http://gw:9935/live/../../etc/0.ts"
        );
        assert_eq!(
            error("POST", "/live/m/0.ts", &[("Content-Slice-From", "500"), ("Content-Slice-To", "100")]),
            "Invalid slice config from=500 to=100"
        );
    }

    #[test]
    fn headers_that_make_no_sense_have_livepeers_defaults() {
        let wish =
            push("POST", "/live/m/0.ts", &[("Content-Duration", "x"), ("Accept", "multipart/*")]).unwrap();
        assert_eq!(wish.duration, Millis(2000));
        assert!(!wish.multipart, "Accept is compared as a whole");
        assert!(push("POST", "/live/m/0.ts", &[("Accept", "multipart/mixed")]).unwrap().multipart);
    }

    #[test]
    fn the_configuration_header_says_what_is_wanted() {
        let wanted = |json: &str| {
            push("POST", "/live/m/0.ts", &[("Livepeer-Transcode-Configuration", json)]).unwrap().wanted
        };
        assert_eq!(wanted("{}").unwrap().unwrap().renditions()[0].name.as_str(), "P240p30fps4x3");
        assert_eq!(wanted(r#"{"profiles":[]}"#), Ok(None));
        let preset = wanted(r#"{"presets":["P360p30fps16x9"]}"#).unwrap().unwrap();
        assert_eq!(preset.renditions()[0].name.as_str(), "P360p30fps16x9");
        let go = r#"{"presets":null,"objectStore":null,"profiles":[{"name":"a","width":640,"height":360,"bitrate":800000,"gop":null}]}"#;
        assert_eq!(wanted(go).unwrap().unwrap().renditions()[0].name.as_str(), "a");
        assert_eq!(wanted(r#"{"profiles":null}"#), wanted("{}"), "only an empty list means nothing");
        let bad = wanted("{").unwrap_err();
        assert!(bad.starts_with("failed to parse transcode config header: \""), "{bad}");
        assert!(wanted(r#"{"presets":["P1"]}"#).unwrap_err().contains("unknown preset"));
    }
}
