//! Configurations: what is wanted of a node, and what it answered.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;

use super::views::ConfigView;
use super::{error, known, stops};
use crate::api::operator;
use crate::app::Shared;
use crate::owner::{Change, ConfigureError};

pub(super) async fn show(State(app): State<Shared>, Path(node): Path<String>) -> Response<Body> {
    configure(&app, &node, Change::default()).await
}

pub(super) async fn change(
    State(app): State<Shared>,
    Path(node): Path<String>,
    request: Request,
) -> Response<Body> {
    match operator::<Change>(&app, request).await {
        Ok(change) => configure(&app, &node, change).await,
        Err(response) => *response,
    }
}

async fn configure(app: &Shared, node: &str, change: Change) -> Response<Body> {
    let node = match known(app, node).await {
        Ok(node) => node,
        Err(response) => return *response,
    };
    match app.owner.configure(node, change).await {
        Ok(Ok(configured)) => Json(ConfigView::from(configured)).into_response(),
        Ok(Err(why)) => {
            let status = match &why {
                ConfigureError::Unknown(_) => StatusCode::NOT_FOUND,
                ConfigureError::Key(_) | ConfigureError::Section(_) | ConfigureError::TooLarge => {
                    StatusCode::BAD_REQUEST
                }
                ConfigureError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            error(status, why)
        }
        Err(_) => stops(),
    }
}
