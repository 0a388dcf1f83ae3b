//! How tasks begin, and how the server is told of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kobza_blobs::{DEFAULT_LOG_BYTES, LogSummary, LogWriter, Masker};
use kobza_model::{Cause, LaunchId, Outcome};
use kobza_runtime::LaunchSpec;

use super::loop_state::Shim;
use super::output::LastLine;
use super::spawn::{Refused, Spawned, is_builtin, spawn};
use super::task::{End, Kept, Step, Task, ended};
use crate::clock::wall_now;
use crate::wire::{EventBody, Finished, LaunchCommand};

/// Starts between two looks at everything else.
const STARTS_AT_ONCE: usize = 16;
/// A beginning is told after so long, or with the end: what is over in a moment costs the server one
/// commit, not two.
const TELL_AFTER: Duration = Duration::from_millis(15);

impl Shim {
    pub(super) fn start_waiting(&mut self) {
        for _ in 0..STARTS_AT_ONCE {
            if self.tasks.len() >= self.host.max_tasks {
                break;
            }
            let Some(command) = self.waiting.pop_front() else { break };
            if self.ending {
                self.never_ran(command.launch, ended(End::Shutdown));
            } else {
                self.start(command);
            }
        }
    }

    fn start(&mut self, command: LaunchCommand) {
        let LaunchCommand { launch, spec, log } = command;
        let masker = match Masker::new(&spec.secrets) {
            Ok(masker) => masker,
            Err(error) => {
                let reason = (Outcome::Failed, Cause::Template, Some(error.to_string()));
                return self.never_ran(launch, reason);
            }
        };
        if self.make_warm.is_some() && spec.extra.get("python").is_some() {
            return self.start_warm(launch, spec, log, masker);
        }
        let spawned = match spawn(&mut self.host, launch, &spec) {
            Ok(spawned) => spawned,
            Err(refused) => return self.refused(launch, spec, log, masker, refused),
        };
        let serial = self.hold(launch, spec, log, masker, spawned);
        self.began(serial);
    }

    /// Reports a task that could not be started.
    pub(super) fn refused(
        &mut self,
        launch: LaunchId,
        spec: LaunchSpec,
        log: PathBuf,
        masker: Option<Masker>,
        refused: Refused,
    ) {
        let message = masker.as_ref().map_or(refused.message.clone(), |m| m.mask(&refused.message));
        let log_bytes = spec.log_bytes.unwrap_or(DEFAULT_LOG_BYTES);
        LogWriter::new(log, log_bytes, None).note(&message, wall_now());
        self.never_ran(launch, (Outcome::Failed, refused.cause, Some(message)));
    }

    /// Reports a launch of which nothing was started.
    pub(super) fn never_ran(
        &mut self,
        launch: LaunchId,
        (outcome, cause, message): (Outcome, Cause, Option<String>),
    ) {
        let log = LogSummary::default();
        let finished =
            Finished { outcome, cause, message, exit_code: None, outputs: Vec::new(), log };
        self.spool.push(launch, EventBody::Finished(Box::new(finished)));
    }

    /// Keeps a task whose streams are open. Answers its number.
    pub(super) fn hold(
        &mut self,
        launch: LaunchId,
        spec: LaunchSpec,
        log: PathBuf,
        masker: Option<Masker>,
        spawned: Spawned,
    ) -> u64 {
        let Spawned { pid, stdout, stderr, folder, output, cgroup } = spawned;
        let serial = self.serial;
        self.serial += 2;
        let now = Instant::now();
        let log = LogWriter::new(log, spec.log_bytes.unwrap_or(DEFAULT_LOG_BYTES), masker.as_ref());
        let builtin = is_builtin(&self.host, &spec);
        let python = self.make_warm.is_some() && spec.extra.get("python").is_some();
        let spec = Kept::of(spec, builtin, python);
        let task = Task {
            launch,
            pid,
            stdout: self.watch(stdout, serial),
            stderr: self.watch(stderr, serial + 1),
            log,
            masker,
            last_line: (spec.capture_result || spec.builtin).then(LastLine::default),
            exit: None,
            end: None,
            over: false,
            confirmed: false,
            refusal: None,
            step: Step::Running,
            deadline: None,
            untold: None,
            last_read: now,
            folder,
            output,
            cgroup,
            spec,
        };
        self.known.insert(launch, serial);
        self.tasks.insert(serial, task);
        self.watch_memory_of(serial);
        serial
    }

    /// A task's process runs: its time counts from now.
    pub(super) fn began(&mut self, serial: u64) {
        let Some(task) = self.tasks.get_mut(&serial) else { return };
        self.mains.insert(task.pid, serial);
        task.untold = Some(wall_now());
        self.beginnings.push_back((Instant::now() + TELL_AFTER, serial));
        let timeout = task.spec.timeout_ms;
        if let Some(at) =
            timeout.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)))
        {
            self.set_step(serial, Step::Running, Some(at));
        }
    }

    /// Tells the server of a beginning, unless that is done.
    pub(super) fn tell_begun(&mut self, serial: u64) {
        let Some(task) = self.tasks.get_mut(&serial) else { return };
        if let Some(at) = task.untold.take() {
            let pid = task.pid.unsigned_abs();
            self.spool.push_at(task.launch, at, EventBody::Started { pid });
        }
    }

    /// Tells of the beginnings that have waited long enough.
    pub(super) fn tell_beginnings(&mut self, now: Instant) {
        while let Some(&(at, serial)) = self.beginnings.front()
            && at <= now
        {
            self.beginnings.pop_front();
            self.tell_begun(serial);
        }
    }
}
