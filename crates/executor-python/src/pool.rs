//! The pool of warm parents and their workers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::num::NonZero;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use kobza_executor_process::{Warm, WarmBody, WarmEvent, WarmSetup};
use kobza_model::{Cause, Json};
use kobza_runtime::LaunchSpec;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use serde_json::json;

use crate::code::Imported;
use crate::connection::Connection;
use crate::environment::{BuildError, Builder};
use crate::parent::{Key, Parent, State, cause_of, spawn_worker};
use crate::requirements::Requirements;
use crate::sources;
use crate::task::{Mode, PythonTask};

/// How a pool behaves.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Folder that holds the packages `kobza` and `kobza_worker`.
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
}

impl PoolOptions {
    /// The defaults, for packages at a place.
    pub fn new(packages: impl Into<PathBuf>, environments: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
        Self {
            packages: packages.into(),
            environments: environments.into(),
            uv: "uv".into(),
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
        }
    }
}

/// Most workers asked of a parent at once: between two answers others get their turn.
const FORKS_AT_ONCE: usize = 16;
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
    /// Processes of parents and workers that are alive, as far as is known.
    processes: HashMap<i32, u64>,
    environments: HashMap<String, Environment>,
    builder: Builder,
    wake: std::sync::Arc<EventFd>,
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
            processes: HashMap::new(),
            environments: HashMap::new(),
            builder: Builder::new(&options.environments, &options.uv),
            wake: std::sync::Arc::new(wake),
            progress: channel(),
            events: Vec::new(),
            next: WAKE + 1,
            options,
        })
    }

    /// For the shim: unpacks the packages below the server's folder.
    pub fn make(setup: WarmSetup) -> Result<Box<dyn Warm>, String> {
        let packages =
            sources::unpack(&setup.data_dir).map_err(|e| format!("Python packages: {e}"))?;
        let mut options = PoolOptions::new(packages, setup.data_dir.join("envs"));
        options.environment = setup.environment;
        options
            .environment
            .push(("KOBZA_ARTIFACTS".into(), setup.data_dir.join("artifacts").into_os_string()));
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

    // Environments.

    fn prepare(&mut self, mut job: Job) {
        let file = job.task.file.as_deref().map(Path::new);
        let interpreter = job.task.interpreter.as_deref();
        let wanted = if job.task.venv.is_some() {
            Ok(None)
        } else {
            Requirements::of(job.task.requirements.as_ref(), file, interpreter)
        };
        let requirements = match wanted {
            Ok(Some(requirements)) => requirements,
            Ok(None) => return self.dispatch(job),
            Err(error) => {
                return self.refuse(job, Cause::Template, error.to_string(), String::new());
            }
        };
        let hash = requirements.hash();
        match self.environments.get_mut(&hash) {
            Some(Environment::Built(interpreter)) if interpreter.exists() => {
                job.interpreter.clone_from(interpreter);
                return self.dispatch(job);
            }
            Some(Environment::Building(waiting)) => return waiting.push(job),
            Some(Environment::Failed(error, at)) if at.elapsed() < BUILD_AGAIN => {
                let words = error.to_string();
                return self.refuse(job, Cause::Code, words, String::new());
            }
            _ => {}
        }
        if let Some(interpreter) = self.builder.existing(&requirements) {
            job.interpreter.clone_from(&interpreter);
            self.environments.insert(hash, Environment::Built(interpreter));
            return self.dispatch(job);
        }
        let (builder, sender, wake) =
            (self.builder.clone(), self.progress.0.clone(), self.wake.clone());
        let name = hash.clone();
        let thread = std::thread::Builder::new().name("kobza-uv".into()).spawn(move || {
            let tell = |progress| {
                // The pool has gone: nobody is left to tell.
                let _ = sender.send(progress);
                let _ = wake.write(1);
            };
            let result = builder.build(&requirements, &mut |line| {
                tell(Progress::Line(name.clone(), line.to_owned()));
            });
            tell(Progress::Done(name, result));
        });
        match thread {
            Ok(_) => {
                self.environments.insert(hash, Environment::Building(vec![job]));
            }
            Err(error) => self.refuse(
                job,
                Cause::Infrastructure,
                format!("no thread to build the environment: {error}"),
                String::new(),
            ),
        }
    }

    fn take_progress(&mut self) {
        let _ = self.wake.read();
        while let Ok(progress) = self.progress.1.try_recv() {
            match progress {
                Progress::Line(hash, line) => {
                    let Some(Environment::Building(jobs)) = self.environments.get(&hash) else {
                        continue;
                    };
                    for job in jobs {
                        // Only for the eye: a full pipe loses a line.
                        let text = format!("environment: {line}\n");
                        let _ = nix::unistd::write(&job.body.stderr, text.as_bytes());
                    }
                }
                Progress::Done(hash, result) => {
                    let state = match &result {
                        Ok(interpreter) => Environment::Built(interpreter.clone()),
                        Err(error) => Environment::Failed(error.clone(), Instant::now()),
                    };
                    let Some(Environment::Building(jobs)) = self.environments.insert(hash, state)
                    else {
                        continue;
                    };
                    for mut job in jobs {
                        match &result {
                            Ok(interpreter) => {
                                job.interpreter.clone_from(interpreter);
                                self.dispatch(job);
                            }
                            Err(error) => {
                                self.refuse(job, Cause::Code, error.to_string(), String::new());
                            }
                        }
                    }
                }
            }
        }
    }

    // Jobs.

    fn dispatch(&mut self, mut job: Job) {
        job.tries += 1;
        if job.tries > TRIES {
            let words = "the warm Python worker died again and again before the task began";
            return self.refuse(job, Cause::Infrastructure, words, String::new());
        }
        // Code of another user is not imported with the server's rights.
        if job.task.mode == Mode::Spawn || job.body.spec.user.is_some() {
            return self.spawn(job);
        }
        let now = Instant::now();
        let key = Key::of(&job.task, &job.interpreter);
        let mut id = self.current.get(&key).copied();
        if let Some(old) = id
            && let Some(parent) = self.parents.get_mut(&old)
            && let State::Ready { imported, .. } = &mut parent.state
            && imported.is_stale(now)
        {
            self.retire(old);
            id = None;
        }
        let id = match id {
            Some(id) => id,
            None => match self.start_parent(key, now) {
                Ok(id) => id,
                Err(message) => return self.refuse(job, Cause::Code, message, String::new()),
            },
        };
        let Some(parent) = self.parents.get_mut(&id) else { return };
        parent.used = now;
        match job.task.mode {
            Mode::Reuse => parent.reuse_queue.push_back(job),
            _ => parent.queue.push_back(job),
        }
        self.pump(id);
    }

    fn start_parent(&mut self, key: Key, now: Instant) -> Result<u64, String> {
        self.make_room();
        let PoolOptions { packages, environment, import_timeout, .. } = &self.options;
        let parent = Parent::start(key.clone(), packages, environment, *import_timeout, now)?;
        let id = self.id();
        self.epoll
            .add(parent.connection.fd(), EpollEvent::new(EpollFlags::EPOLLIN, id))
            .map_err(|e| format!("epoll: {e}"))?;
        self.processes.insert(parent.pid, id);
        self.parents.insert(id, parent);
        self.current.insert(key, id);
        Ok(id)
    }

    fn id(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }

    /// Lets go of parents until one more fits.
    fn make_room(&mut self) {
        loop {
            let memory: u64 = self.parents.values().map(|p| p.resident_bytes).sum();
            if self.parents.len() < self.options.parents_max
                && memory <= self.options.memory_max_bytes
            {
                return;
            }
            let idle = self.parents.iter().filter(|(_, p)| p.is_idle());
            let Some((&oldest, _)) = idle.min_by_key(|(_, p)| p.used) else { return };
            self.retire(oldest);
        }
    }

    /// Ends a parent; jobs that wait for it go to its successor.
    fn retire(&mut self, id: u64) {
        let Some(parent) = self.parents.remove(&id) else { return };
        if self.current.get(&parent.key) == Some(&id) {
            self.current.remove(&parent.key);
        }
        // Workers that wait end when their channel does; those that run a task go on.
        let asked = parent.asked.iter().flatten();
        for worker in parent.idle.iter().chain(&parent.reuse_idle).chain(asked) {
            self.workers.remove(worker);
        }
        for job in parent.queue.into_iter().chain(parent.reuse_queue) {
            self.dispatch(job);
        }
    }

    /// Hands waiting jobs to workers, and asks for more workers.
    fn pump(&mut self, id: u64) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        let State::Ready { spawn, .. } = &parent.state else { return };
        if let Some(reason) = spawn {
            let words = format!("runs in a fresh interpreter: {reason}\n");
            for job in std::mem::take(&mut parent.queue)
                .into_iter()
                .chain(std::mem::take(&mut parent.reuse_queue))
            {
                let _ = nix::unistd::write(&job.body.stderr, words.as_bytes());
                self.spawn(job);
            }
            return;
        }
        while let Some(parent) = self.parents.get_mut(&id)
            && !parent.queue.is_empty()
            && let Some(worker) = parent.idle.pop_front()
        {
            if let Some(job) = parent.queue.pop_front() {
                self.assign(worker, job);
            }
        }
        while let Some(parent) = self.parents.get_mut(&id)
            && !parent.reuse_queue.is_empty()
            && let Some(worker) = parent.reuse_idle.pop_front()
        {
            if let Some(job) = parent.reuse_queue.pop_front() {
                self.assign(worker, job);
            }
        }
        self.ask(id);
    }

    fn ask(&mut self, id: u64) {
        let Some(parent) = self.parents.get(&id) else { return };
        let once = |worker: &&u64| {
            self.workers.get(worker).is_some_and(|worker| worker.kind == Kind::Once)
        };
        let coming = parent.asked.iter().flatten().filter(once).count();
        let busy = parent.used.elapsed() < self.options.standby_idle;
        let standby = if busy && parent.reuse_count == 0 { self.options.standby } else { 0 };
        let wanted = (parent.queue.len() + standby).saturating_sub(parent.idle.len() + coming);
        let all_coming: usize = parent.asked.iter().map(Vec::len).sum();
        let many_coming = all_coming - coming;
        let room = self.options.reuse_processes.saturating_sub(parent.reuse_count);
        let many = parent.reuse_queue.len().saturating_sub(many_coming).min(room);
        if wanted > 0 {
            self.fork(id, wanted.min(FORKS_AT_ONCE.saturating_sub(coming)), Kind::Once);
        }
        if many > 0 {
            self.fork(id, many, Kind::Many);
        }
    }

    fn fork(&mut self, id: u64, count: usize, kind: Kind) {
        let mut ends = Vec::new();
        let mut workers = Vec::new();
        for _ in 0..count {
            // Out of descriptors: fewer, and later again.
            let Ok((connection, theirs)) = Connection::pair() else { break };
            let worker = self.id();
            let event = EpollEvent::new(EpollFlags::EPOLLIN, worker);
            if self.epoll.add(connection.fd(), event).is_err() {
                break;
            }
            ends.push(theirs);
            workers.push(worker);
            let worker_state = Worker { parent: Some(id), connection, pid: 0, kind, ticket: None };
            self.workers.insert(worker, worker_state);
        }
        if ends.is_empty() {
            return;
        }
        let tasks = if kind == Kind::Many { self.options.reuse_tasks } else { 1 };
        let Some(parent) = self.parents.get_mut(&id) else { return };
        if kind == Kind::Many {
            parent.reuse_count += workers.len();
        }
        parent.asked.push_back(workers);
        if parent.connection.send(json!({"op": "fork", "tasks": tasks}), ends).is_err() {
            self.parent_died(id);
        } else if self.parents.get(&id).is_some_and(|p| p.connection.is_behind()) {
            self.watch_writes(id, true);
        }
    }

    fn assign(&mut self, id: u64, job: Job) {
        let Some(worker) = self.workers.get_mut(&id) else { return self.dispatch(job) };
        let streams = [&job.body.stdout, &job.body.stderr].map(BorrowedFdExt::duplicate);
        let [Some(stdout), Some(stderr)] = streams else {
            let words = "no file descriptors are left for the task's log";
            return self.refuse(job, Cause::Infrastructure, words, String::new());
        };
        let message = json!({"op": "run", "task": job.task.describe(&job.body)});
        match worker.connection.send(message, vec![stdout, stderr]) {
            Ok(()) => {
                worker.ticket = Some(job.ticket);
                let (pid, behind) = (worker.pid, worker.connection.is_behind());
                self.events.push(WarmEvent::Started { ticket: job.ticket, pid });
                if behind {
                    self.watch_writes(id, true);
                }
            }
            Err(crate::connection::ChannelError::Protocol(words)) => {
                self.worker_gone(id);
                self.refuse(job, Cause::Limit, words, String::new());
            }
            Err(_) => {
                self.worker_gone(id);
                self.dispatch(job);
            }
        }
    }

    fn spawn(&mut self, job: Job) {
        let user = match job.body.spec.user.as_deref().map(account).transpose() {
            Ok(user) => user,
            Err(message) => return self.refuse(job, Cause::Code, message, String::new()),
        };
        let streams = [&job.body.stdout, &job.body.stderr].map(BorrowedFdExt::duplicate);
        let [Some(stdout), Some(stderr)] = streams else {
            let words = "no file descriptors are left for the task's log";
            return self.refuse(job, Cause::Infrastructure, words, String::new());
        };
        let program = job.interpreter.to_string_lossy().into_owned();
        let PoolOptions { packages, environment, .. } = &self.options;
        let stdio = (stdout, stderr);
        let spawned = spawn_worker(&program, &job.task, packages, environment, user, stdio);
        let (connection, pid) = match spawned {
            Ok(spawned) => spawned,
            Err(message) => return self.refuse(job, Cause::Code, message, String::new()),
        };
        let id = self.id();
        // Its end is what the shim waits for; the channel only carries the task.
        let _ = self.epoll.add(connection.fd(), EpollEvent::new(EpollFlags::EPOLLIN, id));
        let worker = Worker { parent: None, connection, pid, kind: Kind::Once, ticket: None };
        self.processes.insert(pid, id);
        self.workers.insert(id, worker);
        self.assign(id, job);
    }

    fn watch_writes(&self, id: u64, writes: bool) {
        let connection = match (self.parents.get(&id), self.workers.get(&id)) {
            (Some(parent), _) => &parent.connection,
            (None, Some(worker)) => &worker.connection,
            (None, None) => return,
        };
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, writes);
        let _ = self.epoll.modify(connection.fd(), &mut EpollEvent::new(flags, id));
    }

    // What comes back.

    fn on_ready(&mut self, id: u64, writable: bool) {
        if writable {
            let flushed = match (self.parents.get_mut(&id), self.workers.get_mut(&id)) {
                (Some(parent), _) => parent.connection.flush().map(|()| &parent.connection),
                (None, Some(worker)) => worker.connection.flush().map(|()| &worker.connection),
                (None, None) => return,
            };
            match flushed.map(Connection::is_behind) {
                Ok(true) => {}
                // A failed write is followed by the end of the stream, below.
                Ok(false) | Err(_) => self.watch_writes(id, false),
            }
        }
        if let Some(parent) = self.parents.get_mut(&id) {
            match parent.connection.receive() {
                Ok((messages, gone)) => {
                    for message in messages {
                        self.parent_says(id, &message);
                    }
                    if gone {
                        self.parent_died(id);
                    }
                }
                Err(_) => self.parent_died(id),
            }
        } else if let Some(worker) = self.workers.get_mut(&id) {
            match worker.connection.receive() {
                Ok((messages, gone)) => {
                    for message in messages {
                        self.worker_says(id, &message);
                    }
                    if gone {
                        self.worker_gone(id);
                    }
                }
                Err(_) => self.worker_gone(id),
            }
        }
    }

    fn parent_says(&mut self, id: u64, message: &Json) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        match message.get("event").and_then(Json::as_str) {
            Some("ready") => {
                let imported = Imported::of(message.get("files").unwrap_or(&Json::Null));
                let spawn =
                    (message.get("mode").and_then(Json::as_str) == Some("spawn")).then(|| {
                        let reason = message.get("reason").and_then(Json::as_str);
                        reason.unwrap_or("forking is unsafe").to_owned()
                    });
                parent.resident_bytes = message.get("rss").and_then(Json::as_u64).unwrap_or(0);
                parent.state = State::Ready { imported, spawn };
                self.pump(id);
            }
            Some("failed") => {
                let error = message.get("error").cloned().unwrap_or(Json::Null);
                let words =
                    error.get("message").and_then(Json::as_str).unwrap_or("no reason given");
                let message = format!("the import failed: {words}");
                let cause = cause_of(&error);
                let log = parent.log_tail();
                self.give_up(id, cause, &message, &log);
            }
            Some("forked") => self.forked(id, message),
            _ => {}
        }
    }

    fn forked(&mut self, id: u64, message: &Json) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        let Some(asked) = parent.asked.pop_front() else { return };
        let pids = message.get("pids").and_then(Json::as_array).cloned().unwrap_or_default();
        let mut pids = pids.iter().filter_map(Json::as_i64).filter_map(|p| i32::try_from(p).ok());
        let mut fewer = false;
        for id_of_worker in asked {
            let Some(worker) = self.workers.get_mut(&id_of_worker) else { continue };
            let Some(pid) = pids.next() else {
                fewer = true;
                if worker.kind == Kind::Many {
                    parent.reuse_count -= 1;
                }
                self.workers.remove(&id_of_worker);
                continue;
            };
            worker.pid = pid;
            self.processes.insert(pid, id_of_worker);
            match worker.kind {
                Kind::Once => parent.idle.push_back(id_of_worker),
                Kind::Many => parent.reuse_idle.push_back(id_of_worker),
            }
        }
        if fewer {
            let words = message.get("problem").and_then(Json::as_str).unwrap_or("fork failed");
            if parent.idle.is_empty() && parent.reuse_idle.is_empty() {
                let words = words.to_owned();
                return self.give_up(id, Cause::Infrastructure, &words, "");
            }
        }
        self.pump(id);
    }

    fn worker_says(&mut self, id: u64, message: &Json) {
        if message.get("event").and_then(Json::as_str) != Some("done") {
            return;
        }
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.kind == Kind::Once {
            // Its exit says the rest.
            return;
        }
        let code = message.get("exit").and_then(Json::as_i64).unwrap_or(1);
        let exit_code = i32::try_from(code).unwrap_or(1);
        if let Some(ticket) = worker.ticket.take() {
            self.events.push(WarmEvent::Ended { ticket, exit_code });
        }
        let peak = message.get("rss_peak").and_then(Json::as_u64).unwrap_or(0);
        let last = message.get("last").and_then(Json::as_bool).unwrap_or(false);
        let (parent_id, spent) = (worker.parent, last || peak > self.options.reuse_memory_bytes);
        let parent = parent_id.and_then(|id| Some((id, self.parents.get_mut(&id)?)));
        match parent {
            Some((parent_id, parent)) if !spent => {
                parent.used = Instant::now();
                parent.reuse_idle.push_back(id);
                self.pump(parent_id);
            }
            _ => self.worker_gone(id),
        }
    }

    fn worker_gone(&mut self, id: u64) {
        let Some(worker) = self.workers.remove(&id) else { return };
        // A process that runs a task is the shim's business, and stays known until it is reaped.
        let Some(parent_id) = worker.parent else { return };
        let Some(parent) = self.parents.get_mut(&parent_id) else { return };
        parent.idle.retain(|one| *one != id);
        parent.reuse_idle.retain(|one| *one != id);
        if worker.kind == Kind::Many {
            parent.reuse_count = parent.reuse_count.saturating_sub(1);
        }
        if !parent.is_idle() {
            self.pump(parent_id);
        }
    }

    fn parent_died(&mut self, id: u64) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        if matches!(parent.state, State::Ready { .. }) {
            self.retire(id);
            return;
        }
        // It ended in the middle of an import: the next one would as well.
        let log = parent.log_tail();
        self.give_up(id, Cause::Code, "the process ended while it imported the module", &log);
    }

    /// Ends a parent and refuses what waits for it.
    fn give_up(&mut self, id: u64, cause: Cause, message: &str, log: &str) {
        let Some(parent) = self.parents.get_mut(&id) else { return };
        let mut jobs = std::mem::take(&mut parent.queue);
        jobs.append(&mut parent.reuse_queue);
        self.retire(id);
        for job in jobs {
            self.refuse(job, cause, message, log.to_owned());
        }
    }

    fn fire(&mut self, now: Instant) {
        let ids: Vec<u64> = self.parents.keys().copied().collect();
        for id in ids {
            let Some(parent) = self.parents.get_mut(&id) else { continue };
            match &parent.state {
                State::Importing { until } if *until <= now => {
                    let pid = Pid::from_raw(parent.pid);
                    let log = parent.log_tail();
                    if parent.pid > 0 {
                        let _ = kill(pid, Signal::SIGKILL);
                    }
                    let words = "the import hangs, and not even its time limit could end it";
                    self.give_up(id, Cause::Timeout, words, &log);
                }
                State::Ready { .. } if parent.is_idle() => {
                    let unused = now.saturating_duration_since(parent.used);
                    if unused >= self.options.parent_idle {
                        self.retire(id);
                    } else if unused >= self.options.standby_idle {
                        for worker in parent.idle.drain(..).collect::<Vec<_>>() {
                            self.workers.remove(&worker);
                        }
                    }
                }
                _ => {}
            }
        }
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

    fn poll(&mut self) -> Vec<WarmEvent> {
        let mut ready = [EpollEvent::empty(); 64];
        // Bounded: what is left wakes the caller's loop again.
        let count = self.epoll.wait(&mut ready, EpollTimeout::ZERO).unwrap_or(0);
        for event in &ready[..count] {
            match event.data() {
                WAKE => self.take_progress(),
                id => self.on_ready(id, event.events().contains(EpollFlags::EPOLLOUT)),
            }
        }
        self.fire(Instant::now());
        std::mem::take(&mut self.events)
    }

    fn deadline(&self) -> Option<Instant> {
        let due = |parent: &Parent| match &parent.state {
            State::Importing { until } => Some(*until),
            State::Ready { .. } if !parent.is_idle() => None,
            State::Ready { .. } if !parent.idle.is_empty() => {
                parent.used.checked_add(self.options.standby_idle)
            }
            State::Ready { .. } => parent.used.checked_add(self.options.parent_idle),
        };
        self.parents.values().filter_map(due).min()
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

/// User and group of another user to run as.
fn account(name: &str) -> Result<(u32, u32), String> {
    let found = match name.parse::<u32>() {
        Ok(number) => User::from_uid(number.into()),
        Err(_) => User::from_name(name),
    };
    match found {
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        Ok(None) => Err(format!("user {name:?} does not exist on this host")),
        Err(error) => Err(format!("cannot look up user {name:?}: {error}")),
    }
}

trait BorrowedFdExt {
    fn duplicate(self) -> Option<OwnedFd>;
}

impl BorrowedFdExt for &OwnedFd {
    fn duplicate(self) -> Option<OwnedFd> {
        self.try_clone().ok()
    }
}
