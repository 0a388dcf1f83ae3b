//! `get_work` and `count_pending`: what a worker is given, and the counters it decides by.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use md5::{Digest as _, Md5};

use super::args::Args;
use super::state::{NodeNo, Status, WorkerNo};
use super::{LuigiMachine, Refused};
use crate::pyjson::{Object, Value};

/// Tasks to be run as one, with what their parameters become.
struct Batch {
    tasks: Vec<NodeNo>,
    params: Object,
}

impl LuigiMachine {
    pub(super) fn get_work(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        let id = args.worker()?;
        if self.config.prune_on_get_work {
            self.prune(now);
        }
        let worker = self.seen(&id, true, now);
        if self.worker_ref(worker).disabled {
            return Ok(super::object([
                ("n_pending_tasks", Value::Int(0)),
                ("running_tasks", Value::List(Vec::new())),
                ("task_id", Value::Null),
                ("n_unique_pending", Value::Int(0)),
                ("worker_state", "disabled".into()),
            ]));
        }
        let assistant = args.truthy("assistant");
        if assistant {
            self.inform(worker, [("assistant".to_owned(), args.get("assistant").clone())]);
        }
        let mut best = None;
        if let Some(current) = args.ids("current_tasks") {
            let current: BTreeSet<&str> = current.iter().map(String::as_str).collect();
            // A reply was lost: the worker does not know of a task that it was given.
            best = self.index.running.iter().map(|rank| rank.node).find(|node| {
                let task = self.index.task(*node);
                task.worker_running.as_deref() == Some(id.as_str()) && !current.contains(&*task.id)
            });
            self.reset_orphans(&id, now);
        }
        let mut batch = None;
        if best.is_none() && !self.paused {
            let trivial = self.is_trivial(worker);
            best = if trivial {
                let heads = &self.worker_ref(worker).heads;
                heads.first().map(|(rank, _)| rank.node)
            } else {
                self.select(worker, assistant, now)
            };
            if let Some(best) = best {
                batch = self.collect_batch(best, &id, trivial.then_some(worker));
            }
        }
        let mut reply = self.count_pending(worker, now);
        let mut put = |key: &str, value| {
            reply.insert(key.to_owned(), value);
        };
        match (batch, best) {
            (Some(batch), Some(best)) => {
                let ids: Vec<Arc<str>> =
                    batch.tasks.iter().map(|n| self.index.task(*n).id.clone()).collect();
                let batch_id: Arc<str> = hex(&Md5::digest(ids.join("|").as_bytes())).into();
                for node in &batch.tasks {
                    self.start_in_batch(*node, &batch_id, &id, now);
                }
                let task = self.index.task(best);
                put("task_id", Value::Null);
                put("task_family", Value::from(&*task.family));
                put("task_module", task.module.clone());
                put("task_params", Value::Object(batch.params));
                put("batch_id", Value::from(&*batch_id));
                let ids = ids.iter().map(|id| Value::from(&**id)).collect();
                put("batch_task_ids", Value::List(ids));
            }
            (_, Some(best)) => {
                let host = args.text("host").map(str::to_owned);
                self.start(best, &id, host, now);
                let task = self.index.task(best);
                put("task_id", Value::from(&*task.id));
                put("task_family", Value::from(&*task.family));
                put("task_module", task.module.clone());
                put("task_params", Value::Object((*task.params).clone()));
            }
            (_, None) => put("task_id", Value::Null),
        }
        Ok(Value::Object(reply))
    }

    /// Not an assistant, and none of its pending tasks needs resources.
    fn is_trivial(&self, worker: WorkerNo) -> bool {
        let worker = self.worker_ref(worker);
        let groups = &self.index.groups;
        !worker.is_assistant()
            && worker.groups.iter().all(|g| groups.get(*g).pending_with_resources == 0)
    }

    fn start(&mut self, node: NodeNo, worker: &str, host: Option<String>, now: f64) {
        let family = self.index.task(node).family.clone();
        self.metrics.entry(family).or_default().started += 1;
        self.set_status(node, Status::Running, now);
        let task = self.index.task_mut(node);
        task.worker_running = Some(worker.into());
        task.resources_running = Some(task.resources.clone());
        task.shared_resources = false;
        task.time_running = Some(now);
        self.record(node, Status::Running, host, now);
        self.touch(node);
    }

    fn start_in_batch(&mut self, node: NodeNo, batch: &Arc<str>, worker: &str, now: f64) {
        self.set_status(node, Status::BatchRunning, now);
        let task = self.index.task_mut(node);
        task.batch_id = Some(batch.clone());
        task.worker_running = Some(worker.into());
        task.resources_running = Some(task.resources.clone());
        task.shared_resources = true;
        task.time_running = Some(now);
        self.touch(node);
    }

    /// Members of batches of this worker that nobody runs go back.
    fn reset_orphans(&mut self, worker: &str, now: f64) {
        let key: Option<Arc<str>> = Some(worker.into());
        let start = (key.clone(), Arc::from(""), 0, 0);
        if self.index.worker_batches.range(start.clone()..).next().is_none_or(|e| e.0 != key) {
            return;
        }
        let running: BTreeSet<Arc<str>> = self
            .index
            .status_tasks(Status::Running)
            .map(|node| self.index.task(node))
            .filter(|task| task.worker_running.as_deref() == Some(worker))
            .filter_map(|task| task.batch_id.clone())
            .collect();
        let mut orphans = Vec::new();
        let mut from = Bound::Included(start);
        while let Some((owner, batch, _, _)) =
            self.index.worker_batches.range((from, Bound::Unbounded)).next()
            && *owner == key
        {
            let end = (key.clone(), batch.clone(), u64::MAX, u32::MAX);
            if !running.contains(batch) {
                let members = (key.clone(), batch.clone(), 0, 0)..=end.clone();
                orphans.extend(self.index.worker_batches.range(members).map(|e| e.3));
            }
            from = Bound::Excluded(end);
        }
        for node in orphans {
            self.set_status(node, Status::Pending, now);
        }
    }

    /// Further tasks that can run together with `best`; `None` if there is none.
    fn collect_batch(&self, best: NodeNo, worker: &str, own: Option<WorkerNo>) -> Option<Batch> {
        let first = self.index.task(best);
        let batcher = self.batchers.get(&(worker.into(), first.family.clone()))?;
        if batcher.args.is_empty() || !first.batchable {
            return None;
        }
        let mut lists: Vec<Vec<Value>> = Vec::with_capacity(batcher.args.len());
        for name in &batcher.args {
            lists.push(vec![first.params.get(name)?.clone()]);
        }
        let fixed: Vec<(&String, &Value)> =
            first.params.iter().filter(|(name, _)| !batcher.args.contains(name)).collect();
        let mut tasks = vec![best];
        let candidates = self.index.batchable.get(&first.family)?;
        let after = (Bound::Excluded(first.rank(best)), Bound::Unbounded);
        for rank in candidates.range(after) {
            #[expect(clippy::cast_precision_loss, reason = "a count of tasks")]
            if tasks.len() as f64 >= batcher.max {
                break;
            }
            let task = self.index.task(rank.node);
            let same = |(name, value): &(&String, &Value)| {
                task.params.get(*name).map_or(value.is_null(), |other| other.py_eq(value))
            };
            if own.is_some_and(|w| !self.index.groups.contains(task.workers, w))
                || task.resources != first.resources
                || !fixed.iter().all(same)
            {
                continue;
            }
            for (list, name) in lists.iter_mut().zip(&batcher.args) {
                list.push(task.params.get(name).cloned().unwrap_or_default());
            }
            tasks.push(rank.node);
        }
        if tasks.len() < 2 {
            return None;
        }
        let mut params = (*first.params).clone();
        for (name, list) in batcher.args.iter().zip(lists) {
            params.insert(name.clone(), Value::List(list));
        }
        Some(Batch { tasks, params })
    }

    /// What a worker decides by whether to stay: from the counts of the lists that it is on.
    pub(super) fn count_pending(&mut self, worker: WorkerNo, now: f64) -> Object {
        let mut running = Vec::new();
        let mine: Vec<NodeNo> = self
            .index
            .status_tasks(Status::Running)
            .filter(|n| self.index.groups.contains(self.index.task(*n).workers, worker))
            .collect();
        for node in mine {
            let task = self.index.task(node);
            let (id, owner) = (task.id.clone(), task.worker_running.clone());
            let owner = self.worker(owner.as_deref().unwrap_or_default(), now);
            let owner = self.worker_ref(owner);
            let mut entry = Object::new();
            entry.insert("task_id".into(), Value::from(&*id));
            entry.insert("worker".into(), Value::from(&*owner.id));
            entry.extend(owner.info.iter().map(|(k, v)| (k.clone(), v.clone())));
            running.push(Value::Object(entry));
        }
        let entry = self.worker_ref(worker);
        let (mut pending, mut unique, mut last) = (0, 0, 0);
        for group in &entry.groups {
            let group = self.index.groups.get(*group);
            pending += group.waiting;
            unique += if group.workers.len() == 1 { group.waiting } else { 0 };
            last += if group.workers.last() == Some(&worker) { group.waiting } else { 0 };
        }
        let number = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        Object::from_iter([
            ("n_pending_tasks".to_owned(), number(pending)),
            ("n_unique_pending".to_owned(), number(unique)),
            ("n_pending_last_scheduled".to_owned(), number(last)),
            ("worker_state".to_owned(), Value::from(entry.state())),
            ("running_tasks".to_owned(), Value::List(running)),
        ])
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}
