//! Tasks of a run: lists, counts by name, the grid.

use std::collections::BTreeMap;

use kobza_model::{Json, NodeNo, RunId, ScopeNo, TaskId, TaskNo, TaskRow, TaskState};

use super::load::{TASK_COLUMNS, flags, run_number, task_row};
use super::{Conditions, Queries, Result, all, cursor, first, page_size, runs};
use crate::{GridCell, GridRun, Page, TaskCount, TaskFilter, ViewError, codec};

/// Most runs of a grid: a year of days.
const MAX_GRID_RUNS: usize = 365;

pub(super) fn list(
    queries: &mut dyn Queries,
    run: RunId,
    filter: &TaskFilter,
    after: Option<&str>,
    limit: u32,
) -> std::result::Result<Page<TaskRow>, ViewError> {
    let after: Option<u32> = cursor::decode("tasks", after)?;
    let size = page_size(limit);
    let Some(number) = run_number(queries, run)? else {
        return Ok(Page { items: Vec::new(), next: None });
    };
    let mut conditions = Conditions::default();
    conditions.with("run_no = ?", number);
    if let Some(after) = after {
        conditions.with("task_no > ?", after);
    }
    conditions.one_of_numbers("state", filter.states.iter().map(|state| *state as i64));
    if let Some(name) = &filter.name {
        conditions.with("name = ?", name.as_str());
    }
    if let Some(part) = &filter.search {
        conditions.contains("name", part);
    }
    let numbers = [
        ("node = ?", filter.node.map(|n| n.0)),
        ("scope = ?", filter.scope.map(|s| s.0)),
        ("parent = ?", filter.parent.map(|t| t.0)),
        ("idx >= ?", filter.index_from),
        ("idx < ?", filter.index_until),
    ];
    for (condition, value) in numbers {
        if let Some(value) = value {
            conditions.with(condition, value);
        }
    }
    if filter.hide_summaries {
        conditions.plain(format!("(flags & {}) = 0", flags::SUMMARY));
    }
    if filter.hide_instances {
        conditions.plain("idx IS NULL");
    }
    let sql = format!(
        "SELECT {TASK_COLUMNS} FROM task {} ORDER BY task_no LIMIT {}",
        conditions.clause(),
        size + 1
    );
    let mut items = all(queries, &sql, &conditions.values, |cells| task_row(run, cells))?;
    let more = items.len() > size;
    items.truncate(size);
    let last = items.last().filter(|_| more);
    let next = last.and_then(|task| cursor::encode("tasks", &task.task.0));
    Ok(Page { items, next })
}

pub(super) fn get(queries: &mut dyn Queries, task: TaskId) -> Result<Option<TaskRow>> {
    let Some(number) = run_number(queries, task.run)? else { return Ok(None) };
    let sql = format!("SELECT {TASK_COLUMNS} FROM task WHERE run_no = ?1 AND task_no = ?2");
    let values = [number.into(), task.task.0.into()];
    first(queries, &sql, &values, |cells| task_row(task.run, cells))
}

pub(super) fn attempts(queries: &mut dyn Queries, task: TaskId) -> Result<Vec<TaskRow>> {
    let sql = "SELECT a.body FROM run r JOIN attempt a ON a.run_no = r.run_no
               WHERE r.id = ?1 AND a.task_no = ?2 ORDER BY a.nth";
    let values = [task.run.into(), task.task.0.into()];
    all(queries, sql, &values, |cells| codec::from_text(cells.str(0)?))
}

pub(super) fn output(queries: &mut dyn Queries, task: TaskId, key: &str) -> Result<Option<Json>> {
    let sql = "SELECT o.value FROM run r JOIN output o ON o.run_no = r.run_no
               WHERE r.id = ?1 AND o.task_no = ?2 AND o.key = ?3";
    let values = [task.run.into(), task.task.0.into(), key.into()];
    first(queries, sql, &values, |cells| codec::from_text(cells.str(0)?))
}

/// Tasks with notes, or with an output whose text speaks of an artifact.
pub(super) fn with_artifacts(
    queries: &mut dyn Queries,
    run: RunId,
    after: Option<&str>,
    limit: u32,
) -> std::result::Result<Page<TaskNo>, ViewError> {
    let after: Option<u32> = cursor::decode("artifacts", after)?;
    let size = page_size(limit);
    let Some(number) = run_number(queries, run)? else {
        return Ok(Page { items: Vec::new(), next: None });
    };
    let mut conditions = Conditions::default();
    conditions.with("run_no = ?", number);
    if let Some(after) = after {
        conditions.with("task_no > ?", after);
    }
    conditions.plain("(key = '$notes' OR value LIKE '%\"$artifact\":%')");
    let sql = format!(
        "SELECT DISTINCT task_no FROM output {} ORDER BY task_no LIMIT {}",
        conditions.clause(),
        size + 1
    );
    let mut items = all(queries, &sql, &conditions.values, |cells| Ok(TaskNo(cells.number(0)?)))?;
    let more = items.len() > size;
    items.truncate(size);
    let last = items.last().filter(|_| more);
    let next = last.and_then(|task| cursor::encode("artifacts", &task.0));
    Ok(Page { items, next })
}

/// Every text in which the digest of an artifact may stand.
pub(super) fn artifact_texts(queries: &mut dyn Queries, each: &mut dyn FnMut(&str)) -> Result<()> {
    for (table, column) in [
        ("output", "value"),
        ("run", "params"),
        ("task", "more"),
        ("object", "value"),
        ("materialization", "metadata"),
    ] {
        let cached = if table == "object" { "kind = 'cache' AND " } else { "" };
        let sql =
            format!("SELECT {column} FROM {table} WHERE {cached}{column} LIKE '%\"digest\":\"%'");
        queries.each_once(&sql, &[], &mut |cells| {
            each(cells.str(0)?);
            Ok(())
        })?;
    }
    Ok(())
}

/// Where a task stands: its scope, node and name.
type Place = (ScopeNo, Option<NodeNo>, String);

pub(super) fn counts(queries: &mut dyn Queries, run: RunId) -> Result<Vec<TaskCount>> {
    match run_number(queries, run)? {
        Some(number) => counts_of(queries, number),
        None => Ok(Vec::new()),
    }
}

fn counts_of(queries: &mut dyn Queries, number: i64) -> Result<Vec<TaskCount>> {
    let sql = format!(
        "SELECT scope, node, name, state, flags & {}, count(*) FROM task WHERE run_no = ?1
         GROUP BY 1, 2, 3, 4, 5",
        flags::SUMMARY
    );
    let rows = all(queries, &sql, &[number.into()], |cells| {
        let place: Place =
            (ScopeNo(cells.number(0)?), cells.opt_number(1)?.map(NodeNo), cells.text(2)?);
        let state = codec::task_state(cells.number(3)?)?;
        Ok((place, state, cells.flag(4)?, cells.number::<u64>(5)?))
    })?;
    let mut by_place: BTreeMap<Place, [Vec<(TaskState, u64)>; 2]> = BTreeMap::new();
    for (place, state, summary, tasks) in rows {
        by_place.entry(place).or_default()[usize::from(summary)].push((state, tasks));
    }
    let mut counts = Vec::new();
    for ((scope, node, name), [instances, summaries]) in by_place {
        let mut states = if instances.is_empty() { summaries } else { instances };
        states.sort_unstable();
        for (state, tasks) in states {
            counts.push(TaskCount { scope, node, name: name.clone(), state, tasks });
        }
    }
    Ok(counts)
}

pub(super) fn grid(
    queries: &mut dyn Queries,
    namespace: &str,
    workflow: &str,
    limit: u32,
) -> Result<Vec<GridRun>> {
    let sql = "SELECT workflow_no FROM workflow WHERE namespace = ?1 AND name = ?2";
    let values = [namespace.into(), workflow.into()];
    let Some(workflow) = first(queries, sql, &values, |cells| cells.int(0))? else {
        return Ok(Vec::new());
    };
    let limit = (limit as usize).clamp(1, MAX_GRID_RUNS);
    let mut grid = Vec::new();
    for (number, run) in runs::newest(queries, workflow, limit)? {
        let mut by_name: BTreeMap<String, BTreeMap<TaskState, u64>> = BTreeMap::new();
        for count in counts_of(queries, number)? {
            *by_name.entry(count.name).or_default().entry(count.state).or_default() += count.tasks;
        }
        let cell = |(name, states): (_, BTreeMap<_, _>)| GridCell {
            name,
            states: states.into_iter().collect(),
        };
        grid.push(GridRun { run, tasks: by_name.into_iter().map(cell).collect() });
    }
    Ok(grid)
}
