//! Answers: what dialects decide when they are asked.

use kobza_model::{Cause, Outcome, TaskState};

use crate::attempt::backoff_ms;
use crate::command::Decision;
use crate::engine::{Cx, Work};
use crate::memory::{NONE, Run, UNKNOWN, flag};
use crate::transition::Move;

impl Cx {
    /// Goes on with a task as its dialect decided.
    pub(crate) fn apply_decision(&mut self, run: &mut Run, no: u32, decision: Decision) {
        let id = run.row.run;
        let task = run.task(no);
        let (scope, node, state, child) = (task.scope, task.node, task.state, task.child);
        if state == TaskState::RetryWait {
            match decision {
                Decision::Retry { delay_ms, carry } => {
                    if !carry.is_null() {
                        run.task_mut(no).more().carry = carry;
                    }
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
        // What it waited for, in words, is over.
        if run.task(no).more.as_ref().is_some_and(|more| more.message.is_some()) {
            run.task_mut(no).more().message = None;
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
            // Handled before, where it leaves the question open.
            Decision::Wait { .. } => {}
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
}
