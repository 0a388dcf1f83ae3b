//! Why a task waits, or ended as it did.

use axum::extract::State;
use kobza_model::{Cause, RunRow, RunState, TaskId, TaskRow, TaskState, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, Path};
use crate::graph::fold;
use crate::runs::load;
use crate::shape::Paths;
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::tasks::{load_task, task_id};

pub(crate) fn routes() -> Routes {
    Routes::new().get("/tasks/{id}/why", (Viewer, Space::Run), "Why it waits or ended so", why)
}

/// Why a task waits, or ended as it did.
#[derive(Debug, Serialize, JsonSchema)]
struct Why {
    state: TaskState,
    cause: Cause,
    /// In one sentence.
    summary: String,
    reasons: Vec<Reason>,
}

/// What a reason speaks of.
#[derive(Debug, Serialize, JsonSchema)]
struct Link {
    /// `limit`, `run`, `task`, ...
    kind: &'static str,
    id: String,
}

/// One thing that it waits for, or that led to its end.
#[derive(Debug, Serialize, JsonSchema)]
struct Reason {
    kind: &'static str,
    met: bool,
    text: String,
    hint: Option<&'static str>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    link: Option<Link>,
}

impl Reason {
    fn new(kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            kind,
            met: false,
            text: text.into(),
            hint: None,
            since: None,
            until: None,
            link: None,
        }
    }

    fn about(&mut self, kind: &'static str, id: String) {
        self.link = Some(Link { kind, id });
    }
}

/// Tasks by their names, where the engine told their ids.
async fn with_names(state: &ApiState, texts: Vec<String>) -> Result<Vec<String>, ApiError> {
    let names = state.names.clone();
    state
        .read(move |views| {
            let word = |word: &str| {
                let id = word.trim_end_matches(',');
                let found = id.parse().ok().and_then(|task| names.task(views, task));
                let (name, index) = found?;
                let name = index.map_or(name.clone(), |i| format!("{name}[{i}]"));
                Some(name + &word[id.len()..])
            };
            let told = |text: &String| {
                let mut words: Vec<String> = Vec::new();
                for w in text.split(' ') {
                    // Where the name stands before it, the id says nothing more.
                    let id = w.trim_end_matches(',');
                    let beside = id.strip_prefix('(').and_then(|id| id.strip_suffix(')'));
                    match (beside.map(str::parse::<kobza_model::TaskId>), words.last_mut()) {
                        (Some(Ok(_)), Some(last)) => last.push_str(&w[id.len()..]),
                        _ => words.push(word(w).unwrap_or_else(|| w.to_owned())),
                    }
                }
                words.join(" ")
            };
            Ok(texts.iter().map(told).collect())
        })
        .await
}

async fn why(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<Why>, ApiError> {
    let id = task_id(&id)?;
    let task = load_task(&state, id).await?;
    let run = load(&state, id.run).await?;
    let engine = state.handle.query(move |engine| engine.why(id).unwrap_or_default()).await?;
    let engine = with_names(&state, engine).await?;
    let waits_for: Option<String> = state
        .handle
        .query(move |engine| {
            engine.limits().into_iter().find(|l| l.waiters.contains(&id)).map(|l| l.name)
        })
        .await?;
    let mut reasons = Vec::new();
    match run.state {
        RunState::Paused if !task.state.is_finished() => {
            let mut reason = Reason::new("paused", "its run is paused");
            reason.hint = Some("resume the run");
            reason.about("run", run.run.to_string());
            reasons.push(reason);
        }
        RunState::Queued => {
            let text = engine.first().map_or("its run waits for others", String::as_str);
            let mut reason = Reason::new("run_queue", text);
            reason.since = Some(run.created_at);
            reason.about("workflow", run.workflow.clone());
            reasons.push(reason);
        }
        _ => {}
    }
    let offset = state.offset();
    let due = task.due.map(|d| Timestamp(d.0.saturating_add(offset)));
    match task.state {
        TaskState::Pending => reasons.extend(upstream(&state, &run, &task).await?),
        TaskState::Ready => {
            let name = waits_for.unwrap_or_default();
            let kind = if engine.iter().any(|t| t.contains("parallelism") || t.contains("slots"))
                && !name.is_empty()
            {
                "parallelism"
            } else {
                "limit"
            };
            for text in &engine {
                let named = text.strip_prefix("limit ");
                let mut reason =
                    Reason::new(if named.is_some() { kind } else { "worker" }, text.clone());
                reason.since = task.ready_at;
                if named.is_some() && !name.is_empty() {
                    reason.about("limit", name.clone());
                    reason.hint = Some("wait for a holder to end, or raise the limit");
                }
                reasons.push(reason);
            }
        }
        TaskState::Queued => {
            let mut reason =
                Reason::new("worker", "it was handed to an executor, which has not started it yet");
            reason.since = task.ready_at;
            reasons.push(reason);
        }
        TaskState::RetryWait => {
            let mut reason = Reason::new(
                "retry",
                format!("attempt {} failed; attempt {} follows", task.attempt, task.attempt + 1),
            );
            (reason.since, reason.until) = (task.ended_at, due);
            reasons.push(reason);
        }
        TaskState::Deferred | TaskState::Rescheduled => {
            let text = engine.first().map_or("it waits without holding a worker", String::as_str);
            let mut reason = Reason::new("defer", text);
            reason.until = due;
            reasons.push(reason);
        }
        TaskState::Suspended => {
            let mut reason =
                Reason::new("approval", "it waits for a person or a call to resume it");
            reason.hint = Some("approve or reject it");
            (reason.since, reason.until) = (task.started_at.or(task.ready_at), due);
            reasons.push(reason);
        }
        TaskState::Running | TaskState::Cancelling => {
            reasons.extend(engine.iter().map(|text| Reason::new("inside", text.clone())));
        }
        _ => reasons.extend(ended(&state, &run, &task).await?),
    }
    let open = reasons.iter().find(|r| !r.met);
    let summary = match (open, &task.message) {
        (_, Some(message)) if task.state.is_finished() => {
            format!("{} is {}: {message}", task.name, task.state)
        }
        (Some(reason), _) => format!("{} is {}: {}", task.name, task.state, reason.text),
        (None, _) => match engine.first() {
            Some(text) => format!("{} is {}: {text}", task.name, task.state),
            None => format!("{} is {}", task.name, task.state),
        },
    };
    Ok(Json(Why { state: task.state, cause: task.cause, summary, reasons }))
}

/// One reason for each place that it depends on.
async fn upstream(state: &ApiState, run: &RunRow, task: &TaskRow) -> Result<Vec<Reason>, ApiError> {
    let (shapes, run, task) = (state.shapes.clone(), run.clone(), task.clone());
    state
        .read(move |views| {
            let paths = Paths::read(views, &shapes, &run)?;
            let Some(at) = paths.at(task.scope, task.node, &task.name) else {
                return Ok(Vec::new());
            };
            let counts = views.task_counts(run.run)?;
            let same: Vec<_> = counts
                .iter()
                .filter(|c| c.scope == task.scope)
                .map(|c| (c.scope, c.node, c.name.as_str(), c.state, c.tasks))
                .collect();
            let folded = fold(&paths, &same);
            let mut reasons = Vec::new();
            for up in paths.shape.upstream(at) {
                let place = &paths.shape.places[up];
                let counts = &folded.own[up];
                let worst = counts.worst().unwrap_or(TaskState::Pending);
                let done: u64 =
                    TaskState::ALL.iter().filter(|s| s.is_finished()).map(|s| counts.of(*s)).sum();
                let mut reason = Reason::new(
                    "upstream",
                    match counts.total() {
                        0 | 1 => format!("{} is {worst}", place.path),
                        all => format!("{}: {done} of {all} have ended ({worst})", place.path),
                    },
                );
                reason.met = counts.total() > 0 && done == counts.total();
                let filter = kobza_store::TaskFilter {
                    node: Some(place.node),
                    scope: Some(task.scope),
                    ..Default::default()
                };
                reason.link = views.list_tasks(run.run, &filter, None, 1)?.items.first().map(|t| {
                    Link { kind: "task", id: TaskId { run: t.run, task: t.task }.to_string() }
                });
                reasons.push(reason);
            }
            if reasons.iter().all(|r| r.met) {
                let guarded = paths.shape.node(&paths.shape.places[at]).is_some_and(|n| n.guard);
                if guarded {
                    reasons.push(Reason::new("condition", "its condition is being computed"));
                }
            }
            if let Some(parent) = paths.shape.places[at].parent
                && reasons.is_empty()
            {
                reasons.push(Reason::new(
                    "upstream",
                    format!("its group {} has not begun", paths.shape.places[parent].path),
                ));
            }
            Ok(reasons)
        })
        .await
}

/// Why it ended so.
async fn ended(state: &ApiState, run: &RunRow, task: &TaskRow) -> Result<Vec<Reason>, ApiError> {
    let at = task.ended_at;
    let reason = |kind, text: String| {
        let mut reason = Reason::new(kind, text);
        (reason.met, reason.since) = (true, at);
        reason
    };
    if task.state == TaskState::UpstreamFailed || task.cause == Cause::Gate {
        let mut reasons = upstream(state, run, task).await?;
        reasons.iter_mut().for_each(|r| {
            r.met = !r.text.contains("failed")
                && !r.text.contains("cancelled")
                && !r.text.contains("skipped")
        });
        return Ok(reasons);
    }
    let text = match task.cause {
        Cause::None => return Ok(Vec::new()),
        Cause::Code => match task.exit_code {
            Some(code) => format!("its code ended with exit code {code}"),
            None => "its own code decided so".to_owned(),
        },
        Cause::Infrastructure => "the executor failed, not its code".to_owned(),
        Cause::Timeout => "it ran longer than it may".to_owned(),
        Cause::Lost => "its body disappeared without a report".to_owned(),
        Cause::Guard => "its condition did not hold, or could not be computed".to_owned(),
        Cause::Branch => "a deciding task chose another branch".to_owned(),
        Cause::Gate => String::new(),
        Cause::Hand => "a person or a call set it so".to_owned(),
        Cause::Cache => "its result was taken from the cache".to_owned(),
        Cause::Empty => "its list of items was empty".to_owned(),
        Cause::FailFast => "another task of its group failed, and the group ends early".to_owned(),
        Cause::Limit => "it used more than it may (memory, log or output)".to_owned(),
        Cause::Deadlock => "nothing in its group could move any more".to_owned(),
        Cause::Template => "its inputs or its definition could not be rendered".to_owned(),
        Cause::Check => "a check of its data did not hold".to_owned(),
        Cause::Observed => "an outside reporter stated it".to_owned(),
        Cause::RunCancelled => "its run was cancelled".to_owned(),
    };
    let kind = match task.cause {
        Cause::Guard | Cause::Branch | Cause::Empty | Cause::Check => "condition",
        Cause::Lost | Cause::Infrastructure => "worker",
        _ => "ended",
    };
    Ok(vec![reason(kind, text)])
}
