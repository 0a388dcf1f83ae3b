//! Outputs of nodes: of one, of a loop as a whole, and those that are global.

use std::sync::Arc;

use kobza_expr::argo_template::Found;
use kobza_model::{Json, NodeNo, ScopeNo, TaskNo, TaskRow, TaskState};
use kobza_runtime::Facts;

use crate::names::template_json;

/// An output of a node, by what follows `outputs.` in its reference.
pub(crate) fn find(
    facts: &dyn Facts,
    scope: ScopeNo,
    node: NodeNo,
    task: &TaskRow,
    output: &str,
) -> Found {
    if let Some(length) = facts.expansion(scope, node).filter(|n| *n > 0) {
        return aggregate(facts, scope, node, length, output);
    }
    let text = |json: Option<Arc<Json>>, name: &str| -> Option<String> {
        let json = json?;
        let value = if name.is_empty() { &*json } else { json.get(name)? };
        Some(match value {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        })
    };
    let (side, name) = output.split_once('.').unwrap_or((output, ""));
    let found = match side {
        "result" | "exitCode" => text(facts.output(task.task, side), ""),
        "parameters" | "artifacts" if !name.is_empty() => text(facts.output(task.task, side), name),
        _ => None,
    };
    match found {
        Some(value) => Found::Text(value),
        None if matches!(task.state, TaskState::Skipped | TaskState::UpstreamFailed) => {
            match default(facts, task, side, name) {
                Some(value) => Found::Text(value),
                None => Found::Absent,
            }
        }
        None => Found::Unknown,
    }
}

/// What an output parameter is when its producer did not run.
fn default(facts: &dyn Facts, task: &TaskRow, side: &str, name: &str) -> Option<String> {
    if side != "parameters" {
        return None;
    }
    let declared = &template_json(facts.workflow(), task.template)["outputs"]["parameters"];
    let declared = declared.as_array()?.iter().find(|p| p["name"].as_str() == Some(name))?;
    let value = declared["valueFrom"]["default"].as_str().or(declared["default"].as_str())?;
    // A default with tags refers to inputs that the producer never got.
    (!value.contains("{{")).then(|| value.to_owned())
}

/// Outputs of the instances that succeeded, in order, as one JSON list.
fn aggregate(facts: &dyn Facts, scope: ScopeNo, node: NodeNo, length: u32, output: &str) -> Found {
    let (side, name) = output.split_once('.').unwrap_or((output, ""));
    let mut values: Vec<Json> = Vec::new();
    for index in 0..length {
        let Some(task) = facts.task_of(scope, node, Some(index)) else { continue };
        if task.state != TaskState::Succeeded {
            continue;
        }
        let Some(value) = facts.output(task.task, side) else { continue };
        if name.is_empty() {
            values.push((*value).clone());
        } else if let Some(value) = value.get(name) {
            values.push(value.clone());
        }
    }
    match (side, name) {
        ("result", "") => {
            // Each result is read as JSON where it is JSON.
            let items = values.into_iter().map(|value| match value.as_str() {
                Some(text) => serde_json::from_str(text).unwrap_or(value),
                None => value,
            });
            Found::Text(items.collect::<Json>().to_string())
        }
        ("parameters", "") => Found::Text(Json::Array(values).to_string()),
        ("parameters", _) if !values.is_empty() => {
            // Lists and maps stay such, but only if all are.
            let parsed: Option<Vec<Json>> = values
                .iter()
                .map(|value| {
                    let json: Json = serde_json::from_str(value.as_str()?).ok()?;
                    (json.is_array() || json.is_object()).then_some(json)
                })
                .collect();
            Found::Text(Json::Array(parsed.unwrap_or(values)).to_string())
        }
        _ => Found::Unknown,
    }
}

/// A global output (`parameters.x`, `artifacts.x`): what the task that ended last wrote.
pub(crate) fn global(facts: &dyn Facts, name: &str) -> Option<String> {
    let (side, name) = name.split_once('.')?;
    let mut newest: Option<(kobza_model::Timestamp, Json)> = None;
    for number in 1.. {
        let Some(task) = facts.task(TaskNo(number)) else { break };
        let Some(ended) = task.ended_at.filter(|_| task.state == TaskState::Succeeded) else {
            continue;
        };
        if task.summary {
            continue;
        }
        let declared = &template_json(facts.workflow(), task.template)["outputs"][side];
        for item in declared.as_array().into_iter().flatten() {
            if item["globalName"].as_str() != Some(name) {
                continue;
            }
            let Some(outputs) = facts.output(task.task, side) else { continue };
            if let Some(value) = item["name"].as_str().and_then(|n| outputs.get(n))
                && newest.as_ref().is_none_or(|(at, _)| *at <= ended)
            {
                newest = Some((ended, value.clone()));
            }
        }
    }
    newest.map(|(_, value)| match value {
        Json::String(text) => text,
        other => other.to_string(),
    })
}
