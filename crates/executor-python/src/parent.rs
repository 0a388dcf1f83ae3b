//! A warm parent, as the pool sees it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kobza_model::{Cause, Json};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::json;

use crate::code::Imported;
use crate::connection::Connection;
use crate::pool::Job;
use crate::task::PythonTask;

/// Bytes of a parent's own output that go into a message or a task's log.
const LOG_TAIL_BYTES: u64 = 8 * 1024;
/// What a parent may grow by, and by half of its first size beyond.
const GROWTH_BYTES: u64 = 32 << 20;
/// What the host waits beyond the import's time limit, which the parent keeps itself.
const IMPORT_PATIENCE: Duration = Duration::from_secs(5);

/// What parents are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub interpreter: String,
    pub adapter: String,
    pub path: Vec<String>,
    /// The module or file, as JSON.
    pub load: String,
}

impl Key {
    pub(crate) fn of(task: &PythonTask, interpreter: &Path) -> Self {
        Self {
            interpreter: interpreter.to_string_lossy().into_owned(),
            adapter: task.adapter().to_owned(),
            path: task.path.clone(),
            load: task.load().to_string(),
        }
    }
}

#[derive(Debug)]
pub(crate) enum State {
    /// It will be forked from another parent as soon as that is ready.
    Waiting { base: u64 },
    Importing {
        /// When the host loses patience.
        until: Instant,
    },
    Ready {
        imported: Imported,
        /// Why forking is unsafe, if it is.
        spawn: Option<String>,
    },
}

#[derive(Debug)]
pub(crate) struct Parent {
    pub key: Key,
    pub connection: Connection,
    pub pid: i32,
    pub state: State,
    pub resident_bytes: u64,
    /// When it had just imported.
    pub first_bytes: u64,
    /// Jobs that wait for a worker that takes one task.
    pub queue: VecDeque<Job>,
    /// Jobs that wait for a worker that takes many.
    pub reuse_queue: VecDeque<Job>,
    /// Workers that were asked for, by request: answers come in order.
    pub asked: VecDeque<Vec<u64>>,
    pub idle: VecDeque<u64>,
    pub reuse_idle: VecDeque<u64>,
    /// Living workers for many tasks, those asked for included.
    pub reuse_count: usize,
    pub used: Instant,
    log: Option<File>,
    /// Other parents are forked from it: it stays.
    pub is_base: bool,
}

impl Parent {
    /// One that waits for another, to be forked from it.
    pub(crate) fn waiting(key: Key, base: u64, now: Instant) -> Result<Self, String> {
        let (connection, _theirs) = Connection::pair().map_err(|e| e.to_string())?;
        Ok(Self::new(key, connection, State::Waiting { base }, 0, now, None))
    }

    /// Takes up the one end of a channel whose other end, and the log, go to the parent that forks
    /// this one.
    pub(crate) fn be_forked(
        &mut self,
        packages: &Path,
        import_timeout: Duration,
        now: Instant,
    ) -> Result<[OwnedFd; 2], String> {
        let (mut connection, theirs) = Connection::pair().map_err(|e| e.to_string())?;
        let log =
            memfd_create(c"kobza-parent", MFdFlags::MFD_CLOEXEC).map_err(|e| e.to_string())?;
        let copy = log.try_clone().map_err(|e| e.to_string())?;
        connection
            .send(start_message(&self.key, packages, import_timeout), Vec::new())
            .map_err(|e| e.to_string())?;
        self.connection = connection;
        self.log = Some(File::from(log));
        self.state = State::Importing { until: now + import_timeout + IMPORT_PATIENCE };
        Ok([theirs, copy])
    }

    fn new(
        key: Key,
        connection: Connection,
        state: State,
        pid: i32,
        now: Instant,
        log: Option<File>,
    ) -> Self {
        Self {
            key,
            connection,
            pid,
            state,
            resident_bytes: 0,
            first_bytes: 0,
            queue: VecDeque::new(),
            reuse_queue: VecDeque::new(),
            asked: VecDeque::new(),
            idle: VecDeque::new(),
            reuse_idle: VecDeque::new(),
            reuse_count: 0,
            used: now,
            log,
            is_base: false,
        }
    }

    /// Starts one. It imports at once.
    pub(crate) fn start(
        key: Key,
        packages: &Path,
        environment: &[(OsString, OsString)],
        import_timeout: Duration,
        now: Instant,
    ) -> Result<Self, String> {
        let (mut connection, theirs) = Connection::pair().map_err(|e| e.to_string())?;
        let log = memfd_create(c"kobza-parent", MFdFlags::MFD_CLOEXEC).ok().map(File::from);
        let stream = || match log.as_ref().and_then(|log| log.try_clone().ok()) {
            Some(log) => Stdio::from(log),
            None => Stdio::null(),
        };
        let mut command = interpreter(&key.interpreter, packages, environment);
        // What an interpreter reads before any code runs.
        let load: Json = serde_json::from_str(&key.load).unwrap_or(Json::Null);
        for (name, value) in load["interpreter_env"].as_object().into_iter().flatten() {
            command.env(name, value.as_str().unwrap_or_default());
        }
        command.args(["parent", "0"]).stdin(Stdio::from(theirs));
        command.stdout(stream()).stderr(stream());
        let child = command.spawn().map_err(|error| not_started(&key.interpreter, &error))?;
        connection
            .send(start_message(&key, packages, import_timeout), Vec::new())
            .map_err(|e| e.to_string())?;
        let pid = i32::try_from(child.id()).unwrap_or(0);
        let state = State::Importing { until: now + import_timeout + IMPORT_PATIENCE };
        Ok(Self::new(key, connection, state, pid, now, log))
    }

    /// The end of what it has printed itself: imports print there.
    pub(crate) fn log_tail(&mut self) -> String {
        let Some(log) = &mut self.log else { return String::new() };
        let end = log.seek(SeekFrom::End(0)).unwrap_or(0);
        let mut tail = Vec::new();
        let from = SeekFrom::Start(end.saturating_sub(LOG_TAIL_BYTES));
        if log.seek(from).is_ok() {
            let _ = log.take(LOG_TAIL_BYTES).read_to_end(&mut tail);
        }
        String::from_utf8_lossy(&tail).into_owned()
    }

    /// Memory beyond which it is replaced.
    pub(crate) fn grown_bytes(&self) -> u64 {
        self.first_bytes + self.first_bytes / 2 + GROWTH_BYTES
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.reuse_queue.is_empty() && self.asked.is_empty()
    }
}

fn start_message(key: &Key, packages: &Path, import_timeout: Duration) -> Json {
    let load: Json = serde_json::from_str(&key.load).unwrap_or(Json::Null);
    json!({
        "op": "start",
        "path": key.path,
        "adapter": format!("{}.runner", key.adapter),
        "machinery": [packages.join(&key.adapter)],
        "load": [load],
        "import_timeout": import_timeout.as_secs_f64(),
    })
}

/// A program that runs `kobza_worker`.
pub(crate) fn interpreter(
    program: &str,
    packages: &Path,
    environment: &[(OsString, OsString)],
) -> Command {
    let mut command = Command::new(program);
    command.arg(packages.join("kobza_worker"));
    command.env_clear().envs(environment.iter().map(|(n, v)| (n, v))).process_group(0);
    command
}

/// A worker in a fresh interpreter, for one task.
pub(crate) fn spawn_worker(
    program: &str,
    task: &PythonTask,
    packages: &Path,
    environment: &[(OsString, OsString)],
    user: Option<(u32, u32)>,
    stdio: (OwnedFd, OwnedFd),
) -> Result<(Connection, i32), String> {
    let (mut connection, theirs) = Connection::pair().map_err(|e| e.to_string())?;
    let mut command = interpreter(program, packages, environment);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    // What the interpreter itself has to say, before it takes the task, belongs to the task's log.
    command.args(["worker", "0", "1"]).stdin(Stdio::from(theirs));
    command.stdout(Stdio::from(stdio.0)).stderr(Stdio::from(stdio.1));
    let child = command.spawn().map_err(|error| not_started(program, &error))?;
    let start = json!({
        "op": "start", "path": task.path, "machinery": [packages.join(task.adapter())],
    });
    connection.send(start, Vec::new()).map_err(|e| e.to_string())?;
    Ok((connection, i32::try_from(child.id()).unwrap_or(0)))
}

fn not_started(program: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no Python interpreter {program:?}"),
        _ => format!("the Python interpreter {program:?} could not be started: {error}"),
    }
}

/// The cause that a worker's `$error` or a parent's `error` names.
pub(crate) fn cause_of(error: &Json) -> Cause {
    error.get("cause").and_then(Json::as_str).and_then(Cause::from_word).unwrap_or(Cause::Code)
}
