//! The one writing connection, and what it remembers between commits so as not to look it up.

use kobza_model::EngineTime;
use rusqlite::{Connection, Row, TransactionBehavior};

use super::{commit, failed};
use crate::write::Memory;
use crate::{Commit, CommitError, Fault, Fence, StoreError};

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
            Ok(_) => self.memory.forget_finished(&commit.engine.runs),
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
    commit::write_batch(&transaction, memory, fence, commit).map_err(failed)?;
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
