//! A batch's rows, each table in one statement: an array for each column.

use std::collections::{BTreeMap, BTreeSet};

use kobza_model::{Json, RunId, RunRow, TaskId, TaskRow, Timestamp};
use postgres::types::ToSql;

use super::link::Link;
use crate::read::{Statements, Value, flags};
use crate::write::{self, KnownRun, Memory, ended_hour, relabel};
use crate::{Commit, Fence, StoreError, codec};

type Result<T> = std::result::Result<T, StoreError>;
type Row = Vec<Value>;

/// A table to write to.
struct Table {
    name: &'static str,
    /// The first columns, so many, are the key.
    keys: usize,
    columns: &'static [(&'static str, Kind)],
    /// Columns that an update leaves alone.
    fixed: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Kind {
    Int,
    Text,
    Blob,
}
use Kind::{Blob, Int, Text};

enum Column {
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Blobs(Vec<Option<Vec<u8>>>),
}

impl Table {
    /// Inserts the rows, or overwrites those with the same key. A key may come only once.
    fn put(&self, link: &mut Link, rows: Vec<Row>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut arrays: Vec<Column> = self
            .columns
            .iter()
            .map(|(_, kind)| match kind {
                Int => Column::Ints(Vec::with_capacity(rows.len())),
                Text => Column::Texts(Vec::with_capacity(rows.len())),
                Blob => Column::Blobs(Vec::with_capacity(rows.len())),
            })
            .collect();
        for row in rows {
            for (array, value) in arrays.iter_mut().zip(row) {
                array.push(value)?;
            }
        }
        let arrays: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(Column::array).collect();
        link.bulk(&self.sql(), &arrays).map(drop)
    }

    fn sql(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|(name, _)| *name).collect();
        let arrays: Vec<_> = (1..)
            .zip(self.columns)
            .map(|(place, (_, kind))| match kind {
                Int => format!("?{place}::bigint[]"),
                Text => format!("?{place}::text[]"),
                Blob => format!("?{place}::bytea[]"),
            })
            .collect();
        let updates: Vec<_> = names[self.keys..]
            .iter()
            .filter(|name| !self.fixed.contains(name))
            .map(|name| format!("{name} = excluded.{name}"))
            .collect();
        let conflict = if updates.is_empty() {
            "NOTHING".to_owned()
        } else {
            format!("UPDATE SET {}", updates.join(", "))
        };
        format!(
            "INSERT INTO {} ({}) SELECT * FROM unnest({}) ON CONFLICT ({}) DO {conflict}",
            self.name,
            names.join(", "),
            arrays.join(", "),
            names[..self.keys].join(", "),
        )
    }
}

impl Column {
    fn push(&mut self, value: Value) -> Result<()> {
        match (self, value) {
            (Self::Ints(array), Value::Int(number)) => array.push(Some(number)),
            (Self::Ints(array), Value::Null) => array.push(None),
            (Self::Texts(array), Value::Text(text)) => array.push(Some(text)),
            (Self::Texts(array), Value::Null) => array.push(None),
            (Self::Blobs(array), Value::Blob(bytes)) => array.push(Some(bytes)),
            (Self::Blobs(array), Value::Null) => array.push(None),
            (_, value) => return Err(StoreError(format!("{value:?} is not of its column's type"))),
        }
        Ok(())
    }

    fn array(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Ints(array) => array,
            Self::Texts(array) => array,
            Self::Blobs(array) => array,
        }
    }
}

const RUN: Table = Table {
    name: "run",
    keys: 1,
    columns: &[
        ("run_no", Int),
        ("id", Blob),
        ("workflow_no", Int),
        ("version", Int),
        ("dialect", Int),
        ("trigger", Int),
        ("state", Int),
        ("cause", Int),
        ("created_at", Int),
        ("started_at", Int),
        ("ended_at", Int),
        ("key", Text),
        ("interval_start", Int),
        ("interval_end", Int),
        ("partition", Text),
        ("parent_run", Blob),
        ("parent_task", Int),
        ("counts", Blob),
        ("labels", Text),
        ("params", Text),
        ("more", Text),
    ],
    fixed: &[
        "id",
        "workflow_no",
        "dialect",
        "trigger",
        "created_at",
        "key",
        "interval_start",
        "interval_end",
        "partition",
        "parent_run",
        "parent_task",
    ],
};

const TASK: Table = Table {
    name: "task",
    keys: 2,
    columns: &[
        ("run_no", Int),
        ("task_no", Int),
        ("scope", Int),
        ("node", Int),
        ("template", Int),
        ("name", Text),
        ("idx", Int),
        ("flags", Int),
        ("parent", Int),
        ("hook", Int),
        ("state", Int),
        ("cause", Int),
        ("attempt", Int),
        ("launch", Int),
        ("exit_code", Int),
        ("priority", Int),
        ("created_at", Int),
        ("ready_at", Int),
        ("started_at", Int),
        ("ended_at", Int),
        ("first_started", Int),
        ("due", Int),
        ("child", Int),
        ("more", Text),
    ],
    fixed: &[],
};

const SCOPE: Table = Table {
    name: "scope",
    keys: 2,
    columns: &[
        ("run_no", Int),
        ("scope", Int),
        ("template", Int),
        ("owner", Int),
        ("attempt", Int),
        ("finished", Int),
    ],
    fixed: &[],
};

const EXPANSION: Table = Table {
    name: "expansion",
    keys: 3,
    columns: &[("run_no", Int), ("scope", Int), ("node", Int), ("length", Int), ("made", Int)],
    fixed: &[],
};

const OUTPUT: Table = Table {
    name: "output",
    keys: 3,
    columns: &[("run_no", Int), ("task_no", Int), ("key", Text), ("value", Text)],
    fixed: &[],
};

const MACHINE: Table = Table {
    name: "machine",
    keys: 2,
    columns: &[("run_no", Int), ("key", Blob), ("value", Blob)],
    fixed: &[],
};

const EVENT_OF_RUN: Table = Table {
    name: "event_of_run",
    keys: 2,
    columns: &[("run_no", Int), ("first_seq", Int)],
    fixed: &[],
};

/// Everything of the batch but the shard's row.
pub(super) fn write_batch(
    link: &mut Link,
    memory: &mut Memory,
    fence: Fence,
    commit: &Commit,
) -> Result<()> {
    let batch = &commit.engine;
    remember_runs(link, memory, commit)?;
    runs(link, memory, &batch.runs)?;
    attempts(link, memory, &batch.attempts)?;
    let tasks: Vec<_> =
        batch.tasks.iter().map(|row| task(link, memory, row)).collect::<Result<_>>()?;
    TASK.put(link, tasks)?;
    remove_tasks(link, memory, &batch.removed_tasks)?;
    let mut rows = Vec::new();
    for row in &batch.scopes {
        rows.push(vec![
            memory.run_number(link, row.run)?.into(),
            row.scope.0.into(),
            row.template.0.into(),
            row.owner.map(|task| task.0).into(),
            row.attempt.into(),
            row.finished.into(),
        ]);
    }
    SCOPE.put(link, rows)?;
    let mut rows = Vec::new();
    for row in &batch.expansions {
        rows.push(vec![
            memory.run_number(link, row.run)?.into(),
            row.scope.0.into(),
            row.node.0.into(),
            row.length.into(),
            row.made.into(),
        ]);
    }
    EXPANSION.put(link, rows)?;
    outputs(link, memory, commit)?;
    write::limits(link, &batch.limits, &batch.removed_limits)?;
    machine(link, memory, commit)?;
    events(link, memory, fence.next_event, commit)?;
    for write in &commit.writes {
        write::apply(link, memory, commit, write)?;
    }
    Ok(())
}

/// Looks up all runs of the batch at once that are not remembered.
fn remember_runs(link: &mut Link, memory: &mut Memory, commit: &Commit) -> Result<()> {
    let batch = &commit.engine;
    let runs = batch.runs.iter().map(|row| row.run);
    let unknown: BTreeSet<RunId> = runs
        .chain(batch.tasks.iter().map(|row| row.run))
        .chain(batch.outputs.iter().map(|row| row.run))
        .chain(batch.events.iter().filter_map(|event| event.run))
        .filter(|run| !memory.runs.contains_key(run))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let ids: Vec<Vec<u8>> = unknown.iter().map(|run| run.0.as_bytes().to_vec()).collect();
    let sql = "SELECT id, run_no, workflow_no, state, labels, ended_at FROM run
               WHERE id = ANY (?1::bytea[])";
    for (run, known) in link.rows_of(sql, &ids, |cells| {
        let state = codec::run_state(cells.number(3)?)?;
        let known = KnownRun {
            number: cells.int(1)?,
            workflow: cells.int(2)?,
            state,
            ended: ended_hour(state, cells.opt_int(5)?.map(Timestamp)),
            labels: cells.opt_text(4)?,
        };
        Ok((cells.run(0)?, known))
    })? {
        memory.runs.insert(run, known);
    }
    Ok(())
}

fn runs(link: &mut Link, memory: &mut Memory, rows: &[RunRow]) -> Result<()> {
    let mut totals: BTreeMap<(i64, u8), i64> = BTreeMap::new();
    let mut hours: BTreeMap<(i64, i64, u8), i64> = BTreeMap::new();
    let mut relabels = Vec::new();
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        let labels = codec::json_text(&row.labels)?;
        // All that are there have just been remembered.
        let before = memory.runs.get(&row.run).cloned();
        let (number, workflow) = match &before {
            Some(known) => (known.number, known.workflow),
            None => {
                let workflow = memory.workflow(link, &row.namespace, &row.workflow)?;
                (memory.next_run_number(link)?, workflow)
            }
        };
        values.push(vec![
            number.into(),
            row.run.into(),
            workflow.into(),
            memory.word(link, &row.version)?.into(),
            memory.word(link, &row.dialect)?.into(),
            memory.word(link, &row.trigger)?.into(),
            (row.state as i64).into(),
            (row.cause as i64).into(),
            row.created_at.0.into(),
            row.started_at.map(|t| t.0).into(),
            row.ended_at.map(|t| t.0).into(),
            row.key.clone().into(),
            row.interval_start.map(|t| t.0).into(),
            row.interval_end.map(|t| t.0).into(),
            row.partition.clone().into(),
            row.parent.map(|parent| parent.run).into(),
            row.parent.map(|parent| parent.task.0).into(),
            codec::pack_counts(&row.counts)?.into(),
            labels.clone().into(),
            codec::json_text(&row.params)?.into(),
            codec::run_more(row)?.into(),
        ]);
        let labels_before = before.as_ref().and_then(|known| known.labels.clone());
        if labels_before != labels {
            relabels.push((number, row.created_at, labels_before, &row.labels));
        }
        if let Some(known) = &before {
            *totals.entry((workflow, known.state as u8)).or_default() -= 1;
        }
        *totals.entry((workflow, row.state as u8)).or_default() += 1;
        let ended = ended_hour(row.state, row.ended_at);
        let end_before =
            before.as_ref().and_then(|known| known.ended.map(|hour| (hour, known.state)));
        for (end, by) in [(end_before, -1), (ended.map(|hour| (hour, row.state)), 1)] {
            if let Some((hour, state)) = end {
                let namespace = memory.word(link, &row.namespace)?;
                *hours.entry((namespace, hour, state as u8)).or_default() += by;
            }
        }
        let known = KnownRun { number, workflow, state: row.state, ended, labels };
        memory.runs.insert(row.run, known);
    }
    RUN.put(link, values)?;
    for (number, created_at, before, labels) in relabels {
        relabel(link, number, created_at, before.as_deref(), labels)?;
    }
    count_runs(link, totals)?;
    count_ends(link, hours)
}

fn count_runs(link: &mut Link, mut totals: BTreeMap<(i64, u8), i64>) -> Result<()> {
    totals.retain(|_, by| *by != 0);
    if totals.is_empty() {
        return Ok(());
    }
    let workflows: Vec<i64> = totals.keys().map(|(workflow, _)| *workflow).collect();
    let states: Vec<i64> = totals.keys().map(|(_, state)| i64::from(*state)).collect();
    let runs: Vec<i64> = totals.values().copied().collect();
    let sql = "INSERT INTO run_total (workflow_no, state, runs)
               SELECT * FROM unnest(?1::bigint[], ?2::bigint[], ?3::bigint[])
               ON CONFLICT (workflow_no, state) DO UPDATE SET
                  runs = run_total.runs + excluded.runs";
    link.bulk(sql, &[&workflows, &states, &runs]).map(drop)
}

fn count_ends(link: &mut Link, mut hours: BTreeMap<(i64, i64, u8), i64>) -> Result<()> {
    hours.retain(|_, by| *by != 0);
    if hours.is_empty() {
        return Ok(());
    }
    let namespaces: Vec<i64> = hours.keys().map(|(namespace, ..)| *namespace).collect();
    let at: Vec<i64> = hours.keys().map(|(_, hour, _)| *hour).collect();
    let states: Vec<i64> = hours.keys().map(|(.., state)| i64::from(*state)).collect();
    let runs: Vec<i64> = hours.values().copied().collect();
    let sql = "INSERT INTO run_hour (namespace, hour, state, runs)
               SELECT * FROM unnest(?1::bigint[], ?2::bigint[], ?3::bigint[], ?4::bigint[])
               ON CONFLICT (namespace, hour, state) DO UPDATE SET
                  runs = run_hour.runs + excluded.runs";
    link.bulk(sql, &[&namespaces, &at, &states, &runs]).map(drop)
}

fn task(link: &mut Link, memory: &mut Memory, row: &TaskRow) -> Result<Row> {
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    let set = flag(row.summary, flags::SUMMARY)
        | flag(row.confirmed, flags::CONFIRMED)
        | flag(row.settled, flags::SETTLED);
    Ok(vec![
        memory.run_number(link, row.run)?.into(),
        row.task.0.into(),
        row.scope.0.into(),
        row.node.map(|n| n.0).into(),
        row.template.0.into(),
        row.name.as_str().into(),
        row.index.into(),
        i64::from(set).into(),
        row.parent.map(|t| t.0).into(),
        row.hook.map(i64::from).into(),
        (row.state as i64).into(),
        (row.cause as i64).into(),
        row.attempt.into(),
        row.launch.into(),
        row.exit_code.map(i64::from).into(),
        i64::from(row.priority).into(),
        row.created_at.0.into(),
        row.ready_at.map(|t| t.0).into(),
        row.started_at.map(|t| t.0).into(),
        row.ended_at.map(|t| t.0).into(),
        row.first_started.map(|t| t.0).into(),
        row.due.map(|t| t.0).into(),
        row.child.map(|s| s.0).into(),
        codec::task_more(row)?.into(),
    ])
}

fn remove_tasks(link: &mut Link, memory: &mut Memory, tasks: &[TaskId]) -> Result<()> {
    let mut by_run: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for task in tasks {
        let run = memory.run_number(link, task.run)?;
        by_run.entry(run).or_default().push(i64::from(task.task.0));
    }
    for (run, tasks) in by_run {
        for table in ["task", "attempt", "output"] {
            let sql =
                format!("DELETE FROM {table} WHERE run_no = ?1 AND task_no = ANY(?2::bigint[])");
            link.bulk(&sql, &[&run, &tasks])?;
        }
    }
    Ok(())
}

fn attempts(link: &mut Link, memory: &mut Memory, rows: &[TaskRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let (mut runs, mut tasks, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        runs.push(memory.run_number(link, row.run)?);
        tasks.push(i64::from(row.task.0));
        bodies.push(codec::text(row)?);
    }
    let sql = "INSERT INTO attempt (run_no, task_no, nth, body)
               SELECT a.run_no, a.task_no,
                  coalesce((SELECT max(x.nth) FROM attempt x
                     WHERE x.run_no = a.run_no AND x.task_no = a.task_no), 0)
                  + row_number() OVER (PARTITION BY a.run_no, a.task_no ORDER BY a.place),
                  a.body
               FROM unnest(?1::bigint[], ?2::bigint[], ?3::text[])
                  WITH ORDINALITY AS a (run_no, task_no, body, place)";
    link.bulk(sql, &[&runs, &tasks, &bodies]).map(drop)
}

fn outputs(link: &mut Link, memory: &mut Memory, commit: &Commit) -> Result<()> {
    for dropped in &commit.engine.dropped_outputs {
        let run = memory.run_number(link, dropped.run)?;
        let sql = "DELETE FROM output WHERE run_no = ?1 AND task_no = ?2";
        link.execute(sql, &[run.into(), dropped.task.0.into()])?;
    }
    // Of one key the last one counts: a statement may write a row only once.
    let mut last: BTreeMap<(RunId, u32, &str), &Json> = BTreeMap::new();
    for row in &commit.engine.outputs {
        last.insert((row.run, row.task.0, &row.key), &row.value);
    }
    let mut rows = Vec::with_capacity(last.len());
    for ((run, task, key), value) in last {
        let run = memory.run_number(link, run)?;
        rows.push(vec![run.into(), task.into(), key.into(), codec::text(value)?.into()]);
    }
    OUTPUT.put(link, rows)
}

fn machine(link: &mut Link, memory: &mut Memory, commit: &Commit) -> Result<()> {
    let mut last: BTreeMap<(RunId, &[u8]), Option<&Vec<u8>>> = BTreeMap::new();
    for row in &commit.engine.machine {
        last.insert((row.run, &row.key), row.value.as_ref());
    }
    let mut rows = Vec::new();
    let (mut gone_runs, mut gone_keys) = (Vec::new(), Vec::new());
    for ((run, key), value) in last {
        let run = memory.run_number(link, run)?;
        match value {
            Some(value) => {
                rows.push(vec![run.into(), key.to_vec().into(), value.clone().into()]);
            }
            None => {
                gone_runs.push(run);
                gone_keys.push(key.to_vec());
            }
        }
    }
    MACHINE.put(link, rows)?;
    if gone_runs.is_empty() {
        return Ok(());
    }
    let sql = "DELETE FROM machine m USING unnest(?1::bigint[], ?2::bytea[]) AS g (run_no, key)
               WHERE m.run_no = g.run_no AND m.key = g.key";
    link.bulk(sql, &[&gone_runs, &gone_keys]).map(drop)
}

fn events(link: &mut Link, memory: &mut Memory, first: u64, commit: &Commit) -> Result<()> {
    let events = &commit.engine.events;
    if events.is_empty() {
        return Ok(());
    }
    let first_seq = i64::try_from(first).unwrap_or(i64::MAX);
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    let sql = "INSERT INTO event_batch (first_seq, count, at, body) VALUES (?1, ?2, ?3, ?4)";
    let body = codec::pack_events(events)?;
    link.execute(sql, &[first_seq.into(), count.into(), commit.at.0.into(), body.into()])?;
    // An event may outlive its run (a note about a deletion).
    let known = |run: &RunId| memory.runs.get(run).map(|known| known.number);
    let runs: BTreeSet<i64> =
        events.iter().filter_map(|event| event.run.as_ref().and_then(known)).collect();
    let rows = runs.into_iter().map(|run| vec![run.into(), first_seq.into()]).collect();
    EVENT_OF_RUN.put(link, rows)?;
    for (place, event) in events.iter().enumerate() {
        write::asset_event(link, memory, first + place as u64, event)?;
    }
    Ok(())
}
