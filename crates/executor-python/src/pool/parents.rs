//! Parents begin, are kept, and go.

use std::time::Instant;

use kobza_model::Cause;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Pool, PoolOptions};
use crate::parent::{Key, Parent, State};

impl Pool {
    pub(super) fn start_parent(&mut self, key: Key, now: Instant) -> Result<u64, String> {
        self.make_room();
        let PoolOptions { packages, environment, import_timeout, .. } = &self.options;
        let parent = Parent::start(key.clone(), packages, environment, *import_timeout, now)?;
        let id = self.id();
        self.epoll
            .add(parent.connection.fd(), EpollEvent::new(EpollFlags::EPOLLIN, id))
            .map_err(|e| format!("epoll: {e}"))?;
        self.processes.insert(parent.pid, id);
        self.parents.insert(id, parent);
        self.current.insert(key, id);
        Ok(id)
    }

    pub(super) fn id(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }

    /// Lets go of parents until one more fits.
    fn make_room(&mut self) {
        loop {
            let memory: u64 = self.parents.values().map(|p| p.resident_bytes).sum();
            if self.parents.len() < self.options.parents_max
                && memory <= self.options.memory_max_bytes
            {
                return;
            }
            let idle = self.parents.iter().filter(|(_, p)| p.is_idle());
            let Some((&oldest, _)) = idle.min_by_key(|(_, p)| p.used) else { return };
            self.retire(oldest);
        }
    }

    /// Ends a parent; jobs that wait for it go to its successor.
    pub(super) fn retire(&mut self, id: u64) {
        let Some(parent) = self.parents.remove(&id) else { return };
        if self.current.get(&parent.key) == Some(&id) {
            self.current.remove(&parent.key);
        }
        // Workers that wait end when their channel does; those that run a task go on.
        let asked = parent.asked.iter().flatten();
        for worker in parent.idle.iter().chain(&parent.reuse_idle).chain(asked) {
            self.workers.remove(worker);
        }
        for job in parent.queue.into_iter().chain(parent.reuse_queue) {
            self.dispatch(job);
        }
    }

    pub(super) fn parent_died(&mut self, id: u64) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        if matches!(parent.state, State::Ready { .. }) {
            self.retire(id);
            return;
        }
        // It ended in the middle of an import: the next one would as well.
        let log = parent.log_tail();
        self.give_up(id, Cause::Code, "the process ended while it imported the module", &log);
    }

    /// Ends a parent and refuses what waits for it.
    pub(super) fn give_up(&mut self, id: u64, cause: Cause, message: &str, log: &str) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        let mut jobs = std::mem::take(&mut parent.queue);
        jobs.append(&mut parent.reuse_queue);
        self.retire(id);
        for job in jobs {
            self.refuse(job, cause, message, log.to_owned());
        }
    }

    pub(super) fn fire(&mut self, now: Instant) {
        let ids: Vec<u64> = self.parents.keys().copied().collect();
        for id in ids {
            let Some(parent) = self.parents.get_mut(&id) else { continue };
            match &parent.state {
                State::Importing { until } if *until <= now => {
                    let pid = Pid::from_raw(parent.pid);
                    let log = parent.log_tail();
                    if parent.pid > 0 {
                        let _ = kill(pid, Signal::SIGKILL);
                    }
                    let words = "the import hangs, and not even its time limit could end it";
                    self.give_up(id, Cause::Timeout, words, &log);
                }
                State::Ready { .. } if parent.is_idle() => {
                    let unused = now.saturating_duration_since(parent.used);
                    if unused >= self.options.parent_idle {
                        self.retire(id);
                    } else if unused >= self.options.standby_idle {
                        for worker in parent.idle.drain(..).collect::<Vec<_>>() {
                            self.workers.remove(&worker);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}
