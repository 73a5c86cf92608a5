//! How a node gets its certificate: tokens for the operator, certificates for those who bring one.
//!
//! Of a token only the SHA-256 of its secret is stored, so a stolen database enrols nobody, and the
//! lookup by hash takes the same time for every wrong secret.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::{get, post};
use headwater_protocol::enroll::{self, CA_PATH, CERTIFICATE_PATH, Grant, Token};
use headwater_protocol::{Millis, NodeId};

use crate::app::{App, Shared, plain};
use crate::identity::{CsrError, GATEWAY, pem_der};
use crate::owner::unix_millis;
use crate::secret;
use crate::store::{StoreError, Write};
use crate::views::EnrollReply;

/// How long a token works unless told.
const DAY: Millis = Millis(24 * 3600 * 1000);
const LONGEST: Millis = Millis(30 * 24 * 3600 * 1000);
/// A request holds a certificate request of some hundred bytes.
const MAX_REQUEST: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{GATEWAY} is the gateway's own name; give the node another one")]
    Reserved,
    #[error("a token can be valid for 1 s to 30 days")]
    Valid,
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[error("the token could not be stored: {0}")]
    Store(#[from] StoreError),
}

/// A token for the operator to hand to a node; it replaces an unused one for the same node.
pub async fn issue(app: &App, node: NodeId, valid: Option<Millis>) -> Result<EnrollReply, TokenError> {
    if node.as_str() == GATEWAY {
        return Err(TokenError::Reserved);
    }
    let valid = valid.unwrap_or(DAY);
    if valid.0 < 1000 || valid > LONGEST {
        return Err(TokenError::Valid);
    }
    let secret = secret::random_hex()?;
    let expires = unix_millis() + valid.0;
    let hash = secret::sha256_hex(secret.as_bytes());
    app.store.write_now(vec![Write::TokenNew { hash, node: node.clone(), expires }]).await?;
    tracing::info!(%node, "enrolment token issued");
    let token = Token {
        fleet: app.fleet.clone(),
        node,
        ca_sha256: app.identity.ca_sha256.clone(),
        secret,
        url: app.nodes_url.clone(),
    };
    Ok(EnrollReply { token: token.to_string(), expires: Millis(expires) })
}

/// Requests for certificates: a burst of twenty, then two a second.
#[derive(Debug)]
pub struct Pace(Mutex<(f64, Instant)>);

const BURST: f64 = 20.0;
const PER_SECOND: f64 = 2.0;

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }
}

impl Pace {
    fn take(&self) -> bool {
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = (pace.0 + pace.1.elapsed().as_secs_f64() * PER_SECOND).min(BURST);
        *pace = (if left >= 1.0 { left - 1.0 } else { left }, Instant::now());
        left >= 1.0
    }
}

pub fn router() -> Router<Shared> {
    Router::new().route(CA_PATH, get(ca)).route(CERTIFICATE_PATH, post(certificate))
}

async fn ca(State(app): State<Shared>) -> Response<Body> {
    let mut response = Response::new(Body::from(app.identity.ca_pem.clone()));
    let value = HeaderValue::from_static("application/x-pem-file");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

async fn certificate(State(app): State<Shared>, request: Request) -> Response<Body> {
    let bad = |text: &str| plain(StatusCode::BAD_REQUEST, text);
    if !app.enrolments.take() {
        return plain(StatusCode::TOO_MANY_REQUESTS, "too many enrolments at once; try again in a minute");
    }
    let body = tokio::time::timeout(app.body_idle(), to_bytes(request.into_body(), MAX_REQUEST)).await;
    let Ok(Ok(body)) = body else { return bad("the enrolment request is cut off or too long") };
    let Ok(enroll::Request { node, secret, csr }) = serde_json::from_slice(&body) else {
        return bad("the enrolment request is not JSON with node, secret and csr");
    };
    if node.as_str() == GATEWAY {
        return bad(&TokenError::Reserved.to_string());
    }
    let hash = secret::sha256_hex(secret.as_bytes());
    let (identity, wanted) = (std::sync::Arc::clone(&app.identity), node.clone());
    let (tell, told) = std::sync::mpsc::sync_channel::<Result<String, CsrError>>(1);
    // Signed while the token is held: a bad request leaves it usable, and of two good ones one gets it.
    let sign = move || {
        let signed = identity.sign(&wanted, &csr);
        let print = signed.as_ref().ok().and_then(|pem| pem_der(pem)).map(|der| secret::sha256_hex(&der));
        // One slot for the one message.
        let _ = tell.send(signed);
        print
    };
    let known = match app.store.use_token(hash, node.clone(), unix_millis(), sign).await {
        Ok(known) => known,
        Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    if !known {
        tracing::warn!(%node, "enrolment refused: token unknown, used or expired");
        let text =
            "this token is unknown, used or expired; ask the operator for a new one (headwater enroll NAME)";
        return plain(StatusCode::FORBIDDEN, text);
    }
    let certificate = match told.try_recv() {
        Ok(Ok(certificate)) => certificate,
        Ok(Err(error)) => return bad(&error.to_string()),
        Err(_) => return plain(StatusCode::INTERNAL_SERVER_ERROR, "the certificate was lost; try again"),
    };
    tracing::info!(%node, "enrolled");
    let grant = Grant {
        certificate,
        ca: app.identity.ca_pem.clone(),
        fleet: app.fleet.clone(),
        node,
        broker_host: app.broker_host.clone(),
        broker_port: app.broker_port,
    };
    axum::response::IntoResponse::into_response(axum::Json(grant))
}
