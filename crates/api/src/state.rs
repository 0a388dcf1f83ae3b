//! What handlers share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use kobza_blobs::{ArtifactStore, LogStore};
use kobza_engine::Command;
use kobza_model::{Json, LimitRow, Outcome, RunId, TaskId, TaskNo, TaskState, Timestamp, Workflow};
use kobza_runtime::{Facts, Handle, Submission};
use kobza_store::{Store, Views};
use tokio::sync::broadcast;

use crate::error::{ApiError, Problem};
use crate::shape::Shapes;

/// A definition as it was read from its source.
#[derive(Clone, Debug)]
pub struct Definition {
    pub workflow: Workflow,
    pub namespace: Option<String>,
    /// Limits that it declares.
    pub limits: Vec<LimitRow>,
    /// Things that may be mistakes.
    pub warnings: Vec<Problem>,
}

/// A task's body, for people to read.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// What colours the text: `bash`, `python`, `sql`, `text`.
    pub language: &'static str,
    pub text: String,
    /// Arguments by name; null where it takes none.
    pub inputs: Json,
}

/// What a suspended task asks of a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    pub prompt: Option<String>,
    /// The schema of the values that an approval may hold; null: none.
    pub fields: Json,
    /// Who may decide; empty: whoever may operate.
    pub approvers: Vec<String>,
}

/// What a person decided.
#[derive(Clone, Debug)]
pub struct Decision {
    pub approved: bool,
    pub comment: Option<String>,
    pub values: Json,
    pub by: String,
    /// There are no accounts: nobody can be told from another.
    pub anybody: bool,
}

/// Why a decision is not taken: an HTTP status, and words.
#[derive(Clone, Debug)]
pub struct NotTaken {
    pub status: u16,
    pub message: String,
}

/// The dialects' readers of definitions, as the API needs them.
pub trait Catalog: Send + Sync {
    /// Reads a definition; `file` is its name in messages.
    fn parse(&self, source: &[u8], file: &str) -> Result<Definition, Vec<Problem>>;

    /// Checks parameters and fills in defaults.
    fn params(&self, workflow: &Workflow, given: Json) -> Result<Json, Vec<Problem>>;

    /// What a task runs, with its templates filled in; `None` where there is nothing to show. The
    /// facts tell no secrets.
    fn rendered(&self, _: &dyn Facts, _: TaskNo) -> Result<Option<Rendered>, String> {
        Ok(None)
    }

    /// What a suspended task asks of a person; `None` if it asks nothing.
    fn approval(&self, _: &dyn Facts, _: TaskNo) -> Option<Approval> {
        None
    }

    /// What a decision comes to, as one commit.
    fn decide(
        &self,
        facts: &dyn Facts,
        task: TaskNo,
        decision: Decision,
    ) -> Result<Submission, NotTaken> {
        decide(facts, task, decision)
    }

    /// Completes a start by a person with what its dialect adds to a run: ids, dates.
    fn complete(&self, _start: &mut kobza_engine::StartRun, _now: Timestamp) {}
}

/// What a decision comes to where the dialect has nothing to add: the task ends, as succeeded with
/// the values as outputs, or as failed.
pub fn decide(facts: &dyn Facts, task: TaskNo, decision: Decision) -> Result<Submission, NotTaken> {
    let id = TaskId { run: facts.run().run, task };
    if decision.approved {
        let mut outputs = vec![
            ("approved".to_owned(), Json::Bool(true)),
            ("approved_by".to_owned(), decision.by.into()),
        ];
        if let Some(comment) = decision.comment {
            outputs.push(("comment".to_owned(), comment.into()));
        }
        if let Json::Object(values) = decision.values {
            outputs.extend(values);
        }
        return Ok(Command::ResumeTask { task: id, outputs: Some(outputs), carry: None }.into());
    }
    match facts.task(task).map(|row| row.state) {
        Some(TaskState::Suspended) => {
            Ok(Command::Mark { task: id, outcome: Outcome::Failed, by: decision.by }.into())
        }
        state => {
            let state = state.map_or("gone", TaskState::as_str);
            let message = format!("the task is {state}; it waits for nobody");
            Err(NotTaken { status: 409, message })
        }
    }
}

/// Makes a checked copy of the store: an open file that nothing else has, and its size.
pub type MakeBackup = dyn Fn() -> Result<(std::fs::File, u64), String> + Send + Sync;

/// What the API is made of.
pub struct ApiParts {
    pub handle: Handle,
    pub store: Arc<dyn Store>,
    pub views: Arc<dyn Views>,
    pub logs: LogStore,
    /// What tasks kept.
    pub artifacts: Arc<ArtifactStore>,
    pub catalog: Arc<dyn Catalog>,
    pub started_at: Timestamp,
    /// Names under which this server may be addressed, without port; loopback names are always
    /// among them.
    pub hosts: Vec<String>,
    /// `sqlite` or `postgres`.
    pub store_kind: &'static str,
    /// Encrypts what is secret.
    pub vault: Arc<crate::Vault>,
    /// What starts runs; none in a server that only shows.
    pub triggers: Option<kobza_triggers::service::TriggerHandle>,
    /// Listens on loopback addresses only: without accounts its callers are trusted.
    pub loopback: bool,
    /// Copies the store, where that is for us to do.
    pub backup: Option<Arc<MakeBackup>>,
}

/// Everything that handlers need.
#[derive(Clone)]
pub struct ApiState {
    pub(crate) handle: Handle,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) views: Arc<dyn Views>,
    pub(crate) logs: LogStore,
    pub(crate) artifacts: Arc<ArtifactStore>,
    pub(crate) readers: crate::logs::Readers,
    pub(crate) growths: crate::growth::Growths,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) started: Instant,
    pub(crate) started_at: Timestamp,
    pub(crate) hosts: Arc<Vec<String>>,
    pub(crate) store_kind: &'static str,
    pub(crate) vault: Arc<crate::Vault>,
    pub(crate) triggers: Option<kobza_triggers::service::TriggerHandle>,
    pub(crate) loopback: bool,
    pub(crate) shapes: Shapes,
    pub(crate) names: Names,
    pub(crate) guesses: crate::auth::Guesses,
    /// Idempotency keys whose first request is being worked on.
    pub(crate) busy: Arc<Mutex<std::collections::HashSet<String>>>,
    pub(crate) deletions: Deletions,
    pub(crate) feed: crate::events::Feed,
    pub(crate) backup: Option<Arc<MakeBackup>>,
}

impl std::fmt::Debug for ApiState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiState")
    }
}

impl ApiState {
    #[must_use]
    pub fn new(parts: ApiParts) -> Self {
        let names = Names::default();
        let feed =
            crate::events::Feed::new(parts.handle.clone(), parts.views.clone(), names.clone());
        Self {
            handle: parts.handle,
            store: parts.store,
            views: parts.views,
            logs: parts.logs,
            artifacts: parts.artifacts,
            readers: crate::logs::Readers::default(),
            growths: crate::growth::Growths::default(),
            catalog: parts.catalog,
            started: Instant::now(),
            started_at: parts.started_at,
            hosts: Arc::new(parts.hosts),
            store_kind: parts.store_kind,
            vault: parts.vault,
            triggers: parts.triggers,
            loopback: parts.loopback,
            shapes: Shapes::default(),
            names,
            guesses: crate::auth::Guesses::default(),
            busy: Arc::default(),
            deletions: Deletions::default(),
            feed,
            backup: parts.backup,
        }
    }

    /// Reads on a thread that may wait for the disk.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Views) -> Result<T, kobza_store::ViewError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let views = self.views.clone();
        let result = tokio::task::spawn_blocking(move || look(views.as_ref())).await;
        match result {
            Ok(result) => Ok(result?),
            Err(error) => Err(ApiError::new(
                axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                format!("a read did not finish: {error}"),
            )),
        }
    }

    /// Wall time minus engine time, in microseconds.
    pub(crate) fn offset(&self) -> i64 {
        self.handle.metrics().clock_offset.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn triggers(&self) -> Result<&kobza_triggers::service::TriggerHandle, ApiError> {
        self.triggers.as_ref().ok_or_else(|| {
            ApiError::new(
                axum::http::StatusCode::SERVICE_UNAVAILABLE,
                "no_triggers",
                "this server runs no triggers",
            )
        })
    }

    /// Commits writes that need no command.
    pub(crate) async fn write(&self, writes: Vec<kobza_store::Write>) -> Result<(), ApiError> {
        self.handle.submit(kobza_runtime::Submission { commands: Vec::new(), writes }).await?;
        Ok(())
    }
}

/// Tells open streams which runs were deleted: the log of events has no entry of it, as a run's
/// events go with the run.
#[derive(Clone)]
pub(crate) struct Deletions(broadcast::Sender<Deleted>);

/// A run that is gone, with its namespace.
#[derive(Clone, Debug)]
pub(crate) struct Deleted {
    pub(crate) run: RunId,
    pub(crate) namespace: String,
}

impl Default for Deletions {
    fn default() -> Self {
        Self(broadcast::Sender::new(256))
    }
}

impl Deletions {
    pub(crate) fn tell(&self, deleted: Deleted) {
        // Without a reader there is nobody to tell.
        let _ = self.0.send(deleted);
    }

    pub(crate) fn follow(&self) -> broadcast::Receiver<Deleted> {
        self.0.subscribe()
    }
}

/// Which run: what an event's line says of it.
#[derive(Clone, Debug)]
pub(crate) struct RunName {
    pub(crate) namespace: String,
    pub(crate) workflow: String,
}

type TaskName = (String, Option<u32>);

/// Names of runs and tasks, which never change: events carry numbers only.
#[derive(Clone, Default)]
pub(crate) struct Names {
    runs: Arc<Mutex<HashMap<RunId, Option<RunName>>>>,
    tasks: Arc<Mutex<HashMap<TaskId, Option<TaskName>>>>,
}

/// Names kept; beyond it all are forgotten.
const KEPT: usize = 50_000;

fn kept<K: std::hash::Hash + Eq + Copy, V: Clone>(
    map: &Mutex<HashMap<K, Option<V>>>,
    key: K,
    read: impl FnOnce() -> Option<V>,
) -> Option<V> {
    if let Ok(map) = map.lock()
        && let Some(value) = map.get(&key)
    {
        return value.clone();
    }
    let value = read()?;
    if let Ok(mut map) = map.lock() {
        if map.len() >= KEPT {
            map.clear();
        }
        map.insert(key, Some(value.clone()));
    }
    Some(value)
}

impl Names {
    pub(crate) fn run(&self, views: &dyn Views, run: RunId) -> Option<RunName> {
        kept(&self.runs, run, || {
            let row = views.get_run(run).ok().flatten()?;
            Some(RunName { namespace: row.namespace, workflow: row.workflow })
        })
    }

    pub(crate) fn task(&self, views: &dyn Views, task: TaskId) -> Option<TaskName> {
        kept(&self.tasks, task, || {
            let row = views.get_task(task).ok().flatten()?;
            Some((row.name, row.index))
        })
    }
}
