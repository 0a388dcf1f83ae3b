//! Tasks: one, its attempts and outputs, and what can be done with it.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use kobza_model::{Cause, LaunchId, TaskId, TaskRow, TaskState, TemplateBody, Timestamp};
use kobza_store::TaskFilter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::auth::Principal;
use crate::auth::Role::{Operator, Viewer};
use crate::error::ApiError;
use crate::extract::{Json, List, Path};
use crate::facts::StoredFacts;
use crate::graph::fold;
use crate::runs::load;
use crate::shape::Paths;
use crate::state::{ApiState, Decision};
use crate::table::{Routes, Space};
use crate::view;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get("/tasks/{id}", (Viewer, Space::Run), "A task", detail)
        .get("/tasks/{id}/attempts", (Viewer, Space::Run), "Attempts", attempts)
        .get("/tasks/{id}/outputs", (Viewer, Space::Run), "Outputs", outputs)
        .post(
            "/tasks/{id}/approve",
            (Operator, Space::Run),
            "Decide for a task that waits",
            approve,
        )
}

/// Characters of an output that are shown whole.
const SHOWN_OUTPUT: usize = 64 * 1024;

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

/// A task with all that there is to say about it.
#[derive(Debug, Serialize, JsonSchema)]
struct TaskDetail {
    #[serde(flatten)]
    task: view::Task,
    /// Made so far.
    attempts: u32,
    retry_limit: Option<u32>,
    timeout_ms: Option<u64>,
    outputs: Vec<TaskOutput>,
    /// As its dialect keeps it.
    spec: Value,
    upstream: Vec<Neighbour>,
    downstream: Vec<Neighbour>,
    limits: Vec<LimitShare>,
    /// Assets.
    produces: Vec<String>,
    /// What is asked, while it waits for a person.
    approval: Option<ApprovalView>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TaskOutput {
    key: String,
    /// The beginning of its text, if it is truncated.
    value: Value,
    truncated: bool,
}

/// A place of the graph next to a task's.
#[derive(Debug, Serialize, JsonSchema)]
struct Neighbour {
    path: String,
    name: String,
    state: TaskState,
    counts: view::ByState,
    task: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LimitShare {
    name: String,
    units: u32,
}

/// What a person is asked.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Approval")]
struct ApprovalView {
    prompt: Option<String>,
    /// JSON Schema of values that are asked for.
    fields: Value,
    /// Who may decide; anyone with the right when empty.
    approvers: Vec<String>,
}

async fn detail(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<TaskDetail>, ApiError> {
    let id = task_id(&id)?;
    let task = load_task(&state, id).await?;
    let run = load(&state, id.run).await?;
    let (shapes, offset) = (state.shapes.clone(), state.offset());
    let catalog = state.catalog.clone();
    let detail = state
        .read(move |views| {
            let paths = Paths::read(views, &shapes, &run)?;
            let shape = &paths.shape;
            let at = paths.at(task.scope, task.node, &task.name);
            let node = at.and_then(|at| shape.node(&shape.places[at]));
            let leaf =
                shape.workflow.templates.get(task.template.index()).and_then(|t| match &t.body {
                    TemplateBody::Leaf(leaf) => Some(leaf),
                    TemplateBody::Graph(_) => None,
                });
            let spec = leaf.map_or(Value::Null, |l| l.spec.clone());
            let all = views.task_outputs(id)?;
            // What a task took back again, and what its dialect notes for itself, is no output.
            let taken_back = all.iter().find(|(key, _)| key == "$deleted");
            let taken_back = taken_back.and_then(|(_, keys)| keys.as_array().cloned());
            let taken_back = taken_back.unwrap_or_default();
            let outputs: Vec<TaskOutput> = all
                .into_iter()
                .filter(|(key, _)| !key.starts_with('$') && !taken_back.iter().any(|k| k == key))
                .map(|(key, output)| {
                    let text = output.to_string();
                    if text.len() > SHOWN_OUTPUT {
                        let cut: String = text.chars().take(4096).collect();
                        TaskOutput { key, value: cut.into(), truncated: true }
                    } else {
                        TaskOutput { key, value: output, truncated: false }
                    }
                })
                .collect();
            let counts = if at.is_some() { views.task_counts(run.run)? } else { Vec::new() };
            let same: Vec<_> = counts
                .iter()
                .filter(|c| c.scope == task.scope)
                .map(|c| (c.scope, c.node, c.name.as_str(), c.state, c.tasks))
                .collect();
            let folded = fold(&paths, &same);
            let neighbour = |places: Vec<usize>| -> Result<Vec<Neighbour>, kobza_store::ViewError> {
                places
                    .into_iter()
                    .map(|p| {
                        let place = &shape.places[p];
                        let filter = TaskFilter {
                            node: Some(place.node),
                            scope: Some(task.scope),
                            hide_instances: true,
                            ..TaskFilter::default()
                        };
                        let one =
                            views.list_tasks(run.run, &filter, None, 1)?.items.into_iter().next();
                        Ok(Neighbour {
                            path: place.path.clone(),
                            name: place.label.clone(),
                            state: folded.own[p].worst().unwrap_or(TaskState::Pending),
                            counts: folded.own[p].by_state(),
                            task: one.map(|t| TaskId { run: t.run, task: t.task }.to_string()),
                        })
                    })
                    .collect()
            };
            let upstream = neighbour(at.map(|at| shape.upstream(at)).unwrap_or_default())?;
            let downstream = neighbour(at.map(|at| shape.downstream(at)).unwrap_or_default())?;
            let facts = StoredFacts::read(views, &run, kobza_runtime::wall_now())?;
            let approval = facts
                .filter(|_| task.state == TaskState::Suspended)
                .and_then(|facts| catalog.approval(&facts, id.task))
                .map(|approval| ApprovalView {
                    prompt: approval.prompt,
                    fields: approval.fields,
                    approvers: approval.approvers,
                });
            let limits = node.into_iter().flat_map(|n| &n.limits);
            let limits = limits.map(|l| LimitShare { name: l.limit.clone(), units: l.weight });
            Ok(TaskDetail {
                attempts: task.attempt,
                retry_limit: node.and_then(|n| n.retry.as_ref()).map(|r| r.limit),
                timeout_ms: node.and_then(|n| n.attempt_timeout_ms.or(n.timeout_ms)),
                outputs,
                spec,
                upstream,
                downstream,
                limits: limits.collect(),
                produces: node.map(|n| n.produces.clone()).unwrap_or_default(),
                approval,
                task: view::task(&task, &run, &paths, offset),
            })
        })
        .await?;
    Ok(Json(detail))
}

async fn outputs(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let id = task_id(&id)?;
    load_task(&state, id).await?;
    let values = state.read(move |v| v.task_outputs(id)).await?;
    Ok(Json(values.into_iter().collect()))
}

/// One try of a task.
#[derive(Debug, Serialize, JsonSchema)]
struct Attempt {
    attempt: u32,
    /// Number of its newest launch.
    launch: u32,
    state: TaskState,
    cause: Cause,
    message: Option<String>,
    exit_code: Option<i32>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    /// None: it wrote nothing.
    log: Option<LogSize>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LogSize {
    lines: u64,
    bytes: u64,
}

async fn attempts(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<List<Attempt>>, ApiError> {
    let id = task_id(&id)?;
    let task = load_task(&state, id).await?;
    let mut rows = state.read(move |v| v.list_attempts(id)).await?;
    if task.attempt > 0 {
        rows.retain(|r| r.attempt != task.attempt);
        rows.push(task);
    }
    let (readers, logs) = (state.readers.clone(), state.logs.clone());
    let items = tokio::task::spawn_blocking(move || -> Vec<Attempt> {
        rows.iter()
            .map(|r| {
                let launch = LaunchId { run: r.run, task: r.task, launch: r.launch };
                let mut reader = readers.take(&logs, launch);
                let bytes = reader.len().unwrap_or(0);
                let lines = if bytes > 0 { reader.line_count().unwrap_or(0) } else { 0 };
                readers.give_back(launch, reader);
                Attempt {
                    attempt: r.attempt,
                    launch: r.launch,
                    state: r.state,
                    cause: r.cause,
                    message: r.message.clone(),
                    exit_code: r.exit_code,
                    created_at: r.ready_at.unwrap_or(r.created_at),
                    started_at: r.started_at,
                    ended_at: r.ended_at,
                    log: (bytes > 0).then_some(LogSize { lines, bytes }),
                }
            })
            .collect()
    })
    .await
    .map_err(|e| ApiError::bad(e.to_string()))?;
    Ok(Json(List::whole(items)))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Approve {
    approved: bool,
    comment: Option<String>,
    #[serde(default)]
    values: Value,
}

/// Decides for a task that waits for a person: what comes of it is its dialect's business.
async fn approve(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Extension(principal): Extension<Principal>,
    Json(body): Json<Approve>,
) -> Result<Json<view::Task>, ApiError> {
    let id = task_id(&id)?;
    load_task(&state, id).await?;
    let run = load(&state, id.run).await?;
    let catalog = state.catalog.clone();
    let decision = Decision {
        approved: body.approved,
        comment: body.comment,
        values: body.values,
        by: principal.name.clone(),
        anybody: principal.local,
    };
    let submission = state
        .read(move |views| {
            let Some(facts) = StoredFacts::read(views, &run, kobza_runtime::wall_now())? else {
                return Ok(Err(ApiError::not_found("the definition of this run is gone")));
            };
            let asked = catalog.approval(&facts, id.task);
            let approvers = asked.map(|approval| approval.approvers).unwrap_or_default();
            if !approvers.is_empty() && !principal.local && !approvers.contains(&principal.name) {
                return Ok(Err(ApiError::new(
                    StatusCode::FORBIDDEN,
                    "forbidden",
                    format!("{} may not decide this: {} may", principal.name, approvers.join(", ")),
                )));
            }
            let taken = catalog.decide(&facts, id.task, decision);
            Ok(taken.map_err(|not| {
                let status = StatusCode::from_u16(not.status).unwrap_or(StatusCode::BAD_REQUEST);
                let code = if status == StatusCode::CONFLICT { "conflict" } else { "invalid" };
                ApiError::new(status, code, not.message)
            }))
        })
        .await??;
    state.handle.submit(submission).await?;
    let task = load_task(&state, id).await?;
    let run = load(&state, id.run).await?;
    let (shapes, offset) = (state.shapes.clone(), state.offset());
    let value = state
        .read(move |views| Ok(view::task(&task, &run, &Paths::read(views, &shapes, &run)?, offset)))
        .await?;
    Ok(Json(value))
}
