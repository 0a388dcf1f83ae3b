//! When the tasks of a run waited and ran.

use std::collections::BTreeSet;

use axum::extract::State;
use kobza_model::{TaskId, TaskNo, TaskRow, TaskState, Timestamp};
use kobza_store::TaskFilter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, Path, Query};
use crate::runs::{load, run_id};
use crate::shape::Paths;
use crate::state::ApiState;
use crate::table::{Routes, Space};

pub(crate) fn routes() -> Routes {
    Routes::new().get(
        "/runs/{id}/timeline",
        (Viewer, Space::Run),
        "When tasks waited and ran",
        timeline,
    )
}

/// Earlier attempts that one page looks up.
const MAX_LOOKUPS: usize = 200;

#[derive(Debug, Deserialize, JsonSchema)]
struct Asked {
    cursor: Option<String>,
    limit: Option<u32>,
    node: Option<String>,
}

/// When the tasks of a run waited and ran.
#[derive(Debug, Serialize, JsonSchema)]
struct Timeline {
    start: Timestamp,
    end: Option<Timestamp>,
    items: Vec<TimelineItem>,
    /// Tasks in all.
    total: u32,
    next: Option<String>,
}

/// One attempt of a task.
#[derive(Debug, Serialize, JsonSchema)]
struct TimelineItem {
    task: String,
    name: String,
    map_index: Option<u32>,
    path: String,
    attempt: u32,
    state: TaskState,
    created_at: Timestamp,
    ready_at: Option<Timestamp>,
    queued_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    waited: Vec<Waited>,
    /// The run's end waited for it.
    critical: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Waited {
    /// `upstream`, `limit`, `worker`, `retry`, `reschedule` or `approval`.
    kind: &'static str,
    from: Timestamp,
    to: Option<Timestamp>,
}

fn waited(task: &TaskRow) -> Vec<Waited> {
    let mut waited = Vec::new();
    let mut push = |kind: &'static str, from: Option<Timestamp>, to: Option<Timestamp>| {
        if let Some(from) = from
            && to.is_none_or(|to| to.0 - from.0 > 1000)
        {
            waited.push(Waited { kind, from, to });
        }
    };
    let open = !task.state.is_finished();
    if task.attempt <= 1 && (task.ready_at.is_some() || open) {
        push("upstream", Some(task.created_at), task.ready_at);
    }
    if task.ready_at.is_some() && (task.started_at.is_some() || open) {
        let kind = match task.state {
            TaskState::Suspended => "approval",
            TaskState::RetryWait => "retry",
            TaskState::Rescheduled | TaskState::Deferred => "reschedule",
            TaskState::Ready => "limit",
            _ => "worker",
        };
        if task.started_at.is_some() || kind != "worker" || task.state == TaskState::Queued {
            push(kind, task.ready_at, task.started_at);
        }
    }
    waited
}

/// The chain of tasks that the run's end waited for: from the last one back, each time to the one
/// upstream that ended last.
fn critical(rows: &[TaskRow], paths: &Paths) -> BTreeSet<TaskNo> {
    let mut chain = BTreeSet::new();
    let leaf = |t: &&TaskRow| t.node.is_some() && !paths.of(t).is_some_and(|p| p.group);
    let mut at =
        rows.iter().filter(leaf).filter(|t| t.ended_at.is_some()).max_by_key(|t| t.ended_at);
    while let Some(task) = at {
        if !chain.insert(task.task) {
            break;
        }
        let mut place = paths.at(task.scope, task.node, &task.name);
        at = None;
        while let Some(here) = place {
            let before: BTreeSet<usize> = paths.shape.upstream(here).into_iter().collect();
            let inside = |t: &TaskRow| {
                let mut own = paths.at(t.scope, t.node, &t.name);
                while let Some(p) = own {
                    if before.contains(&p) {
                        return true;
                    }
                    own = paths.shape.places[p].parent;
                }
                false
            };
            at = rows
                .iter()
                .filter(leaf)
                .filter(|t| {
                    t.ended_at.is_some()
                        && t.ended_at <= task.started_at.or(task.ready_at).or(task.ended_at)
                })
                .filter(|t| inside(t))
                .max_by_key(|t| t.ended_at);
            if at.is_some() {
                break;
            }
            place = paths.shape.places[here].parent;
        }
    }
    chain
}

async fn timeline(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Timeline>, ApiError> {
    let run = load(&state, run_id(&id)?).await?;
    let shapes = state.shapes.clone();
    let limit = asked.limit.unwrap_or(500).clamp(1, 1000);
    let timeline = state
        .read(move |views| {
            let paths = Paths::read(views, &shapes, &run)?;
            let mut filter = TaskFilter { hide_summaries: true, ..TaskFilter::default() };
            if let Some(node) = &asked.node {
                match paths.shape.find(node) {
                    Some(at) if !paths.shape.places[at].group => {
                        filter.node = Some(paths.shape.places[at].node);
                        filter.name = Some(paths.shape.places[at].name.clone());
                    }
                    Some(_) => {}
                    None => filter.name = Some(node.clone()),
                }
            }
            let page = views.list_tasks(run.run, &filter, asked.cursor.as_deref(), limit)?;
            let rows: Vec<TaskRow> = page
                .items
                .into_iter()
                .filter(|t| {
                    let place = paths.of(t);
                    t.task.0 != 0
                        && !place.is_some_and(|p| p.group)
                        && asked.node.as_ref().is_none_or(|n| {
                            match (paths.shape.find(n), paths.at(t.scope, t.node, &t.name)) {
                                (Some(group), Some(at)) => paths.shape.is_within(at, group),
                                _ => t.name == *n,
                            }
                        })
                })
                .collect();
            let chain = if page.next.is_none() && asked.cursor.is_none() && run.state.is_finished()
            {
                critical(&rows, &paths)
            } else {
                BTreeSet::new()
            };
            let mut attempts: Vec<(TaskRow, bool)> = Vec::new();
            let mut lookups = 0;
            for row in rows {
                if row.attempt > 1 && lookups < MAX_LOOKUPS {
                    lookups += 1;
                    let id = TaskId { run: row.run, task: row.task };
                    attempts.extend(views.list_attempts(id)?.into_iter().map(|a| (a, false)));
                }
                let critical = chain.contains(&row.task);
                attempts.push((row, critical));
            }
            attempts.sort_by_key(|(t, _)| {
                (t.started_at.or(t.ready_at).unwrap_or(t.created_at), t.task)
            });
            let total: u32 = run.counts.iter().sum();
            let items = attempts.iter().map(|(t, critical)| TimelineItem {
                task: TaskId { run: t.run, task: t.task }.to_string(),
                name: t.name.clone(),
                map_index: t.index,
                path: paths.path(t),
                attempt: t.attempt,
                state: t.state,
                created_at: t.created_at,
                ready_at: t.ready_at,
                queued_at: t.ready_at,
                started_at: t.started_at,
                ended_at: t.ended_at,
                waited: waited(t),
                critical: *critical,
            });
            Ok(Timeline {
                start: run.started_at.unwrap_or(run.created_at),
                end: run.ended_at,
                items: items.collect(),
                total,
                next: page.next,
            })
        })
        .await?;
    Ok(Json(timeline))
}
