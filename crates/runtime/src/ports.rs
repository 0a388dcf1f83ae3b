//! The seams of the runtime: what it needs from executors and dialects.

use std::sync::Arc;

use kobza_engine::{Decision, KillReason, Launch, MachineFactory, Question, Report};
use kobza_model::{
    EngineTime, Json, LaunchId, NodeNo, RunRow, ScopeNo, ScopeRow, TaskNo, TaskRow, Timestamp,
    Workflow,
};

/// Runs bodies of tasks. Methods are called from the runtime's one thread: they must not block.
pub trait Executor: Send + Sync {
    /// Starts a body, or does nothing if this launch is known already (launches are repeated after
    /// a crash). What becomes of it comes back through the [`ReportSink`] given at creation.
    fn launch(&self, launch: LaunchId, spec: LaunchSpec);

    /// Ends a body: politely, then by force. A report follows in any case.
    fn kill(&self, launch: LaunchId, reason: KillReason);

    /// After a restart: these launches were committed as confirmed. Those that still run are taken
    /// up again; for the others a report (finished, from the spool, or lost) follows.
    fn adopt(&self, launches: Vec<LaunchId>);
}

/// Where executors deliver reports. Blocks while the inbox is full (back-pressure).
/// `on_durable` is called after the commit (or at once when the report is refused as stale): then
/// the executor may forget what it spooled.
pub trait ReportSink: Send + Sync {
    fn report(&self, report: Report, on_durable: Box<dyn FnOnce() + Send>);

    /// An instant of wall time in engine time, as of now.
    fn engine_time(&self, wall: Timestamp) -> EngineTime;

    /// A running body asks something ([`Dialect::ask`]). `on_answer` is called when there is an
    /// answer, or dropped when there will be none: then the executor asks again later. A sink
    /// without a loop has no answers.
    fn ask(&self, ask: Ask, on_answer: Box<dyn FnOnce(Answer) + Send>) {
        on_answer(Answer::refused(format!("nobody here answers what {} asks", ask.launch)));
    }
}

/// A question of a running body. It is repeated, with the same number, until it is answered: whoever
/// answers must not mind being asked twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub launch: LaunchId,
    /// Unique within the launch.
    pub number: u64,
    /// What is asked, in the words of the run's dialect.
    pub body: Json,
}

/// What a body gets to hear.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Answer {
    /// A value, or why there is none.
    pub result: Result<Json, String>,
    /// From now on masked in the body's log and messages, and never to be logged themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

impl Answer {
    #[must_use]
    pub fn value(value: Json) -> Self {
        Self { result: Ok(value), secrets: Vec::new() }
    }

    #[must_use]
    pub fn refused(reason: impl Into<String>) -> Self {
        Self { result: Err(reason.into()), secrets: Vec::new() }
    }
}

/// What an executor gets to run.
#[derive(Clone, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct LaunchSpec {
    pub program: String,
    pub args: Vec<String>,
    /// Added to (or, with `clear_env`, instead of) the executor's own environment.
    pub env: Vec<(String, String)>,
    #[serde(default)]
    pub clear_env: bool,
    /// Working folder; none: a fresh private folder that is removed afterwards.
    #[serde(default)]
    pub folder: Option<String>,
    /// Text for the standard input; none: empty.
    #[serde(default)]
    pub stdin: Option<String>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub umask: Option<u32>,
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Between the polite signal and SIGKILL.
    #[serde(default)]
    pub grace_ms: Option<u64>,
    /// Bytes of address space per process (RLIMIT_AS) when no cgroup is usable, else of the tree.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// CPU seconds per process.
    #[serde(default)]
    pub cpu_seconds: Option<u64>,
    /// Bytes of log kept; what comes after is dropped and said so.
    #[serde(default)]
    pub log_bytes: Option<u64>,
    /// Bytes of the output file; a larger one fails the task with `Cause::Limit`.
    #[serde(default)]
    pub output_bytes: Option<u64>,
    /// Files to write into the private folder first: (relative path, content).
    #[serde(default)]
    pub files: Vec<(String, String)>,
    /// Exit codes that mean skipped rather than failed.
    #[serde(default)]
    pub skip_exit_codes: Vec<i32>,
    /// Keep the last line of standard output as the output `result` if no output file was written.
    #[serde(default)]
    pub capture_result: bool,
    /// Values to mask in the log, and never to be logged themselves.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// For executors other than `process`: what they need, opaque here.
    #[serde(default)]
    pub extra: Json,
    /// The body only looks whether something is there, and is repeated until it is.
    #[serde(default)]
    pub poll: Option<Poll>,
}

/// A look that may be repeated: in between nothing is held.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Poll {
    /// Exit codes that mean "not yet".
    pub exit_codes: Vec<i32>,
    /// Milliseconds between two looks.
    pub every_ms: u64,
    /// When it gives up: after a last look it has timed out.
    pub deadline: Option<Timestamp>,
    /// Comes back with the next launch.
    pub carry: Json,
}

/// A dialect's pure half, as the runtime calls it. No I/O: everything it may know comes in `Facts`.
pub trait Dialect: Send + Sync {
    /// The word in `Workflow::dialect`.
    fn name(&self) -> &'static str;

    /// Answers a question of the engine.
    fn decide(&self, question: &Question, facts: &dyn Facts) -> Decision;

    /// Which executor runs this launch, and what. An error fails the task with `Cause::Template`
    /// and this message.
    fn launch(
        &self,
        launch: &Launch,
        facts: &dyn Facts,
    ) -> Result<(ExecutorName, LaunchSpec), String>;

    /// Answers a running body. `ask.launch` is its task's newest launch.
    fn ask(&self, _ask: &Ask, _facts: &dyn Facts) -> Answer {
        Answer::refused(format!("tasks of the dialect {:?} have nothing to ask", self.name()))
    }

    /// For driven systems.
    fn machine(&self) -> Option<Arc<dyn MachineFactory>> {
        None
    }
}

/// The name an executor is registered under, such as `process`.
pub type ExecutorName = &'static str;

/// What a dialect may look at while it decides: the run at hand, as of this step.
pub trait Facts {
    fn run(&self) -> &RunRow;
    fn workflow(&self) -> &Arc<Workflow>;
    fn now(&self) -> Timestamp;
    fn scope(&self, scope: ScopeNo) -> Option<ScopeRow>;
    /// Row of a task as the engine has it now.
    fn task(&self, task: TaskNo) -> Option<TaskRow>;
    /// The task of a node in a scope: for an expanded node its summary (`index: None`) or one
    /// instance.
    fn task_of(&self, scope: ScopeNo, node: NodeNo, index: Option<u32>) -> Option<TaskRow>;
    /// The length of an expanded node, once known.
    fn expansion(&self, scope: ScopeNo, node: NodeNo) -> Option<u32>;
    /// One output of a task.
    fn output(&self, task: TaskNo, key: &str) -> Option<Arc<Json>>;
    /// All outputs of a task.
    fn outputs(&self, task: TaskNo) -> Vec<(String, Arc<Json>)>;
    /// Live runs of the same workflow, this one among them.
    fn live_runs(&self) -> Vec<RunRow>;
    /// Tasks of one name directly in another live run, each instance of an expansion.
    fn tasks_in(&self, run: kobza_model::RunId, name: &str) -> Vec<TaskRow>;
    /// A value of the namespace: `variable`, `connection`, `secret`, `configmap`, by name.
    fn lookup(&self, kind: &str, name: &str) -> Option<Arc<Json>>;
    /// A cached result by key, with when it was made.
    fn cached(&self, key: &str) -> Option<(Timestamp, Vec<(String, Json)>)>;
}
