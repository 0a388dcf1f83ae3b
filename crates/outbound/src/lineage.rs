//! OpenLineage run events: of runs, and of attempts that read or make assets.

use kobza_model::{
    Event, EventKind, Json, RunRow, RunState, TaskId, TaskRow, TaskState, TemplateBody,
};
use kobza_store::Write;
use serde_json::json;

use crate::Parts;
use crate::config;
use crate::follow::Outlet;
use crate::ids::attempt_uuid;
use crate::send::{Failed, post};
use crate::traces::attempt_row;

const SCHEMA: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";
const PARENT: &str =
    "https://openlineage.io/spec/facets/1-0-1/ParentRunFacet.json#/$defs/ParentRunFacet";
const PRODUCER: &str =
    concat!("https://github.com/kobza/kobza/releases/tag/v", env!("CARGO_PKG_VERSION"));

pub(crate) struct Lineage {
    url: String,
}

impl Lineage {
    pub(crate) fn new(config: config::Lineage) -> Self {
        Self { url: config.url }
    }
}

fn datasets(names: &[String]) -> Json {
    let all = names.iter().map(|name| match name.split_once("://") {
        // The place is the namespace, the rest the name, as the specification's naming has it.
        Some((scheme, rest)) => {
            let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
            json!({"namespace": format!("{scheme}://{place}"), "name": if path.is_empty() { "/" } else { path }})
        }
        None => json!({"namespace": "kobza", "name": name}),
    });
    Json::Array(all.collect())
}

fn event_of(event: &Event, kind: &str, run: Json, job: Json, io: (&[String], &[String])) -> Json {
    json!({
        "eventType": kind, "eventTime": event.at, "producer": PRODUCER, "schemaURL": SCHEMA,
        "run": run, "job": job, "inputs": datasets(io.0), "outputs": datasets(io.1),
    })
}

fn run_event(event: &Event, state: RunState, row: &RunRow) -> Option<Json> {
    let kind = match state {
        RunState::Running => "START",
        RunState::Succeeded => "COMPLETE",
        RunState::Failed => "FAIL",
        RunState::Cancelled => "ABORT",
        _ => return None,
    };
    let job = json!({"namespace": row.namespace, "name": row.workflow});
    let run = json!({"runId": row.run, "facets": {}});
    Some(event_of(event, kind, run, job, (&[], &[])))
}

fn task_event(
    event: &Event,
    state: TaskState,
    task: &TaskRow,
    row: &RunRow,
    io: (&[String], &[String]),
) -> Option<Json> {
    let kind = match state {
        TaskState::Running => "START",
        TaskState::Succeeded => "COMPLETE",
        TaskState::Failed | TaskState::RetryWait => "FAIL",
        TaskState::Cancelled => "ABORT",
        _ => return None,
    };
    let id = TaskId { run: task.run, task: task.task };
    let job =
        json!({"namespace": row.namespace, "name": format!("{}.{}", row.workflow, task.name)});
    let run = json!({
        "runId": attempt_uuid(id, task.attempt),
        "facets": {"parent": {
            "_producer": PRODUCER, "_schemaURL": PARENT,
            "run": {"runId": row.run},
            "job": {"namespace": row.namespace, "name": row.workflow},
        }},
    });
    Some(event_of(event, kind, run, job, io))
}

/// Assets that a task's node reads and makes.
fn assets(
    parts: &Parts,
    row: &RunRow,
    task: &TaskRow,
) -> Result<(Vec<String>, Vec<String>), String> {
    let Some(node) = task.node else { return Ok(Default::default()) };
    let stored = parts
        .store
        .workflow(&row.namespace, &row.workflow, Some(&row.version))
        .map_err(|e| e.to_string())?;
    let Some(stored) = stored else { return Ok(Default::default()) };
    let scopes = parts.views.run_scopes(row.run).map_err(|e| e.to_string())?;
    let template = scopes.iter().find(|s| s.scope == task.scope).map(|s| s.template);
    let node =
        template.and_then(|t| stored.workflow.templates.get(t.index())).and_then(|t| {
            match &t.body {
                TemplateBody::Graph(graph) => graph.nodes.get(node.index()),
                TemplateBody::Leaf(_) => None,
            }
        });
    Ok(node.map(|n| (n.consumes.clone(), n.produces.clone())).unwrap_or_default())
}

impl Outlet for Lineage {
    fn name(&self) -> &'static str {
        "lineage"
    }

    fn take(&mut self, events: &[(u64, Event)], parts: &Parts) -> Result<Vec<Write>, String> {
        for (_, event) in events {
            let Some(run) = event.run else { continue };
            let body = match (&event.kind, event.task) {
                (EventKind::Run { state, .. }, _) => {
                    let row = parts.views.get_run(run).map_err(|e| e.to_string())?;
                    row.and_then(|row| run_event(event, *state, &row))
                }
                (EventKind::Task { state, attempt, .. }, Some(task)) if *attempt > 0 => {
                    let row = parts.views.get_run(run).map_err(|e| e.to_string())?;
                    let task = attempt_row(parts, TaskId { run, task }, *attempt)?;
                    match row.zip(task.filter(|task| !task.summary)) {
                        Some((row, task)) => {
                            let (reads, makes) = assets(parts, &row, &task)?;
                            task_event(event, *state, &task, &row, (&reads, &makes))
                        }
                        None => None,
                    }
                }
                _ => None,
            };
            let Some(body) = body else { continue };
            match post(&self.url, &[], &body.to_string()) {
                Ok(()) => {}
                Err(Failed::Later(error)) => return Err(error),
                // The same again would be refused again, and hold up all that follows.
                Err(Failed::Refused(error)) => {
                    tracing::error!(error, "a lineage event was refused")
                }
            }
        }
        Ok(Vec::new())
    }
}
