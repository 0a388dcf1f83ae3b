//! Events as they happen.

use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use futures_util::stream;
use kobza_model::RunId;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, broadcast, watch};

use super::EventView;
use super::feed::{Item, Place, Wanted, skipped};
use crate::auth::{Principal, Role};
use crate::extract::{Query, Stream};
use crate::state::{ApiState, Deleted};

/// A follower that is further behind is told what it missed instead.
const MOST_BEHIND: u64 = 20_000;
/// Something is said at least so often: who is in between must not believe that it is over.
const PING: Duration = Duration::from_secs(15);
/// Followers that read the store at the same time, being further behind than what is kept.
static READING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(4));

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct Asked {
    after: Option<u64>,
    run: Option<RunId>,
    /// Kinds of events, with commas between. Without it a stream of all runs leaves out what
    /// happens to single tasks.
    kind: Option<String>,
}

struct Follower {
    state: ApiState,
    wanted: Wanted,
    place: watch::Receiver<Place>,
    deletions: broadcast::Receiver<Deleted>,
    /// The last event that was sent or passed over.
    seen: u64,
    greeted: bool,
}

/// `Last-Event-ID` (or `after`) resumes; without either the stream begins now.
pub(super) async fn follow(
    State(state): State<ApiState>,
    Extension(principal): Extension<Principal>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Stream<Vec<EventView>> {
    let last =
        headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let place = state.feed.follow();
    let now = state.handle.next_event().borrow().saturating_sub(1);
    let seen = last.or(asked.after).unwrap_or(now).min(now);
    let deletions = state.deletions.follow();
    let kinds = asked.kind.map(|kinds| kinds.split(',').map(str::to_owned).collect());
    let wanted = Wanted { principal, run: asked.run, kinds };
    let follower = Follower { state, wanted, place, deletions, seen, greeted: false };
    let messages = stream::unfold(follower, |mut follower| async move {
        let message = match tokio::time::timeout(PING, follower.next()).await {
            Ok(message) => message?,
            Err(_) => Bytes::from_static(b": ping\n\n"),
        };
        Some((Ok::<_, Infallible>(message), follower))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    Stream::new((kind, Body::from_stream(messages)))
}

fn message(event: &str, data: &serde_json::Value) -> Bytes {
    format!("event: {event}\ndata: {data}\n\n").into()
}

impl Follower {
    /// The next message; `None` once the server ends. May be given up and asked again.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.greeted {
            self.greeted = true;
            let hello = json!({"seq": self.seen, "version": env!("CARGO_PKG_VERSION")});
            return Some(message("hello", &hello));
        }
        loop {
            let place = *self.place.borrow_and_update();
            let newest = match place {
                Place::At(newest) => newest,
                Place::Over => return None,
            };
            if newest <= self.seen {
                let gone = tokio::select! {
                    changed = self.place.changed() => {
                        changed.ok()?;
                        continue;
                    }
                    gone = self.deletions.recv() => gone,
                };
                match gone {
                    Ok(gone) => {
                        let role = self.wanted.principal.role(Some(&gone.namespace));
                        if role >= Some(Role::Viewer) {
                            return Some(message("deleted", &json!({"runs": [gone.run]})));
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        return Some(skipped(self.seen, self.seen, &[]));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
                continue;
            }
            let told = match self.state.feed.after(self.seen) {
                Some(told) => {
                    let message = told.message(self.seen + 1, &self.wanted);
                    self.seen = told.last;
                    message
                }
                None => self.read(newest).await?,
            };
            if told.is_some() {
                return told;
            }
        }
    }

    /// Reads the store: it is further behind than what is kept.
    async fn read(&mut self, newest: u64) -> Option<Option<Bytes>> {
        let (seen, run) = (self.seen, self.wanted.run);
        if run.is_none() && newest - seen > MOST_BEHIND {
            self.seen = newest;
            return Some(Some(skipped(seen + 1, newest, &[])));
        }
        let names = self.state.names.clone();
        let turn = READING.acquire().await.ok()?;
        let (page, items) = self
            .state
            .read(move |views| {
                let page = views.events_since(seen, 1000, run)?;
                let events = page.events.iter();
                let items: Vec<Item> =
                    events.map(|(seq, event)| Item::new(views, &names, *seq, event)).collect();
                Ok((page, items))
            })
            .await
            .ok()?;
        drop(turn);
        let upto = page.seen.max(seen);
        self.seen = upto;
        // What was deleted meanwhile cannot be told any more.
        if page.oldest > seen + 1 {
            return Some(Some(skipped(seen + 1, page.oldest - 1, &[])));
        }
        Some(self.wanted.message(seen + 1, upto, &items))
    }
}
