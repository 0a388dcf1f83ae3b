//! Workflows and their versions; starting runs.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use kobza_engine::{Command, StartRun};
use kobza_model::{RunId, Timestamp, Workflow};
use kobza_runtime::Submission;
use kobza_store::{WorkflowFilter, Write};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::error::{ApiError, Problem};
use crate::runs::bar;
use crate::state::ApiState;

pub(crate) const DEFAULT_NAMESPACE: &str = "default";

pub(crate) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/workflows", get(list).post(put))
        .route("/workflows/{name}", get(detail).patch(change).delete(remove))
        .route("/workflows/{name}/versions", get(versions))
        .route("/workflows/{name}/runs", post(start))
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Place {
    pub(crate) namespace: Option<String>,
}

impl Place {
    pub(crate) fn namespace(&self) -> String {
        self.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
    }
}

#[derive(Debug, Deserialize)]
struct Asked {
    namespace: Option<String>,
    q: Option<String>,
    tag: Option<String>,
    dialect: Option<String>,
    paused: Option<bool>,
    cursor: Option<String>,
    limit: Option<u32>,
}

async fn list(
    State(state): State<ApiState>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    let filter = WorkflowFilter {
        namespaces: vec![asked.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())],
        search: asked.q,
        tags: asked.tag.map(|t| t.split(',').map(str::to_owned).collect()).unwrap_or_default(),
        dialect: asked.dialect,
        paused: asked.paused,
        last_runs: 20,
    };
    let limit = asked.limit.unwrap_or(50);
    let page =
        state.read(move |v| v.list_workflows(&filter, asked.cursor.as_deref(), limit)).await?;
    let items: Vec<Value> = page
        .items
        .iter()
        .map(|w| {
            json!({
                "namespace": w.namespace,
                "name": w.name,
                "dialect": w.dialect,
                "version": w.version,
                "description": w.description,
                "tags": w.tags,
                "paused": w.paused,
                "updated_at": w.updated_at,
                "last_runs": w.last_runs.iter().rev().map(bar).collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(Json(json!({"items": items, "next": page.next})))
}

#[derive(Debug, Deserialize)]
struct PutAsked {
    namespace: Option<String>,
    dry_run: Option<bool>,
}

/// Stores a definition (YAML or JSON body) as a new version, unless it is the current one.
async fn put(
    State(state): State<ApiState>,
    Query(asked): Query<PutAsked>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let json_body = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|kind| kind.contains("json"));
    let file = if json_body { "body.json" } else { "body.yaml" };
    let catalog = state.catalog.clone();
    let source = body.clone();
    let parsed = tokio::task::spawn_blocking(move || catalog.parse(&source, file))
        .await
        .map_err(|e| ApiError::bad(format!("the definition could not be read: {e}")))?;
    let definition = parsed.map_err(ApiError::invalid)?;
    let namespace = asked
        .namespace
        .or_else(|| definition.namespace.clone())
        .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    kobza_model::validate_name(&namespace).map_err(|e| ApiError::bad(format!("namespace: {e}")))?;
    let version = version_of(&definition.workflow)?;
    let name = definition.workflow.name.clone();
    let current = state.store.workflow(&namespace, &name, None)?;
    let created = current.is_none_or(|c| c.version != version);
    if !asked.dry_run.unwrap_or(false) {
        let submission = put_submission(
            definition,
            &namespace,
            &version,
            Some(String::from_utf8_lossy(&body).into_owned()),
        );
        state.handle.submit(submission).await?;
    }
    Ok((StatusCode::CREATED, Json(json!({"name": name, "version": version, "created": created}))))
}

/// Content hash of a definition: its version.
pub(crate) fn version_of(workflow: &Workflow) -> Result<String, ApiError> {
    workflow
        .content_hash()
        .map_err(|e| ApiError::bad(format!("the definition cannot be stored: {e}")))
}

fn put_submission(
    definition: crate::Definition,
    namespace: &str,
    version: &str,
    source: Option<String>,
) -> Submission {
    let commands = definition
        .limits
        .into_iter()
        .map(|l| Command::SetLimit {
            name: l.name,
            capacity: l.capacity,
            strict: l.strict,
            description: l.description,
        })
        .collect();
    let write = Write::PutWorkflow {
        namespace: namespace.to_owned(),
        version: version.to_owned(),
        workflow: Arc::new(definition.workflow),
        source,
    };
    Submission { commands, writes: vec![write] }
}

async fn detail(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<Json<Value>, ApiError> {
    let namespace = place.namespace();
    let stored =
        state.store.workflow(&namespace, &name, None)?.ok_or_else(|| no_workflow(&name))?;
    let workflow = &stored.workflow;
    let filter = kobza_store::RunFilter {
        namespaces: vec![namespace.clone()],
        workflow: Some(name.clone()),
        ..Default::default()
    };
    let runs = state.read(move |v| v.list_runs(&filter, None, 20)).await?;
    Ok(Json(json!({
        "namespace": namespace,
        "name": name,
        "dialect": workflow.dialect,
        "version": stored.version,
        "description": workflow.description,
        "tags": workflow.tags,
        "paused": stored.paused,
        "created_at": stored.created_at,
        "updated_at": stored.created_at,
        "params": workflow.params,
        "source": stored.source,
        "max_active_runs": workflow.max_active_runs,
        "timeout_ms": workflow.timeout_ms,
        "triggers": workflow.triggers,
        "last_runs": runs.items.iter().rev().map(bar).collect::<Vec<_>>(),
    })))
}

fn no_workflow(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no workflow {name:?}"))
        .hint("names are exact; `GET /api/v1/workflows` lists them")
}

#[derive(Debug, Deserialize)]
struct Change {
    paused: bool,
}

async fn change(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    Json(change): Json<Change>,
) -> Result<Json<Value>, ApiError> {
    let namespace = place.namespace();
    state.store.workflow(&namespace, &name, None)?.ok_or_else(|| no_workflow(&name))?;
    let write = Write::PauseWorkflow { namespace, name: name.clone(), paused: change.paused };
    state.handle.submit(Submission { commands: Vec::new(), writes: vec![write] }).await?;
    detail(State(state), Path(name), Query(place)).await
}

async fn remove(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<StatusCode, ApiError> {
    let namespace = place.namespace();
    state.store.workflow(&namespace, &name, None)?.ok_or_else(|| no_workflow(&name))?;
    let write = Write::DeleteWorkflow { namespace, name };
    state.handle.submit(Submission { commands: Vec::new(), writes: vec![write] }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn versions(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<Json<Value>, ApiError> {
    let namespace = place.namespace();
    let asked = name.clone();
    let versions = state.read(move |v| v.workflow_versions(&namespace, &asked)).await?;
    if versions.is_empty() {
        return Err(no_workflow(&name));
    }
    let items: Vec<Value> = versions
        .iter()
        .map(|v| json!({"version": v.version, "created_at": v.created_at, "current": v.current}))
        .collect();
    Ok(Json(json!({"items": items, "next": null})))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    #[serde(default)]
    params: Value,
    key: Option<String>,
    version: Option<String>,
    partition: Option<String>,
    interval_start: Option<Timestamp>,
    interval_end: Option<Timestamp>,
    #[serde(default)]
    labels: Value,
    note: Option<String>,
}

/// Starts a run; answers once it is durable.
async fn start(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let body: StartBody = if body.is_empty() {
        StartBody::default()
    } else {
        serde_json::from_slice(&body).map_err(|e| {
            ApiError::bad(format!("the body is not what starts a run: {e}"))
                .hint("send {\"params\": {...}}")
        })?
    };
    let namespace = place.namespace();
    let stored = state
        .store
        .workflow(&namespace, &name, body.version.as_deref())?
        .ok_or_else(|| no_workflow(&name))?;
    let params = if body.params.is_null() { json!({}) } else { body.params };
    let params = state.catalog.params(&stored.workflow, params).map_err(|mut problems| {
        for problem in &mut problems {
            problem.path = prefixed(&problem.path);
        }
        ApiError::invalid(problems)
    })?;
    if !(body.labels.is_null() || body.labels.is_object()) {
        return Err(ApiError::invalid(vec![Problem {
            path: "labels".to_owned(),
            message: "labels are an object of texts".to_owned(),
            hint: None,
            file: None,
            line: None,
            column: None,
        }]));
    }
    if let Some(key) = &body.key {
        kobza_model::validate_name(key).map_err(|e| ApiError::bad(format!("key: {e}")))?;
    }
    let run = RunId(uuid::Uuid::now_v7());
    let command = Command::StartRun(Box::new(StartRun {
        run,
        namespace,
        workflow: stored.workflow,
        version: stored.version,
        params,
        key: body.key,
        trigger: "api".to_owned(),
        interval: body.interval_start.zip(body.interval_end),
        partition: body.partition,
        labels: body.labels,
        parent: None,
        priority: 0,
        extra: body.note.map_or(Value::Null, |note| json!({"note": note})),
    }));
    state.handle.submit(command).await?;
    let found = state.handle.query(move |engine| engine.run_row(run).map(|r| r.state)).await?;
    let run_state = match found {
        Some(run_state) => run_state,
        None => state
            .read(move |v| v.get_run(run))
            .await?
            .map_or(kobza_model::RunState::Queued, |r| r.state),
    };
    Ok((StatusCode::CREATED, Json(json!({"id": run, "state": run_state}))))
}

fn prefixed(path: &str) -> String {
    if path.is_empty() || path.starts_with("params") {
        if path.is_empty() { "params".to_owned() } else { path.to_owned() }
    } else {
        format!("params.{path}")
    }
}
