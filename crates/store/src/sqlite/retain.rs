//! Deleting what is finished and old, a bounded piece per transaction.

use kobza_model::{Json, RunId, Timestamp};
use rusqlite::{OptionalExtension, Transaction, params};

use super::rows;
use super::writer::Memory;
use crate::StoreError;

/// Rows deleted by one call: a run of a million tasks goes in several, so that no commit stalls.
const ROWS_AT_ONCE: usize = 50_000;
/// Batches of old events (and old materializations) deleted by one call.
const BATCHES_AT_ONCE: usize = 1000;

/// Tables with rows of a run and the second column of their key, biggest first.
const TABLES_OF_RUN: &[(&str, &str)] = &[
    ("task", "task_no"),
    ("output", "task_no"),
    ("attempt", "task_no"),
    ("event_of_run", "first_seq"),
    ("scope", "scope"),
    ("expansion", "scope"),
    ("machine", "key"),
];

fn deleting(error: rusqlite::Error) -> StoreError {
    StoreError::at("deleting old rows", error)
}

/// Deletes finished runs that ended before, oldest first, at most `limit`, and the events of that
/// age. A big run may need several calls; its row goes last.
pub(super) fn retain(
    tx: &Transaction<'_>,
    memory: &mut Memory,
    ended_before: Timestamp,
    limit: u32,
) -> Result<(), StoreError> {
    let runs: Vec<RunId> = tx
        .prepare_cached(
            "SELECT id FROM run INDEXED BY run_by_created
             WHERE created_at < ?1 AND state >= 4 AND ended_at < ?1 ORDER BY created_at LIMIT ?2",
        )
        .and_then(|mut statement| {
            statement
                .query_map(params![ended_before.0, limit], |row| Ok(RunId(row.get(0)?)))?
                .collect()
        })
        .map_err(deleting)?;
    let mut budget = ROWS_AT_ONCE;
    for run in runs {
        if !delete(tx, memory, run, &mut budget)? {
            break;
        }
    }
    old_events(tx, ended_before)
}

/// Deletes a finished run whole; does nothing to one that is not finished or not there.
pub(super) fn delete_run(
    tx: &Transaction<'_>,
    memory: &mut Memory,
    run: RunId,
) -> Result<(), StoreError> {
    delete(tx, memory, run, &mut usize::MAX.clone()).map(drop)
}

/// Whether the run is gone; `false` when the budget ran out before.
fn delete(
    tx: &Transaction<'_>,
    memory: &mut Memory,
    run: RunId,
    budget: &mut usize,
) -> Result<bool, StoreError> {
    let Some(known) = memory.known_run(tx, run)?.cloned() else { return Ok(true) };
    if !known.state.is_finished() {
        return Ok(true);
    }
    for (table, key) in TABLES_OF_RUN {
        // Whole values of the key's first column, so that a limit on rows is kept roughly.
        let sql = format!(
            "DELETE FROM {table} WHERE run_no = ?1 AND {key} IN
                (SELECT {key} FROM {table} WHERE run_no = ?1 ORDER BY {key} LIMIT ?2)"
        );
        loop {
            let at_most = (*budget).min(ROWS_AT_ONCE);
            if at_most == 0 {
                return Ok(false);
            }
            let deleted = tx
                .prepare_cached(&sql)
                .and_then(|mut statement| {
                    statement.execute(params![known.number, super::commit::number(at_most as u64)])
                })
                .map_err(deleting)?;
            *budget = budget.saturating_sub(deleted);
            if deleted == 0 {
                break;
            }
        }
    }
    let created_at: Option<i64> = tx
        .prepare_cached("DELETE FROM run WHERE run_no = ?1 RETURNING created_at")
        .and_then(|mut statement| statement.query_row([known.number], |row| row.get(0)).optional())
        .map_err(deleting)?;
    if let Some(created_at) = created_at {
        let labels = known.labels.as_deref();
        rows::relabel(tx, known.number, Timestamp(created_at), labels, &Json::Null)?;
        rows::count_run(tx, known.workflow, known.state as u8, -1)?;
    }
    memory.runs.remove(&run);
    *budget = budget.saturating_sub(1);
    Ok(true)
}

/// Events are packed by batch, so they go by age, not by run. The newest materialization of each
/// asset and partition stays: it is the state of the data.
fn old_events(tx: &Transaction<'_>, before: Timestamp) -> Result<(), StoreError> {
    let limit = super::commit::number(BATCHES_AT_ONCE as u64);
    // From the oldest on, up to the first that is young: nothing is looked at in vain.
    let first_kept: Option<i64> = tx
        .prepare_cached(
            "SELECT max(first_seq) FROM
                (SELECT first_seq, at FROM event_batch ORDER BY first_seq LIMIT ?2)
             WHERE at < ?1",
        )
        .and_then(|mut statement| statement.query_row(params![before.0, limit], |row| row.get(0)))
        .map_err(deleting)?;
    if let Some(last) = first_kept {
        tx.prepare_cached("DELETE FROM event_batch WHERE first_seq <= ?1")
            .and_then(|mut statement| statement.execute([last]))
            .map_err(deleting)?;
    }
    tx.prepare_cached(
        "DELETE FROM materialization WHERE seq IN
            (SELECT m.seq FROM materialization m WHERE m.at < ?1
                AND NOT EXISTS (SELECT 1 FROM asset a
                    WHERE a.asset_no = m.asset_no AND a.materialized_seq = m.seq)
                AND NOT EXISTS (SELECT 1 FROM asset_partition p
                    WHERE p.asset_no = m.asset_no AND p.partition = m.partition AND p.seq = m.seq)
             ORDER BY m.at LIMIT ?2)",
    )
    .and_then(|mut statement| statement.execute(params![before.0, limit]))
    .map_err(deleting)?;
    tx.prepare_cached(
        "DELETE FROM asset_check WHERE seq IN
            (SELECT c.seq FROM asset_check c WHERE c.at < ?1
                AND c.seq < (SELECT max(n.seq) FROM asset_check n
                    WHERE n.asset_no = c.asset_no AND n.name = c.name)
             ORDER BY c.at LIMIT ?2)",
    )
    .and_then(|mut statement| statement.execute(params![before.0, limit]))
    .map_err(deleting)?;
    Ok(())
}
