//! What must hold after each step, and of every run that has ended.

use std::collections::{BTreeMap, BTreeSet};

use kobza_model::*;

use super::{Dice, SLOTS, Sim};
use crate::generate::LIMITS;
use crate::reference::interpret;

impl Sim {
    /// What holds after every step.
    pub(super) fn invariants(&self) -> Result<(), String> {
        self.engine.check()?;
        for run in &self.acknowledged {
            if !self.store.has(*run) {
                return Err(format!("acknowledged run {run} is lost"));
            }
        }
        // Limits, from the rows alone.
        let mut slots = 0;
        let mut named: BTreeMap<&str, u32> = BTreeMap::new();
        for task in self.store.live_tasks() {
            if !task.state.is_launched() || task.summary || task.task.0 == 0 {
                continue;
            }
            let workflow = &self.workflows[&task.run];
            let leaf =
                matches!(workflow.templates[task.template.index()].body, TemplateBody::Leaf(_));
            slots += u32::from(leaf);
            if let Some(node) = self.node(task) {
                for used in &node.limits {
                    *named.entry(used.limit.as_str()).or_default() += used.weight;
                }
            }
        }
        if slots > SLOTS {
            return Err(format!("{slots} bodies for {SLOTS} slots"));
        }
        for (name, capacity) in LIMITS {
            if named.get(name).is_some_and(|used| *used > capacity) {
                return Err(format!("limit {name} is exceeded"));
            }
        }
        // At most one body that is alive and owns each task.
        let mut owners = BTreeSet::new();
        for (id, body) in &self.executor.bodies {
            if body.report.is_none() && !body.killed && !owners.insert(id.task_id()) {
                return Err(format!("two bodies own task {}", id.task_id()));
            }
        }
        Ok(())
    }

    pub(super) fn node(&self, task: &TaskRow) -> Option<&Node> {
        let image = self.engine.scope_row(task.run, task.scope)?;
        let workflow = &self.workflows[&task.run];
        match &workflow.templates[image.template.index()].body {
            TemplateBody::Graph(graph) => task.node.map(|n| &graph.nodes[n.index()]),
            TemplateBody::Leaf(_) => None,
        }
    }

    /// Every undisturbed run ended as the reference says, task by task.
    pub(super) fn compare(&self) -> Result<(), String> {
        for row in self.store.runs() {
            let image = self.store.image(row.run).ok_or("a run without a row")?;
            if let Some(task) = image.tasks.iter().find(|t| !t.state.is_finished()) {
                return Err(format!(
                    "run {} has ended but task {} is {}",
                    row.run, task.name, task.state
                ));
            }
            if self.disturbed.contains(&row.run) {
                continue;
            }
            let (outcome, expected) = interpret(&self.workflows[&row.run], &Dice(self.seed));
            let found = final_states(&image);
            if found != expected {
                let differs: Vec<String> = expected
                    .iter()
                    .filter(|(path, state)| found.get(*path) != Some(state))
                    .map(|(path, state)| {
                        format!("{path}: expected {state}, found {:?}", found.get(path))
                    })
                    .chain(
                        found
                            .keys()
                            .filter(|p| !expected.contains_key(*p))
                            .map(|p| format!("{p}: not expected")),
                    )
                    .collect();
                return Err(format!("run {} differs: {differs:#?}", row.run));
            }
            let state =
                if outcome == Outcome::Succeeded { RunState::Succeeded } else { RunState::Failed };
            if row.state != state {
                return Err(format!("run {} is {}, expected {state}", row.run, row.state));
            }
        }
        Ok(())
    }
}

/// States by path of the current activations (tasks of earlier attempts of a composite left out).
fn final_states(image: &RunImage) -> BTreeMap<String, TaskState> {
    let tasks: BTreeMap<TaskNo, &TaskRow> = image.tasks.iter().map(|t| (t.task, t)).collect();
    let owners: BTreeMap<ScopeNo, Option<TaskNo>> =
        image.scopes.iter().map(|s| (s.scope, s.owner)).collect();
    let mut states = BTreeMap::new();
    'tasks: for task in image.tasks.iter().filter(|t| t.task.0 != 0) {
        let mut path = String::new();
        let mut at = task;
        loop {
            let index = at.index.map_or(String::new(), |i| format!("[{i}]"));
            path = format!("/{}{index}{path}", at.name);
            let owner = owners.get(&at.scope).copied().flatten().unwrap_or(TaskNo(0));
            let Some(above) = tasks.get(&owner) else { continue 'tasks };
            if above.child != Some(at.scope) {
                continue 'tasks;
            }
            if owner.0 == 0 {
                break;
            }
            at = above;
        }
        // What a shorter expansion, or one that did not come, left of an earlier life.
        if task.state != TaskState::Removed {
            states.insert(path, task.state);
        }
    }
    states
}
