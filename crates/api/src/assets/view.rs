//! Assets as clients see them.

use std::collections::BTreeSet;

use kobza_model::{RunId, TaskId, TaskNo, Timestamp};
use kobza_store::{AssetSummary, Materialization, ViewError, Views};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::lineage::{Freshness, FreshnessStatus, Lineage, Promises};
use super::partitions;

/// What is to be said of an asset first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "AssetHealth")]
pub(super) enum Health {
    /// A check does not hold.
    Failed,
    /// Its schedule's slot passed without new data.
    Stale,
    /// It was never made.
    Missing,
    Ok,
}

impl Health {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stale => "stale",
            Self::Missing => "missing",
            Self::Ok => "ok",
        }
    }
}

/// When an asset was made last, and by what.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AssetMade")]
pub(super) struct Made {
    pub(super) at: Timestamp,
    pub(super) run: Option<RunId>,
    pub(super) task: Option<String>,
    pub(super) partition: Option<String>,
}

/// Results of checks, the newest of each.
#[derive(Serialize, JsonSchema)]
pub(super) struct CheckCounts {
    pub(super) passed: usize,
    pub(super) failed: usize,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct PartitionCounts {
    /// That exist by definition; without one, those with data.
    pub(super) total: u64,
    /// With data.
    pub(super) present: u64,
    /// Whose newest run failed; null in lists, where it would cost too much.
    pub(super) failed: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Asset {
    pub(super) key: String,
    pub(super) namespace: String,
    pub(super) health: Health,
    pub(super) freshness: Freshness,
    pub(super) last: Option<Made>,
    /// Workflows that make it.
    pub(super) producers: Vec<String>,
    /// Workflows that read it.
    pub(super) consumers: Vec<String>,
    pub(super) checks: CheckCounts,
    /// Null: it is made whole each time.
    pub(super) partitions: Option<PartitionCounts>,
}

/// What a check said last.
#[derive(Serialize, JsonSchema)]
pub(super) struct CheckView {
    pub(super) name: String,
    pub(super) passed: bool,
    /// Readers wait for it.
    pub(super) blocking: bool,
    pub(super) at: Timestamp,
    pub(super) run: Option<RunId>,
    pub(super) detail: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct AssetDetail {
    #[serde(flatten)]
    pub(super) asset: Asset,
    /// What the task that made it last told of it.
    pub(super) metadata: Map<String, Value>,
    /// Assets that it is made from.
    pub(super) upstream: BTreeSet<String>,
    /// Assets that are made from it.
    pub(super) downstream: BTreeSet<String>,
    pub(super) check_results: Vec<CheckView>,
}

/// Something that happened to an asset: made, or checked.
#[derive(Serialize, JsonSchema)]
pub(super) struct AssetEvent {
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    /// `materialized` or `checked`.
    pub(super) kind: &'static str,
    pub(super) partition: Option<String>,
    pub(super) run: Option<RunId>,
    pub(super) task: Option<String>,
    pub(super) check: Option<String>,
    pub(super) passed: Option<bool>,
    pub(super) detail: Option<String>,
    pub(super) metadata: Value,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct LineageEdge {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) workflow: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct AssetGraph {
    pub(super) nodes: Vec<Asset>,
    pub(super) edges: Vec<LineageEdge>,
    /// There are more than are told.
    pub(super) truncated: bool,
}

pub(super) fn task_of(run: Option<RunId>, task: Option<TaskNo>) -> Option<String> {
    run.zip(task).map(|(run, task)| TaskId { run, task }.to_string())
}

/// What views are made from, read once for each request.
pub(super) struct Look<'a> {
    pub(super) views: &'a dyn Views,
    pub(super) lineage: &'a Lineage,
    pub(super) promises: &'a Promises,
    pub(super) namespace: &'a str,
    pub(super) now: Timestamp,
}

impl Look<'_> {
    pub(super) fn asset(
        &self,
        name: &str,
        known: Option<&AssetSummary>,
    ) -> Result<Asset, ViewError> {
        let checks = match known {
            Some(_) => self.views.asset_checks(self.namespace, name)?,
            None => Vec::new(),
        };
        let failed = checks.iter().filter(|c| !c.passed).count();
        let last: Option<Materialization> = match known {
            Some(_) => {
                let page = self.views.asset_history(self.namespace, name, None, None, 1)?;
                page.items.into_iter().next()
            }
            None => None,
        };
        let producers = self.lineage.producers_of(name).to_vec();
        let made = last.as_ref().map(|m| m.at);
        let freshness = self.promises.freshness(&producers, made, self.now);
        let health = match (made, failed, freshness.status) {
            (_, 1.., _) => Health::Failed,
            (None, ..) => Health::Missing,
            (_, _, FreshnessStatus::Stale) => Health::Stale,
            _ => Health::Ok,
        };
        let present = known.map_or(0, |k| k.partitions);
        let defined = partitions::defined(self.lineage, name, self.now);
        let partitions = (present > 0 || defined.is_some()).then(|| PartitionCounts {
            total: defined.unwrap_or(present),
            present,
            failed: None,
        });
        Ok(Asset {
            key: name.to_owned(),
            namespace: self.namespace.to_owned(),
            health,
            freshness,
            last: last.map(|m| Made {
                at: m.at,
                run: m.run,
                task: task_of(m.run, m.task),
                partition: m.partition,
            }),
            producers,
            consumers: self.lineage.consumers_of(name).to_vec(),
            checks: CheckCounts { passed: checks.len() - failed, failed },
            partitions,
        })
    }
}
