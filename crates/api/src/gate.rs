//! Credentials and roles before each handler; the audit log and idempotency keys around writes.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kobza_model::{RunId, TaskId};
use kobza_store::{Write, kinds};
use serde_json::{Value, json};

use crate::auth::{COOKIE, Principal, Role, token_key};
use crate::error::ApiError;
use crate::extract::NewId;
use crate::state::ApiState;
use crate::table::{Route, Space, Table};

/// Below this the path of a route begins.
pub(crate) const BASE: &str = "/api/v1";
/// An answer that is kept for repetitions; larger ones are not, and are computed again.
const MAX_KEPT: usize = 256 * 1024;
/// Bodies that may be written with an idempotency key.
const MAX_BODY: usize = 17 * 1024 * 1024;

/// A path without the API's base.
pub(crate) fn below(path: &str) -> &str {
    path.strip_prefix(BASE).unwrap_or(path)
}

fn namespace_of_query(request: &Parts) -> String {
    let query = request.uri.query().unwrap_or_default();
    let pairs: Vec<(String, String)> = serde_urlencoded(query);
    pairs
        .into_iter()
        .find(|(key, _)| key == "namespace")
        .map_or_else(|| crate::workflows::DEFAULT_NAMESPACE.to_owned(), |(_, value)| value)
}

fn serde_urlencoded(query: &str) -> Vec<(String, String)> {
    let uri = axum::http::Uri::builder().path_and_query(format!("/?{query}")).build();
    uri.ok()
        .and_then(|uri| {
            axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).ok().map(|q| q.0)
        })
        .unwrap_or_default()
}

/// The first thing that the path names.
fn segment(request: &Parts) -> String {
    below(request.uri.path()).split('/').nth(2).unwrap_or_default().to_owned()
}

/// The run of a run's or a task's id.
fn run_of(segment: &str) -> Result<RunId, ApiError> {
    match segment.parse::<TaskId>() {
        Ok(task) => Ok(task.run),
        Err(_) => crate::runs::run_id(segment),
    }
}

async fn namespace(
    state: &ApiState,
    route: &Route,
    request: &Parts,
) -> Result<Option<String>, ApiError> {
    let own = below(request.uri.path());
    let segment = segment(request);
    match route.space {
        Space::Query => Ok(Some(namespace_of_query(request))),
        Space::Global | Space::Handler => Ok(None),
        Space::Run => {
            let run = run_of(&segment)?;
            let names = state.names.clone();
            let found = state.read(move |views| Ok(names.run(views, run))).await?;
            found.map(|r| Some(r.namespace)).ok_or_else(|| crate::runs::no_run(run))
        }
        Space::Object => {
            if own.starts_with("/triggers/") {
                return Ok(Some(crate::triggers::key(&segment)?.namespace));
            }
            crate::backfills::namespace_of(state, &segment).await.map(Some)
        }
    }
}

async fn admit(
    state: &ApiState,
    route: &Route,
    request: &Parts,
) -> Result<Option<Principal>, ApiError> {
    let Some(role) = route.role else { return Ok(None) };
    let principal = state.principal(&request.headers).await?;
    // A write with a cookie needs a header that no foreign page can send.
    let writes = !matches!(request.method, Method::GET | Method::HEAD);
    let by_cookie = !principal.local && !request.headers.contains_key(header::AUTHORIZATION);
    if writes && by_cookie && !request.headers.contains_key("x-kobza-csrf") {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "csrf",
            "a write with a session needs the header X-Kobza-Csrf",
        ));
    }
    if let Some(own) = principal.run {
        // What a person must decide, a task does not.
        let decides = route.path.ends_with("/approve");
        if route.space == Space::Run
            && role <= Role::Operator
            && !decides
            && run_of(&segment(request))? == own
        {
            return Ok(Some(principal));
        }
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "a task reaches its own run only",
        ));
    }
    if route.space == Space::Handler {
        if principal.roles.values().any(|own| *own >= role) {
            return Ok(Some(principal));
        }
        principal.need(role, None)?;
    }
    let namespace = match namespace(state, route, request).await {
        Ok(namespace) => namespace,
        // Whether something exists is told to those who may look everywhere only.
        Err(error) if principal.role(None) >= Some(Role::Viewer) => return Err(error),
        Err(error) if error.status != StatusCode::NOT_FOUND => return Err(error),
        Err(_) => return principal.need(role, None).map(|()| None),
    };
    principal.need(role, namespace.as_deref())?;
    Ok(Some(principal))
}

pub(crate) async fn check(
    State((state, table)): State<(ApiState, Arc<Table>)>,
    request: Request,
    next: Next,
) -> Response {
    let matched = request.extensions().get::<MatchedPath>().map(|p| p.as_str().to_owned());
    let path = matched.unwrap_or_default();
    let method = request.method().clone();
    let Some(route) = table.find(method.as_str(), &path) else {
        // Another method of a known path is answered by the router; nothing is done for it.
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let principal = match admit(&state, route, &parts).await {
        Ok(principal) => principal,
        Err(error) => return error.into_response(),
    };
    let mut request = Request::from_parts(parts, body);
    let who = principal.as_ref().map(|p| p.name.clone());
    if let Some(principal) = principal {
        request.extensions_mut().insert(principal);
    }
    if matches!(method, Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let target = request.uri().path();
    let target = target.strip_prefix(BASE).unwrap_or(target).to_owned();
    let dry = request.uri().query().is_some_and(|q| q.contains("dry_run=true"));
    let response = match (request.headers().get("idempotency-key").cloned(), &who) {
        (Some(key), Some(who)) => once(&state, who, &key, request, next).await,
        _ => next.run(request).await,
    };
    // A delivery has proved itself by its signature; those that did not leave nothing behind.
    let delivered = response.status().is_success() && target.starts_with(crate::incoming::WEBHOOKS);
    let who = who.or_else(|| delivered.then(|| "webhook".to_owned()));
    if let Some(who) = who
        && !dry
    {
        audit(&state, route, &who, &target, response.status()).await;
    }
    response
}

/// What a route of another system needs: a role, in a namespace or (`None`) everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub role: Role,
    pub namespace: Option<&'static str>,
    /// The kind of action that it is put on record as, if it is.
    pub record: Option<&'static str>,
}

/// Lets those through who have what is needed, and tells the handler who it is.
pub(crate) async fn need(state: ApiState, need: Need, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let principal = match state.principal(&parts.headers).await {
        Ok(principal) => principal,
        Err(error) => return error.into_response(),
    };
    if let Err(error) = principal.need(need.role, need.namespace) {
        return error.into_response();
    }
    let who = principal.name.clone();
    parts.extensions.insert(principal);
    let action = need.record.map(|kind| format!("{kind}.{}", verb(&parts.method)));
    let target = parts.uri.path().to_owned();
    let response = next.run(Request::from_parts(parts, body)).await;
    if let Some(action) = action {
        record(&state, action, &who, &target, response.status()).await;
    }
    response
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::DELETE => "delete",
        _ => "change",
    }
}

/// Who did what: kept beside the write. A write that failed by the caller's fault is kept as refused.
async fn audit(state: &ApiState, route: &Route, who: &str, target: &str, status: StatusCode) {
    let parts: Vec<&str> =
        below(&route.path).split('/').filter(|p| !p.is_empty() && !p.starts_with('{')).collect();
    let kind = parts.first().map_or("", |k| k.trim_end_matches('s'));
    let verb = match (route.method, parts.get(1)) {
        (_, Some(verb)) => *verb,
        ("POST", None) => "create",
        ("DELETE", None) => "delete",
        _ => "change",
    };
    record(state, format!("{kind}.{verb}"), who, target, status).await;
}

async fn record(state: &ApiState, action: String, who: &str, target: &str, status: StatusCode) {
    let now = kobza_runtime::wall_now();
    let result = if status.is_success() { "ok" } else { "refused" };
    let value = json!({
        "at": now, "principal": who, "action": action, "target": target,
        "result": result, "status": status.as_u16(),
    });
    let key = format!("{:016x}-{}", now.0, uuid::Uuid::now_v7().simple());
    let write =
        Write::PutObject { kind: kinds::AUDIT, namespace: String::new(), key, value: Some(value) };
    if let Err(error) = state.write(vec![write]).await {
        tracing::error!(error = error.message, "a write could not be put on record");
    }
}

fn repeated(kept: &Value) -> Response {
    let status = kept.get("status").and_then(Value::as_u64).and_then(|s| u16::try_from(s).ok());
    let status = status.and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(StatusCode::OK);
    let body = kept.get("body").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut response = (status, body).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    response
}

/// A key that is being worked on, until this is dropped.
struct Working<'a> {
    state: &'a ApiState,
    key: String,
}

impl<'a> Working<'a> {
    fn begin(state: &'a ApiState, key: &str) -> Option<Self> {
        let new = state.busy.lock().ok()?.insert(key.to_owned());
        new.then(|| Self { state, key: key.to_owned() })
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if let Ok(mut busy) = self.state.busy.lock() {
            busy.remove(&self.key);
        }
    }
}

/// Does a write once for each key: a repetition with the same body gets the same answer for a day.
/// That the call has begun, and the id of what it makes, are kept before anything is done: when the
/// server dies before the answer is kept, a repetition finds what was made.
async fn once(
    state: &ApiState,
    who: &str,
    key: &HeaderValue,
    request: Request,
    next: Next,
) -> Response {
    let Ok(key) = key.to_str() else {
        return ApiError::bad("the idempotency key is not text").into_response();
    };
    if key.is_empty() || key.len() > 200 {
        return ApiError::bad("an idempotency key has between 1 and 200 characters")
            .into_response();
    }
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_BODY).await else {
        return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is too large")
            .into_response();
    };
    let place = token_key(&format!("{who}\n{key}"));
    let print =
        token_key(&format!("{} {}\n{}", parts.method, parts.uri, String::from_utf8_lossy(&bytes)));
    // Of two calls at once, the second is told to come back: it gets the first one's answer then.
    let Some(_working) = Working::begin(state, &place) else {
        return ApiError::new(
            StatusCode::CONFLICT,
            "conflict",
            "a request with this idempotency key is being worked on",
        )
        .hint("repeat it in a moment")
        .into_response();
    };
    let keep = |value: Value| Write::PutObject {
        kind: kinds::IDEMPOTENCY,
        namespace: String::new(),
        key: place.clone(),
        value: Some(value),
    };
    let wanted = place.clone();
    let now = kobza_runtime::wall_now();
    let kept = match state.read(move |v| v.get_object(kinds::IDEMPOTENCY, "", &wanted)).await {
        Ok(kept) => kept.filter(|kept| now.0 - kept.updated_at.0 < 86_400_000_000),
        Err(error) => return error.into_response(),
    };
    let kept = kept.map_or(Value::Null, |kept| kept.value);
    let text = |field: &str| kept.get(field).and_then(Value::as_str);
    let new = match (text("print"), text("begun").and_then(|id| id.parse().ok())) {
        (None, _) => {
            let new = NewId { id: uuid::Uuid::now_v7(), again: false };
            let begun = json!({"print": print, "begun": new.id});
            if let Err(error) = state.write(vec![keep(begun)]).await {
                return error.into_response();
            }
            new
        }
        (Some(own), _) if own != print => {
            return ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid",
                "this idempotency key was used for another request",
            )
            .hint("use a new key for each request")
            .into_response();
        }
        // It was begun, and never answered: perhaps it was done.
        (Some(_), Some(id)) => NewId { id, again: true },
        (Some(_), None) => return repeated(&kept),
    };
    let mut request = Request::from_parts(parts, Body::from(bytes));
    request.extensions_mut().insert(new);
    let response = next.run(request).await;
    // What failed on our side may be tried again.
    if response.status().is_server_error() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes: Bytes = match to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return ApiError::bad(error.to_string()).into_response(),
    };
    let secret = parts.headers.contains_key(header::SET_COOKIE) || is_secret(&parts.headers);
    if bytes.len() <= MAX_KEPT && !secret {
        let value = json!({"print": print, "status": parts.status.as_u16(), "body": String::from_utf8_lossy(&bytes)});
        if let Err(error) = state.write(vec![keep(value)]).await {
            tracing::error!(error = error.message, "an answer could not be kept for repetitions");
        }
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// Marks an answer that must not be kept: a token's text.
pub(crate) const SECRET_ANSWER: &str = "x-kobza-secret";

fn is_secret(headers: &HeaderMap) -> bool {
    headers.contains_key(SECRET_ANSWER)
}

/// The cookie of a session; empty ends it.
pub(crate) fn session_cookie(value: &str) -> String {
    let age = if value.is_empty() { 0 } else { 12 * 3600 };
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}")
}
