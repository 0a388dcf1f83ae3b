//! The shim's loop.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kobza_blobs::{DEFAULT_LOG_BYTES, LogStream, LogSummary, LogWriter, Masker};
use kobza_model::{Cause, LaunchId, Outcome};
use kobza_runtime::LaunchSpec;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::client::Client;
use super::host::Host;
use super::output::LastLine;
use super::spawn::{Refused, Spawned, is_builtin, spawn};
use super::spool::Spool;
use super::task::{End, Kept, Step, Task, ended};
use super::wake::Wake;
use crate::clock::wall_now;
use crate::warm::{MakeWarm, Warm};
use crate::wire::{
    EventBody, Finished, FromShim, Hello, KillWord, LaunchCommand, PROTOCOL, SOCKET, ToShim, encode,
};

/// Starts between two looks at everything else.
const STARTS_AT_ONCE: usize = 16;
/// A beginning is told after so long, or with the end: what is over in a moment costs the server one
/// commit, not two.
const TELL_AFTER: Duration = Duration::from_millis(15);
/// Read from a pipe at once; a pipe that fills this is widened to it.
const READ_BYTES: usize = 256 * 1024;
/// A line without an end is shown to followers after so long without more.
const PARTIAL_AFTER: Duration = Duration::from_millis(300);
/// Without tasks, events and server: how long to wait for a server to come back.
const IDLE_LINGER: Duration = Duration::from_secs(2);
/// The same with unconfirmed events, which the file keeps.
const UNCONFIRMED_LINGER: Duration = Duration::from_secs(600);
/// Launches that are over and confirmed, remembered against a late repetition.
const REMEMBERED: usize = 16 * 1024;

const WAKE: u64 = 0;
const LISTENER: u64 = 1;
const CLIENT: u64 = 2;
pub(super) const WARM: u64 = 3;
const FIRST_TASK: u64 = 16;

pub(super) struct Shim {
    pub(super) folder: PathBuf,
    pub(super) host: Host,
    pub(super) epoll: Epoll,
    wake: Wake,
    listener: UnixListener,
    client: Option<Client>,
    pub(super) spool: Spool,
    waiting: VecDeque<LaunchCommand>,
    pub(super) tasks: BTreeMap<u64, Task>,
    /// Main processes of tasks.
    pub(super) mains: HashMap<i32, u64>,
    /// Tasks whose main process has ended, but not all else.
    pub(super) exited: BTreeSet<u64>,
    pub(super) deadlines: BTreeSet<(Instant, u64)>,
    /// Tasks of whose beginning the server is told then, in order.
    beginnings: VecDeque<(Instant, u64)>,
    /// Waiting, running, or finished and unconfirmed.
    /// With the running task, or 0.
    pub(super) known: HashMap<LaunchId, u64>,
    forgotten: VecDeque<LaunchId>,
    forgotten_set: HashSet<LaunchId>,
    serial: u64,
    flush_partial_at: Option<Instant>,
    /// When the memory of limited trees is looked at next.
    pub(super) memory_due: Option<Instant>,
    idle_since: Option<Instant>,
    exit_when_idle: bool,
    ending: bool,
    buffer: Vec<u8>,
    pub(super) scratch: Vec<u8>,
    pub(super) make_warm: Option<MakeWarm>,
    pub(super) warm: Option<Box<dyn Warm>>,
    /// What bodies have asked and nobody has answered yet, as frames: by task and number.
    pub(super) asks: BTreeMap<(u64, u64), Vec<u8>>,
    /// Orphans wait for a sweep that could not tell them from workers that begin.
    pub(super) sweep_due: bool,
}

impl Shim {
    pub(super) fn new(
        folder: PathBuf,
        listener: UnixListener,
        make_warm: Option<MakeWarm>,
    ) -> Result<Self, String> {
        let host = Host::new(&folder)?;
        let spool = Spool::create(&folder).map_err(|e| format!("spool: {e}"))?;
        let wake = Wake::install().map_err(|e| format!("signals: {e}"))?;
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| format!("epoll: {e}"))?;
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(wake.fd(), readable(WAKE)).map_err(|e| format!("epoll: {e}"))?;
        epoll.add(&listener, readable(LISTENER)).map_err(|e| format!("epoll: {e}"))?;
        Ok(Self {
            folder,
            host,
            epoll,
            wake,
            listener,
            client: None,
            spool,
            waiting: VecDeque::new(),
            tasks: BTreeMap::new(),
            mains: HashMap::new(),
            exited: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            beginnings: VecDeque::new(),
            known: HashMap::new(),
            forgotten: VecDeque::new(),
            forgotten_set: HashSet::new(),
            serial: FIRST_TASK,
            flush_partial_at: None,
            memory_due: None,
            idle_since: None,
            exit_when_idle: false,
            ending: false,
            buffer: vec![0; READ_BYTES],
            scratch: Vec::new(),
            make_warm,
            warm: None,
            asks: BTreeMap::new(),
            sweep_due: false,
        })
    }

    pub(super) fn run(mut self) -> Result<(), String> {
        let mut events = [EpollEvent::empty(); 128];
        loop {
            self.spool.flush();
            self.flush_client();
            let Some(timeout) = self.timeout() else { break };
            let ready = match self.epoll.wait(&mut events, timeout) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(format!("epoll: {error}")),
            };
            for event in &events[..ready] {
                self.on_event(event);
            }
            self.fire_deadlines(Instant::now());
            self.look_at_memory(Instant::now());
            self.start_waiting();
            self.poll_warm();
            self.sweep_later();
        }
        self.spool.flush();
        let _ = fs::remove_file(self.folder.join(SOCKET));
        if self.spool.is_empty() {
            let _ = fs::remove_dir_all(&self.folder);
        }
        Ok(())
    }

    fn on_event(&mut self, event: &EpollEvent) {
        match event.data() {
            WAKE => {
                self.wake.clear();
                if self.wake.told_to_end() && !self.ending {
                    self.ending = true;
                    self.end_all();
                }
                // What has begun must be known before it is found to have ended.
                self.poll_warm();
                self.reap();
            }
            LISTENER => self.accept(),
            CLIENT => {
                if event
                    .events()
                    .intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
                {
                    self.read_client();
                }
            }
            WARM => self.poll_warm(),
            token => {
                let stream = if token % 2 == 0 { LogStream::Stdout } else { LogStream::Stderr };
                self.read_stream(token - token % 2, stream);
            }
        }
    }

    /// How long to sleep; None when there is nothing to live for.
    fn timeout(&mut self) -> Option<EpollTimeout> {
        if !self.waiting.is_empty() && self.tasks.len() < self.host.max_tasks {
            return Some(EpollTimeout::ZERO);
        }
        let now = Instant::now();
        let mut until = self.deadlines.first().map(|(at, _)| *at);
        let mut sooner = |at: Instant| until = Some(until.map_or(at, |until| until.min(at)));
        for at in [self.flush_partial_at, self.memory_due].into_iter().flatten() {
            sooner(at);
        }
        while let Some(&(at, serial)) = self.beginnings.front() {
            if self.tasks.get(&serial).is_some_and(|task| task.untold.is_some()) {
                sooner(at);
                break;
            }
            self.beginnings.pop_front();
        }
        if let Some(at) = self.warm.as_ref().and_then(|warm| warm.deadline()) {
            sooner(at);
        }
        if self.tasks.is_empty() && self.waiting.is_empty() {
            let told = self.exit_when_idle || self.ending;
            if told && self.spool.is_empty() {
                return None;
            }
            if self.client.is_none() {
                let linger = if told || !self.folder.exists() {
                    Duration::ZERO
                } else if self.spool.is_empty() {
                    IDLE_LINGER
                } else {
                    UNCONFIRMED_LINGER
                };
                let end = *self.idle_since.get_or_insert(now) + linger;
                if end <= now {
                    return None;
                }
                sooner(end);
            } else {
                self.idle_since = None;
            }
        } else {
            self.idle_since = None;
        }
        let Some(until) = until else { return Some(EpollTimeout::NONE) };
        // Rounded up: waking a moment before a deadline would spin.
        let millis = until.saturating_duration_since(now).as_micros().div_ceil(1000);
        let millis = i32::try_from(millis).unwrap_or(i32::MAX);
        Some(EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::NONE))
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let mut client = match Client::accept(stream) {
                Ok(client) => client,
                Err(error) => {
                    eprintln!("kobza shim: {error}");
                    continue;
                }
            };
            client.put(&self.hello());
            client.catch_up(&self.spool);
            self.asks.values().for_each(|frame| client.put(frame));
            let event = EpollEvent::new(EpollFlags::EPOLLIN, CLIENT);
            // The newest server is the right one: only one can own the store.
            self.drop_client();
            if self.epoll.add(client.fd(), event).is_ok() {
                self.client = Some(client);
            }
        }
    }

    fn hello(&self) -> Vec<u8> {
        let launches = self.known.keys().copied().collect();
        let hello = Hello { protocol: PROTOCOL, pid: std::process::id(), launches };
        let mut frame = Vec::new();
        if let Err(error) = encode(&FromShim::Hello(hello), &mut frame) {
            eprintln!("kobza shim: {error}");
        }
        frame
    }

    /// Puts a frame to the server, if one is there, behind all that was said before.
    pub(super) fn tell(&mut self, frame: &[u8]) {
        if let Some(client) = &mut self.client {
            client.catch_up(&self.spool);
            client.put(frame);
        }
    }

    fn drop_client(&mut self) {
        if let Some(client) = self.client.take() {
            let _ = self.epoll.delete(client.fd());
        }
    }

    fn read_client(&mut self) {
        let Some(mut client) = self.client.take() else { return };
        let mut alive = match client.fill() {
            Ok(alive) => alive,
            Err(error) => {
                eprintln!("kobza shim: read from the server: {error}");
                false
            }
        };
        loop {
            match client.next() {
                Ok(Some(ToShim::List)) => client.put(&self.hello()),
                Ok(Some(command)) => self.command(command),
                Ok(None) => break,
                Err(error) => {
                    eprintln!("kobza shim: {error}");
                    alive = false;
                    break;
                }
            }
        }
        self.client = Some(client);
        if !alive {
            self.drop_client();
        }
    }

    pub(super) fn flush_client(&mut self) {
        let Some(client) = &mut self.client else { return };
        match client.flush(&self.spool) {
            Ok(more) if more == client.wants_write => {}
            Ok(more) => {
                client.wants_write = more;
                let mut flags = EpollFlags::EPOLLIN;
                flags.set(EpollFlags::EPOLLOUT, more);
                let _ = self.epoll.modify(client.fd(), &mut EpollEvent::new(flags, CLIENT));
            }
            Err(_) => self.drop_client(),
        }
    }

    fn command(&mut self, command: ToShim) {
        match command {
            ToShim::Launch(command) => {
                let launch = command.launch;
                if !self.known.contains_key(&launch) && !self.forgotten_set.contains(&launch) {
                    self.known.insert(launch, 0);
                    self.waiting.push_back(*command);
                }
            }
            ToShim::Kill { launch, reason } => self.kill(launch, reason),
            ToShim::Ack { numbers } => {
                for number in numbers {
                    if let Some(launch) = self.spool.confirm(number) {
                        self.forget(launch);
                    }
                }
            }
            ToShim::Answer { launch, number, answer } => self.answered(launch, number, answer),
            ToShim::ExitWhenIdle => self.exit_when_idle = true,
            ToShim::List => {}
        }
    }

    pub(super) fn forget(&mut self, launch: LaunchId) {
        let running = self.known.get(&launch).and_then(|serial| self.tasks.get_mut(serial));
        if let Some(task) = running {
            // It may still ask, and its processes must be known as its own.
            task.confirmed = true;
            return;
        }
        self.known.remove(&launch);
        if self.forgotten_set.insert(launch) {
            self.forgotten.push_back(launch);
        }
        if self.forgotten.len() > REMEMBERED
            && let Some(oldest) = self.forgotten.pop_front()
        {
            self.forgotten_set.remove(&oldest);
        }
    }

    fn kill(&mut self, launch: LaunchId, reason: KillWord) {
        let end = match reason {
            KillWord::Stopped | KillWord::Superseded => End::Stopped,
            KillWord::Timeout => End::TimedOutByServer,
        };
        if let Some(at) = self.waiting.iter().position(|c| c.launch == launch) {
            self.waiting.remove(at);
            self.never_ran(launch, ended(end));
        } else if let Some(&serial) = self.known.get(&launch) {
            self.begin_end(serial, end);
        }
    }

    fn end_all(&mut self) {
        for command in std::mem::take(&mut self.waiting) {
            self.never_ran(command.launch, ended(End::Shutdown));
        }
        for serial in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.begin_end(serial, End::Shutdown);
        }
    }

    /// Reports a launch of which nothing was started.
    pub(super) fn never_ran(
        &mut self,
        launch: LaunchId,
        (outcome, cause, message): (Outcome, Cause, Option<String>),
    ) {
        let log = LogSummary::default();
        let finished =
            Finished { outcome, cause, message, exit_code: None, outputs: Vec::new(), log };
        self.spool.push(launch, EventBody::Finished(Box::new(finished)));
    }

    fn start_waiting(&mut self) {
        for _ in 0..STARTS_AT_ONCE {
            if self.tasks.len() >= self.host.max_tasks {
                break;
            }
            let Some(command) = self.waiting.pop_front() else { break };
            if self.ending {
                self.never_ran(command.launch, ended(End::Shutdown));
            } else {
                self.start(command);
            }
        }
    }

    fn start(&mut self, command: LaunchCommand) {
        let LaunchCommand { launch, spec, log } = command;
        let masker = match Masker::new(&spec.secrets) {
            Ok(masker) => masker,
            Err(error) => {
                let reason = (Outcome::Failed, Cause::Template, Some(error.to_string()));
                return self.never_ran(launch, reason);
            }
        };
        if self.make_warm.is_some() && spec.extra.get("python").is_some() {
            return self.start_warm(launch, spec, log, masker);
        }
        let spawned = match spawn(&mut self.host, launch, &spec) {
            Ok(spawned) => spawned,
            Err(refused) => return self.refused(launch, spec, log, masker, refused),
        };
        let serial = self.hold(launch, spec, log, masker, spawned);
        self.began(serial);
    }

    /// Reports a task that could not be started.
    pub(super) fn refused(
        &mut self,
        launch: LaunchId,
        spec: LaunchSpec,
        log: PathBuf,
        masker: Option<Masker>,
        refused: Refused,
    ) {
        let message = masker.as_ref().map_or(refused.message.clone(), |m| m.mask(&refused.message));
        let log_bytes = spec.log_bytes.unwrap_or(DEFAULT_LOG_BYTES);
        LogWriter::new(log, log_bytes, None).note(&message, wall_now());
        self.never_ran(launch, (Outcome::Failed, refused.cause, Some(message)));
    }

    /// Keeps a task whose streams are open. Answers its number.
    pub(super) fn hold(
        &mut self,
        launch: LaunchId,
        spec: LaunchSpec,
        log: PathBuf,
        masker: Option<Masker>,
        spawned: Spawned,
    ) -> u64 {
        let Spawned { pid, stdout, stderr, folder, output, cgroup } = spawned;
        let serial = self.serial;
        self.serial += 2;
        let now = Instant::now();
        let log = LogWriter::new(log, spec.log_bytes.unwrap_or(DEFAULT_LOG_BYTES), masker.as_ref());
        let builtin = is_builtin(&self.host, &spec);
        let python = self.make_warm.is_some() && spec.extra.get("python").is_some();
        let spec = Kept::of(spec, builtin, python);
        let task = Task {
            launch,
            pid,
            stdout: self.watch(stdout, serial),
            stderr: self.watch(stderr, serial + 1),
            log,
            masker,
            last_line: (spec.capture_result || spec.builtin).then(LastLine::default),
            exit: None,
            end: None,
            over: false,
            confirmed: false,
            refusal: None,
            step: Step::Running,
            deadline: None,
            untold: None,
            last_read: now,
            folder,
            output,
            cgroup,
            spec,
        };
        self.known.insert(launch, serial);
        self.tasks.insert(serial, task);
        self.watch_memory_of(serial);
        serial
    }

    /// A task's process runs: its time counts from now.
    pub(super) fn began(&mut self, serial: u64) {
        let Some(task) = self.tasks.get_mut(&serial) else { return };
        self.mains.insert(task.pid, serial);
        task.untold = Some(wall_now());
        self.beginnings.push_back((Instant::now() + TELL_AFTER, serial));
        let timeout = task.spec.timeout_ms;
        if let Some(at) =
            timeout.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)))
        {
            self.set_step(serial, Step::Running, Some(at));
        }
    }

    /// Tells the server of a beginning, unless that is done.
    pub(super) fn tell_begun(&mut self, serial: u64) {
        let Some(task) = self.tasks.get_mut(&serial) else { return };
        if let Some(at) = task.untold.take() {
            let pid = task.pid.unsigned_abs();
            self.spool.push_at(task.launch, at, EventBody::Started { pid });
        }
    }

    /// Tells of the beginnings that have waited long enough.
    pub(super) fn tell_beginnings(&mut self, now: Instant) {
        while let Some(&(at, serial)) = self.beginnings.front()
            && at <= now
        {
            self.beginnings.pop_front();
            self.tell_begun(serial);
        }
    }

    fn watch(&self, pipe: File, token: u64) -> Option<File> {
        match self.epoll.add(&pipe, EpollEvent::new(EpollFlags::EPOLLIN, token)) {
            Ok(()) => Some(pipe),
            Err(error) => {
                eprintln!("kobza shim: cannot follow the output of a task: {error}");
                None
            }
        }
    }

    pub(super) fn set_step(&mut self, serial: u64, step: Step, deadline: Option<Instant>) {
        let Some(task) = self.tasks.get_mut(&serial) else { return };
        if let Some(old) = std::mem::replace(&mut task.deadline, deadline) {
            self.deadlines.remove(&(old, serial));
        }
        task.step = step;
        self.deadlines.extend(deadline.map(|at| (at, serial)));
    }

    /// Reads once what a stream has. False if nothing came.
    pub(super) fn read_stream(&mut self, serial: u64, stream: LogStream) -> bool {
        let Some(task) = self.tasks.get_mut(&serial) else { return false };
        let slot = if stream == LogStream::Stdout { &mut task.stdout } else { &mut task.stderr };
        let Some(pipe) = slot else { return false };
        match pipe.read(&mut self.buffer) {
            Ok(0) => {
                // Closing it also takes it out of the epoll set.
                *slot = None;
                if task.exit.is_some() {
                    self.try_finish(serial);
                }
                false
            }
            Ok(got) => {
                if got == 64 * 1024 {
                    // A full pipe of the default size: a chatty task. More is read at once then.
                    let size = i32::try_from(READ_BYTES).unwrap_or(i32::MAX);
                    let _ = fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(size));
                }
                let bytes = &self.buffer[..got];
                let wanted = if task.spec.builtin { LogStream::Stderr } else { LogStream::Stdout };
                if let Some(last) = task.last_line.as_mut().filter(|_| stream == wanted) {
                    last.push(bytes);
                }
                task.log.write(stream, bytes, wall_now(), &mut self.scratch);
                task.last_read = Instant::now();
                if task.log.has_partial() && self.flush_partial_at.is_none() {
                    self.flush_partial_at = Some(task.last_read + PARTIAL_AFTER);
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                eprintln!("kobza shim: output of {}: {error}", task.launch);
                *slot = None;
                false
            }
        }
    }

    /// Shows followers lines that have had no end for a while.
    pub(super) fn flush_partial_lines(&mut self, now: Instant) {
        if self.flush_partial_at.is_none_or(|at| at > now) {
            return;
        }
        self.flush_partial_at = None;
        let mut next: Option<Instant> = None;
        for task in self.tasks.values_mut().filter(|t| t.log.has_partial()) {
            let due = task.last_read + PARTIAL_AFTER;
            if due <= now {
                task.log.flush_partial(wall_now(), &mut self.scratch);
            } else {
                next = Some(next.map_or(due, |n| n.min(due)));
            }
        }
        self.flush_partial_at = next;
    }
}
