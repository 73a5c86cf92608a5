//! HLS of what was pushed: `/stream/{stream}.m3u8`, `/stream/{stream}/{rendition}.m3u8` and its segments.
//!
//! The live list shows the last six segments; `?window=all`, or a stream that has ended, gives all that
//! are kept. JPEG renditions are in no list: `/stream/{stream}/{rendition}.jpg` is the newest picture. `source` is the stream as pushed. Each MP4 segment is a whole file with its own header and
//! is served as that; players that want one header per list (`EXT-X-MAP`) play the TS renditions.

use std::fmt::Write as _;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::routing::get;
use headwater_protocol::{Container, Ladder, Millis, Rate, RenditionName, StreamId};

use crate::app::{Shared, plain};
use crate::media;
use crate::store::{Playlist, PlaylistEntry, StreamRow, Window};

/// Segments of a live list.
const WINDOW: u32 = 6;
/// The stream itself among its renditions.
const SOURCE: &str = "source";

pub fn router() -> Router<Shared> {
    Router::new()
        .route("/stream/{master}", get(master))
        .route("/stream/{stream}/{list}", get(list))
        .route("/stream/{stream}/{rendition}/{segment}", get(segment))
}

fn not_found() -> Response<Body> {
    let mut response = plain(StatusCode::NOT_FOUND, "ErrNotFound");
    cors(response.headers_mut());
    response
}

fn cors(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Content-Length"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
}

fn playlist(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    cors(response.headers_mut());
    let value = HeaderValue::from_static("application/x-mpegURL");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

async fn load(app: &Shared, stream: &str, window: Window) -> Option<(StreamId, Playlist)> {
    let stream = StreamId::new(stream).ok()?;
    match app.store.playlist(&stream, window).await {
        Ok(found) => found.map(|found| (stream, found)),
        Err(error) => {
            tracing::error!(%stream, %error, "playlist not read");
            None
        }
    }
}

fn wants_all(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| pair == "window=all"))
}

async fn master(
    State(app): State<Shared>,
    Path(file): Path<String>,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    let Some(name) = file.strip_suffix(".m3u8") else { return not_found() };
    let Some((stream, found)) = load(&app, name, Window::Newest).await else { return not_found() };
    playlist(master_text(&stream, &found.row, found.entries.last(), wants_all(query.as_deref())))
}

async fn list(
    State(app): State<Shared>,
    Path((stream, file)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    if let Some(name) = file.strip_suffix(".jpg") {
        return picture(&app, &stream, name, &headers).await;
    }
    let Some(name) = file.strip_suffix(".m3u8") else { return not_found() };
    let window = if wants_all(query.as_deref()) { Window::All } else { Window::Live(WINDOW) };
    let Some((stream, found)) = load(&app, &stream, window).await else { return not_found() };
    let Some(container) = output(found.row.ladder.as_ref(), name) else { return not_found() };
    if container == Some(Container::Jpeg) {
        return not_found();
    }
    playlist(list_text(&stream, &found, name, container))
}

/// The newest picture of a JPEG rendition.
async fn picture(app: &Shared, stream: &str, name: &str, headers: &HeaderMap) -> Response<Body> {
    let newest = async {
        let (_, found) = load(app, stream, Window::Newest).await?;
        let entry = found.entries.last()?;
        let container = output(found.row.ladder.as_ref(), name)?.filter(|c| *c == Container::Jpeg)?;
        let name = RenditionName::new(name).ok()?;
        Some((media::rendition_key(&entry.task, entry.epoch?, &name, container), container))
    };
    match newest.await {
        Some((key, container)) => object(app, &key, container, headers).await,
        None => not_found(),
    }
}

/// Container of a rendition; the source has each segment's own.
fn output(ladder: Option<&Ladder>, name: &str) -> Option<Option<Container>> {
    if name == SOURCE {
        return Some(None);
    }
    let rendition = ladder?.renditions().iter().find(|rendition| rendition.name.as_str() == name)?;
    Some(Some(rendition.container))
}

fn master_text(stream: &StreamId, row: &StreamRow, last: Option<&PlaylistEntry>, all: bool) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:3\n");
    let query = if all { "?window=all" } else { "" };
    let report = last.and_then(|entry| entry.report.as_ref());
    let seen = report.and_then(|report| report.input.video.as_ref());
    let resolution = row
        .resolution
        .clone()
        .or_else(|| seen.map(|video| format!("{}x{}", video.width.0, video.height.0)))
        .map(|size| format!(",RESOLUTION={size}"))
        .unwrap_or_default();
    let head = "#EXT-X-STREAM-INF:PROGRAM-ID=0,BANDWIDTH=";
    // Writing to a string does not fail.
    let _ = writeln!(text, "{head}4000000{resolution}\n{stream}/{SOURCE}.m3u8{query}");
    for (index, rendition) in row.ladder.iter().flat_map(|ladder| ladder.renditions()).enumerate() {
        if rendition.container == Container::Jpeg {
            continue;
        }
        // One that is the segment itself has no size, and says nothing of the others.
        let made = report.and_then(|report| report.renditions.get(index)).filter(|made| !made.copied);
        let (width, height) =
            made.map_or((rendition.width.0, rendition.height.0), |made| (made.width.0, made.height.0));
        let bandwidth = match rendition.rate {
            Rate::Bitrate(bitrate) => u64::from(bitrate.0),
            // What the last segment took says more than a constant.
            Rate::Quality(_) => made.map_or(4_000_000, |made| made.bytes * 8000 / made.duration.0.max(1)),
        };
        let name = &rendition.name;
        let _ = writeln!(text, "{head}{bandwidth},RESOLUTION={width}x{height}\n{stream}/{name}.m3u8{query}");
    }
    text
}

fn span(entry: &PlaylistEntry) -> Millis {
    let seen = entry.report.as_ref().map(|report| report.input.duration).filter(|seen| seen.0 > 0);
    seen.unwrap_or(entry.duration)
}

fn list_text(stream: &StreamId, found: &Playlist, name: &str, container: Option<Container>) -> String {
    let Playlist { row, first, breaks, entries } = found;
    let target = entries.iter().map(|entry| span(entry).0.div_ceil(1000)).max().unwrap_or(0);
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:3\n");
    // Writing to a string does not fail.
    let _ = writeln!(text, "#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-TARGETDURATION:{target}");
    if *breaks > 0 {
        let _ = writeln!(text, "#EXT-X-DISCONTINUITY-SEQUENCE:{breaks}");
    }
    let mut before = None;
    for entry in entries {
        // Where segments are missing, times jump.
        if before.is_some_and(|before| entry.segment != before + 1) {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        before = Some(entry.segment);
        let extension = container.unwrap_or(entry.container).extension();
        let ms = span(entry).0;
        let _ = writeln!(
            text,
            "#EXTINF:{}.{:03},\n/stream/{stream}/{name}/{}.{extension}",
            ms / 1000,
            ms % 1000,
            entry.segment
        );
    }
    if !row.live {
        text.push_str("#EXT-X-ENDLIST\n");
    }
    text
}

async fn segment(
    State(app): State<Shared>,
    Path((stream, name, file)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    let found = find(&app, &stream, &name, &file).await;
    match found {
        Some((key, container)) => object(&app, &key, container, &headers).await,
        None => not_found(),
    }
}

/// The object, or the part of it that is asked for.
async fn object(
    app: &Shared,
    key: &object_store::path::Path,
    container: Container,
    headers: &HeaderMap,
) -> Response<Body> {
    let wanted = headers.get(header::RANGE).and_then(|value| value.to_str().ok()).and_then(range);
    // A size is needed to answer a range, and a whole read tells it without reading.
    let (size, content) = match app.media.read(key, None).await {
        Ok(found) => found,
        Err(error) if error.is_missing() => return not_found(),
        Err(error) => {
            tracing::error!(%error, %key, "media not read");
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the segment cannot be read");
        }
    };
    let (content, status, bytes) = match wanted.and_then(|(first, last)| clip(first, last, size)) {
        None => (content, StatusCode::OK, 0..size),
        Some(part) => match app.media.read(key, Some(part.clone())).await {
            Ok((_, content)) => (content, StatusCode::PARTIAL_CONTENT, part),
            Err(_) => return not_found(),
        },
    };
    let mut response = Response::new(Body::from_stream(content));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    cors(headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(container.content_type()));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.end - bytes.start));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1))
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    response
}

async fn find(
    app: &Shared,
    stream: &str,
    name: &str,
    file: &str,
) -> Option<(object_store::path::Path, Container)> {
    let (number, extension) = file.split_once('.')?;
    let number: u64 = number.parse().ok()?;
    // SQLite's numbers are signed.
    i64::try_from(number).ok()?;
    let (_, found) = load(app, stream, Window::Segment(number)).await?;
    let entry = found.entries.into_iter().next()?;
    let output = output(found.row.ladder.as_ref(), name)?;
    let container = output.unwrap_or(entry.container);
    if extension != container.extension() {
        return None;
    }
    let key = match output {
        None => media::input_key(&entry.task, container),
        Some(_) => {
            let name = RenditionName::new(name).ok()?;
            media::rendition_key(&entry.task, entry.epoch?, &name, container)
        }
    };
    Some((key, container))
}

/// One range of bytes, as players ask for it; anything else gets the whole.
fn range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| match text {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    };
    Some((number(first)?, number(last)?))
}

fn clip(first: Option<u64>, last: Option<u64>, size: u64) -> Option<std::ops::Range<u64>> {
    let part = match (first, last) {
        (Some(first), Some(last)) => first..last.saturating_add(1).min(size),
        (Some(first), None) => first..size,
        (None, Some(tail)) => size.saturating_sub(tail)..size,
        (None, None) => return None,
    };
    (part.start < part.end).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_protocol::{InputFacts, Pixels, RenditionReport, SegmentReport, TaskId};

    fn entry(segment: u64) -> PlaylistEntry {
        PlaylistEntry {
            segment,
            task: TaskId::new("t").unwrap(),
            epoch: None,
            container: Container::Ts,
            duration: Millis(2000),
            report: None,
        }
    }

    fn row(live: bool) -> StreamRow {
        let profile = headwater_protocol::livepeer::preset("P240p30fps16x9").unwrap();
        let ladder = headwater_protocol::livepeer::ladder(&[profile], Container::Ts).unwrap();
        StreamRow { live, ladder: Some(ladder), resolution: Some("1920x1080".into()) }
    }

    #[test]
    fn lists_are_livepeers_to_the_byte() {
        let stream = StreamId::new("movie").unwrap();
        assert_eq!(
            master_text(&stream, &row(true), None, false),
            "#EXTM3U\n#EXT-X-VERSION:3\n\
             #EXT-X-STREAM-INF:PROGRAM-ID=0,BANDWIDTH=4000000,RESOLUTION=1920x1080\nmovie/source.m3u8\n\
             #EXT-X-STREAM-INF:PROGRAM-ID=0,BANDWIDTH=600000,RESOLUTION=426x240\nmovie/P240p30fps16x9.m3u8\n"
        );
        let found = Playlist { row: row(true), first: 2, breaks: 0, entries: vec![entry(12)] };
        assert_eq!(
            list_text(&stream, &found, "P240p30fps16x9", Some(Container::Ts)),
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-MEDIA-SEQUENCE:2\n#EXT-X-TARGETDURATION:2\n\
             #EXTINF:2.000,\n/stream/movie/P240p30fps16x9/12.ts\n"
        );
    }

    #[test]
    fn a_newest_segment_without_a_picture_changes_no_size() {
        let stream = StreamId::new("movie").unwrap();
        let made = RenditionReport {
            name: RenditionName::new("P240p30fps16x9").unwrap(),
            container: Container::Ts,
            bytes: 9,
            width: Pixels(0),
            height: Pixels(0),
            frames: 0,
            keyframes: 0,
            pixels: 0,
            first_pts: 0,
            duration: Millis(0),
            copied: true,
        };
        let input = InputFacts {
            container: Container::Ts,
            bytes: 9,
            video: None,
            audio_streams: 1,
            duration: Millis(0),
            errors: 0,
        };
        let report = SegmentReport { input, renditions: vec![made], wall_us: 1, cpu_us: 1, warm: true };
        let last = PlaylistEntry { report: Some(report), ..entry(3) };
        assert_eq!(
            master_text(&stream, &row(true), Some(&last), false),
            master_text(&stream, &row(true), None, false)
        );
    }

    #[test]
    fn pictures_are_in_no_master_list() {
        let thumb = r#"{"name":"thumb","width":320,"height":180,"quality":10,"encoder":"JPEG"}"#;
        let profiles = [
            headwater_protocol::livepeer::preset("P240p30fps16x9").unwrap(),
            serde_json::from_str(thumb).unwrap(),
        ];
        let ladder = headwater_protocol::livepeer::ladder(&profiles, Container::Ts).unwrap();
        let row = StreamRow { ladder: Some(ladder), ..row(true) };
        let text = master_text(&StreamId::new("movie").unwrap(), &row, None, false);
        assert!(text.contains("P240p30fps16x9.m3u8") && !text.contains("thumb"), "{text}");
    }

    #[test]
    fn a_list_counts_what_came_before_and_says_when_it_has_ended() {
        let stream = StreamId::new("movie").unwrap();
        let list = |live, first| {
            let entries = (first..10).map(entry).collect();
            list_text(&stream, &Playlist { row: row(live), first, breaks: 0, entries }, SOURCE, None)
        };
        let live = list(true, 4);
        assert!(live.contains("#EXT-X-MEDIA-SEQUENCE:4\n") && !live.contains("ENDLIST"));
        let ended = list(false, 0);
        assert!(ended.contains("#EXT-X-MEDIA-SEQUENCE:0\n"));
        assert!(ended.ends_with("/stream/movie/source/9.ts\n#EXT-X-ENDLIST\n"));
    }

    #[test]
    fn a_list_says_where_it_does_not_follow_on() {
        let found = Playlist { row: row(true), first: 9, breaks: 3, entries: [4, 5, 7, 8].map(entry).into() };
        let stream = StreamId::new("movie").unwrap();
        let text = list_text(&stream, &found, SOURCE, None);
        assert!(text.contains("#EXT-X-TARGETDURATION:2\n#EXT-X-DISCONTINUITY-SEQUENCE:3\n#EXTINF"), "{text}");
        assert!(
            text.contains("source/5.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:2.000,\n/stream/movie/source/7.ts\n")
        );
        assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1);
    }

    #[test]
    fn a_range_is_cut_to_the_object() {
        assert_eq!(range("bytes=0-3").and_then(|(a, b)| clip(a, b, 10)), Some(0..4));
        assert_eq!(range("bytes=-3").and_then(|(a, b)| clip(a, b, 10)), Some(7..10));
        assert_eq!(range("bytes=8-99").and_then(|(a, b)| clip(a, b, 10)), Some(8..10));
        assert_eq!(range("bytes=10-").and_then(|(a, b)| clip(a, b, 10)), None);
        assert_eq!(range("frames=1-2"), None);
    }
}
