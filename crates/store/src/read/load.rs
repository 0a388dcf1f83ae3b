//! Whole rows: runs for the engine's restore, and what views share.

use std::sync::Arc;

use kobza_model::{
    EngineTime, ExpansionRow, Json, LimitRow, MachineRow, NodeNo, RunId, RunImage, RunRow, ScopeNo,
    ScopeRow, TaskId, TaskNo, TaskRow, TemplateNo,
};

use super::{Cells, Queries, Result, Value, all, first};
use crate::{Fence, StoredWorkflow, codec};

/// What the flags of a task mean.
pub(crate) mod flags {
    /// An expansion as a whole stands in this row.
    pub(crate) const SUMMARY: u8 = 1;
    /// The executor has confirmed the newest launch.
    pub(crate) const CONFIRMED: u8 = 2;
    /// Settled for its readers.
    pub(crate) const SETTLED: u8 = 4;
}

pub(crate) fn fence(queries: &mut dyn Queries) -> Result<Fence> {
    let sql = "SELECT term, batch, next_event, engine_time FROM shard WHERE shard = 0";
    first(queries, sql, &[], |cells| {
        Ok(Fence {
            term: cells.number(0)?,
            batch: cells.number(1)?,
            next_event: cells.number(2)?,
            engine_time: EngineTime(cells.int(3)?),
        })
    })?
    .ok_or_else(|| crate::StoreError("the shard's row is missing".into()))
}

/// The columns of a run in the order of [`run_row`]; its tables are [`RUN_TABLES`].
pub(super) const RUN_COLUMNS: &str = "r.run_no, r.id, w.namespace, w.name, v.word, d.word, \
     r.state, r.cause, r.created_at, r.started_at, r.ended_at, r.params, r.key, g.word, \
     r.interval_start, r.interval_end, r.partition, r.labels, r.parent_run, r.parent_task, \
     r.counts, r.more";

pub(super) const RUN_TABLES: &str = "run r JOIN workflow w ON w.workflow_no = r.workflow_no \
     JOIN word v ON v.word_no = r.version JOIN word d ON d.word_no = r.dialect \
     JOIN word g ON g.word_no = r.trigger";

/// A run with its number in the store.
pub(super) fn run_row(cells: &mut Cells) -> Result<(i64, RunRow)> {
    let parent = cells.opt_run(18)?.zip(cells.opt_task(19)?);
    let mut run = RunRow {
        run: cells.run(1)?,
        state: codec::run_state(cells.number(6)?)?,
        cause: codec::cause(cells.number(7)?)?,
        message: None,
        created_at: cells.time(8)?,
        started_at: cells.opt_time(9)?,
        ended_at: cells.opt_time(10)?,
        params: codec::json_value(cells.opt_str(11)?)?,
        interval_start: cells.opt_time(14)?,
        interval_end: cells.opt_time(15)?,
        labels: codec::json_value(cells.opt_str(17)?)?,
        parent: parent.map(|(run, task)| TaskId { run, task }),
        priority: 0,
        generation: 0,
        paused_from: None,
        deadline: None,
        stop: None,
        counts: codec::unpack_counts(cells.blob(20)?)?,
        extra: Json::Null,
        namespace: cells.text(2)?,
        workflow: cells.text(3)?,
        version: cells.text(4)?,
        dialect: cells.text(5)?,
        key: cells.opt_text(12)?,
        trigger: cells.text(13)?,
        partition: cells.opt_text(16)?,
    };
    codec::set_run_more(&mut run, cells.opt_str(21)?)?;
    Ok((cells.int(0)?, run))
}

/// The columns of a task in the order of [`task_row`].
pub(super) const TASK_COLUMNS: &str = "task_no, scope, node, template, name, idx, flags, parent, \
     hook, state, cause, attempt, launch, exit_code, priority, created_at, ready_at, started_at, \
     ended_at, first_started, due, child, more";

pub(super) fn task_row(run: RunId, cells: &mut Cells) -> Result<TaskRow> {
    let set: u8 = cells.number(6)?;
    let mut task = TaskRow {
        run,
        task: TaskNo(cells.number(0)?),
        scope: ScopeNo(cells.number(1)?),
        node: cells.opt_number(2)?.map(NodeNo),
        template: TemplateNo(cells.number(3)?),
        name: cells.text(4)?,
        index: cells.opt_number(5)?,
        summary: set & flags::SUMMARY != 0,
        confirmed: set & flags::CONFIRMED != 0,
        settled: set & flags::SETTLED != 0,
        parent: cells.opt_task(7)?,
        hook: cells.opt_number(8)?,
        state: codec::task_state(cells.number(9)?)?,
        cause: codec::cause(cells.number(10)?)?,
        message: None,
        attempt: cells.number(11)?,
        attempts_before: 0,
        launch: cells.number(12)?,
        lost: 0,
        exit_code: cells.opt_number(13)?,
        priority: cells.number(14)?,
        created_at: cells.time(15)?,
        ready_at: cells.opt_time(16)?,
        started_at: cells.opt_time(17)?,
        ended_at: cells.opt_time(18)?,
        first_started: cells.opt_int(19)?.map(EngineTime),
        due: cells.opt_int(20)?.map(EngineTime),
        kill: None,
        child: cells.opt_number(21)?.map(ScopeNo),
        skips: Vec::new(),
        inputs: Json::Null,
        carry: Json::Null,
        extra: Json::Null,
    };
    codec::set_task_more(&mut task, cells.opt_str(22)?)?;
    Ok(task)
}

/// The number of a run in the store.
pub(super) fn run_number(queries: &mut dyn Queries, run: RunId) -> Result<Option<i64>> {
    first(queries, "SELECT run_no FROM run WHERE id = ?1", &[run.into()], |cells| cells.int(0))
}

pub(crate) fn run_by_key(
    queries: &mut dyn Queries,
    namespace: &str,
    workflow: &str,
    key: &str,
) -> Result<Option<RunId>> {
    let sql = "SELECT r.id FROM workflow w JOIN run r ON r.workflow_no = w.workflow_no
               WHERE w.namespace = ?1 AND w.name = ?2 AND r.key = ?3";
    let values = [namespace.into(), workflow.into(), key.into()];
    first(queries, sql, &values, |cells| cells.run(0))
}

/// All runs that are not finished, as of one instant.
pub(crate) fn active_runs(queries: &mut dyn Queries) -> Result<Vec<RunImage>> {
    // The order is what leads SQLite to the small index of active runs.
    let sql = "SELECT run_no FROM run WHERE state < 4 ORDER BY run_no";
    let numbers = all(queries, sql, &[], |cells| cells.int(0))?;
    let sql = format!("SELECT {RUN_COLUMNS} FROM {RUN_TABLES} WHERE r.run_no = ?1");
    let mut images = Vec::with_capacity(numbers.len());
    for number in numbers {
        if let Some((number, run)) = first(queries, &sql, &[number.into()], run_row)? {
            images.push(image(queries, number, run)?);
        }
    }
    Ok(images)
}

pub(crate) fn run_image(queries: &mut dyn Queries, run: RunId) -> Result<Option<RunImage>> {
    match find_run(queries, run)? {
        Some((number, run)) => image(queries, number, run).map(Some),
        None => Ok(None),
    }
}

pub(super) fn find_run(queries: &mut dyn Queries, run: RunId) -> Result<Option<(i64, RunRow)>> {
    let sql = format!("SELECT {RUN_COLUMNS} FROM {RUN_TABLES} WHERE r.id = ?1");
    first(queries, &sql, &[run.into()], run_row)
}

fn image(queries: &mut dyn Queries, number: i64, run: RunRow) -> Result<RunImage> {
    let id = run.run;
    let sql = format!("SELECT {TASK_COLUMNS} FROM task WHERE run_no = ?1 ORDER BY task_no");
    let tasks = all(queries, &sql, &[number.into()], |cells| task_row(id, cells))?;
    let scopes = scopes(queries, id, number)?;
    let expansions = expansions(queries, id, number)?;
    let sql = "SELECT key, value FROM machine WHERE run_no = ?1 ORDER BY key";
    let machine = all(queries, sql, &[number.into()], |cells| {
        let (key, value) = (cells.blob(0)?.to_vec(), cells.blob(1)?.to_vec());
        Ok(MachineRow { run: id, key, value: Some(value) })
    })?;
    Ok(RunImage { run, tasks, scopes, expansions, machine })
}

pub(super) fn scopes(queries: &mut dyn Queries, run: RunId, number: i64) -> Result<Vec<ScopeRow>> {
    let sql = "SELECT scope, template, owner, attempt, finished FROM scope
               WHERE run_no = ?1 ORDER BY scope";
    all(queries, sql, &[number.into()], |cells| {
        Ok(ScopeRow {
            run,
            scope: ScopeNo(cells.number(0)?),
            template: TemplateNo(cells.number(1)?),
            owner: cells.opt_task(2)?,
            attempt: cells.number(3)?,
            finished: cells.flag(4)?,
        })
    })
}

pub(super) fn expansions(
    queries: &mut dyn Queries,
    run: RunId,
    number: i64,
) -> Result<Vec<ExpansionRow>> {
    let sql = "SELECT scope, node, length, made FROM expansion
               WHERE run_no = ?1 ORDER BY scope, node";
    all(queries, sql, &[number.into()], |cells| {
        Ok(ExpansionRow {
            run,
            scope: ScopeNo(cells.number(0)?),
            node: NodeNo(cells.number(1)?),
            length: cells.number(2)?,
            made: cells.number(3)?,
        })
    })
}

pub(crate) fn limits(queries: &mut dyn Queries) -> Result<Vec<LimitRow>> {
    let sql = "SELECT name, capacity, strict, description FROM task_limit ORDER BY name";
    all(queries, sql, &[], |cells| {
        Ok(LimitRow {
            name: cells.text(0)?,
            capacity: cells.number(1)?,
            strict: cells.flag(2)?,
            description: cells.opt_text(3)?,
        })
    })
}

pub(crate) fn outputs(queries: &mut dyn Queries, task: TaskId) -> Result<Vec<(String, Json)>> {
    let sql = "SELECT o.key, o.value FROM run r JOIN output o ON o.run_no = r.run_no
               WHERE r.id = ?1 AND o.task_no = ?2 ORDER BY o.key";
    all(queries, sql, &[task.run.into(), task.task.0.into()], |cells| {
        let value = codec::from_text(cells.str(1)?)?;
        Ok((cells.text(0)?, value))
    })
}

/// Outputs of all tasks of a run, by task.
pub(crate) fn run_outputs(
    queries: &mut dyn Queries,
    run: RunId,
) -> Result<Vec<(TaskNo, String, Json)>> {
    let sql = "SELECT o.task_no, o.key, o.value FROM run r JOIN output o ON o.run_no = r.run_no
               WHERE r.id = ?1 ORDER BY o.task_no, o.key";
    all(queries, sql, &[run.into()], |cells| {
        let value = codec::from_text(cells.str(2)?)?;
        Ok((TaskNo(cells.number(0)?), cells.text(1)?, value))
    })
}

pub(crate) fn object(
    queries: &mut dyn Queries,
    kind: &str,
    namespace: &str,
    key: &str,
) -> Result<Option<Json>> {
    let sql = "SELECT value FROM object WHERE kind = ?1 AND namespace = ?2 AND key = ?3";
    let values = [kind.into(), namespace.into(), key.into()];
    first(queries, sql, &values, |cells| codec::from_text(cells.str(0)?))
}

/// A version by its hash (also of a deleted workflow), or the current one.
pub(crate) fn workflow(
    queries: &mut dyn Queries,
    namespace: &str,
    name: &str,
    version: Option<&str>,
) -> Result<Option<StoredWorkflow>> {
    let wanted = if version.is_some() { "?3" } else { "w.version" };
    let sql = format!(
        "SELECT v.version, v.body, v.source, v.created_at, w.paused
         FROM workflow w JOIN workflow_version v ON v.workflow_no = w.workflow_no
            AND v.version = {wanted}
         WHERE w.namespace = ?1 AND w.name = ?2"
    );
    let mut values: Vec<Value> = vec![namespace.into(), name.into()];
    values.extend(version.map(Value::from));
    first(queries, &sql, &values, |cells| {
        Ok(StoredWorkflow {
            workflow: Arc::new(codec::unpack_workflow(cells.blob(1)?)?),
            source: cells.opt_blob(2)?.map(codec::unpack_text).transpose()?,
            created_at: cells.time(3)?,
            paused: cells.flag(4)?,
            version: cells.text(0)?,
        })
    })
}
