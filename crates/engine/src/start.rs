//! Starts: a task asks for its limits, holds them, and is handed over.

use kobza_model::{Cause, Json, NodeNo, RunState, ScopeNo, TaskState};

use crate::action::{Action, Launch};
use crate::engine::{Cx, Work};
use crate::limits::LimitKey;
use crate::memory::{NEVER, NONE, Run, flag};
use crate::transition::Move;

impl Cx {
    /// The task may run: it becomes ready and asks for its limits.
    pub(crate) fn admit(&mut self, run: &mut Run, no: u32) {
        let task = run.task_mut(no);
        task.set(flag::PASSED | flag::GUARDED);
        task.attempt += 1;
        task.lost = 0;
        task.ready_at = self.now.wall.0;
        self.transit(run, no, Move::Admit, TaskState::Ready, Cause::None);
        self.queue_for_limits(run, no);
    }

    /// A ready task asks for its limits.
    pub(crate) fn queue_for_limits(&mut self, run: &mut Run, no: u32) {
        if matches!(run.row.state, RunState::Paused | RunState::Queued)
            || run.task(no).has(flag::QUEUED)
        {
            return;
        }
        let wants = self.wants(run, no);
        let id = Cx::task_id(run, no);
        run.task_mut(no).set(flag::QUEUED);
        if self.limits.acquire(id, wants, run.task(no).priority) {
            self.push(run, Work::Start { task: no });
        }
    }

    /// Every limit that a task needs while launched.
    pub(crate) fn wants(&self, run: &Run, no: u32) -> Vec<(LimitKey, u32)> {
        let task = run.task(no);
        let mut wants: Vec<(LimitKey, u32)> = Vec::new();
        if let Some(node) = run.node_of(task) {
            wants.extend(node.limits.iter().map(|l| (LimitKey::Named(l.limit.clone()), l.weight)));
        }
        let Some(leaf) = run.plan.leaf(task.template) else { return wants };
        if leaf.kind == "suspend" {
            return wants;
        }
        let mut scope = task.scope;
        loop {
            let state = run.scope(scope);
            if run.plan.graph(state.template).is_some_and(|g| g.parallelism.is_some()) {
                wants.push((LimitKey::Scope(run.row.run, scope), 1));
            }
            if state.owner == 0 || state.owner == NONE {
                break;
            }
            scope = run.task(state.owner).scope;
        }
        // A caller that held a slot while its run waits for one would wait for itself.
        if !matches!(leaf.kind.as_str(), "noop" | "wait" | "workflow") {
            wants.push((LimitKey::Slots, 1));
        }
        wants
    }

    /// It holds its limits: run it.
    pub(crate) fn start_task(&mut self, run: &mut Run, no: u32) {
        let id = Cx::task_id(run, no);
        let task = run.task_mut(no);
        task.unset(flag::QUEUED);
        if task.state != TaskState::Ready {
            self.release(run, no);
            return;
        }
        if matches!(run.row.state, RunState::Paused | RunState::Queued) {
            self.release(run, no);
            return;
        }
        if self.limits.holds(id) {
            run.task_mut(no).set(flag::HOLDS);
        }
        let template = run.task(no).template;
        let plan = run.plan.clone();
        let Some(leaf) = plan.leaf(template) else {
            if Cx::owner_chain_depth(run, run.task(no).scope) >= self.options.depth {
                run.task_mut(no).more().message = Some(format!(
                    "graphs call graphs more than {} levels deep",
                    self.options.depth
                ));
                self.finish(run, no, Move::Refuse, TaskState::Failed, Cause::Limit);
                return;
            }
            self.note_start(run, no);
            self.transit(run, no, Move::Start, TaskState::Running, Cause::None);
            self.set_time_out(run, no, 0);
            self.activate(run, no);
            self.start_hooks(run, no);
            return;
        };
        match leaf.kind.as_str() {
            "noop" => {
                self.note_start(run, no);
                self.finish(run, no, Move::Complete, TaskState::Succeeded, Cause::None);
            }
            "suspend" => {
                self.note_start(run, no);
                self.transit(run, no, Move::Suspend, TaskState::Suspended, Cause::None);
                let wait = run
                    .task(no)
                    .more
                    .as_ref()
                    .and_then(|m| m.inputs.get("duration_ms").and_then(Json::as_u64));
                let due = wait.map(|ms| self.now.engine.after_millis(ms));
                self.set_due(run, no, due);
                self.release_unless_waiting(run, no);
                self.start_hooks(run, no);
            }
            _ => {
                self.launch(run, no, Move::Launch);
            }
        }
    }

    fn note_start(&mut self, run: &mut Run, no: u32) {
        let task = run.task_mut(no);
        task.started_at = self.now.wall.0;
        if task.first_started == NEVER {
            task.first_started = self.now.engine.0;
        }
    }

    /// Hands a task over: a new launch number, and the action once this is durable.
    pub(crate) fn launch(&mut self, run: &mut Run, no: u32, mv: Move) {
        let id = Cx::task_id(run, no);
        let timeout_ms = self.time_left(run, no);
        let task = run.task_mut(no);
        task.launch += 1;
        task.unset(flag::CONFIRMED);
        let launch = Launch {
            id: kobza_model::LaunchId { run: id.run, task: id.task, launch: task.launch },
            template: kobza_model::TemplateNo(task.template),
            scope: ScopeNo(task.scope),
            node: (task.node != NONE).then_some(NodeNo(task.node)),
            index: (task.index != NONE).then_some(task.index),
            attempt: task.attempt,
            carry: task.more.as_ref().map_or(Json::Null, |m| m.carry.clone()),
            timeout_ms,
        };
        self.transit(run, no, mv, TaskState::Queued, Cause::None);
        self.set_due(run, no, None);
        self.actions.push(Action::Launch(launch));
    }

    /// Milliseconds that a new attempt may run.
    pub(crate) fn time_left(&self, run: &Run, no: u32) -> Option<u64> {
        let task = run.task(no);
        let node = run.node_of(task)?;
        let total = node.timeout_ms.map(|total| {
            if task.first_started == NEVER {
                return total;
            }
            let used = (self.now.engine.0 - task.first_started).max(0) as u64 / 1000;
            total.saturating_sub(used).max(1)
        });
        match (node.attempt_timeout_ms, total) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Sets the time-out of a running attempt. `grace_ms`: executors enforce it themselves, so the
    /// engine's own is only for those that fail to.
    pub(crate) fn set_time_out(&mut self, run: &mut Run, no: u32, grace_ms: u64) {
        let due = self
            .time_left(run, no)
            .map(|ms| self.now.engine.after_millis(ms.saturating_add(grace_ms)));
        self.set_due(run, no, due);
    }

    /// Gives back all limits of a task, and lets others start.
    pub(crate) fn release(&mut self, run: &mut Run, no: u32) {
        let id = Cx::task_id(run, no);
        let mut woken = Vec::new();
        if run.task(no).has(flag::QUEUED) {
            run.task_mut(no).unset(flag::QUEUED);
            self.limits.withdraw(id, &mut woken);
        }
        run.task_mut(no).unset(flag::HOLDS);
        self.limits.release(id, |_| true, &mut woken);
        self.start_woken(woken);
    }

    /// Gives back what a waiting task need not hold.
    pub(crate) fn release_unless_waiting(&mut self, run: &mut Run, no: u32) {
        let keep: Vec<String> = run
            .node_of(run.task(no))
            .map(|node| {
                node.limits.iter().filter(|l| l.while_waiting).map(|l| l.limit.clone()).collect()
            })
            .unwrap_or_default();
        let mut woken = Vec::new();
        self.limits.release(
            Cx::task_id(run, no),
            |key| !matches!(key, LimitKey::Named(name) if keep.contains(name)),
            &mut woken,
        );
        if keep.is_empty() {
            run.task_mut(no).unset(flag::HOLDS);
        }
        self.start_woken(woken);
    }
}
