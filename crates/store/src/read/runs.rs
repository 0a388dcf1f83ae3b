//! Lists of runs, newest first.
//!
//! A million runs are never sorted: keys come in order from an index. Which index depends on how
//! many runs match, which the totals by (workflow, state) tell beforehand.

use kobza_model::{RunRow, RunState, Timestamp};

use super::load::{RUN_COLUMNS, RUN_TABLES, run_row};
use super::{Conditions, Queries, Result, Value, all, cursor, page_size};
use crate::write::HOUR_MICROS;
use crate::{Page, RunFilter, ViewError, codec};

/// Up to so many (workflow, state) pairs, each one's newest keys are merged.
const MERGED_CELLS: usize = 64;
/// Up to so many matching runs, their keys are gathered and sorted.
const GATHERED_RUNS: i64 = 5000;

/// When it was created, and its number: the order of lists.
type Key = (i64, i64);

pub(super) fn list(
    queries: &mut dyn Queries,
    filter: &RunFilter,
    after: Option<&str>,
    limit: u32,
) -> std::result::Result<Page<RunRow>, ViewError> {
    let after: Option<Key> = cursor::decode("runs", after)?;
    let size = page_size(limit);
    // One more than asked for tells whether there is a next page.
    let mut keys = keys(queries, filter, after, size + 1)?;
    let more = keys.len() > size;
    keys.truncate(size);
    let next = if more { keys.last().and_then(|key| cursor::encode("runs", key)) } else { None };
    let items = numbered(queries, &keys)?.into_iter().map(|(_, run)| run).collect();
    Ok(Page { items, next })
}

/// The newest runs of a workflow, by its number.
pub(super) fn newest(
    queries: &mut dyn Queries,
    workflow_no: i64,
    limit: usize,
) -> Result<Vec<(i64, RunRow)>> {
    let mut merged = Vec::new();
    for state in RunState::ALL {
        let mut conditions = Conditions::default();
        conditions.with("r.workflow_no = ?", workflow_no).with("r.state = ?", *state as i64);
        merged.extend(ordered(queries, "run r", "r", &conditions, limit)?);
    }
    sort(&mut merged, limit);
    numbered(queries, &merged)
}

fn sort(keys: &mut Vec<Key>, limit: usize) {
    keys.sort_unstable_by(|a, b| b.cmp(a));
    keys.truncate(limit);
}

fn keys(
    queries: &mut dyn Queries,
    filter: &RunFilter,
    after: Option<Key>,
    limit: usize,
) -> Result<Vec<Key>> {
    if let Some(trigger) = &filter.trigger {
        // A word that no run has needs no search through all runs.
        let sql = "SELECT word_no FROM word WHERE word = ?1";
        if all(queries, sql, &[trigger.as_str().into()], |row| row.int(0))?.is_empty() {
            return Ok(Vec::new());
        }
    }
    // A join that must be made in the written order says so by CROSS.
    if let Some((key, value)) = filter.labels.first() {
        let mut conditions = rest(filter, after, "l");
        conditions.with("l.key = ?", key.as_str()).with("l.value = ?", value.as_str());
        conditions.plain("r.run_no = l.run_no");
        names(filter, &mut conditions);
        states(filter, &mut conditions, "r.state");
        let tables = "run_label l CROSS JOIN run r CROSS JOIN workflow w";
        return ordered(queries, tables, "l", &conditions, limit);
    }
    if filter.parent.is_some() {
        let mut conditions = rest(filter, after, "r");
        names(filter, &mut conditions);
        states(filter, &mut conditions, "+r.state");
        return ordered(queries, "run r CROSS JOIN workflow w", "r", &conditions, limit);
    }
    let everywhere = filter.namespaces.is_empty()
        && filter.workflow.is_none()
        && filter.search.is_none()
        && filter.states.is_empty();
    if everywhere {
        return ordered(queries, "run r", "r", &rest(filter, after, "r"), limit);
    }
    let cells = cells(queries, filter)?;
    if cells.len() <= MERGED_CELLS {
        let mut merged = Vec::new();
        for (workflow, state, _) in cells {
            let mut conditions = rest(filter, after, "r");
            conditions.with("r.workflow_no = ?", workflow).with("r.state = ?", state);
            merged.extend(ordered(queries, "run r", "r", &conditions, limit)?);
        }
        sort(&mut merged, limit);
        return Ok(merged);
    }
    let mut conditions = rest(filter, after, "r");
    names(filter, &mut conditions);
    if cells.iter().map(|(_, _, runs)| runs).sum::<i64>() <= GATHERED_RUNS {
        conditions.plain("t.runs > 0 AND t.workflow_no = w.workflow_no AND r.state = t.state");
        states(filter, &mut conditions, "t.state");
        let tables = "workflow w CROSS JOIN run_total t CROSS JOIN run r";
        return ordered(queries, tables, "r", &conditions, limit);
    }
    // Many match: they are met soon on the way through all.
    states(filter, &mut conditions, "+r.state");
    ordered(queries, "run r CROSS JOIN workflow w", "r", &conditions, limit)
}

fn states(filter: &RunFilter, conditions: &mut Conditions, column: &str) {
    conditions.one_of_numbers(column, filter.states.iter().map(|state| *state as i64));
}

/// The conditions on the workflow's name, and its join to the run.
fn names(filter: &RunFilter, conditions: &mut Conditions) {
    conditions.plain("w.workflow_no = r.workflow_no");
    workflows(filter, conditions);
}

fn workflows(filter: &RunFilter, conditions: &mut Conditions) {
    conditions.one_of("w.namespace", &filter.namespaces);
    if let Some(name) = &filter.workflow {
        conditions.with("w.name = ?", name.as_str());
    }
    if let Some(part) = &filter.search {
        conditions.contains("w.name", part);
    }
}

/// Pairs of workflow and state with matching runs, and how many there are.
fn cells(queries: &mut dyn Queries, filter: &RunFilter) -> Result<Vec<(i64, i64, i64)>> {
    let mut conditions = Conditions::default();
    conditions.plain("t.runs > 0");
    workflows(filter, &mut conditions);
    states(filter, &mut conditions, "t.state");
    let sql = format!(
        "SELECT t.workflow_no, t.state, t.runs
         FROM workflow w JOIN run_total t ON t.workflow_no = w.workflow_no {}",
        conditions.clause()
    );
    all(queries, &sql, &conditions.values, |row| Ok((row.int(0)?, row.int(1)?, row.int(2)?)))
}

/// The cursor, and all conditions that are neither on the workflow's name nor on the state.
fn rest(filter: &RunFilter, after: Option<Key>, order: &str) -> Conditions {
    let mut conditions = Conditions::default();
    if let Some((created_at, run_no)) = after {
        conditions.with(&format!("{order}.created_at <= ?"), created_at);
        let before = format!("({order}.created_at < ?1 OR {order}.run_no < ?2)");
        conditions.numbered(&before, run_no);
    }
    if let Some(from) = filter.created_from {
        conditions.with(&format!("{order}.created_at >= ?"), from.0);
    }
    if let Some(until) = filter.created_until {
        conditions.with(&format!("{order}.created_at < ?"), until.0);
    }
    if let Some(trigger) = &filter.trigger {
        let condition = "r.trigger = (SELECT word_no FROM word WHERE word = ?)";
        conditions.with(condition, trigger.as_str());
    }
    if let Some(partition) = &filter.partition {
        conditions.with("r.partition = ?", partition.as_str());
    }
    if let Some(parent) = filter.parent {
        conditions.with("r.parent_run = ?", parent);
        if let Some(task) = filter.parent_task {
            conditions.with("r.parent_task = ?", task.0);
        }
    }
    for (key, value) in filter.labels.iter().skip(1) {
        conditions.values.push(Value::Text(key.clone()));
        let (key_at, value_at) = (conditions.values.len(), conditions.values.len() + 1);
        let exists = format!(
            "EXISTS (SELECT 1 FROM run_label x WHERE x.key = ?{key_at} AND x.value = ?{value_at}
                AND x.created_at = r.created_at AND x.run_no = r.run_no)"
        );
        conditions.numbered(&exists, value.as_str());
    }
    conditions
}

/// The first keys of `tables` in order.
fn ordered(
    queries: &mut dyn Queries,
    tables: &str,
    order: &str,
    conditions: &Conditions,
    limit: usize,
) -> Result<Vec<Key>> {
    let sql = format!(
        "SELECT {order}.created_at, {order}.run_no FROM {tables} {}
         ORDER BY {order}.created_at DESC, {order}.run_no DESC LIMIT {limit}",
        conditions.clause()
    );
    all(queries, &sql, &conditions.values, |row| Ok((row.int(0)?, row.int(1)?)))
}

/// Whole runs, in the order of their keys.
fn numbered(queries: &mut dyn Queries, keys: &[Key]) -> Result<Vec<(i64, RunRow)>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut conditions = Conditions::default();
    conditions.one_of_numbers("r.run_no", keys.iter().map(|(_, number)| *number));
    let sql = format!("SELECT {RUN_COLUMNS} FROM {RUN_TABLES} {}", conditions.clause());
    let mut runs = Vec::with_capacity(keys.len());
    queries.each_once(&sql, &[], &mut |cells| {
        runs.push(run_row(cells)?);
        Ok(())
    })?;
    // A run deleted in between is simply not there.
    runs.sort_by_key(|(number, run)| std::cmp::Reverse((run.created_at, *number)));
    Ok(runs)
}

/// How many runs are in each state.
pub(super) fn totals(
    queries: &mut dyn Queries,
    namespaces: &[String],
) -> Result<Vec<(RunState, u64)>> {
    let mut conditions = Conditions::default();
    conditions.plain("t.runs > 0").one_of("w.namespace", namespaces);
    let sql = format!(
        "SELECT t.state, CAST(sum(t.runs) AS bigint) FROM run_total t
         JOIN workflow w ON w.workflow_no = t.workflow_no {} GROUP BY t.state ORDER BY t.state",
        conditions.clause()
    );
    all(queries, &sql, &conditions.values, |row| {
        Ok((codec::run_state(row.number(0)?)?, row.number(1)?))
    })
}

/// How many runs ended in each hour from that of `from` on, by state.
pub(super) fn ended_by_hour(
    queries: &mut dyn Queries,
    namespaces: &[String],
    from: Timestamp,
) -> Result<Vec<(Timestamp, RunState, u64)>> {
    let mut conditions = Conditions::default();
    conditions.with("h.hour >= ?", from.0 / HOUR_MICROS).plain("h.runs > 0");
    conditions.one_of("n.word", namespaces);
    let sql = format!(
        "SELECT h.hour, h.state, CAST(sum(h.runs) AS bigint) FROM run_hour h
         JOIN word n ON n.word_no = h.namespace {} GROUP BY h.hour, h.state
         ORDER BY h.hour, h.state",
        conditions.clause()
    );
    all(queries, &sql, &conditions.values, |row| {
        let hour = row.int(0)?.saturating_mul(HOUR_MICROS);
        Ok((Timestamp(hour), codec::run_state(row.number(1)?)?, row.number(2)?))
    })
}
