//! Rows as clients see them.

use kobza_model::{RunRow, TaskId, TaskRow, TaskState, Timestamp};
use serde_json::{Map, Value, json};

use crate::shape::Paths;

/// What a bar in a list shows of a run.
pub(crate) fn bar(run: &RunRow) -> Value {
    json!({
        "id": run.run,
        "state": run.state,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "trigger": run.trigger,
        "version": run.version,
        "interval_start": run.interval_start,
        "interval_end": run.interval_end,
        "partition": run.partition,
    })
}

/// A run whole.
pub(crate) fn run(run: &RunRow) -> Value {
    let mut counts = Map::new();
    let mut total = 0u64;
    for (state, count) in TaskState::ALL.iter().zip(&run.counts) {
        if *count > 0 {
            counts.insert(state.as_str().to_owned(), (*count).into());
            total += u64::from(*count);
        }
    }
    let mut value = bar(run);
    let labels = if run.labels.is_null() { json!({}) } else { run.labels.clone() };
    let more = json!({
        "namespace": run.namespace,
        "workflow": run.workflow,
        "dialect": run.dialect,
        "cause": run.cause,
        "message": run.message.as_ref().or(run.stop.as_ref()),
        "params": run.params,
        "key": run.key,
        "labels": labels,
        "parent": run.parent.map(|p| p.to_string()),
        "priority": run.priority,
        "generation": run.generation,
        "counts": counts,
        "total": total,
        "note": run.extra.get("note"),
        "backfill": run.labels.get("backfill").or_else(|| run.extra.get("backfill")),
        "open": run.extra.get("open").and_then(Value::as_bool).unwrap_or(run.dialect == "luigi"),
    });
    merge(&mut value, more);
    value
}

/// Adds the fields of an object to another.
pub(crate) fn merge(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}

/// Which task.
pub(crate) fn brief(task: &TaskRow, run: &RunRow, paths: &Paths) -> Value {
    json!({
        "id": TaskId { run: task.run, task: task.task }.to_string(),
        "run": task.run,
        "workflow": run.workflow,
        "name": task.name,
        "path": paths.path(task),
        "map_index": task.index,
        "state": task.state,
        "attempt": task.attempt,
    })
}

/// A task as it appears in lists. `offset`: wall time minus engine time, in microseconds.
pub(crate) fn task(task: &TaskRow, run: &RunRow, paths: &Paths, offset: i64) -> Value {
    let place = paths.of(task);
    let mut value = brief(task, run, paths);
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
    let group = place.and_then(|p| p.within).map(|p| paths.shape.places[p].path.clone());
    merge(
        &mut value,
        json!({
            "namespace": run.namespace,
            "kind": kind,
            "group": group,
            "summary": task.summary,
            "cause": task.cause,
            "message": task.message,
            "exit_code": task.exit_code,
            "priority": task.priority,
            "created_at": task.created_at,
            "ready_at": task.ready_at,
            "started_at": task.started_at,
            "ended_at": task.ended_at,
            "due_at": due,
            "label": task.extra.get("label"),
        }),
    );
    value
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
    by_state: std::collections::BTreeMap<TaskState, u64>,
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

    pub(crate) fn json(&self) -> Value {
        self.by_state
            .iter()
            .map(|(s, n)| (s.as_str().to_owned(), Value::from(*n)))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// Milliseconds between two instants, if both are known.
pub(crate) fn millis(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<i64> {
    Some((to?.0 - from?.0).max(0) / 1000)
}
