//! The event log: pages by sequence number, and a live stream that resumes.

mod feed;
mod stream;

use axum::extract::{Extension, State};
use kobza_model::{Cause, Event, EventKind, RunId, RunState, TaskId, TaskState, Timestamp};
use kobza_store::{ViewError, Views};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::Role::Viewer;
use crate::auth::{Principal, Role};
use crate::error::ApiError;
use crate::extract::{Json, List, Query};
use crate::state::{ApiState, Names};
use crate::table::{Routes, Space};

pub(crate) use feed::Feed;

pub(crate) fn routes() -> Routes {
    Routes::new().get("/events", (Viewer, Space::Handler), "The event log", list).get(
        "/events/stream",
        (Viewer, Space::Handler),
        "Events as they happen",
        stream::follow,
    )
}

/// The state of a run or a task.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum AnyState {
    Run(RunState),
    Task(TaskState),
}

/// An event as clients see it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Event")]
pub(crate) struct EventView {
    pub(crate) seq: u64,
    pub(crate) at: Timestamp,
    /// `run`, `task`, `expanded`, `cleared`, `marked`, `materialized`, `checked`, `note`, `sent`.
    pub(crate) kind: &'static str,
    run: Option<RunId>,
    task: Option<String>,
    task_name: Option<String>,
    map_index: Option<u32>,
    workflow: Option<String>,
    state: Option<AnyState>,
    cause: Option<Cause>,
    attempt: Option<u32>,
    by: Option<String>,
    /// In one line, for people.
    text: String,
    /// What else its kind has.
    detail: Value,
}

pub(crate) fn view(views: &dyn Views, names: &Names, seq: u64, event: &Event) -> EventView {
    let run = event.run.and_then(|run| names.run(views, run));
    let id = event.run.zip(event.task).map(|(run, task)| TaskId { run, task });
    let task = id.and_then(|id| names.task(views, id));
    let workflow = run.as_ref().map(|r| r.workflow.clone());
    let mut what = task.as_ref().map(|(name, index)| match index {
        Some(index) => format!("{name}[{index}]"),
        None => name.clone(),
    });
    if what.is_none() {
        what = workflow.as_ref().map(|w| format!("run of {w}"));
    }
    let what = what.unwrap_or_else(|| "the server".to_owned());
    let mut seen = EventView {
        seq,
        at: event.at,
        kind: "",
        run: event.run,
        task: id.map(|id| id.to_string()),
        task_name: task.as_ref().map(|t| t.0.clone()),
        map_index: task.as_ref().and_then(|t| t.1),
        workflow,
        state: None,
        cause: None,
        attempt: None,
        by: None,
        text: String::new(),
        detail: Value::Null,
    };
    (seen.kind, seen.text) = match &event.kind {
        EventKind::Run { state, cause } => {
            (seen.state, seen.cause) = (Some(AnyState::Run(*state)), Some(*cause));
            ("run", format!("{what} {}", became(state)))
        }
        EventKind::Task { state, cause, attempt } => {
            (seen.state, seen.cause) = (Some(AnyState::Task(*state)), Some(*cause));
            seen.attempt = Some(*attempt);
            let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            ("task", format!("{what} {}{again}", became(state)))
        }
        EventKind::Expanded { length } => {
            seen.detail = json!({"length": length});
            ("expanded", format!("{what} has {length} instances"))
        }
        EventKind::Cleared { tasks } => {
            seen.detail = json!({"tasks": tasks});
            ("cleared", format!("{tasks} tasks of the {what} were cleared"))
        }
        EventKind::Marked { state, by } => {
            (seen.state, seen.by) = (Some(AnyState::Task(*state)), Some(by.clone()));
            ("marked", format!("{what} was marked {state} by {by}"))
        }
        EventKind::Materialized { asset, partition, metadata } => {
            seen.detail =
                json!({"asset": asset, "partition": partition, "metadata": text(metadata)});
            let partition = partition.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
            ("materialized", format!("{asset}{partition} was materialized by {what}"))
        }
        EventKind::Checked { asset, check, passed, blocking, detail } => {
            seen.detail = json!({
                "asset": asset, "check": check, "passed": passed, "blocking": blocking,
                "detail": text(detail),
            });
            let how = if *passed { "passed" } else { "failed" };
            ("checked", format!("check {check} of {asset} {how}"))
        }
        EventKind::Note { word, detail } => {
            seen.detail = json!({"word": word, "detail": text(detail)});
            ("note", format!("{word}: {what}"))
        }
        EventKind::Sent { name, payload, .. } => {
            seen.detail = json!({"name": name, "payload": text(payload)});
            ("sent", format!("the event {name} was sent"))
        }
    };
    seen
}

/// JSON text as JSON, other text as a string.
fn text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// The namespace that an event belongs to, if it is of one.
fn namespace_of(views: &dyn Views, names: &Names, event: &Event) -> Option<String> {
    if let EventKind::Sent { namespace, .. } = &event.kind {
        return Some(namespace.clone());
    }
    event.run.and_then(|run| names.run(views, run)).map(|r| r.namespace)
}

fn visible(views: &dyn Views, names: &Names, principal: &Principal, event: &Event) -> bool {
    let namespace = namespace_of(views, names, event);
    principal.role(namespace.as_deref()) >= Some(Role::Viewer)
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Asked {
    namespace: Option<String>,
    run: Option<RunId>,
    task: Option<String>,
    workflow: Option<String>,
    kind: Option<String>,
    q: Option<String>,
    before: Option<u64>,
    after: Option<u64>,
    order: Option<String>,
    cursor: Option<u64>,
    limit: Option<usize>,
}

/// Pages of the log that one answer looks at, so that a filter that matches nothing ends.
const MAX_LOOKS: usize = 40;

async fn list(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Query(asked): Query<Asked>,
) -> Result<Json<List<EventView>>, ApiError> {
    let limit = asked.limit.unwrap_or(100).clamp(1, 500);
    let ascending = match asked.order.as_deref() {
        Some("asc") => true,
        Some("desc") => false,
        None => asked.after.is_some() && asked.before.is_none(),
        Some(other) => {
            return Err(ApiError::bad(format!("{other:?} is not an order")).hint("use asc or desc"));
        }
    };
    let task = asked.task.as_deref().map(crate::tasks::task_id).transpose()?;
    let run = asked.run.or(task.map(|t| t.run));
    let newest = state.handle.next_event().borrow().saturating_sub(1);
    let names = state.names.clone();
    let (items, next) = state
        .read(move |views| {
            let kinds: Vec<&str> = asked
                .kind
                .as_deref()
                .unwrap_or_default()
                .split(',')
                .filter(|k| !k.is_empty())
                .collect();
            let needle = asked.q.as_deref().map(str::to_lowercase);
            let fits = |seq: u64, event: &Event| -> Option<EventView> {
                if task.is_some_and(|t| event.task != Some(t.task))
                    || !visible(views, &names, &principal, event)
                {
                    return None;
                }
                if let Some(namespace) = &asked.namespace
                    && let Some(own) = namespace_of(views, &names, event)
                    && own != *namespace
                {
                    return None;
                }
                let value = view(views, &names, seq, event);
                let fits = (kinds.is_empty() || kinds.contains(&value.kind))
                    && (asked.workflow.is_none() || asked.workflow == value.workflow)
                    && needle.as_deref().is_none_or(|n| value.text.to_lowercase().contains(n));
                fits.then_some(value)
            };
            let mut items = Vec::new();
            let mut next = None;
            if ascending {
                let mut after = asked.cursor.or(asked.after).unwrap_or(0);
                for _ in 0..MAX_LOOKS {
                    let page = views.events_since(after, 1000, run)?;
                    for (seq, event) in &page.events {
                        after = *seq;
                        if asked.before.is_some_and(|b| *seq >= b) {
                            break;
                        }
                        items.extend(fits(*seq, event));
                        if items.len() == limit {
                            break;
                        }
                    }
                    if items.len() == limit {
                        next = Some(after.to_string());
                        break;
                    }
                    let done = page.seen >= newest || asked.before.is_some_and(|b| page.seen >= b);
                    after = page.seen.max(after);
                    if done {
                        break;
                    }
                    next = Some(after.to_string());
                }
            } else {
                next = descending(views, &asked, run, newest, limit, &fits, &mut items)?;
            }
            Ok((items, next))
        })
        .await?;
    Ok(Json(List::new(items, next)))
}

/// Reads windows of the log backwards, each wider than the one before.
fn descending(
    views: &dyn Views,
    asked: &Asked,
    run: Option<RunId>,
    newest: u64,
    limit: usize,
    fits: &dyn Fn(u64, &Event) -> Option<EventView>,
    items: &mut Vec<EventView>,
) -> Result<Option<String>, ViewError> {
    let floor = asked.after.unwrap_or(0);
    // Everything before `end` is still to be looked at.
    let mut end = asked.cursor.or(asked.before).unwrap_or(newest + 1).min(newest + 1);
    let mut width = if run.is_some() { 4000 } else { 900 };
    for _ in 0..MAX_LOOKS {
        if end <= floor + 1 {
            return Ok(None);
        }
        let begin = end.saturating_sub(1).saturating_sub(width).max(floor);
        let mut window = Vec::new();
        let mut after = begin;
        let mut oldest = 0;
        while after + 1 < end {
            let page = views.events_since(after, 1000, run)?;
            oldest = page.oldest;
            let seen = page.seen;
            let full = page.events.len() >= 1000;
            window.extend(page.events.into_iter().filter(|(seq, _)| *seq < end));
            if !full || seen <= after {
                break;
            }
            after = seen;
        }
        for (seq, event) in window.iter().rev() {
            if let Some(value) = fits(*seq, event) {
                items.push(value);
                if items.len() == limit {
                    return Ok(Some(seq.to_string()));
                }
            }
        }
        end = begin + 1;
        if begin <= floor || begin < oldest {
            return Ok(None);
        }
        width = (width * 2).min(64_000);
    }
    Ok(Some(end.to_string()))
}

/// A state as the end of a sentence.
fn became(state: &impl std::fmt::Display) -> String {
    let state = state.to_string();
    match state.as_str() {
        "succeeded" | "failed" => state,
        "skipped" | "cancelled" => format!("was {state}"),
        _ => format!("is {state}"),
    }
}
