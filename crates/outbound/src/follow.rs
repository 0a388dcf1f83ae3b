//! The one consumer of the event log that all outlets share.

use std::time::Duration;

use kobza_model::Event;
use kobza_runtime::{Submission, SubmitError};
use kobza_store::{Views, Write, kinds};
use serde_json::json;

use crate::Parts;

/// Events looked at in one go.
const PAGE: u32 = 1000;
/// What comes within a moment is taken in one go, and costs one commit.
const GATHER: Duration = Duration::from_millis(200);
/// The first pause after a failure.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Something that follows the log.
pub(crate) trait Outlet: Send {
    /// Its place is kept under this name.
    fn name(&self) -> &'static str;

    /// Takes care of events. The writes are committed together with its place; an error means
    /// that the same events come again.
    fn take(&mut self, events: &[(u64, Event)], parts: &Parts) -> Result<Vec<Write>, String>;

    /// What it last gave is durable.
    fn committed(&mut self) {}
}

/// Follows the log from where the outlet was; a new outlet begins with what happens next.
pub(crate) fn start(parts: Parts, outlet: Box<dyn Outlet>) -> std::io::Result<()> {
    let name = outlet.name();
    let waiter = tokio::runtime::Builder::new_current_thread().build()?;
    std::thread::Builder::new()
        .name(format!("kobza-{name}"))
        .spawn(move || follow(&parts, outlet, &waiter))
        .map(drop)
}

fn place(outlet: &str, seen: u64) -> Write {
    Write::PutObject {
        kind: kinds::SETTING,
        namespace: String::new(),
        key: format!("outbound/{outlet}"),
        value: Some(json!({"seen": seen})),
    }
}

fn saved(views: &dyn Views, outlet: &str) -> Result<Option<u64>, String> {
    let object = views
        .get_object(kinds::SETTING, "", &format!("outbound/{outlet}"))
        .map_err(|e| e.to_string())?;
    Ok(object.and_then(|o| o.value["seen"].as_u64()))
}

fn follow(parts: &Parts, mut outlet: Box<dyn Outlet>, waiter: &tokio::runtime::Runtime) {
    let name = outlet.name();
    let mut next_event = parts.handle.next_event();
    let mut seen: Option<u64> = None;
    let mut pause = PAUSE;
    loop {
        match step(parts, outlet.as_mut(), &mut seen) {
            Ok(true) => pause = PAUSE,
            Ok(false) => {
                pause = PAUSE;
                let after = seen.unwrap_or(0) + 1;
                if waiter.block_on(next_event.wait_for(|next| *next > after)).is_err() {
                    return;
                }
                std::thread::sleep(GATHER);
            }
            Err(Stop::Server) => return,
            Err(Stop::Later(error)) => {
                tracing::warn!(outlet = name, error, "what goes out waits; it is tried again");
                std::thread::sleep(pause);
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

enum Stop {
    Server,
    Later(String),
}

/// Whether there was something to do.
fn step(parts: &Parts, outlet: &mut dyn Outlet, seen: &mut Option<u64>) -> Result<bool, Stop> {
    let from = match *seen {
        Some(from) => from,
        None => match saved(parts.views.as_ref(), outlet.name()).map_err(Stop::Later)? {
            Some(from) => *seen.insert(from),
            None => {
                let newest = parts.handle.next_event().borrow().saturating_sub(1);
                commit(parts, vec![place(outlet.name(), newest)])?;
                *seen.insert(newest)
            }
        },
    };
    let page =
        parts.views.events_since(from, PAGE, None).map_err(|e| Stop::Later(e.to_string()))?;
    if page.events.is_empty() {
        return Ok(false);
    }
    let mut writes = outlet.take(&page.events, parts).map_err(Stop::Later)?;
    writes.push(place(outlet.name(), page.seen));
    commit(parts, writes)?;
    outlet.committed();
    *seen = Some(page.seen);
    Ok(true)
}

pub(crate) fn stopped(error: &SubmitError) -> bool {
    matches!(error, SubmitError::Stopped)
}

fn commit(parts: &Parts, writes: Vec<Write>) -> Result<(), Stop> {
    let submission = Submission { commands: Vec::new(), writes };
    match parts.handle.submit_blocking(submission) {
        Ok(_) => Ok(()),
        Err(error) if stopped(&error) => Err(Stop::Server),
        Err(error) => Err(Stop::Later(error.to_string())),
    }
}
