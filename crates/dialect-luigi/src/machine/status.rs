//! Changes of a task's status, and workers coming into being.

use std::sync::Arc;

use super::LuigiMachine;
use super::state::{NodeNo, Status, Task, Worker, WorkerNo};

impl LuigiMachine {
    /// Changes a status by the scheduler's rules; some changes are ignored by them.
    pub(super) fn set_status(&mut self, node: NodeNo, wanted: Status, now: f64) {
        let mut new = wanted;
        let task = self.index.task_mut(node);
        let old = task.status;
        if new == Status::Disabled && matches!(old, Status::Running | Status::BatchRunning) {
            return;
        }
        let transient = task.batch_id.is_some() && !task.batchable;
        if old == Status::Disabled {
            if new == Status::Done {
                task.disabled_at = None;
                task.clear_failures();
            } else if task.disabled_at.is_some() && new != Status::Disabled {
                return;
            }
        }
        if old == Status::Running
            && new != Status::Running
            && let Some(batch) = task.batch_id.clone()
        {
            for member in self.index.batch_members(&batch) {
                self.set_status(member, new, now);
                self.index.task_mut(member).batch_id = None;
                self.touch(member);
            }
            self.index.task_mut(node).batch_id = None;
        }
        let task = self.index.task_mut(node);
        if new == Status::Failed && old != Status::Disabled {
            task.add_failure(now);
            if task.has_excessive_failures(now) {
                task.disabled_at = Some(now);
                new = Status::Disabled;
            }
        } else if new == Status::Disabled {
            task.disabled_at = None;
        }
        if new != old {
            task.entered = self.next_entered;
            self.next_entered += 1;
            task.updated = now;
            task.lost = false;
            if old == Status::Disabled && new == Status::Pending {
                // First out of the way, so that a cycle does not hold itself back.
                task.status = Status::Unknown;
                self.index.reindex(node);
            }
            self.index.task_mut(node).status = new;
            self.count(node, new, now);
        }
        let task = self.index.task_mut(node);
        if new == Status::Failed {
            task.retry = Some(now + self.config.retry_delay);
            if transient {
                task.remove = Some(now);
            }
        }
        self.touch(node);
    }

    /// Ends a disabling: failures are forgotten; with `fail`, the task becomes failed.
    pub(super) fn re_enable(&mut self, node: NodeNo, fail: bool, now: f64) {
        let task = self.index.task_mut(node);
        task.disabled_at = None;
        task.clear_failures();
        if fail {
            self.set_status(node, Status::Failed, now);
            self.index.task_mut(node).clear_failures();
        }
        self.touch(node);
    }

    /// To be called after any change of a task's state.
    pub(super) fn touch(&mut self, node: NodeNo) {
        self.index.reindex(node);
        self.dirty.states.insert(node);
    }

    fn count(&mut self, node: NodeNo, status: Status, now: f64) {
        let task = self.index.task(node);
        let metrics = self.metrics.entry(task.family.clone()).or_default();
        match status {
            Status::Done => metrics.done += 1,
            Status::Failed => metrics.failed += 1,
            Status::Disabled => metrics.disabled += 1,
            _ => return,
        }
        if let Some(start) = task.time_running {
            metrics.seconds = now - start;
        }
    }

    /// Makes a task with the scheduler's defaults.
    pub(super) fn make_task(&mut self, id: &str, status: Status, now: f64) -> NodeNo {
        let node = self.index.node(id);
        let id = self.index.nodes[node as usize].id.clone();
        let mut task = Task::new(id, self.next_seq, now, self.policy());
        task.status = status;
        task.entered = self.next_entered;
        self.next_seq += 1;
        self.next_entered += 1;
        self.index.insert(node, task);
        self.dirty.definitions.insert(node);
        self.dirty.states.insert(node);
        node
    }

    /// The worker of a name, made if it is new.
    pub(super) fn worker(&mut self, id: impl AsRef<str>, now: f64) -> WorkerNo {
        if let Some(&no) = self.index.worker_names.get(id.as_ref()) {
            return no;
        }
        let no = self.next_worker;
        self.next_worker += 1;
        let id: Arc<str> = id.as_ref().into();
        let worker = Worker {
            id: id.clone(),
            last_active: Some(now),
            last_get_work: None,
            started: now,
            info: crate::pyjson::Object::new(),
            disabled: false,
            messages: Vec::new(),
            heads: std::collections::BTreeSet::new(),
            groups: std::collections::BTreeSet::new(),
            stakes: std::collections::BTreeSet::new(),
        };
        self.index.workers.insert(no, worker);
        self.index.worker_names.insert(id, no);
        self.dirty.workers.insert(no);
        self.dirty.globals = true;
        no
    }

    /// A worker that is known to exist.
    pub(super) fn worker_ref(&self, worker: WorkerNo) -> &Worker {
        // Numbers come from `worker`, and workers only go in `prune`, between calls' uses of them.
        self.index.workers.get(&worker).expect("a worker in use exists")
    }

    pub(super) fn worker_mut(&mut self, worker: WorkerNo) -> &mut Worker {
        // As in `worker_ref`.
        self.index.workers.get_mut(&worker).expect("a worker in use exists")
    }

    /// The worker was heard of. Not kept in its row: after a restart every worker counts as just
    /// seen, so that the worst is a dead one noticed a little later.
    pub(super) fn seen(&mut self, id: &str, get_work: bool, now: f64) -> WorkerNo {
        let no = self.worker(id, now);
        let worker = self.worker_mut(no);
        worker.last_active = Some(now);
        if get_work {
            let first = worker.last_get_work.replace(now).is_none();
            if first {
                self.dirty.workers.insert(no);
            }
        }
        no
    }
}
