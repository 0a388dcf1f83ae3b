//! Assets: what tasks publish, who makes and who reads it.

mod lineage;
pub(crate) mod partitions;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use kobza_runtime::wall_now;
use kobza_store::{
    AssetEvent as Happened, AssetEventFilter, AssetSummary, CheckResult, Materialization,
    ViewError, Views,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, List, Path, Query};
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::workflows::Place;

use lineage::{Lineage, Promises};
use partitions::Partitions;
use view::{Asset, AssetDetail, AssetEvent, AssetGraph, CheckView, LineageEdge, Look, task_of};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get("/assets", (Viewer, Space::Query), "Assets", list)
        .get("/assets/{key}", (Viewer, Space::Query), "An asset", detail)
        .get("/assets/{key}/history", (Viewer, Space::Query), "What happened to an asset", history)
        .get("/assets/{key}/partitions", (Viewer, Space::Query), "Partitions", partitions)
        .get("/assets-graph", (Viewer, Space::Query), "Lineage", graph)
}

const MAX_NODES: usize = 2000;
/// Assets that are looked through.
const MAX_ASSETS: usize = 10_000;

/// Names of all assets: those with data and those that workflows speak of.
fn names(
    views: &dyn Views,
    lineage: &Lineage,
    namespace: &str,
) -> Result<BTreeMap<String, Option<AssetSummary>>, ViewError> {
    let mut all: BTreeMap<String, Option<AssetSummary>> = lineage
        .producers
        .keys()
        .chain(lineage.consumers.keys())
        .map(|n| (n.clone(), None))
        .collect();
    let mut cursor = None;
    while all.len() < MAX_ASSETS {
        let page = views.list_assets(&[namespace.to_owned()], None, cursor.as_deref(), 1000)?;
        all.extend(page.items.into_iter().map(|a| (a.name.clone(), Some(a))));
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    Ok(all)
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Asked {
    /// Part of the key.
    q: Option<String>,
    /// Words, separated by commas.
    health: Option<String>,
    /// Made or read by this workflow.
    workflow: Option<String>,
    /// `key`, or `-last_at` for the newest first.
    sort: Option<String>,
    cursor: Option<usize>,
    limit: Option<usize>,
}

async fn list(
    State(state): State<ApiState>,
    Query(place): Query<Place>,
    Query(asked): Query<Asked>,
) -> Result<Json<List<Asset>>, ApiError> {
    let (namespace, shapes) = (place.namespace(), state.shapes.clone());
    let promises = Promises::read(&state, &namespace).await?;
    let list = state
        .read(move |views| {
            let lineage = Lineage::read(views, &shapes, &namespace)?;
            let needle = asked.q.clone().unwrap_or_default().to_lowercase();
            let mut all: Vec<(String, Option<AssetSummary>)> = names(views, &lineage, &namespace)?
                .into_iter()
                .filter(|(name, _)| name.to_lowercase().contains(&needle))
                .filter(|(name, _)| {
                    asked.workflow.as_ref().is_none_or(|w| {
                        lineage.producers_of(name).contains(w)
                            || lineage.consumers_of(name).contains(w)
                    })
                })
                .collect();
            if asked.sort.as_deref() == Some("-last_at") {
                all.sort_by_key(|(_, a)| {
                    std::cmp::Reverse(a.as_ref().and_then(|a| a.materialized_at))
                });
            }
            let limit = asked.limit.unwrap_or(50).clamp(1, 500);
            let look = Look {
                views,
                lineage: &lineage,
                promises: &promises,
                namespace: &namespace,
                now: wall_now(),
            };
            let mut at = asked.cursor.unwrap_or(0);
            let mut items = Vec::new();
            while at < all.len() && items.len() < limit {
                let (name, known) = &all[at];
                at += 1;
                let asset = look.asset(name, known.as_ref())?;
                let word = asset.health.word();
                if asked.health.as_deref().is_none_or(|h| h.split(',').any(|h| h == word)) {
                    items.push(asset);
                }
            }
            let next = (at < all.len()).then(|| at.to_string());
            // A filter by health is known only after looking.
            let total = asked.health.is_none().then_some(all.len() as u64);
            Ok(List { items, next, total })
        })
        .await?;
    Ok(Json(list))
}

fn check(found: CheckResult) -> CheckView {
    CheckView {
        name: found.check,
        passed: found.passed,
        blocking: found.blocking,
        at: found.at,
        run: found.run,
        detail: found.detail,
    }
}

async fn detail(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<Json<AssetDetail>, ApiError> {
    let (namespace, shapes, wanted) = (place.namespace(), state.shapes.clone(), name.clone());
    let promises = Promises::read(&state, &namespace).await?;
    let found = state
        .read(move |views| {
            let lineage = Lineage::read(views, &shapes, &namespace)?;
            let known = views.get_asset(&namespace, &wanted)?;
            let spoken =
                lineage.producers.contains_key(&wanted) || lineage.consumers.contains_key(&wanted);
            if known.is_none() && !spoken {
                return Ok(None);
            }
            let look = Look {
                views,
                lineage: &lineage,
                promises: &promises,
                namespace: &namespace,
                now: wall_now(),
            };
            let mut asset = look.asset(&wanted, known.as_ref())?;
            if let Some(counts) = &mut asset.partitions {
                let all = Partitions::read(views, &lineage, &namespace, &wanted, look.now)?;
                counts.present = all.count(partitions::State::Present);
                counts.failed = Some(all.count(partitions::State::Failed));
            }
            let newest = views.asset_history(&namespace, &wanted, None, None, 1)?.items;
            let metadata = newest
                .into_iter()
                .next()
                .and_then(|m| serde_json::from_str::<Map<String, Value>>(&m.metadata).ok())
                .unwrap_or_default();
            let others = |up: bool| {
                let edges = lineage.edges.iter();
                let pairs = edges.map(|(from, to, _)| if up { (to, from) } else { (from, to) });
                pairs.filter(|(own, _)| **own == wanted).map(|(_, other)| other.clone()).collect()
            };
            let check_results =
                views.asset_checks(&namespace, &wanted)?.into_iter().map(check).collect();
            Ok(Some(AssetDetail {
                asset,
                metadata,
                upstream: others(true),
                downstream: others(false),
                check_results,
            }))
        })
        .await?;
    found.map(Json).ok_or_else(|| ApiError::not_found(format!("there is no asset {name:?}")))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct HistoryAsked {
    partition: Option<String>,
    /// `materialized`, `checked`; both when absent.
    kind: Option<String>,
    /// Results of this check only.
    check: Option<String>,
    cursor: Option<u64>,
    limit: Option<u32>,
}

async fn history(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    Query(asked): Query<HistoryAsked>,
) -> Result<Json<List<AssetEvent>>, ApiError> {
    let namespace = place.namespace();
    let list = state
        .read(move |views| {
            let wants =
                |kind: &str| asked.kind.as_deref().is_none_or(|k| k.split(',').any(|k| k == kind));
            let wanted = AssetEventFilter {
                made: wants("materialized"),
                checked: wants("checked"),
                partition: asked.partition.clone(),
                check: asked.check.clone(),
            };
            let limit = asked.limit.unwrap_or(50).clamp(1, 500);
            let mut found =
                views.asset_events(&namespace, &name, &wanted, asked.cursor, limit + 1)?;
            let more = found.len() > limit as usize;
            found.truncate(limit as usize);
            let last = found.last().filter(|_| more);
            let next = last.map(|event| event.seq().to_string());
            let items = found
                .into_iter()
                .map(|event| match event {
                    Happened::Made(m) => made(m),
                    Happened::Checked(c) => checked(c),
                })
                .collect();
            Ok(List::new(items, next))
        })
        .await?;
    Ok(Json(list))
}

fn made(m: Materialization) -> AssetEvent {
    AssetEvent {
        seq: m.seq,
        at: m.at,
        kind: "materialized",
        partition: m.partition,
        run: m.run,
        task: task_of(m.run, m.task),
        check: None,
        passed: None,
        detail: None,
        metadata: serde_json::from_str(&m.metadata).unwrap_or_default(),
    }
}

fn checked(c: CheckResult) -> AssetEvent {
    AssetEvent {
        seq: c.seq,
        at: c.at,
        kind: "checked",
        partition: None,
        run: c.run,
        task: task_of(c.run, c.task),
        check: Some(c.check),
        passed: Some(c.passed),
        detail: Some(c.detail),
        metadata: Value::Null,
    }
}

async fn partitions(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    Query(asked): Query<partitions::Asked>,
) -> Result<Json<partitions::View>, ApiError> {
    let (namespace, shapes) = (place.namespace(), state.shapes.clone());
    let view = state
        .read(move |views| {
            let lineage = Lineage::read(views, &shapes, &namespace)?;
            let all = Partitions::read(views, &lineage, &namespace, &name, wall_now())?;
            Ok(all.view(&asked))
        })
        .await?;
    Ok(Json(view))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AssetGraphAsked")]
struct GraphAsked {
    /// Only what is near this asset.
    focus: Option<String>,
    /// How far: 3 edges when absent.
    depth: Option<usize>,
    /// Part of the key.
    q: Option<String>,
}

/// What is within `depth` edges of an asset.
fn near(lineage: &Lineage, focus: &str, depth: usize) -> BTreeSet<String> {
    let mut shown = BTreeSet::from([focus.to_owned()]);
    for _ in 0..depth {
        let mut more = BTreeSet::new();
        for (from, to, _) in &lineage.edges {
            if shown.contains(from) {
                more.insert(to.clone());
            }
            if shown.contains(to) {
                more.insert(from.clone());
            }
        }
        shown.extend(more);
    }
    shown
}

async fn graph(
    State(state): State<ApiState>,
    Query(place): Query<Place>,
    Query(asked): Query<GraphAsked>,
) -> Result<Json<AssetGraph>, ApiError> {
    let (namespace, shapes) = (place.namespace(), state.shapes.clone());
    let promises = Promises::read(&state, &namespace).await?;
    let graph = state
        .read(move |views| {
            let lineage = Lineage::read(views, &shapes, &namespace)?;
            let all = names(views, &lineage, &namespace)?;
            let shown = match &asked.focus {
                Some(focus) => near(&lineage, focus, asked.depth.unwrap_or(3).min(50)),
                None => {
                    let needle = asked.q.clone().unwrap_or_default().to_lowercase();
                    all.keys().filter(|n| n.to_lowercase().contains(&needle)).cloned().collect()
                }
            };
            let truncated = shown.len() > MAX_NODES;
            let shown: BTreeSet<String> = shown.into_iter().take(MAX_NODES).collect();
            let look = Look {
                views,
                lineage: &lineage,
                promises: &promises,
                namespace: &namespace,
                now: wall_now(),
            };
            let mut nodes = Vec::new();
            for (name, known) in all.iter().filter(|(name, _)| shown.contains(*name)) {
                nodes.push(look.asset(name, known.as_ref())?);
            }
            let edges = lineage
                .edges
                .iter()
                .filter(|(f, t, _)| shown.contains(f) && shown.contains(t))
                .map(|(from, to, workflow)| LineageEdge {
                    from: from.clone(),
                    to: to.clone(),
                    workflow: workflow.clone(),
                })
                .collect();
            Ok(AssetGraph { nodes, edges, truncated })
        })
        .await?;
    Ok(Json(graph))
}
