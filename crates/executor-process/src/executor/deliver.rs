//! What shims say, as reports.

use std::sync::mpsc::Sender;

use kobza_engine::{NewTask, Report, ReportBody};
use kobza_model::{Outcome, TaskState};
use kobza_runtime::{Ended, Published, ReportSink, Said};

use super::links::Message;
use crate::wire::{Event, EventBody, Finished};

type Durable = Box<dyn FnOnce() + Send>;

pub(super) fn deliver(link: u32, event: &Event, sink: &dyn ReportSink, messages: &Sender<Message>) {
    let (number, messages) = (event.number, messages.clone());
    let last = event.body.is_last().then_some(event.launch);
    let durable = move || {
        // The executor may be gone: then the shim repeats the event to the next one.
        let _ = messages.send(Message::Durable { link, number, last });
    };
    deliver_body(sink, event, Box::new(durable));
}

pub(super) fn deliver_body(sink: &dyn ReportSink, event: &Event, durable: Durable) {
    let report = |body| Report { launch: event.launch, at: event.at(), body };
    match event.body.clone() {
        EventBody::Started { .. } => sink.report(report(ReportBody::Started), durable),
        EventBody::Finished(body) => deliver_finished(sink, event, *body, durable),
        EventBody::Said(said) => {
            let body = match said {
                Said::Outputs(outputs) => ReportBody::Outputs(outputs),
                Said::Ended(ended) => {
                    let Ended { outcome, cause, message, outputs, skips, published } = *ended;
                    for Published { asset, partition, metadata } in published {
                        let body = ReportBody::Published { asset, partition, metadata };
                        sink.report(report(body), Box::new(|| {}));
                    }
                    ReportBody::Finished {
                        outcome,
                        cause,
                        message,
                        exit_code: None,
                        outputs,
                        skips,
                        jitter: draw(),
                    }
                }
                Said::Deferred { until, carry } => {
                    let until = until.map(|at| sink.engine_time(at));
                    ReportBody::Deferred { until, carry }
                }
                Said::Rescheduled { until, carry } => {
                    ReportBody::Rescheduled { until: sink.engine_time(until), carry }
                }
                Said::Suspended { carry } => ReportBody::Suspended { carry },
            };
            sink.report(report(body), durable);
        }
    }
}

/// Reports an end, and before it what went wrong with the log.
fn deliver_finished(sink: &dyn ReportSink, event: &Event, finished: Finished, durable: Durable) {
    let (launch, at) = (event.launch, event.at());
    let Finished { outcome, cause, message, exit_code, mut outputs, log } = finished;
    let mut notes = Vec::new();
    let mut take = |key: &str| {
        let at = outputs.iter().position(|(name, _)| name == key)?;
        Some(outputs.remove(at).1).filter(|_| outcome == Outcome::Succeeded)
    };
    if let Some(added) = take("$tasks").map(|listed| new_tasks(&listed)) {
        // Before the end: a report of a task that has ended would be refused.
        sink.report(Report { launch, at, body: ReportBody::AddTasks(added) }, Box::new(|| {}));
    }
    if let Some(kobza_model::Json::Array(events)) = take("$events") {
        notes.extend(events.iter().map(|event| ("emitted", event.to_string())));
    }
    if log.truncated {
        notes.push(("log_truncated", format!("the log was cut at {} bytes", log.bytes)));
    }
    if let Some(error) = log.error {
        notes.push(("log_incomplete", format!("{} bytes of log lost: {error}", log.lost_bytes)));
    }
    for (word, detail) in notes {
        let body = ReportBody::Note { word: word.to_owned(), detail };
        sink.report(Report { launch, at, body }, Box::new(|| {}));
    }
    let body = ReportBody::Finished {
        outcome,
        cause,
        message,
        exit_code,
        outputs,
        skips: Vec::new(),
        jitter: draw(),
    };
    sink.report(Report { launch, at, body }, durable);
}

/// Tasks that a Python function has added: `[{"name", "upstream", "python", "with"}, ...]`.
fn new_tasks(listed: &kobza_model::Json) -> Vec<NewTask> {
    let one = |entry: &kobza_model::Json| {
        let upstream = entry.get("upstream").and_then(|names| names.as_array());
        Some(NewTask {
            name: entry.get("name")?.as_str()?.to_owned(),
            upstream: upstream
                .into_iter()
                .flatten()
                .filter_map(|name| Some(name.as_str()?.to_owned()))
                .collect(),
            state: TaskState::Pending,
            priority: 0,
            inputs: entry.get("with").cloned().unwrap_or_default(),
            extra: serde_json::json!({ "python": entry.get("python")? }),
        })
    };
    listed.as_array().map(|all| all.iter().filter_map(one).collect()).unwrap_or_default()
}

/// A draw from 0 to 1 for the engine, which has no randomness of its own.
pub(super) fn draw() -> f64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    // Of a version 4 UUID these bits are random; the version is elsewhere in the low 16.
    (high >> 16) as f64 / (1u64 << 48) as f64
}
