//! Everything that is not the engine's: definitions, objects, limits, deletions.

use kobza_model::{LimitRow, Timestamp, Workflow};

use super::{Memory, Result, retention};
use crate::read::{Statements, Value, all};
use crate::{Commit, Write, codec};

/// One write of a commit.
pub(crate) fn apply(
    tx: &mut dyn Statements,
    memory: &mut Memory,
    commit: &Commit,
    write: &Write,
) -> Result<()> {
    match write {
        Write::PutWorkflow { namespace, version, workflow, source } => {
            put(tx, memory, (namespace, version), workflow, source.as_deref(), commit.at)
        }
        Write::DeleteWorkflow { namespace, name } => {
            // Versions stay: runs of them may still be looked at, or going on.
            let sql = "UPDATE workflow SET version = NULL, paused = 0
                       WHERE namespace = ?1 AND name = ?2";
            tx.execute(sql, &[namespace.as_str().into(), name.as_str().into()]).map(drop)
        }
        Write::PauseWorkflow { namespace, name, paused } => {
            let sql = "UPDATE workflow SET paused = ?3 WHERE namespace = ?1 AND name = ?2";
            let values = [namespace.as_str().into(), name.as_str().into(), (*paused).into()];
            tx.execute(sql, &values).map(drop)
        }
        Write::PutObject { kind, namespace, key, value } => {
            let mut values: Vec<Value> =
                vec![(*kind).into(), namespace.as_str().into(), key.as_str().into()];
            let sql = match value {
                Some(value) => {
                    values.extend([codec::text(value)?.into(), commit.at.0.into()]);
                    "INSERT INTO object (kind, namespace, key, value, updated_at)
                     VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (kind, namespace, key) DO UPDATE SET
                        value = excluded.value, updated_at = excluded.updated_at"
                }
                None => "DELETE FROM object WHERE kind = ?1 AND namespace = ?2 AND key = ?3",
            };
            tx.execute(sql, &values).map(drop)
        }
        Write::Retain { ended_before, limit } => {
            retention::retain(tx, memory, *ended_before, *limit)
        }
        Write::DeleteRun { run } => retention::delete_run(tx, memory, *run),
    }
}

/// Keeps a version and makes it current.
fn put(
    tx: &mut dyn Statements,
    memory: &mut Memory,
    (namespace, version): (&str, &str),
    workflow: &Workflow,
    source: Option<&str>,
    at: Timestamp,
) -> Result<()> {
    let number = memory.workflow(tx, namespace, &workflow.name)?;
    let sql = "SELECT 1 FROM workflow_version WHERE workflow_no = ?1 AND version = ?2";
    if all(tx, sql, &[number.into(), version.into()], |row| row.int(0))?.is_empty() {
        let source = source.map(|text| codec::pack_bytes(text.as_bytes())).transpose()?;
        let sql = "INSERT INTO workflow_version (workflow_no, version, created_at, body, source)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        let body = codec::pack_workflow(workflow)?;
        let values = [number.into(), version.into(), at.0.into(), body.into(), source.into()];
        tx.execute(sql, &values)?;
    }
    let sql = "UPDATE workflow SET version = ?2, dialect = ?3, description = ?4, tags = ?5,
                  updated_at = ?6
               WHERE workflow_no = ?1 AND (version IS NULL OR version <> ?2)";
    let values = [
        number.into(),
        version.into(),
        workflow.dialect.as_str().into(),
        workflow.description.as_deref().into(),
        codec::text(&workflow.tags)?.into(),
        at.0.into(),
    ];
    tx.execute(sql, &values).map(drop)
}

pub(crate) fn limits(tx: &mut dyn Statements, rows: &[LimitRow], removed: &[String]) -> Result<()> {
    for name in removed {
        tx.execute("DELETE FROM task_limit WHERE name = ?1", &[name.as_str().into()])?;
    }
    for row in rows {
        let sql = "INSERT INTO task_limit (name, capacity, strict, description)
                   VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (name) DO UPDATE SET capacity = excluded.capacity,
                      strict = excluded.strict, description = excluded.description";
        let values = [
            row.name.as_str().into(),
            row.capacity.into(),
            row.strict.into(),
            row.description.as_deref().into(),
        ];
        tx.execute(sql, &values)?;
    }
    Ok(())
}
