//! Health, readiness, metrics, limits.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::state::ApiState;

pub(crate) fn routes() -> Router<ApiState> {
    Router::new().route("/health", get(health)).route("/limits", get(limits))
}

pub(crate) fn root_routes() -> Router<ApiState> {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
}

async fn health(State(state): State<ApiState>) -> Json<Value> {
    let metrics = state.handle.metrics();
    let healthy = metrics.healthy.load(Ordering::Relaxed);
    let last = metrics.last_turn.load(Ordering::Relaxed);
    Json(json!({
        "status": if healthy { "ok" } else { "degraded" },
        "version": env!("CARGO_PKG_VERSION"),
        "now": kobza_runtime::wall_now(),
        "started_at": state.started_at,
        "store": {"kind": state.store_kind},
        "loops": [{
            "name": "runtime",
            "status": if healthy { "ok" } else { "late" },
            "last_at": kobza_model::Timestamp(i64::try_from(last).unwrap_or(i64::MAX)),
        }],
        "last_event": state.handle.next_event().borrow().saturating_sub(1),
    }))
}

/// 200 once the loop answers, 503 while the store cannot be written.
async fn ready(State(state): State<ApiState>) -> Response {
    let answers = state.handle.query(|_| ()).await.is_ok();
    if answers && state.handle.metrics().healthy.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn metrics(State(state): State<ApiState>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.handle.metrics().text()).into_response()
}

async fn limits(State(state): State<ApiState>) -> Result<Json<Value>, ApiError> {
    let limits = state.handle.query(|engine| engine.limits()).await?;
    let items: Vec<Value> = limits
        .iter()
        .map(|limit| {
            json!({
                "name": limit.name,
                "capacity": limit.capacity,
                "used": limit.used,
                "waiting": limit.waiters.len(),
                "description": limit.description,
                "holders": limit.holders.iter().take(100).map(|(task, weight)| json!({"task": task.to_string(), "weight": weight})).collect::<Vec<_>>(),
                "waiters": limit.waiters.iter().take(100).map(ToString::to_string).collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(Json(json!({"items": items, "next": null})))
}
