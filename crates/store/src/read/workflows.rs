//! Lists of workflows and of their versions.

use super::{Cells, Conditions, Queries, Result, all, cursor, page_size, runs};
use crate::{Page, VersionSummary, ViewError, WorkflowFilter, WorkflowSummary, codec};

/// Most runs that come with a workflow of a list.
const MAX_LAST_RUNS: u32 = 50;

pub(super) fn list(
    queries: &mut dyn Queries,
    filter: &WorkflowFilter,
    after: Option<&str>,
    limit: u32,
) -> std::result::Result<Page<WorkflowSummary>, ViewError> {
    let mut after: Option<(String, String)> = cursor::decode("workflows", after)?;
    let size = page_size(limit);
    let mut found: Vec<(i64, WorkflowSummary)> = Vec::new();
    // Tags are looked at here, so a page of the database may yield less than a page of ours.
    loop {
        let rows = piece(queries, filter, after.as_ref(), size + 1)?;
        let end = rows.len() <= size;
        if let Some((_, last)) = rows.last() {
            after = Some((last.namespace.clone(), last.name.clone()));
        }
        found.extend(rows.into_iter().filter(|(_, row)| has_tags(row, &filter.tags)));
        if end || found.len() > size {
            break;
        }
    }
    let more = found.len() > size;
    found.truncate(size);
    let place = found.last().map(|(_, row)| (row.namespace.clone(), row.name.clone()));
    let next = place.filter(|_| more).and_then(|place| cursor::encode("workflows", &place));
    let last_runs = filter.last_runs.min(MAX_LAST_RUNS) as usize;
    let mut items = Vec::with_capacity(found.len());
    for (number, mut row) in found {
        let sql = "SELECT state, runs FROM run_total WHERE workflow_no = ?1 AND runs > 0
                   ORDER BY state";
        row.totals = all(queries, sql, &[number.into()], |cells| {
            Ok((codec::run_state(cells.number(0)?)?, cells.number(1)?))
        })?;
        if last_runs > 0 {
            let newest = runs::newest(queries, number, last_runs)?;
            row.last_runs = newest.into_iter().map(|(_, run)| run).collect();
        }
        items.push(row);
    }
    Ok(Page { items, next })
}

fn has_tags(row: &WorkflowSummary, tags: &[String]) -> bool {
    tags.iter().all(|tag| row.tags.contains(tag))
}

fn piece(
    queries: &mut dyn Queries,
    filter: &WorkflowFilter,
    after: Option<&(String, String)>,
    limit: usize,
) -> Result<Vec<(i64, WorkflowSummary)>> {
    let mut conditions = Conditions::default();
    if let Some((namespace, name)) = after {
        conditions.values.push(namespace.as_str().into());
        conditions.numbered("(namespace, name) > (?1, ?2)", name.as_str());
    }
    conditions.plain("version IS NOT NULL").one_of("namespace", &filter.namespaces);
    if let Some(part) = &filter.search {
        conditions.contains("name", part);
    }
    if let Some(dialect) = &filter.dialect {
        conditions.with("dialect = ?", dialect.as_str());
    }
    if let Some(paused) = filter.paused {
        conditions.with("paused = ?", i64::from(paused));
    }
    let sql = format!(
        "SELECT workflow_no, namespace, name, version, dialect, description, tags, paused,
            updated_at FROM workflow {} ORDER BY namespace, name LIMIT {limit}",
        conditions.clause()
    );
    all(queries, &sql, &conditions.values, summary)
}

fn summary(cells: &mut Cells) -> Result<(i64, WorkflowSummary)> {
    let summary = WorkflowSummary {
        tags: cells.opt_str(6)?.map_or(Ok(Vec::new()), codec::from_text)?,
        namespace: cells.text(1)?,
        name: cells.text(2)?,
        version: cells.text(3)?,
        dialect: cells.opt_text(4)?.unwrap_or_default(),
        description: cells.opt_text(5)?,
        paused: cells.flag(7)?,
        updated_at: cells.time(8)?,
        totals: Vec::new(),
        last_runs: Vec::new(),
    };
    Ok((cells.int(0)?, summary))
}

pub(super) fn versions(
    queries: &mut dyn Queries,
    namespace: &str,
    name: &str,
) -> Result<Vec<VersionSummary>> {
    let sql = "SELECT v.version, v.created_at,
                  CASE WHEN v.version = w.version THEN 1 ELSE 0 END
               FROM workflow w JOIN workflow_version v ON v.workflow_no = w.workflow_no
               WHERE w.namespace = ?1 AND w.name = ?2 ORDER BY v.created_at DESC, v.version";
    all(queries, sql, &[namespace.into(), name.into()], |cells| {
        Ok(VersionSummary {
            version: cells.text(0)?,
            created_at: cells.time(1)?,
            current: cells.flag(2)?,
        })
    })
}
