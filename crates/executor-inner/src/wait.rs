//! Waiting without holding a worker.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc;

use kobza_engine::ReportBody;
use kobza_model::{Cause, EngineTime, Json, LaunchId, Now, Outcome, Timestamp};
use kobza_runtime::{Executor, Handle, LaunchSpec, ReportSink as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{ended, report};

/// Longest wait for a wall time in one piece: engine time stands still while no server runs, so
/// the wall clock is looked at again at least so often.
const PIECE_MS: u64 = 10 * 60 * 1000;
/// Shortest pause between two looks at a file.
const MIN_POLL_MS: u64 = 100;

/// Carries out `wait` tasks: for a time, until a time, until a file is there, until it is resumed.
///
/// `LaunchSpec::extra` says for what: `for_ms`, `until` (RFC 3339), `file` with `every_ms`, or
/// `event`; and, in `carry`, what an earlier launch of the same attempt left.
#[derive(Debug)]
pub struct WaitExecutor {
    work: mpsc::Sender<Work>,
}

enum Work {
    Launch(LaunchId, Box<LaunchSpec>),
    Kill(LaunchId),
    Adopt(Vec<LaunchId>),
}

/// What a wait remembers between its launches.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Carry {
    /// A wait for a duration ends here.
    #[serde(default)]
    over: Option<EngineTime>,
    /// The attempt's time-out.
    #[serde(default)]
    deadline: Option<EngineTime>,
    /// For what, in words for people who ask why it waits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    waits_for: String,
}

#[derive(Debug, PartialEq)]
enum Step {
    Over,
    TimedOut,
    Failed(String),
    Sleep { until: Option<EngineTime>, poll: bool },
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    for_ms: Option<u64>,
    #[serde(default)]
    until: Option<String>,
    #[serde(default)]
    file: Option<PathBuf>,
    #[serde(default)]
    every_ms: u64,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    carry: Option<Carry>,
}

impl WaitExecutor {
    /// Starts its thread, which ends with the executor.
    pub fn start(handle: Handle) -> io::Result<Self> {
        let (work, inbox) = mpsc::channel();
        std::thread::Builder::new().name("kobza-wait".to_owned()).spawn(move || {
            for item in inbox {
                if !carry_out(&handle, item) {
                    return;
                }
            }
        })?;
        Ok(Self { work })
    }

    fn send(&self, work: Work) {
        // The thread has ended with the loop: nobody is left to tell.
        let _stopped = self.work.send(work);
    }
}

impl Executor for WaitExecutor {
    fn launch(&self, launch: LaunchId, spec: LaunchSpec) {
        self.send(Work::Launch(launch, Box::new(spec)));
    }

    fn kill(&self, launch: LaunchId, _reason: kobza_engine::KillReason) {
        self.send(Work::Kill(launch));
    }

    fn adopt(&self, launches: Vec<LaunchId>) {
        self.send(Work::Adopt(launches));
    }
}

/// False once the loop has stopped.
fn carry_out(handle: &Handle, work: Work) -> bool {
    let reports = match work {
        Work::Launch(launch, spec) => {
            let Ok(now) = handle.now_blocking() else { return false };
            vec![launched(launch, &spec, now)]
        }
        Work::Kill(launch) => {
            vec![ended(launch, Outcome::Cancelled, Cause::Hand, None, Vec::new())]
        }
        // A wait is never confirmed: it ends or gives its worker back at once.
        Work::Adopt(launches) => launches
            .into_iter()
            .map(|launch| {
                report(launch, ReportBody::Lost { message: "the wait was interrupted".to_owned() })
            })
            .collect(),
    };
    for report in reports {
        handle.report(report, Box::new(|| {}));
    }
    true
}

fn launched(launch: LaunchId, spec: &LaunchSpec, now: Now) -> kobza_engine::Report {
    let asked = match Asked::deserialize(&spec.extra) {
        Ok(asked) => asked,
        Err(error) => {
            let message = Some(format!("this is no wait: {error}"));
            return ended(launch, Outcome::Failed, Cause::Template, message, Vec::new());
        }
    };
    let there = |path: &PathBuf| path.try_exists();
    let (step, carry) = step(asked, spec.timeout_ms, now, there);
    match step {
        Step::Over => ended(launch, Outcome::Succeeded, Cause::None, None, Vec::new()),
        Step::TimedOut => {
            let message = Some("what it waited for did not come in time".to_owned());
            ended(launch, Outcome::Failed, Cause::Timeout, message, Vec::new())
        }
        Step::Failed(message) => {
            ended(launch, Outcome::Failed, Cause::Template, Some(message), Vec::new())
        }
        Step::Sleep { until: Some(until), poll: true } => {
            report(launch, ReportBody::Rescheduled { until, carry })
        }
        Step::Sleep { until, .. } => report(launch, ReportBody::Deferred { until, carry }),
    }
}

/// What to do now, and what to remember.
fn step(
    asked: Asked,
    timeout_ms: Option<u64>,
    now: Now,
    there: impl Fn(&PathBuf) -> io::Result<bool>,
) -> (Step, Json) {
    let woken = asked.carry.is_some();
    let mut carry = asked.carry.unwrap_or_default();
    if !woken {
        carry.deadline = timeout_ms.map(|ms| now.engine.after_millis(ms));
        carry.over = asked.for_ms.map(|ms| now.engine.after_millis(ms));
    }
    carry.waits_for = match (&asked.file, &asked.until, &asked.event) {
        (Some(path), _, _) => format!("the file {}", path.display()),
        (None, Some(until), _) => until.clone(),
        (None, None, Some(event)) => format!("the event {event}"),
        (None, None, None) => String::new(),
    };
    let (until, poll) = if let Some(path) = &asked.file {
        match there(path) {
            Ok(true) => return (Step::Over, Json::Null),
            Ok(false) => {}
            // A folder that cannot be read may be readable at the next look.
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot look for a file"),
        }
        (Some(now.engine.after_millis(asked.every_ms.max(MIN_POLL_MS))), true)
    } else if let Some(text) = &asked.until {
        let Ok(time) = text.parse::<Timestamp>() else {
            let shown: String = text.chars().take(60).collect();
            let message =
                format!("wait.until: {shown:?} is not a time such as 2026-01-31T02:00:00Z");
            return (Step::Failed(message), Json::Null);
        };
        let left = time.0.saturating_sub(now.wall.0);
        match u64::try_from(left) {
            Ok(micros) if micros > 0 => {
                (Some(now.engine.after_millis(micros.div_ceil(1000).min(PIECE_MS))), false)
            }
            _ => return (Step::Over, Json::Null),
        }
    } else if let Some(over) = carry.over {
        if over <= now.engine {
            return (Step::Over, Json::Null);
        }
        (Some(over), false)
    } else if asked.event.is_some() {
        // Whoever wakes it before its deadline says that the event is there.
        if woken && carry.deadline.is_none_or(|deadline| now.engine < deadline) {
            return (Step::Over, Json::Null);
        }
        (None, false)
    } else {
        return (Step::Failed("the wait does not say for what".to_owned()), Json::Null);
    };
    let until = match (until, carry.deadline) {
        (_, Some(deadline)) if deadline <= now.engine => return (Step::TimedOut, Json::Null),
        (Some(until), Some(deadline)) => Some(until.min(deadline)),
        (until, deadline) => until.or(deadline),
    };
    (Step::Sleep { until, poll }, json!(carry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Now {
        Now { wall: Timestamp(1_000_000_000 + ms * 1000), engine: EngineTime(ms * 1000) }
    }

    fn look(extra: Json, timeout: Option<u64>, now: Now, there: bool) -> (Step, Json) {
        step(Asked::deserialize(&extra).unwrap(), timeout, now, |_| Ok(there))
    }

    fn sleep(ms: i64, poll: bool) -> Step {
        Step::Sleep { until: Some(EngineTime(ms * 1000)), poll }
    }

    #[test]
    fn for_a_time() {
        let (first, carry) = look(json!({"for_ms": 300}), None, at(10), false);
        assert_eq!(first, sleep(310, false));
        let early = json!({"for_ms": 300, "carry": carry});
        assert_eq!(look(early.clone(), None, at(200), false).0, sleep(310, false));
        assert_eq!(look(early, None, at(310), false).0, Step::Over);
    }

    #[test]
    fn until_a_time_in_pieces() {
        let until = Timestamp(1_000_000_000 + 3_600_000_000).to_string();
        let asked = json!({"until": until});
        assert_eq!(look(asked.clone(), None, at(0), false).0, sleep(600_000, false));
        assert_eq!(look(asked.clone(), None, at(3_599_000), false).0, sleep(3_600_000, false));
        assert_eq!(look(asked, None, at(3_600_000), false).0, Step::Over);
        let wrong = look(json!({"until": "soon"}), None, at(0), false).0;
        assert!(matches!(wrong, Step::Failed(text) if text.contains("soon")));
    }

    #[test]
    fn files_until_the_deadline() {
        let asked = json!({"file": "/x", "every_ms": 1000});
        let (first, carry) = look(asked.clone(), Some(1500), at(0), false);
        assert_eq!(first, sleep(1000, true));
        let again = json!({"file": "/x", "every_ms": 1000, "carry": carry});
        assert_eq!(look(again.clone(), Some(1500), at(1000), false).0, sleep(1500, true));
        assert_eq!(look(again.clone(), Some(1500), at(1500), false).0, Step::TimedOut);
        assert_eq!(look(again, Some(1500), at(1500), true).0, Step::Over);
    }

    #[test]
    fn events_wake_by_a_call() {
        let (first, carry) = look(json!({"event": "e"}), None, at(0), false);
        assert_eq!(first, Step::Sleep { until: None, poll: false });
        let woken = json!({"event": "e", "carry": carry});
        assert_eq!(look(woken, None, at(5), false).0, Step::Over);
    }
}
