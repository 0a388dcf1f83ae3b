//! Deleting what is finished and old, a bounded piece per transaction.

use kobza_model::{Json, RunId, Timestamp};

use super::{Memory, Result, count_ended, count_run, relabel};
use crate::read::{Statements, Value, all};

/// Rows deleted by one call: a run of a million tasks goes in several, so that no commit stalls.
const ROWS_AT_ONCE: i64 = 50_000;
/// Batches of old events (and old materializations) deleted by one call.
const BATCHES_AT_ONCE: i64 = 1000;

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

/// Deletes finished runs that ended before, oldest first, at most `limit`, and the events of that
/// age. A big run may need several calls; its row goes last.
pub(super) fn retain(
    tx: &mut dyn Statements,
    memory: &mut Memory,
    ended_before: Timestamp,
    limit: u32,
) -> Result<()> {
    let sql = "SELECT id FROM run WHERE created_at < ?1 AND state >= 4 AND ended_at < ?1
               ORDER BY created_at LIMIT ?2";
    let runs = all(tx, sql, &[ended_before.0.into(), limit.into()], |row| row.run(0))?;
    let mut budget = ROWS_AT_ONCE;
    for run in runs {
        if !delete(tx, memory, run, &mut budget)? {
            break;
        }
    }
    old_events(tx, ended_before)
}

/// Deletes a finished run whole; does nothing to one that is not finished or not there.
pub(super) fn delete_run(tx: &mut dyn Statements, memory: &mut Memory, run: RunId) -> Result<()> {
    let mut unbounded = i64::MAX;
    delete(tx, memory, run, &mut unbounded).map(drop)
}

/// Whether the run is gone; `false` when the budget of rows ran out before.
fn delete(
    tx: &mut dyn Statements,
    memory: &mut Memory,
    run: RunId,
    budget: &mut i64,
) -> Result<bool> {
    let Some(known) = memory.known_run(tx, run)?.cloned() else { return Ok(true) };
    if !known.state.is_finished() {
        return Ok(true);
    }
    for (table, key) in TABLES_OF_RUN {
        // Whole values of the key's second column, so that a limit on rows is kept roughly.
        let sql = format!(
            "DELETE FROM {table} WHERE run_no = ?1 AND {key} IN
                (SELECT {key} FROM {table} WHERE run_no = ?1 ORDER BY {key} LIMIT ?2)"
        );
        loop {
            let at_most = (*budget).min(ROWS_AT_ONCE);
            if at_most <= 0 {
                return Ok(false);
            }
            let deleted = tx.execute(&sql, &[known.number.into(), at_most.into()])?;
            *budget = budget.saturating_sub(i64::try_from(deleted).unwrap_or(i64::MAX));
            if deleted == 0 {
                break;
            }
        }
    }
    let of_run: [Value; 1] = [known.number.into()];
    let created_at =
        all(tx, "SELECT created_at FROM run WHERE run_no = ?1", &of_run, |row| row.time(0))?;
    if let Some(created_at) = created_at.first() {
        relabel(tx, known.number, *created_at, known.labels.as_deref(), &Json::Null)?;
        tx.execute("DELETE FROM run WHERE run_no = ?1", &of_run)?;
        count_run(tx, known.workflow, known.state, -1)?;
        if let Some(hour) = known.ended {
            let sql = "SELECT namespace FROM workflow WHERE workflow_no = ?1";
            for namespace in all(tx, sql, &[known.workflow.into()], |row| row.text(0))? {
                count_ended(tx, memory, &namespace, (hour, known.state), -1)?;
            }
            let sql = "DELETE FROM run_hour WHERE hour = ?1 AND runs <= 0";
            tx.execute(sql, &[hour.into()])?;
        }
    }
    memory.runs.remove(&run);
    *budget = budget.saturating_sub(1);
    Ok(true)
}

/// Events are packed by batch, so they go by age, not by run. The newest materialization of each
/// asset and partition stays, and the newest result of each check: they are the state of the data.
fn old_events(tx: &mut dyn Statements, before: Timestamp) -> Result<()> {
    let values: [Value; 2] = [before.0.into(), BATCHES_AT_ONCE.into()];
    // From the oldest on, up to the first that is young: nothing is looked at in vain.
    let sql = "SELECT max(first_seq) FROM
                  (SELECT first_seq, at FROM event_batch ORDER BY first_seq LIMIT ?2) oldest
               WHERE at < ?1";
    if let Some(Some(last)) = all(tx, sql, &values, |row| row.opt_int(0))?.first() {
        tx.execute("DELETE FROM event_batch WHERE first_seq <= ?1", &[(*last).into()])?;
    }
    let sql = "DELETE FROM materialization WHERE seq IN
        (SELECT m.seq FROM materialization m WHERE m.at < ?1
            AND NOT EXISTS (SELECT 1 FROM asset a
                WHERE a.asset_no = m.asset_no AND a.materialized_seq = m.seq)
            AND NOT EXISTS (SELECT 1 FROM asset_partition p
                WHERE p.asset_no = m.asset_no AND p.partition = m.partition AND p.seq = m.seq)
         ORDER BY m.at LIMIT ?2)";
    tx.execute(sql, &values)?;
    let sql = "DELETE FROM asset_check WHERE seq IN
        (SELECT c.seq FROM asset_check c WHERE c.at < ?1
            AND c.seq < (SELECT max(n.seq) FROM asset_check n
                WHERE n.asset_no = c.asset_no AND n.name = c.name)
         ORDER BY c.at LIMIT ?2)";
    tx.execute(sql, &values).map(drop)
}
