//! Runs: lists, one, and what can be done with it.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use kobza_engine::{Command, StartRun, StopMode};
use kobza_model::{RunId, RunRow, RunState, TaskState, Timestamp};
use kobza_store::{Page, RunFilter, TaskFilter, ViewError, Views, Write};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::Principal;
use crate::auth::Role::{Operator, Viewer};
use crate::error::ApiError;
use crate::extract::{Created, Given, Json, List, NewId, NoContent, Paging, Path, Query};
use crate::shape::Paths;
use crate::state::{ApiState, Deleted};
use crate::table::{Routes, Space};
use crate::view;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get("/runs", (Viewer, Space::Query), "Runs", list)
        .get("/runs/{id}", (Viewer, Space::Run), "A run", detail)
        .patch("/runs/{id}", (Operator, Space::Run), "Note and labels of a run", change)
        .delete("/runs/{id}", (Operator, Space::Run), "Delete a run", remove)
        .get("/runs/{id}/tasks", (Viewer, Space::Run), "A run's tasks", tasks)
        .post("/runs/{id}/cancel", (Operator, Space::Run), "Stop a run", cancel)
        .post("/runs/{id}/pause", (Operator, Space::Run), "Pause a run", pause)
        .post("/runs/{id}/resume", (Operator, Space::Run), "Resume a run", resume)
        .post("/runs/{id}/rerun", (Operator, Space::Run), "Start it anew", rerun)
        .get("/compare", (Viewer, Space::Handler), "Runs next to each other", compare)
}

/// Which runs, as lists and bulk actions are asked.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct RunsAsked {
    pub(crate) namespace: Option<String>,
    workflow: Option<String>,
    state: Option<String>,
    trigger: Option<String>,
    version: Option<String>,
    partition: Option<String>,
    backfill: Option<String>,
    parent: Option<String>,
    label: Option<String>,
    q: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// What the store filters by, and what is left to filter afterwards.
pub(crate) struct RunsQuery {
    filter: RunFilter,
    version: Option<String>,
    id_prefix: Option<String>,
}

/// The times of creation of the run ids that begin so.
fn id_window(text: &str) -> Option<(String, Timestamp, Timestamp)> {
    let hex: String = text.chars().filter(|c| *c != '-').collect::<String>().to_lowercase();
    if hex.len() < 8 || hex.len() > 32 || !hex.chars().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let millis = |fill: char| {
        let mut digits: String = hex.chars().take(12).collect();
        while digits.len() < 12 {
            digits.push(fill);
        }
        i64::from_str_radix(&digits, 16).ok()
    };
    // Ids are made a moment before or after the row.
    let slack = 60_000;
    let low = millis('0')?.saturating_sub(slack).saturating_mul(1000);
    let high = millis('f')?.saturating_add(slack).saturating_mul(1000);
    Some((hex, Timestamp(low), Timestamp(high)))
}

impl RunsAsked {
    pub(crate) fn searching(namespace: &str, q: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), q: Some(q.to_owned()), ..Self::default() }
    }

    pub(crate) fn namespace(&self) -> String {
        self.namespace.clone().unwrap_or_else(|| crate::workflows::DEFAULT_NAMESPACE.to_owned())
    }

    pub(crate) fn query(&self) -> Result<RunsQuery, ApiError> {
        let pair = |l: &str| {
            l.split_once(':').map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(|| {
                ApiError::bad(format!("{l:?} is not a label")).hint("write label=key:value")
            })
        };
        let mut labels: Vec<(String, String)> = self
            .label
            .iter()
            .flat_map(|l| l.split(','))
            .filter(|l| !l.is_empty())
            .map(pair)
            .collect::<Result<_, _>>()?;
        if let Some(backfill) = &self.backfill {
            labels.push(("backfill".to_owned(), backfill.clone()));
        }
        let (parent, parent_task) = match &self.parent {
            None => (None, None),
            Some(text) => match text.parse::<kobza_model::TaskId>() {
                Ok(task) => (Some(task.run), Some(task.task)),
                Err(_) => (Some(run_id(text)?), None),
            },
        };
        let mut filter = RunFilter {
            namespaces: vec![self.namespace()],
            workflow: self.workflow.clone(),
            states: words(self.state.as_deref(), "run state", RunState::from_word)?,
            trigger: self.trigger.clone(),
            labels,
            created_from: self.since,
            created_until: self.until,
            search: None,
            parent,
            parent_task,
            partition: self.partition.clone(),
        };
        let mut id_prefix = None;
        if let Some(q) = self.q.as_deref().filter(|q| !q.is_empty()) {
            match id_window(q) {
                Some((hex, from, until)) => {
                    filter.created_from = Some(filter.created_from.map_or(from, |f| f.max(from)));
                    filter.created_until =
                        Some(filter.created_until.map_or(until, |u| u.min(until)));
                    id_prefix = Some(hex);
                }
                None => filter.search = Some(q.to_owned()),
            }
        }
        Ok(RunsQuery { filter, version: self.version.clone(), id_prefix })
    }
}

impl RunsQuery {
    pub(crate) fn page(
        &self,
        views: &dyn Views,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<RunRow>, ViewError> {
        let mut page = views.list_runs(&self.filter, cursor, limit)?;
        page.items.retain(|run| {
            self.version.as_ref().is_none_or(|v| run.version == *v)
                && self
                    .id_prefix
                    .as_ref()
                    .is_none_or(|p| run.run.0.simple().to_string().starts_with(p))
        });
        Ok(page)
    }
}

/// Comma-separated words of a closed set.
pub(crate) fn words<T>(
    text: Option<&str>,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, ApiError> {
    text.unwrap_or_default()
        .split(',')
        .filter(|w| !w.is_empty())
        .map(|word| parse(word).ok_or_else(|| ApiError::bad(format!("{word:?} is not a {what}"))))
        .collect()
}

async fn list(
    State(state): State<ApiState>,
    Query(asked): Query<RunsAsked>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<view::Run>>, ApiError> {
    let query = asked.query()?;
    let limit = paging.limit(50, 500);
    let page = state.read(move |v| query.page(v, paging.cursor.as_deref(), limit)).await?;
    Ok(Json(List::new(page.items.iter().map(view::run).collect(), page.next)))
}

pub(crate) fn no_run(id: RunId) -> ApiError {
    ApiError::not_found(format!("there is no run {id}"))
}

pub(crate) fn run_id(text: &str) -> Result<RunId, ApiError> {
    text.parse().map_err(|_| ApiError::not_found("there is no such run").hint("a run id is a UUID"))
}

pub(crate) async fn load(state: &ApiState, id: RunId) -> Result<RunRow, ApiError> {
    state.read(move |v| v.get_run(id)).await?.ok_or_else(|| no_run(id))
}

async fn detail(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<view::Run>, ApiError> {
    Ok(Json(view::run(&load(&state, run_id(&id)?).await?)))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "RunChange")]
struct Change {
    note: Option<Value>,
    labels: Option<Value>,
}

async fn change(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Json(change): Json<Change>,
) -> Result<Json<view::Run>, ApiError> {
    let run = load(&state, run_id(&id)?).await?;
    if change.labels.as_ref().is_some_and(|l| !l.is_object()) {
        return Err(ApiError::bad("labels are an object of texts"));
    }
    let extra = change.note.map(|note| {
        let mut extra = if run.extra.is_object() { run.extra.clone() } else { json!({}) };
        extra["note"] = note;
        extra
    });
    let command = Command::Annotate { run: run.run, labels: change.labels, params: None, extra };
    state.handle.submit(command).await?;
    Ok(Json(view::run(&load(&state, run.run).await?)))
}

pub(crate) fn unfinished(run: &RunRow) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "conflict", format!("the run is {}", run.state))
        .hint("cancel it first; only a run that has ended can be deleted")
}

/// Deletes a finished run with all that belongs to it, and tells those that follow.
///
/// # Errors
/// When the store did not take it.
pub async fn delete_run(state: &ApiState, row: &RunRow) -> Result<(), ApiError> {
    let run = row.run;
    state.write(vec![Write::DeleteRun { run }]).await?;
    state.deletions.tell(Deleted { run, namespace: row.namespace.clone() });
    let logs = state.logs.clone();
    let removed = tokio::task::spawn_blocking(move || logs.remove_run(run)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, "logs of a deleted run remain");
    }
    Ok(())
}

async fn remove(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<NoContent, ApiError> {
    let run = load(&state, run_id(&id)?).await?;
    if !run.state.is_finished() {
        return Err(unfinished(&run));
    }
    delete_run(&state, &run).await?;
    Ok(NoContent)
}

#[derive(Debug, Deserialize, JsonSchema)]
struct TasksAsked {
    state: Option<String>,
    node: Option<String>,
    name: Option<String>,
    q: Option<String>,
    summary: Option<bool>,
    sort: Option<String>,
    cursor: Option<String>,
    limit: Option<u32>,
}

/// Runs with no more tasks than this are sorted by anything; larger ones by number only.
const SORTED: u32 = 1000;

async fn tasks(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(asked): Query<TasksAsked>,
) -> Result<Json<List<view::Task>>, ApiError> {
    let run = load(&state, run_id(&id)?).await?;
    let states = words(asked.state.as_deref(), "task state", TaskState::from_word)?;
    let limit = asked.limit.unwrap_or(50).clamp(1, 1000);
    let (shapes, offset) = (state.shapes.clone(), state.offset());
    let value = state
        .read(move |views| {
            let paths = Paths::read(views, &shapes, &run)?;
            let index = asked.q.as_deref().and_then(|q| q.parse::<u32>().ok());
            let mut filter = TaskFilter {
                states: states.clone(),
                name: asked.name.clone(),
                search: asked.q.clone().filter(|_| index.is_none()),
                index_from: index,
                index_until: index.map(|i| i.saturating_add(1)),
                hide_summaries: !asked.summary.unwrap_or(false),
                ..TaskFilter::default()
            };
            let wanted = asked.node.as_deref().map(|path| (path, paths.shape.find(path)));
            match wanted {
                // What is in a group is looked through below.
                Some((_, Some(at))) if paths.shape.places[at].group => {}
                Some((_, Some(at))) => {
                    filter.node = Some(paths.shape.places[at].node);
                    filter.name = Some(paths.shape.places[at].name.clone());
                }
                Some((name, None)) => filter.name = Some(name.to_owned()),
                None => {}
            }
            let here = |task: &kobza_model::TaskRow| {
                task.task.0 != 0
                    && wanted.is_none_or(|(_, at)| {
                        at.is_none_or(|at| {
                            paths
                                .at(task.scope, task.node, &task.name)
                                .is_some_and(|place| paths.shape.is_within(place, at))
                        })
                    })
            };
            let all: u32 = run.counts.iter().sum();
            let sort = asked.sort.as_deref().filter(|s| *s != "task");
            let (mut items, next) = match sort {
                Some(_) if all <= SORTED && asked.cursor.is_none() => {
                    (views.list_tasks(run.run, &filter, None, 1000)?.items, None)
                }
                _ => {
                    let page =
                        views.list_tasks(run.run, &filter, asked.cursor.as_deref(), limit)?;
                    (page.items, page.next)
                }
            };
            items.retain(|t| here(t));
            match sort {
                Some("name") => items.sort_by(|a, b| (&a.name, a.index).cmp(&(&b.name, b.index))),
                Some("state") => items.sort_by_key(|t| t.state),
                Some("-started_at") => items.sort_by_key(|t| std::cmp::Reverse(t.started_at)),
                Some("-duration") => {
                    items
                        .sort_by_key(|t| std::cmp::Reverse(view::millis(t.started_at, t.ended_at)));
                }
                _ => {}
            }
            let total = if asked.cursor.is_none() && next.is_none() {
                Some(items.len() as u64)
            } else if asked.q.is_none() {
                let counts = views.task_counts(run.run)?;
                let matching = counts.iter().filter(|c| {
                    (states.is_empty() || states.contains(&c.state))
                        && wanted.is_none_or(|(_, group)| {
                            group.is_none_or(|group| {
                                paths
                                    .at(c.scope, c.node, &c.name)
                                    .is_some_and(|at| paths.shape.is_within(at, group))
                            })
                        })
                        && filter.name.as_ref().is_none_or(|n| *n == c.name)
                        && filter.node.is_none_or(|n| Some(n) == c.node)
                });
                Some(matching.map(|c| c.tasks).sum())
            } else {
                None
            };
            let items = items.iter().map(|t| view::task(t, &run, &paths, offset)).collect();
            Ok(List { items, next, total })
        })
        .await?;
    Ok(Json(value))
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Stop {
    mode: Option<String>,
    reason: Option<String>,
}

async fn cancel(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Extension(principal): Extension<Principal>,
    Given(stop): Given<Stop>,
) -> Result<Json<view::Run>, ApiError> {
    let mode = match stop.mode.as_deref() {
        None | Some("cancel") => StopMode::Cancel,
        Some("stop") => StopMode::Stop,
        Some("terminate") => StopMode::Terminate,
        Some(other) => {
            return Err(ApiError::bad(format!("{other:?} is not a way to stop a run"))
                .hint("use cancel, stop or terminate"));
        }
    };
    let run = run_id(&id)?;
    let reason = stop.reason.unwrap_or_else(|| format!("by {}", principal.name));
    state.handle.submit(Command::StopRun { run, mode, reason }).await?;
    Ok(Json(view::run(&load(&state, run).await?)))
}

async fn pause(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<view::Run>, ApiError> {
    let run = run_id(&id)?;
    state.handle.submit(Command::PauseRun { run }).await?;
    Ok(Json(view::run(&load(&state, run).await?)))
}

async fn resume(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<view::Run>, ApiError> {
    let run = run_id(&id)?;
    state.handle.submit(Command::ResumeRun { run }).await?;
    Ok(Json(view::run(&load(&state, run).await?)))
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Rerun {
    params: Option<Value>,
    version: Option<String>,
}

/// A new run with the parameters and the place of an old one.
async fn rerun(
    State(state): State<ApiState>,
    new: NewId,
    Path(id): Path<String>,
    Given(asked): Given<Rerun>,
) -> Result<Created<crate::start::Started>, ApiError> {
    let old = load(&state, run_id(&id)?).await?;
    let version = match asked.version.as_deref() {
        None | Some("same") => Some(old.version.clone()),
        Some("current") => None,
        Some(other) => {
            return Err(ApiError::bad(format!("{other:?} is not a version to run"))
                .hint("use same or current"));
        }
    };
    let (namespace, name) = (old.namespace.clone(), old.workflow.clone());
    let stored = state
        .read(move |v| v.get_workflow(&namespace, &name, version.as_deref()))
        .await?
        .ok_or_else(|| crate::workflows::no_workflow(&old.workflow))?;
    let params = asked.params.unwrap_or(old.params);
    let params = crate::start::checked(&state, &stored.workflow, params)?;
    let start = Box::new(StartRun {
        run: RunId(new.id),
        namespace: old.namespace,
        workflow: stored.workflow,
        version: stored.version,
        params,
        key: None,
        trigger: "rerun".to_owned(),
        interval: old.interval_start.zip(old.interval_end),
        partition: old.partition,
        labels: old.labels,
        parent: None,
        priority: old.priority,
        extra: json!({"rerun_of": old.run}),
    });
    crate::start::submit(&state, new, start).await
}

#[derive(Debug, Deserialize, JsonSchema)]
struct CompareAsked {
    runs: String,
}

/// Runs next to each other.
#[derive(Debug, Serialize, JsonSchema)]
struct Comparison {
    runs: Vec<view::Run>,
    outputs: Vec<ComparedOutput>,
}

/// One output, as each of the runs has it.
#[derive(Debug, Serialize, JsonSchema)]
struct ComparedOutput {
    /// Its path.
    task: String,
    key: String,
    values: Vec<Value>,
}

/// Runs next to each other, with the outputs of their single tasks.
async fn compare(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Query(asked): Query<CompareAsked>,
) -> Result<Json<Comparison>, ApiError> {
    let ids: Vec<RunId> =
        asked.runs.split(',').filter(|t| !t.is_empty()).map(run_id).collect::<Result<_, _>>()?;
    if ids.is_empty() || ids.len() > 20 {
        return Err(ApiError::bad("give between one and twenty runs"));
    }
    let mut rows = Vec::new();
    for id in ids {
        let row = load(&state, id).await?;
        principal.need(crate::auth::Role::Viewer, Some(&row.namespace))?;
        rows.push(row);
    }
    let shapes = state.shapes.clone();
    let value = state
        .read(move |views| {
            let mut outputs: std::collections::BTreeMap<(String, String), Vec<Value>> =
                std::collections::BTreeMap::new();
            for (place, run) in rows.iter().enumerate() {
                let paths = Paths::read(views, &shapes, run)?;
                let filter = TaskFilter { hide_instances: true, ..TaskFilter::default() };
                for task in views.list_tasks(run.run, &filter, None, 200)?.items {
                    let id = kobza_model::TaskId { run: run.run, task: task.task };
                    for (key, value) in views.task_outputs(id)? {
                        if key.starts_with('$') || value.to_string().len() > 4096 {
                            continue;
                        }
                        let values = outputs
                            .entry((paths.path(&task), key))
                            .or_insert_with(|| vec![Value::Null; rows.len()]);
                        values[place] = value;
                    }
                }
            }
            let outputs = outputs.into_iter();
            let outputs =
                outputs.map(|((task, key), values)| ComparedOutput { task, key, values }).collect();
            Ok(Comparison { runs: rows.iter().map(view::run).collect(), outputs })
        })
        .await?;
    Ok(Json(value))
}
