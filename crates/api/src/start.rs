//! Starting runs.

use std::collections::BTreeMap;

use axum::extract::State;
use kobza_engine::{Command, StartRun};
use kobza_model::{RunId, RunState, Timestamp, Workflow as Definition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::auth::Role::Operator;
use crate::error::{ApiError, Problem};
use crate::extract::{Created, Given, NewId, Path, Query};
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::workflows::{Place, no_workflow};

pub(crate) fn routes() -> Routes {
    Routes::new().post("/workflows/{name}/runs", (Operator, Space::Query), "Start a run", start)
}

/// Longest note, and longest value of a label.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// What starts a run. All of it may be left out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct StartBody {
    /// Checked against the workflow's schema; defaults are filled in.
    params: Map<String, Value>,
    /// Unique within the workflow: a second run with it is refused with 409.
    key: Option<String>,
    /// Content hash; the current version when absent.
    version: Option<String>,
    partition: Option<String>,
    /// Given together with `interval_end`.
    interval_start: Option<Timestamp>,
    interval_end: Option<Timestamp>,
    /// Texts by name.
    labels: Option<BTreeMap<String, String>>,
    note: Option<String>,
}

/// A new run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Started {
    pub(crate) id: RunId,
    pub(crate) state: RunState,
}

/// Starts a run; answers once it is durable.
async fn start(
    State(state): State<ApiState>,
    new: NewId,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    Given(body): Given<StartBody>,
) -> Result<Created<Started>, ApiError> {
    if body.interval_start.is_some() != body.interval_end.is_some() {
        return Err(ApiError::bad("interval_start and interval_end come together"));
    }
    let namespace = place.namespace();
    let stored = state
        .store
        .workflow(&namespace, &name, body.version.as_deref())?
        .ok_or_else(|| no_workflow(&name));
    let stored = match (stored, &body.version) {
        (Err(_), Some(version)) if state.store.workflow(&namespace, &name, None)?.is_some() => {
            let shown: String = version.chars().take(64).collect();
            return Err(ApiError::not_found(format!("workflow {name:?} has no version {shown:?}"))
                .hint("`GET /api/v1/workflows/{name}/versions` lists them"));
        }
        (stored, _) => stored?,
    };
    let params = checked(&state, &stored.workflow, body.params.into())?;
    if let Some(key) = &body.key {
        kobza_model::validate_name(key).map_err(|e| ApiError::name("key", &e))?;
    }
    for (label, value) in body.labels.iter().flatten() {
        // Other systems' labels have a `/` in their names; the rule is that of partitions.
        kobza_model::validate_partition(label).map_err(|e| ApiError::name("labels", &e))?;
        if value.len() > MAX_TEXT_BYTES {
            return Err(too_long(&format!("labels.{label}"), value.len()));
        }
    }
    if let Some(note) = body.note.as_ref().filter(|n| n.len() > MAX_TEXT_BYTES) {
        return Err(too_long("note", note.len()));
    }
    let mut start = Box::new(StartRun {
        run: RunId(new.id),
        namespace,
        workflow: stored.workflow,
        version: stored.version,
        params,
        key: body.key,
        trigger: "api".to_owned(),
        interval: body.interval_start.zip(body.interval_end),
        partition: body.partition,
        labels: body.labels.map_or(Value::Null, |l| json!(l)),
        parent: None,
        priority: 0,
        extra: body.note.map_or(Value::Null, |note| json!({"note": note})),
    });
    state.catalog.complete(&mut start, kobza_runtime::wall_now());
    submit(&state, new, start).await
}

/// Starts a run under the id that it was given. One that an earlier call of the same idempotency key
/// has started is not started again.
pub(crate) async fn submit(
    state: &ApiState,
    new: NewId,
    start: Box<StartRun>,
) -> Result<Created<Started>, ApiError> {
    let run = start.run;
    if new.again
        && let Some(row) = state.read(move |v| v.get_run(run)).await?
    {
        return Ok(Created(Started { id: run, state: row.state }));
    }
    state.handle.submit(Command::StartRun(start)).await?;
    let found = state.handle.query(move |engine| engine.run_row(run).map(|r| r.state)).await?;
    let run_state = match found {
        Some(run_state) => run_state,
        None => state
            .read(move |v| v.get_run(run))
            .await?
            .map_or(kobza_model::RunState::Queued, |r| r.state),
    };
    Ok(Created(Started { id: run, state: run_state }))
}

fn too_long(field: &str, bytes: usize) -> ApiError {
    ApiError::invalid(vec![Problem {
        path: field.to_owned(),
        message: format!("has {bytes} bytes; at most {MAX_TEXT_BYTES} are kept"),
        hint: None,
        file: None,
        line: None,
        column: None,
    }])
}

/// Parameters checked against the workflow's schema, defaults filled in.
pub(crate) fn checked(
    state: &ApiState,
    workflow: &Definition,
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

fn prefixed(path: &str) -> String {
    if path.is_empty() || path.starts_with("params") {
        if path.is_empty() { "params".to_owned() } else { path.to_owned() }
    } else {
        format!("params.{path}")
    }
}
