//! One batch, one transaction: the fence first, then rows, events and everybody else's writes.

use std::collections::BTreeSet;

use kobza_model::RunId;
use rusqlite::{Transaction, params};

use super::queries::On;
use super::{failed, rows};
use crate::write::{self, Memory};
use crate::{Commit, CommitError, Fence, StoreError, codec};

/// Moves the shard's row from `fence` to the fence for the next batch, or says who moved it.
pub(super) fn check_fence(
    tx: &Transaction<'_>,
    fence: Fence,
    commit: &Commit,
) -> Result<Fence, CommitError> {
    let next = fence.after(commit);
    let moved = tx
        .prepare_cached(
            "UPDATE shard SET batch = ?1, next_event = ?2, engine_time = ?3, committed_at = ?4
             WHERE shard = 0 AND term = ?5 AND batch = ?6 AND next_event = ?7",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                number(next.batch),
                number(next.next_event),
                next.engine_time.0,
                commit.at.0,
                number(fence.term),
                number(fence.batch),
                number(fence.next_event),
            ])
        })
        .map_err(failed)?;
    if moved == 1 {
        return Ok(next);
    }
    let found = crate::read::fence(&mut On(tx)).map_err(failed)?;
    if found.term == fence.term {
        return Err(failed(format!(
            "the shard is at batch {}, not at {}: reload it",
            found.batch, fence.batch
        )));
    }
    Err(CommitError::Fenced { ours: fence.term, found: found.term })
}

/// SQLite's integers are signed; our counters do not reach the sign in the life of a machine.
pub(super) fn number(counter: u64) -> i64 {
    i64::try_from(counter).unwrap_or(i64::MAX)
}

/// Everything of the batch but the shard's row.
pub(super) fn write_batch(
    tx: &Transaction<'_>,
    memory: &mut Memory,
    fence: Fence,
    commit: &Commit,
) -> Result<(), StoreError> {
    let batch = &commit.engine;
    rows::runs(tx, memory, &batch.runs)?;
    rows::attempts(tx, memory, &batch.attempts)?;
    rows::tasks(tx, memory, &batch.tasks)?;
    rows::remove_tasks(tx, memory, &batch.removed_tasks)?;
    rows::scopes(tx, memory, &batch.scopes)?;
    rows::expansions(tx, memory, &batch.expansions)?;
    rows::drop_outputs(tx, memory, &batch.dropped_outputs)?;
    rows::outputs(tx, memory, &batch.outputs)?;
    write::limits(&mut On(tx), &batch.limits, &batch.removed_limits)?;
    rows::machine(tx, memory, &batch.machine)?;
    events(tx, memory, fence.next_event, commit)?;
    for write in &commit.writes {
        write::apply(&mut On(tx), memory, commit, write)?;
    }
    Ok(())
}

/// One row for all events, one small row for each run they speak of, and the assets' own rows.
fn events(
    tx: &Transaction<'_>,
    memory: &mut Memory,
    first: u64,
    commit: &Commit,
) -> Result<(), StoreError> {
    let events = &commit.engine.events;
    if events.is_empty() {
        return Ok(());
    }
    let writing = |e| StoreError::at("writing events", e);
    tx.prepare_cached(
        "INSERT INTO event_batch (first_seq, count, at, body) VALUES (?1, ?2, ?3, ?4)",
    )
    .and_then(|mut statement| {
        let body = codec::pack_events(events).map_err(to_sqlite)?;
        statement.execute(params![number(first), number(events.len() as u64), commit.at.0, body])
    })
    .map_err(writing)?;

    let runs: BTreeSet<RunId> = events.iter().filter_map(|event| event.run).collect();
    let mut index = tx
        .prepare_cached("INSERT INTO event_of_run (run_no, first_seq) VALUES (?1, ?2)")
        .map_err(writing)?;
    for run in runs {
        // An event may outlive its run (a note about a deletion).
        if let Some(known) = memory.known_run(&mut On(tx), run)? {
            index.execute(params![known.number, number(first)]).map_err(writing)?;
        }
    }
    for (place, event) in events.iter().enumerate() {
        write::asset_event(&mut On(tx), memory, first + place as u64, event)?;
    }
    Ok(())
}

/// Carries an error of ours through a closure of rusqlite's type.
fn to_sqlite(error: StoreError) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}
