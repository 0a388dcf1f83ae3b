//! Dialect machines: what a driven system must remember that the engine has no word for.
//!
//! A machine belongs to one open run. It is pure, is called inside the engine's step, and its rows
//! are committed in the same transaction as the engine's, so both always agree.

use kobza_model::{Cause, Json, MachineRow, Now, Outcome, RunId, TaskState};

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
    /// The run is over.
    pub close: Option<Outcome>,
}

/// Makes machines: new ones, and ones restored from their rows.
pub trait MachineFactory: Send + Sync {
    /// `settings` is the run's `extra`.
    fn restore(&self, run: RunId, settings: &Json, rows: Vec<MachineRow>) -> Box<dyn Machine>;
}
