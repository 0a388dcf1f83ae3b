//! Rows: one for a task's definition, one for its state, one a worker, one for the scheduler.
//! Everything else is derived from them. Worker numbers in a task's row may be of workers that have
//! gone: a worker's end is the deletion of its own row, however many tasks it had.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kobza_model::MachineRow;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::history::Record;
use super::resources::{Num, ResourceSet};
use super::state::{Batcher, NodeNo, RetryPolicy, Status, Task, Worker, WorkerNo};
use super::{Capacities, LuigiMachine, mirror};
use crate::pyjson::{Object, Value};

const DEFINITION: u8 = b'd';
const STATE: u8 = b's';
const WORKER: u8 = b'w';
const BATCHER: u8 = b'b';
const HISTORY: u8 = b'h';
const GLOBALS: u8 = b'g';

#[derive(Serialize, Deserialize)]
struct DefinitionRow {
    id: Arc<str>,
    time: f64,
    family: Arc<str>,
    module: Value,
    visibilities: Object,
    params: Arc<Object>,
    /// The public ones, where not all are.
    public: Option<Arc<Object>>,
    priority: Num,
    resources: ResourceSet,
    batchable: bool,
    policy: RetryPolicy,
    deps: Vec<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
struct StateRow {
    status: Status,
    entered: u64,
    stakeholders: Vec<WorkerNo>,
    workers: Vec<WorkerNo>,
    updated: f64,
    retry: Option<f64>,
    remove: Option<f64>,
    worker_running: Option<Arc<str>>,
    time_running: Option<f64>,
    expl: Value,
    resources_running: Option<ResourceSet>,
    shared_resources: bool,
    accepts_messages: Value,
    runnable: bool,
    batch_id: Option<Arc<str>>,
    failures: VecDeque<f64>,
    first_failure: Option<f64>,
    tracking_url: Value,
    status_message: Value,
    progress: Value,
    responses: Object,
    disabled_at: Option<f64>,
    events: VecDeque<(Status, f64)>,
    host: Option<String>,
    lost: bool,
}

#[derive(Serialize, Deserialize)]
struct WorkerRow {
    id: Arc<str>,
    last_active: f64,
    last_get_work: Option<f64>,
    started: f64,
    info: Object,
    disabled: bool,
    messages: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
struct BatcherRow {
    worker: Arc<str>,
    family: Arc<str>,
    batcher: Batcher,
}

#[derive(Serialize, Deserialize)]
struct GlobalsRow {
    paused: bool,
    capacities: Capacities,
    next_worker: WorkerNo,
    next_message: u64,
}

fn key(kind: u8, number: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend(number.to_be_bytes());
    key
}

pub(super) fn definition_key(seq: u64) -> Vec<u8> {
    key(DEFINITION, seq)
}

pub(super) fn state_key(seq: u64) -> Vec<u8> {
    key(STATE, seq)
}

pub(super) fn worker_key(worker: WorkerNo) -> Vec<u8> {
    key(WORKER, u64::from(worker))
}

fn encode(row: &impl Serialize) -> Vec<u8> {
    // Rows are plain data of known lengths: writing them to memory has no way to fail.
    postcard::to_stdvec(row).expect("plain data can be encoded")
}

impl LuigiMachine {
    pub(super) fn definition_row(&self, node: NodeNo) -> (Vec<u8>, Vec<u8>) {
        let task = self.index.task(node);
        let row = DefinitionRow {
            id: task.id.clone(),
            time: task.time,
            family: task.family.clone(),
            module: task.module.clone(),
            visibilities: task.visibilities.clone(),
            params: task.params.clone(),
            public: (!Arc::ptr_eq(&task.params, &task.public)).then(|| task.public.clone()),
            priority: task.priority,
            resources: task.resources.clone(),
            batchable: task.batchable,
            policy: task.policy,
            deps: task.deps.iter().map(|d| self.index.nodes[*d as usize].id.clone()).collect(),
        };
        (definition_key(task.seq), encode(&row))
    }

    pub(super) fn state_row(&self, node: NodeNo) -> (Vec<u8>, Vec<u8>) {
        let task = self.index.task(node);
        let row = StateRow {
            status: task.status,
            entered: task.entered,
            stakeholders: self.index.stakes.get(task.stakeholders).workers.clone(),
            workers: self.index.groups.get(task.workers).workers.clone(),
            updated: task.updated,
            retry: task.retry,
            remove: task.remove,
            worker_running: task.worker_running.clone(),
            time_running: task.time_running,
            expl: task.expl.clone(),
            resources_running: task.resources_running.clone(),
            shared_resources: task.shared_resources,
            accepts_messages: task.accepts_messages.clone(),
            runnable: task.runnable,
            batch_id: task.batch_id.clone(),
            failures: task.failures.clone(),
            first_failure: task.first_failure,
            tracking_url: task.tracking_url.clone(),
            status_message: task.status_message.clone(),
            progress: task.progress.clone(),
            responses: task.responses.clone(),
            disabled_at: task.disabled_at,
            events: task.events.clone(),
            host: task.host.clone(),
            lost: task.lost,
        };
        (state_key(task.seq), encode(&row))
    }

    pub(super) fn worker_row(&self, no: WorkerNo, now: f64) -> (Vec<u8>, Vec<u8>) {
        let worker = self.worker_ref(no);
        let row = WorkerRow {
            id: worker.id.clone(),
            last_active: worker.last_active.unwrap_or(now),
            last_get_work: worker.last_get_work,
            started: worker.started,
            info: worker.info.clone(),
            disabled: worker.disabled,
            messages: worker.messages.clone(),
        };
        (worker_key(no), encode(&row))
    }

    pub(super) fn batcher_row(&self, name: &(Arc<str>, Arc<str>)) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut key = vec![BATCHER];
        key.extend(name.0.as_bytes());
        key.push(0);
        key.extend(name.1.as_bytes());
        let row = self.batchers.get(name).map(|batcher| {
            let (worker, family) = name.clone();
            encode(&BatcherRow { worker, family, batcher: batcher.clone() })
        });
        (key, row)
    }

    pub(super) fn history_row(&self, seq: u64, kept: bool) -> (Vec<u8>, Option<Vec<u8>>) {
        let row = self.history.records.get(&seq).filter(|_| kept).map(encode);
        (key(HISTORY, seq), row)
    }

    pub(super) fn globals_row(&self) -> (Vec<u8>, Vec<u8>) {
        let row = GlobalsRow {
            paused: self.paused,
            capacities: self.capacities.clone(),
            next_worker: self.next_worker,
            next_message: self.next_message,
        };
        (vec![GLOBALS], encode(&row))
    }

    /// Takes up what an earlier process left. A row that cannot be read is skipped: one broken row
    /// must not cost all others.
    pub(super) fn load(&mut self, rows: Vec<MachineRow>) {
        self.fresh = true;
        // At once: workers that never come back must be missed, even if nobody else calls.
        self.next_prune = Some(kobza_model::EngineTime(0));
        let mut definitions: BTreeMap<u64, DefinitionRow> = BTreeMap::new();
        let mut states: BTreeMap<u64, StateRow> = BTreeMap::new();
        for MachineRow { key, value, .. } in rows {
            let (Some(value), Some((kind, rest))) = (value, key.split_first()) else { continue };
            let number = rest.try_into().map(u64::from_be_bytes).unwrap_or_default();
            match *kind {
                DEFINITION => insert(&mut definitions, number, &value),
                STATE => insert(&mut states, number, &value),
                WORKER => self.load_worker(number, &value),
                BATCHER => {
                    if let Some(row) = decode::<BatcherRow>(&value) {
                        self.batchers.insert((row.worker, row.family), row.batcher);
                    }
                }
                HISTORY => insert::<Record>(&mut self.history.records, number, &value),
                GLOBALS => {
                    if let Some(row) = decode::<GlobalsRow>(&value) {
                        self.paused = row.paused;
                        self.capacities.extend(row.capacities);
                        self.next_worker = self.next_worker.max(row.next_worker);
                        self.next_message = row.next_message;
                    }
                }
                _ => {}
            }
        }
        let last = definitions.keys().chain(self.history.records.keys()).max().copied();
        self.next_seq = last.unwrap_or(0) + 1;
        self.next_entered = states.values().map(|s| s.entered).max().unwrap_or(0) + 1;
        let mut deps = Vec::new();
        for (seq, definition) in definitions {
            let Some(state) = states.remove(&seq) else { continue };
            // A task that was removed and came back, its old rows not yet deleted: the newer counts.
            if let Some(old) = self.index.find(&definition.id) {
                deps.retain(|(node, _)| *node != old);
                if let Some(old) = self.index.remove(old) {
                    let farewell = mirror::Farewell { seq: old.seq, id: old.id, unfinished: false };
                    self.farewells.push_back(farewell);
                }
            }
            let node = self.load_task(seq, &definition, state);
            deps.push((node, definition.deps));
        }
        for (node, deps) in deps {
            let deps = deps.iter().map(|id| self.index.node(id)).collect();
            self.index.set_deps(node, deps);
        }
    }

    /// As a restart, but with what is not durable by design taken over from the machine before.
    pub(crate) fn restore_for_comparison(&mut self, rows: Vec<MachineRow>, before: &Self) {
        self.load(rows);
        self.fresh = false;
        self.next_prune = before.next_prune;
        for (no, old) in &before.index.workers {
            if let Some(worker) = self.index.workers.get_mut(no) {
                worker.last_active = old.last_active;
                worker.last_get_work = old.last_get_work;
            }
        }
        let marks: Vec<(NodeNo, Option<f64>)> = before
            .index
            .by_seq
            .values()
            .map(|node| before.index.task(*node))
            .filter_map(|task| Some((self.index.find(&task.id)?, task.remove)))
            .collect();
        for (node, remove) in marks {
            self.index.task_mut(node).remove = remove;
            self.index.reindex(node);
        }
        // Rows of removed tasks that are not deleted yet came back; in a comparison they must not.
        let gone: Vec<NodeNo> = self
            .index
            .by_seq
            .values()
            .copied()
            .filter(|node| before.index.find(&self.index.task(*node).id).is_none())
            .collect();
        for node in gone {
            self.index.remove(node);
        }
    }

    fn load_worker(&mut self, number: u64, value: &[u8]) {
        let (Ok(no), Some(row)) = (WorkerNo::try_from(number), decode::<WorkerRow>(value)) else {
            return;
        };
        self.next_worker = self.next_worker.max(no.saturating_add(1));
        self.index.worker_names.insert(row.id.clone(), no);
        let worker = Worker {
            id: row.id,
            last_active: None,
            last_get_work: row.last_get_work,
            started: row.started,
            info: row.info,
            disabled: row.disabled,
            messages: row.messages,
            heads: std::collections::BTreeSet::new(),
            groups: std::collections::BTreeSet::new(),
            stakes: std::collections::BTreeSet::new(),
        };
        self.index.workers.insert(no, worker);
    }

    fn load_task(&mut self, seq: u64, row: &DefinitionRow, state: StateRow) -> NodeNo {
        let node = self.index.node(&row.id);
        let id = self.index.nodes[node as usize].id.clone();
        let task = Task {
            status: state.status,
            entered: state.entered,
            updated: state.updated,
            retry: state.retry,
            remove: state.remove,
            worker_running: state.worker_running,
            time_running: state.time_running,
            expl: state.expl,
            priority: row.priority,
            resources: row.resources.clone(),
            resources_running: state.resources_running,
            shared_resources: state.shared_resources,
            family: row.family.clone(),
            module: row.module.clone(),
            visibilities: row.visibilities.clone(),
            params: row.params.clone(),
            public: row.public.clone().unwrap_or_else(|| row.params.clone()),
            accepts_messages: state.accepts_messages,
            runnable: state.runnable,
            batchable: row.batchable,
            batch_id: state.batch_id,
            failures: state.failures,
            first_failure: state.first_failure,
            tracking_url: state.tracking_url,
            status_message: state.status_message,
            progress: state.progress,
            responses: state.responses,
            disabled_at: state.disabled_at,
            events: state.events,
            host: state.host,
            lost: state.lost,
            ..Task::new(id, seq, row.time, row.policy)
        };
        self.index.insert(node, task);
        let workers = &self.index.workers;
        let able = |no: &WorkerNo| workers.get(no).is_some_and(|w| !w.disabled);
        let able: Vec<WorkerNo> = state.workers.into_iter().filter(able).collect();
        let known = |no: &WorkerNo| workers.contains_key(no);
        let holders: Vec<WorkerNo> = state.stakeholders.into_iter().filter(known).collect();
        let (group, stake) = (self.index.groups.of(able), self.index.stakes.of(holders));
        self.index.set_workers(node, group);
        self.index.set_stakeholders(node, stake);
        let task = self.index.task_mut(node);
        task.mirrored = Some(mirror::shown(task));
        node
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

fn insert<T: DeserializeOwned>(map: &mut BTreeMap<u64, T>, number: u64, bytes: &[u8]) {
    if let Some(row) = decode(bytes) {
        map.insert(number, row);
    }
}
