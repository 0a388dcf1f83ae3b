//! Jobs find their workers.

use std::os::fd::OwnedFd;
use std::time::Instant;

use kobza_executor_process::WarmEvent;
use kobza_model::Cause;
use kobza_runtime::Answer;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::User;
use serde_json::json;

use super::{FORKS_AHEAD, FORKS_AT_ONCE, Job, Kind, Pool, PoolOptions, TRIES, Worker};
use crate::connection::{ChannelError, Connection};
use crate::parent::{Key, State, spawn_worker};
use crate::task::Mode;

impl Pool {
    pub(super) fn dispatch(&mut self, mut job: Job) {
        job.tries += 1;
        if job.tries > TRIES {
            let words = "the warm Python worker died again and again before the task began";
            return self.refuse(job, Cause::Infrastructure, words, String::new());
        }
        // Code of another user is not imported with the server's rights.
        if job.task.mode == Mode::Spawn || job.body.spec.user.is_some() {
            return self.spawn(job);
        }
        let now = Instant::now();
        let key = Key::of(&job.task, &job.interpreter);
        let mut id = self.current.get(&key).copied();
        if let Some(old) = id
            && let Some(parent) = self.parents.get_mut(&old)
            && let State::Ready { imported, .. } = &mut parent.state
            && imported.is_stale(now)
        {
            self.retire(old);
            id = None;
        }
        let id = match id {
            Some(id) => id,
            None => match self.start_parent(key, job.task.base(), now) {
                Ok(id) => id,
                Err(message) => return self.refuse(job, Cause::Code, message, String::new()),
            },
        };
        let Some(parent) = self.parents.get_mut(&id) else { return };
        parent.used = now;
        match job.task.mode {
            Mode::Reuse => parent.reuse_queue.push_back(job),
            _ => parent.queue.push_back(job),
        }
        self.pump(id);
    }

    /// Hands waiting jobs to workers, and asks for more workers.
    pub(super) fn pump(&mut self, id: u64) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        let State::Ready { spawn, .. } = &parent.state else { return };
        if let Some(reason) = spawn {
            let words = format!("runs in a fresh interpreter: {reason}\n");
            for job in std::mem::take(&mut parent.queue)
                .into_iter()
                .chain(std::mem::take(&mut parent.reuse_queue))
            {
                let _ = nix::unistd::write(&job.body.stderr, words.as_bytes());
                self.spawn(job);
            }
            return;
        }
        while let Some(parent) = self.parents.get_mut(&id)
            && !parent.queue.is_empty()
            && let Some(worker) = parent.idle.pop_front()
        {
            if let Some(job) = parent.queue.pop_front() {
                self.assign(worker, job);
            }
        }
        while let Some(parent) = self.parents.get_mut(&id)
            && !parent.reuse_queue.is_empty()
            && let Some(worker) = parent.reuse_idle.pop_front()
        {
            if let Some(job) = parent.reuse_queue.pop_front() {
                self.assign(worker, job);
            }
        }
        self.ask(id);
    }

    fn ask(&mut self, id: u64) {
        let Some(parent) = self.parents.get(&id).filter(|parent| !parent.is_base) else { return };
        let once = |worker: &&u64| {
            self.workers.get(worker).is_some_and(|worker| worker.kind == Kind::Once)
        };
        let coming = parent.asked.iter().flatten().filter(once).count();
        let busy = parent.used.elapsed() < self.options.standby_idle;
        let standby = if busy && parent.reuse_count == 0 { self.options.standby } else { 0 };
        let there = parent.idle.len() + coming;
        let needed = parent.queue.len().saturating_sub(there);
        let spare = (there + needed).saturating_sub(parent.queue.len());
        // Together, since what a parent writes between two forks is copied after each.
        let more = if spare < standby { standby + FORKS_AHEAD - spare } else { 0 };
        let all_coming: usize = parent.asked.iter().map(Vec::len).sum();
        let many_coming = all_coming - coming;
        let many_room = self.options.reuse_processes.saturating_sub(parent.reuse_count);
        let many = parent.reuse_queue.len().saturating_sub(many_coming).min(many_room);
        let room = FORKS_AT_ONCE.saturating_sub(coming);
        // By a request of its own: its answer does not wait for the others.
        if needed.min(room) > 0 {
            self.fork(id, needed.min(room), Kind::Once);
        }
        let more = more.min(room.saturating_sub(needed));
        if more > 0 {
            self.fork(id, more, Kind::Once);
        }
        if many > 0 {
            self.fork(id, many, Kind::Many);
        }
    }

    fn fork(&mut self, id: u64, count: usize, kind: Kind) {
        let mut ends = Vec::new();
        let mut workers = Vec::new();
        for _ in 0..count {
            // Out of descriptors: fewer, and later again.
            let Ok((connection, theirs)) = Connection::pair() else { break };
            let worker = self.id();
            let event = EpollEvent::new(EpollFlags::EPOLLIN, worker);
            if self.epoll.add(connection.fd(), event).is_err() {
                break;
            }
            ends.push(theirs);
            workers.push(worker);
            let worker_state = Worker { parent: Some(id), connection, pid: 0, kind, ticket: None };
            self.workers.insert(worker, worker_state);
        }
        if ends.is_empty() {
            return;
        }
        let tasks = if kind == Kind::Many { self.options.reuse_tasks } else { 1 };
        let Some(parent) = self.parents.get_mut(&id) else { return };
        if kind == Kind::Many {
            parent.reuse_count += workers.len();
        }
        parent.asked.push_back(workers);
        if parent.connection.send(json!({"op": "fork", "tasks": tasks}), ends).is_err() {
            self.parent_died(id);
        } else if self.parents.get(&id).is_some_and(|p| p.connection.is_behind()) {
            self.watch_writes(id, true);
        }
    }

    fn assign(&mut self, id: u64, job: Job) {
        if !self.workers.contains_key(&id) {
            return self.dispatch(job);
        }
        let streams = [&job.body.stdout, &job.body.stderr].map(BorrowedFdExt::duplicate);
        let [Some(stdout), Some(stderr)] = streams else {
            let words = "no file descriptors are left for the task's log";
            return self.refuse(job, Cause::Infrastructure, words, String::new());
        };
        let message = json!({"op": "run", "task": job.task.describe(&job.body)});
        let mut descriptors = vec![stdout, stderr];
        let extra = &job.body.spec.extra;
        let mut talk = match self.open_talk(job.ticket, job.task.adapter(), extra) {
            Ok(talk) => talk,
            Err(message) => {
                return self.refuse(job, Cause::Infrastructure, message, String::new());
            }
        };
        descriptors.extend(talk.iter_mut().flat_map(|talk| talk.theirs.drain(..)));
        let Some(worker) = self.workers.get_mut(&id) else { return self.dispatch(job) };
        match worker.connection.send(message, descriptors) {
            Ok(()) => {
                worker.ticket = Some(job.ticket);
                self.assigned.insert(job.ticket, id);
                let (pid, behind) = (worker.pid, worker.connection.is_behind());
                self.events.push(WarmEvent::Started { ticket: job.ticket, pid });
                if behind {
                    self.watch_writes(id, true);
                }
                if let Some(talk) = talk {
                    self.begin_talk(job.ticket, talk);
                }
            }
            Err(ChannelError::Protocol(words)) => {
                self.worker_gone(id);
                self.refuse(job, Cause::Limit, words, String::new());
            }
            Err(_) => {
                self.worker_gone(id);
                self.dispatch(job);
            }
        }
    }

    /// Brings an answer to the worker that asked.
    pub(super) fn tell(&mut self, id: u64, number: u64, answer: &Answer) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let mut message = json!({"op": "answer", "number": number});
        match &answer.result {
            Ok(value) => message["value"] = value.clone(),
            Err(reason) => message["refused"] = json!(reason),
        }
        match worker.connection.send(message, Vec::new()) {
            Ok(()) if worker.connection.is_behind() => self.watch_writes(id, true),
            Ok(()) => {}
            Err(ChannelError::Protocol(words)) => {
                // Shorter than the answer that did not fit.
                self.tell(id, number, &Answer::refused(words));
            }
            // Its end is told by the stream.
            Err(_) => {}
        }
    }

    fn spawn(&mut self, job: Job) {
        let user = match job.body.spec.user.as_deref().map(account).transpose() {
            Ok(user) => user,
            Err(message) => return self.refuse(job, Cause::Code, message, String::new()),
        };
        let streams = [&job.body.stdout, &job.body.stderr].map(BorrowedFdExt::duplicate);
        let [Some(stdout), Some(stderr)] = streams else {
            let words = "no file descriptors are left for the task's log";
            return self.refuse(job, Cause::Infrastructure, words, String::new());
        };
        let program = job.interpreter.to_string_lossy().into_owned();
        let PoolOptions { packages, environment, .. } = &self.options;
        let stdio = (stdout, stderr);
        let spawned = spawn_worker(&program, &job.task, packages, environment, user, stdio);
        let (connection, pid) = match spawned {
            Ok(spawned) => spawned,
            Err(message) => return self.refuse(job, Cause::Code, message, String::new()),
        };
        let id = self.id();
        // Its end is what the shim waits for; the channel only carries the task.
        let _ = self.epoll.add(connection.fd(), EpollEvent::new(EpollFlags::EPOLLIN, id));
        let worker = Worker { parent: None, connection, pid, kind: Kind::Once, ticket: None };
        self.processes.insert(pid, id);
        self.workers.insert(id, worker);
        self.assign(id, job);
    }

    pub(super) fn watch_writes(&self, id: u64, writes: bool) {
        let connection = match (self.parents.get(&id), self.workers.get(&id)) {
            (Some(parent), _) => &parent.connection,
            (None, Some(worker)) => &worker.connection,
            (None, None) => return,
        };
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, writes);
        let _ = self.epoll.modify(connection.fd(), &mut EpollEvent::new(flags, id));
    }
}

/// User and group of another user to run as.
fn account(name: &str) -> Result<(u32, u32), String> {
    let found = match name.parse::<u32>() {
        Ok(number) => User::from_uid(number.into()),
        Err(_) => User::from_name(name),
    };
    match found {
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        Ok(None) => Err(format!("user {name:?} does not exist on this host")),
        Err(error) => Err(format!("cannot look up user {name:?}: {error}")),
    }
}

trait BorrowedFdExt {
    fn duplicate(self) -> Option<OwnedFd>;
}

impl BorrowedFdExt for &OwnedFd {
    fn duplicate(self) -> Option<OwnedFd> {
        self.try_clone().ok()
    }
}
