//! Bodies that speak a protocol of their own: their channels, and the protocol behind them.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use kobza_executor_process::WarmEvent;
use kobza_model::Json;
use kobza_runtime::{Answer, Protocol, Step, wall_now};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::Pool;

/// Makes the protocol for a body from `LaunchSpec::extra`; none if this one speaks none.
pub type MakeProtocol = fn(&Json) -> Result<Option<Box<dyn Protocol>>, String>;

/// Read from a channel between two looks at the others.
const READ_BYTES: usize = 256 * 1024;
/// Reads of a channel when the body's process has ended.
const READS_AT_EXIT: usize = 1024;

/// What a body has been handed to speak with: the other ends of its channels.
pub(super) struct Opened {
    talk: Talk,
    channels: Vec<(u64, Channel)>,
    /// For the body: requests, then log records.
    pub(super) theirs: Vec<OwnedFd>,
}

#[derive(Debug)]
pub(super) struct Talk {
    protocol: Box<dyn Protocol>,
    /// The channel of requests.
    requests: u64,
    outgoing: VecDeque<Outgoing>,
    wake: Option<Instant>,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptor: Option<OwnedFd>,
}

#[derive(Debug)]
pub(super) struct Channel {
    ticket: u64,
    stream: UnixStream,
    logs: bool,
}

impl Pool {
    /// Opens the channels for a body whose adapter has a protocol.
    pub(super) fn open_talk(
        &mut self,
        ticket: u64,
        adapter: &str,
        extra: &Json,
    ) -> Result<Option<Opened>, String> {
        let make = self.options.protocols.iter().find(|(name, _)| *name == adapter);
        let Some((_, make)) = make else { return Ok(None) };
        let Some(protocol) = make(extra)? else { return Ok(None) };
        let (requests, first) = self.channel(ticket, false).map_err(|e| e.to_string())?;
        let (logs, second) = self.channel(ticket, true).map_err(|e| e.to_string())?;
        let talk = Talk { protocol, requests: requests.0, outgoing: VecDeque::new(), wake: None };
        Ok(Some(Opened { talk, channels: vec![requests, logs], theirs: vec![first, second] }))
    }

    fn channel(&mut self, ticket: u64, logs: bool) -> io::Result<((u64, Channel), OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let id = self.id();
        Ok(((id, Channel { ticket, stream: ours, logs }), theirs.into()))
    }

    fn watch_channel(&mut self, id: u64, channel: Channel) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, id);
        // Without it the body is never heard, and ends by its time limit.
        if self.epoll.add(&channel.stream, event).is_ok() {
            self.channels.insert(id, channel);
        }
    }

    /// The body has its channels and its process.
    pub(super) fn begin_talk(&mut self, ticket: u64, opened: Opened) {
        let Opened { mut talk, channels, theirs } = opened;
        drop(theirs);
        for (id, channel) in channels {
            self.watch_channel(id, channel);
        }
        let steps = talk.protocol.begin(wall_now());
        self.talks.insert(ticket, talk);
        self.take_steps(ticket, steps);
    }

    pub(super) fn channel_ready(&mut self, id: u64, writable: bool) {
        let Some(channel) = self.channels.get(&id) else { return };
        let ticket = channel.ticket;
        if writable {
            self.flush_talk(ticket);
        }
        self.read_channel(id);
    }

    /// Reads once. False if nothing came.
    fn read_channel(&mut self, id: u64) -> bool {
        let Some(channel) = self.channels.get_mut(&id) else { return false };
        let (ticket, logs) = (channel.ticket, channel.logs);
        let mut buffer = vec![0; READ_BYTES.min(self.read_size)];
        let got = match channel.stream.read(&mut buffer) {
            Ok(0) => 0,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => 0,
        };
        if got == 0 {
            // Its end is told by its process. Closing it takes it out of the epoll set.
            self.channels.remove(&id);
            return false;
        }
        // A chatty body is read in larger pieces.
        self.read_size = if got == buffer.len() { READ_BYTES } else { 16 * 1024 };
        let Some(talk) = self.talks.get_mut(&ticket) else { return true };
        let steps = if logs {
            talk.protocol.logged(&buffer[..got])
        } else {
            talk.protocol.heard(&buffer[..got], wall_now())
        };
        self.take_steps(ticket, steps);
        true
    }

    pub(super) fn answer_talk(&mut self, ticket: u64, number: u64, answer: &Answer) -> bool {
        let Some(talk) = self.talks.get_mut(&ticket) else { return false };
        let steps = talk.protocol.answered(number, answer.result.clone());
        self.take_steps(ticket, steps);
        true
    }

    /// Hears the rest of a body whose process has ended.
    pub(super) fn end_talk(&mut self, ticket: u64, exit: Option<i32>) {
        if !self.talks.contains_key(&ticket) {
            return;
        }
        let ids: Vec<u64> =
            self.channels.iter().filter(|(_, c)| c.ticket == ticket).map(|(id, _)| *id).collect();
        for id in ids {
            for _ in 0..READS_AT_EXIT {
                if !self.read_channel(id) {
                    break;
                }
            }
            // What the body left behind may hold it open: nobody listens any more.
            self.channels.remove(&id);
        }
        if let Some(talk) = self.talks.get_mut(&ticket) {
            let steps = talk.protocol.ended(exit);
            self.take_steps(ticket, steps);
        }
        self.talks.remove(&ticket);
    }

    pub(super) fn wake_talks(&mut self, now: Instant) {
        let due: Vec<u64> = self
            .talks
            .iter()
            .filter(|(_, talk)| talk.wake.is_some_and(|at| at <= now))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in due {
            let Some(talk) = self.talks.get_mut(&ticket) else { continue };
            talk.wake = None;
            let steps = talk.protocol.woken();
            self.take_steps(ticket, steps);
        }
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.talks.values().filter_map(|talk| talk.wake).min()
    }

    fn take_steps(&mut self, ticket: u64, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Send(bytes) => self.send_to_talk(ticket, bytes, None),
                Step::SendWithLog(bytes) => match self.channel(ticket, true) {
                    Ok(((id, channel), theirs)) => {
                        self.watch_channel(id, channel);
                        self.send_to_talk(ticket, bytes, Some(theirs));
                    }
                    // Without descriptors left, the body does without its records.
                    Err(_) => self.send_to_talk(ticket, bytes, None),
                },
                Step::Ask { number, body } => {
                    self.events.push(WarmEvent::Asked { ticket, number, body });
                }
                Step::Log(lines) => self.events.push(WarmEvent::Logged { ticket, lines }),
                Step::Mask(secrets) => self.events.push(WarmEvent::Masked { ticket, secrets }),
                Step::Wake(after) => {
                    if let Some(talk) = self.talks.get_mut(&ticket) {
                        let at = Instant::now() + after;
                        talk.wake = Some(talk.wake.map_or(at, |old| old.min(at)));
                    }
                }
                Step::Say(said) => self.events.push(WarmEvent::Said { ticket, said }),
                Step::Refuse(message) => {
                    self.events.push(WarmEvent::Nonsense { ticket, message });
                }
            }
        }
        if !self.events.is_empty() {
            // So that the caller polls.
            let _ = self.wake.write(1);
        }
    }

    fn send_to_talk(&mut self, ticket: u64, bytes: Vec<u8>, descriptor: Option<OwnedFd>) {
        let Some(talk) = self.talks.get_mut(&ticket) else { return };
        talk.outgoing.push_back(Outgoing { bytes, sent: 0, descriptor });
        self.flush_talk(ticket);
    }

    fn flush_talk(&mut self, ticket: u64) {
        let Some(talk) = self.talks.get_mut(&ticket) else { return };
        let Some(channel) = self.channels.get(&talk.requests) else {
            talk.outgoing.clear();
            return;
        };
        let behind = loop {
            let Some(first) = talk.outgoing.front_mut() else { break false };
            let descriptors: Vec<_> = first.descriptor.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&descriptors)];
            let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
            let piece = [IoSlice::new(&first.bytes[first.sent..])];
            let socket = channel.stream.as_raw_fd();
            match sendmsg::<()>(socket, &piece, control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(count) => {
                    first.sent += count;
                    first.descriptor = None;
                    if first.sent == first.bytes.len() {
                        talk.outgoing.pop_front();
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => break true,
                // It has gone; its process tells.
                Err(_) => {
                    talk.outgoing.clear();
                    break false;
                }
            }
        };
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, behind);
        let _ = self.epoll.modify(&channel.stream, &mut EpollEvent::new(flags, talk.requests));
    }
}
