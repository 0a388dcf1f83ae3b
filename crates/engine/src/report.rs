//! What comes back: the reports of executors, calls that end a wait, timers that are due.

use kobza_model::{
    Cause, EngineTime, EventKind, Json, LaunchId, NodeNo, Outcome, RunState, TaskId, TaskState,
};

use crate::action::Reply;
use crate::attempt::out_of_time_at;
use crate::command::{Decision, Refusal, Report, ReportBody};
use crate::engine::{Cx, Engine, TimerKey, Work};
use crate::memory::{NEVER, NONE, Run, flag};
use crate::transition::Move;

/// How much longer than the executor the engine waits before it kills a body that ran out of time.
const TIME_OUT_GRACE_MS: u64 = 5_000;

impl Engine {
    pub(crate) fn report(&mut self, report: Report) -> Result<Reply, Refusal> {
        let LaunchId { launch, .. } = report.launch;
        let id = report.launch.task_id();
        let (cx, run, no) = self.with_task(id)?;
        let task = run.task(no);
        let late = matches!(report.body, ReportBody::Outputs(_));
        if task.launch != launch || !(task.state.is_launched() || late) {
            return Err(Refusal::Stale);
        }
        cx.apply_report(run, no, report);
        cx.list(run);
        Ok(Reply::Done)
    }

    pub(crate) fn answer(
        &mut self,
        id: TaskId,
        serial: u32,
        decision: Decision,
    ) -> Result<Reply, Refusal> {
        let (cx, run, no) = self.with_task(id)?;
        let task = run.task_mut(no);
        if task.serial != serial || !task.has(flag::ASKED) {
            return Err(Refusal::NotAsked);
        }
        if let Decision::Wait { reason } = decision {
            task.more().message = Some(reason);
            run.touch(no);
            cx.list(run);
            return Ok(Reply::Done);
        }
        task.unset(flag::ASKED);
        cx.apply_decision(run, no, decision);
        cx.list(run);
        Ok(Reply::Done)
    }

    /// Looks at a task again whose question is open.
    pub(crate) fn ask_again(&mut self, id: TaskId) -> Result<Reply, Refusal> {
        let (cx, run, no) = self.with_task(id)?;
        let task = run.task_mut(no);
        if task.state == TaskState::Pending && task.has(flag::ASKED) {
            task.unset(flag::ASKED);
            let (scope, node, index) = (task.scope, task.node, task.index);
            let work = if index == NONE {
                Work::Node { scope, node }
            } else {
                Work::Instance { task: no }
            };
            cx.push(run, work);
            cx.list(run);
        }
        Ok(Reply::Done)
    }

    /// Ends or wakes a task that waits for a call.
    pub(crate) fn resume_task(
        &mut self,
        id: TaskId,
        outputs: Option<Vec<(String, Json)>>,
        carry: Option<Json>,
    ) -> Result<Reply, Refusal> {
        let (cx, run, no) = self.with_task(id)?;
        let state = run.task(no).state;
        if !matches!(state, TaskState::Suspended | TaskState::Deferred | TaskState::Rescheduled) {
            return Err(Refusal::WrongState {
                what: format!("task {id}"),
                state: state.as_str(),
                hint: "only a suspended or deferred task can be resumed",
            });
        }
        if let Some(carry) = carry {
            run.task_mut(no).more().carry = carry;
        }
        match outputs {
            Some(outputs) => {
                cx.output(id.run, no, outputs);
                cx.finish(run, no, Move::Succeed, TaskState::Succeeded, Cause::Hand);
            }
            None => cx.wake_up(run, no),
        }
        cx.list(run);
        Ok(Reply::Done)
    }

    /// Fires all timers that are due.
    pub(crate) fn tick(&mut self) {
        let now = self.cx.now.engine;
        while let Some(&(due, key)) = self.cx.timers.first() {
            if due > now {
                return;
            }
            self.cx.timers.pop_first();
            match key {
                TimerKey::Task(id, no) => {
                    if let Some(run) = self.runs.get_mut(&id) {
                        run.task_mut(no).due = NEVER;
                        run.touch(no);
                        self.cx.task_due(run, no);
                        self.cx.list(run);
                    }
                }
                TimerKey::Run(id) => {
                    if let Some(run) = self.runs.get_mut(&id) {
                        run.row.deadline = None;
                        self.cx.stop_all(run, "timeout", Cause::Timeout);
                        self.cx.list(run);
                    }
                }
                TimerKey::Machine(id) => self.machine_due(id),
            }
        }
    }
}

impl Cx {
    fn apply_report(&mut self, run: &mut Run, no: u32, report: Report) {
        let id = run.row.run;
        match report.body {
            ReportBody::Started => {
                self.confirm(run, no, report.at.0);
            }
            ReportBody::Finished { outcome, cause, message, exit_code, outputs, skips, jitter } => {
                self.confirm_silently(run, no, report.at.0);
                let task = run.task_mut(no);
                if message.is_some() || task.more.as_ref().is_some_and(|m| m.message.is_some()) {
                    task.more().message = message;
                }
                if exit_code.is_some() || task.more.as_ref().is_some_and(|m| m.exit_code.is_some())
                {
                    task.more().exit_code = exit_code;
                }
                self.output(id, no, outputs);
                self.body_ended(run, no, outcome, cause, skips, jitter);
            }
            ReportBody::Deferred { until, carry } => {
                self.wait(run, no, Move::Defer, TaskState::Deferred, until, carry);
            }
            ReportBody::Rescheduled { until, carry } => {
                self.wait(run, no, Move::Reschedule, TaskState::Rescheduled, Some(until), carry);
            }
            ReportBody::Suspended { carry } => {
                self.wait(run, no, Move::Suspend, TaskState::Suspended, None, carry);
            }
            ReportBody::Lost { message } => self.lost(run, no, message),
            ReportBody::Outputs(outputs) => self.output(id, no, outputs),
            ReportBody::AddTasks(tasks) if run.plan.workflow.open => {
                for task in tasks {
                    self.add_task(run, task);
                }
            }
            ReportBody::AddTasks(tasks) => self.add_to_task(run, no, tasks),
            ReportBody::Published { asset, partition, metadata } => {
                let kind = EventKind::Materialized { asset, partition, metadata };
                self.event(id, Some(no), kind);
            }
            ReportBody::Note { word, detail } => self.note(run, Some(no), word, detail),
        }
    }

    /// The executor has it.
    fn confirm(&mut self, run: &mut Run, no: u32, at: i64) {
        let first = !run.task(no).has(flag::CONFIRMED);
        self.confirm_silently(run, no, at);
        if !first || run.task(no).state != TaskState::Queued {
            return;
        }
        self.transit(run, no, Move::Start, TaskState::Running, Cause::None);
        self.set_time_out(run, no, TIME_OUT_GRACE_MS);
        self.start_hooks(run, no);
        self.daemon_up(run, no);
    }

    fn confirm_silently(&mut self, run: &mut Run, no: u32, at: i64) {
        let (wall, engine) = (self.now.wall.0, self.now.engine.0);
        let task = run.task_mut(no);
        if !task.has(flag::CONFIRMED) {
            task.set(flag::CONFIRMED);
            // The report may have been made after this batch began, whose time its end gets.
            task.started_at = at.min(wall);
            if task.first_started == NEVER {
                task.first_started = engine;
            }
            run.touch(no);
        }
    }

    /// A daemon that runs counts as settled for its readers.
    pub(crate) fn daemon_up(&mut self, run: &mut Run, no: u32) {
        let task = run.task(no);
        if !task.is_head()
            || task.has(flag::DAEMON_UP)
            || !run.node_of(task).is_some_and(|n| n.daemon)
        {
            return;
        }
        let (scope, node) = (task.scope, task.node);
        run.task_mut(no).set(flag::DAEMON_UP);
        let plan = run.plan.clone();
        let state = &mut run.scopes[scope as usize];
        state.unsettled = state.unsettled.saturating_sub(1);
        state.daemons += 1;
        let unsettled = state.unsettled;
        for reader in &plan.graph_plan(run.scope(scope).template).readers[node as usize] {
            self.push(run, Work::Node { scope, node: reader.node });
        }
        if unsettled == 0 {
            self.queue_verdict(run, scope);
        }
    }

    /// A daemon that must start again is no longer settled: its scope waits for it.
    pub(crate) fn daemon_down(&mut self, run: &mut Run, no: u32) {
        if !run.task(no).has(flag::DAEMON_UP) {
            return;
        }
        run.task_mut(no).unset(flag::DAEMON_UP);
        let scope = run.task(no).scope;
        let state = &mut run.scopes[scope as usize];
        state.daemons = state.daemons.saturating_sub(1);
        state.unsettled += 1;
        let owner = state.owner;
        self.daemon_down(run, owner);
    }

    /// A body has ended by itself or was ended.
    fn body_ended(
        &mut self,
        run: &mut Run,
        no: u32,
        outcome: Outcome,
        cause: Cause,
        skips: Vec<NodeNo>,
        jitter: f64,
    ) {
        let task = run.task(no);
        let kill = task.kill;
        let daemon_stopped = task.has(flag::DAEMON_UP) && kill == Some(Cause::Hand);
        if kill == Some(Cause::None) {
            self.clear_one(run, no);
            self.relook(run, no);
            return;
        }
        if daemon_stopped {
            self.finish(run, no, Move::Succeed, TaskState::Succeeded, Cause::None);
            return;
        }
        match (outcome, kill) {
            (Outcome::Succeeded, _) => {
                if !skips.is_empty() {
                    run.task_mut(no).more().skips = skips;
                }
                self.finish(
                    run,
                    no,
                    Move::Succeed,
                    TaskState::Succeeded,
                    cause_or(cause, Cause::None),
                );
            }
            (Outcome::Skipped, _) => {
                self.finish(run, no, Move::Skip, TaskState::Skipped, cause_or(cause, Cause::Code))
            }
            (_, Some(Cause::Timeout)) => self.attempt_failed(run, no, Cause::Timeout, None, jitter),
            (_, Some(Cause::FailFast)) => {
                self.finish(run, no, Move::Cancel, TaskState::Cancelled, Cause::FailFast)
            }
            (_, Some(kill)) => self.finish(run, no, Move::Cancel, TaskState::Cancelled, kill),
            (Outcome::Cancelled, None) => self.finish(
                run,
                no,
                Move::Cancel,
                TaskState::Cancelled,
                cause_or(cause, Cause::Hand),
            ),
            (Outcome::Failed | Outcome::UpstreamFailed | Outcome::Removed, None) => {
                let exit = run.task(no).more.as_ref().and_then(|m| m.exit_code);
                self.attempt_failed(run, no, cause_or(cause, Cause::Code), exit, jitter);
            }
        }
    }

    fn wait(
        &mut self,
        run: &mut Run,
        no: u32,
        mv: Move,
        to: TaskState,
        until: Option<EngineTime>,
        carry: Json,
    ) {
        if run.task(no).kill.is_some() {
            // It was being killed: giving the worker back is as good as dying.
            self.body_ended(run, no, Outcome::Cancelled, Cause::Hand, Vec::new(), 0.0);
            return;
        }
        run.task_mut(no).more().carry = carry;
        self.daemon_down(run, no);
        self.transit(run, no, mv, to, Cause::None);
        self.release_unless_waiting(run, no);
        let end = out_of_time_at(run, no);
        self.set_due(run, no, until.into_iter().chain(end).min());
    }

    fn lost(&mut self, run: &mut Run, no: u32, message: String) {
        let limit = self.options.lost_limit;
        let task = run.task_mut(no);
        if task.kill.is_some() {
            self.body_ended(run, no, Outcome::Cancelled, Cause::Lost, Vec::new(), 0.0);
            return;
        }
        task.lost = task.lost.saturating_add(1);
        if task.lost <= limit {
            task.set(flag::STALE_OUTPUTS);
            self.note(run, Some(no), "lost".to_owned(), message);
            self.daemon_down(run, no);
            // It keeps its limits: it is the same attempt, handed over again.
            self.launch(run, no, Move::Relaunch);
        } else {
            task.more().message = Some(message);
            self.attempt_failed(run, no, Cause::Lost, None, 0.0);
        }
    }

    /// Stops a whole run.
    pub(crate) fn stop_all(&mut self, run: &mut Run, mode: &str, cause: Cause) {
        if run.row.state.is_finished() {
            return;
        }
        run.row.stop = Some(mode.to_owned());
        run.dirty = true;
        if run.row.state == RunState::Queued && run.tasks.is_empty() {
            run.row.state = RunState::Cancelled;
            run.row.cause = cause;
            run.row.ended_at = Some(self.now.wall);
            self.run_event(run);
            self.actions.push(crate::action::Action::RunEnded { run: run.row.run });
            return;
        }
        run.row.state = RunState::Cancelling;
        run.row.paused_from = None;
        run.row.cause = cause;
        self.run_event(run);
        if mode == "terminate" {
            let hooks: Vec<u32> = run
                .tasks
                .iter()
                .filter(|(_, task)| task.hook != u16::MAX)
                .map(|(no, _)| no)
                .collect();
            for no in hooks {
                self.stop_task_tree(run, no, Cause::RunCancelled);
            }
        }
        if run.plan.workflow.open {
            self.stop_open(run);
            return;
        }
        self.stop_scope(
            run,
            0,
            if cause == Cause::Timeout { Cause::Timeout } else { Cause::RunCancelled },
        );
    }

    pub(crate) fn cleared_event(&mut self, run: &Run, tasks: u32) {
        self.event(run.row.run, None, EventKind::Cleared { tasks });
    }
}

fn cause_or(cause: Cause, or: Cause) -> Cause {
    if cause == Cause::None { or } else { cause }
}
