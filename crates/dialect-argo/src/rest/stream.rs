//! Server-sent streams: watches of workflows, logs of their nodes.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use kobza_blobs::LogStream;
use kobza_model::{Json, LaunchId, RunId, TaskRow};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::workflows::{Streamed, Wanted};
use super::{ArgoError, ArgoState, blocking, select};

/// Messages that wait for a slow client before the sender waits too.
const BUFFER: usize = 64;
/// Pause between looks at a log that grows.
const LOOK: Duration = Duration::from_millis(250);

fn respond(receiver: mpsc::Receiver<Json>) -> Response {
    let stream = ReceiverStream::new(receiver).map(|message| {
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("data: {message}\n\n")))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(stream)).into_response()
}

/// An empty stream that stays open: pods' events, which there are none of.
pub(super) async fn no_events(State(state): State<ArgoState>) -> Response {
    let (sender, receiver) = mpsc::channel(1);
    let mut changed = state.handle.next_event();
    tokio::spawn(async move { while !sender.is_closed() && changed.changed().await.is_ok() {} });
    respond(receiver)
}

pub(super) async fn watch(
    State(state): State<ArgoState>,
    Path(namespace): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let (sender, receiver) = mpsc::channel(BUFFER);
    let events = state.handle.follow();
    tokio::spawn(watching(state, namespace, wanted, events, sender));
    respond(receiver)
}

async fn watching(
    state: ArgoState,
    namespace: String,
    wanted: Wanted,
    mut events: tokio::sync::broadcast::Receiver<kobza_runtime::Committed>,
    sender: mpsc::Sender<Json>,
) {
    let name = select::field(&wanted.field_selector, "metadata.name").map(str::to_owned);
    let mut seen: BTreeSet<RunId> = BTreeSet::new();
    let mut changed: BTreeSet<RunId> = BTreeSet::new();
    if let Some(name) = name.clone() {
        let (state, namespace) = (state.clone(), namespace.clone());
        changed.extend(blocking(move || state.find(&namespace, &name)).await.ok());
    }
    loop {
        for run in std::mem::take(&mut changed) {
            let reading = state.clone();
            let Ok(object) = blocking(move || Ok(reading.shown(&reading.load(run)?))).await else {
                continue;
            };
            let metadata = &object["metadata"];
            let wrong_name = name.as_ref().is_some_and(|n| metadata["name"] != n.as_str());
            let matches = select::labels_match(&wanted.labels, &metadata["labels"]);
            if metadata["namespace"] != namespace.as_str() || wrong_name || matches != Ok(true) {
                continue;
            }
            let kind = if seen.insert(run) { "ADDED" } else { "MODIFIED" };
            let object = select::fields(object, &wanted.fields);
            let message = json!({ "result": { "type": kind, "object": object } });
            if sender.send(message).await.is_err() {
                return;
            }
        }
        tokio::select! {
            received = events.recv() => match received {
                Ok(committed) => changed.extend(committed.events.iter().filter_map(|e| e.run)),
                // What was missed is seen again with the next change of each run.
                Err(RecvError::Lagged(_)) => changed.extend(seen.iter().copied()),
                Err(RecvError::Closed) => return,
            },
            () = sender.closed() => return,
        }
        while let Ok(committed) = events.try_recv() {
            changed.extend(committed.events.iter().filter_map(|e| e.run));
        }
    }
}

/// Query parameters of logs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WantedLog {
    #[serde(rename = "podName")]
    pod: String,
    #[serde(rename = "logOptions.follow")]
    follow: String,
    #[serde(rename = "logOptions.tailLines")]
    tail: String,
    grep: String,
}

pub(super) async fn logs(
    State(state): State<ArgoState>,
    Path((namespace, name)): Path<(String, String)>,
    Query(wanted): Query<WantedLog>,
) -> Streamed {
    start_logs(state, namespace, name, wanted).await
}

pub(super) async fn pod_logs(
    State(state): State<ArgoState>,
    Path((namespace, name, pod)): Path<(String, String, String)>,
    Query(mut wanted): Query<WantedLog>,
) -> Streamed {
    wanted.pod = pod;
    start_logs(state, namespace, name, wanted).await
}

async fn start_logs(
    state: ArgoState,
    namespace: String,
    name: String,
    wanted: WantedLog,
) -> Streamed {
    let grep = match wanted.grep.as_str() {
        "" => None,
        pattern => Some(
            regex::RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build()
                .map_err(|e| ArgoError::invalid(format!("grep: {e}")))?,
        ),
    };
    let reading = state.clone();
    let run = blocking(move || reading.find(&namespace, &name)).await?;
    let (sender, receiver) = mpsc::channel(BUFFER);
    tokio::spawn(logging(state, run, wanted, grep, sender));
    Ok(respond(receiver))
}

/// Nodes with a log, in order: name of the pod and launch.
fn pods(state: &ArgoState, run: RunId) -> Result<(Vec<(String, LaunchId)>, bool), ArgoError> {
    let data = state.load(run)?;
    let ended = data.run.state.is_finished();
    let workflow = crate::names::workflow_name(&data.run).to_owned();
    let mut found = Vec::new();
    let mut tasks: Vec<&TaskRow> =
        data.attempts.iter().chain(&data.tasks).filter(|t| t.launch > 0).collect();
    tasks.sort_by_key(|t| (t.started_at, t.task, t.attempt));
    for task in tasks {
        let name = crate::names::attempt_name(&data, task);
        let template = &data.workflow.templates[task.template.index()].name;
        let pod = crate::pod_name(&workflow, &name, template);
        found.push((pod, LaunchId { run, task: task.task, launch: task.launch }));
    }
    Ok((found, ended))
}

async fn logging(
    state: ArgoState,
    run: RunId,
    wanted: WantedLog,
    grep: Option<regex::Regex>,
    sender: mpsc::Sender<Json>,
) {
    let follow = wanted.follow == "true";
    let tail: Option<usize> = wanted.tail.parse().ok();
    let mut offsets: std::collections::BTreeMap<LaunchId, u64> = std::collections::BTreeMap::new();
    loop {
        let reading = state.clone();
        let Ok((pods, ended)) = blocking(move || pods(&reading, run)).await else { return };
        for (pod, launch) in pods {
            if !wanted.pod.is_empty() && wanted.pod != pod {
                continue;
            }
            loop {
                let logs = state.logs.clone();
                let from = offsets.get(&launch).copied();
                let read = blocking(move || {
                    let mut reader = logs.reader(launch);
                    let page = match (from, tail) {
                        (None, Some(tail)) => reader.tail(tail),
                        (from, _) => reader.read(from.unwrap_or(0), 256 * 1024),
                    };
                    Ok(page.unwrap_or_default())
                });
                let Ok(page) = read.await else { return };
                let empty = page.lines.is_empty();
                if !empty || from.is_some() {
                    offsets.insert(launch, page.next.max(from.unwrap_or(0)));
                }
                for line in page.lines {
                    if line.stream == LogStream::System {
                        continue;
                    }
                    let text = line.text().into_owned();
                    if grep.as_ref().is_some_and(|g| !g.is_match(&text)) {
                        continue;
                    }
                    let message = json!({ "result": { "content": text, "podName": pod } });
                    if sender.send(message).await.is_err() {
                        return;
                    }
                }
                if empty {
                    break;
                }
            }
        }
        if !follow || ended {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = sender.closed() => return,
        }
    }
}
