//! One node of `status.nodes`: its fields, its message, its inputs and outputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_model::{Cause, Json, ScopeNo, TaskNo, TaskRow, TaskState};
use serde_json::{Map, json};

use super::tree::Tree;
use super::{RunData, resources};
use crate::names::{
    self, has_retry, item_of, node_id, node_name, node_of, phase, template_json, template_spec,
    workflow_name,
};
use crate::values::seconds;

impl Tree<'_> {
    pub(super) fn describe(
        &self,
        task: &TaskRow,
        name: &str,
        kind: &'static str,
        boundary: Option<&str>,
    ) -> Json {
        let workflow = self.workflow();
        let id = node_id(&self.run, name);
        let ended = task.state.is_finished();
        let word = phase(workflow, task);
        let start = task.started_at.or(task.ended_at).or(task.ready_at);
        let mut node = json!({
            "id": id,
            "name": name,
            "displayName": display_name(self.data, task, name),
            "type": kind,
            "phase": word,
            "startedAt": start.map(seconds),
            "finishedAt": task.ended_at.filter(|_| ended).map(seconds),
        });
        if kind != "StepGroup" {
            let template = &workflow.templates[task.template.index()].name;
            self.template_names(&mut node, task, template);
        }
        node["templateScope"] = Json::from(self.scope_text(task));
        if let Some(boundary) = boundary {
            node["boundaryID"] = Json::from(boundary);
        }
        if let Some(message) =
            message(self.data, task, kind, &|scope| self.failed.get(&scope).copied())
        {
            node["message"] = Json::from(message);
        }
        if let Some(inputs) = inputs(&task.inputs) {
            node["inputs"] = inputs;
        }
        let own = self.data.outputs.get(&task.task).filter(|_| kind != "TaskGroup");
        if let Some(outputs) = outputs(task, own, kind) {
            node["outputs"] = outputs;
        }
        if matches!(kind, "Pod" | "HTTP") {
            node["progress"] = Json::from(if ended { "1/1" } else { "0/1" });
            node["hostNodeName"] = Json::from("localhost");
            let used = resources::of(template_json(workflow, task.template), task);
            if let Some(used) = used.filter(|_| ended) {
                node["resourcesDuration"] = resources::shown(used);
            }
        }
        let kept = own.and_then(|own| own.get("$cache")).and_then(|key| key.as_str());
        if let Some(key) = kept.or(task.inputs["$cache_key"].as_str()).filter(|_| kind != "Retry") {
            let mut parts = key.splitn(3, '/').skip(1);
            node["memoizationStatus"] = json!({
                "hit": task.cause == Cause::Cache,
                "cacheName": parts.next(), "key": parts.next(),
            });
        }
        if kind == "Pod" && self.is_up(task) {
            node["daemoned"] = Json::Bool(true);
        }
        if task.hook.is_some() {
            node["nodeFlag"] = json!({ "hooked": true });
        }
        node
    }

    /// Whose template a task's is.
    pub(super) fn scope_text(&self, task: &TaskRow) -> String {
        match template_spec(self.workflow(), task.template)["scope"].as_str() {
            Some("local/") | None => format!("local/{}", self.run),
            Some(scope) => scope.to_owned(),
        }
    }

    fn template_names(&self, node: &mut Json, task: &TaskRow, template: &str) {
        let call = task.node.and_then(|number| {
            let scope = self.data.scopes.get(task.scope.index())?;
            Some(&node_of(self.workflow(), scope.template, number)?.arguments["call"])
        });
        match call.and_then(|c| c.get("templateRef")) {
            Some(reference) => node["templateRef"] = reference.clone(),
            None if template.starts_with("$inline") => {}
            None => node["templateName"] = Json::from(template),
        }
    }
}

fn display_name(data: &RunData, task: &TaskRow, name: &str) -> String {
    if name == workflow_name(&data.run) {
        return name.to_owned();
    }
    let mut shown = task.name.clone();
    if let Some(index) = task.index {
        let item = item_of(data, task).map(|i| names::item_text(&i)).unwrap_or_default();
        shown = format!("{shown}({index}:{item})");
    }
    // Only attempts have names of their own.
    let outer = if has_retry(data, task) { node_name(data, task) } else { name.to_owned() };
    match name.strip_prefix(&outer) {
        // An attempt of the root is shown with the workflow's name.
        Some(attempt) if !attempt.is_empty() => {
            if outer == workflow_name(&data.run) {
                name.to_owned()
            } else {
                format!("{shown}{attempt}")
            }
        }
        _ => match task.hook.and(task.parent).and_then(|p| data.tasks.get(p.index())) {
            Some(owner) if owner.task.0 != 0 => {
                format!("{}.{shown}", display_name(data, owner, &node_name(data, owner)))
            }
            _ if task.hook.is_some() => format!("{}.{shown}", workflow_name(&data.run)),
            _ => shown,
        },
    }
}

/// Messages that are a retry node's rather than its last attempt's.
const RETRY_MESSAGES: &[&str] = &[
    "No more retries left",
    "retryStrategy.expression evaluated to false",
    "Max duration limit exceeded",
    "Backoff would exceed max duration limit",
];

/// The message of a node. `failed` answers for the first task of a scope that failed.
pub(super) fn message(
    data: &RunData,
    task: &TaskRow,
    kind: &str,
    failed: &dyn Fn(ScopeNo) -> Option<TaskNo>,
) -> Option<String> {
    let workflow = &data.workflow;
    let word = phase(workflow, task);
    let of_code = || {
        task.exit_code
            .filter(|code| *code != 0)
            .map(|code| format!("main: Error (exit code {code})"))
    };
    match word {
        "Omitted" => return Some("omitted: depends condition not met".to_owned()),
        "Succeeded" | "Running" | "Pending" => {
            return task.message.clone().filter(|_| word != "Succeeded");
        }
        _ => {}
    }
    if task.state == TaskState::Cancelled {
        return Some(match (task.cause, data.run.stop.as_deref()) {
            (Cause::FailFast, _) => {
                "template has failed or errored children and failFast enabled".to_owned()
            }
            (_, Some("terminate")) => "workflow shutdown with strategy:  Terminate".to_owned(),
            (_, Some(_)) => "workflow shutdown with strategy:  Stop".to_owned(),
            _ => task.message.clone().unwrap_or_else(|| "stopped".to_owned()),
        });
    }
    if task.cause == Cause::Timeout {
        return Some("Step exceeded its deadline".to_owned());
    }
    let role = template_spec(workflow, task.template)["role"].as_str().unwrap_or("");
    let fast = matches!(role, "steps" | "dag") && kind != "Retry" && {
        let template = template_json(workflow, task.template);
        template.get("parallelism").is_some() && template["failFast"].as_bool().unwrap_or(false)
    };
    if fast && word == "Failed" {
        return Some("template has failed or errored children and failFast enabled".to_owned());
    }
    if matches!(role, "steps" | "group") && kind != "Retry" && word == "Failed" {
        let child = task.child.and_then(failed).and_then(|task| data.tasks.get(task.index()));
        if let Some(child) = child {
            if role == "steps" {
                return message(data, child, "StepGroup", failed);
            }
            let id = node_id(workflow_name(&data.run), &node_name(data, child));
            return Some(format!("child '{id}' failed"));
        }
    }
    let of_retry = task.message.as_deref().is_some_and(|m| RETRY_MESSAGES.contains(&m));
    if of_retry && kind != "Retry" {
        return of_code();
    }
    if matches!(role, "dag") && word == "Failed" {
        return None;
    }
    task.message.clone().or_else(of_code)
}

/// Whether a task makes the graph that it is in fail.
pub(super) fn fails(data: &RunData, task: &TaskRow) -> bool {
    !task.summary
        && task.hook.is_none()
        && matches!(phase(&data.workflow, task), "Failed" | "Error")
}

fn inputs(resolved: &Json) -> Option<Json> {
    let mut out = Map::new();
    if let Some(parameters) = resolved["parameters"].as_object().filter(|p| !p.is_empty()) {
        let list: Vec<Json> = parameters
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": value }))
            .collect();
        out.insert("parameters".to_owned(), Json::Array(list));
    }
    if let Some(artifacts) = resolved["artifacts"].as_object().filter(|a| !a.is_empty()) {
        let list: Vec<Json> = artifacts
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| {
                let mut shown = value.clone();
                shown["name"] = Json::from(name.as_str());
                shown
            })
            .collect();
        out.insert("artifacts".to_owned(), Json::Array(list));
    }
    (!out.is_empty()).then_some(Json::Object(out))
}

fn outputs(task: &TaskRow, own: Option<&BTreeMap<String, Arc<Json>>>, kind: &str) -> Option<Json> {
    let mut out = Map::new();
    if let Some(own) = own {
        if let Some(parameters) = own.get("parameters").and_then(|p| p.as_object()) {
            let list: Vec<Json> = parameters
                .iter()
                .map(|(name, value)| json!({ "name": name, "value": value }))
                .collect();
            out.insert("parameters".to_owned(), Json::Array(list));
        }
        if let Some(artifacts) = own.get("artifacts").and_then(|a| a.as_object()) {
            out.insert("artifacts".to_owned(), artifacts.values().cloned().collect());
        }
        if let Some(result) = own.get("result") {
            out.insert("result".to_owned(), (**result).clone());
        }
    }
    if kind == "Pod" && task.state.is_finished() {
        let code = task.exit_code.or((task.state == TaskState::Succeeded).then_some(0));
        if let Some(code) = code {
            out.insert("exitCode".to_owned(), Json::from(code.to_string()));
        }
    }
    (!out.is_empty()).then_some(Json::Object(out))
}
