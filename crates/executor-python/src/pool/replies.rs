//! What parents and workers say.

use std::time::Instant;

use kobza_executor_process::WarmEvent;
use kobza_model::{Cause, Json};

use super::{Kind, Pool};
use crate::code::Imported;
use crate::connection::Connection;
use crate::parent::{State, cause_of};

impl Pool {
    pub(super) fn on_ready(&mut self, id: u64, writable: bool) {
        if writable {
            let flushed = match (self.parents.get_mut(&id), self.workers.get_mut(&id)) {
                (Some(parent), _) => parent.connection.flush().map(|()| &parent.connection),
                (None, Some(worker)) => worker.connection.flush().map(|()| &worker.connection),
                (None, None) => return,
            };
            match flushed.map(Connection::is_behind) {
                Ok(true) => {}
                // A failed write is followed by the end of the stream, below.
                Ok(false) | Err(_) => self.watch_writes(id, false),
            }
        }
        if let Some(parent) = self.parents.get_mut(&id) {
            match parent.connection.receive() {
                Ok((messages, gone)) => {
                    for message in messages {
                        self.parent_says(id, &message);
                    }
                    if gone {
                        self.parent_died(id);
                    }
                }
                Err(_) => self.parent_died(id),
            }
        } else if let Some(worker) = self.workers.get_mut(&id) {
            match worker.connection.receive() {
                Ok((messages, gone)) => {
                    for message in messages {
                        self.worker_says(id, &message);
                    }
                    if gone {
                        self.worker_gone(id);
                    }
                }
                Err(_) => self.worker_gone(id),
            }
        }
    }

    fn parent_says(&mut self, id: u64, message: &Json) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        match message.get("event").and_then(Json::as_str) {
            Some("ready") => {
                let imported = Imported::of(message.get("files").unwrap_or(&Json::Null));
                let spawn =
                    (message.get("mode").and_then(Json::as_str) == Some("spawn")).then(|| {
                        let reason = message.get("reason").and_then(Json::as_str);
                        reason.unwrap_or("forking is unsafe").to_owned()
                    });
                parent.resident_bytes = message.get("rss").and_then(Json::as_u64).unwrap_or(0);
                parent.first_bytes = parent.resident_bytes;
                parent.state = State::Ready { imported, spawn };
                self.pump(id);
                self.fork_waiting(id);
            }
            Some("failed") => {
                let error = message.get("error").cloned().unwrap_or(Json::Null);
                let words =
                    error.get("message").and_then(Json::as_str).unwrap_or("no reason given");
                let message = format!("the import failed: {words}");
                let cause = cause_of(&error);
                let log = parent.log_tail();
                self.give_up(id, cause, &message, &log);
            }
            Some("forked") => self.forked(id, message),
            _ => {}
        }
    }

    fn forked(&mut self, id: u64, message: &Json) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        let Some(asked) = parent.asked.pop_front() else { return };
        let pids = message.get("pids").and_then(Json::as_array).cloned().unwrap_or_default();
        let mut pids = pids.iter().filter_map(Json::as_i64).filter_map(|p| i32::try_from(p).ok());
        let mut fewer = false;
        for id_of_worker in asked {
            if self.parents.contains_key(&id_of_worker) {
                match pids.next() {
                    Some(pid) => self.parent_forked(id_of_worker, pid),
                    None => {
                        let words = message.get("problem").and_then(Json::as_str);
                        let words = words.unwrap_or("fork failed").to_owned();
                        self.give_up(id_of_worker, Cause::Infrastructure, &words, "");
                    }
                }
                continue;
            }
            let Some(parent) = self.parents.get_mut(&id) else { return };
            let Some(worker) = self.workers.get_mut(&id_of_worker) else { continue };
            let Some(pid) = pids.next() else {
                fewer = true;
                if worker.kind == Kind::Many {
                    parent.reuse_count -= 1;
                }
                self.workers.remove(&id_of_worker);
                continue;
            };
            worker.pid = pid;
            self.processes.insert(pid, id_of_worker);
            match worker.kind {
                Kind::Once => parent.idle.push_back(id_of_worker),
                Kind::Many => parent.reuse_idle.push_back(id_of_worker),
            }
        }
        let Some(parent) = self.parents.get_mut(&id) else { return };
        if let Some(bytes) = message.get("rss").and_then(Json::as_u64) {
            parent.resident_bytes = bytes;
            if bytes > parent.grown_bytes() {
                // It should only ever fork: something in it goes on growing.
                return self.retire(id);
            }
        }
        if fewer {
            let words = message.get("problem").and_then(Json::as_str).unwrap_or("fork failed");
            if parent.idle.is_empty() && parent.reuse_idle.is_empty() {
                let words = words.to_owned();
                return self.give_up(id, Cause::Infrastructure, &words, "");
            }
        }
        self.pump(id);
    }

    fn parent_forked(&mut self, id: u64, pid: i32) {
        if let Some(parent) = self.parents.get_mut(&id) {
            parent.pid = pid;
            self.processes.insert(pid, id);
        }
    }

    fn worker_says(&mut self, id: u64, message: &Json) {
        match message.get("event").and_then(Json::as_str) {
            Some("done") => self.worker_done(id, message),
            Some("ask") => {
                let ticket = self.workers.get(&id).and_then(|worker| worker.ticket);
                let number = message.get("number").and_then(Json::as_u64);
                if let Some((ticket, number)) = ticket.zip(number) {
                    let body = message.get("body").cloned().unwrap_or(Json::Null);
                    self.events.push(WarmEvent::Asked { ticket, number, body });
                }
            }
            _ => {}
        }
    }

    fn worker_done(&mut self, id: u64, message: &Json) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.kind == Kind::Once {
            // Its exit says the rest.
            return;
        }
        let code = message.get("exit").and_then(Json::as_i64).unwrap_or(1);
        let exit_code = i32::try_from(code).unwrap_or(1);
        if let Some(ticket) = worker.ticket.take() {
            self.assigned.remove(&ticket);
            self.events.push(WarmEvent::Ended { ticket, exit_code });
        }
        let peak = message.get("rss_peak").and_then(Json::as_u64).unwrap_or(0);
        let last = message.get("last").and_then(Json::as_bool).unwrap_or(false);
        let (parent_id, spent) = (worker.parent, last || peak > self.options.reuse_memory_bytes);
        let parent = parent_id.and_then(|id| Some((id, self.parents.get_mut(&id)?)));
        match parent {
            Some((parent_id, parent)) if !spent => {
                parent.used = Instant::now();
                parent.reuse_idle.push_back(id);
                self.pump(parent_id);
            }
            _ => self.worker_gone(id),
        }
    }

    pub(super) fn worker_gone(&mut self, id: u64) {
        let Some(worker) = self.workers.remove(&id) else { return };
        if let Some(ticket) = worker.ticket {
            self.assigned.remove(&ticket);
        }
        // A process that runs a task is the shim's business, and stays known until it is reaped.
        let Some(parent_id) = worker.parent else { return };
        let Some(parent) = self.parents.get_mut(&parent_id) else { return };
        parent.idle.retain(|one| *one != id);
        parent.reuse_idle.retain(|one| *one != id);
        if worker.kind == Kind::Many {
            parent.reuse_count = parent.reuse_count.saturating_sub(1);
        }
        if !parent.is_idle() {
            self.pump(parent_id);
        }
    }
}
