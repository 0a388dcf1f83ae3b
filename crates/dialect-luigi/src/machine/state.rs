//! What a scheduler knows of tasks and workers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::resources::{Num, ResourceSet};
use crate::config::LuigiConfig;
use crate::pyjson::{Object, Value};

/// A place for a task id: its task, if it exists, and who depends on it.
pub(super) type NodeNo = u32;
/// A worker. Never used again for another, not even for one of the same name.
pub(super) type WorkerNo = u32;
/// An interned list of workers.
pub(super) type GroupNo = u32;
/// Schedulable tasks that are alike to the selection.
pub(super) type BucketNo = u32;

/// A task's status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) enum Status {
    Pending,
    Running,
    BatchRunning,
    Done,
    Failed,
    Disabled,
    Unknown,
}

impl Status {
    pub(super) const ALL: [Self; 7] = [
        Self::Pending,
        Self::Running,
        Self::BatchRunning,
        Self::Done,
        Self::Failed,
        Self::Disabled,
        Self::Unknown,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::BatchRunning => "BATCH_RUNNING",
            Self::Done => "DONE",
            Self::Failed => "FAILED",
            Self::Disabled => "DISABLED",
            Self::Unknown => "UNKNOWN",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.word() == word)
    }
}

/// When failures disable a task.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct RetryPolicy {
    pub(super) retry_count: f64,
    pub(super) disable_hard_timeout: f64,
    pub(super) disable_window: f64,
}

impl RetryPolicy {
    pub(super) fn from_config(config: &LuigiConfig) -> Self {
        Self {
            retry_count: config.retry_count,
            disable_hard_timeout: config.disable_hard_timeout,
            disable_window: config.disable_window,
        }
    }

    /// The scheduler's policy with what a task says instead.
    pub(super) fn with(mut self, own: &Object) -> Self {
        let number = |key: &str| own.get(key).and_then(Value::number).filter(|n| !n.is_nan());
        if let Some(n) = number("retry_count") {
            self.retry_count = n;
        }
        if let Some(n) = number("disable_hard_timeout") {
            self.disable_hard_timeout = n;
        }
        if let Some(n) = number("disable_window") {
            self.disable_window = n;
        }
        self
    }
}

/// The order of selection: greatest priority, then oldest, then first seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank {
    priority: i64,
    time: i64,
    seq: u64,
    pub(super) node: NodeNo,
}

/// Maps floats to integers of the same order.
pub(super) fn ordered(value: f64) -> i64 {
    let bits = (value + 0.0).to_bits().cast_signed();
    bits ^ (((bits >> 63).cast_unsigned()) >> 1).cast_signed()
}

/// Under what a task is found in the indexes now.
#[derive(Clone, Default, Debug)]
pub(super) struct Indexed {
    pub(super) status: Option<(Status, u64)>,
    pub(super) rank: Option<Rank>,
    pub(super) bucket: Option<BucketNo>,
    pub(super) family: Option<Arc<str>>,
    pub(super) group: Option<GroupNo>,
    pub(super) waiting: bool,
    pub(super) pending: bool,
    pub(super) with_resources: bool,
    pub(super) retry: Option<i64>,
    pub(super) remove: Option<i64>,
    pub(super) disabled: Option<i64>,
    pub(super) batch: Option<(Option<Arc<str>>, Arc<str>, u64)>,
    pub(super) done: bool,
    pub(super) unowned: bool,
    pub(super) blocks: bool,
}

/// A task.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) id: Arc<str>,
    /// Grows with each task made: the order of first sight.
    pub(super) seq: u64,
    pub(super) status: Status,
    /// Grows with each change of a status: the order of entering it.
    pub(super) entered: u64,
    pub(super) stakeholders: GroupNo,
    pub(super) workers: GroupNo,
    pub(super) deps: Vec<NodeNo>,
    /// Dependencies that are not done.
    pub(super) open_deps: u32,
    /// Waits, directly or not, for a disabled task. Only kept for pending tasks.
    pub(super) blocked: bool,
    pub(super) time: f64,
    pub(super) updated: f64,
    pub(super) retry: Option<f64>,
    pub(super) remove: Option<f64>,
    pub(super) worker_running: Option<Arc<str>>,
    pub(super) time_running: Option<f64>,
    pub(super) expl: Value,
    pub(super) priority: Num,
    pub(super) resources: ResourceSet,
    pub(super) resources_running: Option<ResourceSet>,
    /// `resources_running` and `resources` are one: decreasing the one decreases the other.
    pub(super) shared_resources: bool,
    pub(super) family: Arc<str>,
    pub(super) module: Value,
    pub(super) visibilities: Object,
    pub(super) params: Arc<Object>,
    pub(super) public: Arc<Object>,
    pub(super) accepts_messages: Value,
    pub(super) runnable: bool,
    pub(super) batchable: bool,
    pub(super) batch_id: Option<Arc<str>>,
    pub(super) policy: RetryPolicy,
    pub(super) failures: VecDeque<f64>,
    pub(super) first_failure: Option<f64>,
    pub(super) tracking_url: Value,
    pub(super) status_message: Value,
    pub(super) progress: Value,
    pub(super) responses: Object,
    /// When the scheduler itself disabled it.
    pub(super) disabled_at: Option<f64>,
    pub(super) events: VecDeque<(Status, f64)>,
    pub(super) host: Option<String>,
    /// The worker that ran it went away.
    pub(super) lost: bool,
    pub(super) indexed: Indexed,
    /// What the run was last told of it.
    pub(super) mirrored: Option<(kobza_model::TaskState, kobza_model::Cause)>,
}

impl Task {
    pub(super) fn new(id: Arc<str>, seq: u64, now: f64, policy: RetryPolicy) -> Self {
        Self {
            id,
            seq,
            status: Status::Pending,
            entered: 0,
            stakeholders: 0,
            workers: 0,
            deps: Vec::new(),
            open_deps: 0,
            blocked: false,
            time: now,
            updated: now,
            retry: None,
            remove: None,
            worker_running: None,
            time_running: None,
            expl: Value::Null,
            priority: Num::Int(0),
            resources: ResourceSet::default(),
            resources_running: None,
            shared_resources: false,
            family: "".into(),
            module: Value::Null,
            visibilities: Object::new(),
            params: Arc::default(),
            public: Arc::default(),
            accepts_messages: Value::Bool(false),
            runnable: false,
            batchable: false,
            batch_id: None,
            policy,
            failures: VecDeque::new(),
            first_failure: None,
            tracking_url: Value::Null,
            status_message: Value::Null,
            progress: Value::Null,
            responses: Object::new(),
            disabled_at: None,
            events: VecDeque::new(),
            host: None,
            lost: false,
            indexed: Indexed::default(),
            mirrored: None,
        }
    }

    pub(super) fn rank(&self, node: NodeNo) -> Rank {
        Rank {
            priority: !ordered(self.priority.f64()),
            time: ordered(self.time),
            seq: self.seq,
            node,
        }
    }

    pub(super) fn is_schedulable(&self) -> bool {
        self.status == Status::Pending && self.open_deps == 0
    }

    /// What it holds while it runs.
    pub(super) fn held(&self) -> &ResourceSet {
        self.resources_running.as_ref().unwrap_or(&self.resources)
    }

    pub(super) fn set_params(&mut self, params: &Value) {
        let params = super::resources::object_of(params).into_owned();
        // Visibility 0 is public, 1 hidden; private parameters do not reach the scheduler.
        let is_public = |key: &str| {
            self.visibilities.get(key).is_none_or(|v| v.number().is_some_and(|n| n == 0.0))
        };
        self.params = Arc::new(params);
        self.public = if self.params.keys().all(|k| is_public(k)) {
            self.params.clone()
        } else {
            let public = self.params.iter().filter(|(k, _)| is_public(k));
            Arc::new(public.map(|(k, v)| (k.clone(), v.clone())).collect())
        };
    }

    /// The family with the public parameters, ordered by name.
    pub(super) fn display_name(&self) -> String {
        let mut params: Vec<_> = self.public.iter().collect();
        params.sort_by_key(|(name, _)| name.as_str());
        let mut out = String::from(&*self.family);
        out.push('(');
        for (i, (name, value)) in params.into_iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            out.push_str(name);
            out.push('=');
            match value {
                Value::Str(text) => out.push_str(text),
                other => out.push_str(&other.display()),
            }
        }
        out.push(')');
        out
    }

    pub(super) fn add_failure(&mut self, now: f64) {
        if self.first_failure.is_none_or(|t| t == 0.0) {
            self.first_failure = Some(now);
        }
        self.failures.push_back(now);
    }

    pub(super) fn clear_failures(&mut self) {
        self.failures.clear();
        self.first_failure = None;
    }

    pub(super) fn has_excessive_failures(&mut self, now: f64) -> bool {
        if self.first_failure.is_some_and(|t| now >= t + self.policy.disable_hard_timeout) {
            return true;
        }
        let start = now - self.policy.disable_window;
        while self.failures.front().is_some_and(|t| *t < start) {
            self.failures.pop_front();
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of failures")]
        let failures = self.failures.len() as f64;
        failures >= self.policy.retry_count
    }
}

/// A place for a task id.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: Arc<str>,
    pub(super) task: Option<Box<Task>>,
    pub(super) dependents: BTreeSet<NodeNo>,
}

/// A worker process.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: Arc<str>,
    /// `None` after a restart, until the first call: then it counts as seen then.
    pub(super) last_active: Option<f64>,
    pub(super) last_get_work: Option<f64>,
    pub(super) started: f64,
    pub(super) info: Object,
    pub(super) disabled: bool,
    pub(super) messages: Vec<Value>,
    /// Buckets of tasks that it may run, by their first task.
    pub(super) heads: BTreeSet<(Rank, BucketNo)>,
    /// Worker lists that it is on.
    pub(super) groups: BTreeSet<GroupNo>,
    /// Stakeholder lists that it is on.
    pub(super) stakes: BTreeSet<GroupNo>,
}

impl Worker {
    pub(super) fn is_assistant(&self) -> bool {
        self.info.get("assistant").is_some_and(Value::truthy)
    }

    pub(super) fn state(&self) -> &'static str {
        if self.disabled { "disabled" } else { "active" }
    }

    /// Processes that it said it has.
    pub(super) fn slots(&self) -> f64 {
        self.info.get("workers").and_then(Value::number).filter(|n| !n.is_nan()).unwrap_or(1.0)
    }
}

/// What a worker said of a family that it can run in batches.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Batcher {
    pub(super) args: Vec<String>,
    pub(super) max: f64,
}

/// Batchers by worker and family.
pub(super) type Batchers = BTreeMap<(Arc<str>, Arc<str>), Batcher>;
