//! Verdicts: how an activation ends, and with the last one its run.

use kobza_model::{Cause, Outcome, RunState, TaskState};

use crate::action::{Action, QuestionKind};
use crate::engine::{Cx, TimerKey, Work};
use crate::gate_eval::{Counts, holds};
use crate::limits::LimitKey;
use crate::memory::{Run, flag};
use crate::transition::Move;

impl Cx {
    /// A scope that fails early ends its other tasks as soon as one failed.
    pub(crate) fn judge_early(&mut self, run: &mut Run, scope: u32, no: u32) {
        let plan = run.plan.clone();
        let Some(graph) = plan.graph(run.scope(scope).template) else { return };
        let task = run.task(no);
        let failed = matches!(task.state, TaskState::Failed | TaskState::UpstreamFailed);
        if !graph.verdict.fail_fast || !failed || run.scope(scope).stopping.is_some() {
            return;
        }
        let node = &graph.nodes[task.node as usize];
        if node.ignorable || node.continue_on.contains(&Outcome::Failed) {
            return;
        }
        self.stop_scope(run, scope, Cause::FailFast);
    }

    /// Judges a scope in which nothing is unsettled.
    pub(crate) fn judge(&mut self, run: &mut Run, scope: u32) {
        let state = run.scope(scope);
        if state.finished || state.unsettled > 0 || state.asked || run.plan.workflow.open {
            return;
        }
        if state.daemons > 0 {
            let owner = state.owner;
            let holds = state.stopping.is_none() && is_daemon(run, owner);
            if holds && verdict(run, scope).0 == Outcome::Succeeded {
                // Only daemons are left in it: it is up like one, and ends with the scope around it.
                self.daemon_up(run, owner);
            } else {
                self.end_daemons(run, scope);
            }
            return;
        }
        let (outcome, cause, message) = verdict(run, scope);
        let owner = run.scope(scope).owner;
        let wants_outputs = run.plan.graph(run.scope(scope).template).is_some_and(|g| g.outputs);
        if outcome == Outcome::Succeeded && wants_outputs && owner != 0 {
            run.scopes[scope as usize].asked = true;
            self.ask(run, owner, QuestionKind::ScopeOutputs { child: kobza_model::ScopeNo(scope) });
            return;
        }
        self.end_scope(run, scope, outcome, cause, message);
    }

    /// Ends the daemons of a scope, and those of graphs in it that are up like one.
    fn end_daemons(&mut self, run: &mut Run, scope: u32) {
        let (first, count) = (run.scope(scope).first, run.scope(scope).nodes.len() as u32);
        for no in first..first + count {
            let task = run.task(no);
            if !task.has(flag::DAEMON_UP) || task.state != TaskState::Running {
                continue;
            }
            if run.plan.leaf(task.template).is_none() {
                let child = task.child;
                self.end_daemons(run, child);
            } else {
                self.kill(run, no, Cause::None);
                run.task_mut(no).kill = Some(Cause::Hand);
            }
        }
    }

    /// A scope ends, and with it the attempt of its owner.
    pub(crate) fn end_scope(
        &mut self,
        run: &mut Run,
        scope: u32,
        outcome: Outcome,
        cause: Cause,
        message: Option<String>,
    ) {
        let owner = run.scope(scope).owner;
        run.scopes[scope as usize].finished = true;
        run.scopes[scope as usize].asked = false;
        run.touch_scope(scope);
        self.limits.forget(&LimitKey::Scope(run.row.run, scope));
        if owner == 0 {
            if run.verdict.is_none() {
                run.verdict = Some((outcome, cause));
                if let Some(message) = message {
                    run.row.message = Some(message);
                    run.dirty = true;
                }
            }
            self.run_hooks(run);
            return;
        }
        if let Some(message) = message {
            run.task_mut(owner).more().message = Some(message);
        }
        if run.task(owner).kill == Some(Cause::None) {
            self.clear_one(run, owner);
            let scope = run.task(owner).scope;
            let node = run.task(owner).node;
            self.push(run, Work::Node { scope, node });
            return;
        }
        match outcome {
            Outcome::Failed | Outcome::UpstreamFailed => {
                self.attempt_failed(run, owner, cause, None, 0.0)
            }
            Outcome::Succeeded => {
                self.finish(run, owner, Move::Succeed, TaskState::Succeeded, Cause::None)
            }
            Outcome::Skipped => self.finish(run, owner, Move::Skip, TaskState::Skipped, cause),
            Outcome::Cancelled | Outcome::Removed => {
                self.finish(run, owner, Move::Cancel, TaskState::Cancelled, cause);
            }
        }
    }

    /// The run's outcome is known and its hooks have ended.
    pub(crate) fn end_run(&mut self, run: &mut Run) {
        let Some((mut outcome, mut cause)) = run.verdict else { return };
        if run.row.state.is_finished() {
            return;
        }
        match run.row.stop.as_deref() {
            Some("cancel") => (outcome, cause) = (Outcome::Cancelled, Cause::Hand),
            Some("timeout") => (outcome, cause) = (Outcome::Failed, Cause::Timeout),
            Some(_) => (outcome, cause) = (Outcome::Failed, Cause::Hand),
            None => {}
        }
        run.row.state = match outcome {
            Outcome::Succeeded | Outcome::Skipped => RunState::Succeeded,
            Outcome::Cancelled | Outcome::Removed => RunState::Cancelled,
            Outcome::Failed | Outcome::UpstreamFailed => RunState::Failed,
        };
        run.row.cause = cause;
        run.row.ended_at = Some(self.now.wall);
        run.dirty = true;
        if let Some(deadline) = run.row.deadline.take() {
            self.timers.remove(&(deadline, TimerKey::Run(run.row.run)));
        }
        if let Some(due) = run.machine_due.take() {
            self.timers.remove(&(due, TimerKey::Machine(run.row.run)));
        }
        let (to, mv) = match run.row.state {
            RunState::Succeeded => (TaskState::Succeeded, Move::Succeed),
            RunState::Cancelled => (TaskState::Cancelled, Move::Cancel),
            _ => (TaskState::Failed, Move::Fail),
        };
        if run.task(0).state == TaskState::Running {
            self.transit(run, 0, mv, to, cause);
            let root = run.task_mut(0);
            root.ended_at = self.now.wall.0;
            root.set(flag::SETTLED);
        }
        self.run_event(run);
        self.actions.push(Action::RunEnded { run: run.row.run });
        if std::mem::take(&mut run.admitted) {
            self.freed.push(run.admission_key());
        }
        self.list(run);
    }
}

/// Whether a task that owns a scope may be up while only daemons run in it.
pub(crate) fn is_daemon(run: &Run, owner: u32) -> bool {
    let task = run.task(owner);
    owner != 0 && task.is_head() && run.node_of(task).is_some_and(|node| node.daemon)
}

/// How a scope ends: by the outcomes of its verdict set.
pub(crate) fn verdict(run: &Run, scope: u32) -> (Outcome, Cause, Option<String>) {
    let state = run.scope(scope);
    let Some(graph) = run.plan.graph(state.template) else {
        return (Outcome::Succeeded, Cause::None, None);
    };
    let plan = run.plan.graph_plan(state.template);
    let inherited = graph.verdict.inherit_omitted.then(|| inherited_outcomes(run, scope));
    let mut counts = Counts::default();
    let mut culprit: Option<u32> = None;
    for &node in &plan.verdict {
        let head = run.task(state.first + node);
        let mut outcome = match &inherited {
            Some(all) => all[node as usize],
            None if head.has(flag::DAEMON_UP) => Outcome::Succeeded,
            None => head.state.outcome().unwrap_or(Outcome::Failed),
        };
        if graph.nodes[node as usize].continue_on.contains(&outcome) {
            outcome = Outcome::Succeeded;
        }
        counts.outcomes[0][outcome as usize] += 1;
        counts.totals[0] += 1;
        if culprit.is_none() && outcome == Outcome::Failed {
            culprit = Some(state.first + node);
        }
    }
    let count = |o: Outcome| counts.outcomes[0][o as usize];
    let by_row =
        graph.verdict.rows.iter().find(|row| holds(&row.when, &counts)).map(|row| row.then);
    let outcome =
        by_row.unwrap_or(if count(Outcome::Failed) + count(Outcome::UpstreamFailed) > 0 {
            Outcome::Failed
        } else if count(Outcome::Cancelled) > 0 {
            match state.stopping {
                Some(Cause::Timeout | Cause::FailFast) => Outcome::Failed,
                _ => Outcome::Cancelled,
            }
        } else {
            Outcome::Succeeded
        });
    let outcome = match state.stopping {
        Some(Cause::Timeout) if outcome != Outcome::Succeeded => Outcome::Failed,
        Some(Cause::FailFast) => Outcome::Failed,
        _ => outcome,
    };
    if outcome == Outcome::Succeeded {
        return (outcome, Cause::None, None);
    }
    // Name the task whose failure started it: a failed one rather than one that only followed.
    let culprit = culprit.or_else(|| {
        (state.first..state.first + state.nodes.len() as u32)
            .find(|&no| run.task(no).state == TaskState::Failed)
    });
    let cause = match state.stopping {
        Some(Cause::Timeout) => Cause::Timeout,
        _ => culprit.map_or(Cause::Code, |no| match run.task(no).cause {
            Cause::None => Cause::Code,
            cause => cause,
        }),
    };
    let message = culprit.map(|no| {
        let task = run.task(no);
        let name = run.task_name(task);
        match task.more.as_ref().and_then(|m| m.message.as_ref()) {
            Some(message) => format!("{name}: {message}"),
            None => format!("{name} failed"),
        }
    });
    (outcome, cause, message)
}

/// Outcomes in which a node that its gate skipped stands for the worst of its upstream nodes.
fn inherited_outcomes(run: &Run, scope: u32) -> Vec<Outcome> {
    let state = run.scope(scope);
    let plan = run.plan.graph_plan(state.template);
    let graph = run.plan.graph(state.template);
    let mut outcomes = vec![Outcome::Succeeded; state.nodes.len()];
    for &node in &plan.order {
        let head = run.task(state.first + node);
        let own = match head.state.outcome() {
            None if head.has(flag::DAEMON_UP) => Outcome::Succeeded,
            own => own.unwrap_or(Outcome::Failed),
        };
        let continues = graph.is_some_and(|g| g.nodes[node as usize].continue_on.contains(&own));
        outcomes[node as usize] = if own == Outcome::Skipped && head.cause == Cause::Gate {
            let ups = &plan.logical[node as usize];
            let failed = ups.iter().any(|&u| {
                matches!(outcomes[u as usize], Outcome::Failed | Outcome::UpstreamFailed)
            });
            if failed { Outcome::Failed } else { own }
        } else if continues {
            Outcome::Succeeded
        } else {
            own
        };
    }
    outcomes
}
