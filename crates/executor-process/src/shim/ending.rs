//! How tasks end: reaping, leftovers, deadlines, the report.

use std::time::{Duration, Instant};

use kobza_blobs::LogStream;
use kobza_model::LaunchId;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::loop_state::Shim;
use super::task::{End, Exit, Step, Task};
use crate::clock::wall_now;
use crate::procfs;
use crate::wire::{EventBody, LAUNCH_VARIABLE};

/// How long what a main process left behind may go on by itself.
const LINGER: Duration = Duration::from_millis(250);
/// Longest time between the polite signal and SIGKILL for what was left behind.
const LEFTOVER_GRACE: Duration = Duration::from_secs(2);
/// Between two attempts to kill.
const KILL_AGAIN: Duration = Duration::from_millis(50);
/// How long pipes may stay open when nothing of the task is left.
const DRAIN: Duration = Duration::from_secs(1);
/// Reads of a stream when the main process has ended; a pipe's whole content and more.
const READS_AT_EXIT: usize = 64;

impl Shim {
    /// Takes the ends of all children that have ended, adopted ones too.
    pub(super) fn reap(&mut self) {
        let mut orphan = false;
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Exit::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Exit::Signal(signal as i32)),
                // A real-time signal, which has no name here.
                Err(Errno::EINVAL) => continue,
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => continue,
            };
            if let Some(warm) = &mut self.warm {
                warm.reaped(pid.as_raw());
            }
            match self.mains.get(&pid.as_raw()) {
                Some(&serial) if self.tasks.get(&serial).is_some_and(|t| t.exit.is_none()) => {
                    self.main_ended(serial, exit);
                }
                _ => orphan = true,
            }
        }
        if orphan {
            for serial in self.exited.iter().copied().collect::<Vec<_>>() {
                self.try_finish(serial);
            }
        }
    }

    pub(super) fn main_ended(&mut self, serial: u64, exit: Exit) {
        let Some(task) = self.tasks.get_mut(&serial) else { return };
        task.exit = Some(exit);
        self.exited.insert(serial);
        if task.spec.python {
            if let Some(warm) = &mut self.warm {
                let code = if let Exit::Code(code) = exit { Some(code) } else { None };
                warm.exited(serial, code);
            }
            self.poll_warm();
        }
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            for _ in 0..READS_AT_EXIT {
                if !self.read_stream(serial, stream) {
                    break;
                }
            }
        }
        self.try_finish(serial);
    }

    /// Finishes a task if nothing of it is left; else sees to it that soon nothing is.
    pub(super) fn try_finish(&mut self, serial: u64) {
        let Some(task) = self.tasks.get(&serial) else { return };
        if task.exit.is_none() {
            return;
        }
        let now = Instant::now();
        let orphans = self.orphans();
        if orphans.iter().any(|&pid| self.owner(pid) == Some(serial)) {
            if task.step == Step::Running {
                self.set_step(serial, Step::Lingering, Some(now + LINGER));
            }
        } else if task.stdout.is_some() || task.stderr.is_some() {
            if task.step != Step::Draining {
                self.set_step(serial, Step::Draining, Some(now + DRAIN));
            }
        } else {
            self.finish(serial);
            self.sweep(&orphans);
        }
    }

    /// The tops of the trees that a task's main process left to the shim.
    fn leftovers(&self, serial: u64) -> Vec<i32> {
        let orphans = self.orphans();
        orphans.into_iter().filter(|&pid| self.owner(pid) == Some(serial)).collect()
    }

    /// Adopted children.
    fn orphans(&self) -> Vec<i32> {
        let mut children = procfs::own_children();
        children.retain(|pid| {
            if self.warm.as_ref().is_some_and(|warm| warm.owns(*pid)) {
                return false;
            }
            let main = self.mains.get(pid).and_then(|serial| self.tasks.get(serial));
            main.is_none_or(|task| task.exit.is_some())
        });
        children
    }

    /// The task that an orphan belongs to, by token, else by session or process group.
    fn owner(&self, pid: i32) -> Option<u64> {
        let token = procfs::variable(pid, LAUNCH_VARIABLE);
        if let Some(launch) = token.and_then(|t| t.parse::<LaunchId>().ok()) {
            let found = self.known.get(&launch).filter(|serial| self.tasks.contains_key(serial));
            if let Some(&serial) = found {
                return Some(serial);
            }
        }
        let stat = procfs::stat(pid)?;
        self.mains.get(&stat.group).or_else(|| self.mains.get(&stat.session)).copied()
    }

    /// The roots of all that a task consists of.
    pub(super) fn roots(&self, serial: u64) -> Vec<i32> {
        let mut roots = self.leftovers(serial);
        roots.extend(self.tasks.get(&serial).filter(|t| t.exit.is_none()).map(|t| t.pid));
        roots
    }

    /// Ends a task from outside: politely first.
    pub(super) fn begin_end(&mut self, serial: u64, end: End) {
        if self.abandon_warm(serial, end) {
            return;
        }
        let Some(task) = self.tasks.get_mut(&serial) else { return };
        if task.exit.is_none() && task.end.is_none() {
            task.end = Some(end);
        }
        if matches!(task.step, Step::Running | Step::Lingering) {
            let grace = task.spec.grace;
            self.ask(serial, grace);
        }
    }

    fn ask(&mut self, serial: u64, grace: Duration) {
        for root in self.roots(serial) {
            for pid in procfs::tree(root) {
                procfs::signal(pid, Signal::SIGTERM);
                // What is stopped cannot act on it otherwise.
                procfs::signal(pid, Signal::SIGCONT);
            }
        }
        self.set_step(serial, Step::Asked, Instant::now().checked_add(grace));
    }

    /// Ends a task at once: what it does with the time it would get is the very harm.
    pub(super) fn end_now(&mut self, serial: u64, end: End) {
        let Some(task) = self.tasks.get_mut(&serial) else { return };
        if task.end.is_none() {
            task.end = Some(end);
        }
        self.force(serial);
    }

    pub(super) fn force(&mut self, serial: u64) {
        if let Some(group) = self.tasks.get(&serial).and_then(|t| t.cgroup.as_ref()) {
            group.kill();
        }
        procfs::kill_trees(&self.roots(serial));
        self.set_step(serial, Step::Killed, Some(Instant::now() + KILL_AGAIN));
    }

    /// Does what is due.
    pub(super) fn fire_deadlines(&mut self, now: Instant) {
        self.flush_partial_lines(now);
        self.tell_beginnings(now);
        while let Some(&(at, serial)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.remove(&(at, serial));
            let Some(task) = self.tasks.get_mut(&serial) else { continue };
            task.deadline = None;
            match task.step {
                Step::Running => {
                    let limit = task.spec.timeout_ms.unwrap_or(0);
                    self.begin_end(serial, End::TimedOut(limit));
                }
                Step::Lingering => {
                    let grace = task.spec.grace.min(LEFTOVER_GRACE);
                    self.ask(serial, grace);
                }
                Step::Asked => self.force(serial),
                Step::Killed => {
                    self.force(serial);
                    self.try_finish(serial);
                }
                Step::Draining => {
                    task.stdout = None;
                    task.stderr = None;
                    self.try_finish(serial);
                }
            }
        }
    }

    fn finish(&mut self, serial: u64) {
        self.tell_begun(serial);
        let Some(mut task) = self.tasks.remove(&serial) else { return };
        self.exited.remove(&serial);
        self.forget_asks(serial);
        // The process may run another task by now.
        if self.mains.get(&task.pid) == Some(&serial) {
            self.mains.remove(&task.pid);
        }
        if let Some(at) = task.deadline {
            self.deadlines.remove(&(at, serial));
        }
        let now = wall_now();
        task.log.finish(now, &mut self.scratch);
        let mut finished = task.finished();
        if task.end.is_some()
            && let Some(message) = &finished.message
        {
            task.log.note(message, now);
        }
        finished.log = task.log.summary().clone();
        if !task.over {
            let body = match task.looks_again(&mut finished, now) {
                Some(said) => EventBody::Said(said),
                None => EventBody::Finished(Box::new(finished)),
            };
            self.spool.push(task.launch, body);
        } else if task.confirmed {
            self.forget(task.launch);
        }
        let Task { folder, output, cgroup, .. } = task;
        drop(cgroup);
        let _ = std::fs::remove_file(output);
        self.host.remove_folder(folder);
    }

    /// Sweeps what had to wait for a warm host to name its children.
    pub(super) fn sweep_later(&mut self) {
        if self.sweep_due && !self.warm.as_ref().is_some_and(|warm| warm.expects()) {
            self.sweep(&self.orphans());
        }
    }

    /// Kills orphans that hide whose they are, once no running task can be their owner: all that
    /// run began after them.
    fn sweep(&mut self, orphans: &[i32]) {
        self.sweep_due = self.warm.as_ref().is_some_and(|warm| warm.expects());
        if self.sweep_due {
            return;
        }
        for &orphan in orphans {
            if self.owner(orphan).is_some() {
                continue;
            }
            let Some(stat) = procfs::stat(orphan).filter(|s| !s.zombie) else { continue };
            let possible = self
                .tasks
                .values()
                .filter(|t| t.exit.is_none())
                .any(|t| procfs::stat(t.pid).is_none_or(|main| main.started <= stat.started));
            if !possible {
                procfs::kill_trees(&[orphan]);
            }
        }
    }
}
