//! Logs of attempts: pages by line number, and a live stream that resumes.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures_util::stream::{self, StreamExt as _};
use kobza_blobs::{LogLine, LogReader, LogStore, LogStream};
use kobza_model::{LaunchId, TaskId, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, Path, PlainText, Query, Raw, Stream};
use crate::growth::Growth;
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::tasks::{load_task, task_id};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get("/tasks/{id}/attempts/{attempt}/log", (Viewer, Space::Run), "Lines of a log", page)
        .get(
            "/tasks/{id}/attempts/{attempt}/log/stream",
            (Viewer, Space::Run),
            "A log as it grows",
            follow,
        )
        .get(
            "/tasks/{id}/attempts/{attempt}/log/search",
            (Viewer, Space::Run),
            "Lines that match",
            search,
        )
        .get(
            "/tasks/{id}/attempts/{attempt}/log/download",
            (Viewer, Space::Run),
            "A log whole",
            download,
        )
}

/// Readers of the logs that were looked at last: each knows where the lines are that it has passed,
/// so that the pages of a long log are found without reading it anew.
#[derive(Clone, Default)]
pub(crate) struct Readers(Arc<Mutex<Vec<(LaunchId, LogReader)>>>);

/// Readers kept; the index of a log of a million lines has some kilobytes.
const READERS: usize = 32;

impl Readers {
    /// The reader of a log, for as long as it is not given back: another asker gets a fresh one.
    pub(crate) fn take(&self, logs: &LogStore, launch: LaunchId) -> LogReader {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.iter().position(|(own, _)| *own == launch) {
            Some(place) => kept.remove(place).1,
            None => logs.reader(launch),
        }
    }

    pub(crate) fn give_back(&self, launch: LaunchId, reader: LogReader) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(own, _)| *own != launch);
        if kept.len() == READERS {
            kept.remove(0);
        }
        kept.push((launch, reader));
    }
}

/// Lines of one answer.
const MAX_LINES: usize = 5000;
/// A follower looks for growth at least so often, should nothing tell it.
const LOOK: Duration = Duration::from_secs(5);
/// And so often where the system cannot tell.
const LOOK_UNTOLD: Duration = Duration::from_millis(200);
/// Growth within such a time is told together.
const GATHER: Duration = Duration::from_millis(50);
/// An end within such a time of another event is told with it.
const GATHER_ENDS: Duration = Duration::from_millis(200);

#[derive(Debug, Deserialize, JsonSchema)]
struct Asked {
    from: Option<i64>,
    limit: Option<usize>,
}

/// A line of a log.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LogLine")]
struct Line {
    /// From 1.
    n: u64,
    at: Timestamp,
    /// What it says of itself: `error`, `warning`, `info` or `debug`.
    level: Option<&'static str>,
    /// `out`, `err`, or `sys` for what Kobza says.
    stream: &'static str,
    text: String,
    /// It goes on in the next one: it is too long for one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

fn view(number: u64, line: &LogLine) -> Line {
    let stream = match line.stream {
        LogStream::Stdout => "out",
        LogStream::Stderr => "err",
        LogStream::System => "sys",
    };
    let text = line.text().into_owned();
    let (n, at, level, cut) = (number, line.time, level(&text), line.partial);
    Line { n, at, level, stream, text, cut }
}

/// The level that a line says it has, near its beginning.
fn level(text: &str) -> Option<&'static str> {
    let end = text.char_indices().nth(120).map_or(text.len(), |(at, _)| at);
    let head = &text[..end];
    if head.starts_with("Traceback (most recent call last)") {
        return Some("error");
    }
    head.split(|c: char| !c.is_ascii_alphanumeric()).take(12).find_map(|word| match word {
        "ERROR" | "CRITICAL" | "FATAL" | "error" | "Error" | "panicked" => Some("error"),
        "WARN" | "WARNING" | "warning" | "Warning" => Some("warning"),
        "INFO" | "info" => Some("info"),
        "DEBUG" | "TRACE" | "debug" => Some("debug"),
        _ => None,
    })
}

/// Lines that one search looks through before it answers with a cursor.
const SEARCHED: u64 = 200_000;
/// Lines that are looked through for the first error of a log.
const FIRST_ERROR: u64 = 50_000;

#[derive(Debug, Deserialize, JsonSchema)]
struct SearchAsked {
    q: Option<String>,
    #[serde(default)]
    regex: bool,
    #[serde(default)]
    case: bool,
    level: Option<String>,
    cursor: Option<u64>,
    limit: Option<usize>,
}

/// What a search of a log found.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct LogMatches {
    count: usize,
    /// The whole log was looked through, and nothing will come.
    complete: bool,
    /// Numbers of the lines that match.
    lines: Vec<u64>,
    next: Option<String>,
}

/// Numbers of the lines that match.
async fn search(
    State(state): State<ApiState>,
    Path((id, attempt)): Path<(String, u32)>,
    Query(asked): Query<SearchAsked>,
) -> Result<Json<LogMatches>, ApiError> {
    let id = task_id(&id)?;
    let (launch, live) = launch_of(&state, id, attempt).await?;
    let q = asked.q.unwrap_or_default();
    let pattern = if asked.regex { q } else { regex::escape(&q) };
    let pattern = regex::RegexBuilder::new(&pattern)
        .case_insensitive(!asked.case)
        .size_limit(1 << 20)
        .build()
        .map_err(|e| ApiError::bad(format!("this is not a regular expression: {e}")))?;
    let levels: Vec<String> = asked
        .level
        .unwrap_or_default()
        .split(',')
        .filter(|l| !l.is_empty())
        .map(str::to_owned)
        .collect();
    let limit = asked.limit.unwrap_or(2000).clamp(1, 10_000);
    let (readers, logs) = (state.readers.clone(), state.logs.clone());
    let found = tokio::task::spawn_blocking(move || -> std::io::Result<LogMatches> {
        let mut reader = readers.take(&logs, launch);
        let total = reader.line_count()?;
        let begin = asked.cursor.unwrap_or(0);
        let mut at = begin;
        let mut lines = Vec::new();
        while at < total && lines.len() < limit && at - begin < SEARCHED {
            let page = reader.lines(at, MAX_LINES)?;
            if page.lines.is_empty() {
                break;
            }
            for line in &page.lines {
                at += 1;
                let text = line.text();
                let fits = levels.is_empty()
                    || level(&text).is_some_and(|l| levels.iter().any(|w| w == l));
                if fits && pattern.is_match(&text) {
                    lines.push(at);
                    if lines.len() == limit {
                        break;
                    }
                }
            }
        }
        readers.give_back(launch, reader);
        let next = (at < total).then(|| at.to_string());
        let (count, complete) = (lines.len(), next.is_none() && !live);
        Ok(LogMatches { count, complete, lines, next })
    })
    .await;
    match found {
        Ok(Ok(value)) => Ok(Json(value)),
        _ => Ok(Json(LogMatches { complete: !live, ..LogMatches::default() })),
    }
}

fn first_error(reader: &mut LogReader) -> Option<u64> {
    let mut at = 0;
    while at < FIRST_ERROR {
        let page = reader.lines(at, MAX_LINES).ok()?;
        if page.lines.is_empty() {
            return None;
        }
        for line in &page.lines {
            at += 1;
            if level(&line.text()) == Some("error") {
                return Some(at);
            }
        }
    }
    None
}

/// The launch whose log an attempt's is, and whether more may come.
async fn launch_of(
    state: &ApiState,
    id: TaskId,
    attempt: u32,
) -> Result<(LaunchId, bool), ApiError> {
    let task = load_task(state, id).await?;
    let (launch, live) = if attempt == task.attempt {
        (task.launch, !task.state.is_finished())
    } else {
        let rows = state.read(move |v| v.list_attempts(id)).await?;
        let row = rows.into_iter().rfind(|r| r.attempt == attempt);
        let row =
            row.ok_or_else(|| ApiError::not_found(format!("task {id} has no attempt {attempt}")))?;
        (row.launch, false)
    };
    Ok((LaunchId { run: id.run, task: id.task, launch }, live))
}

/// Lines, with a reader that stays: it knows where the lines are that it has passed.
async fn lines_again(
    kept: &mut Option<LogReader>,
    from: i64,
    limit: usize,
) -> Result<(Vec<Line>, u64), ApiError> {
    type Read = std::io::Result<(LogReader, Vec<Line>, u64)>;
    let Some(mut reader) = kept.take() else { return Ok((Vec::new(), 0)) };
    let read = tokio::task::spawn_blocking(move || -> Read {
        let total = reader.line_count()?;
        let first = if from < 0 {
            total.saturating_sub(from.unsigned_abs())
        } else {
            (from.max(1) - 1).unsigned_abs()
        };
        let page = reader.lines(first, limit.min(MAX_LINES))?;
        let lines = page
            .lines
            .iter()
            .enumerate()
            .map(|(place, line)| view(first + place as u64 + 1, line))
            .collect();
        Ok((reader, lines, total))
    })
    .await;
    match read {
        Ok(Ok((reader, lines, total))) => {
            *kept = Some(reader);
            Ok((lines, total))
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok((Vec::new(), 0)),
        Ok(Err(error)) => Err(ApiError::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "log",
            format!("the log cannot be read: {error}"),
        )),
        Err(error) => Err(ApiError::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            error.to_string(),
        )),
    }
}

/// A piece of a log.
#[derive(Debug, Serialize, JsonSchema)]
struct LogPage {
    lines: Vec<Line>,
    /// Lines in all.
    total: u64,
    bytes: u64,
    /// Nothing more will come.
    complete: bool,
    /// Number of the first line that says that it is an error.
    first_error: Option<u64>,
}

async fn page(
    State(state): State<ApiState>,
    Path((id, attempt)): Path<(String, u32)>,
    Query(asked): Query<Asked>,
) -> Result<Json<LogPage>, ApiError> {
    let id = task_id(&id)?;
    let (launch, live) = launch_of(&state, id, attempt).await?;
    let mut reader = Some(state.readers.take(&state.logs, launch));
    let (from, limit) = (asked.from.unwrap_or(1), asked.limit.unwrap_or(1000));
    let (items, total) = lines_again(&mut reader, from, limit).await?;
    let readers = state.readers.clone();
    let mut reader = reader.unwrap_or_else(|| state.logs.reader(launch));
    let (bytes, first_error) = tokio::task::spawn_blocking(move || {
        let found = (reader.len().unwrap_or(0), first_error(&mut reader));
        readers.give_back(launch, reader);
        found
    })
    .await
    .unwrap_or((0, None));
    Ok(Json(LogPage { lines: items, total, bytes, complete: !live, first_error }))
}

async fn download(
    State(state): State<ApiState>,
    Path((id, attempt)): Path<(String, u32)>,
) -> Result<Raw<PlainText>, ApiError> {
    let id = task_id(&id)?;
    let (launch, _) = launch_of(&state, id, attempt).await?;
    let logs = state.logs.clone();
    let text = tokio::task::spawn_blocking(move || -> std::io::Result<Vec<u8>> {
        let mut reader = logs.reader(launch);
        let mut text = Vec::new();
        let mut from = 0;
        loop {
            let page = reader.lines(from, MAX_LINES)?;
            if page.lines.is_empty() {
                return Ok(text);
            }
            from += page.lines.len() as u64;
            for line in page.lines {
                text.extend_from_slice(&line.bytes);
                if !line.partial {
                    text.push(b'\n');
                }
            }
        }
    })
    .await;
    let text = match text {
        Ok(Ok(text)) => text,
        _ => return Err(ApiError::not_found("this attempt has no log")),
    };
    let name = format!("attachment; filename=\"{id}-{attempt}.log\"");
    Ok(Raw::new((
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
            (header::CONTENT_DISPOSITION, name),
        ],
        text,
    )))
}

/// The data of a frame of a log.
#[derive(Serialize, JsonSchema)]
struct LogFrame {
    /// Of the event `lines`.
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<Line>>,
    /// Lines in all.
    total: u64,
    /// Of the event `end`: the state that the task ended in.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<kobza_model::TaskState>,
}

struct Follower {
    state: ApiState,
    id: TaskId,
    attempt: u32,
    launch: LaunchId,
    /// The line to send next, from 1.
    next: u64,
    ended: bool,
    reader: Option<LogReader>,
    growth: Option<Growth>,
    /// Changes with each commit: its task may have ended.
    next_event: watch::Receiver<u64>,
}

async fn follow(
    State(state): State<ApiState>,
    Path((id, attempt)): Path<(String, u32)>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Stream<LogFrame>, ApiError> {
    let id = task_id(&id)?;
    let (launch, _) = launch_of(&state, id, attempt).await?;
    let last =
        headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let next = last.unwrap_or_else(|| asked.from.unwrap_or(1).max(1).unsigned_abs());
    let next_event = state.handle.next_event();
    let (ended, reader, growth) = (false, None, None);
    let follower = Follower { state, id, attempt, launch, next, ended, reader, growth, next_event };
    let messages = stream::unfold(follower, |mut f| async move {
        let message = f.next().await?;
        Some((Ok(message), f))
    });
    let messages: futures_util::stream::BoxStream<'static, Result<Message, Infallible>> =
        messages.boxed();
    Ok(Stream::new(Sse::new(messages).keep_alive(KeepAlive::default())))
}

impl Follower {
    async fn next(&mut self) -> Option<Message> {
        if self.ended {
            return None;
        }
        loop {
            // Whether it lives is asked first: what is written before the end is then surely read.
            let (launch, live) = launch_of(&self.state, self.id, self.attempt).await.ok()?;
            if self.launch != launch || self.reader.is_none() {
                self.reader = Some(self.state.logs.reader(launch));
                self.growth = None;
            }
            self.launch = launch;
            if live && self.growth.as_ref().is_none_or(|growth| !growth.is_of_log()) {
                // Watched before it is read: what comes in between is told.
                self.growth = self.state.growths.of(&self.state.logs.path(launch));
            }
            self.next_event.borrow_and_update();
            let from = i64::try_from(self.next).ok()?;
            let (items, total) = lines_again(&mut self.reader, from, MAX_LINES).await.ok()?;
            if !items.is_empty() {
                self.next += items.len() as u64;
                return Message::default()
                    .event("lines")
                    .id(self.next.to_string())
                    .json_data(LogFrame { lines: Some(items), total, state: None })
                    .ok();
            }
            if !live {
                self.ended = true;
                let state = load_task(&self.state, self.id).await.ok().map(|t| t.state);
                return Message::default()
                    .event("end")
                    .json_data(LogFrame { lines: None, total, state })
                    .ok();
            }
            self.wait().await;
        }
    }

    /// Until the log has grown, its task may have ended, or nothing was told for a while.
    async fn wait(&mut self) {
        let look = if self.growth.is_some() { LOOK } else { LOOK_UNTOLD };
        let grown = async {
            match &mut self.growth {
                Some(growth) => {
                    growth.grown().await;
                    tokio::time::sleep(GATHER).await;
                }
                None => std::future::pending().await,
            }
        };
        let ended = async {
            match self.next_event.changed().await {
                Ok(()) => tokio::time::sleep(GATHER_ENDS).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = grown => {}
            () = ended => {}
            () = tokio::time::sleep(look) => {}
        }
    }
}
