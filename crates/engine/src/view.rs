//! Views: what the engine shows of its memory.

use std::sync::Arc;

use kobza_model::{
    ExpansionRow, NodeNo, RunId, RunImage, RunRow, ScopeNo, ScopeRow, TaskId, TaskNo, TaskRow,
};

use crate::engine::Engine;
use crate::limits::LimitView;
use crate::machine::Overview;
use crate::memory::flag;

impl Engine {
    #[must_use]
    pub fn has_run(&self, id: RunId) -> bool {
        self.runs.contains_key(&id)
    }

    #[must_use]
    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// Live runs, in order of id.
    pub fn run_ids(&self) -> impl Iterator<Item = RunId> + '_ {
        self.runs.keys().copied()
    }

    #[must_use]
    pub fn run_row(&self, id: RunId) -> Option<&RunRow> {
        self.runs.get(&id).map(|r| &r.row)
    }

    /// Who works for an open run. `None`: nobody from outside does, or the run is over.
    #[must_use]
    pub fn overview(&self, id: RunId) -> Option<Overview> {
        self.runs.get(&id)?.machine.as_ref()?.overview()
    }

    #[must_use]
    pub fn workflow(&self, id: RunId) -> Option<&Arc<kobza_model::Workflow>> {
        self.runs.get(&id).map(|r| &r.plan.workflow)
    }

    #[must_use]
    pub fn task_row(&self, id: TaskId) -> Option<TaskRow> {
        let run = self.runs.get(&id.run)?;
        run.tasks.has(id.task.0).then(|| run.task_row(id.task.0))
    }

    /// Every task of a live run.
    #[must_use]
    pub fn task_rows(&self, id: RunId) -> Vec<TaskRow> {
        self.runs
            .get(&id)
            .map(|run| run.tasks.iter().map(|(no, _)| run.task_row(no)).collect())
            .unwrap_or_default()
    }

    /// A run as the store would give it back.
    #[must_use]
    pub fn image(&self, id: RunId) -> Option<RunImage> {
        let run = self.runs.get(&id)?;
        let mut expansions: Vec<ExpansionRow> = Vec::new();
        for (s, scope) in run.scopes.iter().enumerate() {
            for (n, node) in scope.nodes.iter().enumerate() {
                if node.length != crate::memory::UNKNOWN || node.made > 0 {
                    expansions.push(run.expansion_row(s as u32, n as u32));
                }
            }
        }
        Some(RunImage {
            run: run.row.clone(),
            tasks: self.task_rows(id),
            scopes: (0..run.scopes.len() as u32).map(|s| run.scope_row(s)).collect(),
            expansions,
            machine: Vec::new(),
        })
    }

    #[must_use]
    pub fn scope_row(&self, run: RunId, scope: ScopeNo) -> Option<ScopeRow> {
        let run = self.runs.get(&run)?;
        (scope.index() < run.scopes.len()).then(|| run.scope_row(scope.0))
    }

    /// Number of a node's task: its head, or one instance.
    #[must_use]
    pub fn task_of(
        &self,
        run: RunId,
        scope: ScopeNo,
        node: NodeNo,
        index: Option<u32>,
    ) -> Option<TaskNo> {
        let run = self.runs.get(&run)?;
        let scope = run.scopes.get(scope.index())?;
        let state = scope.nodes.get(node.index())?;
        match index {
            None => Some(TaskNo(scope.first + node.0)),
            Some(index) => state.instance(index).map(TaskNo),
        }
    }

    /// Length of an expanded node, once known.
    #[must_use]
    pub fn expansion(&self, run: RunId, scope: ScopeNo, node: NodeNo) -> Option<u32> {
        let state = self.runs.get(&run)?.scopes.get(scope.index())?.nodes.get(node.index())?;
        (state.length != crate::memory::UNKNOWN).then_some(state.length)
    }

    /// All named limits, with who holds them and who waits.
    #[must_use]
    pub fn limits(&self) -> Vec<LimitView> {
        self.cx.limits.rows()
    }

    /// Checks what must always be true; for tests and the simulator.
    pub fn check(&self) -> Result<(), String> {
        self.cx.limits.consistent()?;
        for (id, run) in &self.runs {
            for (no, task) in run.tasks.iter() {
                let holds = task.has(flag::HOLDS);
                if task.state.is_finished() && holds {
                    return Err(format!("{id}.{no} is finished and holds limits"));
                }
                if run.row.state.is_finished() && !task.state.is_finished() {
                    return Err(format!(
                        "run {id} is {} but task {no} is {}",
                        run.row.state, task.state
                    ));
                }
            }
        }
        Ok(())
    }
}
