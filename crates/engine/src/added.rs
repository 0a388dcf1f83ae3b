//! Tasks that a running task adds to its run.
//!
//! An added task belongs to the task that added it, as a hook does: readers of the adder wait for
//! all it has added, and its failure is the adder's. It may wait for those that were added before
//! it, so that no two wait for each other.

use std::collections::BTreeMap;

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

/// What the current attempt of a task has added. Derived: rebuilt from the rows after a restart.
#[derive(Default)]
pub(crate) struct Added {
    attempt: u32,
    /// In the order in which they were added.
    tasks: Vec<u32>,
    by_name: BTreeMap<String, u32>,
    /// Tasks by one that they wait for.
    readers: BTreeMap<u32, Vec<u32>>,
}

/// Those that an added task still waits for.
pub(crate) fn open_upstream(run: &Run, no: u32) -> Vec<u32> {
    let Some(siblings) = run.added.get(&run.task(no).parent) else { return Vec::new() };
    upstream(run, no)
        .into_iter()
        .filter_map(|name| siblings.by_name.get(name).copied())
        .filter(|&other| other < no && !run.task(other).has(flag::SETTLED))
        .collect()
}

impl Cx {
    /// Adds tasks on behalf of one that runs. Repeated names are those of a repeated report.
    pub(crate) fn add_to_task(&mut self, run: &mut Run, owner: u32, mut tasks: Vec<NewTask>) {
        let adder = run.task(owner);
        let (scope, template, attempt) = (adder.scope, adder.template, adder.attempt);
        let is_hook = adder.hook != u16::MAX && adder.hook != ADDED;
        let known = run.added.get(&owner).filter(|known| known.attempt == attempt);
        tasks.retain(|new| known.is_none_or(|known| !known.by_name.contains_key(&new.name)));
        if is_hook || known.map_or(0, |known| known.tasks.len()) + tasks.len() > ADDED_MAX {
            let reason = if is_hook {
                "a hook cannot add tasks".to_owned()
            } else {
                format!("a task adds at most {ADDED_MAX} tasks; map over a list instead")
            };
            self.note(run, Some(owner), "refused_tasks".to_owned(), reason);
            return;
        }
        for new in tasks {
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
            index(run, no);
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
        let siblings = run.added.get(&task.parent);
        let mut waits = false;
        let mut lost: Option<String> = None;
        for name in upstream(run, no) {
            let found = siblings.and_then(|siblings| siblings.by_name.get(name));
            let Some(&other) = found.filter(|&&other| other < no) else {
                lost = Some(format!("it waits for {name:?}, which was not added before it"));
                break;
            };
            let other = run.task(other);
            match other.state {
                _ if !other.has(flag::SETTLED) => waits = true,
                TaskState::Succeeded => {}
                state => lost = Some(format!("{name} is {state}")),
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
        if !is_current(run, no) {
            return;
        }
        let readers = run.added.get(&owner).and_then(|added| added.readers.get(&no));
        for reader in readers.cloned().unwrap_or_default() {
            self.push(run, Work::Instance { task: reader });
        }
        let name = name_of(run, no).unwrap_or_default().to_owned();
        let task = run.task_mut(owner);
        task.hooks_open = task.hooks_open.saturating_sub(1);
        let (open, state) = (task.hooks_open, task.state);
        if let Some(message) = blame(&name, outcome)
            && state == TaskState::Succeeded
        {
            run.task_mut(owner).more().message = Some(message);
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

    /// What a task that is cleared had added counts no more, and is ended.
    pub(crate) fn disown_added(&mut self, run: &mut Run, owner: u32) {
        if run.task(owner).hooks_open > 0 {
            self.stop_added(run, owner, Cause::Hand);
            let left = added_by(run, owner);
            let open = left.iter().filter(|&&no| !run.task(no).has(flag::SETTLED)).count();
            let open = u16::try_from(open).unwrap_or(u16::MAX);
            let task = run.task_mut(owner);
            task.hooks_open = task.hooks_open.saturating_sub(open);
        }
        run.added.remove(&owner);
    }
}

/// Why a task that has ended well has failed all the same: what it added did before it ended.
pub(crate) fn failed_before(run: &Run, owner: u32) -> Option<String> {
    added_by(run, owner).into_iter().find_map(|no| {
        let outcome = run.task(no).state.outcome().filter(|_| run.task(no).has(flag::SETTLED))?;
        blame(name_of(run, no).unwrap_or_default(), outcome)
    })
}

fn blame(name: &str, outcome: Outcome) -> Option<String> {
    let what = match outcome {
        Outcome::Failed | Outcome::UpstreamFailed => "failed",
        Outcome::Cancelled => "was cancelled",
        _ => return None,
    };
    Some(format!("{name}, which it added, {what}"))
}

/// Whether its adder has not been cleared or tried again since.
pub(crate) fn is_current(run: &Run, no: u32) -> bool {
    let task = run.task(no);
    let of = task.more.as_ref().and_then(|m| m.extra.get(OF_ATTEMPT)).and_then(Json::as_u64);
    let owner = run.task(task.parent);
    of == Some(u64::from(owner.attempt)) && owner.attempt > owner.attempts_before
}

/// Makes a current added task known to its siblings; those added before it already are.
pub(crate) fn index(run: &mut Run, no: u32) {
    let owner = run.task(no).parent;
    let attempt = run.task(owner).attempt;
    let name = name_of(run, no).unwrap_or_default().to_owned();
    let upstream: Vec<String> = upstream(run, no).into_iter().map(str::to_owned).collect();
    let added = run.added.entry(owner).or_default();
    if added.attempt != attempt {
        *added = Added { attempt, ..Added::default() };
    }
    for name in upstream {
        if let Some(&other) = added.by_name.get(&name) {
            added.readers.entry(other).or_default().push(no);
        }
    }
    added.tasks.push(no);
    added.by_name.insert(name, no);
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
    let attempt = run.task(owner).attempt;
    let added = run.added.get(&owner).filter(|added| added.attempt == attempt);
    added.map(|added| added.tasks.clone()).unwrap_or_default()
}
