//! One running task.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kobza_blobs::{LogWriter, Masker};
use kobza_model::{Cause, Json, LaunchId, Outcome, Timestamp};
use kobza_runtime::{LaunchSpec, Poll, Said};
use nix::sys::signal::Signal;

use super::cgroup::Cgroup;
use super::output::{self, DEFAULT_OUTPUT_BYTES, LastLine};
use crate::wire::Finished;

/// Between the polite signal and SIGKILL, unless the task asks otherwise.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// How its main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
}

/// Why it is being ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By a person or because its run stops.
    Stopped,
    /// Its own time limit, in milliseconds.
    TimedOut(u64),
    /// The server says it took too long.
    TimedOutByServer,
    /// Its tree uses more memory than it may, in bytes.
    OverMemory { limit: u64, used: u64 },
    /// The shim was told to end.
    Shutdown,
}

/// What happens at the task's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The time limit, if any.
    Running,
    /// It was asked to end; then it is killed.
    Asked,
    /// It is killed again, until nothing of it is left.
    Killed,
    /// Its main process has ended and left others, which may finish on their own for a moment (a
    /// `tee` that still writes); then they are asked to end.
    Lingering,
    /// Nothing of it is left, but somebody holds its pipes open; then they are closed.
    Draining,
}

#[derive(Debug)]
pub(super) struct Task {
    pub launch: LaunchId,
    pub pid: i32,
    pub stdout: Option<File>,
    pub stderr: Option<File>,
    pub log: LogWriter,
    pub masker: Option<Masker>,
    /// Of standard output for a result, of standard error for a message.
    pub last_line: Option<LastLine>,
    pub exit: Option<Exit>,
    pub end: Option<End>,
    /// It has said itself how it ended, or that it waits: nothing is left to report.
    pub over: bool,
    /// The server has what it said, durably.
    pub confirmed: bool,
    /// Why it must not go on.
    pub refusal: Option<String>,
    pub step: Step,
    pub deadline: Option<Instant>,
    /// When it began, until that is told.
    pub untold: Option<Timestamp>,
    pub last_read: Instant,
    pub folder: PathBuf,
    pub output: PathBuf,
    pub cgroup: Option<Cgroup>,
    pub spec: Kept,
}

/// What of a [`LaunchSpec`] is needed after the start.
#[derive(Debug)]
pub(super) struct Kept {
    pub timeout_ms: Option<u64>,
    pub grace: Duration,
    memory_bytes: Option<u64>,
    cpu_seconds: Option<u64>,
    output_bytes: u64,
    skip_exit_codes: Vec<i32>,
    pub capture_result: bool,
    /// A body that is part of this binary: its exit code and last words have a meaning.
    pub builtin: bool,
    /// A built-in that runs a command of the user and ends with that command's exit code.
    runner: bool,
    /// A Python function: its outputs tell how it ended.
    pub python: bool,
    poll: Option<Poll>,
}

impl Kept {
    pub(super) fn of(spec: LaunchSpec, builtin: bool, python: bool) -> Self {
        Self {
            timeout_ms: spec.timeout_ms,
            grace: spec.grace_ms.map_or(DEFAULT_GRACE, Duration::from_millis),
            memory_bytes: spec.memory_bytes,
            cpu_seconds: spec.cpu_seconds,
            output_bytes: spec.output_bytes.unwrap_or(DEFAULT_OUTPUT_BYTES),
            skip_exit_codes: spec.skip_exit_codes,
            capture_result: spec.capture_result,
            builtin,
            runner: builtin && spec.args.last().is_some_and(|arg| arg == "argo"),
            python,
            poll: spec.poll,
        }
    }
}

impl Task {
    /// What is reported, once nothing of it runs any more.
    pub(super) fn finished(&mut self) -> Finished {
        let mut finished = Finished {
            outcome: Outcome::Failed,
            cause: Cause::Code,
            message: None,
            exit_code: match self.exit {
                Some(Exit::Code(code)) => Some(code),
                // As shells count it.
                Some(Exit::Signal(signal)) => Some(128 + signal),
                None => None,
            },
            outputs: Vec::new(),
            log: self.log.summary().clone(),
        };
        let outputs = output::read(&self.output, self.spec.output_bytes);
        if let Some(refusal) = self.refusal.take() {
            finished.message = Some(refusal);
        } else if let Some(end) = self.end {
            (finished.outcome, finished.cause, finished.message) = ended(end);
        } else {
            match self.exit {
                Some(Exit::Code(0)) => {
                    finished.outcome = Outcome::Succeeded;
                    finished.cause = Cause::None;
                }
                Some(Exit::Code(code)) if self.spec.skip_exit_codes.contains(&code) => {
                    finished.outcome = Outcome::Skipped;
                    finished.message = Some(format!("exit code {code}"));
                }
                Some(Exit::Code(code)) => self.failed(code, &mut finished),
                Some(Exit::Signal(signal)) => self.killed(signal, &mut finished),
                None => {
                    finished.cause = Cause::Infrastructure;
                    finished.message = Some("how it ended is not known".into());
                }
            }
        }
        match outputs {
            Ok(Some(outputs)) => finished.outputs = outputs,
            Ok(None) if self.spec.capture_result => {
                // It is a line of the log, and like all of it without secrets.
                let line = self.last_line.as_mut().and_then(LastLine::take);
                let line = line.map(|l| self.masker.as_ref().map_or(l.clone(), |m| m.mask(&l)));
                finished.outputs.extend(line.map(|l| ("result".to_owned(), l.into())));
            }
            Ok(None) => {}
            // Of a task that failed anyway, the first reason is the better one.
            Err((cause, message)) if finished.outcome == Outcome::Succeeded => {
                finished.outcome = Outcome::Failed;
                finished.cause = cause;
                finished.message = Some(message);
            }
            Err(_) => {}
        }
        if self.spec.python && self.end.is_none() {
            python_ending(&mut finished);
        }
        if let (Some(masker), Some(message)) = (&self.masker, &mut finished.message) {
            *message = masker.mask(message);
        }
        finished
    }

    /// When it is to look again, if it only looks and did not see what it waits for. What looked
    /// for too long is changed to say so.
    pub(super) fn looks_again(&self, finished: &mut Finished, now: Timestamp) -> Option<Said> {
        let poll = self.spec.poll.as_ref()?;
        let code = finished.exit_code.filter(|_| self.end.is_none() && self.refusal.is_none())?;
        let failed = finished.outcome == Outcome::Failed && finished.cause != Cause::Limit;
        if !failed || !poll.exit_codes.contains(&code) {
            return None;
        }
        let seen = finished.message.take().unwrap_or_default();
        if poll.deadline.is_some_and(|deadline| deadline <= now) {
            finished.cause = Cause::Timeout;
            finished.message = Some(format!("what it waited for did not come in time: {seen}"));
            return None;
        }
        let micros = i64::try_from(poll.every_ms.saturating_mul(1000)).unwrap_or(i64::MAX);
        let next = now.saturating_add_micros(micros);
        let until = poll.deadline.map_or(next, |deadline| next.min(deadline));
        let mut carry = poll.carry.clone();
        carry["last"] = Json::from(seen);
        Some(Said::Rescheduled { until, carry })
    }

    fn failed(&mut self, code: i32, finished: &mut Finished) {
        let mut message = format!("exit code {code}");
        if self.out_of_memory() {
            finished.cause = Cause::Limit;
            message = self.over_memory();
        } else if self.spec.builtin {
            finished.cause = crate::builtin::cause_of_exit(code, self.spec.runner);
            if let Some(line) = self.last_line.as_mut().and_then(LastLine::take) {
                message = line;
            }
        } else {
            message += &self.within_memory();
        }
        finished.message = Some(message);
    }

    fn killed(&self, signal: i32, finished: &mut Finished) {
        let name = Signal::try_from(signal)
            .map_or_else(|_| format!("signal {signal}"), |s| s.as_str().to_owned());
        finished.message = Some(match (signal, self.spec.cpu_seconds) {
            _ if self.out_of_memory() => {
                finished.cause = Cause::Limit;
                self.over_memory()
            }
            (nix::libc::SIGXCPU | nix::libc::SIGKILL, Some(seconds)) => {
                finished.cause = Cause::Limit;
                format!("killed by {name}: it used its limit of {seconds} s of CPU time")
            }
            (nix::libc::SIGKILL, None) => format!("killed by {name} (out of memory?)"),
            _ => format!("killed by {name}{}", self.within_memory()),
        });
    }

    /// How a process ends that gets no more memory is its own affair: a hint.
    fn within_memory(&self) -> String {
        match self.spec.memory_bytes {
            Some(bytes) if self.cgroup.is_none() => {
                format!(" (with a limit of {bytes} bytes of memory)")
            }
            _ => String::new(),
        }
    }

    /// The limit, in bytes, that no control group holds.
    pub(super) fn watched_memory(&self) -> Option<u64> {
        self.spec.memory_bytes.filter(|_| self.cgroup.is_none())
    }

    fn out_of_memory(&self) -> bool {
        self.cgroup.as_ref().is_some_and(Cgroup::out_of_memory)
    }

    fn over_memory(&self) -> String {
        format!("killed: over its limit of {} bytes of memory", self.spec.memory_bytes.unwrap_or(0))
    }
}

/// What the outputs of a Python function say of its end, beyond the exit code.
fn python_ending(finished: &mut Finished) {
    let take = |outputs: &mut Vec<(String, Json)>, key: &str| {
        let at = outputs.iter().position(|(name, _)| name == key)?;
        Some(outputs.remove(at).1)
    };
    let words = |value: &Json| value.as_str().map(str::to_owned);
    if let Some(error) = take(&mut finished.outputs, "$error")
        && finished.outcome == Outcome::Failed
    {
        finished.message = error.get("message").and_then(words).or(finished.message.take());
        let cause = error.get("cause").and_then(Json::as_str).and_then(Cause::from_word);
        finished.cause = cause.unwrap_or(finished.cause);
    }
    if finished.outcome != Outcome::Succeeded {
        return;
    }
    if let Some(reason) = take(&mut finished.outputs, "$skip") {
        finished.outcome = Outcome::Skipped;
        finished.message = words(&reason).filter(|reason| !reason.is_empty());
    } else if finished.outputs.is_empty() {
        finished.outcome = Outcome::Failed;
        finished.cause = Cause::Code;
        finished.message = Some(
            "the process ended before the function returned: something in it called os._exit"
                .into(),
        );
    }
}

/// How a task that was ended from outside is reported.
pub(super) fn ended(end: End) -> (Outcome, Cause, Option<String>) {
    match end {
        End::Stopped => (Outcome::Cancelled, Cause::Hand, Some("stopped".into())),
        End::TimedOut(ms) => {
            let seconds = std::time::Duration::from_millis(ms).as_secs_f64();
            (Outcome::Failed, Cause::Timeout, Some(format!("timed out after {seconds} s")))
        }
        End::TimedOutByServer => (Outcome::Failed, Cause::Timeout, Some("timed out".into())),
        End::OverMemory { limit, used } => (
            Outcome::Failed,
            Cause::Limit,
            Some(format!("killed: over its limit of {limit} bytes of memory, with {used}")),
        ),
        End::Shutdown => (
            Outcome::Failed,
            Cause::Infrastructure,
            Some("ended because the shim that held it was told to end".into()),
        ),
    }
}
