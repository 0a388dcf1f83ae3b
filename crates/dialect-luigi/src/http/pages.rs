//! What luigid shows as pages: the history of tasks, as JSON, and metrics.

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kobza_model::Json;

use super::{LuigiHttp, form, refused};

pub(super) fn routes() -> Router<LuigiHttp> {
    Router::new()
        .route("/history", get(recent))
        .route("/history/by_name/{value}", get(by_name))
        .route("/history/by_id/{value}", get(by_id))
        .route("/history/by_task_id/{value}", get(by_task_id))
        .route("/history/by_params/{value}", get(by_params))
        .route("/tasklist", get(recent))
        .route("/tasklist/{value}", get(by_name))
        .route("/metrics", get(metrics))
}

async fn history(state: &LuigiHttp, mut arguments: Json, query: Option<&str>) -> Response {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    for (name, value) in pairs {
        if matches!(name, "before" | "limit")
            && let Ok(number) = value.parse::<i64>()
        {
            arguments[name] = Json::from(number);
        }
    }
    match state.host.call(state.run, "$history", arguments).await {
        Ok(reply) => axum::Json(reply).into_response(),
        Err(error) => refused(&error),
    }
}

async fn recent(State(state): State<LuigiHttp>, RawQuery(query): RawQuery) -> Response {
    history(&state, serde_json::json!({ "by": "recent" }), query.as_deref()).await
}

async fn by_name(
    State(state): State<LuigiHttp>,
    Path(value): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let arguments = serde_json::json!({ "by": "name", "value": value });
    history(&state, arguments, query.as_deref()).await
}

async fn by_id(State(state): State<LuigiHttp>, Path(value): Path<String>) -> Response {
    history(&state, serde_json::json!({ "by": "id", "value": value }), None).await
}

async fn by_task_id(State(state): State<LuigiHttp>, Path(value): Path<String>) -> Response {
    history(&state, serde_json::json!({ "by": "task_id", "value": value }), None).await
}

async fn by_params(
    State(state): State<LuigiHttp>,
    Path(value): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let data = form::data(query.as_deref().unwrap_or_default().as_bytes());
    let params = serde_json::from_str(&data).unwrap_or(Json::Null);
    let arguments = serde_json::json!({ "by": "params", "value": value, "params": params });
    history(&state, arguments, query.as_deref()).await
}

/// The counters that luigid's collector for Prometheus keeps, under the same names.
async fn metrics(State(state): State<LuigiHttp>) -> Response {
    let reply = match state.host.call(state.run, "$metrics", Json::Null).await {
        Ok(reply) => reply,
        Err(error) => return refused(&error),
    };
    let mut text = String::new();
    let families: Vec<(&String, &Json)> =
        reply.as_object().map(|o| o.iter().collect()).unwrap_or_default();
    for (name, kind, field, help) in [
        ("luigi_task_started_total", "counter", "started", "number of started luigi tasks"),
        ("luigi_task_failed_total", "counter", "failed", "number of failed luigi tasks"),
        ("luigi_task_disabled_total", "counter", "disabled", "number of disabled luigi tasks"),
        ("luigi_task_done_total", "counter", "done", "number of done luigi tasks"),
        ("luigi_task_execution_time_seconds", "gauge", "seconds", "duration of the last run"),
    ] {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (family, counts) in &families {
            let label = family.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            text.push_str(&format!("{name}{{family=\"{label}\"}} {}\n", counts[field]));
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
