//! When tasks were scheduled, started and finished. Kept with the task while the scheduler knows
//! it, and for a while after.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::args::Args;
use super::state::{NodeNo, Status, Task};
use super::{LuigiMachine, object};
use crate::pyjson::{Object, Value};

/// Events kept of one task, the newest.
const MAX_EVENTS: usize = 32;
/// Tasks kept after the scheduler forgot them, the newest.
const MAX_RECORDS: usize = 10_000;
/// Tasks in one answer.
const MAX_PAGE: usize = 500;

/// A task that the scheduler has forgotten.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) task_id: Arc<str>,
    pub(super) family: Arc<str>,
    pub(super) host: Option<String>,
    pub(super) params: Arc<Object>,
    pub(super) events: Vec<(Status, f64)>,
}

/// Forgotten tasks by their number.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) records: BTreeMap<u64, Record>,
}

fn record_of(task: &Task) -> Record {
    Record {
        task_id: task.id.clone(),
        family: task.family.clone(),
        host: task.host.clone(),
        params: task.public.clone(),
        events: task.events.iter().copied().collect(),
    }
}

impl LuigiMachine {
    /// Notes that a task was scheduled, started or finished.
    pub(super) fn record(&mut self, node: NodeNo, status: Status, host: Option<String>, now: f64) {
        let known = [Status::Pending, Status::Running, Status::Done, Status::Failed];
        if !known.contains(&status) {
            return;
        }
        let task = self.index.task_mut(node);
        task.events.push_back((status, now));
        if task.events.len() > MAX_EVENTS {
            task.events.pop_front();
        }
        if host.is_some() {
            task.host = host;
        }
        self.dirty.states.insert(node);
    }

    /// Keeps a task's history when the task goes.
    pub(super) fn history_keep(&mut self, node: NodeNo) {
        let task = self.index.task(node);
        if task.events.is_empty() {
            return;
        }
        let seq = task.seq;
        self.history.records.insert(seq, record_of(task));
        self.dirty.history.insert(seq, true);
        if self.history.records.len() > MAX_RECORDS
            && let Some((oldest, _)) = self.history.records.pop_first()
        {
            self.dirty.history.insert(oldest, false);
        }
    }

    /// `{by, value, params, before, limit}`: tasks, the newest first.
    pub(super) fn history_page(&mut self, args: &Args) -> Value {
        let before = match args.get("before") {
            Value::Int(n) => n.cast_unsigned(),
            _ => u64::MAX,
        };
        let limit = match args.get("limit") {
            Value::Int(n) => usize::try_from(*n).unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE),
            _ => 100,
        };
        let value = args.get("value");
        let text = value.as_str().unwrap_or_default();
        let params = args.object("params");
        let wanted = |seq: u64, record: &Record| match args.text("by").unwrap_or_default() {
            "name" => &*record.family == text,
            "task_id" => &*record.task_id == text,
            "id" => text.parse() == Ok(seq) || value.py_eq(&Value::Int(seq.cast_signed())),
            "params" => {
                &*record.family == text
                    && params.iter().all(|(name, value)| {
                        record.params.get(name).is_some_and(|own| own.display() == value.display())
                    })
            }
            _ => true,
        };
        let known = self.index.by_seq.range(..before).rev().filter_map(|(seq, node)| {
            let task = self.index.task(*node);
            (!task.events.is_empty()).then(|| (*seq, record_of(task)))
        });
        let gone = self.history.records.range(..before).rev().map(|(s, r)| (*s, r.clone()));
        let mut found: Vec<(u64, Record)> = known
            .filter(|(seq, record)| wanted(*seq, record))
            .take(limit)
            .chain(gone.filter(|(seq, record)| wanted(*seq, record)).take(limit))
            .collect();
        found.sort_by_key(|(seq, _)| std::cmp::Reverse(*seq));
        found.truncate(limit);
        let tasks = found.into_iter().map(|(seq, record)| {
            let events = record.events.iter().rev().map(|(status, at)| {
                object([("event_name", Value::from(status.word())), ("ts", Value::Float(*at))])
            });
            object([
                ("id", Value::Int(seq.cast_signed())),
                ("task_id", Value::from(&*record.task_id)),
                ("name", Value::from(&*record.family)),
                ("host", record.host.map_or(Value::Null, Value::Str)),
                ("parameters", Value::Object((*record.params).clone())),
                ("events", Value::List(events.collect())),
            ])
        });
        object([("tasks", Value::List(tasks.collect()))])
    }

    /// Counters by family, for the metrics page.
    pub(super) fn metrics_page(&self) -> Value {
        let count = |n: u64| Value::Int(n.cast_signed());
        let families = self.metrics.iter().map(|(family, m)| {
            let counts = object([
                ("started", count(m.started)),
                ("failed", count(m.failed)),
                ("disabled", count(m.disabled)),
                ("done", count(m.done)),
                ("seconds", Value::Float(m.seconds)),
            ]);
            (family.to_string(), counts)
        });
        Value::Object(families.collect())
    }
}
