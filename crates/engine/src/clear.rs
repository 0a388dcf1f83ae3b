//! Clear: finished tasks run again, with what depends on them.

use std::collections::BTreeSet;

use kobza_model::{Cause, RunId, RunState, TaskId, TaskNo, TaskState};

use crate::action::Reply;
use crate::command::{ClearOptions, Refusal};
use crate::control::recount;
use crate::engine::{Cx, Engine, Work};
use crate::memory::{NEVER, NONE, Run, Task, UNKNOWN, flag};
use crate::transition::Move;

impl Engine {
    /// Reopens tasks so that they run again, and what depends on them if asked.
    pub(crate) fn clear(
        &mut self,
        id: RunId,
        tasks: &[TaskNo],
        options: ClearOptions,
    ) -> Result<Reply, Refusal> {
        let cx = &mut self.cx;
        let run = self.runs.get_mut(&id).ok_or(Refusal::NoRun(id))?;
        if run.plan.workflow.open {
            return Err(Refusal::Invalid(
                "tasks of an open run are cleared by their driver".to_owned(),
            ));
        }
        if run.row.state == RunState::Cancelling {
            return Err(Refusal::WrongState {
                what: format!("run {id}"),
                state: "cancelling",
                hint: "wait until it has ended, then clear",
            });
        }
        if let Some(task) = tasks.iter().find(|t| !run.tasks.has(t.0)) {
            return Err(Refusal::NoTask(TaskId { run: id, task: *task }));
        }
        let selection = selection(run, tasks, options);
        if selection.is_empty() {
            return Ok(Reply::Cleared(Vec::new()));
        }
        if run.row.state.is_finished() {
            cx.reopen_run(run);
        }
        let mut scopes = BTreeSet::new();
        for &no in &selection {
            let task = run.task(no);
            scopes.insert(task.scope);
            if task.state.is_launched()
                && run.plan.leaf(task.template).is_some()
                && !task.has(flag::SUMMARY)
            {
                if task.state != TaskState::Cancelling {
                    cx.kill(run, no, Cause::Hand);
                }
                run.task_mut(no).kill = Some(Cause::None);
                continue;
            }
            if task_is_composite_running(run, no)
                || (task.has(flag::SUMMARY) && task.state == TaskState::Running)
            {
                continue;
            }
            cx.clear_one(run, no);
        }
        for &scope in &scopes {
            cx.reopen_owner(run, scope);
        }
        for &scope in &scopes {
            recount(run, scope);
            cx.relook_scope(run, scope);
        }
        cx.cleared_event(run, selection.len() as u32);
        cx.list(run);
        Ok(Reply::Cleared(selection.into_iter().map(TaskNo).collect()))
    }
}

/// Which tasks a clear means: the named ones, what depends on them, instances of expanded nodes,
/// tasks inside of called graphs.
fn selection(run: &Run, tasks: &[TaskNo], options: ClearOptions) -> BTreeSet<u32> {
    let mut chosen: BTreeSet<u32> = BTreeSet::new();
    let mut seen: BTreeSet<u32> = BTreeSet::new();
    // What belongs to an earlier activation or expansion is history: nothing would ever take it up.
    let current =
        |t: &&TaskNo| is_current(run, run.task(t.0).scope) && is_in_expansion(run, run.task(t.0));
    let mut open: Vec<(u32, bool)> = tasks.iter().filter(current).map(|t| (t.0, true)).collect();
    if tasks.is_empty() {
        open = (1..run.tasks.len() as u32)
            .filter(|&n| run.task(n).is_head() && run.task(n).scope == 0)
            .map(|n| (n, true))
            .collect();
    }
    while let Some((no, named)) = open.pop() {
        let task = run.task(no);
        if task.node == NONE || task.hook != u16::MAX || !seen.insert(no) {
            continue;
        }
        let has_failed = |no: u32| {
            let state = run.task(no).state;
            matches!(state, TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled)
        };
        let failed = has_failed(no);
        let wanted = !options.only_failed || failed || !named;
        if wanted {
            chosen.insert(no);
            if options.downstream || options.only_failed {
                let graph = run.plan.graph_plan(run.scope(task.scope).template);
                for reader in &graph.readers[task.node as usize] {
                    open.push((run.head(task.scope, reader.node), options.only_failed));
                }
            }
        }
        if task.has(flag::SUMMARY) {
            let state = &run.scope(task.scope).nodes[task.node as usize];
            // An expansion that goes on has only these; one that begins anew may have them all.
            let goes_on = task.state == TaskState::Running && state.length != UNKNOWN;
            let had = if goes_on { state.made.min(state.length) } else { state.made };
            for index in 0..had {
                if let Some(instance) = state.instance(index) {
                    open.push((instance, named));
                }
            }
            if options.only_failed && task.state == TaskState::Running {
                chosen.remove(&no);
            }
        } else if task.child != NONE && is_current(run, task.child) {
            let scope = run.scope(task.child);
            let inside = scope.first..scope.first + scope.nodes.len() as u32;
            if options.only_failed && inside.clone().any(has_failed) {
                // Its failed tasks run again in the same activation; it goes on with them.
                chosen.remove(&no);
            }
            // What is cleared as a whole is activated anew: the old activation is history.
            if !chosen.contains(&no) || task.state == TaskState::Running {
                open.extend(inside.map(|inner| (inner, named)));
            }
        }
    }
    // What lies inside a task that is activated anew is history as well.
    let inside: Vec<u32> =
        chosen.iter().copied().filter(|&no| lies_in_cleared(run, no, &chosen)).collect();
    for no in inside {
        chosen.remove(&no);
    }
    // An expansion of which only some instances are cleared goes on as it is.
    if options.only_failed {
        let partly: Vec<u32> = chosen
            .iter()
            .copied()
            .filter(|&no| {
                let task = run.task(no);
                let state = |n: u32| &run.scope(task.scope).nodes[n as usize];
                task.has(flag::SUMMARY)
                    && state(task.node).length != UNKNOWN
                    && state(task.node).made > 0
            })
            .collect();
        for no in partly {
            chosen.remove(&no);
        }
    }
    chosen
}

impl Cx {
    /// A finished run goes on.
    pub(crate) fn reopen_run(&mut self, run: &mut Run) {
        run.row.state = RunState::Running;
        run.row.generation += 1;
        run.row.ended_at = None;
        run.row.stop = None;
        run.row.cause = Cause::None;
        run.row.message = None;
        run.verdict = None;
        run.hooks_started = false;
        run.dirty = true;
        if let Some(timeout) = run.plan.workflow.timeout_ms {
            let deadline = self.now.engine.after_millis(timeout);
            run.row.deadline = Some(deadline);
            self.timers.insert((deadline, crate::engine::TimerKey::Run(run.row.run)));
        }
        self.reopened.push(run.row.run);
        run.admitted = true;
        self.transit(run, 0, Move::Resume, TaskState::Running, Cause::None);
        run.task_mut(0).unset(flag::SETTLED);
        run.task_mut(0).ended_at = NEVER;
        if !run.scopes.is_empty() {
            run.scopes[0].finished = false;
            self.limit_scope(run, 0);
            run.scopes[0].stopping = None;
            run.touch_scope(0);
        }
        self.run_event(run);
        self.list(run);
    }

    /// A task becomes pending again; counters are set right afterwards by `recount`.
    pub(crate) fn clear_one(&mut self, run: &mut Run, no: u32) {
        if run.task(no).state == TaskState::Pending {
            return;
        }
        let row = run.task_row(no);
        if row.attempt > 0 {
            self.batch.attempts.push(row);
        }
        self.release(run, no);
        self.set_due(run, no, None);
        self.transit(run, no, Move::Clear, TaskState::Pending, Cause::None);
        self.disown_added(run, no);
        let task = run.task_mut(no);
        task.attempts_before = task.attempt;
        task.unset(
            flag::SETTLED
                | flag::PASSED
                | flag::GUARDED
                | flag::ASKED
                | flag::START_HOOKED
                | flag::DAEMON_UP,
        );
        task.set(flag::STALE_OUTPUTS);
        task.kill = None;
        task.ready_at = NEVER;
        task.started_at = NEVER;
        task.ended_at = NEVER;
        task.first_started = NEVER;
        task.child = NONE;
        if let Some(more) = task.more.as_mut() {
            more.message = None;
            more.exit_code = None;
            more.skips.clear();
            more.carry = kobza_model::Json::Null;
            more.inputs = kobza_model::Json::Null;
        }
        if task.has(flag::SUMMARY) {
            let (scope, node) = (task.scope, task.node);
            let state = &mut run.scopes[scope as usize].nodes[node as usize];
            if state.length != UNKNOWN {
                let missing = state.length.saturating_sub(state.made);
                state.length = UNKNOWN;
                run.count(TaskState::Pending, -i64::from(missing));
            }
            run.touch_expansion(scope, node);
        }
    }

    /// The chain of tasks that own a scope goes on, so that the scope can.
    pub(crate) fn reopen_owner(&mut self, run: &mut Run, scope: u32) {
        let mut scope = scope;
        loop {
            run.scopes[scope as usize].finished = false;
            self.limit_scope(run, scope);
            run.scopes[scope as usize].stopping = None;
            run.touch_scope(scope);
            let owner = run.scope(scope).owner;
            if owner == 0 || owner == NONE {
                return;
            }
            if run.task(owner).child != scope {
                // The owner was cleared as a whole: this activation is history.
                return;
            }
            if run.task(owner).state.is_finished() {
                self.transit(run, owner, Move::Resume, TaskState::Running, Cause::None);
                run.task_mut(owner).unset(flag::SETTLED);
                run.task_mut(owner).ended_at = NEVER;
            }
            scope = run.task(owner).scope;
            let (node, index) = (run.task(owner).node, run.task(owner).index);
            if index != NONE {
                let head = run.head(scope, node);
                if run.task(head).state.is_finished() {
                    self.transit(run, head, Move::Resume, TaskState::Running, Cause::None);
                    run.task_mut(head).unset(flag::SETTLED);
                    run.task_mut(head).ended_at = NEVER;
                }
            }
            recount(run, scope);
        }
    }

    /// Looks at everything in a scope that may now move.
    pub(crate) fn relook_scope(&mut self, run: &mut Run, scope: u32) {
        for node in 0..run.scope(scope).nodes.len() as u32 {
            let head = run.head(scope, node);
            let made = run.scope(scope).nodes[node as usize].made;
            let summary = run.task(head).has(flag::SUMMARY);
            if summary && made > 0 && run.scope(scope).nodes[node as usize].length != UNKNOWN {
                let unsettled = (0..made).any(|i| {
                    run.scope(scope).nodes[node as usize]
                        .instance(i)
                        .is_some_and(|t| !run.task(t).has(flag::SETTLED))
                });
                if unsettled && run.task(head).state.is_finished() {
                    self.transit(run, head, Move::Resume, TaskState::Running, Cause::None);
                    run.task_mut(head).unset(flag::SETTLED);
                    run.task_mut(head).ended_at = NEVER;
                }
                for index in 0..made {
                    if let Some(task) = run.scope(scope).nodes[node as usize].instance(index)
                        && run.task(task).state == TaskState::Pending
                    {
                        self.push(run, Work::Instance { task });
                    }
                }
                if run.task(head).state == TaskState::Running {
                    self.push(run, Work::Make { scope, node });
                }
            }
            if run.task(head).state == TaskState::Pending {
                self.push(run, Work::Node { scope, node });
            }
        }
        recount(run, scope);
        if run.scope(scope).unsettled == 0 {
            self.queue_verdict(run, scope);
        }
    }
}

/// Whether the scope, and each that it is in, is the one that its owner has now. An owner that is
/// tried again, or has not begun, gets another.
fn is_current(run: &Run, mut scope: u32) -> bool {
    loop {
        let owner = run.scope(scope).owner;
        if owner == 0 || owner == NONE {
            return true;
        }
        let task = run.task(owner);
        if task.child != scope || !(task.state == TaskState::Running || task.state.is_finished()) {
            return false;
        }
        scope = task.scope;
    }
}

/// Whether an instance is one of those that its node has now.
fn is_in_expansion(run: &Run, task: &Task) -> bool {
    if task.index == NONE || task.node == NONE {
        return true;
    }
    let length = run.scope(task.scope).nodes[task.node as usize].length;
    length != UNKNOWN && task.index < length
}

/// Whether a task that holds this one is itself chosen, and begins a new activation.
fn lies_in_cleared(run: &Run, no: u32, chosen: &BTreeSet<u32>) -> bool {
    let mut scope = run.task(no).scope;
    loop {
        let owner = run.scope(scope).owner;
        if owner == 0 || owner == NONE {
            return false;
        }
        if chosen.contains(&owner) && !task_is_composite_running(run, owner) {
            return true;
        }
        scope = run.task(owner).scope;
    }
}

/// Whether it goes on with the activation that it has.
pub(crate) fn task_is_composite_running(run: &Run, no: u32) -> bool {
    let task = run.task(no);
    task.state == TaskState::Running && task.child != NONE && run.plan.leaf(task.template).is_none()
}
