//! Health, metrics, who asks, and what goes on.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use kobza_model::{RunState, TaskState, Timestamp};
use kobza_store::{ObjectQuery, RunFilter, TaskFilter, ViewError, Views, WorkflowFilter, kinds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::Role::Viewer;
use crate::auth::{ANYWHERE, Principal, Role};
use crate::error::ApiError;
use crate::extract::{Json, List, Metrics, NoContent, PlainText, Query, Raw};
use crate::gate::session_cookie;
use crate::shape::Paths;
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::triggers::Upcoming;
use crate::view;
use crate::workflows::Place;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get("/health", (None, Space::Global), "Whether the server works", health)
        .get("/me", (Viewer, Space::Handler), "Who asks", me)
        .post("/session", (None, Space::Global), "Sign in", sign_in)
        .delete("/session", (None, Space::Global), "Sign out", sign_out)
        .get("/namespaces", (Viewer, Space::Handler), "Namespaces", namespaces)
        .get("/summary", (Viewer, Space::Query), "What goes on", summary)
        .get("/search", (Viewer, Space::Query), "Find anything by name", search)
}

/// What monitors ask, beside the API.
pub(crate) fn root_routes() -> Routes {
    Routes::below("")
        .get("/health", (None, Space::Global), "Whether the server works", health)
        .get("/ready", (None, Space::Global), "Whether the store can be written", ready)
        .get("/metrics", (Viewer, Space::Handler), "Metrics for Prometheus", metrics)
}

/// Whether the server works. To strangers no more than `status`.
#[derive(Debug, Serialize, JsonSchema)]
struct Health {
    /// `ok`, or `degraded`: the store cannot be written; `standby`: another server is active.
    status: &'static str,
    #[serde(flatten)]
    more: Option<HealthDetail>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct HealthDetail {
    version: &'static str,
    now: Timestamp,
    started_at: Timestamp,
    uptime_ms: u64,
    store: StoreKind,
    loops: Vec<LoopHealth>,
    /// Number of the newest event.
    last_event: u64,
    /// Definitions that do not parse.
    workflow_errors: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct StoreKind {
    /// `sqlite` or `postgres`.
    kind: &'static str,
    detail: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct LoopHealth {
    name: &'static str,
    /// `ok`, `late` or `stopped`.
    status: &'static str,
    last_at: Option<Timestamp>,
    detail: Option<String>,
}

async fn health(State(state): State<ApiState>, headers: HeaderMap) -> Json<Health> {
    let metrics = state.handle.metrics();
    let healthy = metrics.healthy.load(Ordering::Relaxed);
    let status = if healthy { "ok" } else { "degraded" };
    // To strangers nothing but whether it works.
    if state.principal(&headers).await.is_err() {
        return Json(Health { status, more: None });
    }
    let last = metrics.last_turn.load(Ordering::Relaxed);
    let errors = state
        .read(|v| {
            v.list_objects(&ObjectQuery {
                kind: kinds::IMPORT_ERROR,
                limit: 1000,
                ..Default::default()
            })
        })
        .await
        .map_or(0, |page| page.items.len());
    let mut loops = vec![LoopHealth {
        name: "runtime",
        status: if healthy { "ok" } else { "late" },
        last_at: Some(Timestamp(i64::try_from(last).unwrap_or(i64::MAX))),
        detail: None,
    }];
    if let Some(triggers) = &state.triggers {
        let found = triggers.list(Some("")).await;
        loops.push(LoopHealth {
            name: "triggers",
            status: if found.is_ok() { "ok" } else { "stopped" },
            last_at: None,
            detail: found.err().map(|e| e.to_string()),
        });
    }
    let more = HealthDetail {
        version: env!("CARGO_PKG_VERSION"),
        now: kobza_runtime::wall_now(),
        started_at: state.started_at,
        uptime_ms: u64::try_from(state.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        store: StoreKind { kind: state.store_kind, detail: "" },
        loops,
        last_event: state.handle.next_event().borrow().saturating_sub(1),
        workflow_errors: errors,
    };
    Json(Health { status, more: Some(more) })
}

/// 200 once the loop answers, 503 while the store cannot be written.
async fn ready(State(state): State<ApiState>) -> Raw<PlainText> {
    let answers = state.handle.query(|_| ()).await.is_ok();
    if answers && state.handle.metrics().healthy.load(Ordering::Relaxed) {
        Raw::new((StatusCode::OK, "ready\n"))
    } else {
        Raw::new((StatusCode::SERVICE_UNAVAILABLE, "not ready\n"))
    }
}

async fn metrics(State(state): State<ApiState>) -> Raw<Metrics> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Raw::new(([(header::CONTENT_TYPE, kind)], state.handle.metrics().text()))
}

async fn all_namespaces(
    state: &ApiState,
    principal: &Principal,
) -> Result<Vec<(String, u64)>, ApiError> {
    let found = state
        .read(|views| {
            let mut found: BTreeMap<String, u64> = BTreeMap::from([("default".to_owned(), 0)]);
            let mut cursor = None;
            loop {
                let page =
                    views.list_workflows(&WorkflowFilter::default(), cursor.as_deref(), 1000)?;
                for workflow in page.items {
                    *found.entry(workflow.namespace).or_default() += 1;
                }
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => return Ok(found),
                }
            }
        })
        .await?;
    Ok(found.into_iter().filter(|(n, _)| principal.role(Some(n)).is_some()).collect())
}

/// Who asks.
#[derive(Debug, Serialize, JsonSchema)]
struct Me {
    name: String,
    /// No accounts exist, and the caller is on the server's machine.
    local: bool,
    /// In the namespace that was asked for, else the best that there is.
    role: Role,
    namespaces: Vec<String>,
    /// The role that holds in all namespaces.
    everywhere: Option<Role>,
}

async fn me(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Query(place): Query<Place>,
) -> Result<Json<Me>, ApiError> {
    let namespaces: Vec<String> =
        all_namespaces(&state, &principal).await?.into_iter().map(|(n, _)| n).collect();
    let role = principal
        .role(Some(&place.namespace()))
        .or_else(|| principal.roles.values().copied().max())
        .unwrap_or(Role::Viewer);
    let everywhere = principal.roles.get(ANYWHERE).copied();
    Ok(Json(Me { name: principal.name, local: principal.local, role, namespaces, everywhere }))
}

#[derive(Deserialize, JsonSchema)]
struct Credentials {
    name: String,
    password: String,
}

async fn sign_in(
    State(state): State<ApiState>,
    Json(given): Json<Credentials>,
) -> Result<([(header::HeaderName, String); 1], NoContent), ApiError> {
    let cookie = session_cookie(&state.sign_in(&given.name, &given.password).await?);
    Ok(([(header::SET_COOKIE, cookie)], NoContent))
}

async fn sign_out(
    State(state): State<ApiState>,
    headers: HeaderMap,
) -> Result<([(header::HeaderName, String); 1], NoContent), ApiError> {
    state.end_session(&headers).await?;
    Ok(([(header::SET_COOKIE, session_cookie(""))], NoContent))
}

#[derive(Debug, Serialize, JsonSchema)]
struct Namespace {
    name: String,
    /// How many it has.
    workflows: u64,
}

async fn namespaces(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<List<Namespace>>, ApiError> {
    let found = all_namespaces(&state, &principal).await?;
    let items = found.into_iter().map(|(name, workflows)| Namespace { name, workflows });
    Ok(Json(List::whole(items.collect())))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct SummaryAsked {
    namespace: Option<String>,
    hours: Option<i64>,
}

const HOUR: i64 = 3_600_000_000;
/// Failed runs that are told of, and pages that are looked through for them.
const FAILED_RUNS: usize = 10;
const FAILED_PAGES: usize = 10;

/// The newest failed runs of those that ended from `since` on; there are `known` of them.
fn newest_failed(
    views: &dyn Views,
    namespaces: &[String],
    since: Timestamp,
    known: u64,
) -> Result<Vec<view::Run>, ViewError> {
    let wanted = FAILED_RUNS.min(usize::try_from(known).unwrap_or(FAILED_RUNS));
    let filter = RunFilter {
        namespaces: namespaces.to_vec(),
        states: vec![RunState::Failed],
        ..RunFilter::default()
    };
    let (mut found, mut cursor) = (Vec::new(), None);
    for _ in 0..FAILED_PAGES {
        if found.len() >= wanted {
            break;
        }
        let page = views.list_runs(&filter, cursor.as_deref(), 50)?;
        let in_time = page.items.iter().filter(|run| run.ended_at.is_some_and(|at| at >= since));
        found.extend(in_time.take(wanted - found.len()).map(view::run));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(found)
}

/// What goes on in a namespace.
#[derive(Debug, Serialize, JsonSchema)]
struct Summary {
    /// By state: those that are live, and those that ended in the hours that were asked for.
    runs: BTreeMap<String, u64>,
    /// Of live runs, by state.
    tasks: BTreeMap<&'static str, u64>,
    running: Vec<view::Run>,
    failed: Vec<view::Run>,
    /// Tasks that wait for a person.
    waiting: Vec<view::TaskBrief>,
    history: Vec<Hour>,
    workflow_errors: Vec<ImportError>,
    late: Vec<Late>,
    upcoming: Vec<Upcoming>,
}

/// How many runs ended within an hour.
#[derive(Debug, Serialize, JsonSchema)]
struct Hour {
    at: Timestamp,
    succeeded: u64,
    failed: u64,
    cancelled: u64,
}

/// A definition that does not parse.
#[derive(Debug, Serialize, JsonSchema)]
struct ImportError {
    name: String,
    message: Option<String>,
    line: Option<u64>,
}

/// A slot that should have started.
#[derive(Debug, Serialize, JsonSchema)]
struct Late {
    workflow: String,
    trigger: String,
    due_at: Timestamp,
    late_ms: i64,
    reason: &'static str,
}

async fn summary(
    State(state): State<ApiState>,
    Query(asked): Query<SummaryAsked>,
) -> Result<Json<Summary>, ApiError> {
    let namespace =
        asked.namespace.unwrap_or_else(|| crate::workflows::DEFAULT_NAMESPACE.to_owned());
    let hours = asked.hours.unwrap_or(24).clamp(1, 24 * 31);
    let now = kobza_runtime::wall_now();
    let since = Timestamp((now.0 / HOUR - hours + 1) * HOUR);
    let (mut upcoming, mut late) = (Vec::new(), Vec::new());
    if let Some(triggers) = &state.triggers
        && let Ok(all) = triggers.list(Some(&namespace)).await
    {
        let mut due: Vec<_> = all.into_iter().filter_map(|t| Some((t.next?, t))).collect();
        due.sort_by_key(|(at, _)| *at);
        for (at, trigger) in &due {
            let entry = crate::triggers::upcoming_view(trigger, *at);
            if now.0 - at.0 > 60_000_000 && at.0 > 0 {
                late.push(Late {
                    workflow: trigger.key.workflow.clone(),
                    trigger: crate::triggers::id(&trigger.key),
                    due_at: *at,
                    late_ms: (now.0 - at.0) / 1000,
                    reason: "it has not started yet",
                });
            } else if upcoming.len() < 10 && at.0 > 0 {
                upcoming.push(entry);
            }
        }
    }
    let shapes = state.shapes.clone();
    let value = state
        .read(move |views| {
            let spaces = vec![namespace.clone()];
            let mut runs = BTreeMap::new();
            for (run_state, count) in views.run_totals(&spaces)? {
                if !run_state.is_finished() {
                    runs.insert(run_state.as_str().to_owned(), count);
                }
            }
            let slots = usize::try_from(hours).unwrap_or(24);
            let mut history = vec![[0u64; 3]; slots];
            let ended = [RunState::Succeeded, RunState::Failed, RunState::Cancelled];
            for (at, run_state, runs) in views.ended_by_hour(&spaces, since)? {
                let slot = usize::try_from((at.0 - since.0) / HOUR).unwrap_or(0).min(slots - 1);
                if let Some(which) = ended.iter().position(|s| *s == run_state) {
                    history[slot][which] += runs;
                }
            }
            let failed = newest_failed(views, &spaces, since, history.iter().map(|h| h[1]).sum())?;
            for (which, word) in ended.iter().enumerate() {
                let total: u64 = history.iter().map(|h| h[which]).sum();
                runs.insert(word.as_str().to_owned(), total);
            }
            let active = RunFilter {
                namespaces: spaces,
                states: vec![
                    RunState::Running,
                    RunState::Paused,
                    RunState::Cancelling,
                    RunState::Queued,
                ],
                ..RunFilter::default()
            };
            let live = views.list_runs(&active, None, 1000)?.items;
            let mut tasks: BTreeMap<&'static str, u64> = BTreeMap::new();
            let mut waiting = Vec::new();
            for run in &live {
                for (task_state, count) in TaskState::ALL.iter().zip(&run.counts) {
                    if *count > 0 && !task_state.is_finished() {
                        *tasks.entry(task_state.as_str()).or_default() += u64::from(*count);
                    }
                }
                let suspended = run.counts.get(TaskState::Suspended as usize).copied().unwrap_or(0);
                if suspended > 0 && waiting.len() < 10 {
                    let filter = TaskFilter {
                        states: vec![TaskState::Suspended],
                        hide_summaries: true,
                        ..TaskFilter::default()
                    };
                    let paths = Paths::read(views, &shapes, run)?;
                    let left = u32::try_from(10 - waiting.len()).unwrap_or(0);
                    for task in views.list_tasks(run.run, &filter, None, left)?.items {
                        waiting.push(view::brief(&task, run, &paths));
                    }
                }
            }
            let running: Vec<view::Run> = live
                .iter()
                .filter(|r| r.state != RunState::Queued)
                .take(10)
                .map(view::run)
                .collect();
            let query = ObjectQuery {
                kind: kinds::IMPORT_ERROR,
                namespace: Some(&namespace),
                limit: 10,
                ..Default::default()
            };
            let errors = views.list_objects(&query)?.items.into_iter();
            let workflow_errors = errors.map(|o| ImportError {
                message: o.value["message"].as_str().map(str::to_owned),
                line: o.value["line"].as_u64(),
                name: o.key,
            });
            let workflow_errors = workflow_errors.collect();
            let history = history.iter().enumerate().map(|(hour, counts)| Hour {
                at: Timestamp(since.0 + i64::try_from(hour).unwrap_or(0) * HOUR),
                succeeded: counts[0],
                failed: counts[1],
                cancelled: counts[2],
            });
            let history = history.collect();
            Ok(Summary {
                runs,
                tasks,
                running,
                failed,
                waiting,
                history,
                workflow_errors,
                late,
                upcoming,
            })
        })
        .await?;
    Ok(Json(value))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct SearchAsked {
    namespace: Option<String>,
    q: Option<String>,
    limit: Option<usize>,
}

/// Something that was found by its name.
#[derive(Debug, Serialize, JsonSchema)]
struct SearchHit {
    /// `workflow`, `task`, `run`, `asset`, `connection`, `variable`, `limit` or `trigger`.
    kind: &'static str,
    id: String,
    title: String,
    detail: String,
    /// Of a run, a task, or a workflow's last run.
    state: Option<&'static str>,
}

fn hit(
    kind: &'static str,
    id: &str,
    title: &str,
    detail: String,
    state: Option<&'static str>,
) -> SearchHit {
    SearchHit { kind, id: id.to_owned(), title: title.to_owned(), detail, state }
}

async fn search(
    State(state): State<ApiState>,
    Query(asked): Query<SearchAsked>,
) -> Result<Json<List<SearchHit>>, ApiError> {
    let namespace =
        asked.namespace.unwrap_or_else(|| crate::workflows::DEFAULT_NAMESPACE.to_owned());
    let q = asked.q.unwrap_or_default().trim().to_owned();
    let limit = asked.limit.unwrap_or(20).clamp(1, 100);
    let mut found: Vec<SearchHit> = Vec::new();
    if q.is_empty() {
        return Ok(Json(List::whole(found)));
    }
    let needle = q.to_lowercase();
    let triggers = match &state.triggers {
        Some(triggers) => triggers.list(Some(&namespace)).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let query = crate::runs::RunsAsked::searching(&namespace, &q).query()?;
    let (text, shapes, space) = (q.clone(), state.shapes.clone(), namespace.clone());
    let wanted = needle.clone();
    let read = state
        .read(move |views| {
            let mut found = Vec::new();
            let each = u32::try_from(limit).unwrap_or(20);
            let filter = WorkflowFilter {
                namespaces: vec![space.clone()],
                search: Some(text.clone()),
                last_runs: 1,
                ..Default::default()
            };
            for w in views.list_workflows(&filter, None, each)?.items {
                let last = w.last_runs.first().map(|r| r.state.as_str());
                found.push(hit(
                    "workflow",
                    &w.name,
                    &w.name,
                    w.description.unwrap_or_default(),
                    last,
                ));
            }
            if let Ok(task) = text.parse::<kobza_model::TaskId>()
                && let Some((task, run)) = views.get_task(task)?.zip(views.get_run(task.run)?)
                && run.namespace == space
            {
                let paths = Paths::read(views, &shapes, &run)?;
                found.push(hit(
                    "task",
                    &text,
                    &paths.path(&task),
                    run.workflow,
                    Some(task.state.as_str()),
                ));
            }
            for run in query.page(views, None, each)?.items {
                let detail = run.key.clone().unwrap_or_else(|| run.created_at.to_string());
                found.push(hit(
                    "run",
                    &run.run.to_string(),
                    &run.workflow,
                    detail,
                    Some(run.state.as_str()),
                ));
            }
            for asset in
                views.list_assets(std::slice::from_ref(&space), Some(&text), None, each)?.items
            {
                found.push(hit("asset", &asset.name, &asset.name, String::new(), None));
            }
            for (kind, word) in [(kinds::CONNECTION, "connection"), (kinds::VARIABLE, "variable")] {
                let query = ObjectQuery {
                    kind,
                    namespace: Some(&space),
                    limit: 1000,
                    ..Default::default()
                };
                for o in views.list_objects(&query)?.items {
                    if o.key.to_lowercase().contains(&wanted) {
                        found.push(hit(word, &o.key, &o.key, String::new(), None));
                    }
                }
            }
            for l in views.list_limits()? {
                if l.name.to_lowercase().contains(&wanted) {
                    found.push(hit(
                        "limit",
                        &l.name,
                        &l.name,
                        format!("capacity {}", l.capacity),
                        None,
                    ));
                }
            }
            Ok(found)
        })
        .await?;
    found.extend(read);
    for trigger in triggers {
        if trigger.key.object_key().to_lowercase().contains(&needle) {
            found.push(hit(
                "trigger",
                &crate::triggers::id(&trigger.key),
                &trigger.key.name,
                trigger.key.workflow.clone(),
                None,
            ));
        }
    }
    found.truncate(limit);
    Ok(Json(List::whole(found)))
}
