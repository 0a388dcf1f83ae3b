//! The seam for bodies whose process the shim does not start itself: forked by a warm interpreter.

use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

use kobza_model::{Cause, Json};
use kobza_runtime::{Answer, LaunchSpec, Said};

/// Starts bodies on behalf of the shim. No method may block.
///
/// Every process it makes must be a child of the shim, which reaps them all.
pub trait Warm {
    /// Whether this launch is one of its kind.
    fn claims(&self, spec: &LaunchSpec) -> bool;

    /// Readable when [`Self::poll`] has something to do.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Starts a body; what becomes of it comes by [`Self::poll`].
    fn start(&mut self, ticket: u64, body: WarmBody);

    /// Forgets a body that has no process yet. No event follows.
    fn cancel(&mut self, ticket: u64);

    /// Tells a body what it has asked for ([`WarmEvent::Asked`]).
    fn answer(&mut self, ticket: u64, number: u64, answer: &Answer);

    /// The process of a body has ended, with this code or by a signal, and was reaped: what it said
    /// before comes by the next [`Self::poll`].
    fn exited(&mut self, ticket: u64, exit: Option<i32>);

    /// Does what is due.
    fn poll(&mut self) -> Vec<WarmEvent>;

    /// When to poll even if nothing is readable.
    fn deadline(&self) -> Option<Instant>;

    /// Whether this child of the shim serves the warm host rather than being left by a task.
    fn owns(&self, pid: i32) -> bool;

    /// Whether children may exist of which it has not heard yet: until then nobody can tell whose a
    /// child is that [`Self::owns`] does not know.
    fn expects(&self) -> bool;

    /// A child has ended and was reaped.
    fn reaped(&mut self, pid: i32);
}

/// What a body gets.
#[derive(Debug)]
pub struct WarmBody {
    pub spec: LaunchSpec,
    /// Ends to write to.
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Variables on top of the shim's environment ([`WarmSetup::environment`]).
    pub environment: Vec<(String, String)>,
    /// Working folder.
    pub folder: PathBuf,
    /// Where the body leaves its outputs.
    pub output: PathBuf,
}

#[derive(Debug, PartialEq)]
pub enum WarmEvent {
    /// The body runs in this process, which the shim is to reap.
    Started { ticket: u64, pid: i32 },
    /// The body asks the run's dialect; the number is unique within the body's life. The shim keeps
    /// the question, and asks each server until one has answered.
    Asked { ticket: u64, number: u64, body: Json },
    /// The body has ended, though its process has not: that takes another body next.
    Ended { ticket: u64, exit_code: i32 },
    /// Whole lines for the body's log.
    Logged { ticket: u64, lines: Vec<u8> },
    /// Values that are masked from now on.
    Masked { ticket: u64, secrets: Vec<String> },
    /// What the body says of itself, in a protocol of its own.
    Said { ticket: u64, said: Said },
    /// It does not speak its protocol, and must not go on.
    Nonsense { ticket: u64, message: String },
    /// There is no process. `log` goes to the task's log.
    Refused { ticket: u64, cause: Cause, message: String, log: String },
}

/// What a warm host is made from.
#[derive(Debug)]
pub struct WarmSetup {
    /// The server's folder.
    pub data_dir: PathBuf,
    /// The environment for its own processes.
    pub environment: Vec<(OsString, OsString)>,
}

/// Makes the warm host, on the first body that could be one.
pub type MakeWarm = fn(WarmSetup) -> Result<Box<dyn Warm>, String>;
