//! Notifications: rules make them of events, a thread of their own delivers them.
//!
//! A notification is written in the transaction that moves the outlet's place, so that each event
//! makes it once. It is delivered at least once, always with the same id.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use kobza_expr::native::{Context, render_text};
use kobza_model::{
    Event, EventKind, Json, RunId, RunRow, RunState, TaskId, TaskRow, TaskState, Timestamp,
};
use kobza_runtime::{Submission, wall_now};
use kobza_store::{ObjectQuery, Write, kinds};
use serde_json::{Map, json};
use sha2::Sha256;

use crate::Parts;
use crate::config::{Form, On, Rule};
use crate::email;
use crate::follow::{Outlet, stopped};
use crate::send::{Failed, post};

/// The note of a driver that could not list a task: `task` and `message` as JSON.
const SCHEDULING_FAILURE: &str = "scheduling_failure";
/// Attempts before a notification is a dead letter; with the pauses, about an hour.
const ATTEMPTS: u64 = 12;
/// Pause after the first attempt; it doubles up to the longest.
const FIRST_PAUSE: i64 = 1_000_000;
const MAX_PAUSE: i64 = 600_000_000;
/// Pause while the store cannot be asked.
const AWAY: Duration = Duration::from_secs(1);
/// Notifications looked at in one go.
const PAGE: u32 = 500;

pub(crate) struct Notify {
    rules: Arc<Vec<Rule>>,
    /// Tells the thread that delivers that there is something new.
    new: Sender<()>,
    made: bool,
}

impl Notify {
    pub(crate) fn new(rules: Arc<Vec<Rule>>, new: Sender<()>) -> Self {
        Self { rules, new, made: false }
    }
}

fn occasion(event: &Event) -> Option<On> {
    match &event.kind {
        EventKind::Run { state: RunState::Failed, .. } => Some(On::Failure),
        EventKind::Run { state: RunState::Succeeded, .. } => Some(On::Success),
        EventKind::Run { state: RunState::Cancelled, .. } => Some(On::Cancelled),
        EventKind::Task { state: TaskState::RetryWait, .. } => Some(On::Retry),
        EventKind::Task { state: TaskState::Failed, .. } => Some(On::TaskFailure),
        EventKind::Note { word, .. } if word == SCHEDULING_FAILURE => Some(On::TaskFailure),
        EventKind::Checked { passed: false, .. } => Some(On::CheckFailed),
        _ => None,
    }
}

/// What templates see as `event`, and webhooks get.
fn view(on: On, event: &Event, run: &RunRow, task: Option<&TaskRow>) -> Json {
    let mut view = json!({
        "at": event.at, "namespace": run.namespace, "workflow": run.workflow,
        "run": run.run, "task": task.map(|t| &t.name), "message": run.message,
        "partition": run.partition, "interval_start": run.interval_start,
    });
    let (word, what) = match on {
        On::Failure => ("failure", "failed"),
        On::Success => ("success", "succeeded"),
        On::Cancelled => ("cancelled", "cancelled"),
        On::Retry => ("retry", "a task is tried again"),
        On::TaskFailure => ("task_failure", "a task failed"),
        On::CheckFailed => ("check_failed", "a check does not hold"),
    };
    view["on"] = json!(word);
    view["what"] = json!(what);
    match &event.kind {
        EventKind::Checked { asset, check, blocking, .. } => {
            view["asset"] = json!(asset);
            view["check"] = json!(check);
            view["blocking"] = json!(blocking);
        }
        EventKind::Task { attempt, cause, .. } => {
            view["attempt"] = json!(attempt);
            view["cause"] = json!(cause);
            if on == On::TaskFailure {
                view["message"] = json!(task.and_then(|t| t.message.as_ref()));
            }
        }
        EventKind::Note { detail, .. } => {
            let mut detail: Json = serde_json::from_str(detail).unwrap_or_default();
            for field in ["task", "message"] {
                view[field] = detail[field].take();
            }
            view["what"] = json!("a task could not be scheduled");
            view["cause"] = json!("scheduling");
        }
        EventKind::Run { cause, .. } => view["cause"] = json!(cause),
        _ => {}
    }
    view
}

impl Outlet for Notify {
    fn name(&self) -> &'static str {
        "notifications"
    }

    fn take(&mut self, events: &[(u64, Event)], parts: &Parts) -> Result<Vec<Write>, String> {
        let mut writes = Vec::new();
        let mut runs: HashMap<RunId, Option<RunRow>> = HashMap::new();
        for (seq, event) in events {
            let Some((on, run)) = occasion(event).zip(event.run) else { continue };
            if !self.rules.iter().any(|rule| rule.on.contains(&on)) {
                continue;
            }
            let row = match runs.entry(run) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    place.insert(parts.views.get_run(run).map_err(|e| e.to_string())?)
                }
            };
            let Some(row) = row else { continue };
            let task = match event.task {
                Some(task) => {
                    let id = TaskId { run, task };
                    parts.views.get_task(id).map_err(|e| e.to_string())?
                }
                None => None,
            };
            let event = view(on, event, row, task.as_ref());
            for rule in self.rules.iter().filter(|rule| {
                let fits = |wanted: &Option<String>, own: &str| {
                    wanted.as_deref().is_none_or(|wanted| wanted == own)
                };
                rule.on.contains(&on)
                    && fits(&rule.namespace, &row.namespace)
                    && fits(&rule.workflow, &row.workflow)
            }) {
                let context = Context::new(&Map::from_iter([("event".to_owned(), event.clone())]));
                // A wrong template must not hide that something happened.
                let render = |template: &str, field: &str| {
                    render_text(template, &context)
                        .unwrap_or_else(|error| format!("(the rule's {field}: {error})"))
                };
                let text = render(&rule.text, "text");
                let subject = (rule.form == Form::Email).then(|| render(&rule.subject, "subject"));
                let id = format!("{}-{seq}", rule.name);
                let mut value = json!({
                    "id": id, "rule": rule.name, "seq": seq, "state": "pending", "attempts": 0,
                    "next_at": wall_now(), "error": null, "text": text, "event": event,
                });
                if let Some(subject) = subject {
                    value["subject"] = subject.into();
                }
                writes.push(put(&format!("{}/{seq:020}", rule.name), Some(value)));
            }
        }
        self.made = !writes.is_empty();
        Ok(writes)
    }

    fn committed(&mut self) {
        if std::mem::take(&mut self.made) {
            // The other thread only ends with the server.
            let _ = self.new.send(());
        }
    }
}

fn put(key: &str, value: Option<Json>) -> Write {
    Write::PutObject {
        kind: kinds::NOTIFICATION,
        namespace: String::new(),
        key: key.to_owned(),
        value,
    }
}

/// Starts the thread that delivers; it is to be told of new ones.
pub(crate) fn deliver(parts: Parts, rules: Arc<Vec<Rule>>) -> std::io::Result<Sender<()>> {
    let (new, told) = channel();
    std::thread::Builder::new().name("kobza-notify".to_owned()).spawn(move || {
        loop {
            let wait = match round(&parts, &rules) {
                Ok(Round::Stopped) => return,
                Ok(Round::Next(next)) => next.map(until),
                Err(error) => {
                    tracing::warn!(error, "notifications wait for the store");
                    Some(AWAY)
                }
            };
            let told = match wait {
                Some(wait) => told.recv_timeout(wait),
                None => told.recv().map_err(RecvTimeoutError::from),
            };
            if told == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    })?;
    Ok(new)
}

fn until(at: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(at.0.saturating_sub(wall_now().0)).unwrap_or(0))
}

enum Round {
    /// When the next one is due; none: nothing is pending.
    Next(Option<Timestamp>),
    /// The server stops.
    Stopped,
}

/// When a notification may be sent; none: it is a dead letter.
fn due(value: &Json) -> Option<Timestamp> {
    if value["state"] != "pending" {
        return None;
    }
    // One without a readable time is due now rather than never.
    Some(value["next_at"].as_str().and_then(|t| t.parse().ok()).unwrap_or(Timestamp(0)))
}

/// Delivers what is due.
fn round(parts: &Parts, rules: &[Rule]) -> Result<Round, String> {
    let mut cursor: Option<String> = None;
    let mut next: Option<Timestamp> = None;
    loop {
        let query = ObjectQuery {
            kind: kinds::NOTIFICATION,
            namespace: Some(""),
            cursor: cursor.as_deref(),
            limit: PAGE,
            ..ObjectQuery::default()
        };
        let page = parts.views.list_objects(&query).map_err(|e| e.to_string())?;
        for object in page.items {
            let Some(at) = due(&object.value) else { continue };
            if at > wall_now() {
                next = next.into_iter().chain([at]).min();
                continue;
            }
            let result = send(parts, rules, &object.value);
            let left = after(object.value, result);
            next = next.into_iter().chain(left.as_ref().and_then(due)).min();
            let submission =
                Submission { commands: Vec::new(), writes: vec![put(&object.key, left)] };
            match parts.handle.submit_blocking(submission) {
                Ok(_) => {}
                Err(error) if stopped(&error) => return Ok(Round::Stopped),
                Err(error) => return Err(error.to_string()),
            }
        }
        match page.next {
            Some(more) => cursor = Some(more),
            None => return Ok(Round::Next(next)),
        }
    }
}

/// The notification after an attempt; none: it has been delivered.
fn after(mut value: Json, result: Result<(), Failed>) -> Option<Json> {
    let attempts = value["attempts"].as_u64().unwrap_or(0) + 1;
    let (error, dead) = match result {
        Ok(()) => return None,
        Err(Failed::Later(error)) => (error, attempts >= ATTEMPTS),
        Err(Failed::Refused(error)) => (error, true),
    };
    let doublings = u32::try_from(attempts - 1).unwrap_or(u32::MAX).min(20);
    let pause = (FIRST_PAUSE << doublings).min(MAX_PAUSE);
    if dead {
        tracing::warn!(notification = %value["id"], error, "a notification is a dead letter");
    }
    value["attempts"] = json!(attempts);
    value["error"] = json!(error);
    value["state"] = json!(if dead { "dead" } else { "pending" });
    value["next_at"] =
        if dead { Json::Null } else { json!(wall_now().saturating_add_micros(pause)) };
    Some(value)
}

fn send(parts: &Parts, rules: &[Rule], value: &Json) -> Result<(), Failed> {
    let rule = rules
        .iter()
        .find(|rule| value["rule"] == rule.name)
        .ok_or_else(|| Failed::Refused("its rule is gone".to_owned()))?;
    // Somebody may still declare it.
    let connection = (parts.lookup)(kinds::CONNECTION, "default", &rule.connection)
        .ok_or_else(|| Failed::Later(format!("there is no connection {:?}", rule.connection)))?;
    let field = |name: &str| connection.get(name).and_then(Json::as_str);
    let url = field("url")
        .ok_or_else(|| Failed::Later(format!("the connection {:?} has no url", rule.connection)))?;
    let id = value["id"].as_str().unwrap_or_default();
    match rule.form {
        Form::Email => {
            let at = value["event"]["at"].as_str().and_then(|at| at.parse().ok());
            email::send(&email::Email {
                id,
                at: at.unwrap_or_else(wall_now),
                connection: &connection,
                to: &rule.to,
                subject: value["subject"].as_str().unwrap_or(&rule.name),
                text: value["text"].as_str().unwrap_or_default(),
            })
        }
        Form::Slack => post(url, &[], &json!({"text": value["text"]}).to_string()),
        Form::Webhook => {
            let body = json!({"id": id, "rule": rule.name, "text": value["text"], "event": value["event"]})
                .to_string();
            let at = (wall_now().0 / 1_000_000).to_string();
            let mut headers =
                vec![("webhook-id", id.to_owned()), ("webhook-timestamp", at.clone())];
            if let Some(secret) = field("secret") {
                headers.push(("webhook-signature", signature(secret, id, &at, &body)?));
            }
            post(url, &headers, &body)
        }
    }
}

/// As the Standard Webhooks specification has it.
fn signature(secret: &str, id: &str, at: &str, body: &str) -> Result<String, Failed> {
    let unusable = || Failed::Refused("the connection's secret is not usable".to_owned());
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| unusable())?,
        None => secret.as_bytes().to_vec(),
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).map_err(|_| unusable())?;
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_end() {
        let mut value = json!({"id": "a-1", "attempts": 0});
        for attempt in 1..ATTEMPTS {
            value = after(value, Err(Failed::Later("busy".to_owned()))).unwrap();
            assert_eq!((&value["state"], &value["attempts"]), (&json!("pending"), &json!(attempt)));
        }
        value = after(value, Err(Failed::Later("busy".to_owned()))).unwrap();
        assert_eq!(value["state"], "dead");
        let refused = after(json!({}), Err(Failed::Refused("no".to_owned()))).unwrap();
        assert_eq!(refused["state"], "dead");
        assert!(after(json!({}), Ok(())).is_none());
    }
}
