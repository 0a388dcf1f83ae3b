//! Attempts: failures that are tried again, and the passing of time.

use kobza_model::{Cause, EngineTime, Json, TaskState};

use crate::action::QuestionKind;
use crate::engine::Cx;
use crate::memory::{NEVER, NONE, Run, flag};
use crate::transition::Move;

impl Cx {
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
        let task = run.task_mut(no);
        task.ended_at = self.now.wall.0;
        task.kill = None;
        if let Some(more) = task.more.as_mut() {
            // What the failed attempt kept for its own next launch is none of another's.
            more.carry = Json::Null;
        }
        self.release(run, no);
        if retry.ask {
            self.set_due(run, no, None);
            self.ask(run, no, QuestionKind::Retry);
        } else {
            let due = self.now.engine.after_millis(delay);
            self.set_due(run, no, Some(due));
        }
    }

    pub(crate) fn task_due(&mut self, run: &mut Run, no: u32) {
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
            more.message = None;
            more.exit_code = None;
        }
        self.transit(run, no, Move::Resume, TaskState::Ready, Cause::None);
        self.queue_for_limits(run, no);
    }

    /// A wait is over: the same attempt goes on with a new launch.
    pub(crate) fn wake_up(&mut self, run: &mut Run, no: u32) {
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
}

/// When a task's total time is over, if it has one and has begun.
pub(crate) fn out_of_time_at(run: &Run, no: u32) -> Option<EngineTime> {
    let task = run.task(no);
    let total = run.node_of(task)?.timeout_ms?;
    (task.first_started != NEVER).then(|| EngineTime(task.first_started).after_millis(total))
}

/// `delay * factor^(made-1)`, capped, plus jitter.
pub(crate) fn backoff_ms(backoff: kobza_model::Backoff, made: u32, jitter: f64) -> u64 {
    let exponent = i32::try_from(made.saturating_sub(1)).unwrap_or(i32::MAX);
    let mut delay = backoff.delay_ms as f64 * backoff.factor.max(0.0).powi(exponent);
    if let Some(max) = backoff.max_ms {
        delay = delay.min(max as f64);
    }
    delay += delay * backoff.jitter.clamp(0.0, 1.0) * jitter.clamp(0.0, 1.0);
    // A day and a bit more than any sane delay: keeps arithmetic on times far from overflow.
    delay.clamp(0.0, 1e13) as u64
}
