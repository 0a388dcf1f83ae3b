//! What the executor gets to run: the stock task runner, with all that it is told at its start.

use std::collections::{BTreeMap, BTreeSet};

use kobza_engine::Launch;
use kobza_model::{Json, RunRow, TaskRow, TemplateBody, Timestamp, Workflow};
use kobza_runtime::{ExecutorName, Facts, LaunchSpec};
use serde::Deserialize;
use serde_json::json;

use crate::ids;
use crate::task::{Brief, Carry, Waiting};

/// The Python package that runs Airflow's tasks in a warm worker.
pub const ADAPTER: &str = "kobza_airflow";
/// The executor of tasks that wait for a trigger from the start: `LaunchSpec::extra` holds their `carry`
/// and `until`.
pub const WAITERS: &str = "airflow-waiters";
/// Between the signals by which Airflow ends a task.
const GRACE_MS: u64 = 5_000;
/// Longest list that a mapped task may be made from, unless the environment says otherwise.
pub const MAX_MAP_LENGTH: u64 = 1024;

/// Where a DAG's file is, from `Workflow::source`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Origin {
    pub bundle: Place,
    pub rel_path: String,
    /// Airflow's setting, where it is not the default.
    pub max_map_length: Option<u64>,
    /// Digest of the file's content.
    pub content: Option<String>,
}

/// The bundle of a DAG, and what runs it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Place {
    pub name: String,
    pub path: String,
    /// The interpreter of the environment with Airflow.
    pub python: String,
    pub version: Option<String>,
}

impl Origin {
    /// Of a workflow of this dialect.
    #[must_use]
    pub fn of(workflow: &Workflow) -> Self {
        Self::deserialize(&workflow.source["airflow"]).unwrap_or_default()
    }
}

/// Variables that Airflow must have before it is imported, for a bundle.
#[must_use]
pub fn environment(bundle: &Place) -> BTreeMap<&'static str, String> {
    let list = json!([{
        "name": bundle.name,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": bundle.path},
    }]);
    BTreeMap::from([
        ("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", list.to_string()),
        ("AIRFLOW__CORE__DAGS_FOLDER", bundle.path.clone()),
    ])
}

/// What the process has loaded that all others of an environment are forked from.
#[must_use]
pub fn base(bundle: &Place) -> Json {
    json!({
        "env": environment(bundle),
        // Sets come in the same order each time: an unchanged DAG is no new version.
        "interpreter_env": {"PYTHONHASHSEED": "0"},
    })
}

/// The launch of a task's try.
pub(crate) fn launch(
    launch: &Launch,
    facts: &dyn Facts,
) -> Result<(ExecutorName, LaunchSpec), String> {
    let workflow = facts.workflow();
    let template =
        workflow.templates.get(launch.template.index()).ok_or("the DAG has no such task")?;
    let TemplateBody::Leaf(leaf) = &template.body else {
        return Err("a task group is not launched".to_owned());
    };
    let task_id = leaf.spec["task_id"].as_str().unwrap_or(&template.name);
    let row = facts.task(launch.id.task).ok_or("the task is gone")?;
    let operator = operator(workflow, launch);
    let origin = Origin::of(workflow);
    if origin.bundle.python.is_empty() || origin.rel_path.is_empty() {
        return Err("the DAG does not say which file and environment it is of".to_owned());
    }
    let carry = Carry::of(&launch.carry).woken();
    if let Some(waits) = waits_from_the_start(&operator, &carry, facts.now()) {
        return Ok((WAITERS, waits));
    }
    let startup = startup(launch, facts, &row, (task_id, &operator), &origin, &carry);
    let deleted = facts
        .output(launch.id.task, "$deleted")
        .and_then(|keys| BTreeSet::deserialize(&*keys).ok())
        .unwrap_or_default();
    let brief = Brief {
        startup,
        carry,
        deleted,
        max_map_length: origin.max_map_length.unwrap_or(MAX_MAP_LENGTH),
        partition: facts.run().partition.clone(),
    };
    let python = json!({
        "function": task_id,
        "adapter": ADAPTER,
        "interpreter": origin.bundle.python,
        "load": {
            "bundle": {"name": origin.bundle.name, "path": origin.bundle.path},
            "file": origin.rel_path,
            "content": origin.content,
            "env": environment(&origin.bundle),
            // Airflow is imported once for all files.
            "base": base(&origin.bundle),
        },
    });
    let spec = LaunchSpec {
        program: origin.bundle.python,
        grace_ms: Some(GRACE_MS),
        extra: json!({"python": python, "airflow": brief}),
        ..LaunchSpec::default()
    };
    Ok(("process", spec))
}

/// The operator as it was serialised, defaults overlaid.
fn operator(workflow: &Workflow, launch: &Launch) -> Json {
    let entry = workflow.templates.get(workflow.entry.index()).map(|template| &template.body);
    let (Some(TemplateBody::Graph(graph)), Some(node)) = (entry, launch.node) else {
        return Json::Null;
    };
    graph.nodes.get(node.index()).map(|node| node.arguments["task"].clone()).unwrap_or_default()
}

/// The wait of a task that its trigger starts, before any worker has it.
fn waits_from_the_start(operator: &Json, carry: &Carry, now: Timestamp) -> Option<LaunchSpec> {
    let given = &operator["start_trigger_args"];
    if operator["start_from_trigger"] != true || carry.next_method.is_some() {
        return None;
    }
    let kwargs = match &given["trigger_kwargs"] {
        Json::Null => json!({}),
        kwargs if kwargs["__type"] == "dict" => kwargs["__var"].clone(),
        kwargs => kwargs.clone(),
    };
    let seconds = [&given["timeout"], &operator["execution_timeout"]];
    let seconds = seconds.into_iter().filter_map(Json::as_f64).reduce(f64::min);
    #[expect(clippy::cast_possible_truncation, reason = "time-outs are years at most")]
    let until = seconds.map(|seconds| now.saturating_add_micros((seconds * 1e6) as i64));
    let carry = Carry {
        next_method: Some(given["next_method"].as_str()?.to_owned()),
        next_kwargs: given["next_kwargs"].clone(),
        trigger: Some(Waiting {
            classpath: given["trigger_cls"].as_str()?.to_owned(),
            kwargs,
            queue: None,
        }),
        timeout_at: until,
        start_date: Some(now),
        ..Carry::default()
    };
    let extra = json!({"until": until, "carry": carry});
    Some(LaunchSpec { extra, ..LaunchSpec::default() })
}

/// Further tries that a task has after the one that it was given.
fn retries(operator: &Json) -> u32 {
    // Of a mapped task the arguments that all instances share are apart.
    let field = operator.get("retries").or_else(|| operator["partial_kwargs"].get("retries"));
    field.and_then(Json::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// `max_tries`: it grows when a task is cleared.
#[must_use]
pub fn max_tries(row: &TaskRow, operator: &Json) -> u32 {
    row.attempts_before + retries(operator)
}

/// `StartupDetails`, but for the start date.
fn startup(
    launch: &Launch,
    facts: &dyn Facts,
    row: &TaskRow,
    (task_id, operator): (&str, &Json),
    origin: &Origin,
    carry: &Carry,
) -> Json {
    let run = facts.run();
    let max_tries = max_tries(row, operator);
    let mut clear = Vec::new();
    if carry.next_method.is_none() {
        let outputs = facts.outputs(launch.id.task);
        clear.extend(outputs.into_iter().map(|(key, _)| key).filter(|key| !key.starts_with('$')));
    }
    let mut context = json!({
        "dag_run": dag_run(run),
        "task_reschedule_count": carry.reschedules,
        "max_tries": max_tries,
        "variables": [],
        "connections": [],
        "xcom_keys_to_clear": clear,
        "should_retry": max_tries != 0 && launch.attempt <= max_tries,
    });
    if let Some(method) = &carry.next_method {
        context["next_method"] = json!(method);
        context["next_kwargs"] = carry.next_kwargs.clone();
        context["start_date"] = json!(carry.start_date);
    }
    let queue = operator["queue"].as_str().unwrap_or("default");
    json!({
        "type": "StartupDetails",
        "ti": {
            "id": ids::task_instance(launch.id.run, launch.id.task, launch.attempt),
            "task_id": task_id,
            "dag_id": run.workflow,
            "run_id": run_id(run),
            "try_number": launch.attempt,
            "dag_version_id": ids::dag_version(&run.version),
            "map_index": launch.index.map_or(-1, i64::from),
            "queue": queue,
        },
        "dag_rel_path": origin.rel_path,
        "bundle_info": {"name": origin.bundle.name, "version": origin.bundle.version},
        "ti_context": context,
        "sentry_integration": "",
    })
}

/// Airflow's id of a run.
#[must_use]
pub fn run_id(run: &RunRow) -> String {
    run.key.clone().unwrap_or_else(|| run.run.to_string())
}

/// A run as the SDK knows it (`DagRun`).
#[must_use]
pub fn dag_run(run: &RunRow) -> Json {
    let own = &run.extra["airflow"];
    let interval = |given: Option<kobza_model::Timestamp>| given.map(|at| at.to_string());
    let run_after = match &own["run_after"] {
        Json::Null => json!(run.created_at),
        given => given.clone(),
    };
    let conf = if run.params.is_object() { run.params.clone() } else { json!({}) };
    let events = match &own["consumed_events"] {
        Json::Array(events) => json!(events),
        _ => json!([]),
    };
    json!({
        "dag_id": run.workflow,
        "run_id": run_id(run),
        "logical_date": own["logical_date"],
        "data_interval_start": interval(run.interval_start),
        "data_interval_end": interval(run.interval_end),
        "run_after": run_after,
        "start_date": run.started_at,
        "end_date": run.ended_at,
        "clear_number": run.generation,
        "run_type": own["run_type"].as_str().unwrap_or("manual"),
        "state": crate::states::run_word(run.state),
        "conf": conf,
        "triggering_user_name": own["triggering_user"],
        "consumed_asset_events": events,
        "partition_key": own["partition_key"],
        "partition_date": own["partition_date"],
        "note": own["note"],
    })
}
