//! Python tasks in warm workers: the side of the shim.
//!
//! A [`Pool`] keeps a *parent* process for each environment and piece of code. The parent has
//! imported the user's modules and forks a worker whenever one is wanted; the worker is a child of
//! the shim, which reaps, times and kills it like any other task. Nothing here blocks: the shim
//! polls the pool's descriptor in its own loop.
//!
//! The other half is the Python package `kobza_worker`, which documents the protocol;
//! [`sources::unpack`] puts it, and the SDK, where interpreters find them.

mod code;
mod connection;
mod environment;
mod export;
mod parent;
mod pool;
mod requirements;
pub mod sources;
mod task;

pub use environment::{BuildError, Builder, find_uv};
pub use export::{ExportError, Problem, export};
pub use pool::{MakeProtocol, Pool, PoolOptions};
pub use requirements::{Requirements, Source, inline_requirements};
pub use sources::unpack;
pub use task::{Listed, Mode, PythonTask, TaskError};
