//! The shim's side of bodies that a warm host starts.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kobza_blobs::{LogStream, Masker};
use kobza_model::{Cause, LaunchId, Outcome};
use kobza_runtime::{LaunchSpec, Said};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::loop_state::{Shim, WARM};
use super::spawn::{Refused, prepare};
use super::task::{End, Exit, Step, Task, ended};
use crate::clock::wall_now;
use crate::warm::{WarmEvent, WarmSetup};
use crate::wire::{EventBody, Finished, SHIM_VARIABLE};

/// For what a body does when it has said how it ended, before it is ended by force.
const OVERTIME: Duration = Duration::from_secs(20);

impl Shim {
    pub(super) fn start_warm(
        &mut self,
        launch: LaunchId,
        spec: LaunchSpec,
        log: PathBuf,
        masker: Option<Masker>,
    ) {
        if let Err(message) = self.ready_warm() {
            return self.refused(launch, spec, log, masker, Refused::infrastructure(message));
        }
        let (spawned, body) = match prepare(&mut self.host, launch, &spec) {
            Ok(prepared) => prepared,
            Err(refused) => return self.refused(launch, spec, log, masker, refused),
        };
        let serial = self.hold(launch, spec, log, masker, spawned);
        if let Some(warm) = &mut self.warm {
            warm.start(serial, body);
        }
    }

    /// Makes the warm host when it is first needed.
    fn ready_warm(&mut self) -> Result<(), String> {
        if self.warm.is_some() {
            return Ok(());
        }
        let make = self.make_warm.ok_or("this shim hosts no Python")?;
        // The shim's folder is `<data>/shims/<id>`.
        let data_dir = self.folder.ancestors().nth(2).ok_or("the folder is too near the root")?;
        let mut environment = self.host.environment.clone();
        environment.push((SHIM_VARIABLE.into(), self.host.folder.clone().into()));
        let warm = make(WarmSetup { data_dir: data_dir.to_path_buf(), environment })?;
        self.epoll
            .add(warm.fd(), EpollEvent::new(EpollFlags::EPOLLIN, WARM))
            .map_err(|e| format!("epoll: {e}"))?;
        self.warm = Some(warm);
        Ok(())
    }

    pub(super) fn poll_warm(&mut self) {
        let Some(warm) = &mut self.warm else { return };
        let events = warm.poll();
        for event in events {
            match event {
                WarmEvent::Started { ticket, pid } => {
                    let Some(task) = self.tasks.get_mut(&ticket) else { continue };
                    task.pid = pid;
                    if let Some(group) = &task.cgroup
                        && let Err(error) = group.enter(pid)
                    {
                        eprintln!("kobza shim: control group of {}: {error}", task.launch);
                    }
                    self.began(ticket);
                }
                WarmEvent::Asked { ticket, number, body } => self.asked(ticket, number, body),
                WarmEvent::Logged { ticket, lines } => {
                    if let Some(task) = self.tasks.get_mut(&ticket) {
                        let stream = LogStream::Stdout;
                        task.log.write(stream, &lines, wall_now(), &mut self.scratch);
                    }
                }
                WarmEvent::Masked { ticket, secrets } => {
                    if let Err(message) = self.mask(ticket, &secrets) {
                        self.nonsense(ticket, message);
                    }
                }
                WarmEvent::Said { ticket, said } => self.said(ticket, said),
                WarmEvent::Nonsense { ticket, message } => self.nonsense(ticket, message),
                WarmEvent::Ended { ticket, exit_code } => {
                    self.main_ended(ticket, Exit::Code(exit_code));
                }
                WarmEvent::Refused { ticket, cause, message, log } => {
                    self.take_back(ticket, (Outcome::Failed, cause, Some(message)), &log);
                }
            }
        }
    }

    /// What a body says of itself is believed at once, unless it is being ended from outside.
    fn said(&mut self, serial: u64, mut said: Said) {
        self.tell_begun(serial);
        let Some(task) = self.tasks.get_mut(&serial) else { return };
        if said.is_last() {
            if task.over || task.end.is_some() || task.refusal.is_some() {
                return;
            }
            task.over = true;
        }
        if let (Said::Ended(ended), Some(masker)) = (&mut said, &task.masker) {
            ended.message = ended.message.take().map(|message| masker.mask(&message));
        }
        let last = said.is_last();
        self.spool.push(task.launch, EventBody::Said(said));
        if last && task.exit.is_none() {
            // What it does after that has a limit of its own.
            self.set_step(serial, Step::Running, Instant::now().checked_add(OVERTIME));
        }
    }

    /// Ends a body that does not speak its protocol.
    fn nonsense(&mut self, serial: u64, message: String) {
        let Some(task) = self.tasks.get_mut(&serial) else { return };
        task.refusal.get_or_insert(message);
        if task.exit.is_none() {
            self.force(serial);
        }
    }

    /// Masks more of a task's log from now on.
    pub(super) fn mask(&mut self, serial: u64, secrets: &[String]) -> Result<(), String> {
        let Some(task) = self.tasks.get_mut(&serial) else { return Ok(()) };
        if secrets.is_empty() {
            return Ok(());
        }
        let masker = Masker::with_more(task.masker.as_ref(), secrets).map_err(|e| e.to_string())?;
        masker.iter().for_each(|masker| task.log.mask_with(masker));
        task.masker = masker;
        Ok(())
    }

    /// Ends a task that has no process yet. False if it has one.
    pub(super) fn abandon_warm(&mut self, serial: u64, end: End) -> bool {
        self.poll_warm();
        let waits = self.tasks.get(&serial).is_some_and(|task| task.pid == 0);
        if waits {
            if let Some(warm) = &mut self.warm {
                warm.cancel(serial);
            }
            self.take_back(serial, ended(end), "");
        }
        waits
    }

    /// Reports a task that never had a process.
    fn take_back(
        &mut self,
        serial: u64,
        (outcome, cause, message): (Outcome, Cause, Option<String>),
        log: &str,
    ) {
        while self.read_stream(serial, LogStream::Stderr) {}
        let Some(mut task) = self.tasks.remove(&serial) else { return };
        let now = wall_now();
        task.log.write(LogStream::Stderr, log.as_bytes(), now, &mut self.scratch);
        task.log.finish(now, &mut self.scratch);
        let Task { launch, mut log, masker, folder, .. } = task;
        let mask = |message: String| masker.as_ref().map_or(message.clone(), |m| m.mask(&message));
        let message = message.map(mask);
        if let Some(message) = &message {
            log.note(message, now);
        }
        let log = log.summary().clone();
        let finished =
            Finished { outcome, cause, message, exit_code: None, outputs: Vec::new(), log };
        self.spool.push(launch, EventBody::Finished(Box::new(finished)));
        self.host.remove_folder(folder);
    }
}
