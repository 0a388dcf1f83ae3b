//! Graphs of workflows and runs: nodes folded to one each, whatever their number of instances.

use std::collections::HashMap;

use axum::extract::State;
use kobza_model::{EdgeClass, NodeNo, ScopeNo, TaskId, TaskRow, TaskState, Timestamp};
use kobza_store::{TaskFilter, ViewError, Views};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, Path, Query};
use crate::runs::{load, run_id};
use crate::shape::{Paths, Shape, gate_word};
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::view::{ByState, Counts};
use crate::workflows::{Place, no_workflow};

pub(crate) fn routes() -> Routes {
    Routes::new().get("/runs/{id}/graph", (Viewer, Space::Run), "A run's graph", of_run).get(
        "/workflows/{name}/graph",
        (Viewer, Space::Query),
        "A workflow's graph",
        of_workflow,
    )
}

/// Task rows that are looked at for the details of single tasks.
const MAX_ROWS: usize = 5000;

#[derive(Default)]
struct Found {
    counts: Counts,
    /// Of the group's own tasks.
    own: Counts,
    row: Option<TaskRow>,
}

/// A workflow's graph, or a run's.
#[derive(Debug, Serialize, JsonSchema)]
struct Graph {
    nodes: Vec<GraphNode>,
    edges: Vec<GraphEdge>,
    /// Of a run: the number of the newest event that it holds already.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

/// A task or a group, folded to one whatever its number of instances.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct GraphNode {
    /// Its path.
    id: String,
    name: String,
    kind: String,
    /// Path of the group that it is in.
    parent: Option<String>,
    group: bool,
    mapped: bool,
    /// The worst of its instances'.
    state: Option<TaskState>,
    counts: ByState,
    total: u64,
    /// If there is a single one.
    task: Option<String>,
    attempt: u32,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    message: Option<String>,
    /// When it may run, by what became of those before it.
    gate: Option<String>,
    condition: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct GraphEdge {
    from: String,
    to: String,
    /// `data`, `setup`, `teardown` or `order`.
    class: &'static str,
}

impl GraphNode {
    /// With what is known of a single task.
    fn of_row(self, row: Option<&TaskRow>) -> Self {
        let Some(row) = row else { return self };
        Self {
            task: Some(TaskId { run: row.run, task: row.task }.to_string()),
            attempt: row.attempt,
            started_at: row.started_at,
            ended_at: row.ended_at,
            message: row.message.clone(),
            ..self
        }
    }
}

fn edges(shape: &Shape) -> Vec<GraphEdge> {
    let mut edges = Vec::new();
    for place in &shape.places {
        let Some(node) = shape.node(place) else { continue };
        for edge in &node.edges {
            let Some(from) = shape.child(place.parent, edge.upstream) else { continue };
            let class = match edge.class {
                EdgeClass::Data => "data",
                EdgeClass::Setup => "setup",
                EdgeClass::Teardown => "teardown",
                EdgeClass::Order => "order",
            };
            let (from, to) = (shape.places[from].path.clone(), place.path.clone());
            edges.push(GraphEdge { from, to, class });
        }
    }
    edges
}

fn node(shape: &Shape, at: usize, found: Option<&Found>) -> GraphNode {
    let place = &shape.places[at];
    let node = shape.node(place);
    let single = found.filter(|f| f.own.total().max(f.counts.total()) == 1 || place.group);
    let row = single.and_then(|f| f.row.as_ref());
    let state = found.and_then(|f| {
        if place.group { f.own.worst().or_else(|| f.counts.worst()) } else { f.counts.worst() }
    });
    let shown = GraphNode {
        id: place.path.clone(),
        name: place.label.clone(),
        kind: place.kind.clone(),
        parent: place.within.map(|p| shape.places[p].path.clone()),
        group: place.group,
        mapped: place.mapped,
        state,
        counts: found.map(|f| f.counts.by_state()).unwrap_or_default(),
        total: found.map_or(0, |f| f.counts.total()),
        gate: node.filter(|n| !n.edges.is_empty()).map(|n| gate_word(&n.gate).to_owned()),
        condition: node
            .and_then(|n| n.arguments.get("when"))
            .filter(|when| !when.is_null())
            .map(|when| when.as_str().map_or_else(|| when.to_string(), str::to_owned)),
        ..GraphNode::default()
    };
    shown.of_row(row)
}

/// What there is at each place of a run, groups with all that is in them; and the tasks that have no
/// place.
pub(crate) struct Folded {
    pub(crate) counts: Vec<Counts>,
    pub(crate) own: Vec<Counts>,
    pub(crate) loose: Vec<(String, Counts)>,
}

pub(crate) fn fold(
    paths: &Paths,
    found: &[(ScopeNo, Option<NodeNo>, &str, kobza_model::TaskState, u64)],
) -> Folded {
    let shape = &paths.shape;
    let mut folded = Folded {
        counts: vec![Counts::default(); shape.places.len()],
        own: vec![Counts::default(); shape.places.len()],
        loose: Vec::new(),
    };
    let mut root = false;
    for (scope, node, name, state, tasks) in found {
        match paths.at(*scope, *node, name) {
            Some(at) => {
                folded.own[at].add(*state, *tasks);
                if shape.places[at].group {
                    continue;
                }
                let mut above = Some(at);
                while let Some(at) = above {
                    folded.counts[at].add(*state, *tasks);
                    above = shape.places[at].within;
                }
            }
            // The run's own task stands for the whole.
            None if node.is_none() && *name == shape.workflow.name && !root => root = true,
            None => match folded.loose.iter_mut().find(|(n, _)| n == name) {
                Some((_, counts)) => counts.add(*state, *tasks),
                None => {
                    let mut counts = Counts::default();
                    counts.add(*state, *tasks);
                    folded.loose.push(((*name).to_owned(), counts));
                }
            },
        }
    }
    folded
}

/// Rows of single tasks and of expansions' summaries, as far as they go.
pub(crate) fn heads(views: &dyn Views, run: kobza_model::RunId) -> Result<Vec<TaskRow>, ViewError> {
    let filter = TaskFilter { hide_instances: true, ..TaskFilter::default() };
    let mut rows = Vec::new();
    let mut cursor = None;
    while rows.len() < MAX_ROWS {
        let page = views.list_tasks(run, &filter, cursor.as_deref(), 1000)?;
        rows.extend(page.items);
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    rows.retain(|r| r.task.0 != 0);
    Ok(rows)
}

async fn of_run(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Graph>, ApiError> {
    let run = load(&state, run_id(&id)?).await?;
    // Before the rows are read: what comes later is told by an event with a greater number.
    let seq = state.handle.next_event().borrow().saturating_sub(1);
    let shapes = state.shapes.clone();
    let graph = state
        .read(move |views| {
            let paths = Paths::read(views, &shapes, &run)?;
            let counts = views.task_counts(run.run)?;
            let rows = heads(views, run.run)?;
            let list: Vec<_> = counts
                .iter()
                .map(|c| (c.scope, c.node, c.name.as_str(), c.state, c.tasks))
                .collect();
            let folded = fold(&paths, &list);
            let mut by_place: HashMap<usize, TaskRow> = HashMap::new();
            let mut loose: HashMap<String, TaskRow> = HashMap::new();
            for row in rows {
                match paths.at(row.scope, row.node, &row.name) {
                    Some(at) => by_place.entry(at).or_insert(row),
                    None => loose.entry(row.name.clone()).or_insert(row),
                };
            }
            let shape = &paths.shape;
            let mut nodes: Vec<GraphNode> = Vec::new();
            for at in 0..shape.places.len() {
                let place_found = Found {
                    counts: folded.counts[at].clone(),
                    own: folded.own[at].clone(),
                    row: by_place.remove(&at),
                };
                nodes.push(node(shape, at, Some(&place_found)));
            }
            for (name, counts) in &folded.loose {
                let row = loose.get(name);
                let hook = row.is_some_and(|r| r.hook.is_some());
                let single = row.filter(|_| counts.total() == 1);
                let shown = GraphNode {
                    id: name.clone(),
                    name: name.clone(),
                    kind: if hook { "hook" } else { "task" }.to_owned(),
                    state: counts.worst(),
                    counts: counts.by_state(),
                    total: counts.total(),
                    ..GraphNode::default()
                };
                nodes.push(shown.of_row(single));
            }
            let mut all = edges(shape);
            for row in loose.values() {
                // Tasks of an open run name what they depend on.
                let Some(upstream) = row.extra.get("upstream").and_then(Value::as_array) else {
                    continue;
                };
                for up in
                    upstream.iter().filter_map(Value::as_str).filter(|u| loose.contains_key(*u))
                {
                    let (from, to) = (up.to_owned(), row.name.clone());
                    all.push(GraphEdge { from, to, class: "data" });
                }
            }
            Ok(Graph { nodes, edges: all, seq: Some(seq) })
        })
        .await?;
    Ok(Json(graph))
}

#[derive(Debug, serde::Deserialize, JsonSchema)]
struct Asked {
    version: Option<String>,
}

async fn of_workflow(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    Query(asked): Query<Asked>,
) -> Result<Json<Graph>, ApiError> {
    let namespace = place.namespace();
    let wanted = name.clone();
    let stored = state
        .read(move |v| v.get_workflow(&namespace, &wanted, asked.version.as_deref()))
        .await?
        .ok_or_else(|| no_workflow(&name))?;
    let shape = Shape::new(stored.workflow);
    let nodes = (0..shape.places.len()).map(|at| node(&shape, at, None)).collect();
    Ok(Json(Graph { nodes, edges: edges(&shape), seq: None }))
}
