//! The shim: holds tasks as its children, apart from the server.
//!
//! One thread and one epoll loop. What it has to say is numbered, spooled to a file and repeated
//! to every new connection until confirmed. It adopts orphans of its tasks (child subreaper), so a
//! task's whole tree can be found and ended.

mod asks;
mod cgroup;
mod client;
mod ending;
mod host;
mod link;
mod loop_state;
mod memory;
mod output;
mod spawn;
mod spool;
mod starting;
mod streams;
mod task;
mod wake;
mod warm;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use loop_state::Shim;

use crate::warm::MakeWarm;

/// Runs a shim until it has nothing to do any more.
///
/// `args` are those after the subcommand: `--dir <folder>`, the shim's own folder, made by the
/// server. The server hands over the listening socket as standard input and the locked lock file
/// as standard output: a shim is reachable from its first instant, and alive as long as the lock
/// is held.
pub fn shim_main(args: impl IntoIterator<Item = String>) -> ExitCode {
    shim_main_with(args, None)
}

/// As [`shim_main`], for a shim that also hosts bodies whose process `warm` starts.
pub fn shim_main_with(args: impl IntoIterator<Item = String>, warm: Option<MakeWarm>) -> ExitCode {
    match run(args, warm) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("kobza shim: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: impl IntoIterator<Item = String>, warm: Option<MakeWarm>) -> Result<(), String> {
    let folder = folder(args)?;
    let listener = listener()?;
    // Away from the server's terminal and process group. That it fails for a group leader (a shim
    // started by hand) is no harm.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|e| format!("cannot adopt the orphans of tasks: {e}"))?;
    Shim::new(folder, listener, warm)?.run()
}

fn folder(args: impl IntoIterator<Item = String>) -> Result<PathBuf, String> {
    let mut args = args.into_iter();
    match (args.next().as_deref(), args.next(), args.next()) {
        (Some("--dir"), Some(folder), None) => {
            let folder = fs::canonicalize(Path::new(&folder))
                .map_err(|e| format!("folder {folder}: {e}"))?;
            Ok(folder)
        }
        _ => Err("usage: shim --dir <folder>; it is started by the server".into()),
    }
}

fn listener() -> Result<UnixListener, String> {
    let refused = || "standard input is not a listening socket; the server starts shims".to_owned();
    let fd = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
    let is_socket = fs::metadata("/proc/self/fd/0").is_ok_and(|m| m.file_type().is_socket());
    if !is_socket {
        return Err(refused());
    }
    let listener = UnixListener::from(fd);
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    Ok(listener)
}
