//! Runs tasks as local processes.
//!
//! [`ProcessExecutor`] lives in the server and speaks, over a Unix socket, to a *shim*: a small
//! process of its own session that holds the tasks, so that they outlive the server. The shim is
//! [`shim_main`], a hidden subcommand of the same binary, as are the bodies of `sql` and `http`
//! tasks ([`exec_sql_main`], [`exec_http_main`]).

mod builtin;
mod clock;
mod executor;
mod procfs;
mod shim;
mod warm;
mod wire;

pub use builtin::{exec_http_main, exec_sql_main};
pub use executor::{ProcessExecutor, ProcessOptions, StartError};
pub use shim::{shim_main, shim_main_with};
pub use warm::{MakeWarm, Warm, WarmBody, WarmEvent, WarmSetup};

/// Program of a `LaunchSpec` that runs the `sql` body (this binary's `exec sql`): a JSON spec on its
/// standard input.
pub const SQL_PROGRAM: &str = "@sql";
/// Program of a `LaunchSpec` that runs the `http` body (this binary's `exec http`): a JSON spec on
/// its standard input.
pub const HTTP_PROGRAM: &str = "@http";
