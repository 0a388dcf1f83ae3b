//! Pruning: dead workers, tasks nobody wants any more, disablings and retries whose time has come.
//! Only what is due is looked at.

use std::collections::BTreeSet;

use super::state::{NodeNo, Status, WorkerNo, ordered};
use super::{LuigiMachine, PRUNED_PER_CALL};

impl LuigiMachine {
    pub(super) fn prune(&mut self, now: f64) {
        let delay = self.config.worker_disconnect_delay;
        let dead: Vec<WorkerNo> = self
            .index
            .workers
            .iter()
            .filter(|(_, w)| w.last_active.is_some_and(|at| at + delay < now))
            .map(|(no, _)| *no)
            .collect();
        for worker in dead {
            self.remove_worker(worker);
        }

        let at = ordered(now);
        let retry = self.config.retry_delay >= 0.0;
        let index = &self.index;
        let due = |set: &BTreeSet<(i64, NodeNo)>, on: bool| -> Vec<NodeNo> {
            let due = set.iter().take_while(|(time, _)| on && *time <= at);
            due.take(PRUNED_PER_CALL).map(|(_, n)| *n).collect()
        };
        // A disabling may end only once its age exceeds the limit: sets are small, look at all.
        let mut seqs: BTreeSet<u64> = index.unowned.iter().take(PRUNED_PER_CALL).copied().collect();
        let (retried, unwanted) = (due(&index.retry_at, retry), due(&index.remove_at, true));
        // More may be due than one call does: workers wait meanwhile.
        let most = seqs.len().max(retried.len()).max(unwanted.len());
        self.prune_again = most >= PRUNED_PER_CALL;
        let nodes = retried
            .into_iter()
            .chain(unwanted)
            .chain(index.disabled_at.iter().map(|(_, n)| *n))
            .chain(index.status_tasks(Status::Running))
            .chain(index.status_tasks(Status::BatchRunning));
        seqs.extend(nodes.map(|node| index.task(node).seq));

        let mut removed = Vec::new();
        for seq in seqs {
            let Some(&node) = self.index.by_seq.get(&seq) else { continue };
            self.prune_task(node, now);
            let task = self.index.task(node);
            if task.remove.is_some_and(|at| at != 0.0 && now >= at) {
                removed.push(node);
            }
        }
        for node in removed {
            self.remove_task(node);
        }
    }

    fn prune_task(&mut self, node: NodeNo, now: f64) {
        let task = self.index.task(node);
        let is_running = matches!(task.status, Status::Running | Status::BatchRunning);
        if is_running && let Some(owner) = task.worker_running.as_deref().filter(|w| !w.is_empty())
        {
            let owner = self.index.worker_names.get(owner).copied();
            let alive = owner.is_some_and(|no| {
                self.index.stakes.contains(task.stakeholders, no)
                    || self.worker_ref(no).is_assistant()
            });
            if !alive {
                self.index.task_mut(node).worker_running = None;
                self.record(node, Status::Failed, None, now);
                self.set_status(node, Status::Failed, now);
                let retry = now + self.config.retry_delay;
                let task = self.index.task_mut(node);
                task.retry = Some(retry);
                task.lost = true;
                self.touch(node);
            }
        }
        let task = self.index.task(node);
        let orphan = self.index.stakes.get(task.stakeholders).workers.is_empty();
        if orphan && task.remove.is_none() && task.status != Status::Running {
            // Not a change worth a row: after a restart the mark is made anew.
            self.index.task_mut(node).remove = Some(now + self.config.remove_delay);
            self.index.reindex(node);
        }
        let task = self.index.task(node);
        if task.status == Status::Disabled
            && task.disabled_at.is_some_and(|at| now - at > self.config.disable_persist)
        {
            self.re_enable(node, true, now);
        }
        let task = self.index.task(node);
        if task.status == Status::Failed
            && self.config.retry_delay >= 0.0
            && task.retry.is_some_and(|at| at < now)
        {
            self.set_status(node, Status::Pending, now);
        }
    }

    fn remove_worker(&mut self, worker: WorkerNo) {
        self.index.detach_worker(worker, true);
        if let Some(gone) = self.index.workers.remove(&worker) {
            self.index.worker_names.remove(&gone.id);
        }
        self.dirty.workers.remove(&worker);
        self.dirty.gone_workers.insert(worker);
    }

    fn remove_task(&mut self, node: NodeNo) {
        self.history_keep(node);
        self.dirty.definitions.remove(&node);
        self.dirty.states.remove(&node);
        if let Some(task) = self.index.remove(node) {
            self.farewell(&task);
        }
    }
}
