//! What every request passes: the Host header (DNS rebinding) and, for writes, the Origin (CSRF);
//! and the headers that every answer carries.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::state::ApiState;

/// The pages need no more than their own files; what tasks wrote is shown in sandboxed frames.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; \
     style-src 'self'; font-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
     frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

pub(crate) async fn check(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if let Err(error) = allowed(&state, request.method(), request.headers()) {
        return error.into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn allowed(state: &ApiState, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(host) = headers.get(header::HOST) {
        let host = host.to_str().unwrap_or_default();
        if !known_host(state, host) {
            return Err(ApiError::new(
                StatusCode::MISDIRECTED_REQUEST,
                "host",
                "this server is not known by that name",
            )
            .hint("address it by an IP address, or add the name to the setting `hosts`"));
        }
    }
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let cross_site = headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site" || site == "same-site");
    let foreign = headers.get(header::ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        let own = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
        host != own
    });
    if cross_site || foreign {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "origin",
            "another site's page may not write here",
        ));
    }
    Ok(())
}

fn known_host(state: &ApiState, host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    // A page that was loaded from a name of another's cannot ask for an address instead of it.
    name.eq_ignore_ascii_case("localhost")
        || if state.loopback {
            matches!(name, "127.0.0.1" | "::1")
        } else {
            name.parse::<std::net::IpAddr>().is_ok()
        }
        || state.hosts.iter().any(|h| h == "*" || h.eq_ignore_ascii_case(name))
}
