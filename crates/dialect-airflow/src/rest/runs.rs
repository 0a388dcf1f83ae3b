//! DAG runs: lists, one, states and notes by hand, deletion.

use kobza_engine::{Command, StopMode};
use kobza_model::{Json, Outcome, RunRow, TaskId, TaskRow, TaskState};
use kobza_runtime::SubmitError;
use kobza_store::TaskFilter;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Rest;
use super::answer::{Call, Reply, RestError};
use super::lens::Lens;
use super::listing::{Filter, Listing, Query};
use super::table::{Route, get, look, operate};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        get("/api/v2/dags/{dag_id}/dagRuns", list),
        operate("POST", "/api/v2/dags/{dag_id}/dagRuns", super::start::trigger),
        operate("PATCH", "/api/v2/dags/{dag_id}/dagRuns", super::bulk::runs),
        look("POST", "/api/v2/dags/{dag_id}/dagRuns/list", batch),
        get("/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}", one),
        operate("PATCH", "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}", patch),
        operate("DELETE", "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}", delete),
        operate("POST", "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/clear", super::clear::run),
        get(
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/upstreamAssetEvents",
            super::assets::of_run,
        ),
    ]
}

const RUNS: Listing = Listing {
    key: "dag_runs",
    filters: &[
        Filter::Time("run_after", "run_after"),
        Filter::Time("logical_date", "logical_date"),
        Filter::Time("start_date", "start_date"),
        Filter::Time("end_date", "end_date"),
        Filter::Time("updated_at", "_updated_at"),
        Filter::Number("duration", "duration"),
        Filter::Contains("conf_contains", "conf"),
        Filter::Any("run_type", "run_type"),
        Filter::Any("state", "state"),
        Filter::Any("states", "state"),
        Filter::Any("dag_ids", "dag_id"),
        Filter::Any("dag_version", "_version_number"),
        Filter::Any("bundle_version", "bundle_version"),
        Filter::Text("run_id", "dag_run_id"),
        Filter::Text("dag_id", "dag_id"),
        Filter::Text("triggering_user_name", "triggering_user_name"),
        Filter::Text("partition_key", "partition_key"),
        Filter::Time("partition_date", "partition_date"),
    ],
    order: &[
        ("id", "_id"),
        ("state", "state"),
        ("dag_id", "dag_id"),
        ("run_id", "dag_run_id"),
        ("dag_run_id", "dag_run_id"),
        ("logical_date", "logical_date"),
        ("partition_date", "partition_date"),
        ("run_after", "run_after"),
        ("start_date", "start_date"),
        ("end_date", "end_date"),
        ("updated_at", "_updated_at"),
        ("conf", "conf"),
        ("duration", "duration"),
    ],
};

fn listed(rest: &Rest, dag_id: &str, query: &Query) -> Result<Json, RestError> {
    let lens = Lens::new(rest);
    let by_version = query.one("dag_version").is_some();
    let mut items = Vec::new();
    for run in rest.runs_of(dag_id)? {
        let mut told = lens.run_light(&run);
        if by_version {
            let version = lens.version(&run.workflow, &run.version)?;
            told["_version_number"] = version["version_number"].clone();
        }
        items.push((told, run));
    }
    RUNS.cut(query, items, |_, run| lens.run(&run))
}

fn list(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let dag_id = call.param("dag_id");
    if dag_id != "~" {
        rest.dag(dag_id)?;
    }
    Reply::ok(listed(rest, dag_id, &call.query)?)
}

/// A list whose filters come in the body, as a query.
pub(crate) fn query_of_body(body: &serde_json::Map<String, Value>) -> Query {
    let mut pairs = Vec::new();
    for (name, value) in body {
        let name = match name.as_str() {
            "page_offset" => "offset",
            "page_limit" => "limit",
            name => name,
        };
        match value {
            Value::Null => {}
            Value::Array(items) => {
                for item in items {
                    let text = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                    pairs.push((name.to_owned(), text));
                }
            }
            Value::String(text) => pairs.push((name.to_owned(), text.clone())),
            other => pairs.push((name.to_owned(), other.to_string())),
        }
    }
    Query::of(pairs)
}

fn batch(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    if call.param("dag_id") != "~" {
        return Err(RestError::field(&["path", "dag_id"], "Input should be '~'"));
    }
    let body: serde_json::Map<String, Value> = call.body()?;
    Reply::ok(listed(rest, "~", &query_of_body(&body))?)
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    Reply::ok(Lens::new(rest).run(&rest.run_of(call)?)?)
}

pub(crate) fn delete(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    delete_run(rest, &rest.run_of(call)?)?;
    Ok(Reply::Nothing)
}

pub(crate) fn delete_run(rest: &Rest, run: &RunRow) -> Result<(), RestError> {
    if !run.state.is_finished() {
        return Err(RestError::conflict(format!(
            "The DagRun with dag_id: `{}` and run_id: `{}` cannot be deleted in {} state",
            run.workflow,
            crate::run_id(run),
            crate::states::run_word(run.state)
        )));
    }
    (rest.delete_run)(run).map_err(RestError::internal)
}

/// A change that tells "absent" from "null".
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    #[serde(default)]
    pub(crate) state: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub(crate) note: Option<Option<String>>,
}

pub(crate) fn given<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

fn patch(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let mut body: Patch = call.body()?;
    if let Some(mask) = call.mask() {
        let has = |name: &str| mask.iter().any(|one| one == name);
        body.state = body.state.filter(|_| has("state"));
        body.note = body.note.filter(|_| has("note"));
    }
    let run = rest.run_of(call)?;
    change(rest, &run, body, &call.caller)?;
    one(rest, call)
}

pub(crate) fn change(rest: &Rest, run: &RunRow, body: Patch, by: &str) -> Result<(), RestError> {
    let state = body.state.as_deref();
    if let Some(state) = state.filter(|s| !["queued", "success", "failed"].contains(s)) {
        let message = format!("Input should be 'queued', 'success' or 'failed', not {state:?}");
        return Err(RestError::field(&["body", "state"], message));
    }
    if let Some(note) = body.note {
        rest.note_run(run, note)?;
    }
    match state {
        Some("success") => succeed(rest, run, by),
        Some("failed") => fail(rest, run, by),
        // It is looked at again, and ends as its tasks say: nothing changes.
        _ => Ok(()),
    }
}

impl Rest {
    pub(crate) fn note_run(&self, run: &RunRow, note: Option<String>) -> Result<(), RestError> {
        let note = note.filter(|note| !note.is_empty());
        if note.as_ref().is_some_and(|note| note.chars().count() > 1000) {
            let message = "String should have at most 1000 characters";
            return Err(RestError::field(&["body", "note"], message));
        }
        let mut extra = if run.extra.is_object() { run.extra.clone() } else { json!({}) };
        extra["note"] = json!(note);
        if !extra["airflow"].is_object() {
            extra["airflow"] = json!({});
        }
        extra["airflow"]["note"] = json!(note);
        self.submit(Command::Annotate {
            run: run.run,
            labels: None,
            params: None,
            extra: Some(extra),
        })
    }

    /// All rows of a run's tasks: instances, and what stands for them.
    pub(crate) fn rows(&self, run: &RunRow) -> Result<Vec<TaskRow>, RestError> {
        let (mut rows, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let filter = TaskFilter::default();
            let page = self.desk.views.list_tasks(run.run, &filter, cursor.as_deref(), 1000)?;
            rows.extend(page.items.into_iter().filter(|row| row.node.is_some()));
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(rows),
            }
        }
    }
}

/// Whether Airflow would call it running.
fn is_active(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Running
            | TaskState::Deferred
            | TaskState::Rescheduled
            | TaskState::Suspended
            | TaskState::Cancelling
    )
}

/// What runs ends as success, what has not begun is skipped; so does the run end as success. What
/// failed is success too: a run is what its tasks are.
fn succeed(rest: &Rest, run: &RunRow, by: &str) -> Result<(), RestError> {
    let mark = |row: &TaskRow, outcome| Command::Mark {
        task: TaskId { run: row.run, task: row.task },
        outcome,
        by: by.to_owned(),
    };
    let mut rows = rest.rows(run)?;
    // The last ones first: none of them begins meanwhile.
    rows.sort_by_key(|row| std::cmp::Reverse((row.node, row.index.is_none(), row.index)));
    let digest = rest.digest(&run.workflow, Some(&run.version))?;
    let order = digest.as_ref().map(|digest| super::mark::depths(digest)).unwrap_or_default();
    rows.sort_by_key(|row| std::cmp::Reverse(order.get(&row.name).copied().unwrap_or(0)));
    let (mut waiting, mut rest_of) = (Vec::new(), Vec::new());
    for row in &rows {
        match row.state {
            // What stands for instances follows them.
            state if is_active(state) && row.summary && row.index.is_none() => {}
            state if is_active(state) => rest_of.push(mark(row, Outcome::Succeeded)),
            TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled => {
                rest_of.push(mark(row, Outcome::Succeeded));
            }
            state if !state.is_finished() => waiting.push(mark(row, Outcome::Skipped)),
            _ => {}
        }
    }
    waiting.extend(rest_of);
    // Each for itself: what has ended meanwhile is no reason to leave the others.
    for command in waiting {
        match rest.desk.handle.submit_blocking(command) {
            Ok(_) | Err(SubmitError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What runs fails, what has not begun is skipped, and the run has failed.
fn fail(rest: &Rest, run: &RunRow, by: &str) -> Result<(), RestError> {
    if run.state.is_finished() {
        if crate::states::run_word(run.state) == "failed" {
            return Ok(());
        }
        return Err(RestError::conflict(format!(
            "The DagRun with dag_id: `{}` and run_id: `{}` has ended: a run is what its tasks are, so \
             set one of its task instances to failed",
            run.workflow,
            crate::run_id(run),
        )));
    }
    let reason = format!("set to failed by {by}");
    let running: Vec<TaskId> = rest
        .rows(run)?
        .iter()
        .filter(|row| is_active(row.state) && !(row.summary && row.index.is_none()))
        .map(|row| TaskId { run: row.run, task: row.task })
        .collect();
    rest.submit(Command::StopRun { run: run.run, mode: StopMode::Stop, reason })?;
    for task in running {
        let mark = Command::Mark { task, outcome: Outcome::Failed, by: by.to_owned() };
        match rest.desk.handle.submit_blocking(mark) {
            Ok(_) | Err(SubmitError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
