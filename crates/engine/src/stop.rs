//! Stops: what runs is killed, what waits ends.

use kobza_model::{Cause, LaunchId, TaskNo, TaskState};

use crate::action::{Action, KillReason};
use crate::engine::Cx;
use crate::memory::{NONE, Run, UNKNOWN, flag};
use crate::transition::Move;

impl Cx {
    /// Ends everything in a scope: what runs is killed, what waits ends for this cause.
    pub(crate) fn stop_scope(&mut self, run: &mut Run, scope: u32, cause: Cause) {
        run.scopes[scope as usize].stopping = Some(cause);
        let (first, count) = (run.scope(scope).first, run.scope(scope).nodes.len() as u32);
        for node in 0..count {
            self.stop_task_tree(run, first + node, cause);
            if run.task(first + node).has(flag::SUMMARY) {
                self.stop_instances_for(run, scope, node, cause);
            }
        }
        if run.scope(scope).unsettled == 0 {
            self.queue_verdict(run, scope);
        }
    }

    /// Ends an expansion whose first failure ends the rest.
    pub(crate) fn stop_instances(&mut self, run: &mut Run, scope: u32, node: u32) {
        self.stop_instances_for(run, scope, node, Cause::FailFast);
    }

    pub(crate) fn stop_instances_for(
        &mut self,
        run: &mut Run,
        scope: u32,
        node: u32,
        cause: Cause,
    ) {
        let state = &mut run.scopes[scope as usize].nodes[node as usize];
        if state.length == UNKNOWN {
            return;
        }
        let made = state.made;
        let missing = state.length.saturating_sub(made);
        if missing > 0 && run.task(run.head(scope, node)).state == TaskState::Running {
            // What was never made ends with the expansion.
            let state = &mut run.scopes[scope as usize].nodes[node as usize];
            state.length = made;
            run.touch_expansion(scope, node);
            run.count(TaskState::Pending, -i64::from(missing));
            run.count(TaskState::Cancelled, i64::from(missing));
        }
        for index in 0..made {
            if let Some(task) = run.scope(scope).nodes[node as usize].instance(index) {
                self.stop_task_tree(run, task, cause);
            }
        }
        let state = &run.scope(scope).nodes[node as usize];
        if state.settled() >= state.length {
            let head = run.head(scope, node);
            self.finish_summary(run, scope, node, head);
        }
    }

    /// Ends one task, and the scope that it activated.
    pub(crate) fn stop_task_tree(&mut self, run: &mut Run, no: u32, cause: Cause) {
        self.stop_added(run, no, cause);
        let task = run.task(no);
        let state = task.state;
        if state.is_finished() {
            return;
        }
        match state {
            TaskState::Queued | TaskState::Running
                if run.plan.leaf(task.template).is_some() && !task.has(flag::SUMMARY) =>
            {
                self.kill(run, no, cause);
            }
            TaskState::Running if task.child != NONE && !task.has(flag::SUMMARY) => {
                let child = task.child;
                self.stop_scope(run, child, cause);
            }
            TaskState::Running | TaskState::Cancelling => {}
            _ => self.end_unstarted(run, no, cause),
        }
    }

    /// Asks the executor to end a body. The task ends when the report comes.
    pub(crate) fn kill(&mut self, run: &mut Run, no: u32, cause: Cause) {
        self.set_due(run, no, None);
        let id = LaunchId { run: run.row.run, task: TaskNo(no), launch: run.task(no).launch };
        run.task_mut(no).kill = Some(cause);
        self.transit(run, no, Move::Kill, TaskState::Cancelling, cause);
        self.actions.push(Action::Kill { launch: id, reason: KillReason::from_cause(cause) });
    }
}
