//! The event log: pages by sequence number, and a live stream that resumes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures_util::stream::{self, StreamExt as _};
use kobza_model::{Event, EventKind, RunId, TaskId};
use kobza_store::{ViewError, Views};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use crate::auth::Role::Viewer;
use crate::auth::{Principal, Role};
use crate::error::ApiError;
use crate::extract::{Json, Query, Stream};
use crate::state::{ApiState, Deleted, Names};
use crate::table::{Routes, Space};

pub(crate) fn routes() -> Routes {
    Routes::new().get("/events", (Viewer, Space::Handler), "The event log", list).get(
        "/events/stream",
        (Viewer, Space::Handler),
        "Events as they happen",
        follow,
    )
}

/// Events of one frame.
const FRAME: usize = 500;
/// How long a frame gathers.
const GATHER: Duration = Duration::from_millis(200);
/// A follower that is further behind is told what it missed instead.
const MOST_BEHIND: u64 = 20_000;

/// An event as clients see it.
pub(crate) fn view(views: &dyn Views, names: &Names, seq: u64, event: &Event) -> Value {
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
    let (mut state, mut cause, mut attempt, mut by) =
        (Value::Null, Value::Null, Value::Null, Value::Null);
    let mut detail = Value::Null;
    let (kind, line) = match &event.kind {
        EventKind::Run { state: s, cause: c } => {
            (state, cause) = (json!(s), json!(c));
            ("run", format!("{what} is {s}"))
        }
        EventKind::Task { state: s, cause: c, attempt: a } => {
            (state, cause, attempt) = (json!(s), json!(c), json!(a));
            (
                "task",
                if *a > 1 {
                    format!("{what} is {s}, attempt {a}")
                } else {
                    format!("{what} is {s}")
                },
            )
        }
        EventKind::Expanded { length } => {
            detail = json!({"length": length});
            ("expanded", format!("{what} has {length} instances"))
        }
        EventKind::Cleared { tasks } => {
            detail = json!({"tasks": tasks});
            ("cleared", format!("{tasks} tasks of the {what} were cleared"))
        }
        EventKind::Marked { state: s, by: b } => {
            (state, by) = (json!(s), json!(b));
            ("marked", format!("{what} was marked {s} by {b}"))
        }
        EventKind::Materialized { asset, partition, metadata } => {
            detail = json!({"asset": asset, "partition": partition, "metadata": text(metadata)});
            let partition = partition.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
            ("materialized", format!("{asset}{partition} was materialized by {what}"))
        }
        EventKind::Checked { asset, check, passed, blocking, detail: d } => {
            detail = json!({"asset": asset, "check": check, "passed": passed, "blocking": blocking, "detail": text(d)});
            (
                "checked",
                format!("check {check} of {asset} {}", if *passed { "passed" } else { "failed" }),
            )
        }
        EventKind::Note { word, detail: d } => {
            detail = json!({"word": word, "detail": text(d)});
            ("note", format!("{word}: {what}"))
        }
    };
    json!({
        "seq": seq, "at": event.at, "kind": kind, "run": event.run,
        "task": id.map(|id| id.to_string()),
        "task_name": task.as_ref().map(|t| t.0.as_str()),
        "map_index": task.as_ref().and_then(|t| t.1),
        "workflow": workflow, "state": state, "cause": cause, "attempt": attempt, "by": by,
        "text": line, "detail": detail,
    })
}

/// JSON text as JSON, other text as a string.
fn text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

fn visible(views: &dyn Views, names: &Names, principal: &Principal, event: &Event) -> bool {
    let namespace = event.run.and_then(|run| names.run(views, run)).map(|r| r.namespace);
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
) -> Result<Json<Value>, ApiError> {
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
    let value = state
        .read(move |views| {
            let kinds: Vec<&str> = asked
                .kind
                .as_deref()
                .unwrap_or_default()
                .split(',')
                .filter(|k| !k.is_empty())
                .collect();
            let needle = asked.q.as_deref().map(str::to_lowercase);
            let fits = |seq: u64, event: &Event| -> Option<Value> {
                if task.is_some_and(|t| event.task != Some(t.task))
                    || !visible(views, &names, &principal, event)
                {
                    return None;
                }
                if let Some(namespace) = &asked.namespace
                    && let Some(own) = event.run.and_then(|r| names.run(views, r))
                    && own.namespace != *namespace
                {
                    return None;
                }
                let value = view(views, &names, seq, event);
                let kind = value["kind"].as_str().unwrap_or_default();
                (kinds.is_empty() || kinds.contains(&kind)).then_some(())?;
                asked.workflow.as_deref().is_none_or(|w| value["workflow"] == w).then_some(())?;
                needle
                    .as_deref()
                    .is_none_or(|n| {
                        value["text"].as_str().unwrap_or_default().to_lowercase().contains(n)
                    })
                    .then_some(())?;
                Some(value)
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
            Ok(json!({"items": items, "next": next}))
        })
        .await?;
    Ok(Json(value))
}

/// Reads windows of the log backwards, each wider than the one before.
fn descending(
    views: &dyn Views,
    asked: &Asked,
    run: Option<RunId>,
    newest: u64,
    limit: usize,
    fits: &dyn Fn(u64, &Event) -> Option<Value>,
    items: &mut Vec<Value>,
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

#[derive(Debug, Deserialize, JsonSchema)]
struct FollowAsked {
    after: Option<u64>,
    run: Option<RunId>,
    /// Kinds of events, with commas between. Without it a stream of all runs leaves out what
    /// happens to single tasks.
    kind: Option<String>,
}

struct Follower {
    state: ApiState,
    principal: Principal,
    next_event: watch::Receiver<u64>,
    deletions: broadcast::Receiver<Deleted>,
    /// The last event that was sent or passed over.
    seen: u64,
    run: Option<RunId>,
    kinds: Option<Arc<[String]>>,
    greeted: bool,
}

/// `Last-Event-ID` (or `after`) resumes; without either the stream begins now.
async fn follow(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Query(asked): Query<FollowAsked>,
    headers: HeaderMap,
) -> Stream<Vec<Value>> {
    let last =
        headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let next_event = state.handle.next_event();
    let now = next_event.borrow().saturating_sub(1);
    let seen = last.or(asked.after).unwrap_or(now).min(now);
    let deletions = state.deletions.follow();
    let kinds = asked.kind.map(|kinds| kinds.split(',').map(str::to_owned).collect());
    let follower = Follower {
        state,
        principal,
        next_event,
        deletions,
        seen,
        run: asked.run,
        kinds,
        greeted: false,
    };
    let messages = stream::unfold(follower, |mut follower| async move {
        let message = follower.next().await?;
        Some((Ok::<_, Infallible>(message), follower))
    });
    let keep = KeepAlive::new().interval(Duration::from_secs(15)).text("ping");
    Stream::new(Sse::new(messages.boxed()).keep_alive(keep))
}

impl Follower {
    async fn next(&mut self) -> Option<Message> {
        if !self.greeted {
            self.greeted = true;
            return Message::default()
                .event("hello")
                .json_data(json!({"seq": self.seen, "version": env!("CARGO_PKG_VERSION")}))
                .ok();
        }
        loop {
            let newest = self.next_event.borrow_and_update().saturating_sub(1);
            if newest <= self.seen {
                let gone = tokio::select! {
                    changed = self.next_event.changed() => {
                        changed.ok()?;
                        None
                    }
                    gone = self.deletions.recv() => Some(gone),
                };
                match gone {
                    // What comes within a moment goes into one frame.
                    None => tokio::time::sleep(GATHER).await,
                    Some(Ok(gone)) => {
                        if self.principal.role(Some(&gone.namespace)) >= Some(Role::Viewer) {
                            return Message::default()
                                .event("deleted")
                                .json_data(json!({"runs": [gone.run]}))
                                .ok();
                        }
                    }
                    Some(Err(broadcast::error::RecvError::Lagged(_))) => {
                        return skipped(self.seen, self.seen, &[]);
                    }
                    Some(Err(broadcast::error::RecvError::Closed)) => return None,
                }
                continue;
            }
            let (seen, run, kinds) = (self.seen, self.run, self.kinds.clone());
            let (names, principal) = (self.state.names.clone(), self.principal.clone());
            if run.is_none() && newest - seen > MOST_BEHIND {
                self.seen = newest;
                return skipped(seen + 1, newest, &[]);
            }
            let (items, upto, runs, left) = self
                .state
                .read(move |views| {
                    let page = views.events_since(seen, 1000, run)?;
                    let mut runs = Vec::new();
                    let mut items = Vec::new();
                    for (seq, event) in &page.events {
                        let detailed = matches!(
                            event.kind,
                            EventKind::Task { .. } | EventKind::Expanded { .. }
                        );
                        if let Some(run) = event.run
                            && !runs.contains(&run)
                        {
                            runs.push(run);
                        }
                        let left_out = run.is_none() && kinds.is_none() && detailed;
                        if left_out || !visible(views, &names, &principal, event) {
                            continue;
                        }
                        let item = view(views, &names, *seq, event);
                        let wanted = |kinds: &Arc<[String]>| {
                            kinds.iter().any(|kind| item["kind"] == kind.as_str())
                        };
                        if kinds.as_ref().is_none_or(wanted) {
                            items.push(item);
                        }
                    }
                    Ok((items, page.seen, runs, page.oldest))
                })
                .await
                .ok()?;
            // What was deleted meanwhile cannot be told any more.
            if left > seen + 1 {
                self.seen = upto.max(seen);
                return skipped(seen + 1, left - 1, &runs);
            }
            if upto <= seen {
                tokio::time::sleep(GATHER).await;
                continue;
            }
            self.seen = upto;
            if items.len() > FRAME {
                return skipped(seen + 1, upto, &runs);
            }
            if !items.is_empty() {
                return Message::default()
                    .event("events")
                    .id(upto.to_string())
                    .json_data(items)
                    .ok();
            }
        }
    }
}

/// More happened than is worth telling one by one.
fn skipped(from: u64, to: u64, runs: &[RunId]) -> Option<Message> {
    let runs: Vec<_> = runs.iter().take(100).collect();
    Message::default()
        .event("skipped")
        .id(to.to_string())
        .json_data(json!({"from": from, "to": to, "runs": runs}))
        .ok()
}
