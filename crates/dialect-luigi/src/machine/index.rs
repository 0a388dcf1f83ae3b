//! The indexes: every question of the selection, the counters and the pruning is answered from
//! them. A change of a task is made on the task first; `reindex` then moves it in each index whose
//! key changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::groups::Groups;
use super::resources::ResourceSet;
use super::state::{
    BucketNo, GroupNo, Node, NodeNo, Rank, Status, Task, Worker, WorkerNo, ordered,
};

/// Schedulable tasks with the same workers and resources: either all fit or none.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) group: GroupNo,
    pub(super) runnable: bool,
    pub(super) resources: ResourceSet,
    pub(super) tasks: BTreeSet<Rank>,
}

/// Worker, batch, order of entry, member.
pub(super) type WorkerBatch = (Option<Arc<str>>, Arc<str>, u64, NodeNo);

/// Tasks, workers and all indexes over them.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) nodes: Vec<Node>,
    free_nodes: Vec<NodeNo>,
    /// Only looked up in, never walked: its order is not ours to know.
    names: HashMap<Arc<str>, NodeNo>,
    pub(super) by_seq: BTreeMap<u64, NodeNo>,
    pub(super) by_status: [BTreeMap<u64, NodeNo>; 7],
    /// Running tasks in the order of selection.
    pub(super) running: BTreeSet<Rank>,
    pub(super) groups: Groups,
    pub(super) stakes: Groups,
    buckets: Vec<Option<Bucket>>,
    free_buckets: Vec<BucketNo>,
    bucket_keys: BTreeMap<(GroupNo, bool, ResourceSet), BucketNo>,
    /// All buckets by their first task.
    pub(super) heads: BTreeSet<(Rank, BucketNo)>,
    /// Schedulable tasks that may go into a batch, by family.
    pub(super) batchable: BTreeMap<Arc<str>, BTreeSet<Rank>>,
    pub(super) retry_at: BTreeSet<(i64, NodeNo)>,
    pub(super) remove_at: BTreeSet<(i64, NodeNo)>,
    pub(super) disabled_at: BTreeSet<(i64, NodeNo)>,
    /// Members of running batches, in order.
    pub(super) batches: BTreeMap<Arc<str>, BTreeMap<u64, NodeNo>>,
    /// The same by the worker that runs them.
    pub(super) worker_batches: BTreeSet<WorkerBatch>,
    /// Tasks without stakeholders that are not marked for removal yet.
    pub(super) unowned: BTreeSet<u64>,
    /// Tasks that are disabled, or pending behind one that is.
    pub(super) blockers: usize,
    pub(super) workers: BTreeMap<WorkerNo, Worker>,
    pub(super) worker_names: BTreeMap<Arc<str>, WorkerNo>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free_nodes: Vec::new(),
            names: HashMap::new(),
            by_seq: BTreeMap::new(),
            by_status: Default::default(),
            running: BTreeSet::new(),
            groups: Groups::new(false),
            stakes: Groups::new(true),
            buckets: Vec::new(),
            free_buckets: Vec::new(),
            bucket_keys: BTreeMap::new(),
            heads: BTreeSet::new(),
            batchable: BTreeMap::new(),
            retry_at: BTreeSet::new(),
            remove_at: BTreeSet::new(),
            disabled_at: BTreeSet::new(),
            batches: BTreeMap::new(),
            worker_batches: BTreeSet::new(),
            unowned: BTreeSet::new(),
            blockers: 0,
            workers: BTreeMap::new(),
            worker_names: BTreeMap::new(),
        }
    }

    /// The place of a task id, made if it is new.
    pub(super) fn node(&mut self, id: &str) -> NodeNo {
        if let Some(&node) = self.names.get(id) {
            return node;
        }
        let id: Arc<str> = id.into();
        let fresh = Node { id: id.clone(), task: None, dependents: BTreeSet::new() };
        let node = match self.free_nodes.pop() {
            Some(node) => {
                self.nodes[node as usize] = fresh;
                node
            }
            None => {
                self.nodes.push(fresh);
                u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.names.insert(id, node);
        node
    }

    /// The place of a task that exists.
    pub(super) fn find(&self, id: &str) -> Option<NodeNo> {
        let node = *self.names.get(id)?;
        self.nodes[node as usize].task.is_some().then_some(node)
    }

    pub(super) fn get(&self, node: NodeNo) -> Option<&Task> {
        self.nodes[node as usize].task.as_deref()
    }

    /// A task that is known to exist.
    pub(super) fn task(&self, node: NodeNo) -> &Task {
        // Indexes hold only tasks that exist: `remove` takes them out of all of them.
        self.nodes[node as usize].task.as_deref().expect("an indexed task exists")
    }

    pub(super) fn task_mut(&mut self, node: NodeNo) -> &mut Task {
        // As in `task`.
        self.nodes[node as usize].task.as_deref_mut().expect("an indexed task exists")
    }

    pub(super) fn bucket(&self, bucket: BucketNo) -> Option<&Bucket> {
        self.buckets.get(bucket as usize)?.as_ref()
    }

    pub(super) fn status_tasks(&self, status: Status) -> impl Iterator<Item = NodeNo> + '_ {
        self.by_status[status as usize].values().copied()
    }

    pub(super) fn status_count(&self, status: Status) -> usize {
        self.by_status[status as usize].len()
    }

    /// Members of a batch that runs, in the order in which they joined.
    pub(super) fn batch_members(&self, batch: &str) -> Vec<NodeNo> {
        self.batches.get(batch).map(|m| m.values().copied().collect()).unwrap_or_default()
    }

    /// Puts a new task in. Its dependencies are set afterwards.
    pub(super) fn insert(&mut self, node: NodeNo, task: Task) {
        self.by_seq.insert(task.seq, node);
        self.groups.hold(task.workers);
        self.stakes.hold(task.stakeholders);
        self.nodes[node as usize].task = Some(Box::new(task));
        self.reindex(node);
    }

    /// Takes a task out.
    pub(super) fn remove(&mut self, node: NodeNo) -> Option<Box<Task>> {
        self.set_deps(node, Vec::new());
        // A task that is neither done nor blocking leaves its dependents as they should be: waiting.
        let task = self.task_mut(node);
        task.status = Status::Unknown;
        task.batch_id = None;
        self.reindex(node);
        let task = self.nodes[node as usize].task.take()?;
        self.by_seq.remove(&task.seq);
        if let Some((status, entered)) = task.indexed.status {
            self.by_status[status as usize].remove(&entered);
        }
        self.unowned.remove(&task.seq);
        if let Some(at) = task.indexed.remove {
            self.remove_at.remove(&(at, node));
        }
        self.release_group(task.workers);
        self.release_stake(task.stakeholders);
        self.forget_node(node);
        Some(task)
    }

    fn forget_node(&mut self, node: NodeNo) {
        let entry = &self.nodes[node as usize];
        if entry.task.is_none() && entry.dependents.is_empty() {
            self.names.remove(&entry.id);
            self.free_nodes.push(node);
        }
    }

    fn release_group(&mut self, group: GroupNo) {
        for worker in self.groups.release(group).unwrap_or_default() {
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.groups.remove(&group);
            }
        }
    }

    fn release_stake(&mut self, group: GroupNo) {
        for worker in self.stakes.release(group).unwrap_or_default() {
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.stakes.remove(&group);
            }
        }
    }

    /// Adds a worker to those that can run a task. Answers whether that is new.
    pub(super) fn add_worker_to(&mut self, node: NodeNo, worker: WorkerNo) -> bool {
        let old = self.task(node).workers;
        let new = self.groups.with(old, worker);
        if new == old {
            return false;
        }
        self.set_workers(node, new);
        true
    }

    pub(super) fn set_workers(&mut self, node: NodeNo, group: GroupNo) {
        let old = std::mem::replace(&mut self.task_mut(node).workers, group);
        self.groups.hold(group);
        for worker in self.groups.get(group).workers.clone() {
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.groups.insert(group);
            }
        }
        // Out of the old list's bucket and counts before the list may go.
        self.reindex(node);
        self.release_group(old);
    }

    /// Adds a stakeholder. Answers whether that is new.
    pub(super) fn add_stakeholder(&mut self, node: NodeNo, worker: WorkerNo) -> bool {
        let old = self.task(node).stakeholders;
        let new = self.stakes.with(old, worker);
        if new == old {
            return false;
        }
        self.set_stakeholders(node, new);
        true
    }

    pub(super) fn set_stakeholders(&mut self, node: NodeNo, group: GroupNo) {
        let old = std::mem::replace(&mut self.task_mut(node).stakeholders, group);
        self.stakes.hold(group);
        for worker in self.stakes.get(group).workers.clone() {
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.stakes.insert(group);
            }
        }
        self.release_stake(old);
        self.reindex(node);
    }

    /// Takes a worker off all tasks, as one that can run them and, if `stakes`, as stakeholder.
    pub(super) fn detach_worker(&mut self, worker: WorkerNo, stakes: bool) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        entry.heads.clear();
        let groups = std::mem::take(&mut entry.groups);
        let held = if stakes { std::mem::take(&mut entry.stakes) } else { BTreeSet::new() };
        for group in groups {
            self.groups.drop_worker(group, worker);
        }
        let mut orphaned = BTreeSet::new();
        for group in held {
            self.stakes.drop_worker(group, worker);
            if self.stakes.get(group).workers.is_empty() {
                orphaned.insert(group);
            }
        }
        if orphaned.is_empty() {
            return;
        }
        // The last worker of these tasks has gone: rare, and the only walk over all tasks.
        let nodes: Vec<NodeNo> = self.by_seq.values().copied().collect();
        for node in nodes {
            let task = self.task_mut(node);
            let is_new = task.remove.is_none() && task.status != Status::Running;
            if is_new && orphaned.contains(&task.stakeholders) {
                // All that depends on stakeholders.
                task.indexed.unowned = true;
                let seq = task.seq;
                self.unowned.insert(seq);
            }
        }
    }

    /// Replaces the dependencies of a task.
    pub(super) fn set_deps(&mut self, node: NodeNo, deps: Vec<NodeNo>) {
        if self.task(node).deps == deps {
            return;
        }
        let old = std::mem::take(&mut self.task_mut(node).deps);
        for dep in &old {
            self.nodes[*dep as usize].dependents.remove(&node);
        }
        for dep in &deps {
            self.nodes[*dep as usize].dependents.insert(node);
        }
        let open = deps.iter().filter(|d| self.get(**d).is_none_or(|t| t.status != Status::Done));
        let open = u32::try_from(open.count()).unwrap_or(u32::MAX);
        let task = self.task_mut(node);
        task.deps = deps;
        task.open_deps = open;
        for dep in old {
            if dep != node {
                self.forget_node(dep);
            }
        }
        self.recheck_blocked(node);
        self.reindex(node);
    }

    fn bucket_of(&mut self, key: (GroupNo, bool, ResourceSet)) -> BucketNo {
        if let Some(&bucket) = self.bucket_keys.get(&key) {
            return bucket;
        }
        let (group, runnable, resources) = key.clone();
        let fresh = Some(Bucket { group, runnable, resources, tasks: BTreeSet::new() });
        let bucket = match self.free_buckets.pop() {
            Some(bucket) => {
                self.buckets[bucket as usize] = fresh;
                bucket
            }
            None => {
                self.buckets.push(fresh);
                u32::try_from(self.buckets.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.bucket_keys.insert(key, bucket);
        bucket
    }

    fn change_bucket(&mut self, no: BucketNo, change: impl FnOnce(&mut BTreeSet<Rank>)) {
        let Some(bucket) = self.buckets[no as usize].as_mut() else { return };
        let before = bucket.tasks.first().copied();
        change(&mut bucket.tasks);
        let after = bucket.tasks.first().copied();
        if before == after {
            return;
        }
        let group = bucket.group;
        if after.is_none()
            && let Some(bucket) = self.buckets[no as usize].take()
        {
            self.bucket_keys.remove(&(bucket.group, bucket.runnable, bucket.resources));
            self.free_buckets.push(no);
        }
        let update = |heads: &mut BTreeSet<(Rank, BucketNo)>| {
            if let Some(rank) = before {
                heads.remove(&(rank, no));
            }
            if let Some(rank) = after {
                heads.insert((rank, no));
            }
        };
        update(&mut self.heads);
        for worker in &self.groups.get(group).workers {
            if let Some(worker) = self.workers.get_mut(worker) {
                update(&mut worker.heads);
            }
        }
    }

    /// Moves a task to where it belongs in every index, and tells its dependents.
    pub(super) fn reindex(&mut self, node: NodeNo) {
        let was_done = self.task(node).indexed.done;
        self.place(node);
        let task = self.task(node);
        let done = task.status == Status::Done;
        if done != was_done {
            self.task_mut(node).indexed.done = done;
            let dependents: Vec<NodeNo> =
                self.nodes[node as usize].dependents.iter().copied().collect();
            for dependent in dependents {
                let task = self.task_mut(dependent);
                task.open_deps = if done {
                    task.open_deps.saturating_sub(1)
                } else {
                    task.open_deps.saturating_add(1)
                };
                self.place(dependent);
            }
        }
        self.spread_blocked(node);
    }

    /// The part of `reindex` that concerns the task alone.
    pub(super) fn place(&mut self, node: NodeNo) {
        let old = std::mem::take(&mut self.task_mut(node).indexed);
        let task = self.task(node);
        let (seq, status, group) = (task.seq, task.status, task.workers);
        let mut new = old.clone();
        new.status = Some((status, task.entered));
        let rank = task.rank(node);
        new.rank = Some(rank);
        let schedulable = task.is_schedulable();
        new.family = (schedulable && task.batchable).then(|| task.family.clone());
        new.group = Some(group);
        new.pending = status == Status::Pending;
        new.waiting = status == Status::Failed || (new.pending && !task.blocked);
        new.with_resources = new.pending && !task.resources.is_empty();
        new.retry = task.retry.filter(|_| status == Status::Failed).map(ordered);
        new.remove = task.remove.filter(|at| *at != 0.0).map(ordered);
        new.disabled = task.disabled_at.filter(|_| status == Status::Disabled).map(ordered);
        new.batch = task
            .batch_id
            .clone()
            .filter(|_| status == Status::BatchRunning)
            .map(|batch| (task.worker_running.clone(), batch, task.entered));
        new.unowned = task.remove.is_none()
            && status != Status::Running
            && self.stakes.get(task.stakeholders).workers.is_empty();
        let key = schedulable.then(|| (group, task.runnable, task.resources.clone()));

        if old.status != new.status {
            if let Some((status, entered)) = old.status {
                self.by_status[status as usize].remove(&entered);
            }
            self.by_status[status as usize].insert(task_entered(&new), node);
        }
        let was_running = old.status.is_some_and(|(s, _)| s == Status::Running);
        let is_running = status == Status::Running;
        if was_running
            && (!is_running || old.rank != new.rank)
            && let Some(rank) = old.rank
        {
            self.running.remove(&rank);
        }
        if is_running {
            self.running.insert(rank);
        }
        if old.family != new.family || (old.family.is_some() && old.rank != new.rank) {
            if let (Some(family), Some(rank)) = (&old.family, old.rank) {
                self.unlist_family(family, rank);
            }
            if let Some(family) = new.family.clone() {
                self.batchable.entry(family).or_default().insert(rank);
            }
        }
        new.bucket = key.map(|key| self.bucket_of(key));
        if old.bucket != new.bucket || old.rank != new.rank {
            // In before out: a bucket that both are must not vanish between.
            if let Some(bucket) = new.bucket {
                self.change_bucket(bucket, |tasks| {
                    tasks.insert(rank);
                });
            }
            if let (Some(bucket), Some(rank)) = (old.bucket, old.rank) {
                self.change_bucket(bucket, |tasks| {
                    tasks.remove(&rank);
                });
            }
        }
        let counts = |i: &super::state::Indexed| (i.group, i.waiting, i.pending, i.with_resources);
        if counts(&old) != counts(&new) {
            if let Some(group) = old.group {
                let group = self.groups.get_mut(group);
                group.waiting -= u64::from(old.waiting);
                group.pending -= u64::from(old.pending);
                group.pending_with_resources -= u64::from(old.with_resources);
            }
            let group = self.groups.get_mut(group);
            group.waiting += u64::from(new.waiting);
            group.pending += u64::from(new.pending);
            group.pending_with_resources += u64::from(new.with_resources);
        }
        move_key(&mut self.retry_at, node, old.retry, new.retry);
        move_key(&mut self.remove_at, node, old.remove, new.remove);
        move_key(&mut self.disabled_at, node, old.disabled, new.disabled);
        if old.batch != new.batch {
            if let Some((worker, batch, entered)) = old.batch {
                if let Some(members) = self.batches.get_mut(&batch) {
                    members.remove(&entered);
                    if members.is_empty() {
                        self.batches.remove(&batch);
                    }
                }
                self.worker_batches.remove(&(worker, batch, entered, node));
            }
            if let Some((worker, batch, entered)) = new.batch.clone() {
                self.batches.entry(batch.clone()).or_default().insert(entered, node);
                self.worker_batches.insert((worker, batch, entered, node));
            }
        }
        if new.unowned {
            self.unowned.insert(seq);
        } else if old.unowned {
            self.unowned.remove(&seq);
        }
        self.task_mut(node).indexed = new;
    }

    fn unlist_family(&mut self, family: &str, rank: Rank) {
        if let Some(tasks) = self.batchable.get_mut(family) {
            tasks.remove(&rank);
            if tasks.is_empty() {
                self.batchable.remove(family);
            }
        }
    }
}

fn task_entered(indexed: &super::state::Indexed) -> u64 {
    indexed.status.map_or(0, |(_, entered)| entered)
}

fn move_key(set: &mut BTreeSet<(i64, NodeNo)>, node: NodeNo, old: Option<i64>, new: Option<i64>) {
    if old != new {
        if let Some(at) = old {
            set.remove(&(at, node));
        }
        if let Some(at) = new {
            set.insert((at, node));
        }
    }
}
