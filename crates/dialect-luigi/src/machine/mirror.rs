//! What leaves a call besides the reply: changed rows, and the tasks as the run shows them.

use std::sync::Arc;

use kobza_engine::{MachineOutput, NewTask};
use kobza_model::{Cause, Json, TaskState};

use super::state::{NodeNo, Status, Task};
use super::{LuigiMachine, PRUNED_PER_CALL, rows};
use crate::pyjson::Value;

/// Characters of a failure's explanation that the run shows.
const MESSAGE_CHARS: usize = 500;

/// A removed task whose rows are still to be deleted. Were they to come back after a crash, the
/// next prunings would remove the task again.
#[derive(Debug)]
pub(super) struct Farewell {
    pub(super) seq: u64,
    pub(super) id: Arc<str>,
    /// To be shown as removed: it had not ended.
    pub(super) unfinished: bool,
}

/// The state and cause that stand for a status.
pub(super) fn shown(task: &Task) -> (TaskState, Cause) {
    match task.status {
        Status::Pending | Status::Unknown => (TaskState::Pending, Cause::None),
        Status::Running | Status::BatchRunning => (TaskState::Running, Cause::None),
        Status::Done => (TaskState::Succeeded, Cause::None),
        Status::Failed if task.lost => (TaskState::Failed, Cause::Lost),
        Status::Failed => (TaskState::Failed, Cause::Code),
        Status::Disabled if task.disabled_at.is_some() => (TaskState::Failed, Cause::Limit),
        Status::Disabled => (TaskState::Failed, Cause::Hand),
    }
}

/// The last line of a task's explanation.
fn message(task: &Task) -> Option<String> {
    last_line(task.expl.as_str()?)
}

/// The last line of an explanation, which is a traceback, mostly as JSON text.
pub(super) fn last_line(raw: &str) -> Option<String> {
    let text = match Value::parse(raw) {
        Ok(Value::Str(text)) => text,
        Ok(Value::Null) => return None,
        _ => raw.to_owned(),
    };
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(MESSAGE_CHARS).collect())
}

impl LuigiMachine {
    pub(super) fn farewell(&mut self, task: &Task) {
        let unfinished = !matches!(task.mirrored, Some((state, _)) if state.is_finished());
        self.farewells.push_back(Farewell { seq: task.seq, id: task.id.clone(), unfinished });
    }

    /// Moves everything that changed into the output.
    pub(super) fn flush(&mut self, now: f64, out: &mut MachineOutput) {
        out.published.append(&mut self.published);
        out.notes.append(&mut self.notes);
        let dirty = std::mem::take(&mut self.dirty);
        let mut defined: Vec<NodeNo> = dirty.definitions.into_iter().collect();
        // Placeholders are made after the task that needs them, and must be known before it.
        defined.sort_by_key(|node| std::cmp::Reverse(self.index.task(*node).seq));
        for node in defined {
            out.tasks.push(self.new_task(node));
            let (key, value) = self.definition_row(node);
            out.rows.push((key, Some(value)));
        }
        for node in dirty.states {
            let task = self.index.task_mut(node);
            let now_shown = shown(task);
            // Also of a new task: its name may stand for one that was removed just now.
            if task.mirrored.replace(now_shown) != Some(now_shown) {
                let text = (now_shown.0 == TaskState::Failed).then(|| message(task)).flatten();
                out.observed.push((task.id.to_string(), now_shown.0, now_shown.1, text));
            }
            let (key, value) = self.state_row(node);
            out.rows.push((key, Some(value)));
        }
        for worker in dirty.workers {
            let (key, value) = self.worker_row(worker, now);
            out.rows.push((key, Some(value)));
        }
        for worker in dirty.gone_workers {
            out.rows.push((rows::worker_key(worker), None));
        }
        for key in dirty.batchers {
            out.rows.push(self.batcher_row(&key));
        }
        for (seq, kept) in dirty.history {
            out.rows.push(self.history_row(seq, kept));
        }
        if dirty.globals {
            let (key, value) = self.globals_row();
            out.rows.push((key, Some(value)));
        }
        for _ in 0..PRUNED_PER_CALL {
            let Some(farewell) = self.farewells.pop_front() else { break };
            out.rows.push((rows::definition_key(farewell.seq), None));
            out.rows.push((rows::state_key(farewell.seq), None));
            // A task of the same name may have come since.
            if self.index.find(&farewell.id).is_none() {
                let id = farewell.id.to_string();
                if farewell.unfinished {
                    out.observed.push((id.clone(), TaskState::Removed, Cause::Observed, None));
                }
                out.forgotten.push(id);
            }
        }
    }

    fn new_task(&self, node: NodeNo) -> NewTask {
        let task = self.index.task(node);
        let known = |dep: &&NodeNo| self.index.get(**dep).is_some();
        let upstream = task.deps.iter().filter(known);
        let inputs = task.public.iter().map(|(k, v)| (k.clone(), v.to_json())).collect();
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        let priority = task.priority.f64() as i32;
        NewTask {
            name: task.id.to_string(),
            upstream: upstream.map(|d| self.index.nodes[*d as usize].id.to_string()).collect(),
            state: TaskState::Pending,
            priority,
            inputs: Json::Object(inputs),
            extra: serde_json::json!({
                "family": &*task.family,
                "module": task.module.to_json(),
                "resources": task.resources.to_value().to_json(),
            }),
        }
    }
}
