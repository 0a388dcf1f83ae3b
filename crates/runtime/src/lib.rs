//! The one loop: inbox, engine, store commit, actions out.
//!
//! One thread owns the engine. It drains the inbox in batches, lets the engine decide, commits all
//! that changed in one transaction, and only then answers callers and acts.

pub mod body;
mod checks;
mod clock;
mod facts;
mod handle;
mod metrics;
pub mod ports;
mod turn;

pub use body::{Ended, Protocol, Published, Said, Step};
pub use clock::{Clock, wall_now};
pub use facts::Lookup;
pub use handle::{Committed, Handle, INBOX_CAPACITY, Submission, SubmitError};
pub use metrics::Metrics;
pub use ports::{
    Answer, Ask, Dialect, Executor, ExecutorName, Facts, LaunchSpec, Poll, ReportSink,
};
pub use turn::{Inbox, Runtime, RuntimeError, RuntimeOptions, channel};
