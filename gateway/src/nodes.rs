//! The listener for nodes: enrolment without a certificate, media with one.
//!
//! ```text
//! GET /v1/attempts/{task}/{epoch}/input          the segment
//! PUT /v1/attempts/{task}/{epoch}/{rendition}    a rendition, whole or not at all
//! PUT /v1/evidence/{task}/{epoch}                what a failed attempt left behind, also after its end
//! GET /v1/bundles/{sha256}                       a bundle, by ranges, for every enrolled node
//! PUT /v1/logs/{id}                              its log, for the node that was asked
//! ```
//! Only for the node that the attempt was given to: 401 without a certificate or with one that a later enrolment replaced, 403 for another
//! node, 404 where there is no such attempt, 410 after its end.

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::{get, put};
use axum::{Extension, Router};
use futures_util::StreamExt;
use headwater_protocol::{Epoch, Evidence, NodeId, RenditionName, TaskId};

use crate::app::{Shared, plain};
use crate::grants::{Denied, Grant};
use crate::media;
use crate::owner::unix_millis;
use crate::serve::{Peer, Shown};
use crate::store::Write;

pub fn router(app: Shared) -> Router {
    Router::new()
        .route("/v1/attempts/{task}/{epoch}/input", get(input))
        .route("/v1/attempts/{task}/{epoch}/{rendition}", put(rendition))
        .route("/v1/evidence/{task}/{epoch}", put(evidence))
        .merge(crate::operate::for_nodes())
        .merge(crate::enroll::router())
        .fallback(async || plain(StatusCode::NOT_FOUND, "not found"))
        .with_state(app)
}

fn denied(denied: Denied) -> Response<Body> {
    let status = match denied {
        Denied::Unknown => StatusCode::NOT_FOUND,
        Denied::OtherNode => StatusCode::FORBIDDEN,
        Denied::Ended => StatusCode::GONE,
    };
    plain(status, denied)
}

type Attempt = (TaskId, Epoch, NodeId, Grant);

/// The attempt of a path, if it is this node's and runs.
fn attempt(app: &Shared, peer: Peer, task: &str, epoch: &str) -> Result<Attempt, Box<Response<Body>>> {
    match given(app, peer, task, epoch)? {
        (attempt, false) => Ok(attempt),
        ((task, epoch, node, _), true) => {
            tracing::warn!(%task, epoch = epoch.0, %node, "media denied: the attempt has ended");
            Err(Box::new(denied(Denied::Ended)))
        }
    }
}

/// The node of a connection, if its certificate is the newest it got.
pub(crate) fn enrolled(app: &Shared, peer: Peer) -> Result<NodeId, Box<Response<Body>>> {
    let Some(Shown { node, sha256 }) = peer.0 else {
        let text = "this path is for enrolled nodes; enrol first (headwater-agent enroll TOKEN)";
        return Err(Box::new(plain(StatusCode::UNAUTHORIZED, text)));
    };
    if !app.store.is_current(&node, &sha256) {
        tracing::warn!(%node, "denied: an older certificate");
        let text = "this certificate was replaced by a later enrolment of the same node";
        return Err(Box::new(plain(StatusCode::UNAUTHORIZED, text)));
    }
    Ok(node)
}

/// The attempt of a path, if it is this node's, and whether it has ended.
fn given(app: &Shared, peer: Peer, task: &str, epoch: &str) -> Result<(Attempt, bool), Box<Response<Body>>> {
    let node = enrolled(app, peer)?;
    let (Ok(task), Ok(epoch)) = (TaskId::new(task), epoch.parse()) else {
        return Err(Box::new(denied(Denied::Unknown)));
    };
    let epoch = Epoch(epoch);
    match app.grants.given(&task, epoch, &node) {
        Ok((grant, ended)) => Ok(((task, epoch, node, grant), ended)),
        Err(why) => {
            tracing::warn!(%task, epoch = epoch.0, %node, %why, "media denied");
            Err(Box::new(denied(why)))
        }
    }
}

async fn input(
    State(app): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((task, epoch)): Path<(String, String)>,
) -> Response<Body> {
    let (task, epoch, node, grant) = match attempt(&app, peer, &task, &epoch) {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let body = match app.media.fresh(&task) {
        Some(chunks) => {
            Body::from_stream(futures_util::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)))
        }
        None => match app.media.read(&media::input_key(&task, grant.container), None).await {
            Ok((_, content)) => Body::from_stream(content),
            Err(error) => {
                tracing::error!(
                    stream = %grant.stream, segment = grant.segment, %task, epoch = epoch.0, %node, %error,
                    "segment not read"
                );
                return plain(StatusCode::INTERNAL_SERVER_ERROR, "the segment cannot be read");
            }
        },
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(grant.container.content_type()));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(grant.bytes));
    response
}

async fn rendition(
    State(app): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((task, epoch, name)): Path<(String, String, String)>,
    request: Request,
) -> Response<Body> {
    let (task, epoch, node, grant) = match attempt(&app, peer, &task, &epoch) {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let output = RenditionName::new(name).ok();
    let Some((name, container)) = grant.outputs.iter().find(|(name, _)| Some(name) == output.as_ref()) else {
        return plain(StatusCode::NOT_FOUND, "the attempt has no such rendition");
    };
    let key = media::rendition_key(&task, epoch, name, *container);
    let mut writer = app.media.write(key);
    let mut body = request.into_body().into_data_stream();
    loop {
        let chunk = match tokio::time::timeout(app.body_idle(), body.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                tracing::warn!(
                    stream = %grant.stream, segment = grant.segment, %task, epoch = epoch.0, %node, %error,
                    "rendition cut off"
                );
                return plain(StatusCode::BAD_REQUEST, "the rendition is cut off");
            }
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "no data for too long"),
        };
        if writer.bytes() + chunk.len() as u64 > app.limits.max_rendition_bytes() {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "the rendition is larger than this gateway takes");
        }
        if let Err(error) = writer.put(chunk).await {
            return failed(&grant, &task, epoch, &node, &error);
        }
        // An attempt that ended meanwhile is not written on.
        if let Err(why) = app.grants.check(&task, epoch, &node) {
            return denied(why);
        }
    }
    let bytes = match writer.finish().await {
        Ok((bytes, _)) => bytes,
        Err(error) => return failed(&grant, &task, epoch, &node, &error),
    };
    if let Err(why) = app.grants.note_put(&task, epoch, name.clone(), bytes) {
        // It ended in the moment of the last byte; what won, if any did, has another epoch.
        app.media.remove(&media::rendition_key(&task, epoch, name, *container)).await;
        return denied(why);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    response
}

async fn evidence(
    State(app): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((task, epoch)): Path<(String, String)>,
    request: Request,
) -> Response<Body> {
    let ((task, epoch, node, grant), _) = match given(&app, peer, &task, &epoch) {
        Ok(found) => found,
        Err(response) => return *response,
    };
    let body = to_bytes(request.into_body(), Evidence::MAX_JSON);
    let Ok(body) = tokio::time::timeout(app.body_idle(), body).await else {
        return plain(StatusCode::REQUEST_TIMEOUT, "no data for too long");
    };
    let Ok(Ok(evidence)) = body.map(|body| serde_json::from_slice::<Evidence>(&body)) else {
        return plain(StatusCode::BAD_REQUEST, "this is no evidence, or too much of it");
    };
    let Grant { stream, segment, .. } = grant;
    tracing::info!(%stream, segment, %task, epoch = epoch.0, %node, "evidence of a failure was put");
    let evidence = Box::new(evidence.bounded());
    app.store.note(Write::Evidence { task, epoch, node, stream, segment, evidence, at: unix_millis() });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    response
}

fn failed(
    grant: &Grant,
    task: &TaskId,
    epoch: Epoch,
    node: &NodeId,
    error: &media::MediaError,
) -> Response<Body> {
    tracing::error!(
        stream = %grant.stream, segment = grant.segment, %task, epoch = epoch.0, %node, %error,
        "rendition not stored"
    );
    plain(StatusCode::INTERNAL_SERVER_ERROR, "the rendition cannot be stored")
}
