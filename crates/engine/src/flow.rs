//! Forward: activation of graphs, gates, guards.

use kobza_model::{
    Cause, Event, EventKind, ExpansionAt, ExpansionBy, Gate, NodeNo, RunState, ScopeNo, TaskNo,
    TaskState,
};

use crate::action::{Action, Question, QuestionKind};
use crate::engine::{Cx, Work};
use crate::gate_eval::{Says, branched_away, evaluate, settled};
use crate::memory::{NONE, NodeState, Run, Scope, Task, UNKNOWN, flag};
use crate::plan::EdgeKind;
use crate::transition::Move;

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
        self.limit_scope(run, scope_no);
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
