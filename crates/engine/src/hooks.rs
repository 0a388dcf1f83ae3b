//! Hooks: tasks that run because another task or the run started or ended.

use kobza_model::{Cause, HookOn, Outcome, TaskState};

use crate::action::QuestionKind;
use crate::engine::Cx;
use crate::memory::{NONE, Run, Task, UNKNOWN, flag};
use crate::transition::Move;

impl Cx {
    /// Calls the hooks of a start, once an attempt.
    pub(crate) fn start_hooks(&mut self, run: &mut Run, no: u32) {
        if !run.task(no).has(flag::START_HOOKED) {
            run.task_mut(no).set(flag::START_HOOKED);
            self.call_hooks(run, no, |h| h == HookOn::Start);
        }
    }

    /// Calls the hooks of a task that `on` chooses.
    pub(crate) fn call_hooks(&mut self, run: &mut Run, no: u32, on: impl Fn(HookOn) -> bool) {
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

    /// A hook has ended: its owner may settle, or fail with it.
    pub(crate) fn settle_hook(
        &mut self,
        run: &mut Run,
        _no: u32,
        owner: u32,
        place: u16,
        outcome: Outcome,
    ) {
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
}
