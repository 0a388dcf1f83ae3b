//! The rows of assets, from the events that tell of them.

use kobza_model::{Event, EventKind};

use super::{Memory, Result, one};
use crate::read::{Statements, Value, all};

/// The namespace of what happens outside any run.
const DEFAULT_NAMESPACE: &str = "default";

/// Writes what an event says about an asset; does nothing for other events.
pub(crate) fn asset_event(
    tx: &mut dyn Statements,
    memory: &mut Memory,
    seq: u64,
    event: &Event,
) -> Result<()> {
    let (EventKind::Materialized { asset, .. } | EventKind::Checked { asset, .. }) = &event.kind
    else {
        return Ok(());
    };
    let workflow = match event.run {
        Some(run) => memory.known_run(tx, run)?.map(|known| known.workflow),
        None => None,
    };
    let namespaces = match workflow {
        Some(workflow) => {
            let sql = "SELECT namespace FROM workflow WHERE workflow_no = ?1";
            all(tx, sql, &[workflow.into()], |row| row.text(0))?
        }
        None => Vec::new(),
    };
    let namespace = namespaces.first().map_or(DEFAULT_NAMESPACE, String::as_str);
    let names = [namespace.into(), asset.as_str().into()];
    let sql = "INSERT INTO asset (namespace, name) VALUES (?1, ?2)
               ON CONFLICT (namespace, name) DO NOTHING";
    tx.execute(sql, &names)?;
    let sql = "SELECT asset_no FROM asset WHERE namespace = ?1 AND name = ?2";
    let asset_no: i64 = one(all(tx, sql, &names, |row| row.int(0))?)?;
    let run: Value = event.run.into();
    let task: Value = event.task.map(|task| task.0).into();
    let seq: Value = i64::try_from(seq).unwrap_or(i64::MAX).into();
    let at: Value = event.at.0.into();
    match &event.kind {
        EventKind::Materialized { partition, metadata, .. } => {
            let sql = "INSERT INTO materialization
                          (seq, asset_no, partition, at, run, task_no, metadata)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let values = [
                seq.clone(),
                asset_no.into(),
                partition.as_deref().into(),
                at.clone(),
                run.clone(),
                task,
                metadata.as_str().into(),
            ];
            tx.execute(sql, &values)?;
            let sql = "UPDATE asset SET materialized_seq = ?2, materialized_at = ?3,
                          materializations = materializations + 1 WHERE asset_no = ?1";
            tx.execute(sql, &[asset_no.into(), seq.clone(), at.clone()])?;
            if let Some(partition) = partition {
                let sql = "INSERT INTO asset_partition
                              (asset_no, partition, seq, at, run, materializations)
                           VALUES (?1, ?2, ?3, ?4, ?5, 1)
                           ON CONFLICT (asset_no, partition) DO UPDATE SET seq = excluded.seq,
                              at = excluded.at, run = excluded.run,
                              materializations = asset_partition.materializations + 1";
                tx.execute(sql, &[asset_no.into(), partition.as_str().into(), seq, at, run])?;
            }
        }
        EventKind::Checked { check, passed, blocking, detail, .. } => {
            let sql = "INSERT INTO asset_check
                          (seq, asset_no, name, passed, blocking, at, run, task_no, detail)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
            let values = [
                seq,
                asset_no.into(),
                check.as_str().into(),
                (*passed).into(),
                (*blocking).into(),
                at,
                run,
                task,
                detail.as_str().into(),
            ];
            tx.execute(sql, &values)?;
        }
        _ => {}
    }
    Ok(())
}
