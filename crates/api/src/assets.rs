//! Assets: what tasks publish, who makes and who reads it.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use kobza_model::TaskId;
use kobza_store::{AssetSummary, Materialization, ViewError, Views, WorkflowFilter};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, Path, Query};
use crate::shape::Shapes;
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::workflows::Place;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get("/assets", (Viewer, Space::Query), "Assets", list)
        .get("/assets/{key}", (Viewer, Space::Query), "An asset", detail)
        .get("/assets/{key}/history", (Viewer, Space::Query), "What happened to an asset", history)
        .get("/assets/{key}/partitions", (Viewer, Space::Query), "Partitions", partitions)
        .get("/assets-graph", (Viewer, Space::Query), "Lineage", graph)
}

const MAX_NODES: usize = 2000;

/// Which workflows make and read each asset.
#[derive(Default)]
struct Lineage {
    producers: BTreeMap<String, Vec<String>>,
    consumers: BTreeMap<String, Vec<String>>,
    /// (from, to, workflow)
    edges: BTreeSet<(String, String, String)>,
}

fn lineage(views: &dyn Views, shapes: &Shapes, namespace: &str) -> Result<Lineage, ViewError> {
    let mut found = Lineage::default();
    let mut cursor = None;
    let filter = WorkflowFilter { namespaces: vec![namespace.to_owned()], ..Default::default() };
    loop {
        let page = views.list_workflows(&filter, cursor.as_deref(), 1000)?;
        for workflow in page.items {
            let Some(shape) = shapes.get(views, namespace, &workflow.name, &workflow.version)?
            else {
                continue;
            };
            let (made, read) = shape.assets();
            for asset in &made {
                found.producers.entry(asset.clone()).or_default().push(workflow.name.clone());
                for from in read.iter().filter(|r| *r != asset) {
                    found.edges.insert((from.clone(), asset.clone(), workflow.name.clone()));
                }
            }
            for asset in read {
                found.consumers.entry(asset).or_default().push(workflow.name.clone());
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(found),
        }
    }
}

fn view(
    views: &dyn Views,
    lineage: &Lineage,
    namespace: &str,
    name: &str,
    known: Option<&AssetSummary>,
) -> Result<Value, ViewError> {
    let checks = if known.is_some() { views.asset_checks(namespace, name)? } else { Vec::new() };
    let failed = checks.iter().filter(|c| !c.passed).count();
    let last: Option<Materialization> = match known {
        Some(_) => views.asset_history(namespace, name, None, None, 1)?.items.into_iter().next(),
        None => None,
    };
    let health = match (&last, failed) {
        (_, 1..) => "failed",
        (Some(_), 0) => "ok",
        (None, 0) => "missing",
    };
    let partitions = known.filter(|k| k.partitions > 0).map(
        |k| json!({"total": k.partitions, "present": k.partitions, "failed": 0, "missing": 0}),
    );
    Ok(json!({
        "key": name, "namespace": namespace, "description": null, "kind": null, "health": health,
        "freshness": {"status": "none", "due_at": null},
        "last": last.map(|m| json!({
            "at": m.at, "run": m.run, "partition": m.partition,
            "task": m.run.zip(m.task).map(|(run, task)| TaskId { run, task }.to_string()),
        })),
        "producers": lineage.producers.get(name).cloned().unwrap_or_default(),
        "consumers": lineage.consumers.get(name).cloned().unwrap_or_default(),
        "checks": {"passed": checks.len() - failed, "failed": failed},
        "partitions": partitions,
    }))
}

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
    while all.len() < 10_000 {
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
    q: Option<String>,
    health: Option<String>,
    workflow: Option<String>,
    sort: Option<String>,
    cursor: Option<usize>,
    limit: Option<usize>,
}

async fn list(
    State(state): State<ApiState>,
    Query(place): Query<Place>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    let (namespace, shapes) = (place.namespace(), state.shapes.clone());
    let value = state
        .read(move |views| {
            let lineage = lineage(views, &shapes, &namespace)?;
            let needle = asked.q.clone().unwrap_or_default().to_lowercase();
            let of = |map: &BTreeMap<String, Vec<String>>, name: &str, w: &String| {
                map.get(name).is_some_and(|l| l.contains(w))
            };
            let mut all: Vec<(String, Option<AssetSummary>)> = names(views, &lineage, &namespace)?
                .into_iter()
                .filter(|(name, _)| name.to_lowercase().contains(&needle))
                .filter(|(name, _)| {
                    asked.workflow.as_ref().is_none_or(|w| {
                        of(&lineage.producers, name, w) || of(&lineage.consumers, name, w)
                    })
                })
                .collect();
            if asked.sort.as_deref() == Some("-last_at") {
                all.sort_by_key(|(_, a)| {
                    std::cmp::Reverse(a.as_ref().and_then(|a| a.materialized_at))
                });
            }
            let limit = asked.limit.unwrap_or(50).clamp(1, 500);
            let mut at = asked.cursor.unwrap_or(0);
            let mut items = Vec::new();
            while at < all.len() && items.len() < limit {
                let (name, known) = &all[at];
                at += 1;
                let value = view(views, &lineage, &namespace, name, known.as_ref())?;
                if asked
                    .health
                    .as_deref()
                    .is_none_or(|h| h.split(',').any(|h| value["health"] == h))
                {
                    items.push(value);
                }
            }
            let next = (at < all.len()).then(|| at.to_string());
            Ok(json!({"items": items, "next": next, "total": all.len()}))
        })
        .await?;
    Ok(Json(value))
}

async fn detail(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<Json<Value>, ApiError> {
    let (namespace, shapes, wanted) = (place.namespace(), state.shapes.clone(), name.clone());
    let value = state
        .read(move |views| {
            let lineage = lineage(views, &shapes, &namespace)?;
            let known = views.get_asset(&namespace, &wanted)?;
            let spoken = lineage.producers.contains_key(&wanted) || lineage.consumers.contains_key(&wanted);
            if known.is_none() && !spoken {
                return Ok(None);
            }
            let mut value = view(views, &lineage, &namespace, &wanted, known.as_ref())?;
            let metadata = views.asset_history(&namespace, &wanted, None, None, 1)?.items.into_iter().next()
                .and_then(|m| serde_json::from_str::<Value>(&m.metadata).ok())
                .filter(Value::is_object)
                .unwrap_or_else(|| json!({}));
            let checks: Vec<Value> = views.asset_checks(&namespace, &wanted)?.into_iter().map(|c| json!({
                "name": c.check, "passed": c.passed, "blocking": c.blocking, "at": c.at, "run": c.run, "detail": c.detail,
            })).collect();
            let up: BTreeSet<&String> = lineage.edges.iter().filter(|e| e.1 == wanted).map(|e| &e.0).collect();
            let down: BTreeSet<&String> = lineage.edges.iter().filter(|e| e.0 == wanted).map(|e| &e.1).collect();
            crate::view::merge(&mut value, json!({"metadata": metadata, "upstream": up, "downstream": down, "check_results": checks}));
            Ok(Some(value))
        })
        .await?;
    value.map(Json).ok_or_else(|| ApiError::not_found(format!("there is no asset {name:?}")))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct HistoryAsked {
    partition: Option<String>,
    kind: Option<String>,
    cursor: Option<String>,
    limit: Option<u32>,
}

async fn history(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    Query(asked): Query<HistoryAsked>,
) -> Result<Json<Value>, ApiError> {
    let namespace = place.namespace();
    let value = state
        .read(move |views| {
            let wants = |kind: &str| asked.kind.as_deref().is_none_or(|k| k.split(',').any(|k| k == kind));
            let id = |run: Option<kobza_model::RunId>, task: Option<kobza_model::TaskNo>| {
                run.zip(task).map(|(run, task)| TaskId { run, task }.to_string())
            };
            let mut items: Vec<(u64, Value)> = Vec::new();
            let mut next = None;
            if wants("materialized") {
                let page = views.asset_history(&namespace, &name, asked.partition.as_deref(), asked.cursor.as_deref(), asked.limit.unwrap_or(50).clamp(1, 500))?;
                next = page.next;
                items.extend(page.items.into_iter().map(|m| (m.seq, json!({
                    "seq": m.seq, "at": m.at, "kind": "materialized", "partition": m.partition,
                    "run": m.run, "task": id(m.run, m.task), "check": null, "passed": null, "detail": null,
                    "metadata": serde_json::from_str::<Value>(&m.metadata).unwrap_or_default(),
                }))));
            }
            // The newest result of each check; older ones are in the event log.
            if wants("checked") && asked.cursor.is_none() && asked.partition.is_none() {
                items.extend(views.asset_checks(&namespace, &name)?.into_iter().map(|c| (c.seq, json!({
                    "seq": c.seq, "at": c.at, "kind": "checked", "partition": null, "run": c.run,
                    "task": id(c.run, c.task), "check": c.check, "passed": c.passed, "detail": c.detail, "metadata": null,
                }))));
            }
            items.sort_by_key(|(seq, _)| std::cmp::Reverse(*seq));
            let items: Vec<Value> = items.into_iter().map(|(_, v)| v).collect();
            Ok(json!({"items": items, "next": next}))
        })
        .await?;
    Ok(Json(value))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct PartitionsAsked {
    offset: Option<usize>,
    limit: Option<usize>,
    buckets: Option<usize>,
}

/// Partitions with data, by key. (Without a stored definition nobody knows which are missing.)
async fn partitions(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    Query(asked): Query<PartitionsAsked>,
) -> Result<Json<Value>, ApiError> {
    let namespace = place.namespace();
    let value = state
        .read(move |views| {
            let (mut all, mut cursor) = (Vec::new(), None);
            while all.len() < 100_000 {
                let page = views.asset_partitions(&namespace, &name, cursor.as_deref(), 1000)?;
                all.extend(page.items);
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
            let total = all.len();
            let dimensions = json!([{"name": "partition", "kind": "dynamic", "total": total}]);
            if let Some(buckets) = asked.buckets {
                let size = total.div_ceil(buckets.clamp(1, 5000)).max(1);
                let buckets: Vec<Value> = all.chunks(size).enumerate().map(|(n, chunk)| json!({
                    "offset": n * size, "count": chunk.len(),
                    "first": chunk.first().map(|p| p.partition.as_str()), "last": chunk.last().map(|p| p.partition.as_str()),
                    "counts": {"present": chunk.len()},
                })).collect();
                return Ok(json!({"dimensions": dimensions, "total": total, "buckets": buckets}));
            }
            let items: Vec<Value> = all.iter().skip(asked.offset.unwrap_or(0)).take(asked.limit.unwrap_or(1000).clamp(1, 5000))
                .map(|p| json!({"key": p.partition, "state": "present", "at": p.at, "run": p.run})).collect();
            Ok(json!({"dimensions": dimensions, "total": total, "items": items}))
        })
        .await?;
    Ok(Json(value))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct GraphAsked {
    focus: Option<String>,
    depth: Option<usize>,
    q: Option<String>,
}

async fn graph(
    State(state): State<ApiState>,
    Query(place): Query<Place>,
    Query(asked): Query<GraphAsked>,
) -> Result<Json<Value>, ApiError> {
    let (namespace, shapes) = (place.namespace(), state.shapes.clone());
    let value = state
        .read(move |views| {
            let lineage = lineage(views, &shapes, &namespace)?;
            let all = names(views, &lineage, &namespace)?;
            let mut shown: BTreeSet<String> = match &asked.focus {
                Some(focus) => BTreeSet::from([focus.clone()]),
                None => {
                    let needle = asked.q.clone().unwrap_or_default().to_lowercase();
                    all.keys().filter(|n| n.to_lowercase().contains(&needle)).cloned().collect()
                }
            };
            if asked.focus.is_some() {
                for _ in 0..asked.depth.unwrap_or(3).min(50) {
                    let near: Vec<String> = lineage
                        .edges
                        .iter()
                        .flat_map(|(from, to, _)| {
                            let mut next = Vec::new();
                            if shown.contains(from) {
                                next.push(to.clone());
                            }
                            if shown.contains(to) {
                                next.push(from.clone());
                            }
                            next
                        })
                        .collect();
                    shown.extend(near);
                }
            }
            let truncated = shown.len() > MAX_NODES;
            let shown: BTreeSet<String> = shown.into_iter().take(MAX_NODES).collect();
            let mut nodes = Vec::new();
            for (name, known) in all.iter().filter(|(name, _)| shown.contains(*name)) {
                nodes.push(view(views, &lineage, &namespace, name, known.as_ref())?);
            }
            let edges: Vec<Value> = lineage
                .edges
                .iter()
                .filter(|(f, t, _)| shown.contains(f) && shown.contains(t))
                .map(|(from, to, workflow)| json!({"from": from, "to": to, "workflow": workflow}))
                .collect();
            Ok(json!({"nodes": nodes, "edges": edges, "truncated": truncated}))
        })
        .await?;
    Ok(Json(value))
}
