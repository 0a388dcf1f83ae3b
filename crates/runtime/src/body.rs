//! The seam for bodies that speak a protocol of their own: a system's stock worker, which expects a
//! supervisor at the other end of a socket. The supervisor is a [`Protocol`] in the shim.

use std::fmt::Debug;
use std::time::Duration;

use kobza_model::{Cause, Json, NodeNo, Outcome, Timestamp};
use serde::{Deserialize, Serialize};

/// The supervisor of one body. Pure: bytes and times come in, steps go out.
pub trait Protocol: Debug {
    /// The body has its process.
    fn begin(&mut self, now: Timestamp) -> Vec<Step>;

    /// Bytes came on its channel of requests.
    fn heard(&mut self, bytes: &[u8], now: Timestamp) -> Vec<Step>;

    /// Bytes came on a channel of log records.
    fn logged(&mut self, bytes: &[u8]) -> Vec<Step>;

    /// The server's answer to [`Step::Ask`], or why there is none.
    fn answered(&mut self, number: u64, answer: Result<Json, String>) -> Vec<Step>;

    /// The time of [`Step::Wake`] has come.
    fn woken(&mut self) -> Vec<Step>;

    /// The process has ended and all that it sent has been heard. `exit` is none if a signal ended
    /// it; who reports nothing then lets the shim report that.
    fn ended(&mut self, exit: Option<i32>) -> Vec<Step>;
}

/// What a [`Protocol`] wants done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Bytes for the body.
    Send(Vec<u8>),
    /// The same, with the descriptor of a fresh channel of log records.
    SendWithLog(Vec<u8>),
    /// Ask the server. The number is unique within the body's life.
    Ask {
        number: u64,
        body: Json,
    },
    /// Whole lines for the body's log.
    Log(Vec<u8>),
    /// From now on these are masked.
    Mask(Vec<String>),
    /// Call [`Protocol::woken`] after so long. A sooner call is not put off.
    Wake(Duration),
    Say(Said),
    /// It does not speak the protocol: it is killed and fails with this message.
    Refuse(String),
}

/// What a body says of itself. Only outputs may follow an end or a wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Outputs(Vec<(String, Json)>),
    Ended(Box<Ended>),
    /// It gives its worker back, until a time or until it is resumed.
    Deferred {
        until: Option<Timestamp>,
        carry: Json,
    },
    /// It gives its worker back until a time.
    Rescheduled {
        until: Timestamp,
        carry: Json,
    },
    /// It waits for a person.
    Suspended {
        carry: Json,
    },
}

impl Said {
    /// Whether the launch is over with it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Outputs(_))
    }
}

/// How a body ended by its own account; by default it failed, without a word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub outcome: Outcome,
    pub cause: Cause,
    pub message: Option<String>,
    pub outputs: Vec<(String, Json)>,
    /// Nodes of its graph that must be skipped.
    pub skips: Vec<NodeNo>,
    pub published: Vec<Published>,
}

/// Data that a body has published: an asset, a partition of it, and what there is to say, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub asset: String,
    pub partition: Option<String>,
    pub metadata: String,
}

impl Default for Ended {
    fn default() -> Self {
        Self {
            outcome: Outcome::Failed,
            cause: Cause::Code,
            message: None,
            outputs: Vec::new(),
            skips: Vec::new(),
            published: Vec::new(),
        }
    }
}
