//! What a caller gets: a status, a text, or the renditions as `multipart/mixed`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use headwater_protocol::{Container, Fault, RenditionName, TaskId};

use super::request::Wish;
use crate::app::{App, plain};
use crate::media::{self, MediaError};
use crate::schedule::{Outcome, Won};
use crate::secret;

/// The input is at fault: 422 with the sentence.
pub(super) fn input(fault: &Fault) -> Response<Body> {
    plain(StatusCode::UNPROCESSABLE_ENTITY, fault)
}

pub(super) async fn response(app: &Arc<App>, wish: &Wish, task: &TaskId, outcome: Outcome) -> Response<Body> {
    match outcome {
        Outcome::Done(won) if wish.multipart => match multipart(app, wish, task, &won).await {
            Ok(response) => response,
            Err(error) => wish.broken(&error),
        },
        Outcome::Done(_) | Outcome::Nothing => Response::new(Body::empty()),
        Outcome::Input(fault) => input(&fault),
        Outcome::Exhausted(fault) => {
            plain(StatusCode::UNPROCESSABLE_ENTITY, format_args!("hit max transcode attempts: {fault}"))
        }
        Outcome::NoSession => plain(StatusCode::SERVICE_UNAVAILABLE, "No sessions available"),
        Outcome::BadLadder(text) => plain(StatusCode::BAD_REQUEST, text),
        Outcome::Full(what) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, format_args!("{what}; push again later"))
        }
        Outcome::Internal(text) => wish.broken(&text),
        // Nobody reads it.
        Outcome::Gone => plain(StatusCode::SERVICE_UNAVAILABLE, "No sessions available"),
    }
}

/// Head of a part. The first one has no line end before its boundary.
fn part_head(
    boundary: &str,
    first: bool,
    name: &RenditionName,
    segment: u64,
    container: Container,
    bytes: u64,
) -> String {
    let lead = if first { "" } else { "\r\n" };
    let (extension, mime) = (container.extension(), container.content_type());
    format!(
        "{lead}--{boundary}\r\nContent-Disposition: attachment; filename=\"{name}_{segment}.{extension}\"\r\n\
         Content-Length: {bytes}\r\nContent-Type: {mime}; name=\"{name}_{segment}.{extension}\"\r\n\
         Rendition-Name: {name}\r\n\r\n"
    )
}

fn tail(boundary: &str) -> String {
    format!("\r\n--{boundary}--\r\n")
}

type Objects = Vec<(String, BoxStream<'static, Result<Bytes, MediaError>>)>;

async fn multipart(
    app: &Arc<App>,
    wish: &Wish,
    task: &TaskId,
    won: &Won,
) -> Result<Response<Body>, MediaError> {
    // Twenty hex digits. Without random numbers the task's id does as well: no media holds it.
    let mut boundary = secret::random_hex().unwrap_or_else(|_| task.as_str().replace('-', ""));
    boundary.truncate(20);
    // All are opened before the first byte goes out: once it has, nothing can go wrong with a status any more.
    let mut parts: Objects = Vec::new();
    for rendition in won.ladder.renditions() {
        let (name, container) = (&rendition.name, rendition.container);
        let key = media::rendition_key(task, won.epoch, name, container);
        let (bytes, content) = app.media.read(&key, None).await?;
        let head = part_head(&boundary, parts.is_empty(), name, wish.segment, container, bytes);
        parts.push((head, content));
    }
    let content_type = format!("multipart/mixed; boundary={boundary}");
    let end = tail(&boundary);
    let body = async_stream::stream! {
        for (head, mut content) in parts {
            yield Ok(Bytes::from(head));
            while let Some(chunk) = content.next().await {
                yield chunk;
            }
        }
        yield Ok(Bytes::from(end));
    };
    let mut response = Response::new(Body::from_stream(body));
    // Hex digits and constants make a header value.
    if let Ok(value) = HeaderValue::from_str(&content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_livepeers_to_the_byte() {
        let name = RenditionName::new("P240p30fps16x9").unwrap();
        let text = part_head("B", true, &name, 10, Container::Ts, 4) + "DATA" + &tail("B");
        assert_eq!(
            text,
            "--B\r\nContent-Disposition: attachment; filename=\"P240p30fps16x9_10.ts\"\r\nContent-Length: 4\r\n\
             Content-Type: video/mp2t; name=\"P240p30fps16x9_10.ts\"\r\nRendition-Name: P240p30fps16x9\r\n\r\n\
             DATA\r\n--B--\r\n"
        );
    }
}
