//! Task instances: lists, one, links.

use kobza_model::{Json, RunRow, TaskId, TaskRow};
use serde_json::{Map, Value, json};

use super::Rest;
use super::answer::{Call, Reply, RestError};
use super::lens::Lens;
use super::listing::{Filter, Listing, Query};
use super::table::{Route, get, look, operate};
use crate::desk::tasks_of_group;

const ALL: &str = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances";

pub(crate) fn routes() -> Vec<Route> {
    vec![
        get(ALL, list),
        operate("PATCH", ALL, super::bulk::instances),
        look("POST", "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/list", batch),
        get("/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}", one),
        get("/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}", one),
        get(
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/listMapped",
            mapped,
        ),
        get("/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/links", links),
    ]
}

/// Most instances that a list over many runs looks through.
const INSTANCES_MAX: usize = 50_000;

pub(crate) const INSTANCES: Listing = Listing {
    key: "task_instances",
    filters: &[
        Filter::Any("task_id", "task_id"),
        Filter::Any("task_ids", "task_id"),
        Filter::Any("dag_ids", "dag_id"),
        Filter::Any("dag_run_ids", "dag_run_id"),
        Filter::Time("run_after", "run_after"),
        Filter::Time("logical_date", "logical_date"),
        Filter::Time("start_date", "start_date"),
        Filter::Time("end_date", "end_date"),
        Filter::Time("updated_at", "_updated_at"),
        Filter::Number("duration", "duration"),
        Filter::Text("task_display_name", "task_display_name"),
        Filter::Text("dag_id", "dag_id"),
        Filter::Text("run_id", "dag_run_id"),
        Filter::Any("state", "state"),
        Filter::Any("pool", "pool"),
        Filter::Text("pool_name", "pool"),
        Filter::Any("queue", "queue"),
        Filter::Text("queue_name", "queue"),
        Filter::Any("executor", "executor"),
        Filter::Any("try_number", "try_number"),
        Filter::Any("operator", "operator"),
        Filter::Text("operator_name", "operator_name"),
        Filter::Any("map_index", "map_index"),
        Filter::Any("version_number", "_version_number"),
        Filter::Text("rendered_map_index", "rendered_map_index"),
    ],
    order: &[
        ("map_index", "map_index"),
        ("id", "_id"),
        ("state", "state"),
        ("duration", "duration"),
        ("start_date", "start_date"),
        ("end_date", "end_date"),
        ("try_number", "try_number"),
        ("logical_date", "logical_date"),
        ("run_after", "run_after"),
        ("data_interval_start", "logical_date"),
        ("data_interval_end", "logical_date"),
        ("rendered_map_index", "map_index"),
        ("operator", "operator"),
        ("operator_name", "operator_name"),
        ("task_id", "task_id"),
        ("task_display_name", "task_display_name"),
        ("dag_id", "dag_id"),
        ("dag_run_id", "dag_run_id"),
        ("run_id", "dag_run_id"),
        ("queued_when", "queued_when"),
        ("scheduled_when", "scheduled_when"),
        ("pool", "pool"),
        ("queue", "queue"),
        ("updated_at", "_updated_at"),
    ],
};

/// An instance as a list's filters see it, with its rows.
pub(crate) type Item = (Json, (RunRow, TaskRow));

/// The instances of some runs.
fn of_runs(rest: &Rest, runs: Vec<RunRow>, query: &Query) -> Result<Vec<Item>, RestError> {
    let lens = Lens::new(rest);
    let by_version = query.one("version_number").is_some();
    let mut items = Vec::new();
    for run in runs {
        for row in rest.desk.instances_of(&run, None)? {
            let mut told = lens.instance_light(&run, &row)?;
            if by_version {
                let version = lens.version(&run.workflow, &run.version)?;
                told["_version_number"] = version["version_number"].clone();
            }
            items.push((told, (run.clone(), row)));
        }
        if items.len() >= INSTANCES_MAX {
            break;
        }
    }
    Ok(items)
}

fn answer(rest: &Rest, query: &Query, items: Vec<Item>) -> Result<Reply, RestError> {
    let lens = Lens::new(rest);
    Reply::ok(INSTANCES.cut(query, items, |told, (run, row)| lens.complete(told, &run, &row))?)
}

fn list(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let mut items = of_runs(rest, rest.runs_in(call)?, &call.query)?;
    if let Some(group) = call.query.one("task_group_id") {
        let names = group_of(rest, call.param("dag_id"), group)?;
        items.retain(|(told, _)| names.iter().any(|name| told["task_id"] == name.as_str()));
    }
    answer(rest, &call.query, items)
}

/// The tasks of a group.
pub(crate) fn group_of(rest: &Rest, dag_id: &str, group: &str) -> Result<Vec<String>, RestError> {
    let digest = rest.dag(dag_id)?;
    let mut names = Vec::new();
    if !tasks_of_group(&digest.dag()["task_group"], group, &mut names) {
        return Err(RestError::not_found(format!(
            "Task group with id {group} not found in dag {dag_id}"
        )));
    }
    Ok(names)
}

fn batch(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    for name in ["dag_id", "dag_run_id"] {
        if call.param(name) != "~" {
            return Err(RestError::field(&["path", name], "Input should be '~'"));
        }
    }
    let body: Map<String, Value> = call.body()?;
    let query = super::runs::query_of_body(&body);
    answer(rest, &query, of_runs(rest, rest.runs_of("~")?, &query)?)
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (run, row) = rest.instance_of(call)?;
    Reply::ok(Lens::new(rest).instance(&run, &row)?)
}

fn mapped(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (run, task_id) = (rest.run_of(call)?, call.param("task_id"));
    let digest = rest.digest(&run.workflow, Some(&run.version))?;
    let known = digest.as_ref().and_then(|digest| digest.tasks.get(task_id));
    match known {
        None => {
            return Err(RestError::not_found(format!("Task id {task_id} not found")));
        }
        Some(task) if !task.is_mapped => {
            return Err(RestError::not_found(format!("Task id {task_id} is not mapped")));
        }
        Some(_) => {}
    }
    let mut items = of_runs(rest, vec![run], &call.query)?;
    items.retain(|(told, (_, row))| told["task_id"] == task_id && row.index.is_some());
    answer(rest, &call.query, items)
}

/// The links that a task's operator has left.
fn links(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (run, row) = rest.instance_of(call)?;
    let digest = rest.digest(&run.workflow, Some(&run.version))?;
    let node = digest.as_ref().and_then(|digest| digest.node(row.node?));
    let declared = node.map(|node| node.arguments["task"]["_operator_extra_links"].clone());
    let id = TaskId { run: row.run, task: row.task };
    let mut found = Map::new();
    for (name, key) in declared.unwrap_or_default().as_object().into_iter().flatten() {
        let link = match key.as_str() {
            Some(key) => rest.desk.xcom(id, key)?,
            None => None,
        };
        found.insert(name.clone(), link.filter(Json::is_string).unwrap_or_default());
    }
    Reply::ok(json!({"total_entries": found.len(), "extra_links": found}))
}
