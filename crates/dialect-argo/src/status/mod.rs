//! A run's rows as Argo shows them: the workflow object with its status and nodes.

mod node;
mod resources;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_model::{
    Json, NodeNo, RunRow, RunState, ScopeNo, ScopeRow, TaskNo, TaskRow, TaskState, Timestamp,
    Workflow,
};
use serde_json::json;

use crate::names::{self, Rows, has_retry, phase, template_json, workflow_name};
use crate::values::seconds;
use node::{fails, message};
pub use tree::nodes;

/// Everything that is known of one run.
#[derive(Clone, Debug)]
pub struct RunData {
    pub run: RunRow,
    pub workflow: Arc<Workflow>,
    /// In order of number, none missing.
    pub tasks: Vec<TaskRow>,
    /// In order of number, none missing.
    pub scopes: Vec<ScopeRow>,
    /// Attempts that a newer one replaced.
    pub attempts: Vec<TaskRow>,
    pub outputs: BTreeMap<TaskNo, BTreeMap<String, Arc<Json>>>,
    /// The object that it was started from, as it was written; null: not known.
    pub written: Json,
}

impl Rows for RunData {
    fn run(&self) -> &RunRow {
        &self.run
    }

    fn workflow(&self) -> &Workflow {
        &self.workflow
    }

    fn scope(&self, scope: ScopeNo) -> Option<ScopeRow> {
        self.scopes.get(scope.index()).cloned()
    }

    fn task(&self, task: TaskNo) -> Option<TaskRow> {
        self.tasks.get(task.index()).cloned()
    }

    fn output(&self, task: TaskNo, key: &str) -> Option<Arc<Json>> {
        self.outputs.get(&task)?.get(key).cloned()
    }
}

/// The phase of the workflow as a whole.
#[must_use]
pub fn workflow_phase(data: &RunData) -> &'static str {
    match data.run.state {
        RunState::Queued => "Pending",
        RunState::Running | RunState::Paused | RunState::Cancelling => "Running",
        RunState::Succeeded => "Succeeded",
        RunState::Cancelled => "Failed",
        RunState::Failed => {
            let entry = data.tasks.iter().find(|t| t.scope.0 == 0 && t.node == Some(NodeNo(0)));
            let entry = entry.map_or("Failed", |t| phase(&data.workflow, t));
            let exit = data
                .tasks
                .iter()
                .filter(|t| t.hook.is_some() && t.parent == Some(TaskNo(0)))
                .map(|t| phase(&data.workflow, t));
            match entry {
                "Error" => "Error",
                "Failed" => "Failed",
                _ if exit.clone().any(|p| p == "Error") => "Error",
                _ => "Failed",
            }
        }
    }
}

/// The workflow object: metadata, spec and status.
#[must_use]
pub fn workflow_object(data: &RunData) -> Json {
    let run = &data.run;
    let phase = workflow_phase(data);
    let done = run.state.is_finished();
    let notes = &run.extra["argo"];
    let mut labels = notes["labels"].as_object().cloned().unwrap_or_default();
    labels.insert("workflows.argoproj.io/phase".to_owned(), Json::from(phase));
    if done {
        labels.insert("workflows.argoproj.io/completed".to_owned(), Json::from("true"));
    }
    let mut metadata = json!({
        "name": workflow_name(run),
        "namespace": run.namespace,
        "uid": run.run.to_string(),
        "resourceVersion": version(data),
        "generation": 1 + run.generation,
        "creationTimestamp": seconds(run.created_at),
        "labels": labels,
    });
    for key in ["annotations", "generateName", "ownerReferences"] {
        if let Some(value) = notes.get(key).filter(|v| !v.is_null()) {
            metadata[key] = value.clone();
        }
    }
    let nodes = nodes(data);
    let leaves = nodes.values().filter(|n| n["type"] == "Pod" || n["type"] == "HTTP");
    let total = leaves.clone().count();
    let ended = leaves.filter(|n| !n["finishedAt"].is_null()).count();
    let mut status = json!({
        "phase": phase,
        "startedAt": run.started_at.map(seconds),
        "finishedAt": run.ended_at.map(seconds),
        "progress": format!("{ended}/{total}"),
        "nodes": nodes,
        "conditions": conditions(data, phase),
    });
    if done {
        let mut used = (0, 0);
        for (_, node) in status["nodes"].as_object().into_iter().flatten() {
            if node["type"] == "Pod" || node["type"] == "HTTP" {
                let of = |what: &str| node["resourcesDuration"][what].as_i64().unwrap_or(0);
                used = (used.0 + of("cpu"), used.1 + of("memory"));
            }
        }
        status["resourcesDuration"] = resources::shown(used);
    }
    if let Some(message) = message_of_run(data, phase) {
        status["message"] = Json::from(message);
    }
    if let Some(outputs) = global_outputs(data) {
        status["outputs"] = outputs;
    }
    let mut spec = written_spec(data);
    if run.state == RunState::Paused {
        spec["suspend"] = Json::Bool(true);
    }
    if let Some(stop) = run.stop.as_deref() {
        spec["shutdown"] = Json::from(if stop == "terminate" { "Terminate" } else { "Stop" });
    }
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    })
}

/// The spec as it was written, with the values that its parameters have.
pub(crate) fn written_spec(data: &RunData) -> Json {
    let written = match data.written["kind"].as_str() {
        Some("CronWorkflow") => &data.written["spec"]["workflowSpec"],
        Some(_) => &data.written["spec"],
        None => &data.workflow.source["spec"],
    };
    let mut spec = written.clone();
    let notes = &data.run.extra["argo"]["parameters"];
    let given = data.run.params.as_object().into_iter().flatten();
    let parameters: Vec<Json> = given
        .map(|(name, value)| {
            let value = notes.get(name).unwrap_or(value);
            json!({ "name": name, "value": value })
        })
        .collect();
    if spec["arguments"].is_object() || !parameters.is_empty() {
        spec["arguments"]["parameters"] = Json::Array(parameters);
    }
    spec
}

/// What a task has used, in seconds of CPU and of memory.
pub(crate) fn used(workflow: &Workflow, task: &TaskRow) -> Option<(i64, i64)> {
    resources::of(template_json(workflow, task.template), task)
}

/// A text that changes whenever the object does.
fn version(data: &RunData) -> String {
    let newest = data
        .tasks
        .iter()
        .flat_map(|t| [t.started_at, t.ended_at, t.ready_at])
        .chain([data.run.ended_at, data.run.started_at, Some(data.run.created_at)])
        .flatten()
        .max();
    newest.unwrap_or(Timestamp(0)).0.to_string()
}

fn conditions(data: &RunData, phase: &str) -> Json {
    let running = data
        .tasks
        .iter()
        .any(|t| t.state == TaskState::Running && t.child.is_none() && !t.summary && t.task.0 != 0);
    let mut list = vec![json!({
        "type": "PodRunning", "status": if running { "True" } else { "False" },
    })];
    if data.run.state.is_finished() {
        list.push(json!({ "type": "Completed", "status": "True" }));
    }
    if phase == "Error"
        && let Some(message) = message_of_run(data, phase)
    {
        list.push(json!({ "type": "SpecError", "status": "True", "message": message }));
    }
    Json::Array(list)
}

fn message_of_run(data: &RunData, phase: &str) -> Option<String> {
    if !matches!(phase, "Failed" | "Error") {
        return None;
    }
    match data.run.stop.as_deref() {
        Some("terminate") => return Some("Stopped with strategy 'Terminate'".to_owned()),
        // The deadline's message is that of the node which it ended.
        Some("timeout") => {}
        Some(_) => return Some("Stopped with strategy 'Stop'".to_owned()),
        None => {}
    }
    let entry = data.tasks.iter().find(|t| t.scope.0 == 0 && t.node == Some(NodeNo(0)))?;
    let failed =
        |scope| data.tasks.iter().find(|t| t.scope == scope && fails(data, t)).map(|t| t.task);
    let kind = if has_retry(data, entry) && entry.attempt > 0 { "Retry" } else { "" };
    match self::phase(&data.workflow, entry) {
        "Failed" | "Error" => {
            message(data, entry, kind, &failed).or_else(|| data.run.message.clone())
        }
        _ => data
            .tasks
            .iter()
            .find(|t| {
                t.hook.is_some() && matches!(names::phase(&data.workflow, t), "Failed" | "Error")
            })
            .and_then(|t| message(data, t, "", &failed))
            .or_else(|| data.run.message.clone()),
    }
}

/// Outputs with a global name.
fn global_outputs(data: &RunData) -> Option<Json> {
    let mut out: BTreeMap<&str, BTreeMap<String, Json>> = BTreeMap::new();
    for task in &data.tasks {
        if task.state != TaskState::Succeeded || task.summary || task.task.0 == 0 {
            continue;
        }
        let declared = &template_json(&data.workflow, task.template)["outputs"];
        for side in ["parameters", "artifacts"] {
            for item in declared[side].as_array().into_iter().flatten() {
                let Some(global) = item["globalName"].as_str() else { continue };
                let outputs = data.output(task.task, side);
                let value = outputs.as_ref().and_then(|o| o.get(item["name"].as_str()?));
                if let Some(value) = value {
                    let shown = match side {
                        "parameters" => json!({ "name": global, "value": value }),
                        _ => {
                            let mut shown = value.clone();
                            shown["name"] = Json::from(global);
                            shown
                        }
                    };
                    out.entry(side).or_default().insert(global.to_owned(), shown);
                }
            }
        }
    }
    if out.is_empty() {
        return None;
    }
    let mut json = json!({});
    for (side, items) in out {
        json[side] = items.into_values().collect();
    }
    Some(json)
}
