//! Expansion: the instances of a mapped node, made in windows.

use kobza_model::{Cause, EventKind, ExpansionBy, TaskState, ZeroLength};

use crate::action::QuestionKind;
use crate::engine::{Cx, Work};
use crate::gate_eval::settled;
use crate::memory::{Run, Task, UNKNOWN, flag};
use crate::plan::EdgeKind;
use crate::transition::Move;

impl Cx {
    /// Learns the length of a mapped node: from its definition, its leader, or its dialect.
    pub(crate) fn begin_expansion(&mut self, run: &mut Run, scope: u32, node: u32) {
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
}

/// Instances made in one step, so that a long expansion does not hold up everything else.
const CHUNK: u32 = 256;
