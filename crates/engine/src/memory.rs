//! The engine's memory of a live run. Everything here can be rebuilt from rows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kobza_model::{
    Cause, EdgeClass, EngineTime, ExpansionRow, Json, NodeNo, RunRow, ScopeNo, ScopeRow, TaskNo,
    TaskRow, TaskState, TemplateNo, Timestamp,
};

use crate::machine::Machine;
use crate::plan::Plan;

/// No task, no node, no scope.
pub(crate) const NONE: u32 = u32::MAX;
/// No time.
pub(crate) const NEVER: i64 = i64::MIN;
/// The length of an expansion that is not known yet.
pub(crate) const UNKNOWN: u32 = u32::MAX;

pub(crate) struct Run {
    pub(crate) row: RunRow,
    pub(crate) plan: Arc<Plan>,
    pub(crate) tasks: crate::tasks::Tasks,
    pub(crate) scopes: Vec<Scope>,
    /// Tasks of an open run by name.
    pub(crate) names: BTreeMap<String, u32>,
    /// Tasks that its driver has forgotten and whose rows are still kept, the oldest first.
    pub(crate) forgotten: VecDeque<(u32, TaskState)>,
    /// What running tasks have added, by the task that did.
    pub(crate) added: BTreeMap<u32, crate::added::Added>,
    pub(crate) machine: Option<Box<dyn Machine>>,
    pub(crate) machine_due: Option<EngineTime>,
    pub(crate) dirty_tasks: Vec<u32>,
    pub(crate) dirty_scopes: Vec<u32>,
    pub(crate) dirty_expansions: Vec<(u32, u32)>,
    pub(crate) dirty: bool,
    /// Listed among the engine's dirty runs.
    pub(crate) listed: bool,
    /// Counts against its workflow's `max_active_runs`.
    pub(crate) admitted: bool,
    /// Run-level hooks that have not ended; the outcome waits for them.
    pub(crate) hooks_open: u32,
    pub(crate) verdict: Option<(kobza_model::Outcome, Cause)>,
    pub(crate) hooks_started: bool,
}

pub(crate) struct Task {
    pub(crate) state: TaskState,
    pub(crate) cause: Cause,
    pub(crate) kill: Option<Cause>,
    pub(crate) lost: u8,
    pub(crate) flags: u16,
    pub(crate) hook: u16,
    pub(crate) hooks_open: u16,
    pub(crate) scope: u32,
    pub(crate) node: u32,
    pub(crate) template: u32,
    pub(crate) index: u32,
    pub(crate) parent: u32,
    pub(crate) child: u32,
    pub(crate) attempt: u32,
    pub(crate) attempts_before: u32,
    pub(crate) launch: u32,
    pub(crate) serial: u32,
    pub(crate) priority: i32,
    pub(crate) created_at: i64,
    pub(crate) ready_at: i64,
    pub(crate) started_at: i64,
    pub(crate) ended_at: i64,
    pub(crate) first_started: i64,
    pub(crate) due: i64,
    pub(crate) more: Option<Box<More>>,
}

/// What most tasks do not have.
#[derive(Default)]
pub(crate) struct More {
    pub(crate) name: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) skips: Vec<NodeNo>,
    pub(crate) inputs: Json,
    pub(crate) carry: Json,
    pub(crate) extra: Json,
}

pub(crate) mod flag {
    pub(crate) const SUMMARY: u16 = 1;
    pub(crate) const CONFIRMED: u16 = 1 << 1;
    pub(crate) const DIRTY: u16 = 1 << 2;
    pub(crate) const SETTLED: u16 = 1 << 3;
    /// A question is open.
    pub(crate) const ASKED: u16 = 1 << 4;
    /// Holds limits.
    pub(crate) const HOLDS: u16 = 1 << 5;
    /// Its gate has said run.
    pub(crate) const PASSED: u16 = 1 << 6;
    /// Its guard has said run.
    pub(crate) const GUARDED: u16 = 1 << 7;
    /// Lies in a queue of a limit, or is about to start.
    pub(crate) const QUEUED: u16 = 1 << 8;
    /// A daemon that counts as settled while it runs.
    pub(crate) const DAEMON_UP: u16 = 1 << 9;
    /// Outputs of an earlier attempt must be deleted.
    pub(crate) const STALE_OUTPUTS: u16 = 1 << 10;
    /// Start hooks have been called for this attempt.
    pub(crate) const START_HOOKED: u16 = 1 << 11;
    /// Its driver has forgotten it: only its number is left.
    pub(crate) const GONE: u16 = 1 << 12;
}

impl Task {
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn set(&mut self, flag: u16) {
        self.flags |= flag;
    }

    pub(crate) fn unset(&mut self, flag: u16) {
        self.flags &= !flag;
    }

    pub(crate) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_with(Box::default)
    }

    pub(crate) fn is_head(&self) -> bool {
        self.node != NONE && self.index == NONE && self.hook == u16::MAX
    }
}

pub(crate) struct Scope {
    pub(crate) template: u32,
    pub(crate) owner: u32,
    pub(crate) attempt: u32,
    /// Task of node 0; heads of a scope's nodes are consecutive.
    pub(crate) first: u32,
    pub(crate) nodes: Vec<NodeState>,
    /// Heads that are not settled.
    pub(crate) unsettled: u32,
    /// Daemons that are up.
    pub(crate) daemons: u32,
    pub(crate) finished: bool,
    /// Its tasks are being ended for this cause.
    pub(crate) stopping: Option<Cause>,
    pub(crate) dirty: bool,
    pub(crate) verdict_queued: bool,
    /// Its outputs are being asked for.
    pub(crate) asked: bool,
}

/// A node of an active scope.
pub(crate) struct NodeState {
    /// As an upstream: settled instances by outcome.
    pub(crate) outcomes: [u32; 6],
    /// Outcomes of instances that counting readers have been told of, a bit each.
    pub(crate) told: u8,
    pub(crate) length: u32,
    pub(crate) made: u32,
    /// (first index, first task, how many), in order.
    pub(crate) chunks: Vec<(u32, u32, u32)>,
    /// As a reader: counters per edge class and outcome over counted and summary edges.
    pub(crate) counters: [[u32; 6]; EdgeClass::COUNT],
    pub(crate) totals: [u32; EdgeClass::COUNT],
    /// Upstream nodes whose settlement it waits for (all kinds of edges, once per edge).
    pub(crate) waiting: u32,
    pub(crate) dirty: bool,
}

impl NodeState {
    pub(crate) fn new() -> Self {
        Self {
            outcomes: [0; 6],
            told: 0,
            length: UNKNOWN,
            made: 0,
            chunks: Vec::new(),
            counters: [[0; 6]; EdgeClass::COUNT],
            totals: [0; EdgeClass::COUNT],
            waiting: 0,
            dirty: false,
        }
    }

    pub(crate) fn settled(&self) -> u32 {
        self.outcomes.iter().sum()
    }

    /// Task of an instance.
    pub(crate) fn instance(&self, index: u32) -> Option<u32> {
        let at = self.chunks.partition_point(|c| c.0 <= index).checked_sub(1)?;
        let (first, task, count) = self.chunks[at];
        (index - first < count).then(|| task + (index - first))
    }

    pub(crate) fn push_instance(&mut self, index: u32, task: u32) {
        self.made = self.made.max(index + 1);
        if let Some(last) = self.chunks.last_mut()
            && last.0 + last.2 == index
            && last.1 + last.2 == task
        {
            last.2 += 1;
        } else {
            self.chunks.push((index, task, 1));
        }
    }
}

fn time(value: i64) -> Option<Timestamp> {
    (value != NEVER).then_some(Timestamp(value))
}

fn engine_time(value: i64) -> Option<EngineTime> {
    (value != NEVER).then_some(EngineTime(value))
}

fn number(value: u32) -> Option<u32> {
    (value != NONE).then_some(value)
}

impl Run {
    /// A run of a backfill that does not count among the workflow's others.
    fn is_apart(&self) -> bool {
        self.plan.workflow.backfills_apart && self.row.trigger == "backfill"
    }

    /// What it counts among.
    pub(crate) fn admission_key(&self) -> (String, String) {
        let name = &self.row.workflow;
        let name = if self.is_apart() { format!("{name}\0backfill") } else { name.clone() };
        (self.row.namespace.clone(), name)
    }

    pub(crate) fn admission_limit(&self) -> Option<u32> {
        self.plan.workflow.max_active_runs.filter(|_| !self.is_apart())
    }

    pub(crate) fn task(&self, no: u32) -> &Task {
        &self.tasks[no as usize]
    }

    pub(crate) fn task_mut(&mut self, no: u32) -> &mut Task {
        &mut self.tasks[no as usize]
    }

    pub(crate) fn scope(&self, no: u32) -> &Scope {
        &self.scopes[no as usize]
    }

    /// The node that a task is an instance of.
    pub(crate) fn node_of(&self, task: &Task) -> Option<&kobza_model::Node> {
        if task.node == NONE {
            return None;
        }
        Some(self.plan.node(self.scope(task.scope).template, task.node))
    }

    pub(crate) fn head(&self, scope: u32, node: u32) -> u32 {
        self.scope(scope).first + node
    }

    pub(crate) fn touch(&mut self, no: u32) {
        let task = &mut self.tasks[no as usize];
        if !task.has(flag::DIRTY) {
            task.set(flag::DIRTY);
            self.dirty_tasks.push(no);
        }
    }

    /// Frees the memory of a finished task whose name is no longer listed.
    pub(crate) fn forget(&mut self, no: u32) {
        let state = self.task(no).state;
        self.tasks.remove(no);
        self.forgotten.push_back((no, state));
    }

    pub(crate) fn touch_scope(&mut self, no: u32) {
        let scope = &mut self.scopes[no as usize];
        if !scope.dirty {
            scope.dirty = true;
            self.dirty_scopes.push(no);
        }
    }

    pub(crate) fn touch_expansion(&mut self, scope: u32, node: u32) {
        let state = &mut self.scopes[scope as usize].nodes[node as usize];
        if !state.dirty {
            state.dirty = true;
            self.dirty_expansions.push((scope, node));
        }
    }

    pub(crate) fn count(&mut self, state: TaskState, by: i64) {
        let counts = &mut self.row.counts;
        if counts.len() < TaskState::ALL.len() {
            counts.resize(TaskState::ALL.len(), 0);
        }
        let count = &mut counts[state as usize];
        *count = u32::try_from((i64::from(*count) + by).max(0)).unwrap_or(u32::MAX);
        self.dirty = true;
    }

    pub(crate) fn task_name(&self, task: &Task) -> String {
        if let Some(name) = task.more.as_ref().and_then(|m| m.name.clone()) {
            return name;
        }
        self.node_of(task).map_or_else(
            || self.plan.template(task.template).name.clone(),
            |node| node.name.clone(),
        )
    }

    /// It stands for instances: an expansion whose length is known and not zero.
    fn is_expanded(&self, task: &Task) -> bool {
        task.has(flag::SUMMARY) && {
            let length = self.scope(task.scope).nodes[task.node as usize].length;
            length != UNKNOWN && length > 0
        }
    }

    pub(crate) fn task_row(&self, no: u32) -> TaskRow {
        let task = self.task(no);
        let more = task.more.as_deref();
        TaskRow {
            run: self.row.run,
            task: TaskNo(no),
            scope: ScopeNo(task.scope),
            node: number(task.node).map(NodeNo),
            template: TemplateNo(task.template),
            name: self.task_name(task),
            index: number(task.index),
            summary: no == 0 || self.is_expanded(task),
            settled: task.has(flag::SETTLED),
            parent: number(task.parent).map(TaskNo),
            hook: (task.hook != u16::MAX).then_some(task.hook),
            state: task.state,
            cause: task.cause,
            message: more.and_then(|m| m.message.clone()),
            attempt: task.attempt,
            attempts_before: task.attempts_before,
            launch: task.launch,
            lost: task.lost,
            confirmed: task.has(flag::CONFIRMED),
            exit_code: more.and_then(|m| m.exit_code),
            priority: task.priority,
            created_at: Timestamp(task.created_at),
            ready_at: time(task.ready_at),
            started_at: time(task.started_at),
            ended_at: time(task.ended_at),
            first_started: engine_time(task.first_started),
            due: engine_time(task.due),
            kill: task.kill,
            child: number(task.child).map(ScopeNo),
            skips: more.map(|m| m.skips.clone()).unwrap_or_default(),
            inputs: more.map_or(Json::Null, |m| m.inputs.clone()),
            carry: more.map_or(Json::Null, |m| m.carry.clone()),
            extra: more.map_or(Json::Null, |m| m.extra.clone()),
        }
    }

    pub(crate) fn scope_row(&self, no: u32) -> ScopeRow {
        let scope = self.scope(no);
        ScopeRow {
            run: self.row.run,
            scope: ScopeNo(no),
            template: TemplateNo(scope.template),
            owner: number(scope.owner).map(TaskNo),
            attempt: scope.attempt,
            finished: scope.finished,
        }
    }

    pub(crate) fn expansion_row(&self, scope: u32, node: u32) -> ExpansionRow {
        let state = &self.scope(scope).nodes[node as usize];
        ExpansionRow {
            run: self.row.run,
            scope: ScopeNo(scope),
            node: NodeNo(node),
            length: state.length,
            made: state.made,
        }
    }
}

impl Task {
    pub(crate) fn new(scope: u32, node: u32, template: u32, at: Timestamp) -> Self {
        Self {
            state: TaskState::Pending,
            cause: Cause::None,
            kill: None,
            lost: 0,
            flags: 0,
            hook: u16::MAX,
            hooks_open: 0,
            scope,
            node,
            template,
            index: NONE,
            parent: NONE,
            child: NONE,
            attempt: 0,
            attempts_before: 0,
            launch: 0,
            serial: 0,
            priority: 0,
            created_at: at.0,
            ready_at: NEVER,
            started_at: NEVER,
            ended_at: NEVER,
            first_started: NEVER,
            due: NEVER,
            more: None,
        }
    }

    pub(crate) fn from_row(row: &TaskRow) -> Self {
        let mut task =
            Self::new(row.scope.0, row.node.map_or(NONE, |n| n.0), row.template.0, row.created_at);
        task.state = row.state;
        task.cause = row.cause;
        task.kill = row.kill;
        task.lost = row.lost;
        task.hook = row.hook.unwrap_or(u16::MAX);
        task.index = row.index.unwrap_or(NONE);
        task.parent = row.parent.map_or(NONE, |t| t.0);
        task.child = row.child.map_or(NONE, |s| s.0);
        task.attempt = row.attempt;
        task.attempts_before = row.attempts_before;
        task.launch = row.launch;
        task.priority = row.priority;
        task.ready_at = row.ready_at.map_or(NEVER, |t| t.0);
        task.started_at = row.started_at.map_or(NEVER, |t| t.0);
        task.ended_at = row.ended_at.map_or(NEVER, |t| t.0);
        task.first_started = row.first_started.map_or(NEVER, |t| t.0);
        task.due = row.due.map_or(NEVER, |t| t.0);
        for (on, bit) in [
            (row.settled, flag::SETTLED),
            (row.confirmed, flag::CONFIRMED),
            (row.attempt > 0 && row.state == TaskState::Ready, flag::PASSED | flag::GUARDED),
        ] {
            if on {
                task.set(bit);
            }
        }
        let named = row.node.is_none();
        if named
            || row.message.is_some()
            || row.exit_code.is_some()
            || !row.skips.is_empty()
            || !row.inputs.is_null()
            || !row.carry.is_null()
            || !row.extra.is_null()
        {
            task.more = Some(Box::new(More {
                name: named.then(|| row.name.clone()),
                message: row.message.clone(),
                exit_code: row.exit_code,
                skips: row.skips.clone(),
                inputs: row.inputs.clone(),
                carry: row.carry.clone(),
                extra: row.extra.clone(),
            }));
        }
        task
    }
}
