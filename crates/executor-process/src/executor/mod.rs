//! The server's side: an executor that hands launches to a shim.

mod deliver;
mod link;
mod links;
mod recovery;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kobza_blobs::LogStore;
use kobza_engine::KillReason;
use kobza_model::LaunchId;
use kobza_runtime::{Executor, LaunchSpec, ReportSink};

use links::{Links, Message};

/// How a [`ProcessExecutor`] is set up.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// The server's folder; shims live in `shims` below it.
    pub data_dir: PathBuf,
    /// Program and first arguments that start a shim, such as `[<this binary>, "shim"]`;
    /// `--dir <folder>` is appended. Built-in bodies run as `<that program> exec sql`.
    pub shim_command: Vec<String>,
    pub logs: LogStore,
}

/// Why an executor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("shim_command is empty")]
    NoCommand,
    #[error("{path}: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Runs launches as local processes that outlive the server.
///
/// Dropping it leaves the tasks running, as the death of the server would; the next executor of the
/// same folder takes them up again. A shim without tasks ends by itself.
pub struct ProcessExecutor {
    messages: Mutex<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl ProcessExecutor {
    /// Starts the thread that owns the connections. It first looks after the shims of an earlier
    /// server: living ones are taken up; what dead ones left is killed, and their unconfirmed
    /// events are reported. Launches given meanwhile wait for that.
    pub fn start(options: ProcessOptions, sink: Arc<dyn ReportSink>) -> Result<Self, StartError> {
        if options.shim_command.is_empty() {
            return Err(StartError::NoCommand);
        }
        let shims = options.data_dir.join("shims");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&shims)
            .map_err(|source| StartError::Folder { path: shims.clone(), source })?;
        // As the shims themselves see it, since tasks are marked by it.
        let shims = fs::canonicalize(&shims)
            .map_err(|source| StartError::Folder { path: shims.clone(), source })?;
        if shims.to_str().is_none() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the path must be UTF-8");
            return Err(StartError::Folder { path: shims, source });
        }
        let (sender, receiver) = channel();
        let links = Links::new(shims, options, sink, sender.clone());
        let thread = std::thread::Builder::new()
            .name("process-executor".into())
            .spawn(move || links.run(&receiver))
            .map_err(StartError::Thread)?;
        Ok(Self { messages: Mutex::new(sender), thread: Some(thread) })
    }

    /// The queue has no bound of its own: there are never more launches than the engine's limits
    /// let out, and never more confirmations than launches.
    fn send(&self, message: Message) {
        let sender = self.messages.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The thread ends only with the executor.
        let _ = sender.send(message);
    }
}

impl Executor for ProcessExecutor {
    fn launch(&self, launch: LaunchId, spec: LaunchSpec) {
        self.send(Message::Launch(launch, Box::new(spec)));
    }

    fn kill(&self, launch: LaunchId, reason: KillReason) {
        self.send(Message::Kill(launch, reason));
    }

    fn adopt(&self, launches: Vec<LaunchId>) {
        self.send(Message::Adopt(launches));
    }
}

impl Drop for ProcessExecutor {
    fn drop(&mut self) {
        self.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
