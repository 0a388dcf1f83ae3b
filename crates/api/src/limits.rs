//! Limits: capacities, who holds them, who waits.

use axum::extract::{Extension, State};
use kobza_engine::Command;
use kobza_model::{TaskId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::Role::{Editor, Viewer};
use crate::auth::{Principal, Role};
use crate::error::ApiError;
use crate::extract::{Json, List, NoContent, Path};
use crate::shape::Paths;
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::view;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get("/limits", (Viewer, Space::Handler), "Limits", list)
        .put("/limits/{name}", (Editor, Space::Global), "Set a limit", set)
        .delete("/limits/{name}", (Editor, Space::Global), "Remove a limit", remove)
        .get("/limits/{name}/holders", (Viewer, Space::Global), "Who holds it", holders)
        .get("/limits/{name}/waiters", (Viewer, Space::Global), "Who waits for it", waiters)
}

/// Holders or waiters that one answer shows.
const SHOWN: usize = 500;

/// A capacity that tasks share.
#[derive(Debug, Serialize, JsonSchema)]
struct Limit {
    name: String,
    capacity: u32,
    /// So much of it is held.
    used: u32,
    /// So many tasks wait for it.
    waiting: usize,
    /// A waiter that does not fit holds back those behind it.
    strict: bool,
    description: Option<String>,
}

/// A task that holds a limit, or waits for it.
#[derive(Debug, Serialize, JsonSchema)]
struct LimitUser {
    #[serde(flatten)]
    task: view::TaskBrief,
    units: u32,
    priority: i32,
    since: Option<Timestamp>,
    /// Place in the queue, from 1.
    position: Option<usize>,
}

async fn list(
    State(state): State<ApiState>,
    Extension(_principal): Extension<Principal>,
) -> Result<Json<List<Limit>>, ApiError> {
    let rows = state.read(|v| v.list_limits()).await?;
    let limits = state.handle.query(|engine| engine.limits()).await?;
    let shown = limits.into_iter().map(|limit| Limit {
        strict: rows.iter().any(|r| r.name == limit.name && r.strict),
        capacity: limit.capacity.unwrap_or(0),
        used: limit.used,
        waiting: limit.waiters.len(),
        description: limit.description,
        name: limit.name,
    });
    Ok(Json(List::whole(shown.collect())))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "NewLimit")]
struct Body {
    capacity: u32,
    #[serde(default)]
    strict: bool,
    description: Option<String>,
}

async fn set(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Json(body): Json<Body>,
) -> Result<Json<Limit>, ApiError> {
    kobza_model::validate_name(&name).map_err(|e| ApiError::name("name", &e))?;
    let command = Command::SetLimit {
        name: name.clone(),
        capacity: body.capacity,
        strict: body.strict,
        description: body.description.clone(),
    };
    state.handle.submit(command).await?;
    let wanted = name.clone();
    let look = move |engine: &kobza_engine::Engine| {
        let found = engine.limits().into_iter().find(|limit| limit.name == wanted);
        found.map_or((0, 0), |limit| (limit.used, limit.waiters.len()))
    };
    let (used, waiting) = state.handle.query(look).await?;
    let Body { capacity, strict, description } = body;
    Ok(Json(Limit { name, capacity, used, waiting, strict, description }))
}

async fn remove(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<NoContent, ApiError> {
    state.handle.submit(Command::RemoveLimit { name }).await?;
    Ok(NoContent)
}

async fn holders(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
) -> Result<Json<List<LimitUser>>, ApiError> {
    users(&state, &principal, name, true).await
}

async fn waiters(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Path(name): Path<String>,
) -> Result<Json<List<LimitUser>>, ApiError> {
    users(&state, &principal, name, false).await
}

async fn users(
    state: &ApiState,
    principal: &Principal,
    name: String,
    hold: bool,
) -> Result<Json<List<LimitUser>>, ApiError> {
    let wanted = name.clone();
    let found = state
        .handle
        .query(move |engine| {
            engine.limits().into_iter().find(|l| l.name == wanted).map(|l| {
                let tasks: Vec<(TaskId, u32)> =
                    if hold { l.holders } else { l.waiters.into_iter().map(|t| (t, 1)).collect() };
                (tasks.len(), tasks.into_iter().take(SHOWN).collect::<Vec<_>>())
            })
        })
        .await?;
    let (total, tasks) =
        found.ok_or_else(|| ApiError::not_found(format!("there is no limit {name:?}")))?;
    let (shapes, principal) = (state.shapes.clone(), principal.clone());
    let items = state
        .read(move |views| {
            let mut items = Vec::new();
            for (place, (id, units)) in tasks.into_iter().enumerate() {
                let Some((task, run)) = views.get_task(id)?.zip(views.get_run(id.run)?) else {
                    continue;
                };
                if principal.need(Role::Viewer, Some(&run.namespace)).is_err() {
                    continue;
                }
                let paths = Paths::read(views, &shapes, &run)?;
                let units = paths
                    .of(&task)
                    .and_then(|p| paths.shape.node(p))
                    .and_then(|n| n.limits.iter().find(|l| l.limit == name))
                    .map_or(units, |l| l.weight);
                items.push(LimitUser {
                    task: view::brief(&task, &run, &paths),
                    units,
                    priority: task.priority,
                    since: task.started_at.filter(|_| hold).or(task.ready_at),
                    position: (!hold).then_some(place + 1),
                });
            }
            Ok(items)
        })
        .await?;
    Ok(Json(List { total: Some(total as u64), ..List::whole(items) }))
}
