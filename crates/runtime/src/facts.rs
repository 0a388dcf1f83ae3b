//! What dialects may look at: the engine's rows, outputs in memory or in the store.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kobza_engine::Engine;
use kobza_model::{
    Json, NodeNo, OutputRow, RunId, RunRow, ScopeNo, ScopeRow, TaskId, TaskNo, TaskRow, Timestamp,
    Workflow,
};
use kobza_store::Store;

use crate::ports::Facts;

/// Looks up a value of a namespace: (kind, namespace, name).
pub type Lookup = dyn Fn(&str, &str, &str) -> Option<Json> + Send + Sync;

/// Outputs of live runs. What is not here is in the store.
#[derive(Debug, Default)]
pub(crate) struct OutputCache {
    runs: HashMap<RunId, HashMap<TaskNo, BTreeMap<String, Arc<Json>>>>,
    /// How many values are held; beyond the most, values go to the store only.
    held: usize,
}

/// Values held in memory over all live runs; beyond it the store is read. Most are small.
const MAX_HELD: usize = 200_000;

impl OutputCache {
    pub(crate) fn put(&mut self, row: &OutputRow) {
        let task = self.runs.entry(row.run).or_default().entry(row.task).or_default();
        let before = task.len();
        task.insert(row.key.clone(), Arc::new(row.value.clone()));
        self.held += task.len() - before;
    }

    /// Keeps what was read of a task, so that it is not read again by each that asks.
    fn keep(&mut self, id: TaskId, outputs: BTreeMap<String, Arc<Json>>) {
        self.held += outputs.len();
        self.runs.entry(id.run).or_default().insert(id.task, outputs);
    }

    /// Bounds the memory; called when everything held is in the store as well.
    pub(crate) fn trim(&mut self) {
        if self.held > MAX_HELD {
            self.clear();
        }
    }

    pub(crate) fn drop_task(&mut self, id: TaskId) {
        if let Some(task) = self.runs.get_mut(&id.run).and_then(|r| r.remove(&id.task)) {
            self.held -= task.len();
        }
    }

    pub(crate) fn drop_run(&mut self, run: RunId) {
        if let Some(tasks) = self.runs.remove(&run) {
            self.held -= tasks.values().map(BTreeMap::len).sum::<usize>();
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn get(&self, id: TaskId) -> Option<&BTreeMap<String, Arc<Json>>> {
        self.runs.get(&id.run)?.get(&id.task)
    }
}

pub(crate) struct RunFacts<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) run: &'a RunRow,
    pub(crate) workflow: &'a Arc<Workflow>,
    pub(crate) outputs: &'a RefCell<OutputCache>,
    pub(crate) store: &'a dyn Store,
    pub(crate) lookup: &'a Lookup,
    pub(crate) now: Timestamp,
}

impl RunFacts<'_> {
    /// All outputs of a task, kept from now on.
    fn of_task<T>(&self, task: TaskNo, with: impl Fn(&BTreeMap<String, Arc<Json>>) -> T) -> T {
        let id = TaskId { run: self.run.run, task };
        if let Some(outputs) = self.outputs.borrow().get(id) {
            return with(outputs);
        }
        let outputs = match self.store.outputs(id.run, task) {
            Ok(outputs) => outputs.into_iter().map(|(k, v)| (k, Arc::new(v))).collect(),
            Err(error) => {
                tracing::error!(%error, "outputs could not be read");
                return with(&BTreeMap::new());
            }
        };
        let answer = with(&outputs);
        // That there are none is cheap to find out again, and may change.
        if !outputs.is_empty() {
            self.outputs.borrow_mut().keep(id, outputs);
        }
        answer
    }
}

impl Facts for RunFacts<'_> {
    fn run(&self) -> &RunRow {
        self.run
    }

    fn workflow(&self) -> &Arc<Workflow> {
        self.workflow
    }

    fn now(&self) -> Timestamp {
        self.now
    }

    fn scope(&self, scope: ScopeNo) -> Option<ScopeRow> {
        self.engine.scope_row(self.run.run, scope)
    }

    fn task(&self, task: TaskNo) -> Option<TaskRow> {
        self.engine.task_row(TaskId { run: self.run.run, task })
    }

    fn task_of(&self, scope: ScopeNo, node: NodeNo, index: Option<u32>) -> Option<TaskRow> {
        self.task(self.engine.task_of(self.run.run, scope, node, index)?)
    }

    fn expansion(&self, scope: ScopeNo, node: NodeNo) -> Option<u32> {
        self.engine.expansion(self.run.run, scope, node)
    }

    fn output(&self, task: TaskNo, key: &str) -> Option<Arc<Json>> {
        self.of_task(task, |outputs| outputs.get(key).cloned())
    }

    fn outputs(&self, task: TaskNo) -> Vec<(String, Arc<Json>)> {
        self.of_task(task, |outputs| outputs.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn live_runs(&self) -> Vec<RunRow> {
        let same = |row: &&RunRow| {
            row.workflow == self.run.workflow && row.namespace == self.run.namespace
        };
        self.engine
            .run_ids()
            .filter_map(|id| self.engine.run_row(id))
            .filter(same)
            .cloned()
            .collect()
    }

    fn tasks_in(&self, run: RunId, name: &str) -> Vec<TaskRow> {
        let Some(workflow) = self.engine.workflow(run) else { return Vec::new() };
        let Some(node) = workflow.node_named(name) else { return Vec::new() };
        let row = |index| {
            let task = self.engine.task_of(run, ScopeNo(0), node, index)?;
            self.engine.task_row(TaskId { run, task })
        };
        match self.engine.expansion(run, ScopeNo(0), node) {
            Some(length) if length > 0 => (0..length).filter_map(|i| row(Some(i))).collect(),
            _ => row(None).into_iter().collect(),
        }
    }

    fn lookup(&self, kind: &str, name: &str) -> Option<Arc<Json>> {
        (self.lookup)(kind, &self.run.namespace, name).map(Arc::new)
    }

    fn cached(&self, key: &str) -> Option<(Timestamp, Vec<(String, Json)>)> {
        // Results of this very batch are not in the store yet.
        let mut seen = None;
        for row in self.engine.fresh_outputs().iter().filter(|row| row.run == self.run.run) {
            if seen.replace(row.task) == Some(row.task) {
                continue;
            }
            let Some(task) = self.task(row.task) else { continue };
            if task.state == kobza_model::TaskState::Succeeded && task.inputs["$cache_key"] == key {
                let outputs = self.outputs(row.task);
                let outputs = outputs.into_iter().map(|(k, v)| (k, (*v).clone())).collect();
                return Some((self.now, outputs));
            }
        }
        let entry = (self.lookup)("cache", &self.run.namespace, key)?;
        let at = entry.get("at")?.as_str()?.parse().ok()?;
        let outputs = entry.get("outputs")?.as_object()?;
        Some((at, outputs.iter().map(|(k, v)| (k.clone(), v.clone())).collect()))
    }
}
