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
use crate::state::ApiState;
use crate::view::bar;

pub(crate) const DEFAULT_NAMESPACE: &str = "default";

pub(crate) fn routes() -> Router<ApiState> {
    Router::new()
        .route("/workflows", get(list).post(put))
        .route("/workflows/{name}", get(detail).patch(change).delete(remove))
        .route("/workflows/{name}/versions", get(versions))
        .route("/workflows/{name}/versions/{version}", get(version))
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
    state: Option<String>,
    sort: Option<String>,
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
    let limit = asked.limit.unwrap_or(50).clamp(1, 500);
    let triggers = match &state.triggers {
        Some(service) => service.list(filter.namespaces.first().map(String::as_str)).await?,
        None => Vec::new(),
    };
    let (shapes, first) = (state.shapes.clone(), asked.cursor.is_none());
    let value = state
        .read(move |views| {
            let page = views.list_workflows(&filter, asked.cursor.as_deref(), limit)?;
            let mut items = Vec::new();
            for w in &page.items {
                let last = w.last_runs.first().map(|r| r.state.as_str());
                if asked.state.as_deref().is_some_and(|s| !s.split(',').any(|s| Some(s) == last)) {
                    continue;
                }
                let shape = shapes.get(views, &w.namespace, &w.name, &w.version)?;
                let own: Vec<_> = triggers.iter().filter(|t| t.key.workflow == w.name).collect();
                let active: u64 =
                    w.totals.iter().filter(|(s, _)| !s.is_finished()).map(|(_, n)| *n).sum();
                items.push(json!({
                    "namespace": w.namespace, "name": w.name, "dialect": w.dialect,
                    "version": w.version, "description": w.description, "tags": w.tags,
                    "paused": w.paused, "task_count": shape.map_or(0, |s| s.task_count()),
                    "created_at": w.updated_at, "updated_at": w.updated_at, "error": null,
                    "schedule": schedule(&own), "next_run_at": next_run(&own),
                    "active_runs": active,
                    "last_runs": w.last_runs.iter().rev().map(bar).collect::<Vec<_>>(),
                }));
            }
            let key = |v: &Value, field: &str| v[field].as_str().unwrap_or_default().to_owned();
            match asked.sort.as_deref() {
                Some("-updated_at") => {
                    items.sort_by_key(|v| std::cmp::Reverse(key(v, "updated_at")))
                }
                Some("next_run_at") => items.sort_by_key(|v| {
                    let at = key(v, "next_run_at");
                    (at.is_empty(), at)
                }),
                Some("-last_run_at") => items.sort_by_key(|v| {
                    let last = v["last_runs"].as_array().and_then(|l| l.last());
                    std::cmp::Reverse(last.map(|r| key(r, "created_at")).unwrap_or_default())
                }),
                _ => {}
            }
            let mut value = json!({"items": items, "next": page.next});
            if first {
                value["facets"] = facets(views, &filter.namespaces)?;
            }
            Ok(value)
        })
        .await?;
    Ok(Json(value))
}

fn schedule(triggers: &[&kobza_triggers::service::TriggerView]) -> Option<String> {
    let texts: Vec<String> = triggers
        .iter()
        .map(|t| match crate::triggers::zone(t) {
            Some(zone) if zone != "UTC" => format!("{} {zone}", crate::triggers::text(t)),
            _ => crate::triggers::text(t),
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn next_run(triggers: &[&kobza_triggers::service::TriggerView]) -> Option<Timestamp> {
    triggers.iter().filter_map(|t| t.next).filter(|at| at.0 > 0).min()
}

/// Tags and dialects of a namespace with how many workflows have them.
fn facets(
    views: &dyn kobza_store::Views,
    namespaces: &[String],
) -> Result<Value, kobza_store::ViewError> {
    use std::collections::BTreeMap;
    let (mut tags, mut dialects): (BTreeMap<String, u64>, BTreeMap<String, u64>) =
        Default::default();
    let filter = WorkflowFilter { namespaces: namespaces.to_vec(), ..Default::default() };
    let mut cursor = None;
    loop {
        let page = views.list_workflows(&filter, cursor.as_deref(), 1000)?;
        for w in page.items {
            for tag in w.tags {
                *tags.entry(tag).or_default() += 1;
            }
            *dialects.entry(w.dialect).or_default() += 1;
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let list = |map: BTreeMap<String, u64>| -> Vec<Value> {
        map.into_iter().map(|(value, count)| json!({"value": value, "count": count})).collect()
    };
    Ok(json!({"tags": list(tags), "dialects": list(dialects)}))
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
    kobza_triggers::parse_triggers(&definition.workflow.triggers).map_err(|errors| {
        let problem = |e: kobza_schedule::ScheduleError| Problem {
            path: e.field,
            message: e.message,
            hint: e.hint,
            file: None,
            line: None,
            column: None,
        };
        ApiError::invalid(errors.into_iter().map(problem).collect())
    })?;
    if !asked.dry_run.unwrap_or(false) {
        let triggers = definition.workflow.triggers.clone();
        let submission = put_submission(
            definition,
            &namespace,
            &version,
            Some(String::from_utf8_lossy(&body).into_owned()),
        );
        state.handle.submit(submission).await?;
        if let Some(service) = &state.triggers {
            service.set_workflow(&namespace, &name, &triggers).await?;
        }
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
    let triggers = crate::triggers::of_workflow(&state, &namespace, &name).await?;
    let shape = crate::shape::Shape::new(workflow.clone());
    let (produces, consumes) = shape.assets();
    let text = |t: &Value, field: &str| t[field].as_str().map(str::to_owned);
    let next = triggers.iter().filter_map(|t| text(t, "next_at")).min();
    let schedules: Vec<String> = triggers.iter().filter_map(|t| text(t, "text")).collect();
    Ok(Json(json!({
        "task_count": shape.task_count(),
        "error": null,
        "schedule": (!schedules.is_empty()).then(|| schedules.join(", ")),
        "next_run_at": next,
        "active_runs": runs.items.iter().filter(|r| !r.state.is_finished()).count(),
        "last_params": runs.items.first().map(|r| &r.params),
        "language": language(stored.source.as_deref()),
        "timezone": triggers.iter().find_map(|t| text(t, "timezone")),
        "produces": produces,
        "consumes": consumes,
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
        "triggers": triggers,
        "last_runs": runs.items.iter().rev().map(bar).collect::<Vec<_>>(),
    })))
}

pub(crate) fn no_workflow(name: &str) -> ApiError {
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
    let write = Write::PauseWorkflow {
        namespace: namespace.clone(),
        name: name.clone(),
        paused: change.paused,
    };
    state.write(vec![write]).await?;
    if let Some(service) = &state.triggers {
        service.set_workflow_paused(&namespace, &name, change.paused).await?;
    }
    detail(State(state), Path(name), Query(place)).await
}

async fn remove(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<StatusCode, ApiError> {
    let namespace = place.namespace();
    state.store.workflow(&namespace, &name, None)?.ok_or_else(|| no_workflow(&name))?;
    let write = Write::DeleteWorkflow { namespace: namespace.clone(), name: name.clone() };
    state.write(vec![write]).await?;
    if let Some(service) = &state.triggers {
        service.set_workflow(&namespace, &name, &Value::Null).await?;
    }
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
    let params = checked(&state, &stored.workflow, body.params)?;
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

/// Parameters checked against the workflow's schema, defaults filled in.
pub(crate) fn checked(
    state: &ApiState,
    workflow: &Workflow,
    params: Value,
) -> Result<Value, ApiError> {
    let params = if params.is_null() { json!({}) } else { params };
    state.catalog.params(workflow, params).map_err(|mut problems| {
        for problem in &mut problems {
            problem.path = prefixed(&problem.path);
        }
        ApiError::invalid(problems)
    })
}

fn language(source: Option<&str>) -> &'static str {
    match source.map(str::trim_start) {
        Some(text) if text.starts_with('{') => "json",
        _ => "yaml",
    }
}

async fn version(
    State(state): State<ApiState>,
    Path((name, version)): Path<(String, String)>,
    Query(place): Query<Place>,
) -> Result<Json<Value>, ApiError> {
    let namespace = place.namespace();
    let wanted = name.clone();
    let found = state
        .read(move |v| {
            let current = v.get_workflow(&namespace, &wanted, None)?;
            Ok(v.get_workflow(&namespace, &wanted, Some(&version))?.zip(current))
        })
        .await?;
    let (stored, current) = found.ok_or_else(|| no_workflow(&name))?;
    Ok(Json(json!({
        "version": stored.version, "created_at": stored.created_at,
        "current": stored.version == current.version, "source": stored.source,
        "language": language(stored.source.as_deref()), "params": stored.workflow.params,
    })))
}

fn prefixed(path: &str) -> String {
    if path.is_empty() || path.starts_with("params") {
        if path.is_empty() { "params".to_owned() } else { path.to_owned() }
    } else {
        format!("params.{path}")
    }
}
