//! One action on many runs or tasks, tried first where that is asked.

use std::collections::BTreeMap;

use axum::extract::{Extension, State};
use futures_util::future::join_all;
use kobza_engine::{ClearOptions, Command, Engine, EngineOptions, Reply, StopMode};
use kobza_model::{
    EngineTime, Now, Outcome, RunId, RunRow, RunState, TaskId, TaskNo, TaskRow, TaskState,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::Role::Operator;
use crate::auth::{Principal, Role};
use crate::error::ApiError;
use crate::extract::Json;
use crate::graph::heads;
use crate::runs::{RunsAsked, delete_run, load, run_id, unfinished};
use crate::shape::Paths;
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::tasks::task_id;
use crate::view;

/// What became of an action on runs, or would.
#[derive(Debug, Serialize, JsonSchema)]
struct RunsDone {
    /// How many it was carried out for.
    count: usize,
    items: Vec<RunDone>,
    /// There are more than are told of.
    truncated: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RunDone {
    id: RunId,
    workflow: String,
    /// Before.
    state: RunState,
    ok: bool,
    /// Why not.
    message: Option<String>,
}

/// What became of an action on tasks, or would.
#[derive(Debug, Serialize, JsonSchema)]
struct TasksDone {
    count: usize,
    items: Vec<TaskDone>,
    truncated: bool,
    refused: Vec<TaskRefused>,
    /// Runs that are live again.
    runs: Vec<RunReopened>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TaskDone {
    #[serde(flatten)]
    task: view::TaskBrief,
    becomes: TaskState,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TaskRefused {
    id: String,
    message: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RunReopened {
    id: RunId,
    workflow: String,
    state: RunState,
    becomes: RunState,
}

pub(crate) fn routes() -> Routes {
    Routes::new()
        .post("/runs/bulk", (Operator, Space::Handler), "One action on many runs", runs)
        .post("/tasks/bulk", (Operator, Space::Handler), "One action on many tasks", tasks)
}

/// Items told of one by one.
const TOLD: usize = 200;
/// Runs and tasks of one action.
const MOST: usize = 10_000;
/// Commands on their way at once.
const AT_ONCE: usize = 256;

#[derive(Debug, Deserialize, JsonSchema)]
struct RunsBody {
    action: String,
    ids: Option<Vec<String>>,
    filter: Option<RunsAsked>,
    #[serde(default)]
    dry_run: bool,
    reason: Option<String>,
}

async fn runs(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Json(body): Json<RunsBody>,
) -> Result<Json<RunsDone>, ApiError> {
    if !matches!(body.action.as_str(), "cancel" | "pause" | "resume" | "delete" | "clear_failed") {
        return Err(ApiError::bad(format!("{:?} is not an action on runs", body.action))
            .hint("use cancel, pause, resume, delete or clear_failed"));
    }
    let rows = match (&body.ids, &body.filter) {
        (Some(ids), None) => {
            let ids: Vec<RunId> = ids.iter().map(|id| run_id(id)).collect::<Result<_, _>>()?;
            state
                .read(move |views| {
                    ids.iter()
                        .take(MOST)
                        .map(|id| views.get_run(*id))
                        .collect::<Result<Vec<_>, _>>()
                })
                .await?
                .into_iter()
                .flatten()
                .collect()
        }
        (None, Some(filter)) => {
            let query = filter.query()?;
            state
                .read(move |views| {
                    let (mut rows, mut cursor) = (Vec::new(), None);
                    while rows.len() < MOST {
                        let page = query.page(views, cursor.as_deref(), 1000)?;
                        rows.extend(page.items);
                        match page.next {
                            Some(next) => cursor = Some(next),
                            None => break,
                        }
                    }
                    Ok(rows)
                })
                .await?
        }
        _ => return Err(ApiError::bad("give either ids or a filter")),
    };
    for row in &rows {
        principal.need(Role::Operator, Some(&row.namespace))?;
    }
    let applies = |run: &RunRow| match body.action.as_str() {
        "delete" | "clear_failed" => run.state.is_finished() || body.action == "clear_failed",
        "pause" => !run.state.is_finished() && run.state != kobza_model::RunState::Paused,
        "resume" => run.state == kobza_model::RunState::Paused,
        _ => !run.state.is_finished(),
    };
    let reason = body.reason.clone().unwrap_or_else(|| format!("by {}", principal.name));
    let mut items = Vec::new();
    let mut count = 0;
    for chunk in rows.chunks(AT_ONCE) {
        let done = join_all(chunk.iter().map(|run| {
            let (state, reason, action) = (&state, reason.clone(), body.action.as_str());
            async move {
                if !applies(run) {
                    return Err(format!("the run is {}", run.state));
                }
                if body.dry_run {
                    return Ok(());
                }
                apply(state, run, action, reason).await.map_err(|e| e.message)
            }
        }))
        .await;
        for (run, result) in chunk.iter().zip(done) {
            count += usize::from(result.is_ok());
            items.push((run, result));
        }
    }
    let truncated = items.len() > TOLD;
    let items = items.into_iter().take(TOLD).map(|(run, result)| RunDone {
        id: run.run,
        workflow: run.workflow.clone(),
        state: run.state,
        ok: result.is_ok(),
        message: result.err(),
    });
    Ok(Json(RunsDone { count, items: items.collect(), truncated }))
}

async fn apply(
    state: &ApiState,
    row: &RunRow,
    action: &str,
    reason: String,
) -> Result<(), ApiError> {
    let run = row.run;
    let command = match action {
        "delete" if !row.state.is_finished() => return Err(unfinished(row)),
        "delete" => return delete_run(state, row).await,
        "pause" => Command::PauseRun { run },
        "resume" => Command::ResumeRun { run },
        "clear_failed" => Command::Clear {
            run,
            tasks: Vec::new(),
            options: ClearOptions { downstream: false, only_failed: true },
        },
        _ => Command::StopRun { run, mode: StopMode::Cancel, reason },
    };
    state.handle.submit(command).await?;
    Ok(())
}

#[derive(Debug, Deserialize, JsonSchema)]
struct TasksBody {
    action: String,
    ids: Option<Vec<String>>,
    run: Option<String>,
    nodes: Option<Vec<String>>,
    states: Option<Vec<String>>,
    state: Option<String>,
    #[serde(default)]
    downstream: bool,
    #[serde(default)]
    upstream: bool,
    #[serde(default)]
    only_failed: bool,
    #[serde(default)]
    dry_run: bool,
    reason: Option<String>,
}

enum Act {
    Clear,
    Mark(Outcome),
    Cancel,
}

/// What became, or would become, of the tasks of one run.
struct Changed {
    run: RunRow,
    paths: Paths,
    tasks: Vec<TaskRow>,
    refused: Vec<(TaskId, String)>,
    reopened: bool,
}

async fn tasks(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Json(body): Json<TasksBody>,
) -> Result<Json<TasksDone>, ApiError> {
    let act = match (body.action.as_str(), body.state.as_deref()) {
        ("clear", _) => Act::Clear,
        ("cancel", _) => Act::Cancel,
        ("mark", Some(word @ ("succeeded" | "failed" | "skipped"))) => {
            Act::Mark(Outcome::from_word(word).unwrap_or(Outcome::Skipped))
        }
        ("mark", _) => {
            return Err(
                ApiError::bad("marking needs a state").hint("use succeeded, failed or skipped")
            );
        }
        (other, _) => {
            return Err(ApiError::bad(format!("{other:?} is not an action on tasks"))
                .hint("use clear, mark or cancel"));
        }
    };
    let mut chosen: BTreeMap<RunId, Vec<TaskNo>> = BTreeMap::new();
    match (&body.ids, &body.run) {
        (Some(ids), _) => {
            if ids.len() > MOST {
                return Err(ApiError::bad(format!("at most {MOST} tasks at once")));
            }
            for id in ids {
                let id = task_id(id)?;
                chosen.entry(id.run).or_default().push(id.task);
            }
        }
        (None, Some(run)) => {
            chosen.insert(run_id(run)?, Vec::new());
        }
        (None, None) => return Err(ApiError::bad("give ids or a run")),
    }
    let states = body
        .states
        .iter()
        .flatten()
        .map(|w| {
            TaskState::from_word(w)
                .ok_or_else(|| ApiError::bad(format!("{w:?} is not a task state")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut all = Vec::new();
    for (run, numbers) in chosen {
        let run = load(&state, run).await?;
        principal.need(Role::Operator, Some(&run.namespace))?;
        all.push(one_run(&state, &principal, run, numbers, &act, &states, &body).await?);
    }
    let count: usize = all.iter().map(|c| c.tasks.len()).sum();
    let becomes = match &act {
        Act::Clear => TaskState::Pending,
        Act::Mark(outcome) => outcome.state(),
        Act::Cancel => TaskState::Cancelled,
    };
    let tasks = all.iter().flat_map(|c| c.tasks.iter().map(move |t| (c, t)));
    let items = tasks
        .take(TOLD)
        .map(|(c, task)| TaskDone { task: view::brief(task, &c.run, &c.paths), becomes });
    let refused = all.iter().flat_map(|c| &c.refused).take(TOLD);
    let refused =
        refused.map(|(id, message)| TaskRefused { id: id.to_string(), message: message.clone() });
    let runs = all.iter().filter(|c| c.reopened).map(|c| RunReopened {
        id: c.run.run,
        workflow: c.run.workflow.clone(),
        state: c.run.state,
        becomes: RunState::Running,
    });
    Ok(Json(TasksDone {
        count,
        items: items.collect(),
        truncated: count > TOLD,
        refused: refused.collect(),
        runs: runs.collect(),
    }))
}

/// The tasks that are meant: by number, or by place and state; with what is before and behind them.
fn select(
    rows: &[TaskRow],
    paths: &Paths,
    numbers: &[TaskNo],
    nodes: Option<&[String]>,
    states: &[TaskState],
    (upstream, downstream): (bool, bool),
) -> Vec<TaskRow> {
    let below = |path: &str, node: &str| {
        path == node || path.strip_prefix(node).is_some_and(|rest| rest.starts_with('/'))
    };
    let mut picked: Vec<TaskRow> = rows
        .iter()
        .filter(|t| {
            if !numbers.is_empty() {
                return numbers.contains(&t.task);
            }
            let inside = |node: &str| match paths.shape.find(node) {
                Some(group) => paths
                    .at(t.scope, t.node, &t.name)
                    .is_some_and(|place| paths.shape.is_within(place, group)),
                None => below(&paths.path(t), node),
            };
            let here = nodes.is_none_or(|n| n.iter().any(|n| inside(n)));
            here && (states.is_empty() || states.contains(&t.state))
        })
        .cloned()
        .collect();
    let mut open: Vec<(kobza_model::ScopeNo, usize)> = picked
        .iter()
        .filter_map(|t| Some((t.scope, paths.at(t.scope, t.node, &t.name)?)))
        .collect();
    let mut seen: std::collections::HashSet<(kobza_model::ScopeNo, usize)> =
        open.iter().copied().collect();
    while let Some((scope, at)) = open.pop() {
        let mut next = Vec::new();
        if upstream {
            next.extend(paths.shape.upstream(at));
        }
        if downstream {
            next.extend(paths.shape.downstream(at));
        }
        for place in next {
            if seen.insert((scope, place)) {
                open.push((scope, place));
                let node = paths.shape.places[place].node;
                picked.extend(
                    rows.iter().filter(|t| t.scope == scope && t.node == Some(node)).cloned(),
                );
            }
        }
    }
    picked.sort_by_key(|t| t.task);
    picked.dedup_by_key(|t| t.task);
    picked
}

async fn one_run(
    state: &ApiState,
    principal: &Principal,
    run: RunRow,
    numbers: Vec<TaskNo>,
    act: &Act,
    states: &[TaskState],
    body: &TasksBody,
) -> Result<Changed, ApiError> {
    let whole = numbers.is_empty() && body.nodes.is_none() && states.is_empty();
    let (shapes, row) = (state.shapes.clone(), run.clone());
    let (nodes, wanted_states) = (body.nodes.clone(), states.to_vec());
    // The engine follows what depends on cleared tasks itself.
    let around = (body.upstream, body.downstream && !matches!(act, Act::Clear));
    let (paths, picked) = state
        .read(move |views| {
            let paths = Paths::read(views, &shapes, &row)?;
            let mut rows = heads(views, row.run)?;
            for number in &numbers {
                if !rows.iter().any(|r| r.task == *number)
                    && let Some(task) = views.get_task(TaskId { run: row.run, task: *number })?
                {
                    rows.push(task);
                }
            }
            let picked = select(&rows, &paths, &numbers, nodes.as_deref(), &wanted_states, around);
            Ok((paths, picked))
        })
        .await?;
    let mut changed =
        Changed { run, paths, tasks: Vec::new(), refused: Vec::new(), reopened: false };
    let id = changed.run.run;
    match act {
        Act::Clear => {
            if picked.is_empty() {
                return Ok(changed);
            }
            let tasks = if whole { Vec::new() } else { picked.iter().map(|t| t.task).collect() };
            let options =
                ClearOptions { downstream: body.downstream, only_failed: body.only_failed };
            let command = Command::Clear { run: id, tasks, options };
            let cleared = if body.dry_run {
                tried(state, id, command).await?
            } else {
                match state.handle.submit(command).await?.into_iter().next() {
                    Some(Reply::Cleared(tasks)) => tasks,
                    _ => Vec::new(),
                }
            };
            changed.reopened = changed.run.state.is_finished() && !cleared.is_empty();
            let known: BTreeMap<TaskNo, TaskRow> =
                picked.into_iter().map(|t| (t.task, t)).collect();
            changed.tasks = state
                .read(move |views| {
                    let mut rows = Vec::new();
                    for task in cleared {
                        let row = match known.get(&task) {
                            Some(row) => Some(row.clone()),
                            // Beyond what is told of, the number suffices.
                            None if rows.len() < TOLD => {
                                views.get_task(TaskId { run: id, task })?
                            }
                            None => known.values().next().cloned(),
                        };
                        rows.extend(row);
                    }
                    Ok(rows)
                })
                .await?;
        }
        Act::Mark(_) | Act::Cancel => {
            for chunk in picked.chunks(AT_ONCE) {
                let done = join_all(chunk.iter().map(|task| {
                    let target = TaskId { run: id, task: task.task };
                    let refused = match act {
                        Act::Cancel if task.state.is_finished() => {
                            Some(format!("the task is {}", task.state))
                        }
                        Act::Mark(outcome) if task.state == outcome.state() => {
                            Some(format!("the task is {} already", task.state))
                        }
                        _ => None,
                    };
                    let command = match act {
                        Act::Mark(outcome) => Command::Mark {
                            task: target,
                            outcome: *outcome,
                            by: principal.name.clone(),
                        },
                        _ => Command::StopTask {
                            task: target,
                            reason: body
                                .reason
                                .clone()
                                .unwrap_or_else(|| format!("by {}", principal.name)),
                        },
                    };
                    async move {
                        match refused {
                            Some(refused) => Err(refused),
                            None if body.dry_run => Ok(()),
                            None => state
                                .handle
                                .submit(command)
                                .await
                                .map(drop)
                                .map_err(|e| e.to_string()),
                        }
                    }
                }))
                .await;
                for (task, result) in chunk.iter().zip(done) {
                    match result {
                        Ok(()) => changed.tasks.push(task.clone()),
                        Err(message) => {
                            changed.refused.push((TaskId { run: id, task: task.task }, message));
                        }
                    }
                }
            }
        }
    }
    Ok(changed)
}

/// What a clear would reopen: the same engine decides it, on a copy of the run.
async fn tried(state: &ApiState, run: RunId, command: Command) -> Result<Vec<TaskNo>, ApiError> {
    let store = state.store.clone();
    let result = tokio::task::spawn_blocking(move || -> Result<Vec<TaskNo>, ApiError> {
        let image = store.run_image(run)?.ok_or_else(|| crate::runs::no_run(run))?;
        let row = &image.run;
        let stored = store
            .workflow(&row.namespace, &row.workflow, Some(&row.version))?
            .ok_or_else(|| crate::workflows::no_workflow(&row.workflow))?;
        let now = Now { wall: kobza_runtime::wall_now(), engine: EngineTime(0) };
        let mut engine = Engine::new(EngineOptions::default());
        let refused = |e| ApiError::from(kobza_runtime::SubmitError::Refused(e));
        engine.restore_run(image, stored.workflow, now).map_err(refused)?;
        match engine.apply(command, now).map_err(refused)? {
            Reply::Cleared(tasks) => Ok(tasks),
            _ => Ok(Vec::new()),
        }
    })
    .await;
    result.map_err(|e| ApiError::bad(e.to_string()))?
}
