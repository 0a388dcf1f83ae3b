//! Runs: lists, one, its tasks, and what can be done with it.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use kobza_engine::{Command, StopMode};
use kobza_model::{RunId, RunRow, RunState, TaskRow, TaskState, Timestamp};
use kobza_runtime::Submission;
use kobza_store::{RunFilter, TaskFilter, Write};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::state::ApiState;

pub(crate) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/runs", get(list))
        .route("/runs/{id}", get(detail).delete(remove))
        .route("/runs/{id}/tasks", get(tasks))
        .route("/runs/{id}/cancel", post(cancel))
        .route("/runs/{id}/pause", post(pause))
        .route("/runs/{id}/resume", post(resume))
}

/// What a bar in a list shows of a run.
pub(crate) fn bar(run: &RunRow) -> Value {
    json!({
        "id": run.run,
        "state": run.state,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "trigger": run.trigger,
        "version": run.version,
        "interval_start": run.interval_start,
        "interval_end": run.interval_end,
        "partition": run.partition,
    })
}

/// A run whole.
pub(crate) fn view(run: &RunRow) -> Value {
    let mut counts = Map::new();
    let mut total = 0u64;
    for (state, count) in TaskState::ALL.iter().zip(&run.counts) {
        if *count > 0 {
            counts.insert(state.as_str().to_owned(), (*count).into());
            total += u64::from(*count);
        }
    }
    let mut value = bar(run);
    let more = json!({
        "namespace": run.namespace,
        "workflow": run.workflow,
        "dialect": run.dialect,
        "cause": run.cause,
        "message": run.message,
        "params": run.params,
        "key": run.key,
        "labels": run.labels,
        "parent": run.parent.map(|p| p.to_string()),
        "priority": run.priority,
        "generation": run.generation,
        "counts": counts,
        "total": total,
        "note": run.extra.get("note"),
        "backfill": run.extra.get("backfill"),
    });
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

#[derive(Debug, Default, Deserialize)]
struct Asked {
    namespace: Option<String>,
    workflow: Option<String>,
    state: Option<String>,
    trigger: Option<String>,
    q: Option<String>,
    label: Option<String>,
    partition: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    cursor: Option<String>,
    limit: Option<u32>,
}

/// Comma-separated words of a closed set.
pub(crate) fn words<T>(
    text: Option<&str>,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, ApiError> {
    text.unwrap_or_default()
        .split(',')
        .filter(|w| !w.is_empty())
        .map(|word| parse(word).ok_or_else(|| ApiError::bad(format!("{word:?} is not a {what}"))))
        .collect()
}

async fn list(
    State(state): State<ApiState>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    let label = asked
        .label
        .as_deref()
        .and_then(|l| l.split_once(':'))
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
    let filter = RunFilter {
        namespaces: vec![
            asked.namespace.unwrap_or_else(|| crate::workflows::DEFAULT_NAMESPACE.to_owned()),
        ],
        workflow: asked.workflow,
        states: words(asked.state.as_deref(), "run state", RunState::from_word)?,
        trigger: asked.trigger,
        labels: label.into_iter().collect(),
        created_from: asked.since,
        created_until: asked.until,
        search: asked.q,
        partition: asked.partition,
        ..RunFilter::default()
    };
    let limit = asked.limit.unwrap_or(50);
    let page = state.read(move |v| v.list_runs(&filter, asked.cursor.as_deref(), limit)).await?;
    let items: Vec<Value> = page.items.iter().map(view).collect();
    Ok(Json(json!({"items": items, "next": page.next})))
}

pub(crate) fn no_run(id: RunId) -> ApiError {
    ApiError::not_found(format!("there is no run {id}"))
}

pub(crate) fn run_id(text: &str) -> Result<RunId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("there is no such run").hint("a run id is a UUID"))
}

pub(crate) async fn load(state: &ApiState, id: RunId) -> Result<RunRow, ApiError> {
    state.read(move |v| v.get_run(id)).await?.ok_or_else(|| no_run(id))
}

async fn detail(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(view(&load(&state, run_id(&id)?).await?)))
}

async fn remove(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let run = load(&state, run_id(&id)?).await?;
    if !run.state.is_finished() {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "conflict",
            format!("the run is {}", run.state),
        )
        .hint("cancel it first; only a run that has ended can be deleted"));
    }
    let write = Write::DeleteRun { run: run.run };
    state.handle.submit(Submission { commands: Vec::new(), writes: vec![write] }).await?;
    let logs = state.logs.clone();
    let removed = tokio::task::spawn_blocking(move || logs.remove_run(run.run)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, "logs of a deleted run remain");
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
struct TasksAsked {
    state: Option<String>,
    name: Option<String>,
    q: Option<String>,
    summary: Option<bool>,
    cursor: Option<String>,
    limit: Option<u32>,
}

/// A task as it appears in lists.
pub(crate) fn task_view(task: &TaskRow) -> Value {
    json!({
        "id": kobza_model::TaskId { run: task.run, task: task.task }.to_string(),
        "run": task.run,
        "name": task.name,
        "map_index": task.index,
        "state": task.state,
        "attempt": task.attempt,
        "summary": task.summary,
        "cause": task.cause,
        "message": task.message,
        "exit_code": task.exit_code,
        "priority": task.priority,
        "created_at": task.created_at,
        "ready_at": task.ready_at,
        "started_at": task.started_at,
        "ended_at": task.ended_at,
    })
}

async fn tasks(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(asked): Query<TasksAsked>,
) -> Result<Json<Value>, ApiError> {
    let id = run_id(&id)?;
    load(&state, id).await?;
    let filter = TaskFilter {
        states: words(asked.state.as_deref(), "task state", TaskState::from_word)?,
        name: asked.name,
        search: asked.q,
        hide_summaries: !asked.summary.unwrap_or(false),
        ..TaskFilter::default()
    };
    let limit = asked.limit.unwrap_or(50);
    let page =
        state.read(move |v| v.list_tasks(id, &filter, asked.cursor.as_deref(), limit)).await?;
    let items: Vec<Value> = page.items.iter().map(task_view).collect();
    Ok(Json(json!({"items": items, "next": page.next})))
}

#[derive(Debug, Default, Deserialize)]
struct Stop {
    mode: Option<String>,
    reason: Option<String>,
}

async fn cancel(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let stop: Stop = if body.is_empty() {
        Stop::default()
    } else {
        serde_json::from_slice(&body).map_err(|e| ApiError::bad(e.to_string()))?
    };
    let mode = match stop.mode.as_deref() {
        None | Some("cancel") => StopMode::Cancel,
        Some("stop") => StopMode::Stop,
        Some("terminate") => StopMode::Terminate,
        Some(other) => {
            return Err(ApiError::bad(format!("{other:?} is not a way to stop a run"))
                .hint("use cancel, stop or terminate"));
        }
    };
    let run = run_id(&id)?;
    state
        .handle
        .submit(Command::StopRun { run, mode, reason: stop.reason.unwrap_or_default() })
        .await?;
    Ok(Json(view(&load(&state, run).await?)))
}

async fn pause(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let run = run_id(&id)?;
    state.handle.submit(Command::PauseRun { run }).await?;
    Ok(Json(view(&load(&state, run).await?)))
}

async fn resume(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let run = run_id(&id)?;
    state.handle.submit(Command::ResumeRun { run }).await?;
    Ok(Json(view(&load(&state, run).await?)))
}
