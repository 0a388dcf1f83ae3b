//! The engine: a synchronous, deterministic state machine.
//!
//! Commands go in with the two clocks' readings; changed rows, events, questions and actions come
//! out. No clock, no randomness, no I/O, no async, ordered maps only: the same commands always give
//! the same result, which is what the simulator and crash recovery rest on.

mod action;
mod added;
mod answer;
mod attempt;
mod clear;
mod command;
mod control;
mod end;
mod engine;
mod expand;
mod flow;
mod gate_eval;
mod hooks;
mod limits;
mod machine;
mod memory;
mod open_run;
mod plan;
mod report;
mod restore;
mod start;
mod stop;
mod tasks;
pub mod transition;
mod verdict;
mod view;
mod why;

pub use action::{Action, Batch, KillReason, Launch, Question, QuestionKind, Reply};
pub use command::{
    ClearOptions, Command, Decision, MachineCall, NewTask, Refusal, Report, ReportBody, StartRun,
    StopMode,
};
pub use engine::{Engine, EngineOptions};
pub use gate_eval::{Counts, decide_counting};
pub use limits::{LimitKey, LimitView};
pub use machine::{
    Machine, MachineFactory, MachineOutput, MachineRequest, Overview, Published, ResourceView,
    WorkerView,
};
pub use plan::{MAX_NODES, Plan, PlanError};
pub use transition::Move;
