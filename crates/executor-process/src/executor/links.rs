//! The thread that owns the connections to shims.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use kobza_engine::{KillReason, Report, ReportBody};
use kobza_model::{Cause, LaunchId, Outcome};
use kobza_runtime::{Answer, Ask, LaunchSpec, ReportSink};

use super::ProcessOptions;
use super::deliver::{deliver, draw};
use super::link::{Incoming, Link, is_dead, shim_id};
use super::recovery::{Remains, lose};
use crate::clock::wall_now;
use crate::wire::{FromShim, LaunchCommand, ToShim, encode};

/// How long a shim that closed its connection may hold its lock before it is ended by force.
const CLOSING_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of commands written at once.
const WRITE_BYTES: usize = 256 * 1024;

/// What the thread is told.
pub(super) enum Message {
    Launch(LaunchId, Box<LaunchSpec>),
    Kill(LaunchId, KillReason),
    Adopt(Vec<LaunchId>),
    /// An event is durable; with its launch if it was the last of it.
    Durable {
        link: u32,
        number: u64,
        last: Option<LaunchId>,
    },
    /// A launch that no shim holds is over, durably.
    Forget(LaunchId),
    /// To what a body has asked through this link.
    Answer {
        link: u32,
        launch: LaunchId,
        number: u64,
        answer: Answer,
    },
    /// The reading half of a connection has ended.
    Closed {
        link: u32,
    },
    Stop,
}

/// Who will report about a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Link(u32),
    /// A report from a dead shim's spool, or that it is lost, is on its way.
    Underway,
}

pub(super) struct Links {
    shims: PathBuf,
    options: ProcessOptions,
    sink: Arc<dyn ReportSink>,
    messages: Sender<Message>,
    links: BTreeMap<u32, Link>,
    next_link: u32,
    /// The link that gets new launches.
    current: Option<u32>,
    places: HashMap<LaunchId, Place>,
    /// Commands to be written, by link.
    out: BTreeMap<u32, Vec<u8>>,
    confirmed: BTreeMap<u32, Vec<u64>>,
}

impl Links {
    pub(super) fn new(
        shims: PathBuf,
        options: ProcessOptions,
        sink: Arc<dyn ReportSink>,
        messages: Sender<Message>,
    ) -> Self {
        Self {
            shims,
            options,
            sink,
            messages,
            links: BTreeMap::new(),
            next_link: 0,
            current: None,
            places: HashMap::new(),
            out: BTreeMap::new(),
            confirmed: BTreeMap::new(),
        }
    }

    pub(super) fn run(mut self, receiver: &Receiver<Message>) {
        self.take_up();
        while let Ok(message) = receiver.recv() {
            let mut next = Some(message);
            while let Some(message) = next {
                if matches!(message, Message::Stop) {
                    self.flush();
                    self.links.values().for_each(Link::close);
                    return;
                }
                self.on_message(message);
                if self.out.values().any(|bytes| bytes.len() > WRITE_BYTES) {
                    self.flush();
                }
                next = receiver.try_recv().ok();
            }
            self.flush();
        }
    }

    /// Looks after the shims of an earlier server.
    fn take_up(&mut self) {
        let folders: Vec<PathBuf> = match fs::read_dir(&self.shims) {
            Ok(entries) => entries.filter_map(|e| e.ok().map(|e| e.path())).collect(),
            Err(error) => {
                tracing::error!(folder = %self.shims.display(), %error, "cannot look for shims");
                return;
            }
        };
        for folder in folders.into_iter().filter(|f| f.is_dir()) {
            if is_dead(&folder) || !self.connect_or_end(&folder) {
                self.bury(&folder, Vec::new());
            }
        }
    }

    /// Connects to a living shim. One that does not answer is of no use, and is ended; then the
    /// answer is false.
    fn connect_or_end(&mut self, folder: &Path) -> bool {
        match Link::connect(folder) {
            Ok((link, incoming)) => {
                let known = link.hello.launches.clone();
                let id = self.add(link, incoming);
                for launch in known {
                    self.places.insert(launch, Place::Link(id));
                }
                true
            }
            Err(error) => {
                tracing::warn!(shim = shim_id(folder), %error, "a shim does not answer");
                end_by_force(folder);
                false
            }
        }
    }

    fn add(&mut self, mut link: Link, incoming: Incoming) -> u32 {
        let id = self.next_link;
        self.next_link += 1;
        tracing::debug!(shim = link.id(), pid = link.hello.pid, "connected to a shim");
        if link.is_current() {
            self.current = Some(id);
        } else {
            link.retire();
        }
        self.links.insert(id, link);
        let (sink, messages) = (Arc::clone(&self.sink), self.messages.clone());
        std::thread::spawn(move || listen(id, incoming, &*sink, &messages));
        id
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Launch(launch, spec) => self.launch(launch, *spec),
            Message::Kill(launch, reason) => match self.places.get(&launch) {
                Some(&Place::Link(link)) => {
                    self.put(link, &ToShim::Kill { launch, reason: reason.into() });
                }
                Some(Place::Underway) => {}
                // A report is promised in any case; if it is over, this one is refused as stale.
                None => self.lose(vec![launch], "nothing of it runs on this host"),
            },
            Message::Adopt(launches) => {
                let unknown =
                    launches.into_iter().filter(|l| !self.places.contains_key(l)).collect();
                self.lose(unknown, "it disappeared while no server ran");
            }
            Message::Durable { link, number, last } => {
                self.confirmed.entry(link).or_default().push(number);
                if let Some(launch) = last {
                    self.places.remove(&launch);
                }
            }
            Message::Forget(launch) => {
                self.places.remove(&launch);
            }
            Message::Answer { link, launch, number, answer } => {
                self.put(link, &ToShim::Answer { launch, number, answer });
            }
            Message::Closed { link } => self.closed(link),
            Message::Stop => {}
        }
    }

    fn launch(&mut self, launch: LaunchId, spec: LaunchSpec) {
        if self.places.contains_key(&launch) {
            return;
        }
        let link = match self.current {
            Some(link) => link,
            None => match Link::start(&self.shims, &self.options.shim_command) {
                Ok((link, incoming)) => self.add(link, incoming),
                Err(error) => {
                    tracing::error!(%error, "cannot start a shim");
                    return self.refuse(
                        launch,
                        Cause::Infrastructure,
                        format!("cannot start a shim: {error}"),
                    );
                }
            },
        };
        let log = self.options.logs.path(launch);
        // A shim has another working folder than the server may have had.
        let log = std::path::absolute(&log).unwrap_or(log);
        let command = ToShim::Launch(Box::new(LaunchCommand { launch, spec, log }));
        let out = self.out.entry(link).or_default();
        match encode(&command, out) {
            Ok(()) => {
                self.places.insert(launch, Place::Link(link));
            }
            Err(error) => {
                self.refuse(launch, Cause::Limit, format!("the launch cannot be sent: {error}"));
            }
        }
    }

    /// Reports a launch that never got to a shim. From a thread of its own: the sink may block.
    fn refuse(&mut self, launch: LaunchId, cause: Cause, message: String) {
        self.places.insert(launch, Place::Underway);
        let (sink, messages) = (Arc::clone(&self.sink), self.messages.clone());
        std::thread::spawn(move || {
            let body = ReportBody::Finished {
                outcome: Outcome::Failed,
                cause,
                message: Some(message),
                exit_code: None,
                outputs: Vec::new(),
                skips: Vec::new(),
                jitter: draw(),
            };
            let durable = move || {
                let _ = messages.send(Message::Forget(launch));
            };
            sink.report(Report { launch, at: wall_now(), body }, Box::new(durable));
        });
    }

    fn lose(&mut self, launches: Vec<LaunchId>, why: &'static str) {
        for &launch in &launches {
            self.places.insert(launch, Place::Underway);
        }
        lose(launches, why, &self.shims, &self.sink, &self.messages);
    }

    fn put(&mut self, link: u32, command: &ToShim) {
        if let Err(error) = encode(command, self.out.entry(link).or_default()) {
            tracing::error!(%error, "a command for a shim");
        }
    }

    fn flush(&mut self) {
        for (link, numbers) in std::mem::take(&mut self.confirmed) {
            self.put(link, &ToShim::Ack { numbers });
        }
        for (id, bytes) in std::mem::take(&mut self.out) {
            if let Some(link) = self.links.get_mut(&id) {
                link.send(&bytes);
            }
        }
    }

    /// A connection has ended: the shim has died, or ended because it was idle, or (not expected)
    /// only the connection broke.
    fn closed(&mut self, id: u32) {
        let Some(mut link) = self.links.remove(&id) else { return };
        self.out.remove(&id);
        self.confirmed.remove(&id);
        if self.current == Some(id) {
            self.current = None;
        }
        link.close();
        let of_link = |place: &Place| *place == Place::Link(id);
        let held: Vec<LaunchId> =
            self.places.iter().filter(|(_, p)| of_link(p)).map(|(l, _)| *l).collect();
        let begin = Instant::now();
        let mut pause = Duration::from_millis(1);
        while !gone(&mut link) {
            if begin.elapsed() > CLOSING_PATIENCE {
                end_by_force(&link.folder);
                break;
            }
            // It lives. Another try; what it says it does not know, it never got.
            if self.connect_or_end(&link.folder) {
                let lost =
                    held.into_iter().filter(|l| self.places.get(l).is_some_and(of_link)).collect();
                self.lose(lost, "the connection to the shim broke before it was handed over");
                return;
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        if let Some(mut child) = link.child.take() {
            let _ = child.wait();
        }
        if link.folder.exists() {
            tracing::warn!(shim = link.id(), launches = held.len(), "a shim died");
        }
        let folder = link.folder.clone();
        self.bury(&folder, held);
    }

    /// Deals with a dead shim that held these launches.
    fn bury(&mut self, folder: &Path, held: Vec<LaunchId>) {
        if !folder.exists() && held.is_empty() {
            return;
        }
        let remains = Remains::of(folder);
        for &launch in remains.finished.keys() {
            self.places.insert(launch, Place::Underway);
        }
        let lost = held.into_iter().filter(|l| !remains.finished.contains_key(l)).collect();
        remains.report(&self.sink, &self.messages);
        self.lose(lost, "the shim that held it died");
    }
}

/// Whether a shim is certainly dead.
fn gone(link: &mut Link) -> bool {
    if let Some(child) = &mut link.child {
        // Also takes its end, so that no zombie stays.
        let _ = child.try_wait();
    }
    is_dead(&link.folder)
}

/// Kills a shim that lives but does not answer, and waits until its lock is free.
fn end_by_force(folder: &Path) {
    use nix::sys::signal::Signal;
    let needle = folder.as_os_str().as_encoded_bytes();
    let begin = Instant::now();
    while !is_dead(folder) && begin.elapsed() < CLOSING_PATIENCE {
        for pid in crate::procfs::running_with_argument(needle) {
            crate::procfs::signal(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Delivers what a shim says until the connection ends.
fn listen(link: u32, mut incoming: Incoming, sink: &dyn ReportSink, messages: &Sender<Message>) {
    loop {
        match incoming.frames.next::<FromShim>() {
            Ok(Some(FromShim::Event(event))) => deliver(link, &event, sink, messages),
            Ok(Some(FromShim::Hello(_))) => {}
            Ok(Some(FromShim::Ask { launch, number, body })) => {
                let messages = messages.clone();
                let answered = move |answer| {
                    // The executor may be gone: then the shim asks the next one.
                    let _ = messages.send(Message::Answer { link, launch, number, answer });
                };
                sink.ask(Ask { launch, number, body }, Box::new(answered));
            }
            Ok(None) => match incoming.frames.fill(&mut incoming.stream) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(%error, "read from a shim");
                    break;
                }
            },
            Err(error) => {
                tracing::error!(%error, "a shim speaks nonsense");
                break;
            }
        }
    }
    let _ = messages.send(Message::Closed { link });
}
