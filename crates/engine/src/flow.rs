//! Forward: activation of graphs, gates, expansion, guards, limits, launches.

use kobza_model::{
    Cause, Event, EventKind, ExpansionAt, ExpansionBy, Gate, Json, NodeNo, RunState, ScopeNo,
    TaskNo, TaskState, ZeroLength,
};

use crate::action::{Action, Launch, Question, QuestionKind};
use crate::engine::{Cx, Work};
use crate::gate_eval::{Says, branched_away, evaluate, settled};
use crate::limits::LimitKey;
use crate::memory::{NEVER, NONE, NodeState, Run, Scope, Task, UNKNOWN, flag};
use crate::plan::EdgeKind;
use crate::transition::Move;

/// Instances made in one step, so that a long expansion does not hold up everything else.
const CHUNK: u32 = 256;

impl Cx {
    /// The run leaves its queue: it begins, or goes on if it was reopened.
    pub(crate) fn enter(&mut self, run: &mut Run) {
        if run.tasks.is_empty() {
            self.begin(run);
            return;
        }
        run.row.state = RunState::Running;
        run.dirty = true;
        self.run_event(run);
        self.actions.push(Action::RunStarted { run: run.row.run });
        self.take_up(run);
    }

    /// A new run begins.
    pub(crate) fn begin(&mut self, run: &mut Run) {
        run.row.state = RunState::Running;
        run.row.started_at = Some(self.now.wall);
        run.dirty = true;
        if let Some(timeout) = run.plan.workflow.timeout_ms {
            let deadline = self.now.engine.after_millis(timeout);
            run.row.deadline = Some(deadline);
            self.timers.insert((deadline, crate::engine::TimerKey::Run(run.row.run)));
        }
        self.run_event(run);
        self.actions.push(Action::RunStarted { run: run.row.run });
        // Task 0 stands for the run: it owns the root scope.
        let mut root = Task::new(0, NONE, run.plan.workflow.entry.0, self.now.wall);
        root.state = TaskState::Running;
        root.started_at = self.now.wall.0;
        root.first_started = self.now.engine.0;
        root.attempt = 1;
        root.more().name = Some(run.plan.workflow.name.clone());
        run.tasks.push(root);
        run.touch(0);
        if run.plan.workflow.open {
            run.scopes.push(Scope {
                template: run.plan.workflow.entry.0,
                owner: 0,
                attempt: 1,
                first: 1,
                nodes: Vec::new(),
                unsettled: 0,
                daemons: 0,
                finished: false,
                stopping: None,
                dirty: false,
                verdict_queued: false,
                asked: false,
            });
            run.task_mut(0).child = 0;
            run.touch_scope(0);
            self.list(run);
            return;
        }
        self.activate(run, 0);
        self.list(run);
    }

    /// Creates the scope of the graph that a task calls, with a pending head for each node.
    pub(crate) fn activate(&mut self, run: &mut Run, owner: u32) {
        let template = run.task(owner).template;
        let plan = run.plan.clone();
        let Some(graph) = plan.graph(template) else { return };
        let scope_no = run.scopes.len() as u32;
        let first = run.tasks.len() as u32;
        let mut nodes = Vec::with_capacity(graph.nodes.len());
        run.tasks.reserve(graph.nodes.len());
        for (number, node) in graph.nodes.iter().enumerate() {
            let mut task = Task::new(scope_no, number as u32, node.call.0, self.now.wall);
            task.priority = node.priority.saturating_add(run.row.priority);
            if node.expansion.is_some() {
                task.set(flag::SUMMARY);
            } else {
                run.count(TaskState::Pending, 1);
            }
            run.tasks.push(task);
            nodes.push(NodeState::new());
        }
        let attempt = run.task(owner).attempt;
        run.scopes.push(Scope {
            template,
            owner,
            attempt,
            first,
            nodes,
            unsettled: graph.nodes.len() as u32,
            daemons: 0,
            finished: false,
            stopping: None,
            dirty: false,
            verdict_queued: false,
            asked: false,
        });
        run.task_mut(owner).child = scope_no;
        run.touch(owner);
        run.touch_scope(scope_no);
        init_totals(run, scope_no);
        if let Some(parallelism) = graph.parallelism {
            let key = LimitKey::Scope(run.row.run, scope_no);
            self.limits.set(key, Some(parallelism.max(1)), false, None);
        }
        for number in 0..graph.nodes.len() as u32 {
            run.touch(first + number);
        }
        // Upstream first: a cascade of no-ops then needs no second look.
        for &node in &plan.graph_plan(template).order {
            if graph.nodes[node as usize].edges.is_empty()
                || !matches!(graph.nodes[node as usize].gate, Gate::Counting(_))
                || always_may_run(&graph.nodes[node as usize].gate)
                || graph.nodes[node as usize].expansion.is_some()
            {
                self.push(run, Work::Node { scope: scope_no, node });
            }
        }
        if graph.nodes.is_empty() {
            self.queue_verdict(run, scope_no);
        }
    }

    /// Looks at a node whose gate is its head's.
    pub(crate) fn look_at_node(&mut self, run: &mut Run, scope: u32, node: u32) {
        let head = run.head(scope, node);
        let task = run.task(head);
        if task.state != TaskState::Pending || task.has(flag::ASKED) {
            if task.has(flag::SUMMARY) && task.state == TaskState::Running {
                self.look_at_instances(run, scope, node);
            }
            return;
        }
        if let Some(cause) = run.scope(scope).stopping {
            self.end_unstarted(run, head, cause);
            return;
        }
        let plan = run.plan.clone();
        let definition = plan.node(run.scope(scope).template, node);
        if let Some(expansion) = &definition.expansion
            && let ExpansionAt::Upstream(waits) = &expansion.at
        {
            let leader = match expansion.by {
                ExpansionBy::Like(leader) => Some(leader),
                _ => None,
            };
            if !waits.iter().all(|n| settled(run, scope, n.0)) {
                return;
            }
            if let Some(leader) = leader
                && run.scope(scope).nodes[leader.index()].length == UNKNOWN
                && !settled(run, scope, leader.0)
            {
                return;
            }
            let lost = waits.iter().chain(leader.iter()).any(|n| {
                let up = run.task(run.head(scope, n.0));
                up.has(flag::SETTLED)
                    && up.state != TaskState::Succeeded
                    && run.scope(scope).nodes[n.index()].length == UNKNOWN
            });
            if lost {
                // It will never have a length: the gate decides how it ends, and may not run it.
                match evaluate(run, scope, node, None) {
                    Says::Wait => {}
                    Says::UpstreamFail => self.finish(
                        run,
                        head,
                        Move::UpstreamFail,
                        TaskState::UpstreamFailed,
                        Cause::Gate,
                    ),
                    Says::Remove => {
                        self.finish(run, head, Move::Remove, TaskState::Removed, Cause::Gate)
                    }
                    Says::Run | Says::Skip | Says::Deadlock => {
                        self.finish(run, head, Move::Skip, TaskState::Skipped, Cause::Gate)
                    }
                }
                return;
            }
            self.begin_expansion(run, scope, node);
            return;
        }
        match evaluate(run, scope, node, None) {
            Says::Wait => {}
            says => self.act_on_gate(run, head, says),
        }
    }

    fn look_at_instances(&mut self, run: &mut Run, scope: u32, node: u32) {
        let own_gates = run
            .plan
            .node(run.scope(scope).template, node)
            .expansion
            .as_ref()
            .is_some_and(|e| matches!(e.at, ExpansionAt::Upstream(_)));
        if own_gates {
            let made = run.scope(scope).nodes[node as usize].made;
            for index in 0..made {
                if let Some(task) = run.scope(scope).nodes[node as usize].instance(index)
                    && run.task(task).state == TaskState::Pending
                {
                    self.push(run, Work::Instance { task });
                }
            }
        }
    }

    /// Looks at an instance that has a gate of its own, or whose guard must be asked.
    pub(crate) fn look_at_instance(&mut self, run: &mut Run, no: u32) {
        let task = run.task(no);
        if task.state != TaskState::Pending || task.has(flag::ASKED) {
            return;
        }
        if task.hook == crate::added::ADDED {
            self.look_at_added(run, no);
            return;
        }
        let (scope, node, index) = (task.scope, task.node, task.index);
        if let Some(cause) = run.scope(scope).stopping {
            self.end_unstarted(run, no, cause);
            return;
        }
        let definition = run.plan.node(run.scope(scope).template, node);
        let own_gate =
            definition.expansion.as_ref().is_some_and(|e| matches!(e.at, ExpansionAt::Upstream(_)));
        let says = if own_gate { evaluate(run, scope, node, Some(index)) } else { Says::Run };
        if says != Says::Wait {
            self.act_on_gate(run, no, says);
        }
    }

    fn act_on_gate(&mut self, run: &mut Run, no: u32, says: Says) {
        let task = run.task(no);
        let (scope, node, index) = (task.scope, task.node, task.index);
        match says {
            Says::Wait => {}
            Says::Skip => self.finish(run, no, Move::Skip, TaskState::Skipped, Cause::Gate),
            Says::UpstreamFail => {
                self.finish(run, no, Move::UpstreamFail, TaskState::UpstreamFailed, Cause::Gate)
            }
            Says::Remove => self.finish(run, no, Move::Remove, TaskState::Removed, Cause::Gate),
            Says::Deadlock => {
                run.task_mut(no).more().message = Some(
                    "its rule can no longer be met: everything it waits for has ended".to_owned(),
                );
                self.finish(run, no, Move::Refuse, TaskState::Failed, Cause::Deadlock);
            }
            Says::Run if branched_away(run, scope, node, index) => {
                self.finish(run, no, Move::Skip, TaskState::Skipped, Cause::Branch);
            }
            Says::Run => {
                run.task_mut(no).set(flag::PASSED);
                let definition = run.plan.node(run.scope(scope).template, node);
                if definition.expansion.is_some() && index == NONE {
                    self.begin_expansion(run, scope, node);
                } else if definition.guard {
                    self.ask(run, no, QuestionKind::Guard);
                } else {
                    self.admit(run, no);
                }
            }
        }
    }

    pub(crate) fn ask(&mut self, run: &mut Run, no: u32, kind: QuestionKind) {
        let run_id = run.row.run;
        let task = run.task_mut(no);
        task.set(flag::ASKED);
        task.serial = task.serial.wrapping_add(1);
        let question = Question {
            task: kobza_model::TaskId { run: run_id, task: TaskNo(no) },
            serial: task.serial,
            kind,
            scope: ScopeNo(task.scope),
            node: (task.node != NONE).then_some(NodeNo(task.node)),
            index: (task.index != NONE).then_some(task.index),
        };
        self.questions.push(question);
    }

    fn begin_expansion(&mut self, run: &mut Run, scope: u32, node: u32) {
        let by =
            run.plan.node(run.scope(scope).template, node).expansion.as_ref().map(|e| e.by.clone());
        match by {
            None => {}
            Some(ExpansionBy::Static(length)) => self.expand(run, scope, node, length),
            Some(ExpansionBy::Ask) => {
                let head = run.head(scope, node);
                self.ask(run, head, QuestionKind::Expansion);
            }
            Some(ExpansionBy::Like(leader)) => {
                let length = run.scope(scope).nodes[leader.index()].length;
                if length != UNKNOWN {
                    self.expand(run, scope, node, length);
                } else if settled(run, scope, leader.0) {
                    let head = run.head(scope, node);
                    self.finish(run, head, Move::Skip, TaskState::Skipped, Cause::Empty);
                }
            }
        }
    }

    /// The length is known.
    pub(crate) fn expand(&mut self, run: &mut Run, scope: u32, node: u32, length: u32) {
        let head = run.head(scope, node);
        let plan = run.plan.clone();
        let template = run.scope(scope).template;
        let graph_plan = plan.graph_plan(template);
        run.scopes[scope as usize].nodes[node as usize].length = length;
        run.touch_expansion(scope, node);
        self.event(run.row.run, Some(head), EventKind::Expanded { length });
        for &follower in &graph_plan.followers[node as usize] {
            self.push(run, Work::Node { scope, node: follower });
        }
        // Instances of an earlier expansion (the node was cleared) are taken up again or removed.
        let made = run.scope(scope).nodes[node as usize].made;
        self.remove_instances(run, scope, node, length);
        if length == 0 {
            let zero = plan
                .node(template, node)
                .expansion
                .as_ref()
                .map_or(ZeroLength::Skipped, |e| e.zero);
            match zero {
                ZeroLength::Skipped => {
                    self.finish(run, head, Move::Skip, TaskState::Skipped, Cause::Empty)
                }
                ZeroLength::Succeeded => {
                    self.finish(run, head, Move::Complete, TaskState::Succeeded, Cause::Empty)
                }
            }
            return;
        }
        for reader in &graph_plan.readers[node as usize] {
            if reader.kind == EdgeKind::Counted {
                let state = &mut run.scopes[scope as usize].nodes[reader.node as usize];
                state.totals[reader.class as usize] += length - 1;
            }
        }
        run.count(TaskState::Pending, i64::from(length) - i64::from(made.min(length)));
        run.task_mut(head).started_at = self.now.wall.0;
        self.transit(run, head, Move::Expand, TaskState::Running, Cause::None);
        for index in 0..made.min(length) {
            if let Some(task) = run.scope(scope).nodes[node as usize].instance(index) {
                self.push(run, Work::Instance { task });
            }
        }
        self.push(run, Work::Make { scope, node });
    }

    /// Instances of an earlier expansion that this one does not have, from `first` on.
    pub(crate) fn remove_instances(&mut self, run: &mut Run, scope: u32, node: u32, first: u32) {
        for index in first..run.scope(scope).nodes[node as usize].made {
            if let Some(task) = run.scope(scope).nodes[node as usize].instance(index) {
                let t = run.task_mut(task);
                t.set(flag::SETTLED);
                if t.state != TaskState::Removed {
                    t.ended_at = self.now.wall.0;
                    self.transit(run, task, Move::Remove, TaskState::Removed, Cause::Empty);
                }
            }
        }
    }

    /// Makes instances while the window allows.
    pub(crate) fn make_instances(&mut self, run: &mut Run, scope: u32, node: u32) {
        let head = run.head(scope, node);
        if run.task(head).state != TaskState::Running {
            return;
        }
        let plan = run.plan.clone();
        let definition = plan.node(run.scope(scope).template, node);
        let window = definition
            .expansion
            .as_ref()
            .and_then(|e| e.window)
            .unwrap_or(self.options.window)
            .max(1);
        let state = &run.scope(scope).nodes[node as usize];
        let (length, made, settled) = (state.length, state.made, state.settled());
        if length == UNKNOWN || run.scope(scope).stopping.is_some() {
            return;
        }
        let room = window.saturating_sub(made.saturating_sub(settled));
        let count = (length - made.min(length)).min(room).min(CHUNK);
        for index in made..made + count {
            let no = run.tasks.len() as u32;
            let mut task = Task::new(scope, node, definition.call.0, self.now.wall);
            task.index = index;
            task.parent = head;
            task.priority = definition.priority.saturating_add(run.row.priority);
            run.tasks.push(task);
            run.scopes[scope as usize].nodes[node as usize].push_instance(index, no);
            run.touch(no);
            self.push(run, Work::Instance { task: no });
        }
        if count > 0 {
            run.touch_expansion(scope, node);
        }
        if count == CHUNK {
            self.push(run, Work::Make { scope, node });
        }
    }

    /// The task may run: it becomes ready and asks for its limits.
    pub(crate) fn admit(&mut self, run: &mut Run, no: u32) {
        let task = run.task_mut(no);
        task.set(flag::PASSED | flag::GUARDED);
        task.attempt += 1;
        task.lost = 0;
        task.ready_at = self.now.wall.0;
        self.transit(run, no, Move::Admit, TaskState::Ready, Cause::None);
        self.queue_for_limits(run, no);
    }

    /// A ready task asks for its limits.
    pub(crate) fn queue_for_limits(&mut self, run: &mut Run, no: u32) {
        if matches!(run.row.state, RunState::Paused | RunState::Queued)
            || run.task(no).has(flag::QUEUED)
        {
            return;
        }
        let wants = self.wants(run, no);
        let id = Cx::task_id(run, no);
        run.task_mut(no).set(flag::QUEUED);
        if self.limits.acquire(id, wants, run.task(no).priority) {
            self.push(run, Work::Start { task: no });
        }
    }

    /// Every limit that a task needs while launched.
    pub(crate) fn wants(&self, run: &Run, no: u32) -> Vec<(LimitKey, u32)> {
        let task = run.task(no);
        let mut wants: Vec<(LimitKey, u32)> = Vec::new();
        if let Some(node) = run.node_of(task) {
            wants.extend(node.limits.iter().map(|l| (LimitKey::Named(l.limit.clone()), l.weight)));
        }
        let Some(leaf) = run.plan.leaf(task.template) else { return wants };
        if leaf.kind == "suspend" {
            return wants;
        }
        let mut scope = task.scope;
        loop {
            let state = run.scope(scope);
            if run.plan.graph(state.template).is_some_and(|g| g.parallelism.is_some()) {
                wants.push((LimitKey::Scope(run.row.run, scope), 1));
            }
            if state.owner == 0 || state.owner == NONE {
                break;
            }
            scope = run.task(state.owner).scope;
        }
        // A caller that held a slot while its run waits for one would wait for itself.
        if !matches!(leaf.kind.as_str(), "noop" | "wait" | "workflow") {
            wants.push((LimitKey::Slots, 1));
        }
        wants
    }

    /// It holds its limits: run it.
    pub(crate) fn start_task(&mut self, run: &mut Run, no: u32) {
        let id = Cx::task_id(run, no);
        let task = run.task_mut(no);
        task.unset(flag::QUEUED);
        if task.state != TaskState::Ready {
            self.release(run, no);
            return;
        }
        if matches!(run.row.state, RunState::Paused | RunState::Queued) {
            self.release(run, no);
            return;
        }
        if self.limits.holds(id) {
            run.task_mut(no).set(flag::HOLDS);
        }
        let template = run.task(no).template;
        let plan = run.plan.clone();
        let Some(leaf) = plan.leaf(template) else {
            if Cx::owner_chain_depth(run, run.task(no).scope) >= self.options.depth {
                run.task_mut(no).more().message = Some(format!(
                    "graphs call graphs more than {} levels deep",
                    self.options.depth
                ));
                self.finish(run, no, Move::Refuse, TaskState::Failed, Cause::Limit);
                return;
            }
            self.note_start(run, no);
            self.transit(run, no, Move::Start, TaskState::Running, Cause::None);
            self.set_time_out(run, no, 0);
            self.activate(run, no);
            self.start_hooks(run, no);
            return;
        };
        match leaf.kind.as_str() {
            "noop" => {
                self.note_start(run, no);
                self.finish(run, no, Move::Complete, TaskState::Succeeded, Cause::None);
            }
            "suspend" => {
                self.note_start(run, no);
                self.transit(run, no, Move::Suspend, TaskState::Suspended, Cause::None);
                let wait = run
                    .task(no)
                    .more
                    .as_ref()
                    .and_then(|m| m.inputs.get("duration_ms").and_then(Json::as_u64));
                let due = wait.map(|ms| self.now.engine.after_millis(ms));
                self.set_due(run, no, due);
                self.release_unless_waiting(run, no);
                self.start_hooks(run, no);
            }
            _ => {
                self.launch(run, no, Move::Launch);
            }
        }
    }

    fn note_start(&mut self, run: &mut Run, no: u32) {
        let task = run.task_mut(no);
        task.started_at = self.now.wall.0;
        if task.first_started == NEVER {
            task.first_started = self.now.engine.0;
        }
    }

    /// Hands a task over: a new launch number, and the action once this is durable.
    pub(crate) fn launch(&mut self, run: &mut Run, no: u32, mv: Move) {
        let id = Cx::task_id(run, no);
        let timeout_ms = self.time_left(run, no);
        let task = run.task_mut(no);
        task.launch += 1;
        task.unset(flag::CONFIRMED);
        let launch = Launch {
            id: kobza_model::LaunchId { run: id.run, task: id.task, launch: task.launch },
            template: kobza_model::TemplateNo(task.template),
            scope: ScopeNo(task.scope),
            node: (task.node != NONE).then_some(NodeNo(task.node)),
            index: (task.index != NONE).then_some(task.index),
            attempt: task.attempt,
            carry: task.more.as_ref().map_or(Json::Null, |m| m.carry.clone()),
            timeout_ms,
        };
        self.transit(run, no, mv, TaskState::Queued, Cause::None);
        self.set_due(run, no, None);
        self.actions.push(Action::Launch(launch));
    }

    /// Milliseconds that a new attempt may run.
    pub(crate) fn time_left(&self, run: &Run, no: u32) -> Option<u64> {
        let task = run.task(no);
        let node = run.node_of(task)?;
        let total = node.timeout_ms.map(|total| {
            if task.first_started == NEVER {
                return total;
            }
            let used = (self.now.engine.0 - task.first_started).max(0) as u64 / 1000;
            total.saturating_sub(used).max(1)
        });
        match (node.attempt_timeout_ms, total) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Sets the time-out of a running attempt. `grace_ms`: executors enforce it themselves, so the
    /// engine's own is only for those that fail to.
    pub(crate) fn set_time_out(&mut self, run: &mut Run, no: u32, grace_ms: u64) {
        let due = self
            .time_left(run, no)
            .map(|ms| self.now.engine.after_millis(ms.saturating_add(grace_ms)));
        self.set_due(run, no, due);
    }

    /// Gives back all limits of a task, and lets others start.
    pub(crate) fn release(&mut self, run: &mut Run, no: u32) {
        let id = Cx::task_id(run, no);
        let mut woken = Vec::new();
        if run.task(no).has(flag::QUEUED) {
            run.task_mut(no).unset(flag::QUEUED);
            self.limits.withdraw(id, &mut woken);
        }
        run.task_mut(no).unset(flag::HOLDS);
        self.limits.release(id, |_| true, &mut woken);
        self.start_woken(woken);
    }

    /// Gives back what a waiting task need not hold.
    pub(crate) fn release_unless_waiting(&mut self, run: &mut Run, no: u32) {
        let keep: Vec<String> = run
            .node_of(run.task(no))
            .map(|node| {
                node.limits.iter().filter(|l| l.while_waiting).map(|l| l.limit.clone()).collect()
            })
            .unwrap_or_default();
        let mut woken = Vec::new();
        self.limits.release(
            Cx::task_id(run, no),
            |key| !matches!(key, LimitKey::Named(name) if keep.contains(name)),
            &mut woken,
        );
        if keep.is_empty() {
            run.task_mut(no).unset(flag::HOLDS);
        }
        self.start_woken(woken);
    }

    /// Ends a task that has no body: pending, ready or waiting.
    pub(crate) fn end_unstarted(&mut self, run: &mut Run, no: u32, cause: Cause) {
        match (cause, run.task(no).state) {
            (Cause::FailFast, TaskState::Pending | TaskState::Ready) => {
                self.finish(run, no, Move::Skip, TaskState::Skipped, cause);
            }
            _ => self.finish(run, no, Move::Cancel, TaskState::Cancelled, cause),
        }
    }

    pub(crate) fn note(&mut self, run: &Run, task: Option<u32>, word: String, detail: String) {
        let event = Event {
            at: self.now.wall,
            run: Some(run.row.run),
            task: task.map(TaskNo),
            kind: EventKind::Note { word, detail },
        };
        self.batch.events.push(event);
    }
}

/// Whether a counting gate may say run before anything upstream has ended.
fn always_may_run(gate: &Gate) -> bool {
    matches!(gate, Gate::Counting(rows) if rows.iter().any(|r| r.when == kobza_model::Condition::Always))
}

/// Counts the edges of each node: what its gate waits for.
pub(crate) fn init_totals(run: &mut Run, scope: u32) {
    let plan = run.plan.clone();
    let template = run.scope(scope).template;
    let graph_plan = plan.graph_plan(template);
    for readers in &graph_plan.readers {
        for reader in readers {
            let state = &mut run.scopes[scope as usize].nodes[reader.node as usize];
            state.waiting += 1;
            if matches!(reader.kind, EdgeKind::Counted | EdgeKind::Summary) {
                state.totals[reader.class as usize] += 1;
            }
        }
    }
}
