//! Ends: a task finishes, settles, and its readers are told.

use kobza_model::{Cause, EventKind, HookOn, Outcome, TaskState};

use crate::added::failed_before;
use crate::engine::{Cx, Work};
use crate::gate_eval::aligned_range;
use crate::memory::{NEVER, NONE, Run, UNKNOWN, flag};
use crate::plan::EdgeKind;
use crate::transition::Move;

impl Cx {
    /// A task ends.
    pub(crate) fn finish(&mut self, run: &mut Run, no: u32, mv: Move, to: TaskState, cause: Cause) {
        run.task_mut(no).unset(flag::ASKED);
        self.set_due(run, no, None);
        let (mv, to, cause) = match failed_before(run, no) {
            Some(message) if to == TaskState::Succeeded => {
                run.task_mut(no).more().message = Some(message);
                (Move::Fail, TaskState::Failed, Cause::Code)
            }
            _ => (mv, to, cause),
        };
        self.transit(run, no, mv, to, cause);
        let task = run.task_mut(no);
        task.kill = None;
        task.ended_at = self.now.wall.0;
        self.release(run, no);
        if to == TaskState::Succeeded {
            self.materialize(run, no);
        }
        if let (Some(outcome), false) =
            (to.outcome(), cause == Cause::Branch || cause == Cause::Gate)
        {
            let on = match outcome {
                Outcome::Succeeded => Some(HookOn::Success),
                Outcome::Failed => Some(HookOn::Failure),
                _ => None,
            };
            let ran = run.task(no).started_at != NEVER;
            if ran {
                self.call_hooks(run, no, |h| h == HookOn::Exit || Some(h) == on);
            }
        }
        if run.task(no).hooks_open == 0 {
            self.settle(run, no);
        }
    }

    /// What a task declared to produce now exists.
    fn materialize(&mut self, run: &Run, no: u32) {
        let task = run.task(no);
        if task.has(flag::SUMMARY) {
            return;
        }
        let Some(node) = run.node_of(task) else { return };
        for asset in &node.produces {
            let kind = EventKind::Materialized {
                asset: asset.clone(),
                partition: run.row.partition.clone(),
                metadata: String::new(),
            };
            self.event(run.row.run, Some(no), kind);
        }
    }

    /// A task is finished with its hooks: readers and its scope are told, once.
    pub(crate) fn settle(&mut self, run: &mut Run, no: u32) {
        let task = run.task_mut(no);
        if task.has(flag::SETTLED) {
            return;
        }
        task.set(flag::SETTLED);
        run.touch(no);
        let task = run.task(no);
        let Some(outcome) = task.state.outcome() else { return };
        let (scope, node, index, parent, hook) =
            (task.scope, task.node, task.index, task.parent, task.hook);
        if hook == crate::added::ADDED {
            self.settle_added(run, no, parent, outcome);
        } else if hook != u16::MAX {
            self.settle_hook(run, no, parent, hook, outcome);
        } else if node == NONE {
            self.open_task_ended(run);
        } else if index != NONE {
            self.settle_instance(run, no, scope, node, index, parent, outcome);
        } else {
            self.settle_head(run, no, scope, node, outcome);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one task, already at hand")]
    fn settle_instance(
        &mut self,
        run: &mut Run,
        no: u32,
        scope: u32,
        node: u32,
        index: u32,
        head: u32,
        outcome: Outcome,
    ) {
        let plan = run.plan.clone();
        let template = run.scope(scope).template;
        let state = &mut run.scopes[scope as usize].nodes[node as usize];
        state.outcomes[outcome as usize] += 1;
        let first = state.outcomes[outcome as usize] == 1;
        let (length, made, settled) = (state.length, state.made, state.settled());
        let complete = settled >= length;
        if first && !complete {
            state.told |= 1 << outcome as u8;
        }
        self.apply_skips(run, no);
        for reader in &plan.graph_plan(template).readers[node as usize] {
            match reader.kind {
                EdgeKind::Counted if first && !complete => {
                    let counters = &mut run.scopes[scope as usize].nodes[reader.node as usize];
                    counters.counters[reader.class as usize][outcome as usize] += 1;
                    self.push(run, Work::Node { scope, node: reader.node });
                }
                EdgeKind::Aligned => self.wake_aligned(run, scope, reader.node, index, length),
                _ => {}
            }
        }
        let fail_fast = plan.node(template, node).expansion.as_ref().is_some_and(|e| e.fail_fast);
        if fail_fast && matches!(outcome, Outcome::Failed | Outcome::UpstreamFailed) {
            self.stop_instances(run, scope, node);
        }
        self.judge_early(run, scope, no);
        if complete {
            self.finish_summary(run, scope, node, head);
        } else if made < length {
            self.push(run, Work::Make { scope, node });
        }
    }

    fn wake_aligned(&mut self, run: &mut Run, scope: u32, reader: u32, index: u32, upstream: u32) {
        let own = run.scope(scope).nodes[reader as usize].length;
        if own == UNKNOWN || own == 0 {
            return;
        }
        // Readers whose range may hold `index`: a superset around its image is cheap and safe.
        let guess = (u64::from(index) * u64::from(own) / u64::from(upstream.max(1))) as u32;
        let span = own.div_ceil(upstream.max(1)) + 1;
        for i in guess.saturating_sub(1)..(guess + span).min(own) {
            if aligned_range(i, own, upstream).contains(&index)
                && let Some(task) = run.scope(scope).nodes[reader as usize].instance(i)
            {
                self.push(run, Work::Instance { task });
            }
        }
    }

    /// All instances have settled: the expansion as one ends.
    pub(crate) fn finish_summary(&mut self, run: &mut Run, scope: u32, node: u32, head: u32) {
        if run.task(head).state != TaskState::Running {
            return;
        }
        let state = &run.scope(scope).nodes[node as usize];
        let count = |o: Outcome| state.outcomes[o as usize];
        let missing = state.length.saturating_sub(state.made);
        let (mv, to) = if count(Outcome::Failed) > 0 {
            (Move::Fail, TaskState::Failed)
        } else if count(Outcome::UpstreamFailed) > 0 {
            (Move::UpstreamFail, TaskState::UpstreamFailed)
        } else if count(Outcome::Cancelled) > 0 || missing > 0 {
            (Move::Cancel, TaskState::Cancelled)
        } else if count(Outcome::Succeeded) == 0 {
            (Move::Skip, TaskState::Skipped)
        } else {
            (Move::Succeed, TaskState::Succeeded)
        };
        if missing > 0 {
            run.count(TaskState::Pending, -i64::from(missing));
            run.count(TaskState::Cancelled, i64::from(missing));
        }
        let cause = if to == TaskState::Succeeded { Cause::None } else { Cause::Code };
        self.finish(run, head, mv, to, cause);
    }

    fn settle_head(&mut self, run: &mut Run, no: u32, scope: u32, node: u32, outcome: Outcome) {
        let plan = run.plan.clone();
        let template = run.scope(scope).template;
        if run.scope(scope).nodes[node as usize].length == UNKNOWN {
            self.remove_instances(run, scope, node, 0);
        }
        let state = &mut run.scopes[scope as usize].nodes[node as usize];
        let expanded = state.length != UNKNOWN && state.length > 0;
        if !expanded {
            state.outcomes[outcome as usize] = 1;
        }
        let (outcomes, told) = (state.outcomes, std::mem::take(&mut state.told));
        let was_up = run.task(no).has(flag::DAEMON_UP);
        run.task_mut(no).unset(flag::DAEMON_UP);
        if !expanded {
            self.apply_skips(run, no);
        }
        for reader in &plan.graph_plan(template).readers[node as usize] {
            let state = &mut run.scopes[scope as usize].nodes[reader.node as usize];
            state.waiting = state.waiting.saturating_sub(1);
            match reader.kind {
                EdgeKind::Counted if expanded => {
                    // Readers were told the first of each outcome when it appeared; now the rest.
                    let counters = &mut state.counters[reader.class as usize];
                    for (place, &count) in outcomes.iter().enumerate() {
                        counters[place] += count - u32::from(told & (1 << place) != 0);
                    }
                }
                EdgeKind::Counted | EdgeKind::Summary => {
                    state.counters[reader.class as usize][outcome as usize] += 1;
                }
                EdgeKind::Aligned | EdgeKind::Expansion | EdgeKind::Logical => {}
            }
            self.push(run, Work::Node { scope, node: reader.node });
        }
        if was_up {
            let state = &mut run.scopes[scope as usize];
            state.daemons = state.daemons.saturating_sub(1);
        } else {
            let state = &mut run.scopes[scope as usize];
            state.unsettled = state.unsettled.saturating_sub(1);
        }
        for &follower in &plan.graph_plan(template).followers[node as usize] {
            self.push(run, Work::Node { scope, node: follower });
        }
        self.judge_early(run, scope, no);
        if run.scope(scope).unsettled == 0 {
            self.queue_verdict(run, scope);
        }
    }

    /// Nodes that a deciding task chose to skip are skipped at once, unless they already ended.
    fn apply_skips(&mut self, run: &mut Run, no: u32) {
        let task = run.task(no);
        if task.state != TaskState::Succeeded {
            return;
        }
        let Some(more) = task.more.as_ref().filter(|m| !m.skips.is_empty()) else { return };
        let (scope, index) = (task.scope, task.index);
        let skips = more.skips.clone();
        for node in &skips {
            let state = &run.scope(scope).nodes[node.index()];
            let target = if index != NONE && state.length != UNKNOWN {
                state.instance(index)
            } else {
                Some(run.head(scope, node.0))
            };
            if let Some(target) = target
                && run.task(target).state == TaskState::Pending
            {
                self.finish(run, target, Move::Skip, TaskState::Skipped, Cause::Branch);
            }
        }
    }
}
