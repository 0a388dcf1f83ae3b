//! What is told to those who follow all events: read, put into words and encoded once, however
//! many they are.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use kobza_model::{EventKind, RunId};
use kobza_runtime::Handle;
use kobza_store::Views;
use serde_json::json;
use tokio::sync::watch;

use super::{EventView, namespace_of, view};
use crate::auth::{Principal, Role};
use crate::state::Names;

/// Events of one message.
const FRAME: usize = 500;
/// How long a message gathers.
const GATHER: Duration = Duration::from_millis(200);
/// Events read in one go.
const PAGE: u32 = 1000;
/// Events that are kept for followers who are a little behind; others read the store.
const KEPT: usize = 5000;
/// Runs named in a message about what is not told one by one.
const NAMED: usize = 100;

/// One event, ready to be sent.
pub(super) struct Item {
    seq: u64,
    namespace: Option<String>,
    run: Option<RunId>,
    kind: &'static str,
    /// What happens to a single task: told only to those who ask for it.
    detailed: bool,
    json: Arc<str>,
}

impl Item {
    pub(super) fn new(
        views: &dyn Views,
        names: &Names,
        seq: u64,
        event: &kobza_model::Event,
    ) -> Self {
        let seen: EventView = view(views, names, seq, event);
        Self {
            seq,
            namespace: namespace_of(views, names, event),
            run: event.run,
            kind: seen.kind,
            detailed: matches!(event.kind, EventKind::Task { .. } | EventKind::Expanded { .. }),
            // Texts and numbers alone: it can always be written.
            json: serde_json::to_string(&seen).unwrap_or_else(|_| "null".to_owned()).into(),
        }
    }
}

/// Which events a follower wants.
pub(super) struct Wanted {
    pub(super) principal: Principal,
    pub(super) run: Option<RunId>,
    pub(super) kinds: Option<Vec<String>>,
}

impl Wanted {
    /// Whether it is what most want: the same message serves them all.
    fn is_usual(&self) -> bool {
        self.run.is_none()
            && self.kinds.is_none()
            && self.principal.role(None) >= Some(Role::Viewer)
    }

    fn fits(&self, item: &Item) -> bool {
        let told = match (&self.kinds, self.run) {
            (Some(kinds), _) => kinds.iter().any(|kind| kind == item.kind),
            (None, Some(_)) => true,
            (None, None) => !item.detailed,
        };
        told && self.run.is_none_or(|run| item.run == Some(run))
            && self.principal.role(item.namespace.as_deref()) >= Some(Role::Viewer)
    }

    /// Events from a number on as one message; `None` when nothing of them is wanted.
    pub(super) fn message(&self, first: u64, last: u64, items: &[Item]) -> Option<Bytes> {
        let new = items.iter().filter(|item| item.seq >= first);
        let wanted: Vec<&Item> = new.filter(|item| self.fits(item)).collect();
        if wanted.len() > FRAME {
            let mut runs: Vec<RunId> = Vec::new();
            for run in items.iter().filter_map(|item| item.run) {
                if runs.len() < NAMED && !runs.contains(&run) {
                    runs.push(run);
                }
            }
            return Some(skipped(first, last, &runs));
        }
        if wanted.is_empty() {
            return None;
        }
        let length: usize = wanted.iter().map(|item| item.json.len() + 1).sum();
        let mut text = String::with_capacity(length + 64);
        text += &format!("event: events\nid: {last}\ndata: [");
        for (place, item) in wanted.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            text += &item.json;
        }
        text += "]\n\n";
        Some(text.into())
    }
}

/// More happened than is worth telling one by one.
pub(super) fn skipped(from: u64, to: u64, runs: &[RunId]) -> Bytes {
    let data = json!({"from": from, "to": to, "runs": runs});
    format!("event: skipped\nid: {to}\ndata: {data}\n\n").into()
}

/// Events that came together.
pub(super) struct Told {
    pub(super) first: u64,
    pub(super) last: u64,
    items: Vec<Item>,
    usual: Option<Bytes>,
}

impl Told {
    /// For who has seen what came before `first`.
    pub(super) fn message(&self, first: u64, wanted: &Wanted) -> Option<Bytes> {
        if wanted.is_usual() && first <= self.first {
            return self.usual.clone();
        }
        wanted.message(first, self.last, &self.items)
    }
}

/// How far the feed has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    At(u64),
    /// The loop has ended.
    Over,
}

/// The events of late. It reads as long as somebody follows.
#[derive(Clone)]
pub(crate) struct Feed(Arc<Inner>);

struct Inner {
    handle: Handle,
    views: Arc<dyn Views>,
    names: Names,
    place: watch::Sender<Place>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    told: VecDeque<Arc<Told>>,
    events: usize,
    reads: bool,
}

impl Feed {
    pub(crate) fn new(handle: Handle, views: Arc<dyn Views>, names: Names) -> Self {
        let place = watch::Sender::new(Place::At(0));
        Self(Arc::new(Inner { handle, views, names, place, kept: Mutex::default() }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its place from now on, and as it changes.
    pub(super) fn follow(&self) -> watch::Receiver<Place> {
        let mut kept = self.kept();
        if !kept.reads {
            kept.reads = true;
            kept.told.clear();
            kept.events = 0;
            let seen = self.0.handle.next_event().borrow().saturating_sub(1);
            self.0.place.send_replace(Place::At(seen));
            let feed = self.clone();
            tokio::spawn(async move { feed.read(seen).await });
        }
        self.0.place.subscribe()
    }

    /// What came first after an event, if it is still kept.
    pub(super) fn after(&self, seen: u64) -> Option<Arc<Told>> {
        let kept = self.kept();
        let at = kept.told.partition_point(|told| told.last <= seen);
        kept.told.get(at).filter(|told| told.first <= seen + 1).cloned()
    }

    async fn read(&self, mut seen: u64) {
        let mut next_event = self.0.handle.next_event();
        loop {
            if next_event.wait_for(|next| *next > seen + 1).await.is_err() {
                let mut kept = self.kept();
                kept.reads = false;
                self.0.place.send_replace(Place::Over);
                return;
            }
            tokio::time::sleep(GATHER).await;
            {
                let mut kept = self.kept();
                if self.0.place.receiver_count() == 0 {
                    *kept = Kept::default();
                    return;
                }
            }
            let inner = self.0.clone();
            let read = tokio::task::spawn_blocking(move || inner.told(seen)).await;
            match read {
                Ok(Ok(told)) => seen = self.put(seen, told),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "events cannot be read for those who follow");
                }
                Err(_) => {}
            }
        }
    }

    fn put(&self, seen: u64, told: Vec<Told>) -> u64 {
        let Some(last) = told.last().map(|told| told.last) else { return seen };
        let mut kept = self.kept();
        for told in told {
            kept.events += told.items.len();
            kept.told.push_back(Arc::new(told));
        }
        while kept.events > KEPT && kept.told.len() > 1 {
            let dropped = kept.told.pop_front().map_or(0, |told| told.items.len());
            kept.events -= dropped;
        }
        self.0.place.send_replace(Place::At(last));
        last
    }
}

impl Inner {
    /// All that came after an event, in messages.
    fn told(&self, mut seen: u64) -> Result<Vec<Told>, kobza_store::ViewError> {
        let everything = Wanted { principal: Principal::everywhere(), run: None, kinds: None };
        let mut all = Vec::new();
        loop {
            let page = self.views.events_since(seen, PAGE, None)?;
            if page.seen <= seen {
                return Ok(all);
            }
            let (first, last) = (seen + 1, page.seen);
            let events = page.events.iter();
            let items: Vec<Item> = events
                .map(|(seq, event)| Item::new(self.views.as_ref(), &self.names, *seq, event))
                .collect();
            let usual = everything.message(first, last, &items);
            all.push(Told { first, last, items, usual });
            seen = last;
            if page.events.len() < PAGE as usize {
                return Ok(all);
            }
        }
    }
}
