//! The event log: pages by sequence number, and a live stream that resumes.

use std::convert::Infallible;

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use kobza_model::{Event, EventKind, RunId, TaskId};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::error::ApiError;
use crate::state::ApiState;

pub(crate) fn routes() -> Router<ApiState> {
    Router::new().route("/events", get(list)).route("/events/stream", get(follow))
}

#[derive(Debug, Deserialize)]
struct Asked {
    after: Option<u64>,
    limit: Option<u32>,
    run: Option<RunId>,
}

/// Events read from the store at once by a follower that has to catch up.
const PAGE: u32 = 1000;

pub(crate) fn view(seq: u64, event: &Event) -> Value {
    let mut value = json!({
        "seq": seq,
        "at": event.at,
        "run": event.run,
        "task": event.run.zip(event.task).map(|(run, task)| TaskId { run, task }.to_string()),
    });
    let (kind, detail) = match &event.kind {
        EventKind::Run { state, cause } => ("run", json!({"state": state, "cause": cause})),
        EventKind::Task { state, cause, attempt } => {
            ("task", json!({"state": state, "cause": cause, "attempt": attempt}))
        }
        EventKind::Expanded { length } => ("expanded", json!({"length": length})),
        EventKind::Cleared { tasks } => ("cleared", json!({"tasks": tasks})),
        EventKind::Marked { state, by } => ("marked", json!({"state": state, "by": by})),
        EventKind::Materialized { asset, partition, metadata } => (
            "materialized",
            json!({"asset": asset, "partition": partition, "metadata": text(metadata)}),
        ),
        EventKind::Checked { asset, check, passed, blocking, detail } => (
            "checked",
            json!({"asset": asset, "check": check, "passed": passed, "blocking": blocking, "detail": text(detail)}),
        ),
        EventKind::Note { word, detail } => ("note", json!({"word": word, "detail": text(detail)})),
    };
    value["kind"] = kind.into();
    value["detail"] = detail;
    value
}

/// JSON text as JSON, other text as a string.
fn text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

async fn list(
    State(state): State<ApiState>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, ApiError> {
    let limit = asked.limit.unwrap_or(100).min(PAGE);
    let page =
        state.read(move |v| v.events_since(asked.after.unwrap_or(0), limit, asked.run)).await?;
    let items: Vec<Value> = page.events.iter().map(|(seq, event)| view(*seq, event)).collect();
    Ok(Json(json!({"items": items, "seen": page.seen, "oldest": page.oldest})))
}

struct Follower {
    state: ApiState,
    live: tokio::sync::broadcast::Receiver<kobza_runtime::Committed>,
    /// The last event that was sent or passed over.
    seen: u64,
    run: Option<RunId>,
    /// Read from the store before following on.
    behind: bool,
}

/// `Last-Event-ID` (or `after`) resumes; without either the stream begins now.
async fn follow(
    State(state): State<ApiState>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Message, Infallible>>> {
    let live = state.handle.follow();
    let last =
        headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let now = state.handle.next_event().borrow().saturating_sub(1);
    let from: Option<u64> = last.or(asked.after);
    let follower =
        Follower { state, live, seen: from.unwrap_or(now), run: asked.run, behind: from.is_some() };
    let messages = stream::unfold(follower, |mut follower| async move {
        let message = follower.next().await?;
        Some((Ok(message), follower))
    });
    Sse::new(messages).keep_alive(KeepAlive::default())
}

impl Follower {
    /// One message holds all events of a commit (or of a page while catching up).
    async fn next(&mut self) -> Option<Message> {
        loop {
            if self.behind {
                let (seen, run) = (self.seen, self.run);
                let page = self.state.read(move |v| v.events_since(seen, PAGE, run)).await.ok()?;
                self.behind = page.events.len() as u32 == PAGE;
                self.seen = page.seen.max(self.seen);
                if !page.events.is_empty() {
                    return self.message(
                        page.events.iter().map(|(seq, event)| view(*seq, event)).collect(),
                    );
                }
                continue;
            }
            match self.live.recv().await {
                Ok(committed) => {
                    let last = committed.first + committed.events.len() as u64 - 1;
                    if last <= self.seen {
                        continue;
                    }
                    if committed.first > self.seen + 1 {
                        self.behind = true;
                        continue;
                    }
                    let items: Vec<Value> = committed
                        .events
                        .iter()
                        .enumerate()
                        .map(|(place, event)| (committed.first + place as u64, event))
                        .filter(|(seq, event)| {
                            *seq > self.seen && self.run.is_none_or(|run| event.run == Some(run))
                        })
                        .map(|(seq, event)| view(seq, event))
                        .collect();
                    self.seen = last;
                    if !items.is_empty() {
                        return self.message(items);
                    }
                }
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn message(&self, items: Vec<Value>) -> Option<Message> {
        Message::default()
            .event("events")
            .id(self.seen.to_string())
            .json_data(json!({"items": items, "seen": self.seen}))
            .ok()
    }
}
