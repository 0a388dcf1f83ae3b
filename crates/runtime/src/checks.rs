//! What became of checks: events that follow from a batch.

use std::sync::Arc;

use kobza_engine::Batch;
use kobza_model::{
    Event, EventKind, RunId, ScopeNo, TaskState, TemplateBody, TemplateNo, Workflow,
};
use serde::Deserialize;

/// A check's description, as native workflows have it in their nodes' arguments.
#[derive(Deserialize)]
struct Check {
    name: String,
    assets: Vec<String>,
    blocking: bool,
}

/// One `Checked` event per asset for each check task that ended in this batch.
pub(crate) fn checked(
    batch: &Batch,
    workflow: impl Fn(RunId) -> Option<Arc<Workflow>>,
    template: impl Fn(RunId, ScopeNo) -> Option<TemplateNo>,
) -> Vec<Event> {
    let mut found = Vec::new();
    for task in &batch.tasks {
        if task.summary || !matches!(task.state, TaskState::Succeeded | TaskState::Failed) {
            continue;
        }
        let Some(node) = task.node else { continue };
        let Some(workflow) = workflow(task.run).filter(|w| w.dialect == "native") else { continue };
        let Some(template) = template(task.run, task.scope) else { continue };
        let Some(TemplateBody::Graph(graph)) =
            workflow.templates.get(template.index()).map(|t| &t.body)
        else {
            continue;
        };
        let Some(check) = graph.nodes.get(node.index()).and_then(|n| n.arguments.get("check"))
        else {
            continue;
        };
        let Ok(check) = Check::deserialize(check) else { continue };
        // A row may be written again later, when its hooks are over: only the end itself counts.
        let end = batch.events.iter().find(|event| {
            event.run == Some(task.run)
                && event.task == Some(task.task)
                && matches!(event.kind, EventKind::Task { state, .. } if state == task.state)
        });
        let Some(end) = end else { continue };
        found.extend(check.assets.into_iter().map(|asset| Event {
            at: end.at,
            run: end.run,
            task: end.task,
            kind: EventKind::Checked {
                asset,
                check: check.name.clone(),
                passed: task.state == TaskState::Succeeded,
                blocking: check.blocking,
                detail: task.message.clone().unwrap_or_default(),
            },
        }));
    }
    found
}
