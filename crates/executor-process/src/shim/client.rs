//! The connection to the server: at most one, the newest.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt};

use super::spool::Spool;
use crate::wire::{FrameError, Frames, ToShim};

/// Bytes given to the socket before events wait in the spool.
const OUT_BYTES: usize = 1 << 20;
/// Read at once; commands behind it wait in the socket.
const IN_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    frames: Frames,
    out: Vec<u8>,
    /// Events up to this number have been put to `out`.
    told: u64,
    /// Whether the loop is asked to say when the socket can be written.
    pub wants_write: bool,
}

impl Client {
    /// Takes a connection of the same user (or root); refuses others.
    pub(super) fn accept(stream: UnixStream) -> io::Result<Self> {
        let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
        let own = nix::unistd::geteuid();
        if peer.uid() != own.as_raw() && peer.uid() != 0 {
            return Err(io::Error::other(format!("connection of user {} refused", peer.uid())));
        }
        stream.set_nonblocking(true)?;
        Ok(Self { stream, frames: Frames::default(), out: Vec::new(), told: 0, wants_write: false })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Reads what has come. False when the other side is gone.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 32 * 1024];
        let mut total = 0;
        while total < IN_BYTES {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(got) => {
                    self.frames.push(&buffer[..got]);
                    total += got;
                    if got < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    pub(super) fn next(&mut self) -> Result<Option<ToShim>, FrameError> {
        self.frames.next()
    }

    /// Puts a frame that is not an event.
    pub(super) fn put(&mut self, frame: &[u8]) {
        self.out.extend_from_slice(frame);
    }

    /// Puts all events of the spool that were not put yet.
    pub(super) fn catch_up(&mut self, spool: &Spool) {
        while let Some((number, frame)) = spool.after(self.told) {
            self.out.extend_from_slice(frame);
            self.told = number;
        }
    }

    /// Writes as much as the socket takes. Whether something is left.
    pub(super) fn flush(&mut self, spool: &Spool) -> io::Result<bool> {
        loop {
            while self.out.len() < OUT_BYTES {
                let Some((number, frame)) = spool.after(self.told) else { break };
                self.out.extend_from_slice(frame);
                self.told = number;
            }
            if self.out.is_empty() {
                return Ok(false);
            }
            match self.stream.write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.out.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
