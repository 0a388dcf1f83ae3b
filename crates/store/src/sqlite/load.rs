//! Reading rows back: whole runs for the engine, single things for everybody.

use kobza_model::{
    EngineTime, ExpansionRow, Json, LimitRow, MachineRow, NodeNo, RunId, RunImage, RunRow, ScopeNo,
    ScopeRow, TaskId, TaskNo, TaskRow, TemplateNo, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{reading, rows};
use crate::{Fence, StoreError, codec};

type Result<T> = std::result::Result<T, StoreError>;

/// A row of ours that does not decode becomes an error of rusqlite's type, inside its closures.
pub(super) fn decoded<T>(result: Result<T>) -> rusqlite::Result<T> {
    result.map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(e))
    })
}

pub(super) fn fence_row(row: &Row<'_>) -> rusqlite::Result<Fence> {
    Ok(Fence {
        term: unsigned(row, 0)?,
        batch: unsigned(row, 1)?,
        next_event: unsigned(row, 2)?,
        engine_time: EngineTime(row.get(3)?),
    })
}

/// A counter: kept signed, never negative.
pub(super) fn unsigned(row: &Row<'_>, place: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(place)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(place, value))
}

pub(super) fn fence(connection: &Connection) -> Result<Fence> {
    connection
        .prepare_cached("SELECT term, batch, next_event, engine_time FROM shard WHERE shard = 0")
        .and_then(|mut statement| statement.query_row([], fence_row))
        .map_err(reading)
}

/// The columns of a run in the order of [`run_row`]; its tables are `run r` joined by
/// [`RUN_TABLES`].
pub(super) const RUN_COLUMNS: &str = "r.run_no, r.id, w.namespace, w.name, v.word, d.word, \
     r.state, r.cause, r.created_at, r.started_at, r.ended_at, r.params, r.key, g.word, \
     r.interval_start, r.interval_end, r.partition, r.labels, r.parent_run, r.parent_task, \
     r.counts, r.more";

pub(super) const RUN_TABLES: &str = "run r JOIN workflow w ON w.workflow_no = r.workflow_no \
     JOIN word v ON v.word_no = r.version JOIN word d ON d.word_no = r.dialect \
     JOIN word g ON g.word_no = r.trigger";

/// A run with its number in the store.
pub(super) fn run_row(row: &Row<'_>) -> rusqlite::Result<(i64, RunRow)> {
    let text = |place: usize| row.get_ref(place)?.as_str_or_null().map_err(rusqlite::Error::from);
    let parent_run: Option<uuid::Uuid> = row.get(18)?;
    let parent_task: Option<u32> = row.get(19)?;
    let mut run = RunRow {
        run: RunId(row.get(1)?),
        namespace: row.get(2)?,
        workflow: row.get(3)?,
        version: row.get(4)?,
        dialect: row.get(5)?,
        state: decoded(codec::run_state(row.get(6)?))?,
        cause: decoded(codec::cause(row.get(7)?))?,
        message: None,
        created_at: Timestamp(row.get(8)?),
        started_at: row.get::<_, Option<i64>>(9)?.map(Timestamp),
        ended_at: row.get::<_, Option<i64>>(10)?.map(Timestamp),
        params: decoded(codec::json_value(text(11)?))?,
        key: row.get(12)?,
        trigger: row.get(13)?,
        interval_start: row.get::<_, Option<i64>>(14)?.map(Timestamp),
        interval_end: row.get::<_, Option<i64>>(15)?.map(Timestamp),
        partition: row.get(16)?,
        labels: decoded(codec::json_value(text(17)?))?,
        parent: parent_run
            .zip(parent_task)
            .map(|(run, task)| TaskId { run: RunId(run), task: TaskNo(task) }),
        priority: 0,
        generation: 0,
        paused_from: None,
        deadline: None,
        stop: None,
        counts: decoded(codec::unpack_counts(row.get_ref(20)?.as_blob()?))?,
        extra: Json::Null,
    };
    decoded(codec::set_run_more(&mut run, text(21)?))?;
    Ok((row.get(0)?, run))
}

/// The columns of a task in the order of [`task_row`].
pub(super) const TASK_COLUMNS: &str = "task_no, scope, node, template, name, idx, flags, parent, \
     hook, state, cause, attempt, launch, exit_code, priority, created_at, ready_at, started_at, \
     ended_at, first_started, due, child, more";

pub(super) fn task_row(run: RunId, row: &Row<'_>) -> rusqlite::Result<TaskRow> {
    let flags: u8 = row.get(6)?;
    let time = |place| row.get::<_, Option<i64>>(place).map(|t| t.map(Timestamp));
    let mut task = TaskRow {
        run,
        task: TaskNo(row.get(0)?),
        scope: ScopeNo(row.get(1)?),
        node: row.get::<_, Option<u32>>(2)?.map(NodeNo),
        template: TemplateNo(row.get(3)?),
        name: row.get(4)?,
        index: row.get(5)?,
        summary: flags & rows::SUMMARY != 0,
        confirmed: flags & rows::CONFIRMED != 0,
        settled: flags & rows::SETTLED != 0,
        parent: row.get::<_, Option<u32>>(7)?.map(TaskNo),
        hook: row.get(8)?,
        state: decoded(codec::task_state(row.get(9)?))?,
        cause: decoded(codec::cause(row.get(10)?))?,
        message: None,
        attempt: row.get(11)?,
        attempts_before: 0,
        launch: row.get(12)?,
        lost: 0,
        exit_code: row.get(13)?,
        priority: row.get(14)?,
        created_at: Timestamp(row.get(15)?),
        ready_at: time(16)?,
        started_at: time(17)?,
        ended_at: time(18)?,
        first_started: row.get::<_, Option<i64>>(19)?.map(EngineTime),
        due: row.get::<_, Option<i64>>(20)?.map(EngineTime),
        kill: None,
        child: row.get::<_, Option<u32>>(21)?.map(ScopeNo),
        skips: Vec::new(),
        inputs: Json::Null,
        carry: Json::Null,
        extra: Json::Null,
    };
    let more = row.get_ref(22)?.as_str_or_null()?;
    decoded(codec::set_task_more(&mut task, more))?;
    Ok(task)
}

/// The number of a run in the store.
#[expect(dead_code, reason = "views read them")]
pub(super) fn run_number(connection: &Connection, run: RunId) -> Result<Option<i64>> {
    connection
        .prepare_cached("SELECT run_no FROM run WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([run.0], |row| row.get(0)).optional())
        .map_err(reading)
}

pub(super) fn run_by_key(
    connection: &Connection,
    namespace: &str,
    workflow: &str,
    key: &str,
) -> Result<Option<RunId>> {
    connection
        .prepare_cached(
            "SELECT r.id FROM workflow w JOIN run r ON r.workflow_no = w.workflow_no
             WHERE w.namespace = ?1 AND w.name = ?2 AND r.key = ?3",
        )
        .and_then(|mut statement| {
            statement.query_row([namespace, workflow, key], |row| Ok(RunId(row.get(0)?))).optional()
        })
        .map_err(reading)
}

/// All runs that are not finished, as of one instant.
pub(super) fn active_runs(connection: &mut Connection) -> Result<Vec<RunImage>> {
    let tx = connection.transaction().map_err(reading)?;
    let sql = format!(
        "SELECT {RUN_COLUMNS} FROM {RUN_TABLES}
         WHERE r.run_no IN (SELECT run_no FROM run INDEXED BY run_active WHERE state < 4)
         ORDER BY r.run_no"
    );
    let runs: Vec<_> = tx
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_map([], run_row)?.collect())
        .map_err(reading)?;
    runs.into_iter().map(|(number, run)| image(&tx, number, run)).collect()
}

pub(super) fn run_image(connection: &mut Connection, run: RunId) -> Result<Option<RunImage>> {
    let tx = connection.transaction().map_err(reading)?;
    find_run(&tx, run)?.map(|(number, run)| image(&tx, number, run)).transpose()
}

pub(super) fn find_run(connection: &Connection, run: RunId) -> Result<Option<(i64, RunRow)>> {
    let sql = format!("SELECT {RUN_COLUMNS} FROM {RUN_TABLES} WHERE r.id = ?1");
    connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.query_row([run.0], run_row).optional())
        .map_err(reading)
}

/// All rows of a table that belong to a run, in the order of their key.
fn rows_of<T>(
    connection: &Connection,
    sql: &str,
    number: i64,
    map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_map([number], map)?.collect())
        .map_err(reading)
}

fn image(connection: &Connection, number: i64, run: RunRow) -> Result<RunImage> {
    let id = run.run;
    let sql = format!("SELECT {TASK_COLUMNS} FROM task WHERE run_no = ?1 ORDER BY task_no");
    let tasks = rows_of(connection, &sql, number, |row| task_row(id, row))?;
    let scopes = scopes(connection, id, number)?;
    let expansions = expansions(connection, id, number)?;
    let sql = "SELECT key, value FROM machine WHERE run_no = ?1 ORDER BY key";
    let machine = rows_of(connection, sql, number, |row| {
        Ok(MachineRow { run: id, key: row.get(0)?, value: Some(row.get(1)?) })
    })?;
    Ok(RunImage { run, tasks, scopes, expansions, machine })
}

pub(super) fn scopes(connection: &Connection, run: RunId, number: i64) -> Result<Vec<ScopeRow>> {
    let sql = "SELECT scope, template, owner, attempt, finished FROM scope
               WHERE run_no = ?1 ORDER BY scope";
    rows_of(connection, sql, number, |row| {
        Ok(ScopeRow {
            run,
            scope: ScopeNo(row.get(0)?),
            template: TemplateNo(row.get(1)?),
            owner: row.get::<_, Option<u32>>(2)?.map(TaskNo),
            attempt: row.get(3)?,
            finished: row.get(4)?,
        })
    })
}

pub(super) fn expansions(
    connection: &Connection,
    run: RunId,
    number: i64,
) -> Result<Vec<ExpansionRow>> {
    let sql = "SELECT scope, node, length, made FROM expansion
               WHERE run_no = ?1 ORDER BY scope, node";
    rows_of(connection, sql, number, |row| {
        Ok(ExpansionRow {
            run,
            scope: ScopeNo(row.get(0)?),
            node: NodeNo(row.get(1)?),
            length: row.get(2)?,
            made: row.get(3)?,
        })
    })
}

pub(super) fn limits(connection: &Connection) -> Result<Vec<LimitRow>> {
    connection
        .prepare_cached("SELECT name, capacity, strict, description FROM task_limit ORDER BY name")
        .and_then(|mut statement| {
            statement
                .query_map([], |row| {
                    Ok(LimitRow {
                        name: row.get(0)?,
                        capacity: row.get(1)?,
                        strict: row.get(2)?,
                        description: row.get(3)?,
                    })
                })?
                .collect()
        })
        .map_err(reading)
}

pub(super) fn outputs(
    connection: &Connection,
    run: RunId,
    task: TaskNo,
) -> Result<Vec<(String, Json)>> {
    connection
        .prepare_cached(
            "SELECT o.key, o.value FROM run r JOIN output o ON o.run_no = r.run_no
             WHERE r.id = ?1 AND o.task_no = ?2 ORDER BY o.key",
        )
        .and_then(|mut statement| {
            statement
                .query_map(params![run.0, task.0], |row| {
                    let value = decoded(codec::from_text(row.get_ref(1)?.as_str()?))?;
                    Ok((row.get(0)?, value))
                })?
                .collect()
        })
        .map_err(reading)
}

pub(super) fn object(
    connection: &Connection,
    kind: &str,
    namespace: &str,
    key: &str,
) -> Result<Option<Json>> {
    connection
        .prepare_cached("SELECT value FROM object WHERE kind = ?1 AND namespace = ?2 AND key = ?3")
        .and_then(|mut statement| {
            statement
                .query_row([kind, namespace, key], |row| {
                    decoded(codec::from_text(row.get_ref(0)?.as_str()?))
                })
                .optional()
        })
        .map_err(reading)
}
