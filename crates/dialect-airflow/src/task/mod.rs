//! A task's body: the stock task runner, and Kobza as its supervisor.

mod carry;
mod log;
mod masks;
pub mod msgpack;
mod outlets;
mod requests;
mod supervisor;
#[cfg(test)]
mod tests;

pub use carry::{Carry, Waiting};
pub use masks::{is_sensitive, secrets_of};
pub use requests::{
    AssetEvents, AssetProfile, Refused, Request, StateKey, TaskInstances, TriggerDagRun, XComPlace,
};
pub(crate) use supervisor::is_failure;
pub use supervisor::{Brief, SKIPMIXIN, Supervisor};
