//! What tasks write: from their pipes into their logs.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use kobza_blobs::LogStream;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::loop_state::Shim;
use crate::clock::wall_now;

/// Read from a pipe at once; a pipe that fills this is widened to it.
pub(super) const READ_BYTES: usize = 256 * 1024;
/// A line without an end is shown to followers after so long without more.
const PARTIAL_AFTER: Duration = Duration::from_millis(300);

impl Shim {
    pub(super) fn watch(&self, pipe: File, token: u64) -> Option<File> {
        match self.epoll.add(&pipe, EpollEvent::new(EpollFlags::EPOLLIN, token)) {
            Ok(()) => Some(pipe),
            Err(error) => {
                eprintln!("kobza shim: cannot follow the output of a task: {error}");
                None
            }
        }
    }

    /// Reads once what a stream has. False if nothing came.
    pub(super) fn read_stream(&mut self, serial: u64, stream: LogStream) -> bool {
        let Some(task) = self.tasks.get_mut(&serial) else { return false };
        let slot = if stream == LogStream::Stdout { &mut task.stdout } else { &mut task.stderr };
        let Some(pipe) = slot else { return false };
        match pipe.read(&mut self.buffer) {
            Ok(0) => {
                // Closing it also takes it out of the epoll set.
                *slot = None;
                if task.exit.is_some() {
                    self.try_finish(serial);
                }
                false
            }
            Ok(got) => {
                if got == 64 * 1024 {
                    // A full pipe of the default size: a chatty task. More is read at once then.
                    let size = i32::try_from(READ_BYTES).unwrap_or(i32::MAX);
                    let _ = fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(size));
                }
                let bytes = &self.buffer[..got];
                let wanted = if task.spec.builtin { LogStream::Stderr } else { LogStream::Stdout };
                if let Some(last) = task.last_line.as_mut().filter(|_| stream == wanted) {
                    last.push(bytes);
                }
                task.log.write(stream, bytes, wall_now(), &mut self.scratch);
                task.last_read = Instant::now();
                if task.log.has_partial() && self.flush_partial_at.is_none() {
                    self.flush_partial_at = Some(task.last_read + PARTIAL_AFTER);
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                eprintln!("kobza shim: output of {}: {error}", task.launch);
                *slot = None;
                false
            }
        }
    }

    /// Shows followers lines that have had no end for a while.
    pub(super) fn flush_partial_lines(&mut self, now: Instant) {
        if self.flush_partial_at.is_none_or(|at| at > now) {
            return;
        }
        self.flush_partial_at = None;
        let mut next: Option<Instant> = None;
        for task in self.tasks.values_mut().filter(|t| t.log.has_partial()) {
            let due = task.last_read + PARTIAL_AFTER;
            if due <= now {
                task.log.flush_partial(wall_now(), &mut self.scratch);
            } else {
                next = Some(next.map_or(due, |n| n.min(due)));
            }
        }
        self.flush_partial_at = next;
    }
}
