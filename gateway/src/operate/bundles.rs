//! Bundles: taken from the operator, given to nodes.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use tower_http::services::ServeFile;
use tower_service::Service as _;

use super::{error, operator_only};
use crate::app::{Shared, plain};
use crate::depot::DepotError;
use crate::nodes::enrolled;
use crate::serve::Peer;

/// 201 with what it is; 200 where it was there already.
pub(super) async fn upload(State(app): State<Shared>, request: Request) -> Response<Body> {
    if let Err(refused) = operator_only(&app, request.headers()) {
        return *refused;
    }
    let Ok(_turn) = app.uploads.try_acquire() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "other bundles are on their way in; try again later");
    };
    match app.depot.receive(request.into_body().into_data_stream(), app.body_idle()).await {
        Ok((stored, new)) => {
            tracing::info!(sha256 = stored.sha256, version = stored.about.version, new, "bundle uploaded");
            (if new { StatusCode::CREATED } else { StatusCode::OK }, Json(stored)).into_response()
        }
        Err(why) => error(
            match &why {
                DepotError::Bundle(_) => StatusCode::UNPROCESSABLE_ENTITY,
                DepotError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                DepotError::CutOff => StatusCode::BAD_REQUEST,
                DepotError::Idle => StatusCode::REQUEST_TIMEOUT,
                DepotError::Store(_) | DepotError::Random(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
            why,
        ),
    }
}

pub(super) async fn list(State(app): State<Shared>) -> Response<Body> {
    let depot = app.depot.clone();
    match tokio::task::spawn_blocking(move || depot.list()).await {
        Ok(Ok(list)) => Json(list).into_response(),
        Ok(Err(failed)) => error(StatusCode::INTERNAL_SERVER_ERROR, failed),
        Err(failed) => error(StatusCode::INTERNAL_SERVER_ERROR, failed),
    }
}

pub(super) async fn show(State(app): State<Shared>, Path(sha256): Path<String>) -> Response<Body> {
    match app.depot.get(&sha256) {
        Some(stored) => Json(stored).into_response(),
        None => error(StatusCode::NOT_FOUND, "no bundle with this hash is here"),
    }
}

/// To an enrolled node, by ranges. A bundle never changes: its name is its hash, and that is its validator.
pub(super) async fn serve(
    State(app): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path(sha256): Path<String>,
    mut request: Request,
) -> Response<Body> {
    let node = match enrolled(&app, peer) {
        Ok(node) => node,
        Err(response) => return *response,
    };
    let Some(file) = app.depot.file(&sha256) else { return plain(StatusCode::NOT_FOUND, "no such bundle") };
    let tag = format!("\"{sha256}\"");
    let headers = request.headers_mut();
    // A part of something else is of no use; then all of it is sent.
    if headers.remove(header::IF_RANGE).is_some_and(|value| value.as_bytes() != tag.as_bytes()) {
        headers.remove(header::RANGE);
    }
    // Times say less than the hash.
    headers.remove(header::IF_MODIFIED_SINCE);
    headers.remove(header::IF_UNMODIFIED_SINCE);
    tracing::info!(%node, sha256, range = ?headers.get(header::RANGE), "bundle fetched");
    let Ok(response) = ServeFile::new(file).call(request).await;
    let mut response = response.map(Body::new);
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().remove(header::LAST_MODIFIED);
    response
}
