//! Names and identifiers of nodes, as Argo's users know them.

use std::sync::Arc;

use kobza_model::{
    Json, NodeNo, RunRow, ScopeNo, ScopeRow, TaskNo, TaskRow, TemplateBody, TemplateNo, Workflow,
};

use crate::normal::scalar_text;

/// Rows of one run, wherever they come from.
pub(crate) trait Rows {
    fn run(&self) -> &RunRow;
    fn workflow(&self) -> &Workflow;
    fn scope(&self, scope: ScopeNo) -> Option<ScopeRow>;
    fn task(&self, task: TaskNo) -> Option<TaskRow>;
    fn output(&self, task: TaskNo, key: &str) -> Option<Arc<Json>>;
}

/// FNV-1a over 32 bits, in decimal: the suffix of node ids and pod names.
#[must_use]
pub fn fnv32a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A node's id: the workflow's name for the root, else name and hash.
#[must_use]
pub fn node_id(workflow: &str, node_name: &str) -> String {
    if node_name == workflow {
        workflow.to_owned()
    } else {
        format!("{workflow}-{}", fnv32a(node_name))
    }
}

/// Longest part of a pod's name before the hash.
const POD_PREFIX_CHARS: usize = 242;

/// The name of the pod that upstream would make for a node.
#[must_use]
pub fn pod_name(workflow: &str, node_name: &str, template: &str) -> String {
    if node_name == workflow {
        return workflow.to_owned();
    }
    let mut prefix =
        if template.is_empty() { workflow.to_owned() } else { format!("{workflow}-{template}") };
    if prefix.len() > POD_PREFIX_CHARS {
        let end = (0..=POD_PREFIX_CHARS).rev().find(|at| prefix.is_char_boundary(*at)).unwrap_or(0);
        prefix.truncate(end);
    }
    format!("{prefix}-{}", fnv32a(node_name))
}

/// The workflow object's name: what the run is called outside.
pub(crate) fn workflow_name(run: &RunRow) -> &str {
    run.extra
        .pointer("/argo/name")
        .and_then(Json::as_str)
        .or(run.key.as_deref())
        .unwrap_or(&run.workflow)
}

/// The opaque part of a template.
pub(crate) fn template_spec(workflow: &Workflow, template: TemplateNo) -> &Json {
    match workflow.templates.get(template.index()).map(|t| &t.body) {
        Some(TemplateBody::Leaf(leaf)) => &leaf.spec,
        Some(TemplateBody::Graph(graph)) => &graph.spec,
        None => &Json::Null,
    }
}

/// The template as it is written, without steps and tasks.
pub(crate) fn template_json(workflow: &Workflow, template: TemplateNo) -> &Json {
    &template_spec(workflow, template)["template"]
}

/// The node of the definition that a task is an instance of.
pub(crate) fn node_of(
    workflow: &Workflow,
    scope_template: TemplateNo,
    node: NodeNo,
) -> Option<&kobza_model::Node> {
    match &workflow.templates.get(scope_template.index())?.body {
        TemplateBody::Graph(graph) => graph.nodes.get(node.index()),
        TemplateBody::Leaf(_) => None,
    }
}

/// Whether attempts of a task are nodes of their own.
pub(crate) fn has_retry(rows: &dyn Rows, task: &TaskRow) -> bool {
    let (Some(node), Some(scope)) = (task.node, rows.scope(task.scope)) else { return false };
    node_of(rows.workflow(), scope.template, node).is_some_and(|n| n.retry.is_some())
}

/// The text of a loop's item in a node's name.
pub(crate) fn item_text(item: &Json) -> String {
    let text = match item {
        Json::Object(entries) => {
            let mut pairs: Vec<String> = entries
                .iter()
                .map(|(key, value)| {
                    format!("{key}:{}", scalar_text(value).unwrap_or_else(|| value.to_string()))
                })
                .collect();
            pairs.sort();
            pairs.join(",")
        }
        other => scalar_text(other).unwrap_or_else(|| other.to_string()),
    };
    text.replace(['(', ')'], "")
}

/// The item of an instance of a loop.
pub(crate) fn item_of(rows: &dyn Rows, task: &TaskRow) -> Option<Json> {
    let items = rows.output(task.parent?, "$items")?;
    items.get(task.index? as usize).cloned()
}

/// The full name of a task's node: of its retry node, where attempts are nodes of their own.
pub(crate) fn node_name(rows: &dyn Rows, task: &TaskRow) -> String {
    let root = || workflow_name(rows.run()).to_owned();
    if task.task.0 == 0 {
        return root();
    }
    if task.hook.is_some() {
        let owner = match task.parent.and_then(|p| rows.task(p)) {
            Some(owner) => node_name(rows, &owner),
            None => root(),
        };
        return format!("{owner}.{}", task.name);
    }
    let Some(scope) = rows.scope(task.scope) else { return root() };
    let owner = match scope.owner {
        None | Some(TaskNo(0)) => return root(),
        Some(owner) => owner,
    };
    let Some(owner) = rows.task(owner) else { return root() };
    let mut name = node_name(rows, &owner);
    if has_retry(rows, &owner) {
        name = format!("{name}({})", scope.attempt.saturating_sub(1));
    }
    if template_spec(rows.workflow(), scope.template)["role"] == "steps" {
        name.push_str(&task.name);
    } else {
        name.push('.');
        name.push_str(&task.name);
    }
    if let Some(index) = task.index {
        let item = item_of(rows, task).map(|i| item_text(&i)).unwrap_or_default();
        name.push_str(&format!("({index}:{item})"));
    }
    name
}

/// The name of the node of a task's current attempt.
pub(crate) fn attempt_name(rows: &dyn Rows, task: &TaskRow) -> String {
    let name = node_name(rows, task);
    if has_retry(rows, task) { format!("{name}({})", task.attempt.max(1) - 1) } else { name }
}

/// The phase of a task's node.
pub(crate) fn phase(workflow: &Workflow, task: &TaskRow) -> &'static str {
    use kobza_model::{Cause, TaskState};
    match task.state {
        TaskState::Pending | TaskState::Ready | TaskState::Queued => "Pending",
        TaskState::Running
        | TaskState::RetryWait
        | TaskState::Deferred
        | TaskState::Rescheduled
        | TaskState::Suspended
        | TaskState::Cancelling => "Running",
        TaskState::Succeeded => "Succeeded",
        TaskState::Skipped if task.cause == Cause::Gate => "Omitted",
        TaskState::Skipped => "Skipped",
        TaskState::UpstreamFailed | TaskState::Removed => "Omitted",
        TaskState::Cancelled => "Failed",
        TaskState::Failed => {
            // A steps template is failed by its groups, whatever the reason inside.
            let role = &template_spec(workflow, task.template)["role"];
            let composite_steps = role == "steps" && task.child.is_some();
            if crate::depends::ERROR_CAUSES.contains(&task.cause) && !composite_steps {
                "Error"
            } else {
                "Failed"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_names() {
        assert_eq!(fnv32a(""), 0x811c_9dc5);
        assert_eq!(fnv32a("a"), 0xe40c_292c);
        assert_eq!(fnv32a("foobar"), 0xbf9c_f968);
        assert_eq!(node_id("wf", "wf"), "wf");
        assert_eq!(pod_name("wf", "wf", "t"), "wf");
        assert_eq!(pod_name("wf", "wf.a", "t"), format!("wf-t-{}", fnv32a("wf.a")));
        assert_eq!(
            pod_name(&"n".repeat(300), "n.a", "t").len(),
            242 + 1 + fnv32a("n.a").to_string().len()
        );
        assert_eq!(item_text(&serde_json::json!({"b": 2, "a": "x(1)"})), "a:x1,b:2");
        assert_eq!(item_text(&serde_json::json!(1.0)), "1");
    }
}
