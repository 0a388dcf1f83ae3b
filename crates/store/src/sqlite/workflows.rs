//! Definitions: names, their versions, which one is current.

use kobza_model::{Timestamp, Workflow};
use rusqlite::{OptionalExtension, Transaction, params};

use super::writer::Memory;
use crate::{StoreError, codec};

fn writing(error: rusqlite::Error) -> StoreError {
    StoreError::at("writing a workflow", error)
}

/// Keeps a version and makes it current.
pub(super) fn put(
    tx: &Transaction<'_>,
    memory: &mut Memory,
    namespace: &str,
    version: &str,
    workflow: &Workflow,
    source: Option<&str>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let number = memory.workflow(tx, namespace, &workflow.name)?;
    let known: Option<i64> = tx
        .prepare_cached("SELECT 1 FROM workflow_version WHERE workflow_no = ?1 AND version = ?2")
        .and_then(|mut statement| {
            statement.query_row(params![number, version], |row| row.get(0)).optional()
        })
        .map_err(writing)?;
    if known.is_none() {
        let body = codec::pack_workflow(workflow)?;
        let source = source.map(|text| codec::pack_bytes(text.as_bytes())).transpose()?;
        tx.prepare_cached(
            "INSERT INTO workflow_version (workflow_no, version, created_at, body, source)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .and_then(|mut insert| insert.execute(params![number, version, at.0, body, source]))
        .map_err(writing)?;
    }
    let tags = codec::text(&workflow.tags)?;
    tx.prepare_cached(
        "UPDATE workflow SET version = ?2, dialect = ?3, description = ?4, tags = ?5,
            updated_at = ?6 WHERE workflow_no = ?1 AND version IS NOT ?2",
    )
    .and_then(|mut update| {
        update.execute(params![number, version, workflow.dialect, workflow.description, tags, at.0])
    })
    .map(drop)
    .map_err(writing)
}

/// Nothing is current any more. Versions stay: runs of them may still be looked at, or going on.
pub(super) fn delete(tx: &Transaction<'_>, namespace: &str, name: &str) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE workflow SET version = NULL, paused = 0 WHERE namespace = ?1 AND name = ?2",
    )
    .and_then(|mut update| update.execute([namespace, name]))
    .map(drop)
    .map_err(writing)
}

pub(super) fn pause(
    tx: &Transaction<'_>,
    namespace: &str,
    name: &str,
    paused: bool,
) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE workflow SET paused = ?3 WHERE namespace = ?1 AND name = ?2")
        .and_then(|mut update| update.execute(params![namespace, name, paused]))
        .map(drop)
        .map_err(writing)
}
