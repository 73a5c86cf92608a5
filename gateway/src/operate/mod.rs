//! `/api/v1` for the operator's fleet work: bundles, updates, configurations, logs.

mod bundles;
mod config;
mod logs;
mod updates;
pub mod views;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use headwater_protocol::NodeId;

use crate::app::{Shared, bears};
use crate::views::ErrorView;

pub use logs::{Waiting as LogsWaiting, router as log_uploads};

pub fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v1/bundles", put(bundles::upload).get(bundles::list))
        .route("/api/v1/bundles/{sha256}", get(bundles::show))
        .route("/api/v1/updates", post(updates::start).get(updates::list))
        .route("/api/v1/updates/{id}", post(updates::steer).get(updates::show))
        .route("/api/v1/nodes/{node}/config", post(config::change).get(config::show))
        .route("/api/v1/nodes/{node}/logs", post(logs::fetch))
}

/// For nodes, on their listener.
pub fn for_nodes() -> Router<Shared> {
    Router::new().route("/v1/bundles/{sha256}", get(bundles::serve)).merge(log_uploads())
}

fn error(status: StatusCode, text: impl std::fmt::Display) -> Response<Body> {
    (status, Json(ErrorView { error: text.to_string() })).into_response()
}

/// Refuses who does not show the operator's token.
fn operator_only(app: &Shared, headers: &axum::http::HeaderMap) -> Result<(), Box<Response<Body>>> {
    if bears(headers, &app.operator_token) {
        return Ok(());
    }
    let text = "this needs the operator's token (state_dir/operator.token) as `Authorization: Bearer`";
    Err(Box::new(error(StatusCode::UNAUTHORIZED, text)))
}

fn stops() -> Response<Body> {
    error(StatusCode::SERVICE_UNAVAILABLE, "the gateway stops")
}

/// A path's node, if it is one that was heard of.
async fn known(app: &Shared, name: &str) -> Result<NodeId, Box<Response<Body>>> {
    let nodes = app.owner.nodes().await.map_err(|_| Box::new(stops()))?;
    let found = nodes.into_iter().map(|view| view.node).find(|node| node.as_str() == name);
    found.ok_or_else(|| Box::new(error(StatusCode::NOT_FOUND, format_args!("no node is called {name:?}"))))
}
