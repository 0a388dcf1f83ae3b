//! Logs of tries.

use axum::http::{StatusCode, header};
use kobza_blobs::LogLine;
use kobza_model::{Json, LaunchId, TaskRow};
use serde_json::json;

use super::Rest;
use super::answer::{Call, Reply, RestError};
use super::table::{Route, get};

pub(crate) fn routes() -> Vec<Route> {
    vec![get(
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/logs/{try_number}",
        log,
    )]
}

/// Bytes of an answer; with `full_content` they are as many as there are, up to the second.
const PAGE_BYTES: usize = 1 << 20;
const FULL_BYTES: usize = 64 << 20;

/// Where the next page begins: a launch, and an offset in its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    launch: u32,
    offset: u64,
}

impl Place {
    fn read(text: &str) -> Option<Self> {
        let (launch, offset) = text.strip_prefix("at-")?.split_once('-')?;
        Some(Self { launch: launch.parse().ok()?, offset: offset.parse().ok()? })
    }

    fn text(self) -> String {
        format!("at-{}-{}", self.launch, self.offset)
    }
}

fn log(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let number = call.number("try_number")?;
    if number < 0 {
        return Err(RestError::field(
            &["path", "try_number"],
            "Input should be greater than or equal to 0",
        ));
    }
    let missing = |error: RestError| match error.status {
        StatusCode::NOT_FOUND => RestError::not_found("TaskInstance not found"),
        _ => error,
    };
    let (_, row) = rest.try_of(call, number).map_err(missing)?;
    let from = match call.query.one("token").filter(|token| !token.is_empty()) {
        None => Place::default(),
        Some(token) => Place::read(token).ok_or_else(|| {
            RestError::bad("Bad Signature. Please use only the tokens provided by the API.")
        })?,
    };
    let full = call.query.flag("full_content")? == Some(true);
    let (lines, next) = read(rest, &row, from, if full { FULL_BYTES } else { PAGE_BYTES })?;
    if call.header(header::ACCEPT) == "application/x-ndjson" {
        let text = lines.iter().map(|line| format!("{line}\n")).collect();
        return Ok(Reply::Text("application/x-ndjson", text));
    }
    // While it runs there may be more, even if there is none now.
    let more = next.filter(|(_, ended)| !ended || !row.state.is_finished());
    Reply::ok(json!({
        "content": lines, "continuation_token": more.map(|(place, _)| place.text()),
    }))
}

/// Lines of a try from a place on, and where the next ones begin; whether all there is was read.
type Read = (Vec<Json>, Option<(Place, bool)>);

fn read(rest: &Rest, row: &TaskRow, from: Place, most: usize) -> Result<Read, RestError> {
    // A try that was deferred or rescheduled had several launches.
    let tries = rest.tries(row)?;
    let before = tries.iter().filter(|other| other.attempt < row.attempt).map(|o| o.launch).max();
    let first = before.unwrap_or(0) + 1;
    let id = kobza_model::TaskId { run: row.run, task: row.task };
    let launches: Vec<u32> = rest
        .logs
        .launches(id)?
        .into_iter()
        .map(|launch| launch.launch)
        .filter(|launch| (first..=row.launch).contains(launch) && *launch >= from.launch)
        .collect();
    let (mut lines, mut left) = (Vec::new(), most);
    let mut place = from;
    let mut partial = String::new();
    for launch in launches {
        let offset = if launch == from.launch { from.offset } else { 0 };
        let reader = rest.logs.reader(LaunchId { run: row.run, task: row.task, launch });
        let page = reader.read(offset, left)?;
        for line in &page.lines {
            partial.push_str(&line.text());
            if !line.partial {
                lines.push(message(line, &std::mem::take(&mut partial)));
            }
        }
        place = Place { launch, offset: page.next };
        let used = usize::try_from(page.next.saturating_sub(offset)).unwrap_or(left);
        left = left.saturating_sub(used);
        if page.next < reader.len()? || left == 0 {
            return Ok((lines, Some((place, false))));
        }
    }
    Ok((lines, Some((place, true))))
}

const LEVELS: [&str; 6] = ["debug", "info", "warning", "error", "critical", "exception"];

/// A line as a structured message: what the SDK logged begins with its level.
fn message(line: &LogLine, text: &str) -> Json {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let level = LEVELS.iter().find(|level| level.to_uppercase() == word);
    match level {
        Some(level) => json!({"timestamp": line.time, "level": level, "event": rest}),
        None => json!({"timestamp": line.time, "event": text}),
    }
}

#[cfg(test)]
mod tests {
    use kobza_blobs::LogStream;
    use kobza_model::Timestamp;

    use super::*;

    #[test]
    fn lines_become_messages() {
        let line = LogLine {
            time: Timestamp(1),
            stream: LogStream::Stdout,
            partial: false,
            bytes: Vec::new(),
        };
        let told = message(&line, "WARNING it is late n=1");
        assert_eq!((&told["level"], &told["event"]), (&json!("warning"), &json!("it is late n=1")));
        let told = message(&line, "plain words");
        assert_eq!((told.get("level"), &told["event"]), (None, &json!("plain words")));
        assert_eq!(Place::read("at-3-17"), Some(Place { launch: 3, offset: 17 }));
        assert_eq!(Place::read("x"), None);
    }
}
