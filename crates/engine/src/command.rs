//! What can be asked of the engine.

use std::sync::Arc;

use kobza_model::{
    Cause, EngineTime, Json, LaunchId, NodeNo, Outcome, RunId, TaskId, TaskNo, TaskState,
    Timestamp, Workflow,
};

/// A command. Each is applied whole or refused whole.
#[derive(Clone, Debug)]
pub enum Command {
    StartRun(Box<StartRun>),
    /// From an executor, about a launch.
    Report(Report),
    /// The answer to a question.
    Answer {
        task: TaskId,
        serial: u32,
        decision: Decision,
    },
    /// Ask the open question of a task again: what its answer waited for has changed. Nothing
    /// happens if none is open.
    Ask {
        task: TaskId,
    },
    /// Time has passed: fire what is due.
    Tick,
    StopRun {
        run: RunId,
        mode: StopMode,
        reason: String,
    },
    PauseRun {
        run: RunId,
    },
    ResumeRun {
        run: RunId,
    },
    /// Stop one task.
    StopTask {
        task: TaskId,
        reason: String,
    },
    /// Wake a suspended or deferred task: `Resume` with a result ends it as succeeded with these
    /// outputs, without one it is launched again with `carry`.
    ResumeTask {
        task: TaskId,
        outputs: Option<Vec<(String, Json)>>,
        carry: Option<Json>,
    },
    /// Reopen finished tasks so that they run again.
    Clear {
        run: RunId,
        tasks: Vec<TaskNo>,
        options: ClearOptions,
    },
    /// Set the state of a task by hand (succeeded, failed or skipped).
    Mark {
        task: TaskId,
        outcome: Outcome,
        by: String,
    },
    SetLimit {
        name: String,
        capacity: u32,
        strict: bool,
        description: Option<String>,
    },
    RemoveLimit {
        name: String,
    },
    /// Tasks for an open run, or dynamic tasks of a running task.
    AddTasks {
        run: RunId,
        tasks: Vec<NewTask>,
    },
    /// A driver states what happened to a task of an open run.
    Observe {
        run: RunId,
        name: String,
        state: TaskState,
        cause: Cause,
        message: Option<String>,
        at: Timestamp,
    },
    /// An open run is over.
    CloseRun {
        run: RunId,
        outcome: Outcome,
    },
    /// A call for the dialect machine of an open run.
    Machine {
        run: RunId,
        request: MachineCall,
    },
    /// Somebody outside sent an event by name: it is put on record for whoever waits for it.
    Announce {
        namespace: String,
        name: String,
        /// JSON text.
        payload: String,
    },
    /// Set the dialect's own notes on a run, its labels, or the parameters that tasks see from
    /// now on.
    Annotate {
        run: RunId,
        labels: Option<Json>,
        params: Option<Json>,
        extra: Option<Json>,
    },
    /// Somebody outside published data of an asset. What happens outside of any run is of the
    /// namespace `default`.
    Publish {
        asset: String,
        partition: Option<String>,
        /// JSON text.
        metadata: String,
    },
}

/// A call of a dialect machine's method.
#[derive(Clone, Debug)]
pub struct MachineCall {
    pub method: String,
    pub arguments: Json,
}

/// Everything a run starts with. Ids and times are data.
#[derive(Clone, Debug)]
pub struct StartRun {
    pub run: RunId,
    pub namespace: String,
    pub workflow: Arc<Workflow>,
    /// Content hash of `workflow`.
    pub version: String,
    /// Already checked against the workflow's schema, defaults filled in.
    pub params: Json,
    pub key: Option<String>,
    pub trigger: String,
    pub interval: Option<(Timestamp, Timestamp)>,
    pub partition: Option<String>,
    pub labels: Json,
    pub parent: Option<TaskId>,
    pub priority: i32,
    pub extra: Json,
}

/// What an executor says about a launch.
#[derive(Clone, Debug)]
pub struct Report {
    pub launch: LaunchId,
    /// When it happened, by the executor's clock.
    pub at: Timestamp,
    pub body: ReportBody,
}

#[derive(Clone, Debug)]
pub enum ReportBody {
    /// The executor has it and the body runs.
    Started,
    Finished {
        outcome: Outcome,
        cause: Cause,
        message: Option<String>,
        exit_code: Option<i32>,
        outputs: Vec<(String, Json)>,
        /// Nodes of its graph that must be skipped.
        skips: Vec<NodeNo>,
        /// A draw from 0 to 1, for the jitter of a retry.
        jitter: f64,
    },
    /// Give the worker back; wake at a time, or by `ResumeTask`. `carry` comes back with the next
    /// launch.
    Deferred { until: Option<EngineTime>, carry: Json },
    /// A sensor's next poke.
    Rescheduled { until: EngineTime, carry: Json },
    /// Wait for a person or a call.
    Suspended { carry: Json },
    /// Its body disappeared, and that is certain: nothing of it runs any more.
    Lost { message: String },
    /// Outputs before the end, or after it while no newer launch has the task.
    Outputs(Vec<(String, Json)>),
    /// New tasks from a running task.
    AddTasks(Vec<NewTask>),
    /// Data that a running task has published, beside what its node declares to produce.
    Published { asset: String, partition: Option<String>, metadata: String },
    /// An event to record.
    Note { word: String, detail: String },
}

/// A task that a driver or a running task adds.
#[derive(Clone, Debug)]
pub struct NewTask {
    pub name: String,
    /// Names of tasks of the same run that it depends on.
    pub upstream: Vec<String>,
    pub state: TaskState,
    pub priority: i32,
    pub inputs: Json,
    pub extra: Json,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Go on, with these resolved arguments.
    Run {
        inputs: Json,
    },
    /// The expansion's length; `items` is kept as the summary task's output `$items`.
    Expand {
        length: u32,
        items: Option<Json>,
        inputs: Json,
    },
    Skip {
        cause: Cause,
        message: Option<String>,
    },
    /// End it as succeeded without running (cache).
    Succeed {
        cause: Cause,
        outputs: Vec<(String, Json)>,
    },
    /// `cause` is usually [`Cause::Guard`] or [`Cause::Template`].
    Fail {
        cause: Cause,
        message: String,
    },
    /// Outputs of a scope that ended.
    Outputs(Vec<(String, Json)>),
    /// Retry after so many milliseconds; `None` means by the node's own backoff. `carry` comes with
    /// the next attempt's first launch.
    Retry {
        delay_ms: Option<u64>,
        carry: Json,
    },
    /// Do not retry.
    GiveUp {
        message: Option<String>,
    },
    /// There is no answer yet: the question stays open until [`Command::Ask`] (or a restart) asks
    /// it again. The reason is what the task waits for, in words.
    Wait {
        reason: String,
    },
}

/// How to stop a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopMode {
    /// Running tasks are killed, exit hooks run, the run ends as cancelled.
    Cancel,
    /// Running tasks are killed, exit hooks run, the run ends as failed.
    Stop,
    /// As `Stop`, without hooks.
    Terminate,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClearOptions {
    /// Also everything that depends on them. Tasks of an earlier activation are left out.
    pub downstream: bool,
    /// Of the selection, only what failed (or is upstream_failed).
    pub only_failed: bool,
}

/// Why a command was refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("run {0} does not exist")]
    NoRun(RunId),
    #[error("task {0} does not exist")]
    NoTask(TaskId),
    #[error("run {0} exists already")]
    RunExists(RunId),
    #[error("the launch is no longer current")]
    Stale,
    #[error("the question is no longer open")]
    NotAsked,
    #[error("{what} is {state}; {hint}")]
    WrongState { what: String, state: &'static str, hint: &'static str },
    #[error("limit {0:?} does not exist")]
    NoLimit(String),
    #[error("run {0} does not accept tasks from outside")]
    NotOpen(RunId),
    #[error("{0}")]
    Invalid(String),
}
