//! Traces as OTLP over HTTP, in JSON: a run is a trace, each attempt a span of it.

use kobza_model::{
    Event, EventKind, Json, RunRow, RunState, TaskId, TaskRow, TaskState, Timestamp,
    attempt_span_id, run_span_id, trace_id,
};
use kobza_store::Write;
use serde_json::json;

use crate::Parts;
use crate::config;
use crate::follow::Outlet;
use crate::send::{Failed, post};

pub(crate) struct Traces {
    url: String,
}

impl Traces {
    pub(crate) fn new(config: config::Traces) -> Self {
        Self { url: config.url }
    }
}

fn nanos(at: Timestamp) -> String {
    (i128::from(at.0) * 1000).to_string()
}

fn attributes(pairs: &[(&str, String)]) -> Json {
    let all = pairs.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}));
    Json::Array(all.collect())
}

fn status(good: bool, message: Option<&str>) -> Json {
    if good { json!({"code": 1}) } else { json!({"code": 2, "message": message.unwrap_or("")}) }
}

fn run_span(run: &RunRow) -> Option<Json> {
    let ended = run.ended_at?;
    let mut span = json!({
        "traceId": trace_id(run.run),
        "spanId": run_span_id(run.run),
        "name": run.workflow,
        "kind": 1,
        "startTimeUnixNano": nanos(run.started_at.unwrap_or(run.created_at)),
        "endTimeUnixNano": nanos(ended),
        "attributes": attributes(&[
            ("kobza.run.id", run.run.to_string()),
            ("kobza.namespace", run.namespace.clone()),
            ("kobza.workflow", run.workflow.clone()),
            ("kobza.run.trigger", run.trigger.clone()),
            ("kobza.run.state", run.state.as_str().to_owned()),
        ]),
        "status": status(run.state == RunState::Succeeded, run.message.as_deref()),
    });
    if let Some(parent) = run.parent {
        span["links"] = json!([{
            "traceId": trace_id(parent.run),
            // Which attempt called it is not kept; the caller's run is.
            "spanId": run_span_id(parent.run),
        }]);
    }
    Some(span)
}

fn task_span(task: &TaskRow) -> Option<Json> {
    let (started, ended) = task.started_at.zip(task.ended_at)?;
    let id = TaskId { run: task.run, task: task.task };
    let good = matches!(task.state, TaskState::Succeeded | TaskState::Skipped);
    let mut pairs = vec![
        ("kobza.task.id", id.to_string()),
        ("kobza.task.attempt", task.attempt.to_string()),
        ("kobza.task.state", task.state.as_str().to_owned()),
    ];
    if let Some(index) = task.index {
        pairs.push(("kobza.task.index", index.to_string()));
    }
    Some(json!({
        "traceId": trace_id(task.run),
        "spanId": attempt_span_id(id, task.attempt),
        "parentSpanId": run_span_id(task.run),
        "name": task.name,
        "kind": 1,
        "startTimeUnixNano": nanos(started),
        "endTimeUnixNano": nanos(ended),
        "attributes": attributes(&pairs),
        "status": status(good, task.message.as_deref()),
    }))
}

/// The row of an attempt: the task's own, or one that newer attempts replaced.
pub(crate) fn attempt_row(
    parts: &Parts,
    task: TaskId,
    attempt: u32,
) -> Result<Option<TaskRow>, String> {
    let row = parts.views.get_task(task).map_err(|e| e.to_string())?;
    match row {
        Some(row) if row.attempt != attempt => {
            let all = parts.views.list_attempts(task).map_err(|e| e.to_string())?;
            Ok(all.into_iter().find(|row| row.attempt == attempt))
        }
        row => Ok(row),
    }
}

impl Outlet for Traces {
    fn name(&self) -> &'static str {
        "traces"
    }

    fn take(&mut self, events: &[(u64, Event)], parts: &Parts) -> Result<Vec<Write>, String> {
        let mut spans = Vec::new();
        for (_, event) in events {
            let Some(run) = event.run else { continue };
            match (&event.kind, event.task) {
                (EventKind::Run { state, .. }, _) if state.is_finished() => {
                    let row = parts.views.get_run(run).map_err(|e| e.to_string())?;
                    spans.extend(row.as_ref().and_then(run_span));
                }
                (EventKind::Task { state, attempt, .. }, Some(task))
                    if *attempt > 0 && (state.is_finished() || *state == TaskState::RetryWait) =>
                {
                    let row = attempt_row(parts, TaskId { run, task }, *attempt)?;
                    spans.extend(row.as_ref().filter(|row| !row.summary).and_then(task_span));
                }
                _ => {}
            }
        }
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        let count = spans.len();
        let body = json!({"resourceSpans": [{
            "resource": {"attributes": attributes(&[
                ("service.name", "kobza".to_owned()),
                ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ])},
            "scopeSpans": [{"scope": {"name": "kobza"}, "spans": spans}],
        }]});
        match post(&self.url, &[], &body.to_string()) {
            Ok(()) => {}
            Err(Failed::Later(error)) => return Err(error),
            // The same again would be refused again, and hold up all that follows.
            Err(Failed::Refused(error)) => tracing::error!(error, count, "spans were refused"),
        }
        Ok(Vec::new())
    }
}
