//! XComs: the outputs of tasks. Those that begin with a `$` are Kobza's own, and none.

use kobza_model::{Json, RunRow, TaskId, TaskRow};
use serde::Deserialize;
use serde_json::json;

use super::Rest;
use super::answer::{Call, Reply, RestError};
use super::lens::Lens;
use super::listing::{Filter, Listing};
use super::table::{Route, get, operate};
use crate::desk::map_index;
use crate::task::XComPlace;

pub(crate) fn routes() -> Vec<Route> {
    const ALL: &str =
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/xcomEntries";
    const ONE: &str = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/xcomEntries/{*xcom_key}";
    vec![
        get(ALL, list),
        operate("POST", ALL, create),
        get(ONE, one),
        operate("PATCH", ONE, patch),
        operate("DELETE", ONE, delete),
    ]
}

/// Most instances whose XComs one list looks through.
const INSTANCES_MAX: usize = 10_000;

const XCOMS: Listing = Listing {
    key: "xcom_entries",
    filters: &[
        Filter::Any("xcom_key", "key"),
        Filter::Text("xcom_key", "key"),
        Filter::Any("map_index", "map_index"),
        Filter::Any("map_index_filter", "map_index"),
        Filter::Text("dag_display_name", "dag_display_name"),
        Filter::Text("run_id", "run_id"),
        Filter::Text("task_id", "task_id"),
        Filter::Time("logical_date", "logical_date"),
        Filter::Time("run_after", "run_after"),
    ],
    order: &[
        ("key", "_order"),
        ("timestamp", "timestamp"),
        ("dag_id", "dag_id"),
        ("run_id", "run_id"),
        ("task_id", "task_id"),
        ("map_index", "map_index"),
        ("run_after", "run_after"),
    ],
};

fn entry(lens: &Lens<'_>, run: &RunRow, row: &TaskRow, key: &str) -> Result<Json, RestError> {
    let told = lens.instance_light(run, row)?;
    let index = map_index(row);
    Ok(json!({
        "key": key,
        // When a value was left is not kept apart from when its task ended.
        "timestamp": row.ended_at.or(row.started_at).unwrap_or(row.created_at),
        "logical_date": told["logical_date"],
        "map_index": index,
        "task_id": row.name,
        "dag_id": run.workflow,
        "run_id": told["dag_run_id"],
        "dag_display_name": told["dag_display_name"],
        "task_display_name": told["task_display_name"],
        "run_after": told["run_after"],
        "_order": format!("{} {} {:020} {key}", told["_id"], row.name, index + 1),
    }))
}

fn list(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let task_id = call.param("task_id");
    let names = [task_id.to_owned()];
    let names = (task_id != "~").then_some(names.as_slice());
    let lens = Lens::new(rest);
    let (mut items, mut looked) = (Vec::new(), 0);
    for run in rest.runs_in(call)? {
        for row in rest.desk.instances_of(&run, names)? {
            looked += 1;
            let id = TaskId { run: row.run, task: row.task };
            for (key, _) in rest.desk.views.task_outputs(id)? {
                if !key.starts_with('$') && rest.desk.xcom(id, &key)?.is_some() {
                    items.push(entry(&lens, &run, &row, &key)?);
                }
            }
        }
        if looked >= INSTANCES_MAX {
            break;
        }
    }
    XCOMS.simple(call, items)
}

struct Found {
    run: RunRow,
    row: TaskRow,
}

fn find(rest: &Rest, call: &Call, index: i64) -> Result<Option<Found>, RestError> {
    let run = rest.run_of(call)?;
    let row = rest.desk.instance(&run, call.param("task_id"), index)?;
    Ok(row.map(|row| Found { run, row }))
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let key = call.param("xcom_key");
    let missing = || RestError::not_found(format!("XCom entry with key: `{key}` not found"));
    let found = find(rest, call, call.map_index()?)?.ok_or_else(missing)?;
    let id = TaskId { run: found.row.run, task: found.row.task };
    let value = if key.starts_with('$') { None } else { rest.desk.xcom(id, key)? };
    let value = value.ok_or_else(missing)?;
    let mut told = entry(&Lens::new(rest), &found.run, &found.row, key)?;
    let text = call.query.flag("stringify")? == Some(true);
    told["value"] = match value {
        Json::String(value) => json!(value),
        value if text => json!(value.to_string()),
        value => value,
    };
    Reply::ok(super::listing::visible(told))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    key: String,
    #[serde(deserialize_with = "super::variables::there")]
    value: Option<Json>,
    #[serde(default = "unmapped")]
    map_index: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    #[serde(deserialize_with = "super::variables::there")]
    value: Option<Json>,
    #[serde(default = "unmapped")]
    map_index: i64,
}

fn unmapped() -> i64 {
    -1
}

fn place(found: &Found, key: &str) -> XComPlace {
    XComPlace {
        key: key.to_owned(),
        dag_id: found.run.workflow.clone(),
        run_id: crate::run_id(&found.run),
        task_id: found.row.name.clone(),
        map_index: Some(map_index(&found.row)),
    }
}

fn told(rest: &Rest, found: &Found, key: &str) -> Result<Json, RestError> {
    let id = TaskId { run: found.row.run, task: found.row.task };
    let mut told = entry(&Lens::new(rest), &found.run, &found.row, key)?;
    told["value"] = rest.desk.xcom(id, key)?.unwrap_or_default();
    Ok(super::listing::visible(told))
}

fn create(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let body: Create = call.body()?;
    let (dag_id, task_id) = (call.param("dag_id"), call.param("task_id"));
    let digest = rest.dag(dag_id)?;
    if !digest.tasks.contains_key(task_id) {
        return Err(RestError::not_found(format!(
            "Task with ID: `{task_id}` not found in dag: `{dag_id}`"
        )));
    }
    let run_id = call.param("dag_run_id");
    rest.run_of(call).map_err(|_| {
        RestError::not_found(format!("Dag Run with ID: `{run_id}` not found for dag: `{dag_id}`"))
    })?;
    let found = find(rest, call, body.map_index)?.ok_or_else(|| {
        RestError::not_found(format!("Task instance with map index {} not found", body.map_index))
    })?;
    let id = TaskId { run: found.row.run, task: found.row.task };
    if rest.desk.xcom(id, &body.key)?.is_some() {
        return Err(RestError::conflict(format!(
            "The XCom with key: `{}` with mentioned task instance already exists.",
            body.key
        )));
    }
    let value = body.value.unwrap_or_default();
    rest.desk.set_xcom(&found.run, place(&found, &body.key), value)?;
    Reply::created(told(rest, &found, &body.key)?)
}

fn absent(key: &str) -> RestError {
    RestError::not_found(format!(
        "The XCom with key: `{key}` with mentioned task instance doesn't exist."
    ))
}

fn existing(rest: &Rest, call: &Call, index: i64) -> Result<Found, RestError> {
    let key = call.param("xcom_key");
    let found = find(rest, call, index)?.ok_or_else(|| absent(key))?;
    let id = TaskId { run: found.row.run, task: found.row.task };
    if key.starts_with('$') || rest.desk.xcom(id, key)?.is_none() {
        return Err(absent(key));
    }
    Ok(found)
}

fn patch(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let body: Update = call.body()?;
    let found = existing(rest, call, body.map_index)?;
    let key = call.param("xcom_key");
    rest.desk.set_xcom(&found.run, place(&found, key), body.value.unwrap_or_default())?;
    Reply::ok(told(rest, &found, key)?)
}

fn delete(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let found = existing(rest, call, call.map_index()?)?;
    rest.desk.delete_xcom(&found.run, &place(&found, call.param("xcom_key")))?;
    Ok(Reply::Nothing)
}
