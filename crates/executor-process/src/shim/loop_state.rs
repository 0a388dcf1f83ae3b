//! The shim's loop: its state, what wakes it, how long it lives.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kobza_blobs::LogStream;
use kobza_model::LaunchId;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::client::Client;
use super::host::Host;
use super::spool::Spool;
use super::streams::READ_BYTES;
use super::task::{End, Step, Task, ended};
use super::wake::Wake;
use crate::warm::{MakeWarm, Warm};
use crate::wire::{KillWord, LaunchCommand, SOCKET};

/// Without tasks, events and server: how long to wait for a server to come back.
const IDLE_LINGER: Duration = Duration::from_secs(2);
/// The same with unconfirmed events, which the file keeps.
const UNCONFIRMED_LINGER: Duration = Duration::from_secs(600);

const WAKE: u64 = 0;
const LISTENER: u64 = 1;
pub(super) const CLIENT: u64 = 2;
pub(super) const WARM: u64 = 3;
const FIRST_TASK: u64 = 16;

pub(super) struct Shim {
    pub(super) folder: PathBuf,
    pub(super) host: Host,
    pub(super) epoll: Epoll,
    wake: Wake,
    pub(super) listener: UnixListener,
    pub(super) client: Option<Client>,
    pub(super) spool: Spool,
    pub(super) waiting: VecDeque<LaunchCommand>,
    pub(super) tasks: BTreeMap<u64, Task>,
    /// Main processes of tasks.
    pub(super) mains: HashMap<i32, u64>,
    /// Tasks whose main process has ended, but not all else.
    pub(super) exited: BTreeSet<u64>,
    pub(super) deadlines: BTreeSet<(Instant, u64)>,
    /// Tasks of whose beginning the server is told then, in order.
    pub(super) beginnings: VecDeque<(Instant, u64)>,
    /// Waiting, running, or finished and unconfirmed; with the running task's number, or 0.
    pub(super) known: HashMap<LaunchId, u64>,
    pub(super) forgotten: VecDeque<LaunchId>,
    pub(super) forgotten_set: HashSet<LaunchId>,
    pub(super) serial: u64,
    pub(super) flush_partial_at: Option<Instant>,
    /// When the memory of limited trees is looked at next.
    pub(super) memory_due: Option<Instant>,
    idle_since: Option<Instant>,
    pub(super) exit_when_idle: bool,
    pub(super) ending: bool,
    pub(super) buffer: Vec<u8>,
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

    pub(super) fn kill(&mut self, launch: LaunchId, reason: KillWord) {
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

    pub(super) fn set_step(&mut self, serial: u64, step: Step, deadline: Option<Instant>) {
        let Some(task) = self.tasks.get_mut(&serial) else { return };
        if let Some(old) = std::mem::replace(&mut task.deadline, deadline) {
            self.deadlines.remove(&(old, serial));
        }
        task.step = step;
        self.deadlines.extend(deadline.map(|at| (at, serial)));
    }
}
