//! Luigi: a central scheduler for the real `luigi` package's workers.
//!
//! [`LuigiMachine`] is the scheduler, pure; the HTTP half speaks luigid's protocol to workers and
//! the visualiser.

mod config;
mod machine;
mod pyjson;

pub use config::{ConfigError, LuigiConfig};
pub use machine::{LuigiFactory, LuigiMachine};
