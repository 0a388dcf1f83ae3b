//! Following the event log.

use kobza_model::{Event, EventKind, Json, RunId, RunState, Timestamp};
use kobza_runtime::Committed;

use super::{PAGE, Service, TriggerError};
use crate::{EventBody, TriggerEvent};

/// The namespace of what happens outside of any run.
const OUTSIDE: &str = "default";

impl Service {
    /// Events as they are committed.
    pub(super) async fn committed(&mut self, committed: &Committed) {
        let next = self.seen + 1;
        if self.behind || committed.first > next {
            // A hole: the log has what we did not hear.
            self.behind = true;
            return;
        }
        let skip = usize::try_from(next - committed.first).unwrap_or(usize::MAX);
        let events = committed.events.iter().enumerate().skip(skip);
        let numbered: Vec<(u64, &Event)> =
            events.map(|(at, event)| (committed.first + at as u64, event)).collect();
        if let Some((last, _)) = numbered.last().copied() {
            self.react(&numbered, last).await;
        }
    }

    /// Reads the log up to its end.
    pub(super) async fn catch_up(&mut self) {
        while self.behind {
            let page = match self.options.views.events_since(self.seen, PAGE, None) {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "triggers cannot read the event log");
                    return self.retry_later();
                }
            };
            if page.oldest > self.seen + 1 && self.seen > 0 {
                tracing::warn!(
                    from = self.seen + 1,
                    until = page.oldest,
                    "events were deleted before triggers saw them"
                );
            }
            let numbered: Vec<(u64, &Event)> =
                page.events.iter().map(|(number, event)| (*number, event)).collect();
            let at_end = numbered.is_empty();
            let seen = page.seen.max(self.seen);
            if !self.react(&numbered, seen).await {
                return;
            }
            if at_end {
                self.behind = false;
            }
        }
    }

    /// Lets triggers and backfills react. False when these events must be read again.
    async fn react(&mut self, events: &[(u64, &Event)], seen: u64) -> bool {
        let now = self.now();
        let (mut steps, mut backfill_steps) = (Vec::new(), Vec::new());
        for (number, event) in events {
            let found = match self.translate(*number, event) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, "triggers cannot read a run");
                    self.behind = true;
                    self.retry_later();
                    break;
                }
            };
            let (namespace, translated) = found;
            if let EventBody::RunEnded { run, state, .. } = &translated.body {
                for backfill in self.backfills.values_mut() {
                    backfill_steps.extend(backfill.run_ended(*run, *state, now));
                }
            }
            steps.extend(self.triggers.on_event(&namespace, &translated, now));
        }
        tracing::debug!(
            from = self.seen + 1,
            until = seen,
            events = events.len(),
            steps = steps.len(),
            "events of the log are looked at"
        );
        let failed_to_read = self.retry_at.is_some() && self.behind;
        let mut complete = !failed_to_read;
        if !steps.is_empty() {
            complete &= !self.commit(steps).await.incomplete;
        }
        if !backfill_steps.is_empty() {
            complete &= !self.commit_backfills(backfill_steps).await.incomplete;
            Box::pin(self.advance_backfills()).await;
        }
        if complete {
            self.seen = seen;
        } else {
            // What has reacted already ignores them the next time.
            self.behind = true;
        }
        complete
    }

    /// An event of the log as triggers see it, if any of them may care.
    fn translate(
        &self,
        number: u64,
        event: &Event,
    ) -> Result<Option<(String, TriggerEvent)>, TriggerError> {
        if let EventKind::Sent { namespace, name, payload } = &event.kind {
            let payload = serde_json::from_str(payload).unwrap_or(Json::Null);
            let body = EventBody::Custom { name: name.clone(), payload };
            let id = format!("event-{number}");
            let event = TriggerEvent { id, sequence: number, at: event.at, body };
            return Ok(Some((namespace.clone(), event)));
        }
        let (namespace, body) = match (&event.kind, event.run) {
            (EventKind::Materialized { asset, partition, metadata }, run)
                if self.triggers.wants_asset(asset) =>
            {
                let namespace = match run {
                    Some(run) => match self.options.views.get_run(run)? {
                        Some(row) => row.namespace,
                        None => return Ok(None),
                    },
                    None => OUTSIDE.to_owned(),
                };
                let metadata = serde_json::from_str(metadata).unwrap_or(Json::Null);
                let (asset, partition) = (asset.clone(), partition.clone());
                (namespace, EventBody::Asset { asset, partition, run, metadata })
            }
            (EventKind::Note { word, detail }, Some(run)) if word == EMITTED => {
                let Some((name, payload)) = emitted(detail) else { return Ok(None) };
                if !self.triggers.wants_custom(&name) {
                    return Ok(None);
                }
                let Some(row) = self.options.views.get_run(run)? else { return Ok(None) };
                (row.namespace, EventBody::Custom { name, payload })
            }
            (EventKind::Run { state, .. }, Some(run))
                if state.is_finished() && self.wants_end(run) =>
            {
                let Some(row) = self.options.views.get_run(run)? else { return Ok(None) };
                let interval = row.interval_start.zip(row.interval_end);
                let body =
                    run_ended(row.workflow, run, *state, row.params, interval, row.partition);
                (row.namespace, body)
            }
            _ => return Ok(None),
        };
        let event =
            TriggerEvent { id: format!("event-{number}"), sequence: number, at: event.at, body };
        Ok(Some((namespace, event)))
    }

    fn wants_end(&self, run: RunId) -> bool {
        self.triggers.wants_run_end(run)
            || self.backfills.values().any(|backfill| backfill.row().active.contains_key(&run))
    }
}

/// The note that a task's `emit` leaves.
const EMITTED: &str = "emitted";

/// What a task has emitted: `{"name", "payload"}`.
fn emitted(detail: &str) -> Option<(String, Json)> {
    let mut event: Json = serde_json::from_str(detail).ok()?;
    let name = event["name"].as_str()?.to_owned();
    Some((name, event["payload"].take()))
}

fn run_ended(
    workflow: String,
    run: RunId,
    state: RunState,
    params: Json,
    interval: Option<(Timestamp, Timestamp)>,
    partition: Option<String>,
) -> EventBody {
    EventBody::RunEnded { workflow, run, state, params, interval, partition }
}
