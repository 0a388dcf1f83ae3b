//! Rows: what the engine asks the store to keep, and all that it needs to go on after a crash.
//!
//! Each row is the current state of one thing; a batch writes the rows that changed, once, however
//! often they changed. Everything else in the engine's memory is derived from them.

use serde::{Deserialize, Serialize};

use crate::{
    Cause, EngineTime, Json, NodeNo, RunId, RunState, ScopeNo, TaskNo, TaskState, TemplateNo,
    Timestamp,
};

/// A run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunRow {
    pub run: RunId,
    pub namespace: String,
    pub workflow: String,
    /// Content hash of the version it runs, in hexadecimal.
    pub version: String,
    pub dialect: String,
    pub state: RunState,
    pub cause: Cause,
    pub message: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub params: Json,
    /// Unique within (namespace, workflow) when present: a dialect's run id, a trigger's slot.
    pub key: Option<String>,
    /// How it came to be: `manual`, `api`, `schedule`, `backfill`, `asset`, `task`, ...
    pub trigger: String,
    pub interval_start: Option<Timestamp>,
    pub interval_end: Option<Timestamp>,
    pub partition: Option<String>,
    pub labels: Json,
    /// The task that started this run, if one did.
    pub parent: Option<crate::TaskId>,
    pub priority: i32,
    /// How often a finished run was reopened.
    pub generation: u32,
    /// The state to return to, while paused.
    pub paused_from: Option<RunState>,
    /// Deadline of the run time-out, in engine time.
    pub deadline: Option<EngineTime>,
    /// Why it is being cancelled, and whether exit hooks still run.
    pub stop: Option<String>,
    /// Number of tasks in each state, by the state's number; expanded instances included, even
    /// those that do not exist yet.
    pub counts: Vec<u32>,
    /// The dialect's own notes on the run.
    pub extra: Json,
}

/// A task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskRow {
    pub run: RunId,
    pub task: TaskNo,
    pub scope: ScopeNo,
    /// Place in the scope's graph; `None` for hooks and for tasks of an open run.
    pub node: Option<NodeNo>,
    pub template: TemplateNo,
    /// The node's name, a hook's name, or the name given by the driver of an open run.
    pub name: String,
    /// Index in its expansion.
    pub index: Option<u32>,
    /// It stands for the instances of an expansion (or, task 0, for the run): lists leave it out.
    pub summary: bool,
    /// It has been settled for its readers (finished, and its hooks too).
    pub settled: bool,
    /// The task on whose behalf it exists: the summary of an instance, the owner of a hook.
    pub parent: Option<TaskNo>,
    /// Place of the hook in its owner's list.
    pub hook: Option<u16>,
    pub state: TaskState,
    pub cause: Cause,
    pub message: Option<String>,
    /// Attempts begun, from 1; 0 before the first.
    pub attempt: u32,
    /// Attempts made before the task was last cleared: they do not count against the retry limit.
    pub attempts_before: u32,
    /// Number of its newest launch.
    pub launch: u32,
    /// Launches of this attempt that were lost and sent again.
    pub lost: u8,
    /// The executor has confirmed the newest launch.
    pub confirmed: bool,
    pub exit_code: Option<i32>,
    pub priority: i32,
    pub created_at: Timestamp,
    pub ready_at: Option<Timestamp>,
    /// When the current or last attempt started to run.
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// Start of the first attempt, in engine time: where task time-outs count from.
    pub first_started: Option<EngineTime>,
    /// The next timer: retry, reschedule, time-out; its meaning follows from the state.
    pub due: Option<EngineTime>,
    /// What it is being killed for, while cancelling; [`Cause::None`]: to run again (cleared).
    pub kill: Option<Cause>,
    /// The scope that it activated, if it calls a graph.
    pub child: Option<ScopeNo>,
    /// Nodes that this task decided to skip.
    pub skips: Vec<NodeNo>,
    /// Resolved arguments, from the guard's answer.
    pub inputs: Json,
    /// State kept between launches of one attempt (deferral, reschedule), opaque.
    pub carry: Json,
    pub extra: Json,
}

/// An activation of a graph.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ScopeRow {
    pub run: RunId,
    pub scope: ScopeNo,
    pub template: TemplateNo,
    /// The calling task; `None` for the root.
    pub owner: Option<TaskNo>,
    /// The owner's attempt that it belongs to.
    pub attempt: u32,
    pub finished: bool,
}

/// A known length of an expanded node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExpansionRow {
    pub run: RunId,
    pub scope: ScopeNo,
    pub node: NodeNo,
    pub length: u32,
    /// Instances made so far, in order of index.
    pub made: u32,
}

/// An output of a task (or of a scope, under its owner), a small value.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OutputRow {
    pub run: RunId,
    pub task: TaskNo,
    pub key: String,
    pub value: Json,
}

/// A limit's capacity. Who holds it follows from the tasks' states.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LimitRow {
    pub name: String,
    pub capacity: u32,
    /// A waiter that does not fit holds back those behind it.
    pub strict: bool,
    pub description: Option<String>,
}

/// What a dialect machine remembers; `None` deletes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MachineRow {
    pub run: RunId,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// Something that happened. Its sequence number is given by the store's one writer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    pub at: Timestamp,
    pub run: Option<RunId>,
    pub task: Option<TaskNo>,
    pub kind: EventKind,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Run {
        state: RunState,
        cause: Cause,
    },
    Task {
        state: TaskState,
        cause: Cause,
        attempt: u32,
    },
    Expanded {
        length: u32,
    },
    Cleared {
        tasks: u32,
    },
    Marked {
        state: TaskState,
        by: String,
    },
    /// A task published its data.
    Materialized {
        asset: String,
        partition: Option<String>,
        metadata: String,
    },
    Checked {
        asset: String,
        check: String,
        passed: bool,
        blocking: bool,
        detail: String,
    },
    /// A note of a dialect, a trigger, a person: a word and JSON text.
    Note {
        word: String,
        detail: String,
    },
    /// Somebody outside sent an event by name.
    Sent {
        namespace: String,
        name: String,
        /// JSON text.
        payload: String,
    },
}

/// A run as the store knows it: what the engine needs to take it up again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunImage {
    pub run: RunRow,
    pub tasks: Vec<TaskRow>,
    pub scopes: Vec<ScopeRow>,
    pub expansions: Vec<ExpansionRow>,
    pub machine: Vec<MachineRow>,
}
