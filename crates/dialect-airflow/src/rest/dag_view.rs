//! What DAGs are made of: tasks, versions, sources, warnings.

use std::collections::BTreeSet;

use axum::http::header;
use kobza_model::Json;
use serde_json::{Map, json};

use super::answer::{Call, Reply, RestError};
use super::definitions::Digest;
use super::lens::Lens;
use super::listing::{Filter, Listing};
use super::table::{Route, get};
use super::{NAMESPACE, Rest};
use crate::dag::{Operator, plain};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        get("/api/v2/dags/{dag_id}/tasks", tasks),
        get("/api/v2/dags/{dag_id}/tasks/{task_id}", task),
        get("/api/v2/dags/{dag_id}/dagVersions", versions),
        get("/api/v2/dags/{dag_id}/dagVersions/{version_number}", version),
        get("/api/v2/dagSources/{dag_id}", source),
        get("/api/v2/dagWarnings", warnings),
    ]
}

/// A duration as Airflow's answers have it.
fn delta(seconds: f64) -> Json {
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let micros = (seconds * 1e6).round() as i64;
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    json!({
        "__type": "TimeDelta", "days": days,
        "seconds": rest / 1_000_000, "microseconds": rest % 1_000_000,
    })
}

fn told(digest: &Digest, name: &str) -> Option<Json> {
    let graph = super::definitions::graph(&digest.workflow)?;
    let node = graph.nodes.iter().find(|node| node.name == name)?;
    let raw = &node.arguments["task"];
    let operator = Operator::read_one(&json!({"__type": "operator", "__var": raw})).ok()?;
    let facts = digest.tasks.get(name)?;
    let shared = plain(&raw["partial_kwargs"]);
    let given =
        |field: &str| raw.get(field).or_else(|| shared.get(field)).map(plain).unwrap_or_default();
    let date = |seconds: Option<f64>| {
        #[expect(clippy::cast_possible_truncation, reason = "seconds of a date")]
        seconds.map(|seconds| kobza_model::Timestamp((seconds * 1e6) as i64))
    };
    let pairs = match given("params") {
        Json::Array(pairs) => pairs
            .iter()
            .filter_map(|pair| Some((pair[0].as_str()?.to_owned(), super::dags::param(&pair[1]))))
            .collect(),
        Json::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), super::dags::param(value))).collect()
        }
        _ => Map::new(),
    };
    let links = match given("_operator_extra_links") {
        Json::Object(links) => links.keys().cloned().collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let mut downstream = operator.downstream.clone();
    downstream.sort();
    Some(json!({
        "task_id": name,
        "task_display_name": facts.display_name,
        "owner": given("owner").as_str().unwrap_or("airflow"),
        "start_date": date(operator.start_date),
        "end_date": date(operator.end_date),
        "trigger_rule": operator.trigger_rule,
        "depends_on_past": operator.depends_on_past,
        "wait_for_downstream": operator.wait_for_downstream,
        "retries": operator.retries,
        "queue": facts.queue,
        "pool": facts.pool,
        "pool_slots": facts.pool_slots,
        "execution_timeout": given("execution_timeout").as_f64().map(delta),
        "retry_delay": delta(operator.retry_delay),
        "retry_exponential_backoff": operator.retry_exponential_backoff,
        "priority_weight": operator.priority_weight,
        "weight_rule": operator.weight_rule,
        "ui_color": given("ui_color").as_str().unwrap_or("#fff"),
        "ui_fgcolor": given("ui_fgcolor").as_str().unwrap_or("#000"),
        "template_fields": given("template_fields").as_array(),
        "downstream_task_ids": downstream,
        "doc_md": given("doc_md"),
        "operator_name": facts.operator_name,
        "params": pairs,
        "class_ref": {"module_path": given("_task_module"), "class_name": operator.task_type},
        "is_mapped": operator.expand.is_some(),
        "extra_links": links,
    }))
}

fn tasks(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    const TASKS: Listing = Listing {
        key: "tasks",
        filters: &[],
        order: &[
            ("task_id", "task_id"),
            ("task_display_name", "task_display_name"),
            ("owner", "owner"),
            ("start_date", "start_date"),
            ("end_date", "end_date"),
            ("trigger_rule", "trigger_rule"),
            ("retries", "retries"),
            ("queue", "queue"),
            ("pool", "pool"),
            ("pool_slots", "pool_slots"),
            ("priority_weight", "priority_weight"),
            ("weight_rule", "weight_rule"),
            ("operator_name", "operator_name"),
            ("is_mapped", "is_mapped"),
        ],
    };
    let digest = rest.dag(call.param("dag_id"))?;
    // Airflow gives all of them in one piece.
    let items: Vec<_> =
        digest.tasks.keys().filter_map(|name| Some((told(&digest, name)?, ()))).collect();
    let body = TASKS.whole(&call.query, items)?;
    Reply::ok(body)
}

fn task(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let digest = rest.dag(call.param("dag_id"))?;
    let name = call.param("task_id");
    let found = told(&digest, name);
    Reply::ok(
        found.ok_or_else(|| RestError::not_found(format!("Task with id {name} was not found")))?,
    )
}

fn versions(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    const VERSIONS: Listing = Listing {
        key: "dag_versions",
        filters: &[
            Filter::Any("version_number", "version_number"),
            Filter::Any("bundle_name", "bundle_name"),
            Filter::Any("bundle_version", "bundle_version"),
        ],
        order: &[
            ("id", "created_at"),
            ("version_number", "version_number"),
            ("bundle_name", "bundle_name"),
            ("bundle_version", "bundle_version"),
            ("created_at", "created_at"),
        ],
    };
    let lens = Lens::new(rest);
    let dag_id = call.param("dag_id");
    let mut items = Vec::new();
    if dag_id == "~" {
        for summary in rest.summaries(0)? {
            items.extend(lens.all_versions(&summary.name)?.into_iter().map(|(_, told)| told));
        }
    } else {
        rest.dag(dag_id)?;
        items.extend(lens.all_versions(dag_id)?.into_iter().map(|(_, told)| told));
    }
    VERSIONS.simple(call, items)
}

/// A version of a DAG by its number: its hash and what is told of it.
fn numbered(rest: &Rest, dag_id: &str, number: i64) -> Result<Option<(String, Json)>, RestError> {
    let all = Lens::new(rest).all_versions(dag_id)?;
    Ok(all.into_iter().find(|(_, told)| told["version_number"] == number))
}

fn version(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (dag_id, number) = (call.param("dag_id"), call.number("version_number")?);
    let missing = || {
        RestError::not_found(format!(
            "The DagVersion with dag_id: `{dag_id}` and version_number: `{number}` was not found"
        ))
    };
    Reply::ok(numbered(rest, dag_id, number)?.ok_or_else(missing)?.1)
}

fn source(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let dag_id = call.param("dag_id");
    let wanted = call.query.number("version_number")?;
    let missing = || {
        let number = wanted.map_or_else(|| "None".to_owned(), |number| number.to_string());
        RestError::not_found(format!(
            "The source code of the Dag {dag_id}, version_number {number} was not found"
        ))
    };
    let hash = match wanted {
        Some(number) => Some(numbered(rest, dag_id, number)?.ok_or_else(missing)?.0),
        None => None,
    };
    let stored = rest.desk.views.get_workflow(NAMESPACE, dag_id, hash.as_deref())?;
    let stored = stored.filter(|s| s.workflow.dialect == "airflow").ok_or_else(missing)?;
    let text = stored.source.unwrap_or_default();
    if call.header(header::ACCEPT).starts_with("text/plain") {
        return Ok(Reply::Text("text/plain; charset=utf-8", text));
    }
    let lens = Lens::new(rest);
    let version = lens.version(dag_id, &stored.version)?;
    Reply::ok(json!({
        "content": text, "dag_id": dag_id, "version_number": version["version_number"],
        "dag_display_name": version["dag_display_name"],
    }))
}

/// Pools that a DAG's tasks name and nobody has made: they never run.
fn warnings(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    const WARNINGS: Listing = Listing {
        key: "dag_warnings",
        filters: &[Filter::Any("dag_id", "dag_id"), Filter::Any("warning_type", "warning_type")],
        order: &[
            ("dag_id", "dag_id"),
            ("warning_type", "warning_type"),
            ("message", "message"),
            ("timestamp", "timestamp"),
        ],
    };
    let pools: BTreeSet<String> =
        rest.desk.views.list_limits()?.into_iter().map(|limit| limit.name).collect();
    let mut items = Vec::new();
    for digest in rest.current()? {
        let unknown: BTreeSet<&str> = digest
            .tasks
            .values()
            .map(|t| t.pool.as_str())
            .filter(|p| !pools.contains(*p))
            .collect();
        if !unknown.is_empty() {
            let names = unknown.into_iter().collect::<Vec<_>>().join(", ");
            items.push(json!({
                "dag_id": digest.dag_id, "warning_type": "non-existent pool",
                "message": format!("Dag '{}' references non-existent pools: [{names}]", digest.dag_id),
                "timestamp": digest.created_at, "dag_display_name": digest.display_name,
            }));
        }
    }
    WARNINGS.simple(call, items)
}
