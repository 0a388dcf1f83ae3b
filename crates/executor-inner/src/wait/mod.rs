//! Waiting without holding a worker.

mod step;
mod waiters;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use kobza_engine::{KillReason, Report, ReportBody};
use kobza_model::{Cause, Event, EventKind, LaunchId, Outcome};
use kobza_runtime::{Committed, Executor, Handle, LaunchSpec, ReportSink as _};
use kobza_store::Views;
use serde::Deserialize as _;
use tokio::sync::broadcast;

use crate::{ended, report};
use step::{Asked, Step, World};
use waiters::Waiters;

/// Pause before the store is asked again for what it did not take.
const AWAY: Duration = Duration::from_secs(1);

/// Carries out `wait` tasks: for a time, until a time, until a file is there, an event was sent,
/// an asset has data, or until it is resumed.
///
/// `LaunchSpec::extra` says for what ([`Asked`]); and, in `carry`, what an earlier launch of the
/// same attempt left. What waits for an event or an asset is known from the tasks' rows, and
/// follows the event log from the number that its row names: a restart misses nothing.
#[derive(Debug)]
pub struct WaitExecutor {
    work: mpsc::Sender<Work>,
}

enum Work {
    Launch(LaunchId, Box<LaunchSpec>),
    Kill(LaunchId),
    Adopt(Vec<LaunchId>),
    /// Events that may end a wait, and the number up to which all were looked at.
    Events(Vec<(u64, Event)>, u64),
    /// Events were missed: the log has them.
    Missed,
    Stop,
}

impl WaitExecutor {
    /// Starts its threads, which end with the executor.
    pub fn start(handle: Handle, views: Arc<dyn Views>) -> io::Result<Self> {
        let (work, inbox) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (mut events, told, wanted) = (handle.follow(), work.clone(), waiting.clone());
        std::thread::Builder::new().name("kobza-wait-events".to_owned()).spawn(move || {
            while let Some(item) = next_events(&mut events, &wanted) {
                if told.send(item).is_err() {
                    return;
                }
            }
        })?;
        let mut waiters = Waiters::new(handle.clone(), views, waiting);
        std::thread::Builder::new().name("kobza-wait".to_owned()).spawn(move || {
            // Nothing can be read before the loop has its store.
            if handle.now_blocking().is_err() {
                return;
            }
            if !waiters.settle() {
                return;
            }
            loop {
                let item = match waiters.unsettled() {
                    false => inbox.recv().map_err(RecvTimeoutError::from),
                    true => inbox.recv_timeout(AWAY),
                };
                let goes_on = match item {
                    Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => false,
                    Ok(item) => carry_out(&handle, &mut waiters, item),
                    Err(RecvTimeoutError::Timeout) => true,
                };
                if !goes_on || !waiters.settle() {
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

impl Drop for WaitExecutor {
    fn drop(&mut self) {
        self.send(Work::Stop);
    }
}

impl Executor for WaitExecutor {
    fn launch(&self, launch: LaunchId, spec: LaunchSpec) {
        self.send(Work::Launch(launch, Box::new(spec)));
    }

    fn kill(&self, launch: LaunchId, _reason: KillReason) {
        self.send(Work::Kill(launch));
    }

    fn adopt(&self, launches: Vec<LaunchId>) {
        self.send(Work::Adopt(launches));
    }
}

/// The next events that somebody may wait for; `None` once the loop is gone.
fn next_events(events: &mut broadcast::Receiver<Committed>, waiting: &AtomicUsize) -> Option<Work> {
    loop {
        match events.blocking_recv() {
            Ok(_) if waiting.load(Ordering::SeqCst) == 0 => {}
            Ok(committed) => {
                let upto = (committed.first + committed.events.len() as u64).saturating_sub(1);
                let concerns = |event: &Event| match event.kind {
                    EventKind::Sent { .. } | EventKind::Materialized { .. } => true,
                    EventKind::Task { state, .. } => state.is_finished(),
                    _ => false,
                };
                let numbered = (committed.first..).zip(committed.events.iter());
                let found = numbered.filter(|(_, event)| concerns(event));
                return Some(Work::Events(found.map(|(n, e)| (n, e.clone())).collect(), upto));
            }
            Err(broadcast::error::RecvError::Lagged(_)) => return Some(Work::Missed),
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

/// False once the loop has stopped.
fn carry_out(handle: &Handle, waiters: &mut Waiters, work: Work) -> bool {
    match work {
        Work::Launch(launch, spec) => {
            waiters.forget(launch.task_id());
            let Ok(now) = handle.now_blocking() else { return false };
            let answer = launched(launch, &spec, now, waiters);
            handle.report(answer, Box::new(|| {}));
        }
        Work::Kill(launch) => {
            waiters.forget(launch.task_id());
            let end = ended(launch, Outcome::Cancelled, Cause::Hand, None, Vec::new());
            handle.report(end, Box::new(|| {}));
        }
        // A wait is never confirmed: it ends or gives its worker back at once.
        Work::Adopt(launches) => {
            for launch in launches {
                let message = "the wait was interrupted".to_owned();
                handle.report(report(launch, ReportBody::Lost { message }), Box::new(|| {}));
            }
        }
        Work::Events(events, upto) => waiters.look(&events, upto),
        Work::Missed => waiters.catch_up(),
        Work::Stop => return false,
    }
    true
}

fn launched(
    launch: LaunchId,
    spec: &LaunchSpec,
    now: kobza_model::Now,
    waiters: &mut Waiters,
) -> Report {
    let asked = match Asked::deserialize(&spec.extra) {
        Ok(asked) => asked,
        Err(error) => {
            let message = Some(format!("this is no wait: {error}"));
            return ended(launch, Outcome::Failed, Cause::Template, message, Vec::new());
        }
    };
    // Counted before the log's end is looked at: what comes after it is told.
    waiters.expect_one();
    let world = World {
        now,
        newest: waiters.newest(),
        there: &|path: &PathBuf| path.try_exists(),
        made: &|on| waiters.made(on).map_err(|e| e.to_string()),
    };
    let (step, carry) = step::step(asked, spec.timeout_ms, &world);
    let answer = match step {
        Step::Over(outputs) => ended(launch, Outcome::Succeeded, Cause::None, None, outputs),
        Step::TimedOut => {
            let message = Some("what it waited for did not come in time".to_owned());
            ended(launch, Outcome::Failed, Cause::Timeout, message, Vec::new())
        }
        Step::Failed(message) => {
            ended(launch, Outcome::Failed, Cause::Template, Some(message), Vec::new())
        }
        Step::Sleep { until: Some(until), poll: true } => {
            report(launch, ReportBody::Rescheduled { until, carry: serde_json::json!(carry) })
        }
        Step::Sleep { until, .. } => {
            if let Some(on) = &carry.on {
                waiters.add(launch.task_id(), on.clone());
            }
            report(launch, ReportBody::Deferred { until, carry: serde_json::json!(carry) })
        }
    };
    waiters.expected();
    answer
}
