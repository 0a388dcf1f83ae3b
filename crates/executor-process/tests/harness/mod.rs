//! A server's side for tests: an executor over a folder, and a sink that remembers.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation ends a test")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kobza_blobs::{LogLine, LogStore};
use kobza_engine::{Report, ReportBody};
use kobza_executor_process::{ProcessExecutor, ProcessOptions};
use kobza_model::{Cause, Json, LaunchId, Outcome, TaskNo};
use kobza_runtime::{Executor, LaunchSpec, ReportSink};

pub const PATIENCE: Duration = Duration::from_secs(60);

type Durable = Box<dyn FnOnce() + Send>;

/// Remembers reports. Confirms them at once, or holds the confirmations back.
#[derive(Default)]
pub struct Sink {
    state: Mutex<State>,
    changed: Condvar,
    hold: bool,
}

#[derive(Default)]
struct State {
    reports: Vec<Report>,
    held: Vec<Durable>,
}

impl ReportSink for Sink {
    fn engine_time(&self, wall: kobza_model::Timestamp) -> kobza_model::EngineTime {
        kobza_model::EngineTime(wall.0)
    }

    fn report(&self, report: Report, on_durable: Durable) {
        let mut state = self.state.lock().unwrap();
        state.reports.push(report);
        if self.hold {
            state.held.push(on_durable);
        } else {
            on_durable();
        }
        self.changed.notify_all();
    }
}

impl Sink {
    /// Waits for a report.
    pub fn wait<T>(&self, find: impl Fn(&Report) -> Option<T>) -> T {
        let begin = Instant::now();
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(found) = state.reports.iter().find_map(&find) {
                return found;
            }
            assert!(begin.elapsed() < PATIENCE, "no such report among {:?}", state.reports);
            state = self.changed.wait_timeout(state, Duration::from_secs(1)).unwrap().0;
        }
    }

    pub fn started(&self, launch: LaunchId) {
        self.wait(|r| (r.launch == launch && matches!(r.body, ReportBody::Started)).then_some(()));
    }

    pub fn finished(&self, launch: LaunchId) -> Finished {
        self.wait(|r| match &r.body {
            ReportBody::Finished {
                outcome, cause, message, exit_code, outputs, jitter, ..
            } if r.launch == launch => {
                assert!((0.0..=1.0).contains(jitter));
                Some(Finished {
                    outcome: *outcome,
                    cause: *cause,
                    message: message.clone().unwrap_or_default(),
                    exit_code: *exit_code,
                    outputs: outputs.clone(),
                })
            }
            _ => None,
        })
    }

    pub fn lost(&self, launch: LaunchId) -> String {
        self.wait(|r| match &r.body {
            ReportBody::Lost { message } if r.launch == launch => Some(message.clone()),
            _ => None,
        })
    }

    pub fn note(&self, launch: LaunchId, word: &str) -> String {
        self.wait(|r| match &r.body {
            ReportBody::Note { word: w, detail } if r.launch == launch && w == word => {
                Some(detail.clone())
            }
            _ => None,
        })
    }

    pub fn count(&self, launch: LaunchId) -> usize {
        let state = self.state.lock().unwrap();
        let ends =
            |r: &&Report| r.launch == launch && matches!(r.body, ReportBody::Finished { .. });
        state.reports.iter().filter(ends).count()
    }

    pub fn confirm_held(&self) {
        let held = std::mem::take(&mut self.state.lock().unwrap().held);
        held.into_iter().for_each(|durable| durable());
    }
}

#[derive(Debug, PartialEq)]
pub struct Finished {
    pub outcome: Outcome,
    pub cause: Cause,
    pub message: String,
    pub exit_code: Option<i32>,
    pub outputs: Vec<(String, Json)>,
}

/// A data folder, over the lives of several servers.
pub struct World {
    pub folder: tempfile::TempDir,
    pub logs: LogStore,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().join("logs"));
        Self { folder, logs }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn server(&self) -> Server {
        self.server_with(Sink::default())
    }

    /// A server that never gets to a commit.
    pub fn server_without_commits(&self) -> Server {
        self.server_with(Sink { hold: true, ..Sink::default() })
    }

    fn server_with(&self, sink: Sink) -> Server {
        let sink = Arc::new(sink);
        let program = env!("CARGO_BIN_EXE_kobza-test-shim").to_owned();
        let options = ProcessOptions {
            data_dir: self.folder.path().to_path_buf(),
            shim_command: vec![program, "shim".into()],
            logs: self.logs.clone(),
        };
        let executor =
            ProcessExecutor::start(options, Arc::clone(&sink) as Arc<dyn ReportSink>).unwrap();
        Server { executor, sink }
    }

    pub fn log(&self, launch: LaunchId) -> Vec<LogLine> {
        self.logs.reader(launch).tail(usize::MAX).unwrap().lines
    }

    pub fn log_text(&self, launch: LaunchId) -> String {
        self.log(launch).iter().map(|l| l.text().into_owned() + "\n").collect()
    }

    pub fn shims(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("shims")).unwrap();
        entries.map(|e| e.unwrap().path()).collect()
    }

    /// The process of the only shim.
    pub fn shim_pid(&self) -> i32 {
        let needle = self.folder.path().join("shims");
        let needle = needle.to_str().unwrap();
        let mut found = processes().filter(|&pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|&b| b == 0).any(|a| String::from_utf8_lossy(a).starts_with(needle))
        });
        found.next().expect("a shim runs")
    }
}

pub struct Server {
    pub executor: ProcessExecutor,
    pub sink: Arc<Sink>,
}

impl Server {
    pub fn run(&self, launch: LaunchId, spec: LaunchSpec) -> Finished {
        self.executor.launch(launch, spec);
        self.sink.finished(launch)
    }

    /// Runs a shell script to its end.
    pub fn shell(&self, number: u32, script: &str) -> Finished {
        self.run(launch(number), shell(script))
    }
}

pub fn launch(number: u32) -> LaunchId {
    let run = "0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
    LaunchId { run, task: TaskNo(number), launch: 1 }
}

pub fn shell(script: &str) -> LaunchSpec {
    LaunchSpec {
        program: "sh".into(),
        args: vec!["-c".into(), script.into()],
        ..LaunchSpec::default()
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
}

/// Whether a process runs (a zombie does not).
pub fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

/// Waits for something outside that announces itself to nobody.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// Waits for a file with a line in it, and gives that as a number.
pub fn pid_in(path: &Path) -> i32 {
    let mut pid = 0;
    until("no process id was written", || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let whole = text.ends_with('\n');
        pid = text.trim().parse().unwrap_or(0);
        whole && pid > 0
    });
    pid
}
