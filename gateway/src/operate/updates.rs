//! Updates: started, shown, paused, resumed, cancelled.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use headwater_protocol::UpdateId;
use headwater_protocol::update::Bundle;
use time::OffsetDateTime;
use time::macros::format_description;

use super::views::{SteerRequest, UpdateRequest, UpdateView};
use super::{error, stops};
use crate::api::operator;
use crate::app::Shared;
use crate::owner::{Asked, UpdateError};
use crate::secret;
use crate::selector::Selector;

/// Longest name an update can have for people.
const MAX_NAME: usize = 100;

pub(super) async fn start(State(app): State<Shared>, request: Request) -> Response<Body> {
    let UpdateRequest { selector, bundle, plan, name, dry_run } = match operator(&app, request).await {
        Ok(request) => request,
        Err(response) => return *response,
    };
    let selector: Selector = match selector.parse() {
        Ok(selector) => selector,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, wrong),
    };
    if name.as_ref().is_some_and(|name| name.len() > MAX_NAME || name.chars().any(char::is_control)) {
        return error(StatusCode::BAD_REQUEST, "a name has at most 100 bytes, all on one line");
    }
    let Some(stored) = app.depot.get(&bundle) else {
        return error(
            StatusCode::NOT_FOUND,
            "no bundle with this hash is here; put it to /api/v1/bundles first",
        );
    };
    // From here on it stays until the update has ended.
    if let Err(failed) = app.depot.touch(&bundle) {
        return error(StatusCode::INTERNAL_SERVER_ERROR, failed);
    }
    let id = match new_id() {
        Ok(id) => id,
        Err(failed) => return error(StatusCode::INTERNAL_SERVER_ERROR, failed),
    };
    let bundle = Bundle {
        kind: stored.about.kind,
        compatible: stored.about.compatible,
        version: stored.about.version,
        bytes: stored.bytes,
        path: format!("/v1/bundles/{}", stored.sha256),
        sha256: stored.sha256,
    };
    let asked = Asked { id, name, selector, bundle, plan, dry_run };
    match app.owner.start_update(asked).await {
        Ok(Ok(campaign)) => {
            let status = if dry_run { StatusCode::OK } else { StatusCode::CREATED };
            (status, Json(UpdateView::whole(&campaign))).into_response()
        }
        Ok(Err(why)) => refused(&why),
        Err(_) => stops(),
    }
}

/// Never given twice, not even by a gateway that lost its database: a node does nothing for an id it has seen.
fn new_id() -> Result<UpdateId, String> {
    let now = OffsetDateTime::now_utc();
    let date = now.format(format_description!("[year][month][day]")).map_err(|error| error.to_string())?;
    let random = secret::random_hex().map_err(|error| error.to_string())?;
    UpdateId::new(format!("{date}-{}", &random[..8])).map_err(|error| error.to_string())
}

fn refused(why: &UpdateError) -> Response<Body> {
    let status = match why {
        UpdateError::Plan(_) => StatusCode::BAD_REQUEST,
        UpdateError::Nobody(_) | UpdateError::Unknown(_) => StatusCode::NOT_FOUND,
        UpdateError::TooMany | UpdateError::NotNow(_) | UpdateError::Older { .. } => StatusCode::CONFLICT,
        UpdateError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    error(status, why)
}

pub(super) async fn list(State(app): State<Shared>) -> Response<Body> {
    match app.owner.updates().await {
        Ok(all) => Json(all).into_response(),
        Err(_) => stops(),
    }
}

fn unknown(id: &str) -> Response<Body> {
    error(StatusCode::NOT_FOUND, format_args!("no update is called {id:?}"))
}

pub(super) async fn show(State(app): State<Shared>, Path(id): Path<String>) -> Response<Body> {
    let Ok(update) = UpdateId::new(id.clone()) else { return unknown(&id) };
    match app.owner.update(update).await {
        Ok(Some(view)) => Json(view).into_response(),
        Ok(None) => unknown(&id),
        Err(_) => stops(),
    }
}

pub(super) async fn steer(
    State(app): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Response<Body> {
    let SteerRequest { action } = match operator(&app, request).await {
        Ok(request) => request,
        Err(response) => return *response,
    };
    let Ok(update) = UpdateId::new(id.clone()) else { return unknown(&id) };
    match app.owner.steer_update(update, action).await {
        Ok(Ok(campaign)) => Json(UpdateView::whole(&campaign)).into_response(),
        Ok(Err(why)) => refused(&why),
        Err(_) => stops(),
    }
}
