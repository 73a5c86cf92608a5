//! A node's log, from the node to who asked for it; nothing of it stays here.
//!
//! ```text
//! operator ─POST─▶ waits ──command: put to /v1/logs/{id}──▶ node
//!          ◀────── the same bytes ◀────────────────PUT───── node
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::put;
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::StreamExt;
use headwater_protocol::NodeId;
use headwater_protocol::message::{CommandKind, Logs};
use tokio::sync::mpsc;

use super::views::LogsRequest;
use super::{error, known};
use crate::api::operator;
use crate::app::{Shared, plain};
use crate::nodes::enrolled;
use crate::secret;
use crate::serve::Peer;

/// As much as anybody reads; a node bounds it again.
const MOST: u64 = 16 << 20;
/// From the command until the first byte: a slow board reads its journal.
const PATIENCE: Duration = Duration::from_secs(60);
/// Logs that are waited for at once.
const AT_ONCE: usize = 16;

type Piece = Result<Bytes, std::io::Error>;

#[derive(Debug)]
struct Wanted {
    node: NodeId,
    most: u64,
    /// A full queue makes the node wait for the reader.
    to: mpsc::Sender<Piece>,
}

/// Logs that are waited for, by the random id in their path.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<HashMap<String, Wanted>>>);

impl Waiting {
    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<String, Wanted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the id when nobody waits any more.
struct Wait {
    waiting: Waiting,
    id: String,
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waiting.table().remove(&self.id);
    }
}

pub(super) async fn fetch(
    State(app): State<Shared>,
    Path(node): Path<String>,
    request: Request,
) -> Response<Body> {
    let LogsRequest { max_bytes } = match operator(&app, request).await {
        Ok(request) => request,
        Err(response) => return *response,
    };
    if !(1..=MOST).contains(&max_bytes) {
        return error(StatusCode::BAD_REQUEST, "max_bytes must be 1 to 16777216");
    }
    let node = match known(&app, &node).await {
        Ok(node) => node,
        Err(response) => return *response,
    };
    let id = match secret::random_hex() {
        Ok(id) => id,
        Err(failed) => return error(StatusCode::INTERNAL_SERVER_ERROR, failed),
    };
    let (to, mut pieces) = mpsc::channel(4);
    {
        let mut table = app.logs.table();
        if table.len() >= AT_ONCE {
            return error(StatusCode::SERVICE_UNAVAILABLE, "too many logs are waited for; try again later");
        }
        table.insert(id.clone(), Wanted { node: node.clone(), most: max_bytes, to });
    }
    let wait = Wait { waiting: app.logs.clone(), id: id.clone() };
    let logs = Logs { path: format!("/v1/logs/{id}"), max_bytes };
    let answer = app.owner.command(node.clone(), CommandKind::Logs(logs), PATIENCE);
    tokio::pin!(answer);
    let first = tokio::select! {
        // What was put counts before the word that it is there.
        biased;
        first = pieces.recv() => first,
        answer = &mut answer => match answer {
            Ok(Err(fault)) => return error(StatusCode::CONFLICT, fault),
            Err(_) => return error(StatusCode::GATEWAY_TIMEOUT, format_args!("{node} did not answer")),
            Ok(Ok(())) => match tokio::time::timeout(app.body_idle(), pieces.recv()).await {
                Ok(first) => first,
                Err(_) => return error(StatusCode::GATEWAY_TIMEOUT, format_args!("{node} put no log")),
            },
        },
        () = tokio::time::sleep(PATIENCE) => {
            return error(StatusCode::GATEWAY_TIMEOUT, format_args!("{node} did not answer"));
        }
    };
    let body = async_stream::stream! {
        let _wait = wait;
        let mut next = first;
        while let Some(piece) = next {
            yield piece;
            next = pieces.recv().await;
        }
    };
    let mut response = Response::new(Body::from_stream(body));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

pub fn router() -> Router<Shared> {
    Router::new().route("/v1/logs/{id}", put(take))
}

/// From the node that was asked, once.
async fn take(
    State(app): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    request: Request,
) -> Response<Body> {
    let node = match enrolled(&app, peer) {
        Ok(node) => node,
        Err(response) => return *response,
    };
    let wanted = {
        let mut table = app.logs.table();
        match table.get(&id) {
            None => return plain(StatusCode::NOT_FOUND, "nobody waits for this log"),
            Some(wanted) if wanted.node != node => {
                return plain(StatusCode::FORBIDDEN, "another node was asked for this log");
            }
            Some(_) => table.remove(&id),
        }
    };
    let Some(Wanted { most, to, .. }) = wanted else {
        return plain(StatusCode::NOT_FOUND, "nobody waits for this log");
    };
    let broken = async |text: &'static str, status| {
        // The reader must not take a part for the whole; where it is gone nobody is misled.
        let _ = to.send(Err(std::io::Error::other(text))).await;
        plain(status, text)
    };
    let (mut body, mut bytes) = (request.into_body().into_data_stream(), 0u64);
    loop {
        let chunk = match tokio::time::timeout(app.body_idle(), body.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) => break,
            Ok(Some(Err(_))) => return broken("the log is cut off", StatusCode::BAD_REQUEST).await,
            Err(_) => return broken("no data for too long", StatusCode::REQUEST_TIMEOUT).await,
        };
        bytes += chunk.len() as u64;
        if bytes > most {
            return broken("more than was asked for", StatusCode::PAYLOAD_TOO_LARGE).await;
        }
        match tokio::time::timeout(app.body_idle(), to.send(Ok(chunk))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return plain(StatusCode::GONE, "nobody reads this log any more"),
        }
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    response
}
