//! What a task runs, with its templates filled in again by its dialect.

use std::cell::Cell;
use std::sync::Arc;

use axum::extract::State;
use kobza_model::{
    Json as Value, NodeNo, RunId, RunRow, ScopeNo, ScopeRow, TaskId, TaskNo, TaskRow, Timestamp,
    Workflow,
};
use kobza_runtime::Facts;
use kobza_store::{TaskFilter, Views, kinds};
use schemars::JsonSchema;
use serde::Serialize;

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, Path};
use crate::runs::load;
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::tasks::task_id;

pub(crate) fn routes() -> Routes {
    Routes::new().get("/tasks/{id}/rendered", (Viewer, Space::Run), "What a task runs", rendered)
}

/// Stands where a secret stands.
const HIDDEN: &str = "***";
/// Reads of the store for one task: one that reads a large map's outputs is not shown.
const MOST_READS: u32 = 2000;

/// A task's body with values in place of its templates.
#[derive(Serialize, JsonSchema)]
struct RenderedTask {
    /// What colours the text: `bash`, `python`, `sql`, `text`.
    language: Option<&'static str>,
    text: Option<String>,
    /// Arguments by name.
    inputs: Value,
    /// Why it cannot be shown, such as an output that is not there yet.
    problem: Option<String>,
}

async fn rendered(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<RenderedTask>, ApiError> {
    let id = task_id(&id)?;
    let run = load(&state, id.run).await?;
    let catalog = state.catalog.clone();
    let now = kobza_runtime::wall_now();
    let shown = state
        .read(move |views| {
            let version = Some(run.version.as_str());
            let Some(stored) = views.get_workflow(&run.namespace, &run.workflow, version)? else {
                return Ok(None);
            };
            let facts =
                Stored { views, run: &run, workflow: stored.workflow, now, reads: Cell::new(0) };
            let rendered = catalog.rendered(&facts, id.task);
            if facts.reads.get() > MOST_READS {
                return Ok(Some(Err("it reads more outputs than can be shown".to_owned())));
            }
            Ok(rendered.transpose())
        })
        .await?;
    Ok(Json(match shown {
        Some(Ok(rendered)) => RenderedTask {
            language: Some(rendered.language),
            text: Some(rendered.text),
            inputs: rendered.inputs,
            problem: None,
        },
        Some(Err(problem)) => {
            RenderedTask { language: None, text: None, inputs: Value::Null, problem: Some(problem) }
        }
        None => RenderedTask { language: None, text: None, inputs: Value::Null, problem: None },
    }))
}

/// A run as the store has it. Nothing secret is told.
struct Stored<'a> {
    views: &'a dyn Views,
    run: &'a RunRow,
    workflow: Arc<Workflow>,
    now: Timestamp,
    reads: Cell<u32>,
}

impl Stored<'_> {
    /// One read; `None` when there were too many, or when it failed.
    fn read<T>(&self, look: impl FnOnce() -> Result<T, kobza_store::ViewError>) -> Option<T> {
        self.reads.set(self.reads.get() + 1);
        if self.reads.get() > MOST_READS {
            return None;
        }
        look().inspect_err(|error| tracing::error!(%error, "a fact could not be read")).ok()
    }

    fn id(&self, task: TaskNo) -> TaskId {
        TaskId { run: self.run.run, task }
    }
}

impl Facts for Stored<'_> {
    fn run(&self) -> &RunRow {
        self.run
    }

    fn workflow(&self) -> &Arc<Workflow> {
        &self.workflow
    }

    fn now(&self) -> Timestamp {
        self.now
    }

    fn scope(&self, scope: ScopeNo) -> Option<ScopeRow> {
        let scopes = self.read(|| self.views.run_scopes(self.run.run))?;
        scopes.into_iter().find(|row| row.scope == scope)
    }

    fn task(&self, task: TaskNo) -> Option<TaskRow> {
        self.read(|| self.views.get_task(self.id(task)))?
    }

    fn task_of(&self, scope: ScopeNo, node: NodeNo, index: Option<u32>) -> Option<TaskRow> {
        let filter = TaskFilter {
            scope: Some(scope),
            node: Some(node),
            index_from: index,
            index_until: index.map(|i| i.saturating_add(1)),
            hide_instances: index.is_none(),
            ..TaskFilter::default()
        };
        let page = self.read(|| self.views.list_tasks(self.run.run, &filter, None, 1))?;
        page.items.into_iter().next()
    }

    fn expansion(&self, scope: ScopeNo, node: NodeNo) -> Option<u32> {
        let all = self.read(|| self.views.run_expansions(self.run.run))?;
        all.into_iter().find(|row| row.scope == scope && row.node == node).map(|row| row.length)
    }

    fn output(&self, task: TaskNo, key: &str) -> Option<Arc<Value>> {
        self.read(|| self.views.task_output(self.id(task), key))?.map(Arc::new)
    }

    fn outputs(&self, task: TaskNo) -> Vec<(String, Arc<Value>)> {
        let all = self.read(|| self.views.task_outputs(self.id(task))).unwrap_or_default();
        all.into_iter().map(|(key, value)| (key, Arc::new(value))).collect()
    }

    fn live_runs(&self) -> Vec<RunRow> {
        Vec::new()
    }

    fn tasks_in(&self, _: RunId, _: &str) -> Vec<TaskRow> {
        Vec::new()
    }

    fn lookup(&self, kind: &str, name: &str) -> Option<Arc<Value>> {
        let hidden = || Some(Arc::new(Value::from(HIDDEN)));
        match kind {
            kinds::SECRET => hidden(),
            kinds::VARIABLE => {
                let found = self.read(|| self.views.get_object(kind, &self.run.namespace, name))?;
                let value = found?.value;
                match value.get("sealed") {
                    Some(sealed) if !sealed.is_null() => hidden(),
                    _ => value.get("value").cloned().map(Arc::new),
                }
            }
            // Connections hold passwords, and are no part of a text.
            _ => None,
        }
    }

    fn cached(&self, _: &str) -> Option<(Timestamp, Vec<(String, Value)>)> {
        None
    }
}
