//! `POST|PUT /live/{manifest}/{seq}.ts|.mp4`: a segment in, its renditions out, as a Livepeer gateway does it.
//!
//! ```text
//! body ──▶ media store (and memory, where there is room) ──▶ owner ──▶ nodes ──▶ answer
//! ```
//!
//! Differences on purpose: a manifest that is not a stream id is refused (`Bad URL`), `live/` inside a
//! name stays, slices and external object stores are refused with a sentence rather than ignored.

mod answer;
mod request;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum::routing::any;
use bytes::Bytes;
use futures_util::StreamExt;
use headwater_protocol::{Code, Fault, Millis, TaskId};
use tokio::time::Instant;

use crate::app::{App, Shared, plain};
use crate::media::{self, MediaError};
use crate::owner::Janitor;
use crate::schedule::{Outcome, Submission};
use crate::store::Write;

pub fn router() -> Router<Shared> {
    Router::new().route("/live", any(push)).route("/live/", any(push)).route("/live/{*path}", any(push))
}

async fn push(State(app): State<Shared>, request: Request) -> Response<Body> {
    let wish = request::read(&request, &app.default_ladder);
    let expected = request
        .headers()
        .get(axum::http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let body = request.into_body();
    let wish = match wish {
        Ok(wish) => wish,
        Err(refusal) => {
            // Read to the end first, as Livepeer does: clients that still send would miss the answer.
            if let Err(error) = drain(&app, body, app.limits.max_segment_bytes()).await {
                return error.response();
            }
            return refusal.response();
        }
    };
    let task = match TaskId::new(uuid::Uuid::now_v7().to_string()) {
        Ok(task) => task,
        Err(error) => return wish.broken(&error),
    };
    let arrived = match receive(&app, body, &wish, &task, expected).await {
        Ok(arrived) => arrived,
        Err(error) => return error.response(),
    };
    let last_byte = Instant::now();
    if arrived.bytes == 0 {
        let fault = Fault::new(Code::EmptyInput, "the segment has no bytes; push the media as the body");
        return answer::input(&fault);
    }
    let submission = Submission {
        task: task.clone(),
        stream: wish.stream.clone(),
        segment: wish.segment,
        container: wish.container,
        bytes: arrived.bytes,
        sha256: arrived.sha256,
        duration: wish.duration,
        resolution: wish.resolution.clone(),
        wanted: wish.wanted.clone(),
    };
    let mut unclaimed = arrived.unclaimed;
    let outcome = match app.owner.submit(submission).await {
        Ok(outcome) => {
            // The owner's now: a caller that hangs up in the moment of a win must not take a winner's
            // media along, which playlists name already.
            unclaimed.claimed = true;
            outcome.await.unwrap_or(Outcome::NoSession)
        }
        Err(_) => Outcome::NoSession,
    };
    let worker = match &outcome {
        Outcome::Done(won) => Some(won.report.wall_us),
        _ => None,
    };
    let response = answer::response(&app, &wish, &task, outcome).await;
    let delay = last_byte.elapsed();
    if let Some(worker) = worker {
        app.metrics.answered(delay.as_secs_f64(), worker as f64 / 1e6);
        app.store.note(Write::Delay { task, delay: Millis(delay.as_millis() as u64) });
    }
    response
}

/// A segment that lies in the store.
struct Arrived {
    bytes: u64,
    sha256: String,
    unclaimed: Unclaimed,
}

/// Removes a segment that arrived while its caller went away.
struct Unclaimed {
    janitor: Janitor,
    task: TaskId,
    claimed: bool,
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if !self.claimed {
            self.janitor.discard(self.task.clone(), None);
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("Error reading http request body: input bigger than max buffer size")]
    TooLarge,
    #[error("Error reading http request body: no data for {0} s")]
    Idle(u64),
    #[error("Error reading http request body: {0}")]
    Broken(axum::Error),
    #[error("Error storing the segment: {0}")]
    Store(#[from] MediaError),
}

impl BodyError {
    fn response(&self) -> Response<Body> {
        let status = match self {
            BodyError::TooLarge | BodyError::Broken(_) | BodyError::Store(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            BodyError::Idle(_) => StatusCode::REQUEST_TIMEOUT,
        };
        plain(status, self)
    }
}

/// The whole body must have come within this, however steadily it drips.
const BODY: Duration = Duration::from_secs(3600);

async fn next(
    app: &App,
    body: &mut axum::body::BodyDataStream,
    until: Instant,
) -> Result<Option<Bytes>, BodyError> {
    match tokio::time::timeout_at(until.min(Instant::now() + app.body_idle()), body.next()).await {
        Ok(chunk) => chunk.transpose().map_err(BodyError::Broken),
        Err(_) => Err(BodyError::Idle(app.limits.body_idle_seconds)),
    }
}

/// Reads and forgets up to `most` bytes.
async fn drain(app: &App, body: Body, most: u64) -> Result<(), BodyError> {
    let mut body = body.into_data_stream();
    let (mut seen, until) = (0, Instant::now() + BODY);
    while let Some(chunk) = next(app, &mut body, until).await? {
        seen += chunk.len() as u64;
        if seen > most {
            return Err(BodyError::TooLarge);
        }
    }
    Ok(())
}

async fn receive(
    app: &Arc<App>,
    body: Body,
    wish: &request::Wish,
    task: &TaskId,
    expected: Option<u64>,
) -> Result<Arrived, BodyError> {
    let most = app.limits.max_segment_bytes();
    if expected.is_some_and(|bytes| bytes > most) {
        // The rest is read, so that the caller gets to see the answer, but within bounds.
        drain(app, body, most * 2).await?;
        return Err(BodyError::TooLarge);
    }
    let mut unclaimed = Unclaimed { janitor: app.janitor.clone(), task: task.clone(), claimed: false };
    let mut writer = app.media.write(media::input_key(task, wish.container));
    let mut body = body.into_data_stream();
    let mut memory = app.media.arriving();
    let until = Instant::now() + BODY;
    while let Some(chunk) = next(app, &mut body, until).await? {
        let bytes = writer.bytes() + chunk.len() as u64;
        if bytes > most {
            drop(writer);
            // Errors of the rest do not matter any more.
            let _ = drain(app, Body::from_stream(body), most).await;
            return Err(BodyError::TooLarge);
        }
        memory.add(&chunk);
        writer.put(chunk).await?;
    }
    if writer.bytes() == 0 {
        unclaimed.claimed = true;
        return Ok(Arrived { bytes: 0, sha256: String::new(), unclaimed });
    }
    memory.keep(task);
    let (bytes, sha256) = writer.finish().await?;
    Ok(Arrived { bytes, sha256, unclaimed })
}
