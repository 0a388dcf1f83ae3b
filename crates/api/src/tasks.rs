//! Tasks: one, its outputs, why it waits, and what can be done with it.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use kobza_engine::{ClearOptions, Command, Reply};
use kobza_model::{Outcome, RunId, TaskId, TaskNo, TaskRow};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::runs::{load, run_id, task_view};
use crate::state::ApiState;

pub(crate) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/tasks/{id}", get(detail))
        .route("/tasks/{id}/why", get(why))
        .route("/tasks/{id}/attempts", get(attempts))
        .route("/tasks/{id}/outputs", get(outputs))
        .route("/tasks/{id}/mark", post(mark))
        .route("/tasks/{id}/cancel", post(cancel))
        .route("/tasks/{id}/approve", post(approve))
        .route("/runs/{id}/clear", post(clear))
}

pub(crate) fn task_id(text: &str) -> Result<TaskId, ApiError> {
    text.parse().map_err(|_| {
        ApiError::not_found("there is no such task").hint("a task id is {run}.{number}")
    })
}

pub(crate) async fn load_task(state: &ApiState, id: TaskId) -> Result<TaskRow, ApiError> {
    state
        .read(move |v| v.get_task(id))
        .await?
        .ok_or_else(|| ApiError::not_found(format!("there is no task {id}")))
}

async fn detail(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = task_id(&id)?;
    let task = load_task(&state, id).await?;
    let values = state.read(move |v| v.task_outputs(id)).await?;
    let mut value = task_view(&task);
    value["inputs"] = task.inputs.clone();
    value["outputs"] = values
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value, "truncated": false}))
        .collect();
    Ok(Json(value))
}

async fn outputs(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = task_id(&id)?;
    load_task(&state, id).await?;
    let values = state.read(move |v| v.task_outputs(id)).await?;
    Ok(Json(Value::Object(values.into_iter().collect())))
}

async fn why(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = task_id(&id)?;
    let task = load_task(&state, id).await?;
    let reasons = state.handle.query(move |engine| engine.why(id).unwrap_or_default()).await?;
    let summary = if let Some(first) = reasons.first() {
        format!("{} is {}: {first}", task.name, task.state)
    } else {
        match &task.message {
            Some(message) => format!("{} is {} ({}): {message}", task.name, task.state, task.cause),
            None => format!("{} is {}", task.name, task.state),
        }
    };
    Ok(Json(json!({
        "state": task.state,
        "cause": task.cause,
        "summary": summary,
        "reasons": reasons.iter().map(|text| json!({"text": text})).collect::<Vec<_>>(),
    })))
}

async fn attempts(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = task_id(&id)?;
    let task = load_task(&state, id).await?;
    let mut rows = state.read(move |v| v.list_attempts(id)).await?;
    if task.attempt > 0 {
        rows.retain(|r| r.attempt != task.attempt);
        rows.push(task);
    }
    let items: Vec<Value> = rows
        .iter()
        .map(|r| {
            json!({
                "attempt": r.attempt, "launch": r.launch, "state": r.state, "cause": r.cause, "message": r.message,
                "exit_code": r.exit_code, "created_at": r.ready_at, "started_at": r.started_at, "ended_at": r.ended_at,
            })
        })
        .collect();
    Ok(Json(json!({"items": items, "next": null})))
}

#[derive(Debug, Deserialize)]
struct Mark {
    state: String,
}

async fn mark(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Json(body): Json<Mark>,
) -> Result<Json<Value>, ApiError> {
    let id = task_id(&id)?;
    let outcome = Outcome::from_word(&body.state).ok_or_else(|| {
        ApiError::bad(format!("{:?} is not a state to mark with", body.state))
            .hint("use succeeded, failed or skipped")
    })?;
    state.handle.submit(Command::Mark { task: id, outcome, by: "api".to_owned() }).await?;
    Ok(Json(task_view(&load_task(&state, id).await?)))
}

async fn cancel(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = task_id(&id)?;
    state
        .handle
        .submit(Command::StopTask { task: id, reason: "cancelled by an API call".to_owned() })
        .await?;
    Ok(Json(task_view(&load_task(&state, id).await?)))
}

#[derive(Debug, Deserialize)]
struct Approve {
    approved: bool,
    comment: Option<String>,
    #[serde(default)]
    values: Value,
}

/// Ends a suspended task: as succeeded with the values, or as failed.
async fn approve(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Json(body): Json<Approve>,
) -> Result<Json<Value>, ApiError> {
    let id = task_id(&id)?;
    let command = if body.approved {
        let mut outputs = vec![("approved".to_owned(), Value::Bool(true))];
        if let Some(comment) = body.comment {
            outputs.push(("comment".to_owned(), comment.into()));
        }
        if let Value::Object(values) = body.values {
            outputs.extend(values);
        }
        Command::ResumeTask { task: id, outputs: Some(outputs), carry: None }
    } else {
        Command::Mark {
            task: id,
            outcome: Outcome::Failed,
            by: body.comment.unwrap_or_else(|| "not approved".to_owned()),
        }
    };
    state.handle.submit(command).await?;
    Ok(Json(task_view(&load_task(&state, id).await?)))
}

#[derive(Debug, Default, Deserialize)]
struct Clear {
    /// Task ids; empty: the whole run.
    #[serde(default)]
    tasks: Vec<String>,
    #[serde(default)]
    downstream: bool,
    #[serde(default)]
    only_failed: bool,
}

async fn clear(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Json(body): Json<Clear>,
) -> Result<Json<Value>, ApiError> {
    let run: RunId = run_id(&id)?;
    load(&state, run).await?;
    let tasks: Vec<TaskNo> = body
        .tasks
        .iter()
        .map(|t| {
            task_id(t).and_then(|t| {
                if t.run == run {
                    Ok(t.task)
                } else {
                    Err(ApiError::bad(format!("{t} is not a task of this run")))
                }
            })
        })
        .collect::<Result<_, _>>()?;
    let options = ClearOptions { downstream: body.downstream, only_failed: body.only_failed };
    let replies = state.handle.submit(Command::Clear { run, tasks, options }).await?;
    let cleared = match replies.first() {
        Some(Reply::Cleared(tasks)) => tasks.clone(),
        _ => Vec::new(),
    };
    Ok(Json(
        json!({"count": cleared.len(), "tasks": cleared.iter().take(200).map(|&task| TaskId { run, task }.to_string()).collect::<Vec<_>>()}),
    ))
}
