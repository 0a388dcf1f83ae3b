//! The REST routes of Argo's server, for its command line over HTTP/1 and for Hera.
//!
//! Objects (templates, cron workflows, bindings) are kept as the store's small objects; workflows
//! are runs. Success is always 200: clients take nothing else for it.

mod acts;
mod archive;
mod artifacts;
mod collect;
mod cron;
mod detail;
mod events;
mod metered;
mod objects;
mod plain;
mod runs;
mod select;
mod start;
mod stream;
mod upkeep;
mod workflows;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json as Body, Router};
use kobza_blobs::LogStore;
use kobza_model::Json;
use kobza_runtime::{Handle, SubmitError};
use kobza_store::{Store, StoreError, ViewError, Views};
use serde_json::json;

/// Largest request: a workflow with its templates.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;

/// Kind of the store's objects that hold Argo's: keys are `{Kind}/{name}`.
pub const OBJECT: &str = kobza_store::kinds::ARGO_OBJECT;

/// Whether a bearer token may come in.
pub type CheckToken = dyn Fn(&str) -> bool + Send + Sync;

/// What the routes need.
#[derive(Clone)]
pub struct ArgoState {
    pub handle: Handle,
    pub store: Arc<dyn Store>,
    pub views: Arc<dyn Views>,
    pub logs: LogStore,
    /// The default artifact repository: a folder.
    pub artifacts: std::path::PathBuf,
    /// ConfigMaps and Secrets, by kind, namespace and name.
    pub lookup: Arc<kobza_runtime::Lookup>,
    /// None: everybody may.
    pub check_token: Option<Arc<CheckToken>>,
    /// Told of cron workflows; none: they do not fire.
    pub schedules: Option<Arc<dyn Schedules>>,
    /// Encrypts what Secrets hold; none: they cannot be kept.
    pub seal: Option<Arc<Seal>>,
}

impl std::fmt::Debug for ArgoState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ArgoState")
    }
}

/// An error as clients read it.
#[derive(Clone, Debug)]
pub struct ArgoError {
    status: StatusCode,
    code: u8,
    message: String,
}

impl ArgoError {
    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: 5, message: format!("{what} not found") }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: 3, message: message.into() }
    }

    pub(crate) fn exists(what: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::CONFLICT, code: 6, message: format!("{what} already exists") }
    }

    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_IMPLEMENTED, code: 12, message: message.into() }
    }

    fn internal(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: 13, message: message.into() }
    }
}

impl IntoResponse for ArgoError {
    fn into_response(self) -> Response {
        let body = json!({ "code": self.code, "message": self.message, "error": self.message });
        (self.status, Body(body)).into_response()
    }
}

impl From<crate::Diagnostic> for ArgoError {
    fn from(diagnostic: crate::Diagnostic) -> Self {
        Self::invalid(diagnostic.to_string())
    }
}

impl From<SubmitError> for ArgoError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(refusal) => Self::invalid(refusal.to_string()),
            SubmitError::KeyTaken { key, .. } => {
                Self::exists(format!("workflows.argoproj.io \"{key}\""))
            }
            SubmitError::Stopped => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: 14,
                message: "the server is stopping".to_owned(),
            },
            other => Self::internal(other.to_string()),
        }
    }
}

impl From<StoreError> for ArgoError {
    fn from(error: StoreError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<ViewError> for ArgoError {
    fn from(error: ViewError) -> Self {
        Self::internal(error.to_string())
    }
}

pub use cron::{NoSlot, Schedules, SlotStart};
pub use plain::{Seal, plain_write};

pub(crate) type Answer = Result<Body<Json>, ArgoError>;

/// All routes, from `/api/v1` on: mount it under `/argo`, or at the root of a listener of its own.
pub fn router(state: ArgoState) -> Router {
    let api = Router::new()
        .merge(workflows::routes())
        .merge(objects::routes())
        .merge(events::routes())
        .merge(artifacts::routes())
        .merge(cron::routes())
        .merge(plain::routes())
        .merge(archive::routes())
        .route("/api/v1/info", get(info))
        .route("/api/v1/version", get(version))
        .route("/api/v1/userinfo", get(user_info))
        .route("/api/v1/tracking/event", post(nothing))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX));
    let guard = axum::middleware::from_fn_with_state(state.clone(), authorize);
    api.layer(guard).with_state(state)
}

async fn authorize(State(state): State<ArgoState>, request: Request, next: Next) -> Response {
    if let Some(check) = &state.check_token {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = given.and_then(|v| {
            let (scheme, token) = v.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        if !token.is_some_and(|token| check(token)) {
            let message = "token not valid. see the Authorization header".to_owned();
            return ArgoError { status: StatusCode::UNAUTHORIZED, code: 16, message }
                .into_response();
        }
    }
    next.run(request).await
}

async fn info() -> Answer {
    Ok(Body(json!({
        "managedNamespace": "", "links": [], "modals": { "feedback": false, "firstTimeUser": false,
        "newVersion": false }, "navColor": "", "columns": [],
    })))
}

async fn version() -> Answer {
    Ok(Body(json!({
        "version": concat!("kobza-", env!("CARGO_PKG_VERSION")),
        "buildDate": "1970-01-01T00:00:00Z", "gitCommit": "", "gitTag": "", "gitTreeState": "",
        "goVersion": "", "compiler": "rustc", "platform": std::env::consts::OS,
    })))
}

async fn user_info() -> Answer {
    Ok(Body(json!({ "subject": "kobza", "groups": [] })))
}

async fn nothing() -> Answer {
    Ok(Body(json!({})))
}

async fn unknown(request: Request) -> ArgoError {
    ArgoError::not_found(request.uri().path().to_owned())
}

/// Runs something that waits for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArgoError> + Send + 'static,
) -> Result<T, ArgoError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ArgoError::internal(format!("a read did not finish: {error}")))?
}
