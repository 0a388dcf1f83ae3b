//! Taking a run up again from its rows, and saying why a task waits.

use std::sync::Arc;

use kobza_model::{EngineTime, HookOn, LimitRow, RunId, RunImage, RunState, TaskState, Workflow};

use crate::action::{Action, KillReason, QuestionKind};
use crate::added::{ADDED, is_current};
use crate::command::Refusal;
use crate::control::{new_run, recount};
use crate::engine::{Cx, Engine, TimerKey, Work};
use crate::limits::LimitKey;
use crate::memory::{NEVER, NONE, NodeState, Run, Scope, Task, UNKNOWN, flag};
use crate::plan::Plan;
use crate::verdict::is_daemon;

impl Engine {
    /// Limits as the store has them.
    pub fn restore_limits(&mut self, rows: Vec<LimitRow>) {
        for row in rows {
            self.cx.limits.set(
                LimitKey::Named(row.name),
                Some(row.capacity),
                row.strict,
                row.description,
            );
        }
    }

    /// Reads a run from its rows. A live one holds what it held; it goes on with
    /// [`Engine::take_up`], once all are read, so that nobody takes what another still holds.
    pub fn restore_run(
        &mut self,
        image: RunImage,
        workflow: Arc<Workflow>,
        now: kobza_model::Now,
    ) -> Result<(), Refusal> {
        self.cx.now = now;
        let id = image.run.run;
        if self.runs.contains_key(&id) {
            return Err(Refusal::RunExists(id));
        }
        let plan = Arc::new(Plan::new(workflow).map_err(|e| Refusal::Invalid(e.to_string()))?);
        let run = rebuild(image, plan, &self.machines)?;
        let finished = run.row.state.is_finished();
        let mut run = run;
        if !finished {
            if run.row.state != RunState::Queued {
                self.admission.entry(run.admission_key()).or_default().active += 1;
                run.admitted = true;
                self.cx.hold_again(&mut run);
            }
            self.restored.push(id);
        }
        self.runs.insert(id, run);
        Ok(())
    }

    /// Lets everything that was read go on: launches that no executor has confirmed are sent again,
    /// kills are repeated, timers armed, gates looked at; confirmed launches are for the executors
    /// to adopt.
    pub fn take_up(&mut self, now: kobza_model::Now) {
        self.cx.now = now;
        for id in std::mem::take(&mut self.restored) {
            let Some(mut run) = self.runs.remove(&id) else { continue };
            if run.row.state == RunState::Queued {
                self.admit_run(run);
            } else {
                self.cx.take_up(&mut run);
                self.runs.insert(id, run);
            }
        }
    }

    /// Confirmed launches of live runs, for executors to adopt after a restart.
    #[must_use]
    pub fn confirmed_launches(&self) -> Vec<(kobza_model::LaunchId, kobza_model::TemplateNo)> {
        let mut launches = Vec::new();
        for (id, run) in &self.runs {
            for (no, task) in run.tasks.iter() {
                if task.state.is_launched()
                    && task.has(flag::CONFIRMED)
                    && run.plan.leaf(task.template).is_some()
                    && !task.has(flag::SUMMARY)
                    && no != 0
                {
                    launches.push((
                        kobza_model::LaunchId {
                            run: *id,
                            task: kobza_model::TaskNo(no),
                            launch: task.launch,
                        },
                        kobza_model::TemplateNo(task.template),
                    ));
                }
            }
        }
        launches
    }
}

fn rebuild(
    image: RunImage,
    plan: Arc<Plan>,
    machines: &std::collections::BTreeMap<String, Arc<dyn crate::machine::MachineFactory>>,
) -> Result<Run, Refusal> {
    let bad = |what: &str| Refusal::Invalid(format!("rows of run {}: {what}", image.run.run));
    let mut run = new_run(image.run.clone(), plan);
    run.row.counts.resize(TaskState::ALL.len(), 0);
    let mut scopes = image.scopes.clone();
    scopes.sort_by_key(|s| s.scope);
    let mut tasks = image.tasks.clone();
    tasks.sort_by_key(|t| t.task);
    for row in &tasks {
        // An open run's rows of tasks that were forgotten long ago are gone.
        while run.plan.workflow.open && run.tasks.len() < row.task.index() {
            run.tasks.push_gone();
        }
        if row.task.index() != run.tasks.len() {
            return Err(bad("a task is missing"));
        }
        run.tasks.push(Task::from_row(row));
    }
    for (place, row) in scopes.iter().enumerate() {
        if row.scope.index() != place {
            return Err(bad("a scope is missing"));
        }
        let count =
            run.plan.graph(row.template.0).ok_or_else(|| bad("a scope of no graph"))?.nodes.len();
        run.scopes.push(Scope {
            template: row.template.0,
            owner: row.owner.map_or(NONE, |t| t.0),
            attempt: row.attempt,
            first: NONE,
            nodes: (0..if run.plan.workflow.open { 0 } else { count })
                .map(|_| NodeState::new())
                .collect(),
            unsettled: 0,
            daemons: 0,
            finished: row.finished,
            stopping: None,
            dirty: false,
            verdict_queued: false,
            asked: false,
        });
    }
    for no in 0..run.tasks.len() as u32 {
        let Some(task) = run.tasks.get(no) else { continue };
        let (scope, node, index) = (task.scope, task.node, task.index);
        let disowned = task.hook == ADDED && !is_current(&run, no);
        if task.hook != u16::MAX && !task.has(flag::SETTLED) && !disowned {
            let owner = task.parent;
            if owner == 0 {
                run.hooks_open += 1;
                run.hooks_started = true;
            } else {
                run.task_mut(owner).hooks_open += 1;
            }
        }
        if run.task(no).hook == ADDED && !disowned {
            crate::added::index(&mut run, no);
        }
        mark_start_hooked(&mut run, no);
        if task_in_open(&run, no) {
            let name = run.task_name(run.task(no));
            if let Some(old) = run.names.insert(name, no) {
                // A forgotten task of this name came back as another.
                run.forget(old);
            }
        }
        if node == NONE {
            continue;
        }
        if scope as usize >= run.scopes.len() {
            return Err(bad("a task of no scope"));
        }
        let template = run.scope(scope).template;
        if index == NONE && run.plan.node(template, node).expansion.is_some() {
            run.task_mut(no).set(flag::SUMMARY);
        }
        // A daemon is up from its launch's confirmation to its end.
        let up = matches!(run.task(no).state, TaskState::Running | TaskState::Cancelling);
        if run.task(no).is_head()
            && run.plan.node(template, node).daemon
            && run.plan.leaf(run.task(no).template).is_some()
            && up
            && run.task(no).has(flag::CONFIRMED)
        {
            run.task_mut(no).set(flag::DAEMON_UP);
        }
        if run.task(no).is_head() && node == 0 {
            run.scopes[scope as usize].first = no;
        }
        if index != NONE {
            run.scopes[scope as usize].nodes[node as usize].push_instance(index, no);
        }
    }
    for row in &image.expansions {
        let node = run
            .scopes
            .get_mut(row.scope.index())
            .and_then(|s| s.nodes.get_mut(row.node.index()))
            .ok_or_else(|| bad("an expansion of no node"))?;
        node.length = row.length;
    }
    // Inner scopes, which come later, first: a graph in which only daemons are left is one itself.
    for scope in (0..run.scopes.len() as u32).rev() {
        if run.scope(scope).first == NONE && !run.scope(scope).nodes.is_empty() {
            return Err(bad("a scope without tasks"));
        }
        recount(&mut run, scope);
        let (owner, state) = (run.scope(scope).owner, run.scope(scope));
        if state.daemons > 0
            && state.unsettled == 0
            && owner != NONE
            && is_daemon(&run, owner)
            && run.task(owner).child == scope
            && run.task(owner).state == TaskState::Running
        {
            run.task_mut(owner).set(flag::DAEMON_UP);
        }
    }
    if run.plan.workflow.open
        && let Some(factory) = machines.get(&run.row.dialect)
    {
        let machine = factory.restore(run.row.run, &run.row.extra, image.machine);
        let is_forgotten = |(name, no): &(&String, &u32)| {
            run.task(**no).state.is_finished() && !machine.knows(name)
        };
        let forgotten: Vec<String> =
            run.names.iter().filter(is_forgotten).map(|(name, _)| name.clone()).collect();
        for name in forgotten {
            if let Some(no) = run.names.remove(&name) {
                run.forget(no);
            }
        }
        run.forgotten.make_contiguous().sort_unstable_by_key(|(no, _)| *no);
        run.machine = Some(machine);
    }
    Ok(run)
}

/// A hook of the owner's start says that the owner's attempt has called its hooks already: a launch
/// that is repeated does not call them again.
fn mark_start_hooked(run: &mut Run, no: u32) {
    let hook = run.task(no);
    if hook.hook == u16::MAX || hook.parent == 0 {
        return;
    }
    let (owner, place, made) = (hook.parent, hook.hook, hook.created_at);
    let starts = run
        .node_of(run.task(owner))
        .and_then(|node| node.hooks.get(place as usize))
        .is_some_and(|hook| hook.on == HookOn::Start);
    // Older ones belong to an attempt before.
    if starts && made >= run.task(owner).ready_at {
        run.task_mut(owner).set(flag::START_HOOKED);
    }
}

fn task_in_open(run: &Run, no: u32) -> bool {
    run.plan.workflow.open && no != 0 && run.task(no).hook == u16::MAX
}

impl Cx {
    /// A scope's graph holds back its tasks, from the scope's beginning or its reopening on.
    pub(crate) fn limit_scope(&mut self, run: &Run, scope: u32) {
        let graph = run.plan.graph(run.scope(scope).template);
        if let Some(parallelism) = graph.and_then(|graph| graph.parallelism) {
            let key = LimitKey::Scope(run.row.run, scope);
            self.limits.set(key, Some(parallelism.max(1)), false, None);
        }
    }

    /// Limits that its tasks held are held again.
    fn hold_again(&mut self, run: &mut Run) {
        for scope in 0..run.scopes.len() as u32 {
            self.limit_scope(run, scope);
        }
        for no in 1..run.tasks.len() as u32 {
            if !run.tasks.has(no) || task_in_open(run, no) {
                continue;
            }
            let task = run.task(no);
            if task.has(flag::SUMMARY) {
                continue;
            }
            let id = Cx::task_id(run, no);
            let held = match task.state {
                TaskState::Queued | TaskState::Running | TaskState::Cancelling => {
                    self.wants(run, no)
                }
                TaskState::Deferred | TaskState::Rescheduled | TaskState::Suspended => {
                    let uses = run.node_of(task).map(|n| n.limits.as_slice()).unwrap_or_default();
                    uses.iter()
                        .filter(|l| l.while_waiting)
                        .map(|l| (LimitKey::Named(l.limit.clone()), l.weight))
                        .collect()
                }
                _ => Vec::new(),
            };
            if !held.is_empty() {
                self.limits.force(id, held);
                run.task_mut(no).set(flag::HOLDS);
            }
        }
    }

    /// Everything that was under way goes on: timers armed, unconfirmed launches sent again, open
    /// questions asked again, gates looked at again.
    pub(crate) fn take_up(&mut self, run: &mut Run) {
        if let Some(deadline) = run.row.deadline {
            self.timers.insert((deadline, TimerKey::Run(run.row.run)));
        }
        self.arm_machine(run);
        if run.plan.workflow.open {
            return;
        }
        let run_id: RunId = run.row.run;
        if run.row.state == RunState::Cancelling {
            let cause = if run.row.stop.as_deref() == Some("timeout") {
                kobza_model::Cause::Timeout
            } else {
                kobza_model::Cause::RunCancelled
            };
            for scope in 0..run.scopes.len() {
                run.scopes[scope].stopping = Some(cause);
            }
        }
        for no in 1..run.tasks.len() as u32 {
            let task = run.task(no);
            let leaf = run.plan.leaf(task.template).is_some() && !task.has(flag::SUMMARY);
            let id = Cx::task_id(run, no);
            if task.due != NEVER {
                self.timers.insert((EngineTime(task.due), TimerKey::Task(run_id, no)));
            }
            let live_composite =
                task.state == TaskState::Running && !leaf && !task.has(flag::SUMMARY);
            match run.task(no).state {
                TaskState::Queued if leaf && !run.task(no).has(flag::CONFIRMED) => {
                    self.resend(run, no);
                }
                TaskState::Cancelling if leaf => {
                    let launch = kobza_model::LaunchId {
                        run: run_id,
                        task: id.task,
                        launch: run.task(no).launch,
                    };
                    let reason =
                        run.task(no).kill.map_or(KillReason::Stopped, KillReason::from_cause);
                    self.actions.push(Action::Kill { launch, reason });
                }
                TaskState::Ready => self.queue_for_limits(run, no),
                TaskState::RetryWait if run.task(no).due == NEVER => {
                    self.ask(run, no, QuestionKind::Retry)
                }
                TaskState::Pending if run.task(no).hook == ADDED => {
                    self.push(run, Work::Instance { task: no });
                }
                TaskState::Pending if run.task(no).hook != u16::MAX => {
                    self.ask(run, no, QuestionKind::Guard);
                }
                s if s.is_finished()
                    && !run.task(no).has(flag::SETTLED)
                    && run.task(no).hooks_open == 0 =>
                {
                    self.settle(run, no);
                }
                _ => {}
            }
            if live_composite && run.task(no).child == NONE {
                self.activate(run, no);
            }
        }
        for scope in 0..run.scopes.len() as u32 {
            let owner = run.scope(scope).owner;
            let current = owner == 0
                || (owner != NONE
                    && run.task(owner).child == scope
                    && run.task(owner).state == TaskState::Running);
            if run.scope(scope).finished || !current {
                continue;
            }
            for node in 0..run.scope(scope).nodes.len() as u32 {
                if run.scope(scope).stopping.is_some() {
                    let head = run.head(scope, node);
                    let cause =
                        run.scope(scope).stopping.unwrap_or(kobza_model::Cause::RunCancelled);
                    self.stop_task_tree(run, head, cause);
                }
                self.push(run, Work::Node { scope, node });
                let (length, made) = {
                    let state = &run.scope(scope).nodes[node as usize];
                    (state.length, state.made)
                };
                if length != UNKNOWN {
                    self.push(run, Work::Make { scope, node });
                    for index in 0..made {
                        if let Some(task) = run.scope(scope).nodes[node as usize].instance(index)
                            && run.task(task).state == TaskState::Pending
                        {
                            self.push(run, Work::Instance { task });
                        }
                    }
                    let head = run.head(scope, node);
                    if run.scope(scope).nodes[node as usize].settled() >= length && length > 0 {
                        self.finish_summary(run, scope, node, head);
                    }
                }
            }
            if run.scope(scope).unsettled == 0 {
                self.queue_verdict(run, scope);
            }
        }
        if run.scopes.is_empty() {
            // It was admitted in a batch that did not get as far as its root.
            run.row.state = RunState::Queued;
        }
        let root_done = run.scopes.first().is_some_and(|s| s.finished);
        if root_done {
            let (outcome, cause, _) = crate::verdict::verdict(run, 0);
            run.verdict = Some((outcome, cause));
            self.run_hooks(run);
        }
        self.list(run);
    }

    /// The launch was committed but not confirmed: it is sent again under its number, which
    /// executors make idempotent.
    fn resend(&mut self, run: &mut Run, no: u32) {
        let task = run.task_mut(no);
        task.launch -= 1;
        task.state = TaskState::Ready;
        run.count(TaskState::Queued, -1);
        run.count(TaskState::Ready, 1);
        self.launch(run, no, crate::transition::Move::Launch);
    }
}
