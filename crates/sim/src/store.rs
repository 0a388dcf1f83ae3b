//! The store in memory: rows by key, one batch at a time.

use std::collections::BTreeMap;

use kobza_engine::Batch;
use kobza_model::*;

#[derive(Clone, Default)]
struct Rows {
    run: Option<RunRow>,
    tasks: BTreeMap<TaskNo, TaskRow>,
    scopes: BTreeMap<ScopeNo, ScopeRow>,
    expansions: BTreeMap<(ScopeNo, NodeNo), ExpansionRow>,
}

#[derive(Clone, Default)]
pub(crate) struct Store {
    runs: BTreeMap<RunId, Rows>,
    pub(crate) events: u64,
}

impl Store {
    pub(crate) fn commit(&mut self, batch: &Batch) {
        for row in &batch.runs {
            self.runs.entry(row.run).or_default().run = Some(row.clone());
        }
        for row in &batch.tasks {
            self.runs.entry(row.run).or_default().tasks.insert(row.task, row.clone());
        }
        for id in &batch.removed_tasks {
            self.runs.entry(id.run).or_default().tasks.remove(&id.task);
        }
        for row in &batch.scopes {
            self.runs.entry(row.run).or_default().scopes.insert(row.scope, row.clone());
        }
        for row in &batch.expansions {
            self.runs
                .entry(row.run)
                .or_default()
                .expansions
                .insert((row.scope, row.node), row.clone());
        }
        self.events += batch.events.len() as u64;
    }

    pub(crate) fn image(&self, run: RunId) -> Option<RunImage> {
        let rows = self.runs.get(&run)?;
        Some(RunImage {
            run: rows.run.clone()?,
            tasks: rows.tasks.values().cloned().collect(),
            scopes: rows.scopes.values().cloned().collect(),
            expansions: rows.expansions.values().cloned().collect(),
            machine: Vec::new(),
        })
    }

    pub(crate) fn has(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|r| r.run.is_some())
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = &RunRow> {
        self.runs.values().filter_map(|r| r.run.as_ref())
    }

    /// Tasks of runs that have not ended.
    pub(crate) fn live_tasks(&self) -> impl Iterator<Item = &TaskRow> {
        let live = |r: &&Rows| r.run.as_ref().is_some_and(|row| !row.state.is_finished());
        self.runs.values().filter(live).flat_map(|r| r.tasks.values())
    }
}
