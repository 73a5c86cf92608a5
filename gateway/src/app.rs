//! What every request handler shares.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use headwater_protocol::FleetId;
use headwater_protocol::livepeer::Profile;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::depot::Depot;
use crate::grants::Grants;
use crate::identity::Identity;
use crate::media::Media;
use crate::metrics::Metrics;
use crate::operate::LogsWaiting;
use crate::owner::{Handle, Janitor};
use crate::secret;
use crate::store::Store;

#[derive(Debug)]
pub struct App {
    pub fleet: FleetId,
    pub limits: Limits,
    pub default_ladder: Vec<Profile>,
    pub push_token: Option<String>,
    pub operator_token: String,
    pub owner: Handle,
    pub store: Store,
    pub media: Media,
    pub grants: Grants,
    pub janitor: Janitor,
    pub metrics: Arc<Metrics>,
    pub identity: Arc<Identity>,
    pub broker_up: Arc<AtomicBool>,
    /// Where nodes reach the listener for nodes and the broker.
    pub nodes_url: String,
    pub broker_host: String,
    pub broker_port: u16,
    /// The streams as those who watch were shown them last.
    pub shown: crate::api::Shown,
    /// Open event streams; further ones get 503.
    pub subscribers: Arc<Semaphore>,
    pub enrolments: crate::enroll::Pace,
    pub depot: Depot,
    /// Bundles on their way in at once; further ones get 503.
    pub uploads: Semaphore,
    pub logs: LogsWaiting,
    pub stop: CancellationToken,
}

pub type Shared = Arc<App>;

impl App {
    pub fn body_idle(&self) -> Duration {
        Duration::from_secs(self.limits.body_idle_seconds)
    }
}

/// An error's text as Go's `http.Error` writes it, which is what callers of this interface know.
pub fn plain(status: StatusCode, text: impl std::fmt::Display) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

/// Whether a request carries this bearer token.
pub fn bears(headers: &HeaderMap, token: &str) -> bool {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|shown| secret::same(shown.trim(), token))
}
