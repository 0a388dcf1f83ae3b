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

/// Takes bytes as a shim and a server take each other's, until they make no sense. For fuzzing.
#[doc(hidden)]
pub fn read_frames(bytes: &[u8]) {
    let (mut to_shim, mut from_shim) = (wire::Frames::default(), wire::Frames::default());
    to_shim.push(bytes);
    from_shim.push(bytes);
    while let Ok(Some(_message)) = to_shim.next::<wire::ToShim>() {}
    while let Ok(Some(_message)) = from_shim.next::<wire::FromShim>() {}
}
