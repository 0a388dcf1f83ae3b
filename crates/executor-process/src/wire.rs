//! What server and shim say to each other: frames of a 4-byte little-endian length and JSON. The
//! spool is a file of the same frames.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use kobza_blobs::LogSummary;
use kobza_engine::KillReason;
use kobza_model::{Cause, Json, LaunchId, Outcome, Timestamp};
use kobza_runtime::{Answer, LaunchSpec, Said};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of this protocol. A shim of another version keeps its tasks but gets no new ones.
pub(crate) const PROTOCOL: u32 = 3;
/// Longest frame: a launch with its files and input, or a report with its outputs.
pub(crate) const MAX_FRAME_BYTES: usize = 64 << 20;

/// Names inside a shim's folder.
pub(crate) const SOCKET: &str = "shim.sock";
pub(crate) const LOCK: &str = "lock";
pub(crate) const SPOOL: &str = "spool";

/// Variables by which the processes of a task are found again: its launch, and the full path of its
/// shim's folder.
pub(crate) const LAUNCH_VARIABLE: &str = "KOBZA_LAUNCH";
pub(crate) const SHIM_VARIABLE: &str = "KOBZA_SHIM";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToShim {
    Launch(Box<LaunchCommand>),
    Kill {
        launch: LaunchId,
        reason: KillWord,
    },
    /// These events are durable: forget them.
    Ack {
        numbers: Vec<u64>,
    },
    /// To what a body has asked.
    Answer {
        launch: LaunchId,
        number: u64,
        answer: Answer,
    },
    /// Say hello again.
    List,
    /// End as soon as no task and no unconfirmed event is left.
    ExitWhenIdle,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LaunchCommand {
    pub launch: LaunchId,
    pub spec: LaunchSpec,
    pub log: PathBuf,
}

/// [`KillReason`] on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KillWord {
    Stopped,
    Timeout,
    Superseded,
}

impl From<KillReason> for KillWord {
    fn from(reason: KillReason) -> Self {
        match reason {
            KillReason::Stopped => Self::Stopped,
            KillReason::Timeout => Self::Timeout,
            KillReason::Superseded => Self::Superseded,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromShim {
    Hello(Hello),
    Event(Event),
    /// A body asks. Repeated to each connection until answered, but not in the spool: it dies with
    /// the shim.
    Ask {
        launch: LaunchId,
        /// Unique within the launch.
        number: u64,
        body: Json,
    },
}

/// The first frame of a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub protocol: u32,
    pub pid: u32,
    /// Every launch that the shim has: waiting, running, or finished and unconfirmed.
    pub launches: Vec<LaunchId>,
}

/// Something that happened to a launch. Repeated to each connection until confirmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Grows within one shim.
    pub number: u64,
    pub launch: LaunchId,
    /// Microseconds of wall time.
    pub at: i64,
    pub body: EventBody,
}

impl Event {
    pub(crate) fn at(&self) -> Timestamp {
        Timestamp(self.at)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventBody {
    Started {
        pid: u32,
    },
    Finished(Box<Finished>),
    /// What a body says of itself, in a protocol of its own.
    Said(Said),
}

impl EventBody {
    /// Whether the launch is over with it.
    pub(crate) fn is_last(&self) -> bool {
        match self {
            Self::Started { .. } => false,
            Self::Finished(_) => true,
            Self::Said(said) => said.is_last(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub outcome: Outcome,
    pub cause: Cause,
    pub message: Option<String>,
    pub exit_code: Option<i32>,
    pub outputs: Vec<(String, Json)>,
    pub log: LogSummary,
}

/// Appends a message as a frame.
pub(crate) fn encode(message: &impl Serialize, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    if let Err(error) = serde_json::to_writer(&mut *out, message) {
        out.truncate(start);
        return Err(FrameError::Form(error.to_string()));
    }
    let length = out.len() - start - 4;
    if length > MAX_FRAME_BYTES {
        out.truncate(start);
        return Err(FrameError::TooLong(length));
    }
    let bytes = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    out[start..start + 4].copy_from_slice(&bytes);
    Ok(())
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a message of {0} bytes is longer than the limit of {MAX_FRAME_BYTES}")]
    TooLong(usize),
    #[error("a message is not of the form expected: {0}")]
    Form(String),
}

/// Bytes as they come in, cut into messages.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: VecDeque<u8>,
}

impl Frames {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The next whole message.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let mut head = [0; 4];
        if self.bytes.len() < 4 {
            return Ok(None);
        }
        for (to, from) in head.iter_mut().zip(&self.bytes) {
            *to = *from;
        }
        let length = u32::from_le_bytes(head) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(length));
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        self.bytes.drain(..4);
        let contiguous = &self.bytes.make_contiguous()[..length];
        let message =
            serde_json::from_slice(contiguous).map_err(|e| FrameError::Form(e.to_string()))?;
        self.bytes.drain(..length);
        Ok(Some(message))
    }

    /// Reads once from a blocking stream. False at its end.
    pub(crate) fn fill(&mut self, source: &mut impl io::Read) -> io::Result<bool> {
        let mut buffer = [0; 32 * 1024];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(got) => {
                    self.push(&buffer[..got]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_any_pieces() {
        let mut bytes = Vec::new();
        encode(&ToShim::Ack { numbers: vec![1, 2] }, &mut bytes).unwrap();
        encode(&ToShim::List, &mut bytes).unwrap();
        let mut frames = Frames::default();
        let mut got = Vec::new();
        for byte in bytes {
            frames.push(&[byte]);
            if let Some(message) = frames.next::<ToShim>().unwrap() {
                got.push(format!("{message:?}"));
            }
        }
        assert_eq!(got, ["Ack { numbers: [1, 2] }", "List"]);
    }

    #[test]
    fn hostile_frames_are_refused() {
        let mut frames = Frames::default();
        frames.push(&u32::MAX.to_le_bytes());
        assert!(matches!(frames.next::<ToShim>(), Err(FrameError::TooLong(_))));
        let mut frames = Frames::default();
        frames.push(&[2, 0, 0, 0, b'{', b'x']);
        assert!(matches!(frames.next::<ToShim>(), Err(FrameError::Form(_))));
    }
}
