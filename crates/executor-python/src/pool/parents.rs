//! Parents begin, are kept, and go.

use std::time::Instant;

use kobza_model::{Cause, Json};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{Pool, PoolOptions};
use crate::parent::{Key, Parent, State};

impl Pool {
    /// Starts a parent, or lets the one that has `base` loaded fork it.
    pub(super) fn start_parent(
        &mut self,
        key: Key,
        base: Option<Json>,
        now: Instant,
    ) -> Result<u64, String> {
        if let Some(load) = base {
            let base = Key { load: load.to_string(), ..key.clone() };
            let base = self.base(base, now)?;
            match self.parents.get(&base).map(|parent| &parent.state) {
                // Where forking is unsafe, each imports for itself.
                Some(State::Ready { spawn: Some(_), .. }) => {}
                Some(State::Ready { .. }) => {
                    let id = self.keep(Parent::waiting(key.clone(), base, now)?, key);
                    self.fork_parent(base, id, now)?;
                    return Ok(id);
                }
                _ => return Ok(self.keep(Parent::waiting(key.clone(), base, now)?, key)),
            }
        }
        self.make_room();
        let PoolOptions { packages, environment, import_timeout, .. } = &self.options;
        let parent = Parent::start(key.clone(), packages, environment, *import_timeout, now)?;
        let pid = parent.pid;
        let id = self.keep(parent, key);
        self.watch_parent(id)?;
        self.processes.insert(pid, id);
        Ok(id)
    }

    fn keep(&mut self, parent: Parent, key: Key) -> u64 {
        let id = self.id();
        self.parents.insert(id, parent);
        self.current.insert(key, id);
        id
    }

    fn watch_parent(&mut self, id: u64) -> Result<(), String> {
        let Some(parent) = self.parents.get(&id) else { return Ok(()) };
        let watched =
            self.epoll.add(parent.connection.fd(), EpollEvent::new(EpollFlags::EPOLLIN, id));
        watched.map_err(|error| {
            self.retire(id);
            format!("epoll: {error}")
        })
    }

    /// The parent that others are forked from.
    fn base(&mut self, key: Key, now: Instant) -> Result<u64, String> {
        if let Some(&id) = self.current.get(&key) {
            let stale = match self.parents.get_mut(&id).map(|parent| &mut parent.state) {
                Some(State::Ready { imported, .. }) => imported.is_stale(now),
                _ => false,
            };
            if !stale {
                return Ok(id);
            }
            self.retire(id);
        }
        let id = self.start_parent(key, None, now)?;
        if let Some(parent) = self.parents.get_mut(&id) {
            parent.is_base = true;
        }
        Ok(id)
    }

    fn fork_parent(&mut self, base: u64, id: u64, now: Instant) -> Result<(), String> {
        let PoolOptions { packages, import_timeout, .. } = &self.options;
        let Some(parent) = self.parents.get_mut(&id) else { return Ok(()) };
        let ends = parent.be_forked(packages, *import_timeout, now)?;
        self.watch_parent(id)?;
        let Some(from) = self.parents.get_mut(&base) else { return Ok(()) };
        from.asked.push_back(vec![id]);
        from.used = now;
        if from.connection.send(json!({"op": "parent"}), ends.into()).is_err() {
            self.parent_died(base);
        } else if self.parents.get(&base).is_some_and(|p| p.connection.is_behind()) {
            self.watch_writes(base, true);
        }
        Ok(())
    }

    /// Those that wait to be forked from a parent.
    fn waiting_for(&self, base: u64) -> Vec<u64> {
        let waits =
            |parent: &Parent| matches!(parent.state, State::Waiting { base: b } if b == base);
        self.parents.iter().filter(|(_, parent)| waits(parent)).map(|(id, _)| *id).collect()
    }

    /// A parent is ready: those that wait for it are forked.
    pub(super) fn fork_waiting(&mut self, base: u64) {
        let now = Instant::now();
        let safe = matches!(
            self.parents.get(&base).map(|parent| &parent.state),
            Some(State::Ready { spawn: None, .. })
        );
        for id in self.waiting_for(base) {
            if !safe {
                // Its jobs begin again, and find that.
                self.retire(id);
            } else if let Err(message) = self.fork_parent(base, id, now) {
                self.give_up(id, Cause::Infrastructure, &message, "");
            }
        }
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
            let idle = self.parents.iter().filter(|(_, p)| p.is_idle() && !p.is_base);
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
        for waiting in self.waiting_for(id) {
            self.retire(waiting);
        }
    }

    pub(super) fn parent_died(&mut self, id: u64) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        // Or it was never forked, since the one that should do it has died.
        if matches!(parent.state, State::Ready { .. }) || parent.pid == 0 {
            self.retire(id);
            return;
        }
        // It ended in the middle of an import: perhaps somebody ended it. The next one will tell.
        if parent.queue.iter().chain(&parent.reuse_queue).all(|job| job.is_fresh()) {
            self.retire(id);
            return;
        }
        let log = parent.log_tail();
        self.give_up(id, Cause::Code, "the process ended while it imported the module", &log);
    }

    /// Ends a parent and refuses what waits for it.
    pub(super) fn give_up(&mut self, id: u64, cause: Cause, message: &str, log: &str) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        let mut jobs = std::mem::take(&mut parent.queue);
        jobs.append(&mut parent.reuse_queue);
        for waiting in self.waiting_for(id) {
            self.give_up(waiting, cause, message, log);
        }
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
                State::Ready { .. } if parent.is_idle() && !parent.is_base => {
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
