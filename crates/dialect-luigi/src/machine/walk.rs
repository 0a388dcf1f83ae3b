//! The choice of a task for a worker when resources matter.
//!
//! Running and schedulable tasks are looked at in order of rank. A running task takes a slot of its
//! worker and its resources. A schedulable task that fits beside those is the choice if this worker
//! may run it and it fits beside what is really used; if not, a slot of the first of its workers
//! that has one, and its resources, are kept free for it, so that many small tasks cannot starve
//! it. What is kept only grows, so a bucket of like tasks that did not fit once, or found no slot,
//! is done with: the walk visits at most the running tasks, one task per free slot, and one per
//! bucket. Once no other worker has a slot left only the worker's own buckets are opened.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Bound;

use super::LuigiMachine;
use super::resources::Usage;
use super::state::{BucketNo, NodeNo, Rank, Status, WorkerNo};

impl LuigiMachine {
    pub(super) fn select(&self, me: WorkerNo, assistant: bool, now: f64) -> Option<NodeNo> {
        let index = &self.index;
        let mut used = Usage::default();
        for node in index.status_tasks(Status::Running) {
            used.add(index.task(node).held());
        }
        let since = now - self.config.worker_disconnect_delay;
        let mut slots: BTreeMap<WorkerNo, f64> = index
            .workers
            .iter()
            .filter(|(_, w)| w.last_get_work.is_some_and(|at| at > since))
            .map(|(no, w)| (*no, w.slots()))
            .collect();
        let has_work =
            |no: &WorkerNo| *no != me && index.workers.get(no).is_some_and(|w| !w.heads.is_empty());
        let mut others = slots.iter().filter(|(no, free)| **free > 0.0 && has_work(no)).count();
        let mut greedy = Usage::default();
        let mut running = index.running.iter().copied().peekable();
        let mut open: BinaryHeap<Reverse<(Rank, BucketNo)>> = BinaryHeap::new();
        let own = &index.workers.get(&me)?.heads;
        let take_slot = |slots: &mut BTreeMap<WorkerNo, f64>, worker, others: &mut usize| {
            if let Some(free) = slots.get_mut(&worker) {
                if *free > 0.0 && *free <= 1.0 && has_work(&worker) {
                    *others = others.saturating_sub(1);
                }
                *free -= 1.0;
            }
        };
        let mut at = Bound::Unbounded;
        loop {
            let heads = if assistant || others > 0 { &index.heads } else { own };
            let closed = heads.range((at, Bound::Unbounded)).next().copied();
            let opened = open.peek().map(|Reverse(entry)| *entry);
            let (next, is_new) = match (closed, opened) {
                (Some(closed), Some(opened)) if closed < opened => (Some(closed), true),
                (Some(closed), None) => (Some(closed), true),
                (_, opened) => (opened, false),
            };
            if let Some(rank) = running.peek()
                && next.is_none_or(|(next, _)| *rank < next)
            {
                // Without anything left to choose from, what runs does not matter.
                next?;
                let task = index.task(rank.node);
                let owner = task.worker_running.as_deref().unwrap_or_default();
                if let Some(owner) =
                    index.worker_names.get(owner).filter(|no| slots.contains_key(no))
                {
                    take_slot(&mut slots, *owner, &mut others);
                    greedy.add(task.held());
                }
                running.next();
                continue;
            }
            let (rank, no) = next?;
            if is_new {
                at = Bound::Excluded((rank, no));
            } else {
                open.pop();
            }
            let Some(bucket) = index.bucket(no) else { continue };
            if !greedy.fits(&bucket.resources, &self.capacities) {
                continue;
            }
            let workers = &index.groups.get(bucket.group).workers;
            let may = (assistant && bucket.runnable) || workers.contains(&me);
            if may && used.fits(&bucket.resources, &self.capacities) {
                return Some(rank.node);
            }
            let also = assistant.then_some(me);
            let keeper = workers
                .iter()
                .copied()
                .chain(also)
                .find(|w| slots.get(w).is_some_and(|free| *free > 0.0));
            if let Some(keeper) = keeper {
                take_slot(&mut slots, keeper, &mut others);
                greedy.add(&bucket.resources);
                let after = (Bound::Excluded(rank), Bound::Unbounded);
                if let Some(rank) = bucket.tasks.range(after).next() {
                    open.push(Reverse((*rank, no)));
                }
            }
        }
    }
}
