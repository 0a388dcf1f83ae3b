//! Starting runs.

use std::collections::BTreeMap;

use axum::extract::State;
use kobza_engine::{Command, StartRun};
use kobza_model::{RunId, RunState, Timestamp, Workflow as Definition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::auth::Role::Operator;
use crate::error::ApiError;
use crate::extract::{Created, Given, Path, Query};
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::workflows::{Place, no_workflow};

pub(crate) fn routes() -> Routes {
    Routes::new().post("/workflows/{name}/runs", (Operator, Space::Query), "Start a run", start)
}

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
        .ok_or_else(|| no_workflow(&name))?;
    let params = checked(&state, &stored.workflow, body.params.into())?;
    if let Some(key) = &body.key {
        kobza_model::validate_name(key).map_err(|e| ApiError::bad(format!("key: {e}")))?;
    }
    let run = RunId(uuid::Uuid::now_v7());
    let mut start = Box::new(StartRun {
        run,
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
