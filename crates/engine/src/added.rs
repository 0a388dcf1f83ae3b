//! Tasks that a running task adds to its run.
//!
//! An added task belongs to the task that added it, as a hook does: readers of the adder wait for
//! all it has added, and its failure is the adder's.

use kobza_model::{Cause, Json, Outcome, TaskState};

use crate::command::NewTask;
use crate::engine::{Cx, Work};
use crate::memory::{Run, Task, flag};
use crate::transition::Move;

/// What stands for the place of a hook in an added task.
pub(crate) const ADDED: u16 = u16::MAX - 1;
/// Most tasks that one attempt may add: more is a map's work.
const ADDED_MAX: usize = 1000;

/// Names that an added task waits for.
const UPSTREAM: &str = "upstream";
/// The adder's attempt.
const OF_ATTEMPT: &str = "of_attempt";

impl Cx {
    /// Adds tasks on behalf of one that runs. Repeated names are those of a repeated report.
    pub(crate) fn add_to_task(&mut self, run: &mut Run, owner: u32, tasks: Vec<NewTask>) {
        let adder = run.task(owner);
        let (scope, template, attempt) = (adder.scope, adder.template, adder.attempt);
        let is_hook = adder.hook != u16::MAX && adder.hook != ADDED;
        let mut known = added_by(run, owner);
        if is_hook || known.len() + tasks.len() > ADDED_MAX {
            let reason = if is_hook {
                "a hook cannot add tasks".to_owned()
            } else {
                format!("a task adds at most {ADDED_MAX} tasks; map over a list instead")
            };
            self.note(run, Some(owner), "refused_tasks".to_owned(), reason);
            return;
        }
        let mut fresh = Vec::new();
        for new in tasks {
            if known.iter().any(|&no| name_of(run, no) == Some(new.name.as_str())) {
                continue;
            }
            let no = run.tasks.len() as u32;
            let mut extra = match new.extra {
                Json::Object(map) => map,
                _ => serde_json::Map::new(),
            };
            extra.insert(UPSTREAM.to_owned(), Json::from(new.upstream));
            extra.insert(OF_ATTEMPT.to_owned(), Json::from(attempt));
            let mut task = Task::new(scope, crate::memory::NONE, template, self.now.wall);
            task.parent = owner;
            task.hook = ADDED;
            task.priority = run.row.priority.saturating_add(new.priority);
            let more = task.more();
            more.name = Some(new.name);
            more.inputs = new.inputs;
            more.extra = Json::Object(extra);
            run.tasks.push(task);
            run.count(TaskState::Pending, 1);
            run.touch(no);
            run.task_mut(owner).hooks_open += 1;
            known.push(no);
            fresh.push(no);
        }
        for no in fresh {
            self.push(run, Work::Instance { task: no });
        }
    }

    /// Looks at an added task: it runs once those that it waits for have succeeded.
    pub(crate) fn look_at_added(&mut self, run: &mut Run, no: u32) {
        let task = run.task(no);
        if task.state != TaskState::Pending {
            return;
        }
        if let Some(cause) = run.scope(task.scope).stopping {
            self.end_unstarted(run, no, cause);
            return;
        }
        let siblings = added_by(run, task.parent);
        let mut waits = false;
        let mut lost: Option<String> = None;
        for name in upstream(run, no) {
            let found = siblings.iter().find(|&&other| name_of(run, other) == Some(name));
            let Some(&other) = found.filter(|&&other| other != no) else {
                lost = Some(format!("it waits for {name:?}, which nobody added"));
                break;
            };
            match run.task(other).state {
                TaskState::Succeeded => {}
                state if state.is_finished() => lost = Some(format!("{name} is {state}")),
                _ => waits = true,
            }
        }
        if let Some(reason) = lost {
            run.task_mut(no).more().message = Some(reason);
            self.finish(run, no, Move::UpstreamFail, TaskState::UpstreamFailed, Cause::Gate);
        } else if !waits {
            self.admit(run, no);
        }
    }

    /// An added task has ended, with all that it has added itself.
    pub(crate) fn settle_added(&mut self, run: &mut Run, no: u32, owner: u32, outcome: Outcome) {
        let current = is_current(run, no);
        for other in added_by(run, owner) {
            if run.task(other).state == TaskState::Pending {
                self.push(run, Work::Instance { task: other });
            }
        }
        if !current {
            return;
        }
        let name = name_of(run, no).unwrap_or_default().to_owned();
        let task = run.task_mut(owner);
        task.hooks_open = task.hooks_open.saturating_sub(1);
        let (open, state) = (task.hooks_open, task.state);
        let bad = match outcome {
            Outcome::Failed | Outcome::UpstreamFailed => Some("failed"),
            Outcome::Cancelled => Some("was cancelled"),
            _ => None,
        };
        if let Some(bad) = bad
            && state == TaskState::Succeeded
        {
            run.task_mut(owner).more().message = Some(format!("{name}, which it added, {bad}"));
            self.transit(run, owner, Move::Fail, TaskState::Failed, Cause::Code);
        }
        if open == 0 && run.task(owner).state.is_finished() {
            self.settle(run, owner);
        }
    }

    /// Ends what a task has added.
    pub(crate) fn stop_added(&mut self, run: &mut Run, owner: u32, cause: Cause) {
        if run.task(owner).hooks_open == 0 {
            return;
        }
        for no in added_by(run, owner) {
            self.stop_task_tree(run, no, cause);
        }
    }
}

impl Cx {
    /// What a task that is cleared had added counts no more, and is ended.
    pub(crate) fn disown_added(&mut self, run: &mut Run, owner: u32) {
        if run.task(owner).hooks_open == 0 {
            return;
        }
        self.stop_added(run, owner, Cause::Hand);
        let left = added_by(run, owner);
        let open = left.iter().filter(|&&no| !run.task(no).has(flag::SETTLED)).count();
        let task = run.task_mut(owner);
        task.hooks_open = task.hooks_open.saturating_sub(u16::try_from(open).unwrap_or(u16::MAX));
    }
}

/// Whether its adder has not been cleared or tried again since.
pub(crate) fn is_current(run: &Run, no: u32) -> bool {
    let task = run.task(no);
    let of = task.more.as_ref().and_then(|m| m.extra.get(OF_ATTEMPT)).and_then(Json::as_u64);
    let owner = run.task(task.parent);
    of == Some(u64::from(owner.attempt)) && owner.attempt > owner.attempts_before
}

fn name_of(run: &Run, no: u32) -> Option<&str> {
    run.task(no).more.as_ref()?.name.as_deref()
}

fn upstream(run: &Run, no: u32) -> Vec<&str> {
    let listed = run.task(no).more.as_ref().and_then(|m| m.extra.get(UPSTREAM)?.as_array());
    listed.into_iter().flatten().filter_map(Json::as_str).collect()
}

/// The tasks that the current attempt of a task has added.
fn added_by(run: &Run, owner: u32) -> Vec<u32> {
    (owner + 1..run.tasks.len() as u32)
        .filter(|&no| {
            let task = run.task(no);
            task.hook == ADDED && task.parent == owner && is_current(run, no)
        })
        .collect()
}
