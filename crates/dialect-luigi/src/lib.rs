//! Luigi: a central scheduler for the real `luigi` package's workers.
//!
//! [`LuigiMachine`] is the scheduler, pure; the HTTP half speaks luigid's protocol to workers and
//! the visualiser.

mod config;
mod dialect;
mod http;
mod machine;
mod memory;
mod pyjson;

pub use config::{ConfigError, LuigiConfig};
pub use dialect::{LuigiDialect, RuntimeHost, WORKFLOW, ensure_run, workflow};
pub use http::{
    Call, CheckPassword, HostError, LuigiHttp, MAX_BODY, MachineHost, TestHooks, router,
};
pub use machine::{LuigiFactory, LuigiMachine};
pub use memory::MemoryHost;
