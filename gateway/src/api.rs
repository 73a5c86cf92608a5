//! `/api/v1` for programs, `/healthz` and `/metrics` for those who watch.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use headwater_protocol::{NodeId, StreamId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::app::{App, Shared, bears, plain};
use crate::enroll::{self, TokenError};
use crate::selector::{Facts, Selector};
use crate::views::{CommandRequest, EnrollRequest, ErrorView};

/// A request of the operator's is a name or two.
const MAX_REQUEST: usize = 64 * 1024;
/// Shortest time between two events of one kind: at most four a second.
const COALESCE: Duration = Duration::from_millis(250);
/// Longest time between two bytes of an event stream.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Updates that those who watch are shown, the newest ones.
const UPDATES: usize = 10;

pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/nodes/{node}/command", post(command))
        .route("/api/v1/streams", get(streams))
        .route("/api/v1/streams/{stream}", get(stream))
        .route("/api/v1/streams/{stream}/{segment}/evidence", get(evidence))
        .route("/api/v1/events", get(events))
        .route("/api/v1/enroll", post(issue))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
}

fn error(status: StatusCode, text: impl std::fmt::Display) -> Response<Body> {
    (status, Json(ErrorView { error: text.to_string() })).into_response()
}

/// Some nodes only, where a selector is told.
#[derive(Debug, Deserialize)]
struct Which {
    select: Option<String>,
}

async fn nodes(State(app): State<Shared>, Query(Which { select }): Query<Which>) -> Response<Body> {
    let mut nodes = match app.owner.nodes().await {
        Ok(nodes) => nodes,
        Err(stopped) => return error(StatusCode::SERVICE_UNAVAILABLE, stopped),
    };
    if let Some(select) = select {
        let selector: Selector = match select.parse() {
            Ok(selector) => selector,
            Err(wrong) => return error(StatusCode::BAD_REQUEST, wrong),
        };
        nodes.retain(|view| {
            selector.matches(Facts { node: &view.node, state: view.state, birth: view.birth.as_ref() })
        });
    }
    Json(nodes).into_response()
}

async fn streams(State(app): State<Shared>) -> Response<Body> {
    match app.store.streams().await {
        Ok(streams) => Json(streams).into_response(),
        Err(failed) => error(StatusCode::INTERNAL_SERVER_ERROR, failed),
    }
}

async fn stream(State(app): State<Shared>, Path(name): Path<String>) -> Response<Body> {
    let missing = || error(StatusCode::NOT_FOUND, format_args!("no stream is called {name:?}"));
    let Ok(id) = StreamId::new(name.clone()) else { return missing() };
    match app.store.stream(&id).await {
        Ok(Some(stream)) => Json(stream).into_response(),
        Ok(None) => missing(),
        Err(failed) => error(StatusCode::INTERNAL_SERVER_ERROR, failed),
    }
}

async fn evidence(State(app): State<Shared>, Path((name, segment)): Path<(String, u64)>) -> Response<Body> {
    let Ok(id) = StreamId::new(name.clone()) else {
        return error(StatusCode::NOT_FOUND, format_args!("no stream is called {name:?}"));
    };
    match app.store.evidence(&id, segment).await {
        Ok(evidence) => Json(evidence).into_response(),
        Err(failed) => error(StatusCode::INTERNAL_SERVER_ERROR, failed),
    }
}

/// The body of a request that only the operator may make.
pub(crate) async fn operator<T: DeserializeOwned>(
    app: &App,
    request: Request,
) -> Result<T, Box<Response<Body>>> {
    if !bears(request.headers(), &app.operator_token) {
        let text = "this needs the operator's token (state_dir/operator.token) as `Authorization: Bearer`";
        return Err(Box::new(error(StatusCode::UNAUTHORIZED, text)));
    }
    let bad = |text: String| Box::new(error(StatusCode::BAD_REQUEST, text));
    let body = tokio::time::timeout(app.body_idle(), to_bytes(request.into_body(), MAX_REQUEST))
        .await
        .map_err(|_| bad("the request's body did not come".to_owned()))?
        .map_err(|_| bad("the request's body is cut off or too long".to_owned()))?;
    serde_json::from_slice(&body)
        .map_err(|wrong| bad(format!("the request's body is not as expected: {wrong}")))
}

async fn issue(State(app): State<Shared>, request: Request) -> Response<Body> {
    let EnrollRequest { node, valid } = match operator(&app, request).await {
        Ok(request) => request,
        Err(response) => return *response,
    };
    match enroll::issue(&app, node, valid).await {
        Ok(reply) => Json(reply).into_response(),
        Err(wrong @ (TokenError::Reserved | TokenError::Valid)) => error(StatusCode::BAD_REQUEST, wrong),
        Err(failed @ (TokenError::Random(_) | TokenError::Store(_))) => {
            error(StatusCode::INTERNAL_SERVER_ERROR, failed)
        }
    }
}

async fn command(State(app): State<Shared>, Path(node): Path<String>, request: Request) -> Response<Body> {
    let CommandRequest { command } = match operator(&app, request).await {
        Ok(request) => request,
        Err(response) => return *response,
    };
    let known = app.owner.nodes().await.unwrap_or_default();
    let Some(node) = NodeId::new(node.clone()).ok().filter(|id| known.iter().any(|known| known.node == *id))
    else {
        return error(StatusCode::NOT_FOUND, format_args!("no node is called {node:?}"));
    };
    let patience = command.patience();
    match tokio::time::timeout(patience, app.owner.command(node.clone(), command.into(), patience)).await {
        Ok(Ok(Ok(()))) => Json(serde_json::json!({})).into_response(),
        Ok(Ok(Err(fault))) => error(StatusCode::CONFLICT, fault),
        Ok(Err(_)) | Err(_) => error(StatusCode::GATEWAY_TIMEOUT, format_args!("{node} did not answer")),
    }
}

/// Lists for all who watch: each read at most once per [`COALESCE`], however many they are.
#[derive(Debug, Default)]
pub struct Shown {
    streams: Kept,
    updates: Kept,
}

#[derive(Debug, Default)]
struct Kept(tokio::sync::Mutex<Option<Snapshot>>);

#[derive(Debug)]
struct Snapshot {
    generation: u64,
    read: Instant,
    json: Bytes,
}

/// What no change of the owner's tells (delays, expiry) shows after this at the latest.
const STALE: Duration = Duration::from_secs(5);

impl Kept {
    /// The list with all changes up to `generation`.
    async fn json<T: serde::Serialize>(
        &self,
        app: &App,
        generation: u64,
        list: impl AsyncFnOnce() -> Option<T>,
    ) -> Option<Bytes> {
        let mut shown = self.0.lock().await;
        if let Some(last) = &*shown {
            if last.generation >= generation && last.read.elapsed() < STALE {
                return Some(last.json.clone());
            }
            tokio::time::sleep_until(last.read + COALESCE).await;
        }
        let (generation, read) = (*app.owner.changes().borrow(), Instant::now());
        let json: Bytes = serde_json::to_vec(&list().await?).ok()?.into();
        *shown = Some(Snapshot { generation, read, json: json.clone() });
        Some(json)
    }
}

impl Shown {
    async fn streams(&self, app: &App, generation: u64) -> Option<Bytes> {
        self.streams.json(app, generation, async || app.store.streams().await.ok()).await
    }

    async fn updates(&self, app: &App, generation: u64) -> Option<Bytes> {
        let newest = async || {
            let mut list = app.owner.updates().await.ok()?;
            list.truncate(UPDATES);
            Some(list)
        };
        self.updates.json(app, generation, newest).await
    }
}

/// `nodes`, `updates` and `streams` as server-sent events: whole lists, after changes, coalesced.
async fn events(State(app): State<Shared>) -> Response<Body> {
    let Ok(permit) = Arc::clone(&app.subscribers).try_acquire_owned() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "too many watch already");
    };
    let body = async_stream::stream! {
        let _permit = permit;
        let mut changes = app.owner.changes();
        let (mut nodes, mut streams, mut updates) = (Bytes::new(), Bytes::new(), Bytes::new());
        loop {
            let generation = *changes.borrow_and_update();
            let mut text = Vec::new();
            if let Ok(list) = app.owner.nodes().await
                && let Ok(json) = serde_json::to_vec(&list)
            {
                event(&mut text, "nodes", json.into(), &mut nodes);
            }
            if let Some(json) = app.shown.updates(&app, generation).await {
                event(&mut text, "updates", json, &mut updates);
            }
            if let Some(json) = app.shown.streams(&app, generation).await {
                event(&mut text, "streams", json, &mut streams);
            }
            if !text.is_empty() {
                yield Ok::<_, std::io::Error>(Bytes::from(text));
            }
            tokio::select! {
                () = app.stop.cancelled() => break,
                () = tokio::time::sleep(COALESCE) => {}
            }
            tokio::select! {
                () = app.stop.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(HEARTBEAT) => yield Ok(Bytes::from_static(b": alive\n\n")),
            }
        }
    };
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Writes an event unless it is the same as the last one of its kind.
fn event(text: &mut Vec<u8>, name: &str, json: Bytes, last: &mut Bytes) {
    if json == *last {
        return;
    }
    text.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
    text.extend_from_slice(&json);
    text.extend_from_slice(b"\n\n");
    *last = json;
}

async fn health(State(app): State<Shared>) -> Response<Body> {
    if !app.broker_up.load(Ordering::Relaxed) {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the broker is not connected");
    }
    match tokio::time::timeout(Duration::from_secs(2), app.store.ping()).await {
        Ok(Ok(())) => plain(StatusCode::OK, "ok"),
        Ok(Err(failed)) => plain(StatusCode::SERVICE_UNAVAILABLE, failed),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the database does not answer"),
    }
}

async fn metrics(State(app): State<Shared>) -> Response<Body> {
    let nodes = app.owner.nodes().await.unwrap_or_default();
    match app.metrics.render(&nodes) {
        Ok(text) => {
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            let mut response = Response::new(Body::from(text));
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(failed) => plain(StatusCode::INTERNAL_SERVER_ERROR, failed),
    }
}
