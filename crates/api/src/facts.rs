//! A run as dialects see it, from the store alone.

use std::cell::Cell;
use std::sync::Arc;

use kobza_model::{
    Json as Value, NodeNo, RunId, RunRow, ScopeNo, ScopeRow, TaskId, TaskNo, TaskRow, Timestamp,
    Workflow,
};
use kobza_runtime::Facts;
use kobza_store::{TaskFilter, ViewError, Views, kinds};

/// Stands where a secret stands.
const HIDDEN: &str = "***";
/// Reads of the store for one task: one that reads a large map's outputs is not shown.
const MOST_READS: u32 = 2000;

/// A run as the store has it. Nothing secret is told.
pub(crate) struct StoredFacts<'a> {
    views: &'a dyn Views,
    run: &'a RunRow,
    workflow: Arc<Workflow>,
    now: Timestamp,
    reads: Cell<u32>,
}

impl<'a> StoredFacts<'a> {
    /// Of a run; none if its version is gone.
    pub(crate) fn read(
        views: &'a dyn Views,
        run: &'a RunRow,
        now: Timestamp,
    ) -> Result<Option<Self>, ViewError> {
        let stored = views.get_workflow(&run.namespace, &run.workflow, Some(&run.version))?;
        Ok(stored.map(|s| Self { views, run, workflow: s.workflow, now, reads: Cell::new(0) }))
    }

    /// Whether more was read than one task may take.
    pub(crate) fn reads_too_much(&self) -> bool {
        self.reads.get() > MOST_READS
    }
}

impl StoredFacts<'_> {
    /// One read; `None` when there were too many, or when it failed.
    fn look<T>(&self, look: impl FnOnce() -> Result<T, ViewError>) -> Option<T> {
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

impl Facts for StoredFacts<'_> {
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
        let scopes = self.look(|| self.views.run_scopes(self.run.run))?;
        scopes.into_iter().find(|row| row.scope == scope)
    }

    fn task(&self, task: TaskNo) -> Option<TaskRow> {
        self.look(|| self.views.get_task(self.id(task)))?
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
        let page = self.look(|| self.views.list_tasks(self.run.run, &filter, None, 1))?;
        page.items.into_iter().next()
    }

    fn expansion(&self, scope: ScopeNo, node: NodeNo) -> Option<u32> {
        let all = self.look(|| self.views.run_expansions(self.run.run))?;
        all.into_iter().find(|row| row.scope == scope && row.node == node).map(|row| row.length)
    }

    fn output(&self, task: TaskNo, key: &str) -> Option<Arc<Value>> {
        self.look(|| self.views.task_output(self.id(task), key))?.map(Arc::new)
    }

    fn outputs(&self, task: TaskNo) -> Vec<(String, Arc<Value>)> {
        let all = self.look(|| self.views.task_outputs(self.id(task))).unwrap_or_default();
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
                let found = self.look(|| self.views.get_object(kind, &self.run.namespace, name))?;
                let value = found?.value;
                match value.get("sealed") {
                    Some(sealed) if !sealed.is_null() => hidden(),
                    _ => value.get("value").cloned().map(Arc::new),
                }
            }
            kinds::AIRFLOW_OBJECT => {
                let found = self.look(|| self.views.get_object(kind, &self.run.namespace, name))?;
                found.map(|object| Arc::new(object.value))
            }
            // Connections hold passwords, and are no part of a text.
            _ => None,
        }
    }

    fn cached(&self, _: &str) -> Option<(Timestamp, Vec<(String, Value)>)> {
        None
    }
}
