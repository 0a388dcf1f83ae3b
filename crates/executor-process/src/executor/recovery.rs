//! What is done about a dead shim: its processes are killed, what it spooled is reported, all else
//! is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use kobza_engine::{Report, ReportBody};
use kobza_model::LaunchId;
use kobza_runtime::ReportSink;

use super::deliver::deliver_body;
use super::link::shim_id;
use super::links::Message;
use crate::clock::wall_now;
use crate::procfs::{self, Mark};
use crate::wire::{Event, EventBody, Frames, FromShim, SPOOL};

/// How long killed processes may take to go before others are let wait no longer.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What is left of a dead shim whose processes are gone.
#[derive(Debug)]
pub(super) struct Remains {
    folder: PathBuf,
    /// What launches that are over may not have been reported to have said.
    pub finished: BTreeMap<LaunchId, Vec<Event>>,
}

impl Remains {
    /// Kills what the shim held and reads its spool.
    pub(super) fn of(folder: &Path) -> Self {
        let shim = shim_id(folder);
        kill_starting(folder);
        kill_all(Mark { shims: folder.to_string_lossy().into_owned(), launches: None });
        let mut finished = BTreeMap::<LaunchId, Vec<Event>>::new();
        let mut frames = Frames::default();
        match fs::read(folder.join(SPOOL)) {
            Ok(bytes) => frames.push(&bytes),
            Err(error) => tracing::warn!(shim, %error, "spool of a dead shim"),
        }
        loop {
            match frames.next::<FromShim>() {
                Ok(Some(FromShim::Event(event))) => {
                    if !matches!(event.body, EventBody::Started { .. }) {
                        finished.entry(event.launch).or_default().push(event);
                    }
                }
                Ok(Some(FromShim::Hello(_) | FromShim::Ask { .. })) => {}
                // A half-written frame at the end is what dying in a write leaves.
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(shim, %error, "spool of a dead shim");
                    break;
                }
            }
        }
        // Of what is not over, the rest is lost as well.
        finished.retain(|_, events| events.iter().any(|event| event.body.is_last()));
        Self { folder: folder.to_path_buf(), finished }
    }

    /// Reports what the spool holds, from a thread of its own since the sink may block. The folder
    /// goes when all is durable.
    pub(super) fn report(self, sink: &Arc<dyn ReportSink>, messages: &Sender<Message>) {
        let Self { folder, finished } = self;
        if finished.is_empty() {
            remove(&folder);
            return;
        }
        let (sink, messages) = (Arc::clone(sink), messages.clone());
        std::thread::spawn(move || {
            let left = Arc::new(AtomicUsize::new(finished.len()));
            for (launch, events) in finished {
                let (left, folder, messages) =
                    (Arc::clone(&left), folder.clone(), messages.clone());
                let mut durable: Box<dyn FnOnce() + Send> = Box::new(move || {
                    // The executor may be gone by then.
                    let _ = messages.send(Message::Forget(launch));
                    if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                        remove(&folder);
                    }
                });
                for event in events {
                    let told = if event.body.is_last() {
                        std::mem::replace(&mut durable, Box::new(|| {}))
                    } else {
                        Box::new(|| {})
                    };
                    deliver_body(&*sink, &event, told);
                }
            }
        });
    }
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!(folder = %folder.display(), %error, "folder of a dead shim");
    }
}

/// Kills what still runs of launches that no shim knows, then reports them lost.
pub(super) fn lose(
    launches: Vec<LaunchId>,
    why: &'static str,
    shims: &Path,
    sink: &Arc<dyn ReportSink>,
    messages: &Sender<Message>,
) {
    if launches.is_empty() {
        return;
    }
    let mark = Mark {
        // With the separator: `shims` must not stand for `shims-of-another`.
        shims: shims.join("").to_string_lossy().into_owned(),
        launches: Some(launches.iter().map(ToString::to_string).collect()),
    };
    let (sink, messages) = (Arc::clone(sink), messages.clone());
    std::thread::spawn(move || {
        // Lost is a statement of certainty: it waits as long as it takes.
        while !procfs::kill_carrying(&mark, KILL_PATIENCE) {
            tracing::warn!("processes of lost launches cannot be killed; trying on");
        }
        for launch in launches {
            let messages = messages.clone();
            let body = ReportBody::Lost { message: why.to_owned() };
            let durable = move || {
                let _ = messages.send(Message::Forget(launch));
            };
            sink.report(Report { launch, at: wall_now(), body }, Box::new(durable));
        }
    });
}

/// Kills what a shim was starting when it died. Until such a process runs a program of its own it
/// carries no mark: it still shows the shim's arguments. From then on it carries one.
fn kill_starting(folder: &Path) {
    use nix::sys::signal::Signal;
    let begin = Instant::now();
    while begin.elapsed() < KILL_PATIENCE {
        let starting = procfs::running_with_argument(folder.as_os_str().as_encoded_bytes());
        if starting.is_empty() {
            return;
        }
        for pid in starting {
            procfs::signal(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn kill_all(mark: Mark) {
    if procfs::kill_carrying(&mark, KILL_PATIENCE) {
        return;
    }
    tracing::warn!("processes of a dead shim cannot be killed yet; trying on");
    std::thread::spawn(move || while !procfs::kill_carrying(&mark, KILL_PATIENCE) {});
}
