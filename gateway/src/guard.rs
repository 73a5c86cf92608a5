//! Who may ask what, where the HTTP interface listens beyond loopback.
//!
//! A program shows the token as bearer, a browser asks its user and sends it as the password of any user.
//! Playback and health stay open: players and load balancers have no token. On loopback without
//! `[http] token_file` nothing is asked here; commands want the operator's token in any case.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::middleware::Next;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::app::{Shared, plain};
use crate::secret;

pub async fn guard(State(app): State<Shared>, request: Request, next: Next) -> Response<Body> {
    let open = |path: &str| path == "/healthz" || path.starts_with("/stream/");
    let Some(token) = &app.push_token else { return next.run(request).await };
    let known = |shown: &str| secret::same(shown, token) || secret::same(shown, &app.operator_token);
    if open(request.uri().path()) || shown(request.headers()).is_some_and(|shown| known(&shown)) {
        return next.run(request).await;
    }
    let mut response = plain(
        StatusCode::UNAUTHORIZED,
        "this gateway wants its token: `Authorization: Bearer TOKEN`, or as the password in a browser",
    );
    let challenge = HeaderValue::from_static("Basic realm=\"headwater\", charset=\"UTF-8\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// The token a request shows: a bearer's, or the password of basic authentication.
fn shown(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    if let Some(token) = value.strip_prefix("Bearer ") {
        return Some(token.trim().to_owned());
    }
    let decoded = STANDARD.decode(value.strip_prefix("Basic ")?.trim()).ok()?;
    let (_user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_a_bearer_and_from_a_browsers_password() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            shown(&headers)
        };
        assert_eq!(read("Bearer abc").as_deref(), Some("abc"));
        // "me:a:c"
        assert_eq!(read("Basic bWU6YTpj").as_deref(), Some("a:c"));
        assert_eq!(read("Basic !!"), None);
        assert_eq!(read("Digest x"), None);
        assert_eq!(shown(&HeaderMap::new()), None);
    }
}
