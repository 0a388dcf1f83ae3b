//! What people and triggers ask: start, stop, pause, clear, mark.

use kobza_model::{
    Cause, EventKind, LaunchId, Outcome, RunId, RunRow, RunState, TaskId, TaskState,
};

use crate::action::{Action, KillReason, Reply};
use crate::clear::task_is_composite_running;
use crate::command::{Refusal, StartRun, StopMode};
use crate::engine::Engine;
use crate::flow::init_totals;
use crate::memory::{Run, UNKNOWN, flag};
use crate::plan::{EdgeKind, Plan};
use crate::transition::Move;

impl Engine {
    pub(crate) fn start_run(&mut self, start: StartRun) -> Result<Reply, Refusal> {
        if self.runs.contains_key(&start.run) {
            return Err(Refusal::RunExists(start.run));
        }
        if let Some(partition) = &start.partition {
            kobza_model::validate_partition(partition)
                .map_err(|e| Refusal::Invalid(format!("partition: {e}")))?;
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
        let (key, limit) = (run.admission_key(), run.admission_limit());
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
        refuse_driven(run)?;
        run.row.state = RunState::Paused;
        run.row.paused_from = Some(RunState::Running);
        run.dirty = true;
        cx.run_event(run);
        // Tasks that wait for limits leave their queues, so that others need not stand behind them.
        let waiting: Vec<u32> =
            run.tasks.iter().filter(|(_, task)| task.has(flag::QUEUED)).map(|(no, _)| no).collect();
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
        let ready: Vec<u32> = run
            .tasks
            .iter()
            .filter(|(_, task)| task.state == TaskState::Ready)
            .map(|(no, _)| no)
            .collect();
        for no in ready {
            cx.queue_for_limits(run, no);
        }
        cx.list(run);
        Ok(Reply::Done)
    }

    pub(crate) fn stop_task(&mut self, id: TaskId, reason: &str) -> Result<Reply, Refusal> {
        let (cx, run, no) = self.with_task(id)?;
        refuse_driven(run)?;
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
        refuse_driven(run)?;
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
}

/// What a machine decides is not changed behind its back: it would not know, and go on as before.
fn refuse_driven(run: &Run) -> Result<(), Refusal> {
    if run.machine.is_none() {
        return Ok(());
    }
    let dialect = &run.row.dialect;
    Err(Refusal::Invalid(format!("the tasks of this run are changed by {dialect}'s own calls")))
}

/// Plans kept for versions that may start again; dropped together when there are too many.
const MAX_PLANS: usize = 1024;

pub(crate) fn new_run(row: RunRow, plan: std::sync::Arc<Plan>) -> Run {
    Run {
        row,
        plan,
        tasks: crate::tasks::Tasks::default(),
        scopes: Vec::new(),
        names: std::collections::BTreeMap::new(),
        forgotten: std::collections::VecDeque::new(),
        added: std::collections::BTreeMap::new(),
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
