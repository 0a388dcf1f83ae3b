//! A process that somebody else starts, and that connects to us.

use std::io::{Error, ErrorKind};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::{Hosting, START_PATIENCE};

/// Between two looks at who has connected, while Airflow is being imported elsewhere.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) enum NotConnected {
    Io(Error),
    /// It ended first, with these words.
    Ended(String),
}

impl From<Error> for NotConnected {
    fn from(error: Error) -> Self {
        Self::Io(error)
    }
}

/// Starts the process, and waits until it has connected. Others than our own user are turned away.
pub(super) fn connected(
    hosting: &dyn Hosting,
) -> Result<(UnixStream, Receiver<String>), NotConnected> {
    let name = format!("kobza-dags-{}", uuid::Uuid::new_v4().simple());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    listener.set_nonblocking(true)?;
    let ended = hosting.start(&name);
    let until = Instant::now() + START_PATIENCE;
    while Instant::now() < until {
        match listener.accept() {
            Ok((stream, _)) => {
                let peer = getsockopt(&stream, PeerCredentials).map_err(Error::from)?;
                if peer.uid() == nix::unistd::geteuid().as_raw() {
                    stream.set_nonblocking(false)?;
                    return Ok((stream, ended));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        match ended.recv_timeout(PAUSE) {
            Ok(words) => return Err(NotConnected::Ended(words)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(PAUSE),
        }
    }
    hosting.stop();
    Err(Error::new(ErrorKind::TimedOut, "it did not begin in time").into())
}
