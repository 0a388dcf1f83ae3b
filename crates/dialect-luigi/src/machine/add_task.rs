//! `add_task`: workers state what they know of a task. The order of the steps is the protocol.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::args::Args;
use super::resources::{Num, ResourceSet};
use super::state::{NodeNo, Status};
use super::{LuigiMachine, Refused};
use crate::pyjson::Value;

impl LuigiMachine {
    pub(super) fn add_task(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        let worker_id = args.worker()?;
        let task_id = args.id("task_id")?;
        let claimed = match args.text("status") {
            None => Status::Pending,
            Some("SUSPENDED") => Status::Pending,
            Some(word) => Status::from_word(word).unwrap_or(Status::Unknown),
        };
        // A suspended task is made pending, but does not count as a claim that it is.
        let suspended = args.text("status") == Some("SUSPENDED");
        let says_pending = claimed == Status::Pending && !suspended;
        let worker = self.seen(&worker_id, false, now);
        let enabled = !self.worker_ref(worker).disabled;
        let resources = ResourceSet::from_value(args.get("resources"));
        let priority = Num::from_value(args.get("priority")).unwrap_or(Num::Int(0));
        let policy = self.policy().with(&args.object("retry_policy_dict"));

        let node = match self.index.find(&task_id) {
            Some(node) => node,
            None if !enabled => return Ok(Value::Null),
            None => {
                let node = self.make_task(&task_id, Status::Pending, now);
                self.index.task_mut(node).priority = priority;
                self.index.task_mut(node).resources = resources.clone();
                self.touch(node);
                if let Some(deps) = args.ids("deps") {
                    let deps = self.dep_nodes(deps, Vec::new());
                    self.index.set_deps(node, deps);
                }
                node
            }
        };
        let task = self.index.task(node);
        if task.status != Status::Running && !enabled {
            return Ok(Value::Null);
        }
        let rested = now - task.updated >= self.config.stable_done_cooldown_secs;
        if says_pending && task.status == Status::Done && !rested {
            return Ok(Value::Null);
        }
        self.describe(node, args);
        self.note_run(node, args, claimed, &worker_id, now);

        let task = self.index.task(node);
        let is_running = matches!(task.status, Status::Running | Status::BatchRunning);
        let about_a_run = matches!(claimed, Status::Done | Status::Failed | Status::Running);
        let own = task.worker_running.as_deref() == Some(worker_id.as_str());
        if !is_running || (about_a_run && own) || args.truthy("new_deps") {
            if claimed != task.status || says_pending {
                self.record(node, if suspended { Status::Unknown } else { claimed }, None, now);
            }
            self.set_status(node, claimed, now);
        }

        self.join_deps(node, args);
        let task = self.index.task_mut(node);
        if task.resources != resources {
            task.resources = resources;
            self.dirty.definitions.insert(node);
        }
        self.index.task_mut(node).shared_resources = false;
        self.touch(node);
        if enabled && !args.truthy("assistant") {
            self.add_stakes(node, worker, priority, now);
        }
        self.raise_priority(node, priority);
        let task = self.index.task_mut(node);
        if task.policy != policy {
            task.policy = policy;
            self.dirty.definitions.insert(node);
        }
        if args.flag_or_true("runnable") && claimed != Status::Failed && enabled {
            self.index.add_worker_to(node, worker);
            self.index.task_mut(node).runnable = true;
            self.touch(node);
        }
        Ok(Value::Null)
    }

    /// What a placeholder lacks is filled in; what is known stays.
    fn describe(&mut self, node: NodeNo, args: &Args) {
        let task = self.index.task_mut(node);
        let mut changed = false;
        if task.family.is_empty()
            && let Some(family) = args.text("family").filter(|f| !f.is_empty())
        {
            task.family = family.into();
            changed = true;
        }
        if !task.module.truthy() {
            let module = args.get("module");
            changed |= task.module != *module;
            task.module = module.clone();
        }
        if task.visibilities.is_empty() {
            task.visibilities = args.object("param_visibilities");
            changed |= !task.visibilities.is_empty();
        }
        if task.params.is_empty() {
            task.set_params(args.get("params"));
            changed |= !task.params.is_empty();
        }
        if changed {
            self.dirty.definitions.insert(node);
        }
    }

    /// Who runs it, in which batch, and what it shows of itself.
    fn note_run(&mut self, node: NodeNo, args: &Args, claimed: Status, worker: &str, now: f64) {
        let batch: Option<Arc<str>> = args.text("batch_id").map(Into::into);
        let task = self.index.task_mut(node);
        if batch.is_some() {
            task.batch_id = batch.clone();
        }
        let is_free = task.worker_running.as_ref().is_none_or(|w| w.is_empty());
        if claimed == Status::Running && is_free {
            task.worker_running = Some(worker.into());
            task.time_running = Some(now);
            if let Some(batch) = batch.filter(|b| !b.is_empty()) {
                let first = self.index.batch_members(&batch).first().copied();
                if let Some(first) = first {
                    let held = self.index.task(first).resources_running.clone();
                    let task = self.index.task_mut(node);
                    task.resources_running = held;
                    task.shared_resources = false;
                }
            }
        }
        let task = self.index.task_mut(node);
        let accepts = args.get("accepts_messages");
        if !args.has("accepts_messages") {
            task.accepts_messages = Value::Bool(false);
        } else if !accepts.is_null() {
            task.accepts_messages = accepts.clone();
        }
        let url = args.get("tracking_url");
        let sets_url = !url.is_null() || task.status != Status::Running;
        if sets_url {
            task.tracking_url = url.clone();
        }
        let batchable = args.get("batchable");
        if !batchable.is_null() && task.batchable != batchable.truthy() {
            task.batchable = batchable.truthy();
            self.dirty.definitions.insert(node);
        }
        let task = self.index.task_mut(node);
        task.remove = None;
        let expl = args.get("expl");
        if !expl.is_null() {
            task.expl = expl.clone();
        }
        let batch = task.batch_id.clone();
        self.touch(node);
        if let Some(batch) = batch.filter(|_| sets_url || !expl.is_null()) {
            for member in self.index.batch_members(&batch) {
                let task = self.index.task_mut(member);
                if sets_url {
                    task.tracking_url = url.clone();
                }
                if !expl.is_null() {
                    task.expl = expl.clone();
                }
                self.dirty.states.insert(member);
            }
        }
    }

    fn join_deps(&mut self, node: NodeNo, args: &Args) {
        let (deps, new_deps) = (args.ids("deps"), args.ids("new_deps"));
        if deps.is_none() && new_deps.is_none() {
            return;
        }
        let before = self.index.task(node).deps.clone();
        let mut after = match deps {
            Some(deps) => self.dep_nodes(deps, Vec::new()),
            None => before.clone(),
        };
        if let Some(more) = new_deps {
            after = self.dep_nodes(more, after);
        }
        if after != before {
            self.index.set_deps(node, after);
            self.dirty.definitions.insert(node);
        }
    }

    /// Places for ids, each once, in order of first appearance.
    fn dep_nodes(&mut self, ids: Vec<String>, start: Vec<NodeNo>) -> Vec<NodeNo> {
        let mut seen: BTreeSet<NodeNo> = start.iter().copied().collect();
        let mut out = start;
        for id in ids {
            let node = self.index.node(&id);
            if seen.insert(node) {
                out.push(node);
            }
        }
        out
    }

    /// The worker has an interest in the task and in what it depends on; unknown ones get a
    /// placeholder, so that they are not pruned while a long scheduling is under way.
    fn add_stakes(&mut self, node: NodeNo, worker: u32, priority: Num, now: f64) {
        if self.index.add_stakeholder(node, worker) {
            self.dirty.states.insert(node);
        }
        for dep in self.index.task(node).deps.clone() {
            if self.index.get(dep).is_none() {
                let id = self.index.nodes[dep as usize].id.clone();
                let dep = self.make_task(&id, Status::Unknown, now);
                self.index.task_mut(dep).priority = priority;
                self.touch(dep);
            }
            if self.index.add_stakeholder(dep, worker) {
                self.dirty.states.insert(dep);
            }
        }
    }

    /// Raises a task's priority, and that of all it depends on. Priorities never fall.
    fn raise_priority(&mut self, node: NodeNo, priority: Num) {
        let mut stack = vec![(node, priority, true)];
        while let Some((node, priority, force)) = stack.pop() {
            let Some(task) = self.index.get(node) else { continue };
            let own = task.priority;
            let raised = if own.f64() > priority.f64() { own } else { priority };
            if !force && priority.f64() <= own.f64() {
                continue;
            }
            let is_int = |n: Num| matches!(n, Num::Int(_));
            let is_new = raised.f64() != own.f64() || is_int(raised) != is_int(own);
            if is_new {
                self.index.task_mut(node).priority = raised;
                self.index.reindex(node);
                self.dirty.definitions.insert(node);
            }
            let deps = &self.index.task(node).deps;
            let low =
                |d: &&NodeNo| self.index.get(**d).is_some_and(|t| raised.f64() > t.priority.f64());
            stack.extend(deps.iter().filter(low).map(|d| (*d, raised, false)));
        }
    }
}
