//! One batch, one transaction: the fence first, then rows, events and everybody else's writes.

use std::collections::BTreeSet;

use kobza_model::{Event, EventKind, RunId};
use rusqlite::{OptionalExtension, Transaction, params};

use super::queries::On;
use super::writer::Memory;
use super::{failed, retain, rows, workflows};
use crate::codec;
use crate::{Commit, CommitError, Fence, StoreError, Write};

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
pub(super) fn write(
    tx: &Transaction<'_>,
    memory: &mut Memory,
    fence: Fence,
    commit: &Commit,
) -> Result<(), StoreError> {
    let batch = &commit.engine;
    rows::runs(tx, memory, &batch.runs)?;
    rows::attempts(tx, memory, &batch.attempts)?;
    rows::tasks(tx, memory, &batch.tasks)?;
    rows::scopes(tx, memory, &batch.scopes)?;
    rows::expansions(tx, memory, &batch.expansions)?;
    rows::drop_outputs(tx, memory, &batch.dropped_outputs)?;
    rows::outputs(tx, memory, &batch.outputs)?;
    rows::limits(tx, &batch.limits, &batch.removed_limits)?;
    rows::machine(tx, memory, &batch.machine)?;
    events(tx, memory, fence.next_event, commit)?;
    for write in &commit.writes {
        apply(tx, memory, commit, write)?;
    }
    Ok(())
}

fn apply(
    tx: &Transaction<'_>,
    memory: &mut Memory,
    commit: &Commit,
    write: &Write,
) -> Result<(), StoreError> {
    match write {
        Write::PutWorkflow { namespace, version, workflow, source } => {
            let text = source.as_deref();
            workflows::put(tx, memory, namespace, version, workflow, text, commit.at)
        }
        Write::DeleteWorkflow { namespace, name } => workflows::delete(tx, namespace, name),
        Write::PauseWorkflow { namespace, name, paused } => {
            workflows::pause(tx, namespace, name, *paused)
        }
        Write::PutObject { kind, namespace, key, value } => {
            rows::object(tx, kind, namespace, key, value.as_ref(), commit.at)
        }
        Write::Retain { ended_before, limit } => retain::retain(tx, memory, *ended_before, *limit),
        Write::DeleteRun { run } => retain::delete_run(tx, memory, *run),
    }
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
        if let Some(known) = memory.known_run(tx, run)? {
            index.execute(params![known.number, number(first)]).map_err(writing)?;
        }
    }
    for (place, event) in events.iter().enumerate() {
        asset_event(tx, memory, number(first + place as u64), event)?;
    }
    Ok(())
}

/// Carries an error of ours through a closure of rusqlite's type.
fn to_sqlite(error: StoreError) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// The namespace of what happens outside any run.
const DEFAULT_NAMESPACE: &str = "default";

fn asset_event(
    tx: &Transaction<'_>,
    memory: &mut Memory,
    seq: i64,
    event: &Event,
) -> Result<(), StoreError> {
    let (EventKind::Materialized { asset, .. } | EventKind::Checked { asset, .. }) = &event.kind
    else {
        return Ok(());
    };
    let workflow = match event.run {
        Some(run) => memory.known_run(tx, run)?.map(|known| known.workflow),
        None => None,
    };
    asset_rows(tx, workflow, asset, seq, event).map_err(|e| StoreError::at("writing an asset", e))
}

fn asset_rows(
    tx: &Transaction<'_>,
    workflow: Option<i64>,
    asset: &str,
    seq: i64,
    event: &Event,
) -> rusqlite::Result<()> {
    let namespace: Option<String> = tx
        .prepare_cached("SELECT namespace FROM workflow WHERE workflow_no = ?1")?
        .query_row([workflow], |row| row.get(0))
        .optional()?;
    let namespace = namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let asset_no: i64 = tx
        .prepare_cached(
            "INSERT INTO asset (namespace, name) VALUES (?1, ?2)
             ON CONFLICT (namespace, name) DO UPDATE SET name = name RETURNING asset_no",
        )?
        .query_row([namespace, asset], |row| row.get(0))?;
    let run = event.run.map(|run| run.0);
    let task = event.task.map(|task| task.0);
    let at = event.at.0;
    match &event.kind {
        EventKind::Materialized { partition, metadata, .. } => {
            tx.prepare_cached(
                "INSERT INTO materialization (seq, asset_no, partition, at, run, task_no, metadata)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![seq, asset_no, partition, at, run, task, metadata])?;
            tx.prepare_cached(
                "UPDATE asset SET materialized_seq = ?2, materialized_at = ?3,
                        materializations = materializations + 1 WHERE asset_no = ?1",
            )?
            .execute(params![asset_no, seq, at])?;
            if let Some(partition) = partition {
                tx.prepare_cached(
                    "INSERT INTO asset_partition
                        (asset_no, partition, seq, at, run, materializations)
                     VALUES (?1, ?2, ?3, ?4, ?5, 1)
                     ON CONFLICT (asset_no, partition) DO UPDATE SET seq = excluded.seq,
                        at = excluded.at, run = excluded.run,
                        materializations = materializations + 1",
                )?
                .execute(params![asset_no, partition, seq, at, run])?;
            }
        }
        EventKind::Checked { check, passed, blocking, detail, .. } => {
            tx.prepare_cached(
                "INSERT INTO asset_check
                    (seq, asset_no, name, passed, blocking, at, run, task_no, detail)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![seq, asset_no, check, passed, blocking, at, run, task, detail])?;
        }
        _ => {}
    }
    Ok(())
}
