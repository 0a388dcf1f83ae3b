//! What is read: by the API, the user interface and the dialects' wire APIs. Lists are paged by
//! the store, newest first where time matters, and stay fast with a million runs.

use kobza_model::{
    Event, ExpansionRow, Json, LimitRow, NodeNo, RunId, RunRow, RunState, ScopeNo, ScopeRow,
    TaskId, TaskNo, TaskRow, TaskState, Timestamp,
};

use super::{StoreError, StoredWorkflow};

/// Most items of one page, whatever is asked for.
pub const MAX_PAGE: u32 = 1000;

/// A view could not be given.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The caller's fault.
    #[error("the cursor does not belong to this list")]
    Cursor,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A piece of a list, and where the next one begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Opaque; `None` at the end. It stays good while rows come and go.
    pub next: Option<String>,
}

/// Which runs. Empty or absent means any; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    pub namespaces: Vec<String>,
    /// Exact name.
    pub workflow: Option<String>,
    pub states: Vec<RunState>,
    pub trigger: Option<String>,
    /// Each must be among the run's labels; of a list in the labels one item suffices.
    pub labels: Vec<(String, String)>,
    pub created_from: Option<Timestamp>,
    /// Exclusive.
    pub created_until: Option<Timestamp>,
    /// Part of the workflow's name, upper and lower case alike.
    pub search: Option<String>,
    /// Runs that tasks of this run started.
    pub parent: Option<RunId>,
    /// With `parent`: this task only.
    pub parent_task: Option<TaskNo>,
    pub partition: Option<String>,
}

/// Which tasks of a run.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    pub states: Vec<TaskState>,
    /// Exact name.
    pub name: Option<String>,
    /// Part of the name, upper and lower case alike.
    pub search: Option<String>,
    pub node: Option<NodeNo>,
    pub scope: Option<ScopeNo>,
    /// The task on whose behalf it exists (the summary of an instance).
    pub parent: Option<TaskNo>,
    pub index_from: Option<u32>,
    /// Exclusive.
    pub index_until: Option<u32>,
    /// Without the rows that stand for an expansion as a whole.
    pub hide_summaries: bool,
    /// Without the instances of expansions: each expansion is its summary.
    pub hide_instances: bool,
}

/// Tasks of one node in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskCount {
    pub scope: ScopeNo,
    pub node: Option<NodeNo>,
    pub name: String,
    pub state: TaskState,
    /// Instances that exist; summaries are counted only where no instance exists.
    pub tasks: u64,
}

/// A column of the grid: a run with its tasks by name.
#[derive(Clone, Debug, PartialEq)]
pub struct GridRun {
    pub run: RunRow,
    pub tasks: Vec<GridCell>,
}

/// The tasks of one name in one run, by state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridCell {
    pub name: String,
    pub states: Vec<(TaskState, u64)>,
}

/// Which workflows. Deleted ones are not listed.
#[derive(Clone, Debug, Default)]
pub struct WorkflowFilter {
    pub namespaces: Vec<String>,
    /// Part of the name, upper and lower case alike.
    pub search: Option<String>,
    /// All of them.
    pub tags: Vec<String>,
    pub dialect: Option<String>,
    pub paused: Option<bool>,
    /// So many of its newest runs come with each; at most 50.
    pub last_runs: u32,
}

/// A workflow in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkflowSummary {
    pub namespace: String,
    pub name: String,
    pub version: String,
    pub dialect: String,
    pub description: Option<String>,
    pub tags: Vec<String>,
    pub paused: bool,
    /// When the current version became current.
    pub updated_at: Timestamp,
    pub totals: Vec<(RunState, u64)>,
    /// Newest first.
    pub last_runs: Vec<RunRow>,
}

/// A version in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionSummary {
    pub version: String,
    pub created_at: Timestamp,
    pub current: bool,
}

/// Events with their numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct EventPage {
    pub events: Vec<(u64, Event)>,
    /// Ask again with this: everything up to it has been seen, whether it matched or not.
    pub seen: u64,
    /// The oldest event still kept; a follower that asked for older ones has missed some.
    pub oldest: u64,
}

/// A small keyed object.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredObject {
    pub namespace: String,
    pub key: String,
    pub value: Json,
    pub updated_at: Timestamp,
}

/// An asset in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetSummary {
    pub namespace: String,
    pub name: String,
    /// `None`: known from a check only.
    pub materialized_at: Option<Timestamp>,
    /// The number of that event.
    pub materialized_seq: Option<u64>,
    /// How often, over all time.
    pub materializations: u64,
    /// Partitions with data.
    pub partitions: u64,
}

/// Data was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Materialization {
    pub seq: u64,
    pub at: Timestamp,
    pub partition: Option<String>,
    pub run: Option<RunId>,
    pub task: Option<TaskNo>,
    /// JSON text.
    pub metadata: String,
}

/// An asset whose newest data says what it was made from: `made_from` in its metadata, a list of
/// assets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub asset: String,
    /// Of the run that made it.
    pub workflow: String,
    /// JSON text.
    pub metadata: String,
}

/// The newest data of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    pub partition: String,
    pub seq: u64,
    pub at: Timestamp,
    pub run: Option<RunId>,
    pub materializations: u64,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    pub seq: u64,
    pub check: String,
    pub passed: bool,
    pub blocking: bool,
    pub at: Timestamp,
    pub run: Option<RunId>,
    pub task: Option<TaskNo>,
    pub detail: String,
}

/// Something that happened to an asset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssetEvent {
    Made(Materialization),
    Checked(CheckResult),
}

impl AssetEvent {
    /// Its number in the event log.
    #[must_use]
    pub fn seq(&self) -> u64 {
        match self {
            Self::Made(made) => made.seq,
            Self::Checked(result) => result.seq,
        }
    }
}

/// Which events of an asset.
#[derive(Clone, Debug, Default)]
pub struct AssetEventFilter {
    pub made: bool,
    pub checked: bool,
    /// Of this partition; checks look at none.
    pub partition: Option<String>,
    /// Results of this check.
    pub check: Option<String>,
}

type Result<T> = std::result::Result<T, ViewError>;

/// The reading half of a store. A `limit` above [`MAX_PAGE`] means that.
pub trait Views: Send + Sync {
    /// Newest first.
    fn list_runs(
        &self,
        filter: &RunFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<RunRow>>;

    fn get_run(&self, run: RunId) -> Result<Option<RunRow>>;

    /// By number.
    fn list_tasks(
        &self,
        run: RunId,
        filter: &TaskFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<TaskRow>>;

    fn get_task(&self, task: TaskId) -> Result<Option<TaskRow>>;

    /// Finished attempts that newer ones replaced, oldest first.
    fn list_attempts(&self, task: TaskId) -> Result<Vec<TaskRow>>;

    /// By key.
    fn task_outputs(&self, task: TaskId) -> Result<Vec<(String, Json)>>;

    /// Outputs of all tasks of a run, in order of task and key.
    fn run_outputs(&self, run: RunId) -> Result<Vec<(TaskNo, String, Json)>>;

    fn task_output(&self, task: TaskId, key: &str) -> Result<Option<Json>>;

    /// A run's tasks with an output that holds a reference to an artifact (its text has
    /// `"$artifact"`) or notes (the key `$notes`), by number.
    fn artifact_tasks(&self, run: RunId, cursor: Option<&str>, limit: u32) -> Result<Page<TaskNo>>;

    fn task_counts(&self, run: RunId) -> Result<Vec<TaskCount>>;

    fn run_scopes(&self, run: RunId) -> Result<Vec<ScopeRow>>;

    fn run_expansions(&self, run: RunId) -> Result<Vec<ExpansionRow>>;

    /// The newest runs of a workflow with their tasks by name; at most 365 runs.
    fn grid(&self, namespace: &str, workflow: &str, runs: u32) -> Result<Vec<GridRun>>;

    /// By namespace and name.
    fn list_workflows(
        &self,
        filter: &WorkflowFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<WorkflowSummary>>;

    /// A version by its hash, or the current one.
    fn get_workflow(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<StoredWorkflow>>;

    /// Newest first.
    fn workflow_versions(&self, namespace: &str, name: &str) -> Result<Vec<VersionSummary>>;

    /// How many runs are in each state; of all namespaces when none is named.
    fn run_totals(&self, namespaces: &[String]) -> Result<Vec<(RunState, u64)>>;

    /// How many runs ended in each hour from that of `from` on, by state: the beginning of the
    /// hour (in UTC), oldest first. Of all namespaces when none is named.
    fn ended_by_hour(
        &self,
        namespaces: &[String],
        from: Timestamp,
    ) -> Result<Vec<(Timestamp, RunState, u64)>>;

    /// Hands out every stored JSON text that may refer to an artifact by its digest: outputs,
    /// parameters, tasks, cached results, what is told of materializations. Reads all of them.
    fn artifact_texts(&self, each: &mut dyn FnMut(&str)) -> Result<()>;

    /// Events after number `after`, of one run if given.
    fn events_since(&self, after: u64, limit: u32, run: Option<RunId>) -> Result<EventPage>;

    fn get_object(&self, kind: &str, namespace: &str, key: &str) -> Result<Option<StoredObject>>;

    /// By namespace and key, or the other way round (`descending`: newest first where keys begin
    /// with a time).
    fn list_objects(&self, query: &ObjectQuery<'_>) -> Result<Page<StoredObject>>;

    fn list_limits(&self) -> Result<Vec<LimitRow>>;

    /// By namespace and name.
    fn list_assets(
        &self,
        namespaces: &[String],
        search: Option<&str>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<AssetSummary>>;

    fn get_asset(&self, namespace: &str, name: &str) -> Result<Option<AssetSummary>>;

    /// Newest first, of one partition if given.
    fn asset_history(
        &self,
        namespace: &str,
        name: &str,
        partition: Option<&str>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Materialization>>;

    /// Assets whose newest data says what it was made from, by name; at most `limit`. Only while the
    /// run that made it is kept.
    fn asset_origins(&self, namespace: &str, limit: u32) -> Result<Vec<Origin>>;

    /// Partitions with data, by name.
    fn asset_partitions(
        &self,
        namespace: &str,
        name: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<PartitionStatus>>;

    /// The newest result of each check, by name.
    fn asset_checks(&self, namespace: &str, name: &str) -> Result<Vec<CheckResult>>;

    /// What happened to an asset before the event number `before`, newest first: made, or checked.
    fn asset_events(
        &self,
        namespace: &str,
        name: &str,
        wanted: &AssetEventFilter,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AssetEvent>>;
}

/// Which objects.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObjectQuery<'a> {
    /// One of [`super::kinds`].
    pub kind: &'a str,
    /// `None`: of all namespaces.
    pub namespace: Option<&'a str>,
    /// What keys begin with.
    pub prefix: &'a str,
    pub descending: bool,
    pub cursor: Option<&'a str>,
    pub limit: u32,
}
