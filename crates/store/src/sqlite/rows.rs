//! The engine's rows into their tables. Statements are prepared once; a row costs one step.

use kobza_model::{ExpansionRow, MachineRow, OutputRow, RunRow, ScopeRow, TaskId, TaskRow};
use rusqlite::{Transaction, params};

use super::queries::On;
use crate::read::flags;
use crate::write::{KnownRun, Memory, count_ended, count_run, ended_hour, relabel};
use crate::{StoreError, codec};

type Done = Result<(), StoreError>;

fn writing(what: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| StoreError::at(what, error)
}

pub(super) fn runs(tx: &Transaction<'_>, memory: &mut Memory, rows: &[RunRow]) -> Done {
    if rows.is_empty() {
        return Ok(());
    }
    let error = writing("writing a run");
    let mut put = tx
        .prepare_cached(
            "INSERT INTO run (run_no, id, workflow_no, version, dialect, trigger, state, cause,
                created_at, started_at, ended_at, key, interval_start, interval_end, partition,
                parent_run, parent_task, counts, labels, params, more)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                ?18, ?19, ?20, ?21)
             ON CONFLICT (run_no) DO UPDATE SET version = ?4, state = ?7, cause = ?8,
                started_at = ?10, ended_at = ?11, counts = ?18, labels = ?19, params = ?20,
                more = ?21",
        )
        .map_err(&error)?;
    for row in rows {
        let labels_now = codec::json_text(&row.labels)?;
        let before = memory.known_run(&mut On(tx), row.run)?.cloned();
        let (number, workflow) = match &before {
            Some(known) => (known.number, known.workflow),
            None => {
                let workflow = memory.workflow(&mut On(tx), &row.namespace, &row.workflow)?;
                (memory.next_run_number(&mut On(tx))?, workflow)
            }
        };
        put.execute(params![
            number,
            row.run.0,
            workflow,
            memory.word(&mut On(tx), &row.version)?,
            memory.word(&mut On(tx), &row.dialect)?,
            memory.word(&mut On(tx), &row.trigger)?,
            row.state as u8,
            row.cause as u8,
            row.created_at.0,
            row.started_at.map(|t| t.0),
            row.ended_at.map(|t| t.0),
            row.key,
            row.interval_start.map(|t| t.0),
            row.interval_end.map(|t| t.0),
            row.partition,
            row.parent.map(|p| p.run.0),
            row.parent.map(|p| p.task.0),
            codec::pack_counts(&row.counts)?,
            labels_now,
            codec::json_text(&row.params)?,
            codec::run_more(row)?,
        ])
        .map_err(&error)?;
        let labels_before = before.as_ref().and_then(|known| known.labels.as_deref());
        if labels_before != labels_now.as_deref() {
            relabel(&mut On(tx), number, row.created_at, labels_before, &row.labels)?;
        }
        if before.as_ref().map(|known| known.state) != Some(row.state) {
            if let Some(known) = &before {
                count_run(&mut On(tx), workflow, known.state, -1)?;
            }
            count_run(&mut On(tx), workflow, row.state, 1)?;
        }
        let ended = ended_hour(row.state, row.ended_at);
        let end_before =
            before.as_ref().and_then(|known| known.ended.map(|hour| (hour, known.state)));
        let end = ended.map(|hour| (hour, row.state));
        if end_before != end {
            if let Some(end) = end_before {
                count_ended(&mut On(tx), memory, &row.namespace, end, -1)?;
            }
            if let Some(end) = end {
                count_ended(&mut On(tx), memory, &row.namespace, end, 1)?;
            }
        }
        let known = KnownRun { number, workflow, state: row.state, ended, labels: labels_now };
        memory.runs.insert(row.run, known);
    }
    Ok(())
}

pub(super) fn tasks(tx: &Transaction<'_>, memory: &mut Memory, rows: &[TaskRow]) -> Done {
    if rows.is_empty() {
        return Ok(());
    }
    let error = writing("writing a task");
    // The table has no other index and no trigger: REPLACE overwrites in place.
    let mut put = tx
        .prepare_cached(
            "REPLACE INTO task (run_no, task_no, scope, node, template, name, idx, flags, parent,
                hook, state, cause, attempt, launch, exit_code, priority, created_at, ready_at,
                started_at, ended_at, first_started, due, child, more)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                ?18, ?19, ?20, ?21, ?22, ?23, ?24)",
        )
        .map_err(&error)?;
    let mut last = None;
    for row in rows {
        let run = match last {
            Some((id, number)) if id == row.run => number,
            _ => memory.run_number(&mut On(tx), row.run)?,
        };
        last = Some((row.run, run));
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        put.execute(params![
            run,
            row.task.0,
            row.scope.0,
            row.node.map(|n| n.0),
            row.template.0,
            row.name,
            row.index,
            flag(row.summary, flags::SUMMARY)
                | flag(row.confirmed, flags::CONFIRMED)
                | flag(row.settled, flags::SETTLED),
            row.parent.map(|t| t.0),
            row.hook,
            row.state as u8,
            row.cause as u8,
            row.attempt,
            row.launch,
            row.exit_code,
            row.priority,
            row.created_at.0,
            row.ready_at.map(|t| t.0),
            row.started_at.map(|t| t.0),
            row.ended_at.map(|t| t.0),
            row.first_started.map(|t| t.0),
            row.due.map(|t| t.0),
            row.child.map(|s| s.0),
            codec::task_more(row)?,
        ])
        .map_err(&error)?;
    }
    Ok(())
}

pub(super) fn attempts(tx: &Transaction<'_>, memory: &mut Memory, rows: &[TaskRow]) -> Done {
    for row in rows {
        let run = memory.run_number(&mut On(tx), row.run)?;
        tx.prepare_cached(
            "INSERT INTO attempt (run_no, task_no, nth, body)
             SELECT ?1, ?2, coalesce(max(nth), 0) + 1, ?3 FROM attempt
             WHERE run_no = ?1 AND task_no = ?2",
        )
        .and_then(|mut insert| {
            let body = serde_json::to_string(row)
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
            insert.execute(params![run, row.task.0, body])
        })
        .map_err(writing("writing an attempt"))?;
    }
    Ok(())
}

pub(super) fn scopes(tx: &Transaction<'_>, memory: &mut Memory, rows: &[ScopeRow]) -> Done {
    for row in rows {
        let run = memory.run_number(&mut On(tx), row.run)?;
        tx.prepare_cached(
            "REPLACE INTO scope (run_no, scope, template, owner, attempt, finished)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut put| {
            put.execute(params![
                run,
                row.scope.0,
                row.template.0,
                row.owner.map(|t| t.0),
                row.attempt,
                row.finished,
            ])
        })
        .map_err(writing("writing a scope"))?;
    }
    Ok(())
}

pub(super) fn expansions(tx: &Transaction<'_>, memory: &mut Memory, rows: &[ExpansionRow]) -> Done {
    for row in rows {
        let run = memory.run_number(&mut On(tx), row.run)?;
        tx.prepare_cached(
            "REPLACE INTO expansion (run_no, scope, node, length, made)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .and_then(|mut put| {
            put.execute(params![run, row.scope.0, row.node.0, row.length, row.made])
        })
        .map_err(writing("writing an expansion"))?;
    }
    Ok(())
}

pub(super) fn drop_outputs(tx: &Transaction<'_>, memory: &mut Memory, tasks: &[TaskId]) -> Done {
    for task in tasks {
        let run = memory.run_number(&mut On(tx), task.run)?;
        tx.prepare_cached("DELETE FROM output WHERE run_no = ?1 AND task_no = ?2")
            .and_then(|mut delete| delete.execute(params![run, task.task.0]))
            .map_err(writing("dropping outputs"))?;
    }
    Ok(())
}

pub(super) fn remove_tasks(tx: &Transaction<'_>, memory: &mut Memory, tasks: &[TaskId]) -> Done {
    for task in tasks {
        let run = memory.run_number(&mut On(tx), task.run)?;
        for sql in [
            "DELETE FROM task WHERE run_no = ?1 AND task_no = ?2",
            "DELETE FROM attempt WHERE run_no = ?1 AND task_no = ?2",
            "DELETE FROM output WHERE run_no = ?1 AND task_no = ?2",
        ] {
            tx.prepare_cached(sql)
                .and_then(|mut delete| delete.execute(params![run, task.task.0]))
                .map_err(writing("removing a task"))?;
        }
    }
    Ok(())
}

pub(super) fn outputs(tx: &Transaction<'_>, memory: &mut Memory, rows: &[OutputRow]) -> Done {
    for row in rows {
        let run = memory.run_number(&mut On(tx), row.run)?;
        let value = codec::text(&row.value)?;
        tx.prepare_cached(
            "REPLACE INTO output (run_no, task_no, key, value) VALUES (?1, ?2, ?3, ?4)",
        )
        .and_then(|mut put| put.execute(params![run, row.task.0, row.key, value]))
        .map_err(writing("writing an output"))?;
    }
    Ok(())
}

pub(super) fn machine(tx: &Transaction<'_>, memory: &mut Memory, rows: &[MachineRow]) -> Done {
    for row in rows {
        let run = memory.run_number(&mut On(tx), row.run)?;
        match &row.value {
            Some(value) => tx
                .prepare_cached("REPLACE INTO machine (run_no, key, value) VALUES (?1, ?2, ?3)")
                .and_then(|mut put| put.execute(params![run, row.key, value])),
            None => tx
                .prepare_cached("DELETE FROM machine WHERE run_no = ?1 AND key = ?2")
                .and_then(|mut delete| delete.execute(params![run, row.key])),
        }
        .map_err(writing("writing a machine's row"))?;
    }
    Ok(())
}
