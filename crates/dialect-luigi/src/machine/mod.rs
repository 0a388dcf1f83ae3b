//! The scheduler as a pure state machine: one open run, one machine.
//!
//! Calls come in with the two clocks' readings and the arguments as the client sent them (the text
//! of Python's JSON, or ordinary JSON); the reply is of the same kind. Changed rows and what the
//! run shall show of the tasks go out with it.

mod add_task;
mod args;
mod blocked;
mod groups;
mod history;
mod index;
mod mirror;
mod node;
mod ops;
mod overview;
mod prune;
mod read;
mod resources;
mod rows;
mod state;
mod status;
mod targets;
mod walk;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kobza_engine::{Machine, MachineFactory, MachineOutput, MachineRequest, Overview, Published};
use kobza_model::{EngineTime, Json, MachineRow, RunId};

use self::args::Args;
use self::history::History;
use self::index::Index;
use self::mirror::Farewell;
use self::resources::Capacities;
use self::state::{Batchers, NodeNo, RetryPolicy, WorkerNo};
use crate::config::LuigiConfig;
use crate::pyjson::Value;

/// Milliseconds of engine time between two prunings, as luigid does it.
const PRUNE_EVERY_MS: u64 = 60_000;
/// Tasks of a kind that one call prunes, and removed tasks whose rows it deletes: a pruning of many
/// tasks must hold up no worker, and must not be one huge commit.
const PRUNED_PER_CALL: usize = 256;
/// Milliseconds until the rest is pruned.
const PRUNE_AGAIN_MS: u64 = 20;

/// Why a call was refused; the machine is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Bad(String),
    #[error("there is no method {0:?}")]
    NoMethod(String),
}

/// A reply.
pub(crate) enum Answer {
    Value(Value),
    /// Text of a value, for large ones.
    Text(String),
}

/// What changed since the last output.
#[derive(Debug, Default)]
struct Dirty {
    /// Tasks whose definition changed, and those whose state did.
    definitions: BTreeSet<NodeNo>,
    states: BTreeSet<NodeNo>,
    workers: BTreeSet<WorkerNo>,
    gone_workers: BTreeSet<WorkerNo>,
    batchers: BTreeSet<(Arc<str>, Arc<str>)>,
    globals: bool,
    history: BTreeMap<u64, bool>,
}

/// Counters of a family of tasks, for the metrics page. They start from zero with the process.
#[derive(Debug, Default, Clone)]
struct Metrics {
    started: u64,
    failed: u64,
    disabled: u64,
    done: u64,
    seconds: f64,
}

/// One Luigi scheduler.
#[derive(Debug)]
pub struct LuigiMachine {
    run: RunId,
    config: LuigiConfig,
    capacities: Capacities,
    paused: bool,
    index: Index,
    batchers: Batchers,
    history: History,
    metrics: BTreeMap<Arc<str>, Metrics>,
    next_seq: u64,
    next_entered: u64,
    next_worker: WorkerNo,
    next_message: u64,
    dirty: Dirty,
    farewells: VecDeque<Farewell>,
    /// For the next output.
    published: Vec<Published>,
    notes: Vec<(String, String)>,
    reads: read::Reads,
    /// After a restart workers count as seen at the first call.
    fresh: bool,
    next_prune: Option<EngineTime>,
    prune_again: bool,
}

impl LuigiMachine {
    /// A scheduler that knows nothing yet.
    #[must_use]
    pub fn new(run: RunId, config: LuigiConfig) -> Self {
        let capacities = config.resources.iter().map(|(k, v)| (k.clone(), capacity(*v))).collect();
        Self {
            run,
            config,
            capacities,
            paused: false,
            index: Index::new(),
            batchers: Batchers::new(),
            history: History::default(),
            metrics: BTreeMap::new(),
            next_seq: 1,
            next_entered: 1,
            next_worker: 1,
            next_message: 1,
            dirty: Dirty::default(),
            farewells: VecDeque::new(),
            published: Vec::new(),
            notes: Vec::new(),
            reads: read::Reads::default(),
            fresh: false,
            next_prune: None,
            prune_again: false,
        }
    }

    fn policy(&self) -> RetryPolicy {
        RetryPolicy::from_config(&self.config)
    }

    fn answer(&mut self, method: &str, args: &Args, now: f64) -> Result<Answer, Refused> {
        let value = match method {
            "add_task" => self.add_task(args, now)?,
            "get_work" => self.get_work(args, now)?,
            "ping" => self.ping(args, now)?,
            "count_pending" => {
                let worker = args.worker()?;
                let worker = self.worker(worker, now);
                Value::Object(self.count_pending(worker, now))
            }
            "add_worker" => self.add_worker(args, now)?,
            "add_task_batcher" => self.add_task_batcher(args)?,
            "announce_scheduling_failure" => self.announce_failure(args),
            "report_targets" => self.report_targets(args)?,
            "report_task_statistics" | "update_metrics_task_started" => Value::Null,
            "set_task_status_message" => self.set_status_message(args)?,
            "get_task_status_message" => self.get_status_message(args)?,
            "set_task_progress_percentage" => self.set_progress(args)?,
            "get_task_progress_percentage" => self.get_progress(args)?,
            "decrease_running_task_resources" => self.decrease_resources(args)?,
            "get_running_task_resources" => self.running_resources(args)?,
            "add_scheduler_message_response" => self.add_message_response(args)?,
            "get_scheduler_message_response" => self.get_message_response(args)?,
            "send_scheduler_message" => self.send_message(args, now)?,
            "set_worker_processes" => self.set_worker_processes(args, now)?,
            "disable_worker" => self.disable_worker(args, now)?,
            "forgive_failures" => self.forgive_failures(args, now)?,
            "mark_as_done" => self.mark_as_done(args, now)?,
            "re_enable_task" => self.re_enable_task(args, now)?,
            "retry" => self.retry(args, now)?,
            "retry_all" => self.retry_all(args, now),
            "pause" | "unpause" => self.set_paused(method == "pause"),
            "is_paused" => object([("paused", Value::Bool(self.paused))]),
            "is_pause_enabled" => object([("enabled", Value::Bool(self.config.pause_enabled))]),
            "update_resources" => self.update_resources(args),
            "update_resource" => self.update_resource(args)?,
            "has_task_history" => Value::Bool(self.config.record_task_history),
            "fetch_error" => self.fetch_error(args)?,
            "prune" => {
                self.prune(now);
                Value::Null
            }
            "worker_list" => return Ok(Answer::Text(self.worker_list(args, now))),
            "resource_list" => return Ok(Answer::Text(self.resource_list(now))),
            "task_list" | "graph" | "dep_graph" | "inverse_dep_graph" | "task_search" => {
                return self.read_whole(method, args, now).map(Answer::Text);
            }
            "$read" => return self.read_page(args, now).map(Answer::Value),
            "$tick" => {
                self.prune(now);
                Value::Null
            }
            "$configure" => {
                self.configure(args.all());
                Value::Null
            }
            "$history" => self.history_page(args),
            "$metrics" => self.metrics_page(),
            _ => return Err(Refused::NoMethod(method.chars().take(80).collect())),
        };
        Ok(Answer::Value(value))
    }

    /// New settings. A resource keeps the capacity that it was given by a call, unless its
    /// configured one is another than before.
    fn configure(&mut self, settings: &crate::pyjson::Object) {
        let json = Value::Object(settings.clone()).to_json();
        let Ok(config) = serde_json::from_value::<LuigiConfig>(json) else { return };
        let before = std::mem::replace(&mut self.config, config);
        for name in before.resources.keys() {
            if !self.config.resources.contains_key(name) {
                self.capacities.remove(name);
            }
        }
        for (name, amount) in &self.config.resources {
            if before.resources.get(name) != Some(amount) {
                self.capacities.insert(name.clone(), capacity(*amount));
            }
        }
        self.dirty.globals |= before.resources != self.config.resources;
    }

    /// After a restart: whoever was there may still be there.
    fn wake(&mut self, now: f64) {
        if std::mem::take(&mut self.fresh) {
            for worker in self.index.workers.values_mut() {
                worker.last_active = Some(now);
                if worker.last_get_work.is_some() {
                    worker.last_get_work = Some(now);
                }
            }
        }
    }
}

impl Machine for LuigiMachine {
    fn call(
        &mut self,
        request: MachineRequest<'_>,
        out: &mut MachineOutput,
    ) -> Result<Json, String> {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of this era fit 53 bits")]
        let now = request.now.wall.0 as f64 / 1e6;
        let next = request.now.engine.after_millis(PRUNE_EVERY_MS);
        if request.method == "$tick" || self.next_prune.is_none() {
            self.next_prune = Some(next);
        }
        let (args, as_text) = Args::read(request.arguments).map_err(|e| e.to_string())?;
        self.wake(now);
        let answer = self.answer(request.method, &args, now).map_err(|e| e.to_string())?;
        self.flush(now, out);
        if self.prune_again || !self.farewells.is_empty() {
            let soon = request.now.engine.after_millis(PRUNE_AGAIN_MS);
            self.next_prune = self.next_prune.min(Some(soon));
        }
        Ok(match (answer, as_text) {
            (Answer::Text(text), true) => Json::String(text),
            (Answer::Value(value), true) => Json::String(value.to_string()),
            (Answer::Value(value), false) => value.to_json(),
            (Answer::Text(text), false) => {
                Value::parse(&text).map_err(|e| e.to_string())?.to_json()
            }
        })
    }

    fn knows(&self, task: &str) -> bool {
        self.index.find(task).is_some()
    }

    fn next_tick(&self) -> Option<EngineTime> {
        self.next_prune
    }

    fn overview(&self) -> Option<Overview> {
        Some(self.look())
    }
}

/// Makes schedulers; the run's `extra` is a [`LuigiConfig`] as JSON.
#[derive(Debug, Default)]
pub struct LuigiFactory;

impl MachineFactory for LuigiFactory {
    fn restore(&self, run: RunId, settings: &Json, rows: Vec<MachineRow>) -> Box<dyn Machine> {
        let config = serde_json::from_value(settings.clone()).unwrap_or_default();
        let mut machine = LuigiMachine::new(run, config);
        machine.load(rows);
        Box::new(machine)
    }
}

/// A configured amount as a number of Python's kind.
fn capacity(amount: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be a small integer")]
    if amount.fract() == 0.0 && amount.abs() < 1e15 {
        Value::Int(amount as i64)
    } else {
        Value::Float(amount)
    }
}

/// An object from its members.
fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

#[cfg(test)]
mod tests;
