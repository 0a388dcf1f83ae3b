//! "Why is this waiting?", and why a task was never run: exact answers from the engine's own state.

use kobza_model::{Cause, Gate, RunState, TaskId, TaskState};

use crate::added::{ADDED, open_upstream};
use crate::command::Refusal;
use crate::engine::Engine;
use crate::gate_eval::{aligned_range, edge_kind, settled};
use crate::memory::{NEVER, NONE, Run, UNKNOWN, flag};
use crate::plan::EdgeKind;

/// Names given of a longer list.
const SHOWN: usize = 10;

impl Engine {
    /// What a task waits for, exactly; of one that its gate did not let run, what the gate saw.
    /// Empty if it waits for nothing.
    pub fn why(&self, id: TaskId) -> Result<Vec<String>, Refusal> {
        let run = self.runs.get(&id.run).ok_or(Refusal::NoRun(id.run))?;
        let mut reasons = Vec::new();
        match run.row.state {
            RunState::Paused => reasons.push("its run is paused".to_owned()),
            RunState::Queued => reasons.push(self.queued(run)),
            _ => {}
        }
        if !run.tasks.has(id.task.0) {
            // A run that has not begun has no tasks yet.
            return if run.row.state == RunState::Queued {
                Ok(reasons)
            } else {
                Err(Refusal::NoTask(id))
            };
        }
        let no = id.task.0;
        let task = run.task(no);
        match task.state {
            TaskState::Pending if task.has(flag::ASKED) => {
                let told = task.more.as_ref().and_then(|more| more.message.clone());
                reasons.push(told.unwrap_or_else(|| {
                    "its guard's question is open: the condition or the length of its map is being \
                     computed"
                        .to_owned()
                }));
            }
            TaskState::Pending => {
                let open = if task.hook == ADDED {
                    open_upstream(run, no).into_iter().map(|other| shown(run, other)).collect()
                } else if task.node == NONE {
                    Vec::new()
                } else {
                    upstream(run, no, true)
                };
                if !open.is_empty() {
                    reasons.push(format!("upstream: {}", list(open)));
                }
            }
            TaskState::Ready => reasons.extend(self.ready(run, id)),
            TaskState::Queued => {
                reasons.push("handed to an executor, which has not started it yet".to_owned());
            }
            TaskState::RetryWait if task.has(flag::ASKED) => {
                reasons.push("whether to retry is being decided".to_owned());
            }
            TaskState::RetryWait => reasons.push(format!(
                "attempt {} follows {}",
                task.attempt + 1,
                self.in_seconds(task.due)
            )),
            TaskState::Deferred => reasons.push(format!(
                "deferred{}; wakes {}",
                waits_for(run, no),
                self.in_seconds(task.due)
            )),
            TaskState::Rescheduled => reasons.push(format!(
                "rescheduled{}; looks again {}",
                waits_for(run, no),
                self.in_seconds(task.due)
            )),
            TaskState::Suspended if task.due == NEVER => {
                reasons.push("waits for a person or a call to resume it".to_owned());
            }
            TaskState::Suspended => {
                reasons.push(format!("suspended; goes on by itself {}", self.in_seconds(task.due)));
            }
            TaskState::Running if no != 0 => reasons.extend(self.inside(run, id)),
            TaskState::Cancelling => reasons.push("its body is being killed".to_owned()),
            TaskState::UpstreamFailed | TaskState::Skipped | TaskState::Removed
                if task.cause == Cause::Gate && task.node != NONE =>
            {
                let seen = upstream(run, no, false);
                if !seen.is_empty() {
                    reasons.push(format!("upstream: {}", list(seen)));
                }
            }
            s if s.is_finished() && !task.has(flag::SETTLED) => {
                reasons.push("its hooks still run".to_owned());
            }
            _ => {}
        }
        Ok(reasons)
    }

    fn queued(&self, run: &Run) -> String {
        let key = run.admission_key();
        let (most, active) = (
            run.admission_limit().unwrap_or(u32::MAX),
            self.admission.get(&key).map_or(0, |admission| admission.active),
        );
        format!("its run waits: {active} runs of {} are active, at most {most} may be", key.1)
    }

    /// At which limit it stands, and who is in the way.
    fn ready(&self, run: &Run, id: TaskId) -> Option<String> {
        let Some(blocked) = self.cx.limits.blocked(id) else {
            return (run.row.state != RunState::Paused).then(|| "about to start".to_owned());
        };
        let key = blocked.key;
        let Some(capacity) = blocked.capacity else {
            return Some(format!("limit {key}, which is not defined"));
        };
        let name = |id: &TaskId| match self.runs.get(&id.run) {
            Some(run) if run.tasks.has(id.task.0) => {
                format!("{} ({id})", name(run, id.task.0))
            }
            _ => id.to_string(),
        };
        let mut text = format!("limit {key}");
        if !blocked.holders.is_empty() {
            let holders = blocked.holders.iter().map(name).collect();
            text.push_str(&format!(", held by {}", list(holders)));
        }
        if blocked.weight > capacity {
            text.push_str(&format!(
                ", of which it needs {} and there are {capacity}",
                blocked.weight
            ));
        } else if let Some(before) = &blocked.before {
            text.push_str(&format!(", where {} comes first", name(before)));
        } else if blocked.weight > 1 {
            let free = capacity.saturating_sub(blocked.used);
            text.push_str(&format!(", of which it needs {} and {free} are free", blocked.weight));
        }
        Some(text)
    }

    /// What a task that stands for others waits for: instances, a graph's tasks, a called run.
    fn inside(&self, run: &Run, id: TaskId) -> Option<String> {
        let task = run.task(id.task.0);
        if task.has(flag::SUMMARY) {
            let state = &run.scope(task.scope).nodes[task.node as usize];
            return (state.length != UNKNOWN).then(|| {
                format!("its instances: {} of {} have ended", state.settled(), state.length)
            });
        }
        if task.child != NONE {
            let scope = run.scope(task.child);
            let open: Vec<String> = (scope.first..scope.first + scope.nodes.len() as u32)
                .filter(|&no| !run.task(no).has(flag::SETTLED))
                .map(|no| shown(run, no))
                .collect();
            return (!open.is_empty()).then(|| format!("its tasks: {}", list(open)));
        }
        let called = self.runs.values().find(|other| other.row.parent == Some(id))?;
        Some(format!(
            "run {} of {}, which is {}",
            called.row.run, called.row.workflow, called.row.state
        ))
    }

    fn in_seconds(&self, due: i64) -> String {
        if due == NEVER {
            return "when it is told to".to_owned();
        }
        let left = (due - self.cx.now.engine.0).max(0) as f64 / 1e6;
        format!("in {left:.1} s")
    }
}

/// What an executor wrote down of a wait, for people.
fn waits_for(run: &Run, no: u32) -> String {
    let carry = run.task(no).more.as_ref().map(|more| &more.carry);
    let text = carry.and_then(|carry| carry.get("waits_for")).and_then(|text| text.as_str());
    text.map_or(String::new(), |text| format!(", waits for {text}"))
}

/// The tasks that a task's gate looks at: those that have not settled, or all.
fn upstream(run: &Run, no: u32, open: bool) -> Vec<String> {
    let task = run.task(no);
    let scope = run.scope(task.scope);
    let node = run.plan.node(scope.template, task.node);
    if let Gate::Logical(_) = &node.gate {
        let read = &run.plan.graph_plan(scope.template).logical[task.node as usize];
        return read
            .iter()
            .filter(|&&up| !open || !settled(run, task.scope, up))
            .map(|&up| shown(run, run.head(task.scope, up)))
            .collect();
    }
    let own = scope.nodes[task.node as usize].length;
    let mut found = Vec::new();
    for edge in &node.edges {
        let up = edge.upstream.0;
        let other = &scope.nodes[up as usize];
        let aligned = edge_kind(run, scope.template, task.node, edge) == EdgeKind::Aligned
            && task.index != NONE
            && own != UNKNOWN
            && other.length != UNKNOWN;
        if aligned {
            for index in aligned_range(task.index, own, other.length) {
                match other.instance(index) {
                    Some(instance) if open && run.task(instance).has(flag::SETTLED) => {}
                    Some(instance) => found.push(shown(run, instance)),
                    None => {
                        let name = run.task_name(run.task(run.head(task.scope, up)));
                        found.push(format!("{name}[{index}] (pending)"));
                    }
                }
            }
        } else if !open || !settled(run, task.scope, up) {
            found.push(shown(run, run.head(task.scope, up)));
        }
    }
    found
}

fn name(run: &Run, no: u32) -> String {
    let task = run.task(no);
    let index = if task.index == NONE { String::new() } else { format!("[{}]", task.index) };
    format!("{}{index}", run.task_name(task))
}

/// A task's name and state; of a mapped one also how far it is.
fn shown(run: &Run, no: u32) -> String {
    let task = run.task(no);
    let mut progress = String::new();
    if task.has(flag::SUMMARY) && task.index == NONE && !task.state.is_finished() {
        let state = &run.scope(task.scope).nodes[task.node as usize];
        if state.length != UNKNOWN {
            progress = format!(", {} of {} done", state.settled(), state.length);
        }
    }
    format!("{} ({}{progress})", name(run, no), task.state)
}

fn list(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.join(", ") + &rest
}
