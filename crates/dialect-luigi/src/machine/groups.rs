//! Interned worker lists. Fifty workers that schedule the same fifty thousand tasks share one list,
//! so a change of a task costs the same however many workers wait for it.

use std::collections::BTreeMap;

use super::state::{GroupNo, WorkerNo};

/// A list of workers, with counts over the tasks that have it.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) workers: Vec<WorkerNo>,
    tasks: u32,
    /// Pending or failed, and not behind a disabled task.
    pub(super) waiting: u64,
    pub(super) pending: u64,
    pub(super) pending_with_resources: u64,
}

/// All lists. Number 0 is the empty one.
#[derive(Debug)]
pub(super) struct Groups {
    list: Vec<Group>,
    free: Vec<GroupNo>,
    keys: BTreeMap<Vec<WorkerNo>, GroupNo>,
    /// Order does not matter: lists are kept sorted.
    sorted: bool,
}

impl Groups {
    pub(super) fn new(sorted: bool) -> Self {
        let keys = BTreeMap::from([(Vec::new(), 0)]);
        Self { list: vec![Group::default()], free: Vec::new(), keys, sorted }
    }

    pub(super) fn get(&self, group: GroupNo) -> &Group {
        &self.list[group as usize]
    }

    pub(super) fn get_mut(&mut self, group: GroupNo) -> &mut Group {
        &mut self.list[group as usize]
    }

    pub(super) fn contains(&self, group: GroupNo, worker: WorkerNo) -> bool {
        self.get(group).workers.contains(&worker)
    }

    /// The list with one more worker at its end.
    pub(super) fn with(&mut self, group: GroupNo, worker: WorkerNo) -> GroupNo {
        if self.contains(group, worker) {
            return group;
        }
        let mut workers = self.get(group).workers.clone();
        workers.push(worker);
        self.of(workers)
    }

    pub(super) fn of(&mut self, mut workers: Vec<WorkerNo>) -> GroupNo {
        if self.sorted {
            workers.sort_unstable();
        }
        if let Some(&group) = self.keys.get(&workers) {
            return group;
        }
        let fresh = Group { workers: workers.clone(), ..Group::default() };
        let group = match self.free.pop() {
            Some(group) => {
                self.list[group as usize] = fresh;
                group
            }
            None => {
                self.list.push(fresh);
                u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.keys.insert(workers, group);
        group
    }

    pub(super) fn hold(&mut self, group: GroupNo) {
        self.get_mut(group).tasks += 1;
    }

    /// One task less has the list. Answers the workers of a list that no task has any more.
    pub(super) fn release(&mut self, group: GroupNo) -> Option<Vec<WorkerNo>> {
        let entry = self.get_mut(group);
        entry.tasks = entry.tasks.saturating_sub(1);
        if entry.tasks > 0 || group == 0 {
            return None;
        }
        let workers = std::mem::take(&mut entry.workers);
        if self.keys.get(&workers) == Some(&group) {
            self.keys.remove(&workers);
        }
        self.free.push(group);
        Some(workers)
    }

    /// Takes a worker off a list, for all tasks that have it at once. Two lists may become equal;
    /// that only costs a little sharing.
    pub(super) fn drop_worker(&mut self, group: GroupNo, worker: WorkerNo) {
        let old = self.get(group).workers.clone();
        if self.keys.get(&old) == Some(&group) {
            self.keys.remove(&old);
        }
        let entry = self.get_mut(group);
        entry.workers.retain(|w| *w != worker);
        let workers = entry.workers.clone();
        self.keys.entry(workers).or_insert(group);
    }
}
