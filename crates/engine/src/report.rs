//! What comes back: reports, answers, retries, the passing of time.

use kobza_model::{
    Cause, EngineTime, EventKind, Json, LaunchId, NodeNo, Outcome, RunState, TaskId, TaskState,
};

use crate::action::{QuestionKind, Reply};
use crate::command::{Decision, Refusal, Report, ReportBody};
use crate::engine::{Cx, Engine, TimerKey, Work};
use crate::memory::{NEVER, NONE, Run, UNKNOWN, flag};
use crate::transition::Move;

/// How much longer than the executor the engine waits before it kills a body that ran out of time.
const TIME_OUT_GRACE_MS: u64 = 5_000;

impl Engine {
    pub(crate) fn report(&mut self, report: Report) -> Result<Reply, Refusal> {
        let LaunchId { launch, .. } = report.launch;
        let id = report.launch.task_id();
        let (cx, run, no) = self.with_task(id)?;
        let task = run.task(no);
        if task.launch != launch || !task.state.is_launched() {
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
        task.unset(flag::ASKED);
        cx.apply_decision(run, no, decision);
        cx.list(run);
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
        let engine = self.now.engine.0;
        let task = run.task_mut(no);
        if !task.has(flag::CONFIRMED) {
            task.set(flag::CONFIRMED);
            task.started_at = at;
            if task.first_started == NEVER {
                task.first_started = engine;
            }
            run.touch(no);
        }
    }

    /// A daemon that runs counts as settled for its readers.
    fn daemon_up(&mut self, run: &mut Run, no: u32) {
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

    /// An attempt failed: another follows, or the task fails.
    pub(crate) fn attempt_failed(
        &mut self,
        run: &mut Run,
        no: u32,
        cause: Cause,
        exit_code: Option<i32>,
        jitter: f64,
    ) {
        let plan = run.plan.clone();
        let task = run.task(no);
        let stopping = run.row.stop.is_some() || run.scope(task.scope).stopping.is_some();
        let retry = if task.node == NONE {
            None
        } else {
            plan.node(run.scope(task.scope).template, task.node).retry.as_ref()
        };
        let made = task.attempt.saturating_sub(task.attempts_before);
        let wanted = retry.filter(|r| {
            !stopping
                && made <= r.limit
                && (r.causes.is_empty() || r.causes.contains(&cause))
                && (r.exit_codes.is_empty() || exit_code.is_some_and(|c| r.exit_codes.contains(&c)))
        });
        let Some(retry) = wanted else {
            self.finish(run, no, Move::Fail, TaskState::Failed, cause);
            return;
        };
        let delay = backoff_ms(retry.backoff, made, jitter);
        if self.time_left(run, no) == Some(1) {
            run.task_mut(no).more().message = Some("out of time for another attempt".to_owned());
            self.finish(run, no, Move::Fail, TaskState::Failed, Cause::Timeout);
            return;
        }
        self.daemon_down(run, no);
        self.transit(run, no, Move::Retry, TaskState::RetryWait, cause);
        run.task_mut(no).ended_at = self.now.wall.0;
        run.task_mut(no).kill = None;
        self.release(run, no);
        if retry.ask {
            self.set_due(run, no, None);
            self.ask(run, no, QuestionKind::Retry);
        } else {
            let due = self.now.engine.after_millis(delay);
            self.set_due(run, no, Some(due));
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

    fn task_due(&mut self, run: &mut Run, no: u32) {
        match run.task(no).state {
            TaskState::RetryWait => self.next_attempt(run, no),
            TaskState::Deferred | TaskState::Rescheduled | TaskState::Suspended
                if out_of_time_at(run, no).is_some_and(|end| end <= self.now.engine) =>
            {
                run.task_mut(no).more().message = Some("out of time while it waited".to_owned());
                self.finish(run, no, Move::Fail, TaskState::Failed, Cause::Timeout);
            }
            TaskState::Deferred | TaskState::Rescheduled => self.wake_up(run, no),
            TaskState::Suspended => {
                self.finish(run, no, Move::Succeed, TaskState::Succeeded, Cause::Timeout);
            }
            TaskState::Queued | TaskState::Running => {
                let task = run.task(no);
                if run.plan.leaf(task.template).is_some() {
                    self.kill(run, no, Cause::Timeout);
                } else if task.child != NONE {
                    let child = task.child;
                    run.task_mut(no).more().message = Some("out of time".to_owned());
                    self.stop_scope(run, child, Cause::Timeout);
                }
            }
            _ => {}
        }
    }

    /// The next attempt of a task whose retry delay is over.
    fn next_attempt(&mut self, run: &mut Run, no: u32) {
        let row = run.task_row(no);
        self.batch.attempts.push(row);
        let task = run.task_mut(no);
        task.attempt += 1;
        task.lost = 0;
        task.set(flag::STALE_OUTPUTS);
        task.unset(flag::START_HOOKED);
        task.ready_at = self.now.wall.0;
        task.started_at = NEVER;
        task.ended_at = NEVER;
        task.child = NONE;
        if let Some(more) = task.more.as_mut() {
            more.carry = Json::Null;
            more.message = None;
            more.exit_code = None;
        }
        self.transit(run, no, Move::Resume, TaskState::Ready, Cause::None);
        self.queue_for_limits(run, no);
    }

    /// A wait is over: the same attempt goes on with a new launch.
    fn wake_up(&mut self, run: &mut Run, no: u32) {
        self.set_due(run, no, None);
        if run.plan.leaf(run.task(no).template).is_some_and(|l| l.kind == "suspend") {
            self.finish(run, no, Move::Succeed, TaskState::Succeeded, Cause::Hand);
            return;
        }
        run.task_mut(no).ready_at = self.now.wall.0;
        self.transit(run, no, Move::Resume, TaskState::Ready, Cause::None);
        // What it held while it waited is asked for anew with the rest: all or nothing.
        self.release(run, no);
        self.queue_for_limits(run, no);
    }

    fn apply_decision(&mut self, run: &mut Run, no: u32, decision: Decision) {
        let id = run.row.run;
        let task = run.task(no);
        let (scope, node, state, child) = (task.scope, task.node, task.state, task.child);
        if state == TaskState::RetryWait {
            match decision {
                Decision::Retry { delay_ms } => {
                    let made = run.task(no).attempt.saturating_sub(run.task(no).attempts_before);
                    let delay = delay_ms.unwrap_or_else(|| {
                        run.node_of(run.task(no))
                            .and_then(|n| n.retry.as_ref())
                            .map_or(0, |r| backoff_ms(r.backoff, made, 0.0))
                    });
                    let due = self.now.engine.after_millis(delay);
                    self.set_due(run, no, Some(due));
                }
                Decision::GiveUp { message } => {
                    if message.is_some() {
                        run.task_mut(no).more().message = message;
                    }
                    let cause = run.task(no).cause;
                    self.finish(run, no, Move::Fail, TaskState::Failed, cause);
                }
                Decision::Fail { cause, message } => {
                    run.task_mut(no).more().message = Some(message);
                    self.finish(run, no, Move::Fail, TaskState::Failed, cause);
                }
                _ => self.bad_answer(run, no),
            }
            return;
        }
        if state == TaskState::Running && child != NONE && run.scope(child).asked {
            match decision {
                Decision::Outputs(outputs) => {
                    self.output(id, no, outputs);
                    self.end_scope(run, child, Outcome::Succeeded, Cause::None, None);
                }
                Decision::Fail { cause, message } => {
                    self.end_scope(run, child, Outcome::Failed, cause, Some(message));
                }
                _ => self.end_scope(run, child, Outcome::Succeeded, Cause::None, None),
            }
            return;
        }
        if state != TaskState::Pending {
            return;
        }
        match decision {
            Decision::Run { inputs } => {
                if !inputs.is_null() {
                    run.task_mut(no).more().inputs = inputs;
                }
                self.admit(run, no);
            }
            Decision::Expand { length, items, inputs } => {
                if !inputs.is_null() {
                    run.task_mut(no).more().inputs = inputs;
                }
                if let Some(items) = items {
                    self.output(id, no, vec![("$items".to_owned(), items)]);
                }
                if run.task(no).has(flag::SUMMARY)
                    && run.scope(scope).nodes[node as usize].length == UNKNOWN
                {
                    self.expand(run, scope, node, length);
                }
            }
            Decision::Skip { cause, message } => {
                if message.is_some() {
                    run.task_mut(no).more().message = message;
                }
                self.finish(run, no, Move::Skip, TaskState::Skipped, cause);
            }
            Decision::Succeed { cause, outputs } => {
                self.output(id, no, outputs);
                self.finish(run, no, Move::Complete, TaskState::Succeeded, cause);
            }
            Decision::Fail { cause, message } => {
                run.task_mut(no).more().message = Some(message);
                if cause == Cause::Gate {
                    self.finish(run, no, Move::UpstreamFail, TaskState::UpstreamFailed, cause);
                } else {
                    self.finish(run, no, Move::Refuse, TaskState::Failed, cause);
                }
            }
            Decision::Outputs(_) | Decision::Retry { .. } | Decision::GiveUp { .. } => {
                self.bad_answer(run, no)
            }
        }
    }

    fn bad_answer(&mut self, run: &mut Run, no: u32) {
        run.task_mut(no).more().message =
            Some("the dialect answered another question than the one asked".to_owned());
        let (mv, to) = if run.task(no).state == TaskState::Pending {
            (Move::Refuse, TaskState::Failed)
        } else {
            (Move::Fail, TaskState::Failed)
        };
        self.finish(run, no, mv, to, Cause::Infrastructure);
    }

    /// Looks again at a task that became pending.
    pub(crate) fn relook(&mut self, run: &Run, no: u32) {
        let task = run.task(no);
        if task.node == NONE {
            return;
        }
        let work = if task.index == NONE {
            Work::Node { scope: task.scope, node: task.node }
        } else {
            Work::Instance { task: no }
        };
        self.push(run, work);
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
            let hooks: Vec<u32> =
                (0..run.tasks.len() as u32).filter(|&n| run.task(n).hook != u16::MAX).collect();
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

/// When a task's total time is over, if it has one and has begun.
fn out_of_time_at(run: &Run, no: u32) -> Option<EngineTime> {
    let task = run.task(no);
    let total = run.node_of(task)?.timeout_ms?;
    (task.first_started != NEVER).then(|| EngineTime(task.first_started).after_millis(total))
}

fn cause_or(cause: Cause, or: Cause) -> Cause {
    if cause == Cause::None { or } else { cause }
}

/// `delay * factor^(made-1)`, capped, plus jitter.
fn backoff_ms(backoff: kobza_model::Backoff, made: u32, jitter: f64) -> u64 {
    let exponent = i32::try_from(made.saturating_sub(1)).unwrap_or(i32::MAX);
    let mut delay = backoff.delay_ms as f64 * backoff.factor.max(0.0).powi(exponent);
    if let Some(max) = backoff.max_ms {
        delay = delay.min(max as f64);
    }
    delay += delay * backoff.jitter.clamp(0.0, 1.0) * jitter.clamp(0.0, 1.0);
    // A day and a bit more than any sane delay: keeps arithmetic on times far from overflow.
    delay.clamp(0.0, 1e13) as u64
}
