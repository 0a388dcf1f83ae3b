//! The engine's face: commands in, batch, actions and questions out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kobza_model::{
    Cause, EngineTime, Event, EventKind, Now, OutputRow, RunId, RunState, TaskId, TaskNo, TaskState,
};

use crate::action::{Action, Batch, Question, Reply};
use crate::command::{Command, Refusal};
use crate::limits::{LimitKey, Limits};
use crate::machine::MachineFactory;
use crate::memory::{NONE, Run, flag};

/// Settings that are data to the engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Bodies that all executors may hold at once; further tasks wait ready.
    pub slots: u32,
    /// Instances of one expansion that exist unfinished at once, unless the node says otherwise.
    /// Bounds memory and the size of a batch, not concurrency (slots do).
    pub window: u32,
    /// Calls of graphs within graphs.
    pub depth: u32,
    /// Launches of one attempt that may be lost and sent again before the attempt fails as lost.
    pub lost_limit: u8,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { slots: 64, window: 2048, depth: 100, lost_limit: 3 }
    }
}

/// Something left to do inside the engine. Not kept: it follows from the rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// Look at a node's gate.
    Node { scope: u32, node: u32 },
    /// Look at an instance's own gate.
    Instance { task: u32 },
    /// It holds its limits: go.
    Start { task: u32 },
    /// Make further instances.
    Make { scope: u32, node: u32 },
    /// Look at how a scope ends.
    Verdict { scope: u32 },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum TimerKey {
    Run(RunId),
    Machine(RunId),
    Task(RunId, u32),
}

/// What the steps share besides the run at hand.
pub(crate) struct Cx {
    pub(crate) now: Now,
    pub(crate) options: EngineOptions,
    pub(crate) limits: Limits,
    pub(crate) timers: BTreeSet<(EngineTime, TimerKey)>,
    pub(crate) work: VecDeque<(RunId, Work)>,
    pub(crate) batch: Batch,
    pub(crate) actions: Vec<Action>,
    pub(crate) questions: Vec<Question>,
    pub(crate) dirty_runs: Vec<RunId>,
    /// Runs that left their workflow's active count.
    pub(crate) freed: Vec<(String, String)>,
    /// Runs that came back to it.
    pub(crate) reopened: Vec<RunId>,
}

/// All live runs and what they share.
pub struct Engine {
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) cx: Cx,
    pub(crate) admission: BTreeMap<(String, String), Admission>,
    pub(crate) machines: BTreeMap<String, Arc<dyn MachineFactory>>,
    pub(crate) plans: BTreeMap<String, Arc<crate::plan::Plan>>,
    /// Live runs that were read and have not been taken up yet.
    pub(crate) restored: Vec<RunId>,
    sequence: u64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("runs", &self.runs.len()).finish_non_exhaustive()
    }
}

/// Runs of one workflow against its `max_active_runs`.
#[derive(Default)]
pub(crate) struct Admission {
    pub(crate) active: u32,
    pub(crate) waiting: BTreeMap<(std::cmp::Reverse<i32>, u64), RunId>,
}

impl Engine {
    #[must_use]
    pub fn new(options: EngineOptions) -> Self {
        let mut limits = Limits::default();
        limits.set(LimitKey::Slots, Some(options.slots), false, None);
        Self {
            runs: BTreeMap::new(),
            cx: Cx {
                now: Now::default(),
                options,
                limits,
                timers: BTreeSet::new(),
                work: VecDeque::new(),
                batch: Batch::default(),
                actions: Vec::new(),
                questions: Vec::new(),
                dirty_runs: Vec::new(),
                freed: Vec::new(),
                reopened: Vec::new(),
            },
            admission: BTreeMap::new(),
            machines: BTreeMap::new(),
            plans: BTreeMap::new(),
            restored: Vec::new(),
            sequence: 0,
        }
    }

    /// Registers what makes a dialect's machines.
    pub fn register_machine(&mut self, dialect: &str, factory: Arc<dyn MachineFactory>) {
        self.machines.insert(dialect.to_owned(), factory);
    }

    /// Applies one command: whole, or refused with nothing changed. Consequences inside the engine
    /// are worked off by [`Engine::work`].
    pub fn apply(&mut self, command: Command, now: Now) -> Result<Reply, Refusal> {
        self.cx.now = now;
        match command {
            Command::StartRun(start) => self.start_run(*start),
            Command::Report(report) => self.report(report),
            Command::Answer { task, serial, decision } => self.answer(task, serial, decision),
            Command::Ask { task } => self.ask_again(task),
            Command::Tick => {
                self.tick();
                Ok(Reply::Done)
            }
            Command::StopRun { run, mode, reason } => self.stop_run(run, mode, &reason),
            Command::PauseRun { run } => self.pause_run(run),
            Command::ResumeRun { run } => self.resume_run(run),
            Command::StopTask { task, reason } => self.stop_task(task, &reason),
            Command::ResumeTask { task, outputs, carry } => self.resume_task(task, outputs, carry),
            Command::Clear { run, tasks, options } => self.clear(run, &tasks, options),
            Command::Mark { task, outcome, by } => self.mark(task, outcome, by),
            Command::SetLimit { name, capacity, strict, description } => {
                self.set_limit(name, capacity, strict, description);
                Ok(Reply::Done)
            }
            Command::RemoveLimit { name } => {
                let key = LimitKey::Named(name.clone());
                if !self.cx.limits.exists(&key) {
                    return Err(Refusal::NoLimit(name));
                }
                self.cx.limits.set(key, None, false, None);
                self.cx.batch.limits.retain(|l| l.name != name);
                self.cx.batch.removed_limits.push(name);
                Ok(Reply::Done)
            }
            Command::AddTasks { run, tasks } => self.add_tasks(run, tasks),
            Command::Observe { run, name, state, cause, message, at } => {
                self.observe(run, &name, state, cause, message, at)
            }
            Command::CloseRun { run, outcome } => self.close_run(run, outcome),
            Command::Machine { run, request } => self.machine_call(run, &request),
            Command::Announce { namespace, name, payload } => {
                let kind = EventKind::Sent { namespace, name, payload };
                let at = self.cx.now.wall;
                self.cx.batch.events.push(Event { at, run: None, task: None, kind });
                Ok(Reply::Done)
            }
            Command::Annotate { run, labels, params, extra } => {
                let row = &mut self.run_mut(run)?.row;
                if let Some(labels) = labels {
                    row.labels = labels;
                }
                if let Some(params) = params {
                    row.params = params;
                }
                if let Some(extra) = extra {
                    row.extra = extra;
                }
                self.mark_dirty(run);
                Ok(Reply::Done)
            }
            Command::Publish { asset, partition, metadata } => {
                if let Some(partition) = &partition {
                    kobza_model::validate_partition(partition)
                        .map_err(|e| Refusal::Invalid(format!("partition: {e}")))?;
                }
                self.cx.batch.events.push(Event {
                    at: self.cx.now.wall,
                    run: None,
                    task: None,
                    kind: EventKind::Materialized { asset, partition, metadata },
                });
                Ok(Reply::Done)
            }
        }
    }

    /// Works off consequences, at most `budget` steps; true if something is left. What is left
    /// survives a crash, since it follows from the rows.
    pub fn work(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            self.admit_freed();
            let Some((id, work)) = self.cx.work.pop_front() else { return false };
            let Some(run) = self.runs.get_mut(&id) else { continue };
            self.cx.step(run, work);
        }
        self.admit_freed();
        !self.cx.work.is_empty()
    }

    /// Everything that changed since the last call, for one transaction.
    pub fn take_batch(&mut self) -> Batch {
        let dirty = std::mem::take(&mut self.cx.dirty_runs);
        for id in dirty {
            let Some(run) = self.runs.get_mut(&id) else { continue };
            run.listed = false;
            if std::mem::take(&mut run.dirty) {
                self.cx.batch.runs.push(run.row.clone());
            }
            for no in std::mem::take(&mut run.dirty_tasks) {
                if !run.tasks.has(no) {
                    continue;
                }
                let task = run.task_mut(no);
                task.unset(flag::DIRTY);
                if task.has(flag::STALE_OUTPUTS) {
                    task.unset(flag::STALE_OUTPUTS);
                    self.cx.batch.dropped_outputs.push(TaskId { run: id, task: TaskNo(no) });
                }
                self.cx.batch.tasks.push(run.task_row(no));
            }
            for no in std::mem::take(&mut run.dirty_scopes) {
                run.scopes[no as usize].dirty = false;
                self.cx.batch.scopes.push(run.scope_row(no));
            }
            for (scope, node) in std::mem::take(&mut run.dirty_expansions) {
                run.scopes[scope as usize].nodes[node as usize].dirty = false;
                self.cx.batch.expansions.push(run.expansion_row(scope, node));
            }
        }
        std::mem::take(&mut self.cx.batch)
    }

    /// What to do once the batch is durable. A launch that a report of the same batch has ended is
    /// not among it: one that is sent again after a restart may have been lost long ago, and its
    /// executor, told so, would take it for a new one.
    pub fn take_actions(&mut self) -> Vec<Action> {
        let mut actions = std::mem::take(&mut self.cx.actions);
        actions.retain(|action| match action {
            Action::Launch(launch) => self.owns(launch.id),
            Action::Kill { .. } | Action::RunEnded { .. } | Action::RunStarted { .. } => true,
        });
        actions
    }

    /// Whether this launch is the one that has its task now.
    fn owns(&self, id: kobza_model::LaunchId) -> bool {
        self.runs
            .get(&id.run)
            .and_then(|run| run.tasks.get(id.task.0))
            .is_some_and(|task| task.launch == id.launch && task.state.is_launched())
    }

    /// What the engine wants to know. Answers may come in the same batch.
    pub fn take_questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.cx.questions)
    }

    /// Outputs that the next batch will hold, in order: what a question's answer may already see.
    #[must_use]
    pub fn fresh_outputs(&self) -> &[OutputRow] {
        &self.cx.batch.outputs
    }

    /// When to send the next `Tick`.
    #[must_use]
    pub fn next_timer(&self) -> Option<EngineTime> {
        self.cx.timers.first().map(|(at, _)| *at)
    }

    /// Forgets a finished run. False if it is not finished or has work left.
    pub fn evict(&mut self, id: RunId) -> bool {
        let Some(run) = self.runs.get(&id) else { return false };
        if !run.row.state.is_finished() || run.listed {
            return false;
        }
        self.runs.remove(&id);
        true
    }

    pub(crate) fn run_mut(&mut self, id: RunId) -> Result<&mut Run, Refusal> {
        self.runs.get_mut(&id).ok_or(Refusal::NoRun(id))
    }

    /// The run, with what steps need, after checking that the task exists.
    pub(crate) fn with_task(&mut self, id: TaskId) -> Result<(&mut Cx, &mut Run, u32), Refusal> {
        let run = self.runs.get_mut(&id.run).ok_or(Refusal::NoRun(id.run))?;
        if !run.tasks.has(id.task.0) {
            return Err(Refusal::NoTask(id));
        }
        Ok((&mut self.cx, run, id.task.0))
    }

    pub(crate) fn mark_dirty(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.dirty = true;
            self.cx.list(run);
        }
    }

    fn set_limit(
        &mut self,
        name: String,
        capacity: u32,
        strict: bool,
        description: Option<String>,
    ) {
        let key = LimitKey::Named(name.clone());
        self.cx.limits.set(key.clone(), Some(capacity), strict, description);
        if let Some(row) = self.cx.limits.row(&name) {
            self.cx.batch.limits.retain(|l| l.name != name);
            self.cx.batch.removed_limits.retain(|l| *l != name);
            self.cx.batch.limits.push(row);
        }
        let mut woken = Vec::new();
        self.cx.limits.wake(&key, &mut woken);
        self.cx.start_woken(woken);
    }

    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Starts runs that waited for `max_active_runs`.
    pub(crate) fn admit_freed(&mut self) {
        while let Some(id) = self.cx.reopened.pop() {
            let place = self.next_sequence();
            let Some(run) = self.runs.get_mut(&id) else { continue };
            let limit = run.admission_limit();
            let admission = self.admission.entry(run.admission_key()).or_default();
            if limit.is_some_and(|l| admission.active >= l) {
                // Others run now: it waits as a new run would.
                admission.waiting.insert((std::cmp::Reverse(run.row.priority), place), id);
                run.admitted = false;
                run.row.state = RunState::Queued;
                self.cx.run_event(run);
                run.dirty = true;
                self.cx.list(run);
            } else {
                admission.active += 1;
            }
        }
        while let Some(key) = self.cx.freed.pop() {
            let Some(admission) = self.admission.get_mut(&key) else { continue };
            admission.active = admission.active.saturating_sub(1);
            while let Some((&place, &id)) = admission.waiting.first_key_value() {
                let Some(run) = self.runs.get_mut(&id) else {
                    admission.waiting.remove(&place);
                    continue;
                };
                let limit = run.admission_limit().unwrap_or(u32::MAX);
                if admission.active >= limit {
                    break;
                }
                admission.waiting.remove(&place);
                if run.row.state != RunState::Queued {
                    continue;
                }
                admission.active += 1;
                run.admitted = true;
                self.cx.enter(run);
            }
            if admission.active == 0 && admission.waiting.is_empty() {
                self.admission.remove(&key);
            }
        }
    }
}

impl Cx {
    pub(crate) fn step(&mut self, run: &mut Run, work: Work) {
        match work {
            Work::Node { scope, node } => self.look_at_node(run, scope, node),
            // Forgotten since: nothing is to be done for it.
            Work::Instance { task } | Work::Start { task } if !run.tasks.has(task) => {}
            Work::Instance { task } => self.look_at_instance(run, task),
            Work::Start { task } => self.start_task(run, task),
            Work::Make { scope, node } => self.make_instances(run, scope, node),
            Work::Verdict { scope } => {
                run.scopes[scope as usize].verdict_queued = false;
                self.judge(run, scope);
            }
        }
        self.list(run);
    }

    /// Notes that a run has rows to write.
    pub(crate) fn list(&mut self, run: &mut Run) {
        if !run.listed {
            run.listed = true;
            self.dirty_runs.push(run.row.run);
        }
    }

    pub(crate) fn push(&mut self, run: &Run, work: Work) {
        self.work.push_back((run.row.run, work));
    }

    pub(crate) fn event(&mut self, run: RunId, task: Option<u32>, kind: EventKind) {
        self.batch.events.push(Event {
            at: self.now.wall,
            run: Some(run),
            task: task.map(TaskNo),
            kind,
        });
    }

    pub(crate) fn run_event(&mut self, run: &Run) {
        let kind = EventKind::Run { state: run.row.state, cause: run.row.cause };
        self.event(run.row.run, None, kind);
    }

    pub(crate) fn output(
        &mut self,
        run: RunId,
        task: u32,
        outputs: Vec<(String, kobza_model::Json)>,
    ) {
        for (key, value) in outputs {
            self.batch.outputs.push(OutputRow { run, task: TaskNo(task), key, value });
        }
    }

    pub(crate) fn start_woken(&mut self, woken: Vec<TaskId>) {
        for id in woken {
            self.work.push_back((id.run, Work::Start { task: id.task.0 }));
        }
    }

    /// Sets or clears a task's one timer.
    pub(crate) fn set_due(&mut self, run: &mut Run, no: u32, due: Option<EngineTime>) {
        let key = TimerKey::Task(run.row.run, no);
        let task = run.task_mut(no);
        let old = std::mem::replace(&mut task.due, due.map_or(crate::memory::NEVER, |d| d.0));
        if old != crate::memory::NEVER {
            self.timers.remove(&(EngineTime(old), key));
        }
        if let Some(due) = due {
            self.timers.insert((due, key));
        }
    }

    /// Moves a task along the table: counts, events, the row.
    pub(crate) fn transit(
        &mut self,
        run: &mut Run,
        no: u32,
        mv: crate::transition::Move,
        to: TaskState,
        cause: Cause,
    ) {
        let task = run.task_mut(no);
        let from = task.state;
        debug_assert!(
            crate::transition::allowed(from, mv, to),
            "no transition {from} --{}--> {to}",
            mv.as_str()
        );
        #[cfg(any(test, feature = "coverage"))]
        crate::transition::coverage::record(from, mv, to);
        task.state = to;
        task.cause = cause;
        let attempt = task.attempt;
        let counted = !task.has(flag::SUMMARY) && no != 0;
        run.touch(no);
        if counted {
            run.count(from, -1);
            run.count(to, 1);
        }
        self.event(run.row.run, Some(no), EventKind::Task { state: to, cause, attempt });
        self.list(run);
    }

    pub(crate) fn task_id(run: &Run, no: u32) -> TaskId {
        TaskId { run: run.row.run, task: TaskNo(no) }
    }

    pub(crate) fn queue_verdict(&mut self, run: &mut Run, scope: u32) {
        let state = &mut run.scopes[scope as usize];
        if !state.verdict_queued && !state.finished {
            state.verdict_queued = true;
            self.push(run, Work::Verdict { scope });
        }
    }

    pub(crate) fn owner_chain_depth(run: &Run, mut scope: u32) -> u32 {
        let mut depth = 0;
        loop {
            let owner = run.scope(scope).owner;
            if owner == NONE || owner == 0 {
                return depth;
            }
            depth += 1;
            scope = run.task(owner).scope;
        }
    }
}
