//! The one writing connection: the lease, and batches under its fence.

use std::time::Duration;

use kobza_model::EngineTime;

use super::link::{Link, failure};
use super::{failed, rows};
use crate::read::{Cells, Statements, Value, all};
use crate::write::Memory;
use crate::{Commit, CommitError, Fault, Fence, StoreError};

pub(super) struct Writer {
    /// `None` after a failure that says nothing about what the connection is in the middle of.
    link: Option<Link>,
    memory: Memory,
    lease: Duration,
    /// The term under which this process owns the shard.
    held: Option<u64>,
}

impl Writer {
    pub(super) fn new(link: Link, lease: Duration) -> Self {
        Self { link: Some(link), memory: Memory::default(), lease, held: None }
    }

    pub(super) fn discard(&mut self) {
        self.link = None;
        self.memory = Memory::default();
    }

    pub(super) fn reconnect_if_needed(
        &mut self,
        connect: impl FnOnce() -> Result<Link, StoreError>,
    ) -> Result<(), StoreError> {
        if self.link.as_ref().is_none_or(Link::is_closed) {
            self.discard();
            self.link = Some(connect()?);
        }
        Ok(())
    }

    fn link(&mut self) -> Result<&mut Link, StoreError> {
        self.link.as_mut().ok_or_else(|| StoreError("the writer's connection is closed".into()))
    }

    fn lease_millis(&self) -> i64 {
        i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX)
    }

    pub(super) fn acquire(&mut self, owner: &str) -> Result<Fence, CommitError> {
        let lease = self.lease_millis();
        // What was remembered may be of a time when another owner wrote.
        self.memory = Memory::default();
        let link = self.link().map_err(failed)?;
        let sql = "UPDATE shard SET term = term + 1, owner = ?1,
                      lease_until = clock_timestamp() + ?2 * interval '1 millisecond'
                   WHERE shard = 0 AND (owner IS NULL OR owner = ?1 OR lease_until IS NULL
                      OR lease_until < clock_timestamp())
                   RETURNING term, batch, next_event, engine_time";
        let sql = sql.replace("?2 *", "CAST(?2 AS bigint) *");
        let taken = all(link, &sql, &[owner.into(), lease.into()], fence_row).map_err(failed)?;
        match taken.first() {
            Some(fence) => {
                self.held = Some(fence.term);
                Ok(*fence)
            }
            None => {
                let ours = self.held.take().unwrap_or(0);
                let found = self.fence().map_err(failed)?.term;
                Err(CommitError::Fenced { ours, found })
            }
        }
    }

    /// The shard's row, after any batch that is still under way: the lock waits for it.
    pub(super) fn fence(&mut self) -> Result<Fence, StoreError> {
        let sql = "SELECT term, batch, next_event, engine_time FROM shard WHERE shard = 0
                   FOR SHARE";
        let found = all(self.link()?, sql, &[], fence_row)?;
        found.first().copied().ok_or_else(|| StoreError("the shard's row is missing".into()))
    }

    pub(super) fn heartbeat(&mut self, fence: Fence) -> Result<(), CommitError> {
        let lease = self.lease_millis();
        let sql = "UPDATE shard SET
                      lease_until = clock_timestamp() + CAST(?2 AS bigint) * interval '1 millisecond'
                   WHERE shard = 0 AND term = ?1";
        let link = self.link().map_err(failed)?;
        let values = [counter(fence.term), lease.into()];
        if link.execute(sql, &values).map_err(failed)? == 1 {
            return Ok(());
        }
        let found = self.fence().map_err(failed)?.term;
        Err(CommitError::Fenced { ours: fence.term, found })
    }

    /// Ends the lease of a server that stops in order. If that fails it ends by itself.
    pub(super) fn release(&mut self) {
        if let (Some(term), Some(link)) = (self.held.take(), &mut self.link) {
            let sql = "UPDATE shard SET lease_until = NULL WHERE shard = 0 AND term = ?1";
            let _ = link.execute(sql, &[counter(term)]);
        }
    }

    pub(super) fn commit(
        &mut self,
        fence: Fence,
        commit: &Commit,
        fault: Option<Fault>,
    ) -> Result<Fence, CommitError> {
        let lease = self.lease_millis();
        let Some(link) = &mut self.link else {
            return Err(failed("the writer's connection is closed"));
        };
        let result = transact(link, &mut self.memory, lease, fence, commit, fault);
        match &result {
            Ok(_) => self.memory.forget_finished(&commit.engine.runs),
            Err(CommitError::Unknown(_)) => self.discard(),
            Err(_) => {
                self.memory = Memory::default();
                if link.run("ROLLBACK").is_err() {
                    self.discard();
                }
            }
        }
        result
    }
}

fn counter(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn fence_row(cells: &mut Cells) -> Result<Fence, StoreError> {
    Ok(Fence {
        term: cells.number(0)?,
        batch: cells.number(1)?,
        next_event: cells.number(2)?,
        engine_time: EngineTime(cells.int(3)?),
    })
}

/// A failure before the commit is certain: the database rolls back what it was not told to commit.
fn transact(
    link: &mut Link,
    memory: &mut Memory,
    lease: i64,
    fence: Fence,
    commit: &Commit,
    fault: Option<Fault>,
) -> Result<Fence, CommitError> {
    link.run("BEGIN").map_err(|e| failed(failure("beginning a batch", &e)))?;
    let next = check_fence(link, lease, fence, commit)?;
    rows::write_batch(link, memory, fence, commit).map_err(failed)?;
    if fault == Some(Fault::UnknownBefore) {
        return Err(CommitError::Unknown("injected before the commit".into()));
    }
    link.run("COMMIT").map_err(|error| {
        let text = failure("committing", &error);
        // The database said no itself, or nobody knows what it did.
        if error.as_db_error().is_some() && !link.is_closed() {
            failed(text)
        } else {
            CommitError::Unknown(text.to_string())
        }
    })?;
    if fault == Some(Fault::UnknownAfter) {
        return Err(CommitError::Unknown("injected after the commit".into()));
    }
    Ok(next)
}

fn check_fence(
    link: &mut Link,
    lease: i64,
    fence: Fence,
    commit: &Commit,
) -> Result<Fence, CommitError> {
    let next = fence.after(commit);
    let sql = "UPDATE shard SET batch = ?1, next_event = ?2, engine_time = ?3, committed_at = ?4,
                  lease_until = clock_timestamp() + CAST(?8 AS bigint) * interval '1 millisecond'
               WHERE shard = 0 AND term = ?5 AND batch = ?6 AND next_event = ?7";
    let values = [
        counter(next.batch),
        counter(next.next_event),
        next.engine_time.0.into(),
        commit.at.0.into(),
        counter(fence.term),
        counter(fence.batch),
        counter(fence.next_event),
        lease.into(),
    ];
    if link.execute(sql, &values).map_err(failed)? == 1 {
        return Ok(next);
    }
    let found = crate::read::fence(link).map_err(failed)?;
    if found.term == fence.term {
        return Err(failed(format!(
            "the shard is at batch {}, not at {}: reload it",
            found.batch, fence.batch
        )));
    }
    Err(CommitError::Fenced { ours: fence.term, found: found.term })
}
