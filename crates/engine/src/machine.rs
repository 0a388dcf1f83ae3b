//! Dialect machines: what a driven system must remember that the engine has no word for.
//!
//! A machine belongs to one open run. It is pure, is called inside the engine's step, and its rows
//! are committed in the same transaction as the engine's, so both always agree.

use kobza_model::{Cause, Json, MachineRow, Now, Outcome, RunId, TaskState, Timestamp};

use crate::NewTask;

/// A small pure state machine of a dialect.
pub trait Machine: Send {
    /// Answers one call. `Err` is a text for the caller; the machine must then be unchanged.
    fn call(
        &mut self,
        request: MachineRequest<'_>,
        out: &mut MachineOutput,
    ) -> Result<Json, String>;

    /// Whether it may still speak of a task of this name. Asked after a restart: what it has
    /// forgotten leaves the memory, as if it were listed in [`MachineOutput::forgotten`].
    fn knows(&self, _task: &str) -> bool {
        true
    }

    /// Who works for the run and what they share, where workers come from outside.
    fn overview(&self) -> Option<Overview> {
        None
    }

    /// The engine time at which `call` wants to be called with method `$tick`, if any.
    fn next_tick(&self) -> Option<kobza_model::EngineTime> {
        None
    }
}

/// A call.
#[derive(Debug)]
pub struct MachineRequest<'a> {
    pub now: Now,
    pub method: &'a str,
    pub arguments: &'a Json,
}

/// What a call changes besides the machine itself.
#[derive(Debug, Default)]
pub struct MachineOutput {
    /// Rows to keep; the run is filled in by the engine. `value: None` deletes.
    pub rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Tasks new to the run. Adding a known name updates its priority, inputs and upstreams.
    pub tasks: Vec<NewTask>,
    /// What became of the run's tasks, by name.
    pub observed: Vec<(String, TaskState, Cause, Option<String>)>,
    /// Finished tasks that the machine will not speak of again. They leave the memory; the rows of
    /// the newest stay for readers. A task of the same name that is added later is another one.
    pub forgotten: Vec<String>,
    /// Data that tasks of the run published.
    pub published: Vec<Published>,
    /// What the event log shall tell that no state does: a word, and JSON text.
    pub notes: Vec<(String, String)>,
    /// The run is over.
    pub close: Option<Outcome>,
}

/// A piece of data that a task of an open run published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The task's name.
    pub task: String,
    /// A name that [`kobza_model::validate_asset`] accepts.
    pub asset: String,
    pub partition: Option<String>,
    /// JSON text of an object.
    pub metadata: String,
}

/// Workers of an open run, and the resources that they share.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overview {
    /// The newest first.
    pub workers: Vec<WorkerView>,
    /// By name.
    pub resources: Vec<ResourceView>,
    /// Nobody gets new work.
    pub paused: bool,
}

/// A worker process that asks for work.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    pub name: String,
    /// The machine that it says it runs on.
    pub host: Option<String>,
    /// It gets no new work: somebody disabled it.
    pub disabled: bool,
    /// It runs what others asked for.
    pub assistant: bool,
    /// When it was first heard of, and last; by this server's clock.
    pub started_at: Timestamp,
    pub seen_at: Timestamp,
    /// Tasks that it runs at once.
    pub processes: u32,
    /// Names of tasks that it runs.
    pub running: Vec<String>,
    /// Tasks that wait and that it may run, and those of them that nobody else may.
    pub pending: u64,
    pub unique: u64,
}

/// Something that tasks need an amount of while they run.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceView {
    pub name: String,
    pub total: f64,
    pub used: f64,
    /// Running tasks that hold some of it.
    pub tasks: u64,
}

/// Makes machines: new ones, and ones restored from their rows.
pub trait MachineFactory: Send + Sync {
    /// `settings` is the run's `extra`.
    fn restore(&self, run: RunId, settings: &Json, rows: Vec<MachineRow>) -> Box<dyn Machine>;
}
