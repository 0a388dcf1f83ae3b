//! luigid's HTTP surface: the RPC calls of workers and the visualiser, history, metrics.

mod form;
mod guard;
mod hooks;
mod pages;
mod pieces;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, head, post};
use kobza_model::{Json, RunId};

pub use self::guard::CheckPassword;
pub use self::hooks::TestHooks;

/// Bytes of a request's body. A task with a hundred thousand dependencies takes about six million.
/// A larger body is refused: its worker repeats it twice and then reports that it could not
/// schedule the task, which is what is wanted of it.
pub const MAX_BODY: usize = 32 << 20;

/// Methods that clients may call.
const METHODS: [&str; 42] = [
    "add_scheduler_message_response",
    "add_task",
    "add_task_batcher",
    "add_worker",
    "announce_scheduling_failure",
    "count_pending",
    "decrease_running_task_resources",
    "dep_graph",
    "disable_worker",
    "fetch_error",
    "forgive_failures",
    "get_running_task_resources",
    "get_scheduler_message_response",
    "get_task_progress_percentage",
    "get_task_status_message",
    "get_work",
    "graph",
    "has_task_history",
    "inverse_dep_graph",
    "is_pause_enabled",
    "is_paused",
    "mark_as_done",
    "pause",
    "ping",
    "prune",
    "re_enable_task",
    "report_targets",
    "report_task_statistics",
    "resource_list",
    "retry",
    "retry_all",
    "send_scheduler_message",
    "set_task_progress_percentage",
    "set_task_status_message",
    "set_worker_processes",
    "task_list",
    "task_search",
    "unpause",
    "update_metrics_task_started",
    "update_resource",
    "update_resources",
    "worker_list",
];

/// Methods whose replies come in pieces, so that they do not hold up workers.
const PIECEWISE: [&str; 5] =
    ["task_list", "graph", "dep_graph", "inverse_dep_graph", "task_search"];

/// Why a call was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The caller is wrong.
    #[error("{0}")]
    Refused(String),
    /// The scheduler's run was ended by hand.
    #[error("the run of this scheduler was ended")]
    Ended,
    /// Try again later.
    #[error("{0}")]
    Unavailable(String),
}

/// A call under way.
pub type Call<'a> = Pin<Box<dyn Future<Output = Result<Json, HostError>> + Send + 'a>>;

/// What carries a call to the scheduler of a run, and its reply back once it is durable.
pub trait MachineHost: Send + Sync {
    fn call(&self, run: RunId, method: &str, arguments: Json) -> Call<'_>;
}

/// What the routes need.
#[derive(Clone)]
pub struct LuigiHttp {
    pub host: Arc<dyn MachineHost>,
    /// The standing run of the scheduler.
    pub run: RunId,
    /// Where a browser is sent to instead of luigid's visualiser.
    pub ui: Arc<str>,
    /// Asked for each request, if the server has users.
    pub check_password: Option<CheckPassword>,
    /// Origins besides the server's own from which browsers may call.
    pub allowed_origins: Arc<[String]>,
    /// Isolated schedulers for conformance tests.
    pub hooks: Option<Arc<TestHooks>>,
}

/// The routes, to be mounted under any prefix.
pub fn router(state: LuigiHttp) -> Router {
    let mut routes = Router::new()
        .route("/", head(|| async { StatusCode::NO_CONTENT }).get(root))
        .route("/api/{method}", get(api_get).post(api_post).options(guard::preflight))
        .merge(pages::routes());
    if state.hooks.is_some() {
        routes = routes
            .route("/ctl/new", post(hooks::new))
            .route("/s/{id}/ctl/reload", post(hooks::reload))
            .route("/s/{id}/api/{method}", get(hooks::api_get).post(hooks::api_post));
    }
    let guarded = axum::middleware::from_fn_with_state(state.clone(), guard::guard);
    routes
        .fallback(elsewhere)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(guarded)
        .with_state(state)
}

async fn root(State(state): State<LuigiHttp>) -> Redirect {
    Redirect::to(&state.ui)
}

/// Where luigid has its visualiser there is none: a browser is sent to what there is.
async fn elsewhere(State(state): State<LuigiHttp>, request: Request) -> Response {
    let path = request.uri().path();
    let is_page = path.is_empty() || path == "/" || path.starts_with("/static/");
    if is_page && request.method() == axum::http::Method::GET {
        return Redirect::to(&state.ui).into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}

async fn api_get(
    State(state): State<LuigiHttp>,
    Path(method): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let data = form::data(query.unwrap_or_default().as_bytes());
    answer(state.host, state.run, &method, data).await
}

async fn api_post(
    State(state): State<LuigiHttp>,
    Path(method): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let data = form::posted(&headers, &body, query.as_deref());
    answer(state.host, state.run, &method, data).await
}

/// Calls a method and makes its reply a response.
async fn answer(host: Arc<dyn MachineHost>, run: RunId, method: &str, data: String) -> Response {
    if !METHODS.contains(&method) {
        return (StatusCode::NOT_FOUND, "no such method").into_response();
    }
    let reply = if PIECEWISE.contains(&method) {
        pieces::read(host, run, method, data).await
    } else {
        text_of(host.call(run, method, Json::String(data)).await).map(Body::from)
    };
    match reply {
        Ok(body) => {
            ([(header::CONTENT_TYPE, "application/json; charset=UTF-8")], body).into_response()
        }
        Err(error) => refused(&error),
    }
}

/// What stands before each reply.
const OPENING: &str = "{\"response\": ";

fn text_of(reply: Result<Json, HostError>) -> Result<String, HostError> {
    Ok(match reply? {
        Json::String(text) => format!("{OPENING}{text}}}"),
        other => format!("{OPENING}{other}}}"),
    })
}

fn refused(error: &HostError) -> Response {
    let status = match error {
        HostError::Refused(_) => StatusCode::BAD_REQUEST,
        HostError::Ended | HostError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = serde_json::json!({ "error": error.to_string() }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
