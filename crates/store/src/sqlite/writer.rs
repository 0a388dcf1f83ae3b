//! The one writing connection, and what it remembers between commits so as not to look it up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use kobza_model::{EngineTime, RunId, RunState};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{commit, failed};
use crate::codec;
use crate::{Commit, CommitError, Fault, Fence, StoreError};

/// Forget everything remembered beyond so many runs; it is only a cache.
const RUNS_REMEMBERED: usize = 200_000;

pub(super) struct Writer {
    /// `None` after an unknown commit: what the connection believes is worth nothing then.
    connection: Option<Connection>,
    memory: Memory,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection: Some(connection), memory: Memory::default() }
    }

    pub(super) fn discard(&mut self) {
        self.connection = None;
        self.memory = Memory::default();
    }

    pub(super) fn reopen_if_needed(
        &mut self,
        connect: impl FnOnce() -> Result<Connection, StoreError>,
    ) -> Result<(), StoreError> {
        if self.connection.is_none() {
            self.connection = Some(connect()?);
        }
        Ok(())
    }

    pub(super) fn connection(&mut self) -> Result<&mut Connection, CommitError> {
        self.connection.as_mut().ok_or_else(|| failed("the writer's connection is closed"))
    }

    pub(super) fn acquire(&mut self, owner: &str) -> Result<Fence, CommitError> {
        self.connection()?
            .query_row(
                "UPDATE shard SET term = term + 1, owner = ?1 WHERE shard = 0
                 RETURNING term, batch, next_event, engine_time",
                [owner],
                fence_row,
            )
            .map_err(failed)
    }

    pub(super) fn commit(
        &mut self,
        fence: Fence,
        commit: &Commit,
        fault: Option<Fault>,
    ) -> Result<Fence, CommitError> {
        let connection =
            self.connection.as_mut().ok_or_else(|| failed("the writer's connection is closed"))?;
        let result = transact(connection, &mut self.memory, fence, commit, fault);
        match &result {
            Ok(_) => {
                for row in commit.engine.runs.iter().filter(|row| row.state.is_finished()) {
                    self.memory.runs.remove(&row.run);
                }
                if self.memory.runs.len() > RUNS_REMEMBERED {
                    self.memory.runs.clear();
                }
            }
            Err(CommitError::Unknown(_)) => self.discard(),
            Err(_) => self.memory = Memory::default(),
        }
        result
    }
}

fn fence_row(row: &Row<'_>) -> rusqlite::Result<Fence> {
    let counter = |place| {
        let value: i64 = row.get(place)?;
        u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(place, value))
    };
    Ok(Fence {
        term: counter(0)?,
        batch: counter(1)?,
        next_event: counter(2)?,
        engine_time: EngineTime(row.get(3)?),
    })
}

fn transact(
    connection: &mut Connection,
    memory: &mut Memory,
    fence: Fence,
    commit: &Commit,
    fault: Option<Fault>,
) -> Result<Fence, CommitError> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let next = commit::check_fence(&transaction, fence, commit)?;
    commit::write(&transaction, memory, fence, commit).map_err(failed)?;
    if fault == Some(Fault::UnknownBefore) {
        return Err(CommitError::Unknown("injected before the commit".into()));
    }
    transaction.commit().map_err(|error| match error.sqlite_error_code() {
        // These are found before the commit record is written.
        Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::DatabaseBusy) => failed(error),
        // A failed write or sync may or may not have reached the disk.
        _ => CommitError::Unknown(error.to_string()),
    })?;
    if fault == Some(Fault::UnknownAfter) {
        return Err(CommitError::Unknown("injected after the commit".into()));
    }
    Ok(next)
}

/// Numbers by name, and the last known state of active runs. Only a cache of committed rows and of
/// those of the transaction at hand: dropped whole when that fails.
#[derive(Default)]
pub(super) struct Memory {
    words: HashMap<String, i64>,
    workflows: HashMap<(String, String), i64>,
    pub(super) runs: HashMap<RunId, KnownRun>,
    next_run: Option<i64>,
}

#[derive(Clone, Debug)]
pub(super) struct KnownRun {
    pub(super) number: i64,
    pub(super) workflow: i64,
    pub(super) state: RunState,
    pub(super) labels: Option<String>,
}

impl Memory {
    /// The number of a word, given to it when it is new.
    pub(super) fn word(&mut self, tx: &Transaction<'_>, word: &str) -> Result<i64, StoreError> {
        if let Some(number) = self.words.get(word) {
            return Ok(*number);
        }
        let write = || {
            tx.prepare_cached("INSERT INTO word (word) VALUES (?1) ON CONFLICT (word) DO NOTHING")?
                .execute([word])?;
            tx.prepare_cached("SELECT word_no FROM word WHERE word = ?1")?
                .query_row([word], |row| row.get(0))
        };
        let number: i64 = write().map_err(|e| StoreError::at("writing a word", e))?;
        self.words.insert(word.to_owned(), number);
        Ok(number)
    }

    /// The number of a workflow's name, given to it when it is new.
    pub(super) fn workflow(
        &mut self,
        tx: &Transaction<'_>,
        namespace: &str,
        name: &str,
    ) -> Result<i64, StoreError> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(number) = self.workflows.get(&key) {
            return Ok(*number);
        }
        let write = || {
            tx.prepare_cached(
                "INSERT INTO workflow (namespace, name) VALUES (?1, ?2)
                 ON CONFLICT (namespace, name) DO NOTHING",
            )?
            .execute([namespace, name])?;
            tx.prepare_cached(
                "SELECT workflow_no FROM workflow WHERE namespace = ?1 AND name = ?2",
            )?
            .query_row([namespace, name], |row| row.get(0))
        };
        let number: i64 = write().map_err(|e| StoreError::at("writing a workflow's name", e))?;
        self.workflows.insert(key, number);
        Ok(number)
    }

    /// A run that is in the store already.
    pub(super) fn known_run(
        &mut self,
        tx: &Transaction<'_>,
        run: RunId,
    ) -> Result<Option<&KnownRun>, StoreError> {
        if let Entry::Vacant(place) = self.runs.entry(run) {
            let found = tx
                .prepare_cached("SELECT run_no, workflow_no, state, labels FROM run WHERE id = ?1")
                .and_then(|mut statement| {
                    statement
                        .query_row(params![run.0], |row| {
                            Ok((row.get(0)?, row.get(1)?, row.get::<_, u8>(2)?, row.get(3)?))
                        })
                        .optional()
                })
                .map_err(|e| StoreError::at("finding a run", e))?;
            let Some((number, workflow, state, labels)) = found else { return Ok(None) };
            let state = codec::run_state(state)?;
            place.insert(KnownRun { number, workflow, state, labels });
        }
        Ok(self.runs.get(&run))
    }

    /// The number of a run that must be there, since something of it is written.
    pub(super) fn run_number(
        &mut self,
        tx: &Transaction<'_>,
        run: RunId,
    ) -> Result<i64, StoreError> {
        match self.known_run(tx, run)? {
            Some(known) => Ok(known.number),
            None => Err(StoreError(format!("run {run} is not in the store"))),
        }
    }

    pub(super) fn next_run_number(&mut self, tx: &Transaction<'_>) -> Result<i64, StoreError> {
        let number = match self.next_run {
            Some(number) => number,
            None => tx
                .query_row("SELECT coalesce(max(run_no), 0) + 1 FROM run", [], |row| row.get(0))
                .map_err(|e| StoreError::at("numbering a run", e))?,
        };
        self.next_run = Some(number + 1);
        Ok(number)
    }
}
