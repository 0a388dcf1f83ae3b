//! What people and triggers ask: start, stop, pause, clear, mark.

use std::collections::BTreeSet;

use kobza_model::{
    Cause, EventKind, LaunchId, Outcome, RunId, RunRow, RunState, TaskId, TaskNo, TaskState,
};

use crate::action::{Action, KillReason, Reply};
use crate::command::{ClearOptions, Refusal, StartRun, StopMode};
use crate::engine::{Cx, Engine, Work};
use crate::flow::init_totals;
use crate::memory::{NEVER, NONE, Run, UNKNOWN, flag};
use crate::plan::{EdgeKind, Plan};
use crate::transition::Move;

impl Engine {
    pub(crate) fn start_run(&mut self, start: StartRun) -> Result<Reply, Refusal> {
        if self.runs.contains_key(&start.run) {
            return Err(Refusal::RunExists(start.run));
        }
        let plan = self.plan(&start)?;
        let id = start.run;
        let row = RunRow {
            run: id,
            namespace: start.namespace,
            workflow: start.workflow.name.clone(),
            version: start.version,
            dialect: start.workflow.dialect.clone(),
            state: RunState::Queued,
            cause: Cause::None,
            message: None,
            created_at: self.cx.now.wall,
            started_at: None,
            ended_at: None,
            params: start.params,
            key: start.key,
            trigger: start.trigger,
            interval_start: start.interval.map(|i| i.0),
            interval_end: start.interval.map(|i| i.1),
            partition: start.partition,
            labels: start.labels,
            parent: start.parent,
            priority: start.priority,
            generation: 0,
            paused_from: None,
            deadline: None,
            stop: None,
            counts: vec![0; TaskState::ALL.len()],
            extra: start.extra,
        };
        let mut run = new_run(row, plan);
        run.dirty = true;
        if run.plan.workflow.open
            && let Some(factory) = self.machines.get(&run.row.dialect)
        {
            run.machine = Some(factory.restore(id, &run.row.extra, Vec::new()));
        }
        self.cx.list(&mut run);
        self.cx.run_event(&run);
        self.admit_run(run);
        Ok(Reply::RunStarted(id))
    }

    /// The plan of a version, shared by its runs.
    fn plan(&mut self, start: &StartRun) -> Result<std::sync::Arc<Plan>, Refusal> {
        if let Some(plan) = self.plans.get(&start.version)
            && std::sync::Arc::ptr_eq(&plan.workflow, &start.workflow)
        {
            return Ok(plan.clone());
        }
        let plan =
            Plan::new(start.workflow.clone()).map_err(|e| Refusal::Invalid(e.to_string()))?;
        let plan = std::sync::Arc::new(plan);
        if self.plans.len() >= MAX_PLANS {
            self.plans.clear();
        }
        self.plans.insert(start.version.clone(), plan.clone());
        Ok(plan)
    }

    /// Lets a run begin, or wait for `max_active_runs`.
    pub(crate) fn admit_run(&mut self, mut run: Run) {
        let id = run.row.run;
        let key = (run.row.namespace.clone(), run.row.workflow.clone());
        let limit = run.plan.workflow.max_active_runs;
        let place = (std::cmp::Reverse(run.row.priority), self.next_sequence());
        let admission = self.admission.entry(key).or_default();
        if limit.is_some_and(|l| admission.active >= l) {
            admission.waiting.insert(place, id);
        } else {
            admission.active += 1;
            run.admitted = true;
            self.cx.enter(&mut run);
        }
        self.runs.insert(id, run);
    }

    pub(crate) fn stop_run(
        &mut self,
        id: RunId,
        mode: StopMode,
        reason: &str,
    ) -> Result<Reply, Refusal> {
        let cx = &mut self.cx;
        let run = self.runs.get_mut(&id).ok_or(Refusal::NoRun(id))?;
        if run.row.state.is_finished() {
            return Err(Refusal::WrongState {
                what: format!("run {id}"),
                state: run.row.state.as_str(),
                hint: "only a run that has not ended can be stopped",
            });
        }
        if !reason.is_empty() {
            run.row.message = Some(reason.to_owned());
        }
        let mode = match mode {
            StopMode::Cancel => "cancel",
            StopMode::Stop => "stop",
            StopMode::Terminate => "terminate",
        };
        cx.stop_all(run, mode, Cause::Hand);
        cx.list(run);
        Ok(Reply::Done)
    }

    pub(crate) fn pause_run(&mut self, id: RunId) -> Result<Reply, Refusal> {
        let cx = &mut self.cx;
        let run = self.runs.get_mut(&id).ok_or(Refusal::NoRun(id))?;
        if run.row.state != RunState::Running {
            return Err(Refusal::WrongState {
                what: format!("run {id}"),
                state: run.row.state.as_str(),
                hint: "only a running run can be paused",
            });
        }
        run.row.state = RunState::Paused;
        run.row.paused_from = Some(RunState::Running);
        run.dirty = true;
        cx.run_event(run);
        // Tasks that wait for limits leave their queues, so that others need not stand behind them.
        let waiting: Vec<u32> =
            (0..run.tasks.len() as u32).filter(|&n| run.task(n).has(flag::QUEUED)).collect();
        for no in waiting {
            cx.release(run, no);
        }
        cx.list(run);
        Ok(Reply::Done)
    }

    pub(crate) fn resume_run(&mut self, id: RunId) -> Result<Reply, Refusal> {
        let cx = &mut self.cx;
        let run = self.runs.get_mut(&id).ok_or(Refusal::NoRun(id))?;
        if run.row.state != RunState::Paused {
            return Err(Refusal::WrongState {
                what: format!("run {id}"),
                state: run.row.state.as_str(),
                hint: "only a paused run can be resumed",
            });
        }
        run.row.state = RunState::Running;
        run.row.paused_from = None;
        run.dirty = true;
        cx.run_event(run);
        for no in 0..run.tasks.len() as u32 {
            if run.task(no).state == TaskState::Ready {
                cx.queue_for_limits(run, no);
            }
        }
        cx.list(run);
        Ok(Reply::Done)
    }

    pub(crate) fn stop_task(&mut self, id: TaskId, reason: &str) -> Result<Reply, Refusal> {
        let (cx, run, no) = self.with_task(id)?;
        let state = run.task(no).state;
        if state.is_finished() || state == TaskState::Cancelling {
            return Err(Refusal::WrongState {
                what: format!("task {id}"),
                state: state.as_str(),
                hint: "only a task that has not ended can be stopped",
            });
        }
        if !reason.is_empty() {
            run.task_mut(no).more().message = Some(reason.to_owned());
        }
        if run.task(no).has(flag::SUMMARY) && state == TaskState::Running {
            let (scope, node) = (run.task(no).scope, run.task(no).node);
            cx.stop_instances_for(run, scope, node, Cause::Hand);
        } else {
            cx.stop_task_tree(run, no, Cause::Hand);
        }
        cx.list(run);
        Ok(Reply::Done)
    }

    /// Sets a task's state by hand. What waits for it goes on from there.
    pub(crate) fn mark(
        &mut self,
        id: TaskId,
        outcome: Outcome,
        by: String,
    ) -> Result<Reply, Refusal> {
        if !matches!(outcome, Outcome::Succeeded | Outcome::Failed | Outcome::Skipped) {
            return Err(Refusal::Invalid(format!(
                "a task cannot be marked {outcome}; use succeeded, failed or skipped"
            )));
        }
        let (cx, run, no) = self.with_task(id)?;
        if no == 0 {
            return Err(Refusal::Invalid(
                "the run's own task cannot be marked; stop or clear the run".to_owned(),
            ));
        }
        let was_finished = run.row.state.is_finished();
        let task = run.task(no);
        if task.state.is_launched() && run.plan.leaf(task.template).is_some() {
            // The body no longer owns the task: its report will be stale.
            cx.actions.push(Action::Kill {
                launch: LaunchId { run: id.run, task: id.task, launch: task.launch },
                reason: KillReason::Superseded,
            });
            run.task_mut(no).launch += 1;
        }
        if task_is_composite_running(run, no) {
            return Err(Refusal::WrongState {
                what: format!("task {id}"),
                state: "running",
                hint: "it consists of other tasks: mark or stop those",
            });
        }
        cx.event(id.run, Some(no), EventKind::Marked { state: outcome.state(), by });
        if was_finished {
            cx.reopen_run(run);
        }
        let settled_before = run.task(no).has(flag::SETTLED);
        run.task_mut(no).unset(flag::SETTLED | flag::ASKED);
        cx.set_due(run, no, None);
        cx.transit(run, no, Move::Mark, outcome.state(), Cause::Hand);
        run.task_mut(no).ended_at = cx.now.wall.0;
        run.task_mut(no).kill = None;
        cx.release(run, no);
        if settled_before {
            run.task_mut(no).set(flag::SETTLED);
            let scope = run.task(no).scope;
            cx.reopen_owner(run, scope);
            recount(run, scope);
            cx.relook_scope(run, scope);
        } else {
            cx.settle(run, no);
        }
        cx.list(run);
        Ok(Reply::Done)
    }

    /// Reopens tasks so that they run again, and what depends on them if asked.
    pub(crate) fn clear(
        &mut self,
        id: RunId,
        tasks: &[TaskNo],
        options: ClearOptions,
    ) -> Result<Reply, Refusal> {
        let cx = &mut self.cx;
        let run = self.runs.get_mut(&id).ok_or(Refusal::NoRun(id))?;
        if run.plan.workflow.open {
            return Err(Refusal::Invalid(
                "tasks of an open run are cleared by their driver".to_owned(),
            ));
        }
        if run.row.state == RunState::Cancelling {
            return Err(Refusal::WrongState {
                what: format!("run {id}"),
                state: "cancelling",
                hint: "wait until it has ended, then clear",
            });
        }
        if let Some(task) = tasks.iter().find(|t| t.index() >= run.tasks.len()) {
            return Err(Refusal::NoTask(TaskId { run: id, task: *task }));
        }
        let selection = selection(run, tasks, options);
        if selection.is_empty() {
            return Ok(Reply::Cleared(Vec::new()));
        }
        if run.row.state.is_finished() {
            cx.reopen_run(run);
        }
        let mut scopes = BTreeSet::new();
        for &no in &selection {
            let task = run.task(no);
            scopes.insert(task.scope);
            if task.state.is_launched()
                && run.plan.leaf(task.template).is_some()
                && !task.has(flag::SUMMARY)
            {
                if task.state != TaskState::Cancelling {
                    cx.kill(run, no, Cause::Hand);
                }
                run.task_mut(no).kill = Some(Cause::None);
                continue;
            }
            if task_is_composite_running(run, no)
                || (task.has(flag::SUMMARY) && task.state == TaskState::Running)
            {
                continue;
            }
            cx.clear_one(run, no);
        }
        for &scope in &scopes {
            cx.reopen_owner(run, scope);
        }
        for &scope in &scopes {
            recount(run, scope);
            cx.relook_scope(run, scope);
        }
        cx.cleared_event(run, selection.len() as u32);
        cx.list(run);
        Ok(Reply::Cleared(selection.into_iter().map(TaskNo).collect()))
    }
}

/// Whether the scope, and each that it is in, is the one that its owner has now.
fn is_current(run: &Run, mut scope: u32) -> bool {
    loop {
        let owner = run.scope(scope).owner;
        if owner == 0 || owner == NONE {
            return true;
        }
        if run.task(owner).child != scope {
            return false;
        }
        scope = run.task(owner).scope;
    }
}

/// Whether a task that holds this one is itself chosen, and begins a new activation.
fn lies_in_cleared(run: &Run, no: u32, chosen: &BTreeSet<u32>) -> bool {
    let mut scope = run.task(no).scope;
    loop {
        let owner = run.scope(scope).owner;
        if owner == 0 || owner == NONE {
            return false;
        }
        if chosen.contains(&owner) && !task_is_composite_running(run, owner) {
            return true;
        }
        scope = run.task(owner).scope;
    }
}

/// Plans kept for versions that may start again; dropped together when there are too many.
const MAX_PLANS: usize = 1024;

fn task_is_composite_running(run: &Run, no: u32) -> bool {
    let task = run.task(no);
    task.state == TaskState::Running && task.child != NONE && run.plan.leaf(task.template).is_none()
}

pub(crate) fn new_run(row: RunRow, plan: std::sync::Arc<Plan>) -> Run {
    Run {
        row,
        plan,
        tasks: Vec::new(),
        scopes: Vec::new(),
        names: std::collections::BTreeMap::new(),
        machine: None,
        machine_due: None,
        dirty_tasks: Vec::new(),
        dirty_scopes: Vec::new(),
        dirty_expansions: Vec::new(),
        dirty: false,
        listed: false,
        admitted: false,
        hooks_open: 0,
        verdict: None,
        hooks_started: false,
    }
}

/// Which tasks a clear means: the named ones, what depends on them, instances of expanded nodes,
/// tasks inside of called graphs.
fn selection(run: &Run, tasks: &[TaskNo], options: ClearOptions) -> BTreeSet<u32> {
    let mut chosen: BTreeSet<u32> = BTreeSet::new();
    let mut seen: BTreeSet<u32> = BTreeSet::new();
    // What belongs to an earlier activation is history: nothing would ever take it up.
    let current = |t: &&TaskNo| is_current(run, run.task(t.0).scope);
    let mut open: Vec<(u32, bool)> = tasks.iter().filter(current).map(|t| (t.0, true)).collect();
    if tasks.is_empty() {
        open = (1..run.tasks.len() as u32)
            .filter(|&n| run.task(n).is_head() && run.task(n).scope == 0)
            .map(|n| (n, true))
            .collect();
    }
    while let Some((no, named)) = open.pop() {
        let task = run.task(no);
        if task.node == NONE || task.hook != u16::MAX || !seen.insert(no) {
            continue;
        }
        let has_failed = |no: u32| {
            let state = run.task(no).state;
            matches!(state, TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled)
        };
        let failed = has_failed(no);
        let wanted = !options.only_failed || failed || !named;
        if wanted {
            chosen.insert(no);
            if options.downstream || options.only_failed {
                let graph = run.plan.graph_plan(run.scope(task.scope).template);
                for reader in &graph.readers[task.node as usize] {
                    open.push((run.head(task.scope, reader.node), options.only_failed));
                }
            }
        }
        if task.has(flag::SUMMARY) {
            let state = &run.scope(task.scope).nodes[task.node as usize];
            for index in 0..state.made {
                if let Some(instance) = state.instance(index) {
                    open.push((instance, named));
                }
            }
            if options.only_failed && task.state == TaskState::Running {
                chosen.remove(&no);
            }
        } else if task.child != NONE {
            let scope = run.scope(task.child);
            let inside = scope.first..scope.first + scope.nodes.len() as u32;
            if options.only_failed && inside.clone().any(has_failed) {
                // Its failed tasks run again in the same activation; it goes on with them.
                chosen.remove(&no);
            }
            // What is cleared as a whole is activated anew: the old activation is history.
            if !chosen.contains(&no) || task.state == TaskState::Running {
                open.extend(inside.map(|inner| (inner, named)));
            }
        }
    }
    // What lies inside a task that is activated anew is history as well.
    let inside: Vec<u32> =
        chosen.iter().copied().filter(|&no| lies_in_cleared(run, no, &chosen)).collect();
    for no in inside {
        chosen.remove(&no);
    }
    // An expansion of which only some instances are cleared goes on as it is.
    if options.only_failed {
        let partly: Vec<u32> = chosen
            .iter()
            .copied()
            .filter(|&no| {
                let task = run.task(no);
                let state = |n: u32| &run.scope(task.scope).nodes[n as usize];
                task.has(flag::SUMMARY)
                    && state(task.node).length != UNKNOWN
                    && state(task.node).made > 0
            })
            .collect();
        for no in partly {
            chosen.remove(&no);
        }
    }
    chosen
}

impl Cx {
    /// A finished run goes on.
    pub(crate) fn reopen_run(&mut self, run: &mut Run) {
        run.row.state = RunState::Running;
        run.row.generation += 1;
        run.row.ended_at = None;
        run.row.stop = None;
        run.row.cause = Cause::None;
        run.row.message = None;
        run.verdict = None;
        run.hooks_started = false;
        run.dirty = true;
        if let Some(timeout) = run.plan.workflow.timeout_ms {
            let deadline = self.now.engine.after_millis(timeout);
            run.row.deadline = Some(deadline);
            self.timers.insert((deadline, crate::engine::TimerKey::Run(run.row.run)));
        }
        self.reopened.push(run.row.run);
        run.admitted = true;
        self.transit(run, 0, Move::Resume, TaskState::Running, Cause::None);
        run.task_mut(0).unset(flag::SETTLED);
        run.task_mut(0).ended_at = NEVER;
        if !run.scopes.is_empty() {
            run.scopes[0].finished = false;
            run.scopes[0].stopping = None;
            run.touch_scope(0);
        }
        self.run_event(run);
        self.list(run);
    }

    /// A task becomes pending again; counters are set right afterwards by `recount`.
    pub(crate) fn clear_one(&mut self, run: &mut Run, no: u32) {
        if run.task(no).state == TaskState::Pending {
            return;
        }
        let row = run.task_row(no);
        if row.attempt > 0 {
            self.batch.attempts.push(row);
        }
        self.release(run, no);
        self.set_due(run, no, None);
        self.transit(run, no, Move::Clear, TaskState::Pending, Cause::None);
        self.disown_added(run, no);
        let task = run.task_mut(no);
        task.attempts_before = task.attempt;
        task.unset(
            flag::SETTLED
                | flag::PASSED
                | flag::GUARDED
                | flag::ASKED
                | flag::START_HOOKED
                | flag::DAEMON_UP,
        );
        task.set(flag::STALE_OUTPUTS);
        task.kill = None;
        task.ready_at = NEVER;
        task.started_at = NEVER;
        task.ended_at = NEVER;
        task.first_started = NEVER;
        task.child = NONE;
        if let Some(more) = task.more.as_mut() {
            more.message = None;
            more.exit_code = None;
            more.skips.clear();
            more.carry = kobza_model::Json::Null;
            more.inputs = kobza_model::Json::Null;
        }
        if task.has(flag::SUMMARY) {
            let (scope, node) = (task.scope, task.node);
            let state = &mut run.scopes[scope as usize].nodes[node as usize];
            if state.length != UNKNOWN {
                let missing = state.length.saturating_sub(state.made);
                state.length = UNKNOWN;
                run.count(TaskState::Pending, -i64::from(missing));
            }
            run.touch_expansion(scope, node);
        }
    }

    /// The chain of tasks that own a scope goes on, so that the scope can.
    pub(crate) fn reopen_owner(&mut self, run: &mut Run, scope: u32) {
        let mut scope = scope;
        loop {
            run.scopes[scope as usize].finished = false;
            run.scopes[scope as usize].stopping = None;
            run.touch_scope(scope);
            let owner = run.scope(scope).owner;
            if owner == 0 || owner == NONE {
                return;
            }
            if run.task(owner).child != scope {
                // The owner was cleared as a whole: this activation is history.
                return;
            }
            if run.task(owner).state.is_finished() {
                self.transit(run, owner, Move::Resume, TaskState::Running, Cause::None);
                run.task_mut(owner).unset(flag::SETTLED);
                run.task_mut(owner).ended_at = NEVER;
            }
            scope = run.task(owner).scope;
            let (node, index) = (run.task(owner).node, run.task(owner).index);
            if index != NONE {
                let head = run.head(scope, node);
                if run.task(head).state.is_finished() {
                    self.transit(run, head, Move::Resume, TaskState::Running, Cause::None);
                    run.task_mut(head).unset(flag::SETTLED);
                    run.task_mut(head).ended_at = NEVER;
                }
            }
            recount(run, scope);
        }
    }

    /// Looks at everything in a scope that may now move.
    pub(crate) fn relook_scope(&mut self, run: &mut Run, scope: u32) {
        for node in 0..run.scope(scope).nodes.len() as u32 {
            let head = run.head(scope, node);
            let made = run.scope(scope).nodes[node as usize].made;
            let summary = run.task(head).has(flag::SUMMARY);
            if summary && made > 0 && run.scope(scope).nodes[node as usize].length != UNKNOWN {
                let unsettled = (0..made).any(|i| {
                    run.scope(scope).nodes[node as usize]
                        .instance(i)
                        .is_some_and(|t| !run.task(t).has(flag::SETTLED))
                });
                if unsettled && run.task(head).state.is_finished() {
                    self.transit(run, head, Move::Resume, TaskState::Running, Cause::None);
                    run.task_mut(head).unset(flag::SETTLED);
                    run.task_mut(head).ended_at = NEVER;
                }
                for index in 0..made {
                    if let Some(task) = run.scope(scope).nodes[node as usize].instance(index)
                        && run.task(task).state == TaskState::Pending
                    {
                        self.push(run, Work::Instance { task });
                    }
                }
                if run.task(head).state == TaskState::Running {
                    self.push(run, Work::Make { scope, node });
                }
            }
            if run.task(head).state == TaskState::Pending {
                self.push(run, Work::Node { scope, node });
            }
        }
        recount(run, scope);
        if run.scope(scope).unsettled == 0 {
            self.queue_verdict(run, scope);
        }
    }
}

/// Sets a scope's counters from its tasks' states.
pub(crate) fn recount(run: &mut Run, scope: u32) {
    let plan = run.plan.clone();
    let template = run.scope(scope).template;
    let Some(graph) = plan.graph(template) else { return };
    let graph_plan = plan.graph_plan(template);
    for node in &mut run.scopes[scope as usize].nodes {
        node.counters = Default::default();
        node.totals = Default::default();
        node.outcomes = [0; 6];
        node.waiting = 0;
        node.told = 0;
    }
    init_totals(run, scope);
    let mut unsettled = 0;
    let mut daemons = 0;
    for number in 0..graph.nodes.len() as u32 {
        let head = run.head(scope, number);
        let state = &run.scope(scope).nodes[number as usize];
        let expanded = state.length != UNKNOWN && state.length > 0;
        let mut outcomes = [0u32; 6];
        if expanded {
            for index in 0..state.made.min(state.length) {
                if let Some(task) = state.instance(index)
                    && run.task(task).has(flag::SETTLED)
                    && let Some(outcome) = run.task(task).state.outcome()
                {
                    outcomes[outcome as usize] += 1;
                }
            }
        }
        let settled = run.task(head).has(flag::SETTLED);
        let up = run.task(head).has(flag::DAEMON_UP);
        let outcome = run.task(head).state.outcome().filter(|_| settled);
        let length = state.length;
        if !expanded && let Some(outcome) = outcome {
            outcomes[outcome as usize] = 1;
        }
        if up {
            daemons += 1;
        } else if !settled {
            unsettled += 1;
        }
        let mut told = 0u8;
        for (place, &count) in outcomes.iter().enumerate() {
            if expanded && !settled && count > 0 {
                told |= 1 << place;
            }
        }
        run.scopes[scope as usize].nodes[number as usize].outcomes = outcomes;
        run.scopes[scope as usize].nodes[number as usize].told = told;
        for reader in &graph_plan.readers[number as usize] {
            let target = &mut run.scopes[scope as usize].nodes[reader.node as usize];
            let class = reader.class as usize;
            match reader.kind {
                EdgeKind::Counted if expanded => {
                    target.totals[class] += length - 1;
                    for (place, &count) in outcomes.iter().enumerate() {
                        target.counters[class][place] +=
                            if settled { count } else { u32::from(told & (1 << place) != 0) };
                    }
                }
                EdgeKind::Counted | EdgeKind::Summary => {
                    if let Some(outcome) = outcome {
                        target.counters[class][outcome as usize] += 1;
                    }
                }
                EdgeKind::Aligned | EdgeKind::Expansion | EdgeKind::Logical => {}
            }
            if settled {
                target.waiting = target.waiting.saturating_sub(1);
            }
        }
    }
    run.scopes[scope as usize].unsettled = unsettled;
    run.scopes[scope as usize].daemons = daemons;
}
