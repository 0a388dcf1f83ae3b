//! Waiting for a run: its states as they come, one JSON object a line.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use kobza_model::{Json, RunId, RunRow, TaskId};
use serde_json::{Map, json};
use tokio::sync::broadcast::error::RecvError;

use super::Rest;
use super::answer::{Parts, RestError, parts};
use super::listing::Query;
use crate::states::run_word;

pub(crate) const PATH: &str = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/wait";
/// Without news a line is sent after so long at most.
const LONGEST: Duration = Duration::from_secs(60);

pub(crate) async fn wait(
    State(rest): State<Arc<Rest>>,
    params: Parts,
    RawQuery(query): RawQuery,
) -> Response {
    let params = match parts(params) {
        Ok(params) => params,
        Err(error) => return error.into_response(),
    };
    let part = |name: &str| params.get(name).cloned().unwrap_or_default();
    let query = Query::parse(&query.unwrap_or_default());
    let interval = query.one("interval").and_then(|text| text.parse::<f64>().ok());
    let Some(interval) = interval.filter(|seconds| *seconds > 0.0) else {
        return RestError::field(&["query", "interval"], "Input should be greater than 0")
            .into_response();
    };
    let wanted: Vec<String> = query.all("result").map(str::to_owned).collect();
    let (dag_id, run_id) = (part("dag_id"), part("dag_run_id"));
    // Before the first look, so that nothing falls between.
    let events = rest.desk.handle.follow();
    let looked = rest.clone();
    let found = tokio::task::spawn_blocking(move || looked.run(&dag_id, &run_id)).await;
    let run = match found {
        Ok(Ok(run)) => run,
        Ok(Err(error)) => return error.into_response(),
        Err(error) => return RestError::internal(error.to_string()).into_response(),
    };
    let pause = Duration::from_secs_f64(interval.min(LONGEST.as_secs_f64()));
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(8);
    tokio::spawn(follow(rest, run.run, wanted, pause, events, sender));
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(stream)).into_response()
}

type Lines = tokio::sync::mpsc::Sender<Result<Bytes, std::io::Error>>;

async fn follow(
    rest: Arc<Rest>,
    run: RunId,
    wanted: Vec<String>,
    pause: Duration,
    mut events: tokio::sync::broadcast::Receiver<kobza_runtime::Committed>,
    lines: Lines,
) {
    loop {
        let (looking, wanted) = (rest.clone(), wanted.clone());
        let look = tokio::task::spawn_blocking(move || look(&looking, run, &wanted)).await;
        let Ok(Ok(Some((line, ended)))) = look else { return };
        // Who has gone does not wait any more.
        if lines.send(Ok(Bytes::from(format!("{line}\n")))).await.is_err() || ended {
            return;
        }
        let end = tokio::time::Instant::now() + pause;
        loop {
            match tokio::time::timeout_at(end, events.recv()).await {
                Ok(Ok(committed))
                    if !committed.events.iter().any(|e| e.run == Some(run) && e.task.is_none()) => {
                }
                Ok(Err(RecvError::Closed)) => return,
                _ => break,
            }
        }
    }
}

/// A line about the run, and whether it has ended.
fn look(rest: &Rest, run: RunId, wanted: &[String]) -> Result<Option<(Json, bool)>, RestError> {
    let Some(row) = rest.desk.views.get_run(run)? else { return Ok(None) };
    let ended = row.state.is_finished();
    let mut line = json!({"state": run_word(row.state)});
    if ended && !wanted.is_empty() {
        let results = results(rest, &row, wanted)?;
        if !results.is_empty() {
            line["results"] = Json::Object(results);
        }
    }
    Ok(Some((line, ended)))
}

/// What tasks returned; of a mapped task, a list.
fn results(rest: &Rest, run: &RunRow, wanted: &[String]) -> Result<Map<String, Json>, RestError> {
    let mut results = Map::new();
    for name in wanted {
        let mut values = Vec::new();
        let mut is_mapped = false;
        for row in rest.desk.instances_of(run, Some(std::slice::from_ref(name)))? {
            is_mapped |= row.index.is_some();
            let id = TaskId { run: row.run, task: row.task };
            values.extend(rest.desk.xcom(id, "return_value")?);
        }
        if is_mapped && !values.is_empty() {
            results.insert(name.clone(), Json::Array(values));
        } else if let Some(value) = values.pop() {
            results.insert(name.clone(), value);
        }
    }
    Ok(results)
}
