//! One end of a channel to a parent or a worker: frames with descriptors, without blocking.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use kobza_model::Json;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::json;

/// Longest frame; the Python side has the same number.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Why a channel is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error("it has gone")]
    Closed,
    #[error("it does not speak the protocol: {0}")]
    Protocol(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: VecDeque<Frame>,
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Connection {
    /// A channel, and the end to hand to the other process.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let connection = Self { stream: ours, incoming: Vec::new(), outgoing: VecDeque::new() };
        Ok((connection, theirs.into()))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether something waits for the other side to read.
    pub(crate) fn is_behind(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends a frame as far as it goes now; the rest follows with [`Self::flush`].
    pub(crate) fn send(
        &mut self,
        mut message: Json,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), ChannelError> {
        if !descriptors.is_empty()
            && let Some(fields) = message.as_object_mut()
        {
            fields.insert("fds".to_owned(), json!(descriptors.len()));
        }
        let mut bytes = vec![0; 4];
        serde_json::to_writer(&mut bytes, &message)
            .map_err(|e| ChannelError::Protocol(e.to_string()))?;
        let length = bytes.len() - 4;
        if length > FRAME_BYTES_MAX {
            let words = format!("a task of {length} bytes; the limit is {FRAME_BYTES_MAX}");
            return Err(ChannelError::Protocol(words));
        }
        // The limit is far below 2^32.
        let prefix = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        bytes[..4].copy_from_slice(&prefix);
        self.outgoing.push_back(Frame { bytes, sent: 0, descriptors });
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some(frame) = self.outgoing.front_mut() {
            let sent = if frame.descriptors.is_empty() {
                self.stream.write(&frame.bytes[frame.sent..])
            } else {
                let raw: Vec<RawFd> = frame.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
                sendmsg::<()>(
                    self.stream.as_raw_fd(),
                    &[IoSlice::new(&frame.bytes)],
                    &[ControlMessage::ScmRights(&raw)],
                    MsgFlags::MSG_NOSIGNAL,
                    None,
                )
                .map_err(io::Error::from)
            };
            match sent {
                Ok(count) => {
                    frame.sent += count;
                    // They went with the first byte.
                    frame.descriptors.clear();
                    if frame.sent == frame.bytes.len() {
                        self.outgoing.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(ChannelError::Closed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Everything that has come; whole frames only. The second value: the other side has gone.
    pub(crate) fn receive(&mut self) -> Result<(Vec<Json>, bool), ChannelError> {
        let mut gone = false;
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    gone = true;
                    break;
                }
                Ok(count) => self.incoming.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    gone = true;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
            // A frame that is longer than allowed must not be gathered first.
            if self.incoming.len() > FRAME_BYTES_MAX + 4 {
                break;
            }
        }
        let mut messages = Vec::new();
        let mut taken = 0;
        while let Some(head) = self.incoming[taken..].first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            if length > FRAME_BYTES_MAX {
                let words = format!("a frame of {length} bytes; the limit is {FRAME_BYTES_MAX}");
                return Err(ChannelError::Protocol(words));
            }
            let Some(body) = self.incoming.get(taken + 4..taken + 4 + length) else { break };
            let message =
                serde_json::from_slice(body).map_err(|e| ChannelError::Protocol(e.to_string()))?;
            messages.push(message);
            taken += 4 + length;
        }
        self.incoming.drain(..taken);
        Ok((messages, gone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_and_bad_ones_are_refused() {
        let (mut one, other) = Connection::pair().unwrap();
        let mut other = UnixStream::from(other);
        let body = br#"{"a":1}"#;
        let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&bytes.clone()[..6]);
        other.write_all(&bytes).unwrap();
        assert_eq!(one.receive().unwrap(), (vec![json!({"a": 1})], false));
        other.write_all(&bytes[6..11]).unwrap();
        drop(other);
        assert_eq!(one.receive().unwrap(), (vec![json!({"a": 1})], true));

        let (mut one, other) = Connection::pair().unwrap();
        UnixStream::from(other).write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(matches!(one.receive(), Err(ChannelError::Protocol(_))));
    }

    #[test]
    fn a_reader_that_does_not_read_blocks_nobody() {
        let (mut one, other) = Connection::pair().unwrap();
        let long = json!({ "x": "y".repeat(4 << 20) });
        one.send(long.clone(), Vec::new()).unwrap();
        assert!(one.is_behind());
        let (mut reader, ours) = (UnixStream::from(other), &mut one);
        let mut got = vec![0; long.to_string().len() + 4];
        let mut at = 0;
        while at < got.len() {
            at += reader.read(&mut got[at..]).unwrap();
            ours.flush().unwrap();
        }
        assert!(!one.is_behind());
        assert_eq!(serde_json::from_slice::<Json>(&got[4..]).unwrap(), long);
    }
}
