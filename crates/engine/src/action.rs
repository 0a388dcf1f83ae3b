//! What the engine wants done, and what it wants kept.

use kobza_model::{
    Cause, Event, ExpansionRow, Json, LaunchId, LimitRow, MachineRow, NodeNo, OutputRow, RunId,
    RunRow, ScopeNo, ScopeRow, TaskId, TaskNo, TaskRow, TemplateNo,
};

/// Something to do after the commit of the batch that caused it. May be repeated after a crash.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Launch(Launch),
    Kill {
        launch: LaunchId,
        reason: KillReason,
    },
    /// A run has ended; its rows leave the engine's memory with the next eviction.
    RunEnded {
        run: RunId,
    },
    /// A run has started to run (left the queue).
    RunStarted {
        run: RunId,
    },
}

/// Hand a task to an executor.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    pub id: LaunchId,
    pub template: TemplateNo,
    pub scope: ScopeNo,
    pub node: Option<NodeNo>,
    pub index: Option<u32>,
    pub attempt: u32,
    /// State from an earlier launch of the same attempt, or null.
    pub carry: Json,
    /// Milliseconds that the body may run, from the node and what is left of the task's time.
    pub timeout_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    Stopped,
    Timeout,
    /// Another launch owns the task, or the task is gone.
    Superseded,
}

impl KillReason {
    #[must_use]
    pub fn from_cause(cause: Cause) -> Self {
        if cause == Cause::Timeout { Self::Timeout } else { Self::Stopped }
    }
}

/// What the engine cannot know. Not kept: after a restart open questions are asked again.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub task: TaskId,
    /// Must come back with the answer.
    pub serial: u32,
    pub kind: QuestionKind,
    pub scope: ScopeNo,
    pub node: Option<NodeNo>,
    pub index: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionKind {
    /// Run, skip, succeed or fail; with which arguments? (`Decision::{Run,Skip,Succeed,Fail}`)
    Guard,
    /// How long is the expansion? (`Decision::{Expand,Skip,Fail}`)
    Expansion,
    /// What does the scope `child` put out? (`Decision::{Outputs,Fail}`)
    ScopeOutputs { child: ScopeNo },
    /// May the failed attempt be repeated? (`Decision::{Retry,GiveUp}`)
    Retry,
}

/// What a command's caller is told, after the commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Done,
    RunStarted(RunId),
    /// The tasks that a clear reopened.
    Cleared(Vec<TaskNo>),
    /// The machine's answer.
    Machine(Json),
}

/// Everything that changed since the last drain: one transaction for the store. Rows are whole and
/// current; each appears once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub runs: Vec<RunRow>,
    pub tasks: Vec<TaskRow>,
    pub scopes: Vec<ScopeRow>,
    pub expansions: Vec<ExpansionRow>,
    pub outputs: Vec<OutputRow>,
    /// Finished attempts that a newer one replaces: history.
    pub attempts: Vec<TaskRow>,
    /// Outputs of these tasks are void (the task was cleared or retried): delete before `outputs`.
    pub dropped_outputs: Vec<TaskId>,
    /// Rows of these tasks go, with their attempts and outputs; after `tasks` are written.
    pub removed_tasks: Vec<TaskId>,
    pub limits: Vec<LimitRow>,
    pub removed_limits: Vec<String>,
    pub machine: Vec<MachineRow>,
    pub events: Vec<Event>,
}

impl Batch {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}
