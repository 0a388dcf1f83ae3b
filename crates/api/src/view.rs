//! Rows as clients see them.

use std::collections::BTreeMap;

use kobza_model::{Cause, RunId, RunRow, RunState, TaskId, TaskRow, TaskState, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::shape::Paths;

/// What a bar in a list shows of a run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct RunBar {
    pub(crate) id: RunId,
    pub(crate) state: RunState,
    pub(crate) created_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    /// How it came to be: `api`, `schedule`, `backfill`, `asset`, `task`, ...
    pub(crate) trigger: String,
    /// Content hash of the workflow's version, in hexadecimal.
    pub(crate) version: String,
    pub(crate) interval_start: Option<Timestamp>,
    pub(crate) interval_end: Option<Timestamp>,
    pub(crate) partition: Option<String>,
}

/// A number of tasks for each state; states without tasks are left out.
pub(crate) type ByState = BTreeMap<TaskState, u64>;

/// A run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Run {
    #[serde(flatten)]
    pub(crate) bar: RunBar,
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    pub(crate) dialect: String,
    /// Why it is in its state.
    pub(crate) cause: Cause,
    pub(crate) message: Option<String>,
    pub(crate) params: Value,
    /// Unique within the workflow, where it is given.
    pub(crate) key: Option<String>,
    /// Texts by name.
    pub(crate) labels: Map<String, Value>,
    /// The task that started it.
    #[serde(serialize_with = "as_text_if")]
    pub(crate) parent: Option<TaskId>,
    pub(crate) priority: i32,
    /// How often it was reopened after its end.
    pub(crate) generation: u32,
    /// Tasks by state.
    pub(crate) counts: ByState,
    /// Tasks in all.
    pub(crate) total: u64,
    pub(crate) note: Option<String>,
    /// The backfill that made it.
    pub(crate) backfill: Option<String>,
    /// Its tasks come from outside.
    pub(crate) open: bool,
}

pub(crate) fn bar(run: &RunRow) -> RunBar {
    RunBar {
        id: run.run,
        state: run.state,
        created_at: run.created_at,
        started_at: run.started_at,
        ended_at: run.ended_at,
        trigger: run.trigger.clone(),
        version: run.version.clone(),
        interval_start: run.interval_start,
        interval_end: run.interval_end,
        partition: run.partition.clone(),
    }
}

/// A run whole.
pub(crate) fn run(run: &RunRow) -> Run {
    let mut counts = ByState::new();
    for (state, count) in TaskState::ALL.iter().zip(&run.counts) {
        if *count > 0 {
            counts.insert(*state, u64::from(*count));
        }
    }
    let word = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    Run {
        bar: bar(run),
        namespace: run.namespace.clone(),
        workflow: run.workflow.clone(),
        dialect: run.dialect.clone(),
        cause: run.cause,
        message: run.message.clone().or_else(|| run.stop.clone()),
        params: run.params.clone(),
        key: run.key.clone(),
        labels: run.labels.as_object().cloned().unwrap_or_default(),
        parent: run.parent,
        priority: run.priority,
        generation: run.generation,
        total: counts.values().sum(),
        counts,
        note: run.extra.get("note").and_then(word),
        backfill: run.labels.get("backfill").or_else(|| run.extra.get("backfill")).and_then(word),
        open: run.extra.get("open").and_then(Value::as_bool).unwrap_or(run.dialect == "luigi"),
    }
}

/// Which task.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct TaskBrief {
    #[serde(serialize_with = "as_text")]
    pub(crate) id: TaskId,
    pub(crate) run: RunId,
    pub(crate) workflow: String,
    pub(crate) name: String,
    /// Its place: `group/name`.
    pub(crate) path: String,
    /// Its place in a mapped task's list.
    pub(crate) map_index: Option<u32>,
    pub(crate) state: TaskState,
    /// Attempts begun, from 1; 0 before the first.
    pub(crate) attempt: u32,
}

pub(crate) fn as_text<T: std::fmt::Display, S: serde::Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(crate) fn as_text_if<T: std::fmt::Display, S: serde::Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// A task as it appears in lists.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Task {
    #[serde(flatten)]
    pub(crate) brief: TaskBrief,
    pub(crate) namespace: String,
    /// `python`, `shell`, `hook`, ...
    pub(crate) kind: String,
    /// Path of its group.
    pub(crate) group: Option<String>,
    /// It stands for the instances of a mapped task.
    pub(crate) summary: bool,
    pub(crate) cause: Cause,
    pub(crate) message: Option<String>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) priority: i32,
    pub(crate) created_at: Timestamp,
    pub(crate) ready_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    /// When it is tried, or looked at, again.
    pub(crate) due_at: Option<Timestamp>,
    /// Name of a mapped instance.
    pub(crate) label: Option<String>,
}

pub(crate) fn task_id(task: &TaskRow) -> TaskId {
    TaskId { run: task.run, task: task.task }
}

/// Which task.
pub(crate) fn brief(task: &TaskRow, run: &RunRow, paths: &Paths) -> TaskBrief {
    TaskBrief {
        id: task_id(task),
        run: task.run,
        workflow: run.workflow.clone(),
        name: task.name.clone(),
        path: paths.path(task),
        map_index: task.index,
        state: task.state,
        attempt: task.attempt,
    }
}

/// A task as it appears in lists. `offset`: wall time minus engine time, in microseconds.
pub(crate) fn task(task: &TaskRow, run: &RunRow, paths: &Paths, offset: i64) -> Task {
    let place = paths.of(task);
    let waits = matches!(
        task.state,
        TaskState::RetryWait | TaskState::Deferred | TaskState::Rescheduled | TaskState::Suspended
    );
    let due = task.due.filter(|_| waits).map(|due| Timestamp(due.0.saturating_add(offset)));
    let kind = match place {
        _ if task.hook.is_some() => "hook",
        Some(place) => place.kind.as_str(),
        None => "task",
    };
    Task {
        brief: brief(task, run, paths),
        namespace: run.namespace.clone(),
        kind: kind.to_owned(),
        group: place.and_then(|p| p.within).map(|p| paths.shape.places[p].path.clone()),
        summary: task.summary,
        cause: task.cause,
        message: task.message.clone(),
        exit_code: task.exit_code,
        priority: task.priority,
        created_at: task.created_at,
        ready_at: task.ready_at,
        started_at: task.started_at,
        ended_at: task.ended_at,
        due_at: due,
        label: task.extra.get("label").and_then(Value::as_str).map(str::to_owned),
    }
}

/// How bad a state is, for the one word that stands for many tasks.
fn badness(state: TaskState) -> u8 {
    match state {
        TaskState::Failed => 15,
        TaskState::UpstreamFailed => 14,
        TaskState::Cancelled => 13,
        TaskState::Cancelling => 12,
        TaskState::RetryWait => 11,
        TaskState::Suspended => 10,
        TaskState::Running => 9,
        TaskState::Queued => 8,
        TaskState::Deferred => 7,
        TaskState::Rescheduled => 6,
        TaskState::Ready => 5,
        TaskState::Pending => 4,
        TaskState::Succeeded => 3,
        TaskState::Skipped => 2,
        TaskState::Removed => 1,
    }
}

/// Tasks by state, and the state that stands for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    by_state: ByState,
}

impl Counts {
    pub(crate) fn add(&mut self, state: TaskState, tasks: u64) {
        *self.by_state.entry(state).or_default() += tasks;
    }

    pub(crate) fn worst(&self) -> Option<TaskState> {
        self.by_state.keys().copied().max_by_key(|s| badness(*s))
    }

    pub(crate) fn total(&self) -> u64 {
        self.by_state.values().sum()
    }

    pub(crate) fn of(&self, state: TaskState) -> u64 {
        self.by_state.get(&state).copied().unwrap_or(0)
    }

    pub(crate) fn by_state(&self) -> ByState {
        self.by_state.clone()
    }
}

/// Milliseconds between two instants, if both are known.
pub(crate) fn millis(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<i64> {
    Some((to?.0 - from?.0).max(0) / 1000)
}
