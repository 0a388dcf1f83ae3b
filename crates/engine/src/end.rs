//! Ends: a task finishes, its hooks run, its readers are told, its scope is judged, its run ends.

use kobza_model::{Cause, EventKind, HookOn, LaunchId, Outcome, RunState, TaskNo, TaskState};

use crate::action::{Action, KillReason, QuestionKind};
use crate::added::failed_before;
use crate::engine::{Cx, TimerKey, Work};
use crate::gate_eval::{Counts, aligned_range, holds};
use crate::limits::LimitKey;
use crate::memory::{NEVER, NONE, Run, Task, UNKNOWN, flag};
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

    pub(crate) fn start_hooks(&mut self, run: &mut Run, no: u32) {
        if !run.task(no).has(flag::START_HOOKED) {
            run.task_mut(no).set(flag::START_HOOKED);
            self.call_hooks(run, no, |h| h == HookOn::Start);
        }
    }

    fn call_hooks(&mut self, run: &mut Run, no: u32, on: impl Fn(HookOn) -> bool) {
        let task = run.task(no);
        if task.hook != u16::MAX || task.node == NONE {
            return;
        }
        let plan = run.plan.clone();
        let node = plan.node(run.scope(task.scope).template, task.node);
        // The hooks of an expanded node belong to its instances.
        if task.has(flag::SUMMARY)
            && run.scope(task.scope).nodes[task.node as usize].length != UNKNOWN
        {
            return;
        }
        if run.row.stop.as_deref() == Some("terminate") {
            return;
        }
        let cancelled = run.row.stop.is_some();
        for (place, hook) in node.hooks.iter().enumerate() {
            if on(hook.on) && !(cancelled && hook.skip_on_cancel) {
                self.call_hook(run, no, place as u16, hook, run.task(no).scope);
            }
        }
    }

    fn call_hook(
        &mut self,
        run: &mut Run,
        owner: u32,
        place: u16,
        hook: &kobza_model::Hook,
        scope: u32,
    ) {
        let no = run.tasks.len() as u32;
        let mut task = Task::new(scope, NONE, hook.call.0, self.now.wall);
        task.parent = owner;
        task.hook = place;
        task.priority = run.row.priority;
        task.more().name = Some(hook.name.clone());
        task.more().inputs = hook.arguments.clone();
        task.set(flag::PASSED);
        run.tasks.push(task);
        run.count(TaskState::Pending, 1);
        run.touch(no);
        if owner == 0 {
            run.hooks_open += 1;
        } else {
            run.task_mut(owner).hooks_open += 1;
        }
        if hook.guard {
            self.ask(run, no, QuestionKind::Guard);
        } else {
            self.admit(run, no);
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

    fn settle_hook(&mut self, run: &mut Run, _no: u32, owner: u32, place: u16, outcome: Outcome) {
        let failed = matches!(outcome, Outcome::Failed | Outcome::UpstreamFailed);
        if owner == 0 {
            run.hooks_open = run.hooks_open.saturating_sub(1);
            let affects = run.plan.workflow.hooks.get(place as usize).is_some_and(|h| h.affects);
            if failed && affects && matches!(run.verdict, Some((Outcome::Succeeded, _))) {
                run.verdict = Some((Outcome::Failed, Cause::Code));
                run.row.message = Some("a hook of the run failed".to_owned());
            }
            if run.hooks_open == 0 {
                self.end_run(run);
            }
            return;
        }
        let affects = run
            .node_of(run.task(owner))
            .and_then(|n| n.hooks.get(place as usize))
            .is_some_and(|h| h.affects);
        let task = run.task_mut(owner);
        task.hooks_open = task.hooks_open.saturating_sub(1);
        let (open, state) = (task.hooks_open, task.state);
        if failed && affects && state == TaskState::Succeeded {
            run.task_mut(owner).more().message = Some("one of its hooks failed".to_owned());
            self.transit(run, owner, Move::Fail, TaskState::Failed, Cause::Code);
        }
        if open == 0 && run.task(owner).state.is_finished() {
            self.settle(run, owner);
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

    /// A scope that fails early ends its other tasks as soon as one failed.
    fn judge_early(&mut self, run: &mut Run, scope: u32, no: u32) {
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

    fn stop_instances(&mut self, run: &mut Run, scope: u32, node: u32) {
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

    /// Judges a scope in which nothing is unsettled.
    pub(crate) fn judge(&mut self, run: &mut Run, scope: u32) {
        let state = run.scope(scope);
        if state.finished || state.unsettled > 0 || state.asked || run.plan.workflow.open {
            return;
        }
        if state.daemons > 0 {
            let (first, count) = (state.first, state.nodes.len() as u32);
            for no in first..first + count {
                if run.task(no).has(flag::DAEMON_UP) && run.task(no).state == TaskState::Running {
                    self.kill(run, no, Cause::None);
                    run.task_mut(no).kill = Some(Cause::Hand);
                }
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

    pub(crate) fn run_hooks(&mut self, run: &mut Run) {
        if !run.hooks_started {
            run.hooks_started = true;
            let plan = run.plan.clone();
            let succeeded = matches!(run.verdict, Some((Outcome::Succeeded, _)));
            let terminated = run.row.stop.as_deref() == Some("terminate");
            let stopped = run.row.stop.is_some();
            for (place, hook) in plan.workflow.hooks.iter().enumerate() {
                let on = match hook.on {
                    HookOn::Exit => true,
                    HookOn::Success => succeeded,
                    HookOn::Failure => !succeeded,
                    HookOn::Start => false,
                };
                if on && !terminated && !(stopped && hook.skip_on_cancel) {
                    self.call_hook(run, 0, place as u16, hook, 0);
                }
            }
        }
        if run.hooks_open == 0 {
            self.end_run(run);
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
            self.freed.push((run.row.namespace.clone(), run.row.workflow.clone()));
        }
        self.list(run);
    }
}

/// How a scope ends: by the outcomes of its verdict set.
pub(crate) fn verdict(run: &Run, scope: u32) -> (Outcome, Cause, Option<String>) {
    let state = run.scope(scope);
    let Some(graph) = run.plan.graph(state.template) else {
        return (Outcome::Succeeded, Cause::None, None);
    };
    let plan = run.plan.graph_plan(state.template);
    let inherited = graph.verdict.inherit_omitted.then(|| inherited_outcomes(run, scope));
    let mut counts = Counts { outcomes: [[0; 6]; 4], totals: [0; 4], index: 0 };
    let mut culprit: Option<u32> = None;
    for &node in &plan.verdict {
        let head = run.task(state.first + node);
        let mut outcome = match &inherited {
            Some(all) => all[node as usize],
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
        let own = head.state.outcome().unwrap_or(Outcome::Failed);
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
