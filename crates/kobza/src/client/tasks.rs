//! `kobza tasks`, `logs` and `why` against a server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::time::Duration;

use serde_json::Value;

use super::{Client, escape, newest};
use crate::cli::{LogsArgs, Output, TasksArgs, WhyArgs};
use crate::failure::Failure;

/// Tasks of one answer.
const MOST: usize = 1_000_000;
/// Lines of one request.
const LINES: u64 = 5000;
/// Before a stream that broke is taken up again.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) fn list(client: &Client, args: &TasksArgs) -> Result<(), Failure> {
    let run = match &args.run {
        Some(run) => run.clone(),
        None => newest(client)?,
    };
    let state = args.state.as_deref().unwrap_or_default();
    let query = [("state", state)];
    let query = if state.is_empty() { &[][..] } else { &query };
    let items = client.list(&format!("/runs/{}/tasks", escape(&run)), query, MOST)?;
    client.show_list(
        &items,
        &[
            ("ID", "/id"),
            ("NAME", "/name"),
            ("INDEX", "/map_index"),
            ("STATE", "/state"),
            ("ATTEMPT", "/attempt"),
            ("MESSAGE", "/message"),
        ],
    )
}

/// A task by id, or by name in the newest run.
fn find(client: &Client, text: &str, index: Option<u32>) -> Result<Value, Failure> {
    let id = text.rsplit_once('.');
    if id.is_some_and(|(run, number)| run.len() == 36 && number.bytes().all(|b| b.is_ascii_digit()))
    {
        return client.get(&format!("/tasks/{}", escape(text)), &[]);
    }
    let run = newest(client)?;
    let items = client.list(&format!("/runs/{run}/tasks"), &[("name", text)], MOST)?;
    let fits = |task: &&Value| {
        task["name"] == text
            && match index {
                Some(index) => task["map_index"] == index,
                None => task["map_index"].is_null() || task["map_index"] == 0,
            }
    };
    let found = items.iter().find(fits);
    found.cloned().ok_or_else(|| {
        Failure::hint(format!("run {run} has no task {text:?}"), "`kobza tasks` lists them")
    })
}

fn field<'a>(task: &'a Value, name: &str) -> Result<&'a str, Failure> {
    task[name].as_str().ok_or_else(|| Failure::new(format!("the answer has no {name}")))
}

pub(crate) fn why(client: &Client, args: &WhyArgs) -> Result<(), Failure> {
    let task = find(client, &args.task, args.index)?;
    let answer = client.get(&format!("/tasks/{}/why", escape(field(&task, "id")?)), &[])?;
    if client.output == Output::Json {
        return client.show(&answer);
    }
    crate::out::show!("{} is {}", field(&task, "name")?, field(&answer, "state")?);
    let reasons = answer["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
    for reason in reasons {
        crate::out::show!("  {}", reason["text"].as_str().unwrap_or_default());
        if let Some(until) = reason["until"].as_str() {
            crate::out::show!("    until: {until}");
        }
        if let Some(hint) = reason["hint"].as_str() {
            crate::out::show!("    hint: {hint}");
        }
    }
    if reasons.is_empty()
        && let Some(summary) = answer["summary"].as_str()
    {
        crate::out::show!("  {summary}");
    }
    Ok(())
}

/// What to do after a line.
#[derive(PartialEq, Eq)]
enum Reader {
    There,
    Gone,
}

fn print(line: &Value, output: Output) -> Result<Reader, Failure> {
    let mut out = std::io::stdout().lock();
    let text = line["text"].as_str().unwrap_or_default();
    let written = if output == Output::Json {
        writeln!(out, "{}", serde_json::json!({"at": line["at"], "text": text}))
    } else {
        writeln!(out, "{text}")
    };
    match written.and_then(|()| out.flush()) {
        // `kobza logs … | head` is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Reader::There),
    }
}

pub(crate) fn log(client: &Client, args: &LogsArgs) -> Result<(), Failure> {
    let task = find(client, &args.task, args.index)?;
    let id = escape(field(&task, "id")?);
    let attempt = match args.attempt {
        Some(attempt) => u64::from(attempt),
        None => task["attempt"].as_u64().unwrap_or(1).max(1),
    };
    let path = format!("/tasks/{id}/attempts/{attempt}/log");
    let mut next: u64 = 1;
    loop {
        let from = next.to_string();
        let query = [("from", from.as_str()), ("limit", "5000")];
        let page = client.get(&path, &query)?;
        let lines = page["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
        for line in lines {
            if print(line, client.output)? == Reader::Gone {
                return Ok(());
            }
            next = line["n"].as_u64().unwrap_or(next) + 1;
        }
        if (lines.len() as u64) < LINES {
            if !args.follow || page["complete"] == true {
                return Ok(());
            }
            break;
        }
    }
    follow(client, &format!("{path}/stream"), next)
}

/// Follows a log's stream to its end; one that breaks is taken up where it was.
fn follow(client: &Client, path: &str, mut next: u64) -> Result<(), Failure> {
    loop {
        let from = next.to_string();
        let response = client.request("GET", path, &[("from", &from)], None)?;
        let mut event = String::new();
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            // The server has gone, or the way to it.
            let Ok(line) = line else { break };
            if let Some(name) = line.strip_prefix("event:") {
                name.trim().clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data:") {
                let frame: Value = serde_json::from_str(data.trim()).unwrap_or_default();
                for line in frame["lines"].as_array().into_iter().flatten() {
                    if print(line, client.output)? == Reader::Gone {
                        return Ok(());
                    }
                    next = line["n"].as_u64().unwrap_or(next) + 1;
                }
                if event == "end" {
                    return Ok(());
                }
            } else if line.is_empty() {
                event.clear();
            }
        }
        std::thread::sleep(PAUSE);
    }
}
