//! Who may call: users of the server, and no page of another site in a user's browser. Workers are
//! no browsers: they send neither `Origin` nor `Sec-Fetch-Site`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;

use super::LuigiHttp;

/// Says whether a user has a password.
pub type CheckPassword = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

pub(super) async fn guard(
    State(state): State<LuigiHttp>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    if !is_own_site(headers, &state.allowed_origins) {
        return (StatusCode::FORBIDDEN, "pages of other sites may not call").into_response();
    }
    // A browser asks before it sends credentials.
    let is_preflight = request.method() == axum::http::Method::OPTIONS;
    if let Some(check) = state.check_password.as_ref().filter(|_| !is_preflight)
        && !credentials(headers).is_some_and(|(user, password)| check(&user, &password))
    {
        let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"luigi\", charset=\"UTF-8\"")];
        return (StatusCode::UNAUTHORIZED, challenge, "user and password please").into_response();
    }
    let origin = headers.get(header::ORIGIN).cloned();
    let mut response = next.run(request).await;
    if let Some(origin) = origin
        && is_listed(&origin, &state.allowed_origins)
    {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// What a browser asks before it calls from an allowed origin.
pub(super) async fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Content-Type, Origin"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn is_listed(origin: &HeaderValue, allowed: &[String]) -> bool {
    allowed.iter().any(|own| own.as_bytes() == origin.as_bytes())
}

fn is_own_site(headers: &HeaderMap, allowed: &[String]) -> bool {
    if let Some(origin) = headers.get(header::ORIGIN) {
        // The host decides; the scheme may differ behind a proxy that ends TLS.
        let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(_, origin)| host == Some(origin.as_bytes()));
        return own || is_listed(origin, allowed);
    }
    match headers.get("sec-fetch-site") {
        Some(site) => matches!(site.as_bytes(), b"same-origin" | b"none"),
        None => true,
    }
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(token.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
