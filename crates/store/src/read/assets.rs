//! Assets: what was made when, by whom, and what checks said.

use super::{Cells, Conditions, Queries, Result, all, cursor, first, page_size};
use crate::{
    AssetEvent, AssetEventFilter, AssetSummary, CheckResult, Materialization, Origin, Page,
    PartitionStatus, ViewError,
};

type Viewed<T> = std::result::Result<T, ViewError>;

const ASSET: &str = "SELECT a.namespace, a.name, a.materialized_at, a.materialized_seq, \
     a.materializations, \
     (SELECT count(*) FROM asset_partition p WHERE p.asset_no = a.asset_no) FROM asset a";

fn asset(cells: &mut Cells) -> Result<AssetSummary> {
    Ok(AssetSummary {
        namespace: cells.text(0)?,
        name: cells.text(1)?,
        materialized_at: cells.opt_time(2)?,
        materialized_seq: cells.opt_number(3)?,
        materializations: cells.number(4)?,
        partitions: cells.number(5)?,
    })
}

pub(super) fn list(
    queries: &mut dyn Queries,
    namespaces: &[String],
    search: Option<&str>,
    after: Option<&str>,
    limit: u32,
) -> Viewed<Page<AssetSummary>> {
    let after: Option<(String, String)> = cursor::decode("assets", after)?;
    let size = page_size(limit);
    let mut conditions = Conditions::default();
    if let Some((namespace, name)) = after {
        conditions.values.push(namespace.as_str().into());
        conditions.numbered("(a.namespace, a.name) > (?1, ?2)", name.as_str());
    }
    conditions.one_of("a.namespace", namespaces);
    if let Some(part) = search {
        conditions.contains("a.name", part);
    }
    let sql =
        format!("{ASSET} {} ORDER BY a.namespace, a.name LIMIT {}", conditions.clause(), size + 1);
    let mut items = all(queries, &sql, &conditions.values, asset)?;
    let more = items.len() > size;
    items.truncate(size);
    let last = items.last().filter(|_| more);
    let next = last.and_then(|row| cursor::encode("assets", &(&row.namespace, &row.name)));
    Ok(Page { items, next })
}

pub(super) fn get(
    queries: &mut dyn Queries,
    namespace: &str,
    name: &str,
) -> Result<Option<AssetSummary>> {
    let sql = format!("{ASSET} WHERE a.namespace = ?1 AND a.name = ?2");
    first(queries, &sql, &[namespace.into(), name.into()], asset)
}

fn asset_no(queries: &mut dyn Queries, namespace: &str, name: &str) -> Result<Option<i64>> {
    let sql = "SELECT asset_no FROM asset WHERE namespace = ?1 AND name = ?2";
    first(queries, sql, &[namespace.into(), name.into()], |cells| cells.int(0))
}

pub(super) fn history(
    queries: &mut dyn Queries,
    (namespace, name): (&str, &str),
    partition: Option<&str>,
    after: Option<&str>,
    limit: u32,
) -> Viewed<Page<Materialization>> {
    let after: Option<i64> = cursor::decode("materializations", after)?;
    let size = page_size(limit);
    let Some(asset) = asset_no(queries, namespace, name)? else {
        return Ok(Page { items: Vec::new(), next: None });
    };
    let mut items = materializations(queries, asset, partition, after, size + 1)?;
    let more = items.len() > size;
    items.truncate(size);
    let last = items.last().filter(|_| more);
    let next = last.and_then(|row| cursor::encode("materializations", &row.seq));
    Ok(Page { items, next })
}

fn materializations(
    queries: &mut dyn Queries,
    asset: i64,
    partition: Option<&str>,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<Materialization>> {
    let mut conditions = Conditions::default();
    conditions.with("asset_no = ?", asset);
    if let Some(partition) = partition {
        conditions.with("partition = ?", partition);
    }
    if let Some(before) = before {
        conditions.with("seq < ?", before);
    }
    let sql = format!(
        "SELECT seq, at, partition, run, task_no, metadata FROM materialization {}
         ORDER BY seq DESC LIMIT {limit}",
        conditions.clause(),
    );
    all(queries, &sql, &conditions.values, |cells| {
        Ok(Materialization {
            seq: cells.number(0)?,
            at: cells.time(1)?,
            partition: cells.opt_text(2)?,
            run: cells.opt_run(3)?,
            task: cells.opt_task(4)?,
            metadata: cells.text(5)?,
        })
    })
}

pub(super) fn events(
    queries: &mut dyn Queries,
    (namespace, name): (&str, &str),
    wanted: &AssetEventFilter,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<AssetEvent>> {
    let size = page_size(limit);
    let before = before.map(|seq| i64::try_from(seq).unwrap_or(i64::MAX));
    let Some(asset) = asset_no(queries, namespace, name)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    if wanted.made && wanted.check.is_none() {
        let partition = wanted.partition.as_deref();
        let made = materializations(queries, asset, partition, before, size)?;
        found.extend(made.into_iter().map(AssetEvent::Made));
    }
    if wanted.checked && wanted.partition.is_none() {
        let results = check_results(queries, asset, wanted.check.as_deref(), before, size)?;
        found.extend(results.into_iter().map(AssetEvent::Checked));
    }
    found.sort_unstable_by_key(|event| std::cmp::Reverse(event.seq()));
    found.truncate(size);
    Ok(found)
}

pub(super) fn origins(
    queries: &mut dyn Queries,
    namespace: &str,
    limit: u32,
) -> Result<Vec<Origin>> {
    let sql = format!(
        "SELECT a.name, w.name, m.metadata FROM asset a
         JOIN materialization m ON m.seq = a.materialized_seq
         JOIN run r ON r.id = m.run JOIN workflow w ON w.workflow_no = r.workflow_no
         WHERE a.namespace = ?1 AND m.metadata LIKE '%\"made_from\"%'
         ORDER BY a.name LIMIT {limit}"
    );
    all(queries, &sql, &[namespace.into()], |cells| {
        Ok(Origin { asset: cells.text(0)?, workflow: cells.text(1)?, metadata: cells.text(2)? })
    })
}

pub(super) fn partitions(
    queries: &mut dyn Queries,
    (namespace, name): (&str, &str),
    after: Option<&str>,
    limit: u32,
) -> Viewed<Page<PartitionStatus>> {
    let after: Option<String> = cursor::decode("partitions", after)?;
    let size = page_size(limit);
    let Some(asset) = asset_no(queries, namespace, name)? else {
        return Ok(Page { items: Vec::new(), next: None });
    };
    let mut conditions = Conditions::default();
    conditions.with("asset_no = ?", asset);
    if let Some(after) = &after {
        conditions.with("partition > ?", after.as_str());
    }
    let sql = format!(
        "SELECT partition, seq, at, run, materializations FROM asset_partition {}
         ORDER BY partition LIMIT {}",
        conditions.clause(),
        size + 1
    );
    let mut items = all(queries, &sql, &conditions.values, |cells| {
        Ok(PartitionStatus {
            partition: cells.text(0)?,
            seq: cells.number(1)?,
            at: cells.time(2)?,
            run: cells.opt_run(3)?,
            materializations: cells.number(4)?,
        })
    })?;
    let more = items.len() > size;
    items.truncate(size);
    let last = items.last().filter(|_| more);
    let next = last.and_then(|row| cursor::encode("partitions", &row.partition));
    Ok(Page { items, next })
}

const CHECK_COLUMNS: &str = "seq, name, passed, blocking, at, run, task_no, detail";

fn check_result(cells: &mut Cells) -> Result<CheckResult> {
    Ok(CheckResult {
        seq: cells.number(0)?,
        check: cells.text(1)?,
        passed: cells.flag(2)?,
        blocking: cells.flag(3)?,
        at: cells.time(4)?,
        run: cells.opt_run(5)?,
        task: cells.opt_task(6)?,
        detail: cells.text(7)?,
    })
}

fn check_results(
    queries: &mut dyn Queries,
    asset: i64,
    check: Option<&str>,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<CheckResult>> {
    let mut conditions = Conditions::default();
    conditions.with("asset_no = ?", asset);
    if let Some(check) = check {
        conditions.with("name = ?", check);
    }
    if let Some(before) = before {
        conditions.with("seq < ?", before);
    }
    let sql = format!(
        "SELECT {CHECK_COLUMNS} FROM asset_check {} ORDER BY seq DESC LIMIT {limit}",
        conditions.clause(),
    );
    all(queries, &sql, &conditions.values, check_result)
}

pub(super) fn checks(
    queries: &mut dyn Queries,
    namespace: &str,
    name: &str,
) -> Result<Vec<CheckResult>> {
    let Some(asset) = asset_no(queries, namespace, name)? else { return Ok(Vec::new()) };
    let sql = format!(
        "SELECT {CHECK_COLUMNS} FROM asset_check
         WHERE seq IN (SELECT max(seq) FROM asset_check WHERE asset_no = ?1 GROUP BY name)
         ORDER BY name"
    );
    all(queries, &sql, &[asset.into()], check_result)
}
