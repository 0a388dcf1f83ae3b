//! A connection to one shim.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::wire::{Frames, FromShim, Hello, LOCK, PROTOCOL, SOCKET, ToShim, encode};

/// How long a living shim may take to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(20);
/// What a shim says on standard error is kept for a look.
const ERRORS: &str = "errors.log";

#[derive(Debug)]
pub(super) struct Link {
    pub folder: PathBuf,
    stream: UnixStream,
    pub hello: Hello,
    /// If this server started it: to be waited for when it ends.
    pub child: Option<Child>,
}

/// The reading half, for a thread of its own.
#[derive(Debug)]
pub(super) struct Incoming {
    pub stream: UnixStream,
    pub frames: Frames,
}

impl Link {
    /// Starts a shim in a new folder.
    pub(super) fn start(shims: &Path, command: &[String]) -> io::Result<(Self, Incoming)> {
        let folder = shims.join(uuid::Uuid::now_v7().simple().to_string());
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let result = Self::start_in(&folder, command);
        if result.is_err() {
            let _ = fs::remove_dir_all(&folder);
        }
        result
    }

    fn start_in(folder: &Path, command: &[String]) -> io::Result<(Self, Incoming)> {
        let lock = lock_file(folder)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)?;
        let listener = through(folder, |path| UnixListener::bind(path))?;
        let errors = folder.join(ERRORS);
        let errors = OpenOptions::new().create(true).append(true).mode(0o600).open(errors)?;
        let (program, args) =
            command.split_first().ok_or_else(|| io::Error::other("no shim command"))?;
        // The child's descriptors are of the same open files: it listens, and it holds the lock,
        // from its first instant on. Of ours, the lock is only closed: unlocking would unlock its.
        let handed = lock.try_clone()?;
        let child = Command::new(program)
            .args(args)
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
            .stdout(Stdio::from(handed))
            .stderr(Stdio::from(errors))
            .spawn();
        forget_lock(lock, child.is_ok());
        let mut child = child?;
        match Self::connect(folder) {
            Ok((mut link, incoming)) => {
                link.child = Some(child);
                Ok((link, incoming))
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let said = fs::read_to_string(folder.join(ERRORS)).unwrap_or_default();
                let said: String = said.trim().chars().take(500).collect();
                Err(io::Error::new(error.kind(), format!("{error}; it said: {said:?}")))
            }
        }
    }

    /// Connects to a shim and hears its hello.
    pub(super) fn connect(folder: &Path) -> io::Result<(Self, Incoming)> {
        let mut stream = through(folder, |path| UnixStream::connect(path))?;
        stream.set_read_timeout(Some(HELLO_PATIENCE))?;
        let mut frames = Frames::default();
        let hello = loop {
            match frames.next().map_err(io::Error::other)? {
                Some(FromShim::Hello(hello)) => break hello,
                Some(FromShim::Event(_) | FromShim::Ask { .. }) => {
                    return Err(io::Error::other("an event before hello"));
                }
                None if frames.fill(&mut stream)? => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        stream.set_read_timeout(None)?;
        let incoming = Incoming { stream: stream.try_clone()?, frames };
        Ok((Self { folder: folder.to_path_buf(), stream, hello, child: None }, incoming))
    }

    /// Whether it may get new launches.
    pub(super) fn is_current(&self) -> bool {
        self.hello.protocol == PROTOCOL
    }

    /// The shim's id.
    pub(super) fn id(&self) -> String {
        shim_id(&self.folder)
    }

    /// Sends frames. A shim always reads, so this does not wait for long; that it is gone is seen
    /// by the reading half.
    pub(super) fn send(&mut self, frames: &[u8]) {
        if let Err(error) = self.stream.write_all(frames) {
            tracing::debug!(shim = self.id(), %error, "write to the shim");
        }
    }

    /// Tells a shim of an older protocol to end with its last task.
    pub(super) fn retire(&mut self) {
        let mut frame = Vec::new();
        if encode(&ToShim::ExitWhenIdle, &mut frame).is_ok() {
            self.send(&frame);
        }
    }

    pub(super) fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

pub(super) fn shim_id(folder: &Path) -> String {
    folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether the shim of a folder is certainly dead: the kernel has released its lock.
pub(super) fn is_dead(folder: &Path) -> bool {
    match lock_file(folder) {
        Ok(file) => Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn lock_file(folder: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(folder.join(LOCK))
}

/// Closes our descriptor of a lock that a child holds too.
fn forget_lock(lock: Flock<File>, held_by_child: bool) {
    if held_by_child {
        // `Flock` unlocks when dropped, for all who share the open file. So it is leaked, but its
        // descriptor is closed.
        let descriptor = lock.as_raw_fd();
        std::mem::forget(lock);
        let _ = nix::unistd::close(descriptor);
    }
}

/// Addresses the socket by way of the folder's descriptor: the path of a socket has at most 107
/// bytes, and data folders lie deep.
fn through<T>(folder: &Path, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let open = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd());
    call(Path::new(&path))
}
