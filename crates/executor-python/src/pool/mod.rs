//! The pool of warm parents and their workers.

mod environments;
mod jobs;
mod parents;
mod replies;
mod talks;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::num::NonZero;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use kobza_executor_process::{Warm, WarmBody, WarmEvent, WarmSetup};
use kobza_model::Cause;
use kobza_runtime::{Answer, LaunchSpec};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::connection::Connection;
use crate::environment::{BuildError, Builder, find_uv};
use crate::parent::{Key, Parent, State};
use crate::requirements::Inside;
use crate::sources;
use crate::task::PythonTask;
pub use talks::MakeProtocol;
use talks::{Channel, Talk};

/// How a pool behaves.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Folder that holds `kobza_worker` and the adapters' packages, such as `kobza`.
    pub packages: PathBuf,
    /// Folder of built environments.
    pub environments: PathBuf,
    pub uv: PathBuf,
    /// Environment of parents.
    pub environment: Vec<(OsString, OsString)>,
    /// More parents than this are not kept; the one that was used longest ago goes.
    pub parents_max: usize,
    /// Nor are more kept than fit into this memory together.
    pub memory_max_bytes: u64,
    /// A parent that has not been used for so long goes.
    pub parent_idle: Duration,
    /// Workers kept ready, forked, for the next task of a parent in use.
    pub standby: usize,
    /// They go when no task has come for so long.
    pub standby_idle: Duration,
    pub import_timeout: Duration,
    /// Tasks that one process takes in mode `reuse`, before a fresh one replaces it.
    pub reuse_tasks: u32,
    /// Its peak of memory after which it is replaced earlier.
    pub reuse_memory_bytes: u64,
    /// Processes of one parent in mode `reuse`.
    pub reuse_processes: usize,
    /// Protocols that bodies speak, by their adapters.
    pub protocols: Vec<(&'static str, MakeProtocol)>,
}

impl PoolOptions {
    /// The defaults, for packages at a place.
    pub fn new(packages: impl Into<PathBuf>, environments: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
        Self {
            packages: packages.into(),
            environments: environments.into(),
            uv: find_uv(),
            environment: std::env::vars_os().collect(),
            parents_max: 16,
            memory_max_bytes: 4 << 30,
            parent_idle: Duration::from_secs(600),
            standby: 2,
            standby_idle: Duration::from_secs(10),
            import_timeout: Duration::from_secs(60),
            reuse_tasks: 1000,
            reuse_memory_bytes: 1 << 30,
            reuse_processes: cores.max(2),
            protocols: Vec::new(),
        }
    }
}

/// Most workers asked of a parent at once: between two answers others get their turn.
const FORKS_AT_ONCE: usize = 16;
/// Workers forked beyond the stand-by ones whenever those get fewer.
const FORKS_AHEAD: usize = 4;
/// A job whose worker or parent died before it began is tried so often.
const TRIES: u32 = 3;
/// A failed build is not tried again for so long.
const BUILD_AGAIN: Duration = Duration::from_secs(10);
const WAKE: u64 = 0;

#[derive(Debug)]
pub(crate) struct Job {
    ticket: u64,
    task: PythonTask,
    body: WarmBody,
    interpreter: PathBuf,
    tries: u32,
}

impl Job {
    /// Only one parent has had it.
    fn is_fresh(&self) -> bool {
        self.tries < 2
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Once,
    Many,
}

#[derive(Debug)]
struct Worker {
    parent: Option<u64>,
    connection: Connection,
    /// 0 until the parent has said it.
    pid: i32,
    kind: Kind,
    ticket: Option<u64>,
}

#[derive(Debug)]
enum Environment {
    Building(Vec<Job>),
    Failed(BuildError, Instant),
    Built(PathBuf),
}

enum Progress {
    Line(String, String),
    Done(String, Result<PathBuf, BuildError>),
}

/// See the crate's documentation. Drop it, and all parents and idle workers end.
pub struct Pool {
    options: PoolOptions,
    epoll: Epoll,
    parents: BTreeMap<u64, Parent>,
    current: BTreeMap<Key, u64>,
    workers: HashMap<u64, Worker>,
    /// The workers that run tasks, by ticket.
    assigned: HashMap<u64, u64>,
    /// Processes of parents and workers that are alive, as far as is known.
    processes: HashMap<i32, u64>,
    environments: HashMap<String, Environment>,
    inside: Inside,
    builder: Builder,
    wake: std::sync::Arc<EventFd>,
    /// Bodies that speak a protocol of their own, by ticket.
    talks: HashMap<u64, Talk>,
    channels: HashMap<u64, Channel>,
    read_size: usize,
    progress: (Sender<Progress>, Receiver<Progress>),
    events: Vec<WarmEvent>,
    next: u64,
}

impl Pool {
    pub fn new(options: PoolOptions) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            epoll,
            parents: BTreeMap::new(),
            current: BTreeMap::new(),
            workers: HashMap::new(),
            assigned: HashMap::new(),
            processes: HashMap::new(),
            environments: HashMap::new(),
            inside: Inside::default(),
            builder: Builder::new(&options.environments, &options.uv),
            wake: std::sync::Arc::new(wake),
            talks: HashMap::new(),
            channels: HashMap::new(),
            read_size: 16 * 1024,
            progress: channel(),
            events: Vec::new(),
            next: WAKE + 1,
            options,
        })
    }

    /// For the shim: unpacks the packages below the server's folder.
    pub fn make(setup: WarmSetup) -> Result<Box<dyn Warm>, String> {
        Self::make_with(setup, Vec::new())
    }

    /// As [`Self::make`], for bodies that speak protocols too.
    pub fn make_with(
        setup: WarmSetup,
        protocols: Vec<(&'static str, MakeProtocol)>,
    ) -> Result<Box<dyn Warm>, String> {
        let packages =
            sources::unpack(&setup.data_dir).map_err(|e| format!("Python packages: {e}"))?;
        let mut options = PoolOptions::new(packages, setup.data_dir.join("envs"));
        options.environment = setup.environment;
        options.protocols = protocols;
        options
            .environment
            .push(("KOBZA_ARTIFACTS".into(), setup.data_dir.join("artifacts").into_os_string()));
        if let Ok(program) = std::env::current_exe() {
            // Moves artifacts to stores elsewhere.
            options.environment.push(("KOBZA_PROGRAM".into(), program.into_os_string()));
        }
        Ok(Box::new(Self::new(options).map_err(|e| e.to_string())?))
    }

    /// Parents that are kept now: for status and tests.
    #[must_use]
    pub fn parents(&self) -> usize {
        self.parents.len()
    }

    fn refuse(&mut self, job: Job, cause: Cause, message: impl Into<String>, log: String) {
        let message = message.into();
        self.events.push(WarmEvent::Refused { ticket: job.ticket, cause, message, log });
    }

    fn cancelled(jobs: &mut VecDeque<Job>, ticket: u64) -> bool {
        let before = jobs.len();
        jobs.retain(|job| job.ticket != ticket);
        jobs.len() < before
    }
}

impl Warm for Pool {
    fn claims(&self, spec: &LaunchSpec) -> bool {
        spec.extra.get("python").is_some()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.epoll.0.as_fd()
    }

    fn start(&mut self, ticket: u64, body: WarmBody) {
        let parsed = match PythonTask::of(&body.spec) {
            Some(Ok(task)) => Ok(task),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("this is no Python task".to_owned()),
        };
        match parsed {
            Ok(task) => {
                let interpreter = task.interpreter();
                self.prepare(Job { ticket, task, body, interpreter, tries: 0 });
            }
            Err(message) => self.events.push(WarmEvent::Refused {
                ticket,
                cause: Cause::Template,
                message,
                log: String::new(),
            }),
        }
        if !self.events.is_empty() {
            // So that the caller polls.
            let _ = self.wake.write(1);
        }
    }

    fn cancel(&mut self, ticket: u64) {
        for parent in self.parents.values_mut() {
            if Self::cancelled(&mut parent.queue, ticket)
                || Self::cancelled(&mut parent.reuse_queue, ticket)
            {
                return;
            }
        }
        for environment in self.environments.values_mut() {
            if let Environment::Building(jobs) = environment {
                jobs.retain(|job| job.ticket != ticket);
            }
        }
    }

    fn answer(&mut self, ticket: u64, number: u64, answer: &Answer) {
        if self.answer_talk(ticket, number, answer) {
            return;
        }
        let worker = self.assigned.get(&ticket).copied();
        if let Some(id) = worker {
            self.tell(id, number, answer);
        }
    }

    fn exited(&mut self, ticket: u64, exit: Option<i32>) {
        self.end_talk(ticket, exit);
    }

    fn poll(&mut self) -> Vec<WarmEvent> {
        let mut ready = [EpollEvent::empty(); 64];
        // Bounded: what is left wakes the caller's loop again.
        let count = self.epoll.wait(&mut ready, EpollTimeout::ZERO).unwrap_or(0);
        for event in &ready[..count] {
            match event.data() {
                WAKE => self.take_progress(),
                id if self.channels.contains_key(&id) => {
                    self.channel_ready(id, event.events().contains(EpollFlags::EPOLLOUT));
                }
                id => self.on_ready(id, event.events().contains(EpollFlags::EPOLLOUT)),
            }
        }
        let now = Instant::now();
        self.fire(now);
        self.wake_talks(now);
        std::mem::take(&mut self.events)
    }

    fn deadline(&self) -> Option<Instant> {
        let due = |parent: &Parent| match &parent.state {
            State::Waiting { .. } => None,
            State::Importing { until } => Some(*until),
            State::Ready { .. } if parent.is_base => None,
            State::Ready { .. } if !parent.is_idle() => None,
            State::Ready { .. } if !parent.idle.is_empty() => {
                parent.used.checked_add(self.options.standby_idle)
            }
            State::Ready { .. } => parent.used.checked_add(self.options.parent_idle),
        };
        self.parents.values().filter_map(due).chain(self.next_wake()).min()
    }

    fn owns(&self, pid: i32) -> bool {
        self.processes.contains_key(&pid) || self.builder.processes().may_own(pid)
    }

    fn expects(&self) -> bool {
        self.parents.values().any(|parent| !parent.asked.is_empty())
    }

    fn reaped(&mut self, pid: i32) {
        self.processes.remove(&pid);
    }
}
