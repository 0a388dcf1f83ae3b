//! Who waits for what of the event log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kobza_engine::Command;
use kobza_expr::native::{Context, is_true};
use kobza_model::{Event, EventKind, Json, RunState, TaskId, TaskState, Timestamp};
use kobza_runtime::{Handle, Submission, SubmitError};
use kobza_store::{RunFilter, TaskFilter, ViewError, Views, Write, kinds};
use serde::Deserialize as _;
use serde_json::json;

use super::step::{Carry, On, Topic};

/// Rows and events read in one go.
const PAGE: u32 = 1000;
/// The place in the log is written down each time that it has moved so far: a restart reads no
/// more than this, and what came since.
const SAVE_EVERY: u64 = 10_000;
/// The namespace of what no run made.
const OUTSIDE: &str = "default";
/// The object with that place.
const PLACE: &str = "waits.seen";

/// The waits for events and assets.
pub(super) struct Waiters {
    handle: Handle,
    views: Arc<dyn Views>,
    waits: BTreeMap<TaskId, On>,
    topics: HashMap<Topic, BTreeSet<TaskId>>,
    /// How many wait, or are about to: nobody else needs to be told of events.
    count: Arc<AtomicUsize>,
    /// What ended, until it is durable.
    came: Vec<(TaskId, Carry)>,
    /// All events up to this number were looked at, and as it is written down.
    seen: u64,
    saved: u64,
    /// The log could not be read: it is tried again.
    behind: bool,
    /// The waits of before have been taken up.
    restored: bool,
}

impl Waiters {
    pub(super) fn new(handle: Handle, views: Arc<dyn Views>, count: Arc<AtomicUsize>) -> Self {
        let (waits, topics, came) = (BTreeMap::new(), HashMap::new(), Vec::new());
        let (seen, saved, behind, restored) = (0, 0, false, false);
        Self { handle, views, waits, topics, count, came, seen, saved, behind, restored }
    }

    pub(super) fn newest(&self) -> u64 {
        self.handle.next_event().borrow().saturating_sub(1)
    }

    /// Until [`Self::expected`], events are told although nobody waits yet.
    pub(super) fn expect_one(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn expected(&self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn add(&mut self, task: TaskId, on: On) {
        self.forget(task);
        if self.waits.is_empty() {
            // Who begins to wait now needs nothing of before.
            self.seen = on.after;
        }
        self.topics.entry(on.topic.clone()).or_default().insert(task);
        self.waits.insert(task, on);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn forget(&mut self, task: TaskId) {
        self.came.retain(|(own, _)| *own != task);
        let Some(on) = self.waits.remove(&task) else { return };
        self.count.fetch_sub(1, Ordering::SeqCst);
        if let Some(tasks) = self.topics.get_mut(&on.topic) {
            tasks.remove(&task);
            if tasks.is_empty() {
                self.topics.remove(&on.topic);
            }
        }
    }

    /// Whether something is left to do that nobody will ask for.
    pub(super) fn unsettled(&self) -> bool {
        self.behind || !self.restored || !self.came.is_empty()
    }

    /// Takes up the waits of before: they are known from their tasks' rows.
    fn restore(&mut self) -> Result<(), ViewError> {
        let place = self.views.get_object(kinds::SETTING, "", PLACE)?;
        let waiting = self.waiting()?;
        let events = waiting.iter().filter(|(_, on)| matches!(on.topic, Topic::Event(_)));
        let from = events.map(|(_, on)| on.after).min().unwrap_or(self.newest());
        for (task, on) in waiting {
            // Its events may have been deleted since; the asset's history tells.
            let made = self.made(&on)?;
            // What began to wait meanwhile knows better.
            if self.waits.contains_key(&task) {
                continue;
            }
            self.add(task, on);
            if let Some(event) = made {
                self.came.push((task, Carry { came: Some(event), ..Carry::default() }));
            }
        }
        self.saved = place.and_then(|object| object.value["seen"].as_u64()).unwrap_or(0);
        self.seen = from.max(self.saved);
        self.behind = true;
        self.restored = true;
        Ok(())
    }

    fn waiting(&self) -> Result<Vec<(TaskId, On)>, ViewError> {
        let runs = RunFilter {
            states: vec![RunState::Running, RunState::Paused, RunState::Cancelling],
            ..RunFilter::default()
        };
        let tasks = TaskFilter { states: vec![TaskState::Deferred], ..TaskFilter::default() };
        let (mut found, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = self.views.list_runs(&runs, cursor.as_deref(), PAGE)?;
            for run in page.items {
                let mut place = None::<String>;
                loop {
                    let page = self.views.list_tasks(run.run, &tasks, place.as_deref(), PAGE)?;
                    for row in page.items {
                        let on = row.carry.get("on").map(On::deserialize);
                        if let Some(Ok(on)) = on {
                            found.push((TaskId { run: row.run, task: row.task }, on));
                        }
                    }
                    match page.next {
                        Some(next) => place = Some(next),
                        None => break,
                    }
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// The newest data of the asset that is waited for, if it counts.
    pub(super) fn made(&self, on: &On) -> Result<Option<Json>, ViewError> {
        let Topic::Asset(asset) = &on.topic else { return Ok(None) };
        let partition = on.partition.as_deref();
        let history = self.views.asset_history(&on.namespace, asset, partition, None, 1)?;
        let newest = history.items.into_iter().next();
        let counts = newest.filter(|made| on.since.is_none_or(|since| made.at >= since));
        Ok(counts.map(|made| {
            let metadata = serde_json::from_str(&made.metadata).unwrap_or(Json::Null);
            json!({
                "asset": asset, "partition": made.partition, "run": made.run,
                "metadata": metadata, "at": made.at,
            })
        }))
    }

    /// Looks at events as they come.
    pub(super) fn look(&mut self, events: &[(u64, Event)], upto: u64) {
        for (number, event) in events {
            self.see(*number, event);
        }
        if !self.behind {
            self.seen = self.seen.max(upto);
        }
    }

    /// Reads the log from where it was left.
    pub(super) fn catch_up(&mut self) {
        self.behind = true;
        loop {
            if self.waits.is_empty() {
                self.behind = false;
                return;
            }
            match self.views.events_since(self.seen, PAGE, None) {
                Ok(page) => {
                    for (number, event) in &page.events {
                        self.see(*number, event);
                    }
                    let at_end = page.events.is_empty() && page.seen <= self.seen;
                    self.seen = page.seen.max(self.seen);
                    if at_end || self.seen >= self.newest() {
                        self.behind = false;
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "waits cannot read the event log");
                    return;
                }
            }
        }
    }

    fn see(&mut self, number: u64, event: &Event) {
        let (topic, namespace, view) = match &event.kind {
            EventKind::Task { state, .. } if state.is_finished() => {
                if let Some((run, task)) = event.run.zip(event.task) {
                    self.forget(TaskId { run, task });
                }
                return;
            }
            EventKind::Sent { namespace, name, payload } => {
                let payload: Json = serde_json::from_str(payload).unwrap_or(Json::Null);
                let id = format!("event-{number}");
                let view = json!({"id": id, "name": name, "payload": payload, "at": event.at});
                (Topic::Event(name.clone()), Some(namespace.clone()), view)
            }
            EventKind::Materialized { asset, partition, metadata } => {
                let metadata: Json = serde_json::from_str(metadata).unwrap_or(Json::Null);
                let view = json!({
                    "asset": asset, "partition": partition, "run": event.run,
                    "metadata": metadata, "at": event.at,
                });
                (Topic::Asset(asset.clone()), None, view)
            }
            _ => return,
        };
        let Some(tasks) = self.topics.get(&topic) else { return };
        // An asset belongs to the namespace of the run that made it.
        let namespace = namespace.or_else(|| match event.run {
            Some(run) => self.views.get_run(run).ok().flatten().map(|row| row.namespace),
            None => Some(OUTSIDE.to_owned()),
        });
        let mut ended = Vec::new();
        for task in tasks {
            let Some(on) = self.waits.get(task) else { continue };
            if let Some(carry) = ends(on, number, namespace.as_deref(), event.at, &view) {
                ended.push((*task, carry));
            }
        }
        for (task, carry) in ended {
            if !self.came.iter().any(|(own, _)| *own == task) {
                self.came.push((task, carry));
            }
        }
    }

    /// Wakes those whose wait is over. False once the loop has stopped.
    pub(super) fn settle(&mut self) -> bool {
        if !self.restored
            && let Err(error) = self.restore()
        {
            tracing::warn!(%error, "waiting tasks cannot be read; it is tried again");
        }
        if self.behind {
            self.catch_up();
        }
        for (task, carry) in std::mem::take(&mut self.came) {
            let carry = Some(json!(carry));
            let resume = Command::ResumeTask { task, outputs: None, carry: carry.clone() };
            match self.handle.submit_blocking(resume) {
                // Refused: it does not wait any more.
                Ok(_) | Err(SubmitError::Refused(_)) => self.forget(task),
                Err(SubmitError::Stopped) => return false,
                Err(error) => {
                    tracing::warn!(%task, %error, "a wait is over; its task is told again");
                    let carry = carry.and_then(|carry| Carry::deserialize(carry).ok());
                    self.came.extend(carry.map(|carry| (task, carry)));
                }
            }
        }
        if !self.unsettled() && !self.waits.is_empty() && self.seen >= self.saved + SAVE_EVERY {
            let write = Write::PutObject {
                kind: kinds::SETTING,
                namespace: String::new(),
                key: PLACE.to_owned(),
                value: Some(json!({"seen": self.seen})),
            };
            let submission = Submission { commands: Vec::new(), writes: vec![write] };
            match self.handle.submit_blocking(submission) {
                Ok(_) => self.saved = self.seen,
                Err(SubmitError::Stopped) => return false,
                // Then a restart reads a little more.
                Err(error) => tracing::debug!(%error, "the place of waits was not written down"),
            }
        }
        true
    }
}

/// What an event leaves in the task that it ends; `None`: it does not.
fn ends(
    on: &On,
    number: u64,
    namespace: Option<&str>,
    at: Timestamp,
    view: &Json,
) -> Option<Carry> {
    let partition = on.partition.as_ref().is_none_or(|own| view["partition"] == own.as_str());
    let counts = number > on.after
        && namespace == Some(on.namespace.as_str())
        && partition
        && on.since.is_none_or(|since| at >= since);
    if !counts {
        return None;
    }
    if let Some(filter) = &on.filter {
        let values = [("event".to_owned(), view.clone())].into_iter().collect();
        match is_true(filter, &Context::new(&values)) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                let failed = Some(format!("wait.filter: {error}"));
                return Some(Carry { failed, ..Carry::default() });
            }
        }
    }
    Some(Carry { came: Some(view.clone()), ..Carry::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_wait() {
        let on = On {
            namespace: "n".to_owned(),
            topic: Topic::Event("e".to_owned()),
            filter: Some("event.payload.n > 3".to_owned()),
            partition: None,
            since: None,
            after: 5,
        };
        let view = |n: i32| json!({"name": "e", "payload": {"n": n}});
        let at = Timestamp(10);
        let came = ends(&on, 6, Some("n"), at, &view(4)).unwrap();
        assert_eq!(came.came, Some(view(4)));
        assert_eq!(ends(&on, 6, Some("n"), at, &view(3)), None);
        assert_eq!(ends(&on, 5, Some("n"), at, &view(4)), None, "before it began to wait");
        assert_eq!(ends(&on, 6, Some("m"), at, &view(4)), None);
        let failed = ends(&on, 6, Some("n"), at, &json!({"payload": null})).unwrap().failed;
        assert!(failed.unwrap().contains("wait.filter"));
        let on = On {
            topic: Topic::Asset("a".to_owned()),
            filter: None,
            partition: Some("p".to_owned()),
            since: Some(Timestamp(10)),
            ..on
        };
        let of = |partition: &str| json!({"asset": "a", "partition": partition});
        assert!(ends(&on, 6, Some("n"), at, &of("p")).is_some());
        assert_eq!(ends(&on, 6, Some("n"), at, &of("q")), None);
        assert_eq!(ends(&on, 6, Some("n"), Timestamp(9), &of("p")), None);
    }
}
