//! The status page: what the fleet does, at a glance, live.
//!
//! ```text
//! index.html ─▶ style.css
//!            └▶ app.js ─┬▶ feed.js    /api/v1/events: state and its connection
//!                       ├▶ fleet.js   node cards, the figures on top
//!                       ├▶ updates.js updates and their waves
//!                       ├▶ streams.js streams table
//!                       └▶ player.js  HLS in a dialog: the browser's own, else vendor/hls.light.min.js
//! ```
//! No build step and nothing foreign: every byte is in this binary, and the content security policy forbids
//! the browser to load from elsewhere. Data reaches the document as text nodes and attributes only.
//!
//! # What tests and bookmarklets may rely on
//!
//! | selector | text |
//! |---|---|
//! | `#connection[data-state]` | `connecting`, `live` or `lost` |
//! | `#nodes-online` `#nodes-total` `#streams-live` | counts |
//! | `#segments-done` `#segments-failed` | over all listed streams |
//! | `#segments-per-minute` `#real-time-factor` `#delay-p50` `#delay-p95` | figures, `–` while unknown; the delays in ms in `data-ms` |
//! | `[data-node="ID"][data-state]` | a node's card; `online`, `draining`, `resting` or `offline` |
//! | ` … [data-field="state"]` `load` `memory` `workers` `temperature` `power` `running` `done` `failed` `seen` `board` | that card's figures |
//! | ` … [data-capability="encode:h264:x264enc"] [data-field="fps"]` | a proved capability and its speed |
//! | ` … [data-attempt="TASK"]` | an attempt it has now |
//! | ` … [data-field="update"]` | how far it is with its newest update, empty without one that goes on |
//! | `[data-update="ID"][data-state]` | an update's row; `running`, `paused`, `stopped`, `done` or `cancelled` |
//! | ` … [data-field="version"]` `wave` `counts` `reason` | that row's figures |
//! | `[data-stream="ID"][data-live]` | a stream's row; `true` or `false` |
//! | ` … [data-field="segments"]` `failed` `delay` `delay-p95` `real-time` `node` | that row's figures |
//! | ` … [data-segment="N"][data-state][data-delay]` | one of its last segments; delay in ms |
//! | ` … [data-field="fault"]` | why the latest failed one of them failed, else empty |
//! | ` … [data-rendition="NAME"]` | a rung of its ladder |
//! | ` … [data-action="play"]` | opens the player |
//! | `#player-dialog[open]`, `video#player[data-engine]` | `native` or `hls.js`; `data-stream` names what plays |
//! | `#player-error` | why it does not play, empty while it does |
//! | `#no-nodes`, `#no-streams` | shown while there is none |

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

/// Nothing foreign, nothing inline, in nobody's frame. `blob:` is how Media Source and its worker are named.
const POLICY: &str = "default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; img-src 'self' data:; \
                      object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct Asset {
    name: &'static str,
    content_type: &'static str,
    body: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! asset {
    ($name:literal, $file:literal, $content_type:expr) => {
        Asset { name: $name, content_type: $content_type, body: include_bytes!($file) }
    };
}

const ASSETS: &[Asset] = &[
    asset!("index.html", "assets/index.html", HTML),
    asset!("style.css", "assets/style.css", CSS),
    asset!("app.js", "assets/app.js", SCRIPT),
    asset!("dom.js", "assets/dom.js", SCRIPT),
    asset!("feed.js", "assets/feed.js", SCRIPT),
    asset!("fleet.js", "assets/fleet.js", SCRIPT),
    asset!("updates.js", "assets/updates.js", SCRIPT),
    asset!("streams.js", "assets/streams.js", SCRIPT),
    asset!("player.js", "assets/player.js", SCRIPT),
    asset!("icon.svg", "assets/icon.svg", SVG),
    // hls.js 1.7.4 (npm), Apache-2.0; its licence is beside it and served with it.
    asset!("hls.light.min.js", "vendor/hls.light.min.js", SCRIPT),
    asset!("hls.js-LICENSE", "vendor/hls.js-LICENSE", TEXT),
];

/// Strong validators, one per asset: a new binary's files are fetched anew, the same ones never twice.
static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    let tag = |asset: &Asset| {
        let hash = Sha256::digest(asset.body);
        let hex: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        HeaderValue::try_from(format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"\""))
    };
    ASSETS.iter().map(tag).collect()
});

/// Serves `/`, `/favicon.ico` and `/assets/*`.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { serve("index.html", &headers) }))
        .route("/favicon.ico", get(|headers: HeaderMap| async move { serve("icon.svg", &headers) }))
        .route(
            "/assets/{name}",
            get(|Path(name): Path<String>, headers: HeaderMap| async move { serve(&name, &headers) }),
        )
}

fn serve(name: &str, request: &HeaderMap) -> Response {
    let Some((asset, tag)) = ASSETS.iter().zip(TAGS.iter()).find(|(asset, _)| asset.name == name) else {
        return (StatusCode::NOT_FOUND, "no such file\n").into_response();
    };
    let known = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| {
            text.split(',').any(|one| one.trim().trim_start_matches("W/").as_bytes() == tag.as_bytes())
        })
    };
    let mut response = if request.get(header::IF_NONE_MATCH).is_some_and(known) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, asset.content_type)], asset.body).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag.clone());
    // Kept, and asked for each time: page and scripts of two versions never meet.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
