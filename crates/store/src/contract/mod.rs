//! What a store must do, whichever database keeps it.

pub mod kinds;
mod views;

pub use views::*;

use kobza_engine::Batch;
use kobza_model::{EngineTime, Json, RunId, RunImage, Timestamp, Workflow};

/// Ownership of a shard: the fence against an old owner, and the numbering of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fence {
    /// Grows with each owner.
    pub term: u64,
    /// Number of the last committed batch.
    pub batch: u64,
    /// Sequence number of the next event, from 1.
    pub next_event: u64,
    /// Engine time at the last commit.
    pub engine_time: EngineTime,
}

impl Fence {
    /// The fence once `commit` has been committed under this one.
    #[must_use]
    pub fn after(self, commit: &Commit) -> Self {
        Self {
            term: self.term,
            batch: self.batch + 1,
            next_event: self.next_event + commit.engine.events.len() as u64,
            // Never back, whatever the caller believes.
            engine_time: self.engine_time.max(commit.engine_time),
        }
    }
}

/// Why a commit did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another server owns the shard: this one must stop.
    #[error("another server owns this store (term {found}, ours is {ours})")]
    Fenced { ours: u64, found: u64 },
    /// Whether it happened is unknown: drop the memory and reload.
    #[error("the outcome of a commit is unknown: {0}")]
    Unknown(String),
    /// It certainly did not happen.
    #[error("a commit failed: {0}")]
    Failed(String),
}

/// One transaction.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub engine: Batch,
    /// Everything that is not the engine's: definitions, connections, triggers, ...
    pub writes: Vec<Write>,
    pub engine_time: EngineTime,
    pub at: Timestamp,
}

/// A write to a table that the engine does not own. All writes go through the one writer.
#[derive(Clone, Debug)]
pub enum Write {
    /// A new version of a workflow, made current. Nothing changes if the current one is the same.
    PutWorkflow {
        namespace: String,
        version: String,
        workflow: std::sync::Arc<Workflow>,
        source: Option<String>,
    },
    DeleteWorkflow {
        namespace: String,
        name: String,
    },
    PauseWorkflow {
        namespace: String,
        name: String,
        paused: bool,
    },
    /// A row of a small keyed table: `table` is one of the store's documented kinds (variables,
    /// connections, tokens, users, triggers, slots, backfills, idempotency, audit, notes, cache,
    /// objects, ...); `None` deletes.
    PutObject {
        kind: &'static str,
        namespace: String,
        key: String,
        value: Option<Json>,
    },
    /// Delete finished runs that ended before, with all that belongs to them; at most `limit`.
    Retain {
        ended_before: Timestamp,
        limit: u32,
    },
    DeleteRun {
        run: RunId,
    },
}

/// The engine's half of a store.
pub trait Store: Send + Sync {
    /// Takes ownership: a new term. Fails when another live server has it.
    fn acquire(&self, owner: &str) -> Result<Fence, CommitError>;

    /// Writes a batch if `fence` is still in force; answers the fence for the next one.
    fn commit(&self, fence: Fence, commit: &Commit) -> Result<Fence, CommitError>;

    /// What the shard's row says now. After [`CommitError::Unknown`] this is the truth: the commit
    /// happened if the batch number has grown.
    fn fence(&self) -> Result<Fence, StoreError>;

    /// The run that has this key.
    fn run_by_key(
        &self,
        namespace: &str,
        workflow: &str,
        key: &str,
    ) -> Result<Option<RunId>, StoreError>;

    /// Keeps ownership alive while there is nothing to commit. Stores that are owned through a
    /// lease need it more often than the lease lasts; the others answer at once.
    fn heartbeat(&self, _fence: Fence) -> Result<(), CommitError> {
        Ok(())
    }

    /// How long ownership lasts without a commit or heartbeat; `None`: until this process ends.
    fn lease(&self) -> Option<std::time::Duration> {
        None
    }

    /// Who owns the shard by a lease that has not ended; `None` where there are no leases, or when
    /// nobody does.
    fn owner(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// All runs that are not finished, whole.
    fn active_runs(&self) -> Result<Vec<RunImage>, StoreError>;

    /// One run, whole.
    fn run_image(&self, run: RunId) -> Result<Option<RunImage>, StoreError>;

    /// A workflow's version by its content hash, or the current one (`None`).
    fn workflow(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<StoredWorkflow>, StoreError>;

    fn limits(&self) -> Result<Vec<kobza_model::LimitRow>, StoreError>;

    /// All outputs of a task.
    fn outputs(
        &self,
        run: RunId,
        task: kobza_model::TaskNo,
    ) -> Result<Vec<(String, Json)>, StoreError>;

    fn object(&self, kind: &str, namespace: &str, key: &str) -> Result<Option<Json>, StoreError>;
}

/// A stored version.
#[derive(Clone, Debug)]
pub struct StoredWorkflow {
    pub version: String,
    pub workflow: std::sync::Arc<Workflow>,
    pub source: Option<String>,
    pub created_at: Timestamp,
    pub paused: bool,
}

/// A read failed.
#[derive(Debug, thiserror::Error)]
#[error("store: {0}")]
pub struct StoreError(pub String);

impl StoreError {
    /// An error at a step that is named.
    #[must_use]
    pub fn at(step: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{step}: {error}"))
    }
}

/// A failure that tests can ask for.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fault {
    /// The commit happens, and the caller is told that nobody knows.
    UnknownAfter = 1,
    /// The commit does not happen, and the caller is told that nobody knows.
    UnknownBefore = 2,
}

impl Fault {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::UnknownAfter, Self::UnknownBefore].into_iter().find(|f| *f as u8 == number)
    }
}
