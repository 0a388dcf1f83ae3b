//! Python tasks through a real shim and real interpreters.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation ends a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kobza_blobs::LogStore;
use kobza_engine::{KillReason, Report, ReportBody};
use kobza_executor_process::{ProcessExecutor, ProcessOptions};
use kobza_model::{Cause, Json, LaunchId, Outcome, TaskNo};
use kobza_runtime::{Executor, LaunchSpec, ReportSink};
use serde_json::json;

/// Only a guard against a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

const FLOW: &str = r#"
import os, signal, sys, time

LOADED_BY = os.getpid()

def nop():
    return None

def add(a, b=1):
    print("adding", a, b)
    return a + b

def who():
    return [os.getpid(), LOADED_BY, os.getppid()]

def surroundings():
    return [os.getcwd(), os.environ["COLOUR"], os.environ["KOBZA_LAUNCH"]]

def fails():
    raise ValueError("bad row")

def secret():
    print("the word is hunter2")
    raise ValueError("hunter2")

def leaves():
    os._exit(0)

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def skips():
    import kobza
    raise kobza.Skip("nothing new")

def waits(path):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "1000"])
    with open(path, "w") as file:
        file.write("up\n")
    time.sleep(1000)

def unstorable():
    return open

def hungry():
    return len(bytearray(1 << 32))

def version():
    return 1
"#;

#[derive(Default)]
struct Sink {
    reports: Mutex<Vec<Report>>,
    changed: Condvar,
}

impl ReportSink for Sink {
    fn engine_time(&self, wall: kobza_model::Timestamp) -> kobza_model::EngineTime {
        kobza_model::EngineTime(wall.0)
    }

    fn report(&self, report: Report, on_durable: Box<dyn FnOnce() + Send>) {
        self.reports.lock().unwrap().push(report);
        self.changed.notify_all();
        on_durable();
    }
}

#[derive(Debug)]
struct Finished {
    outcome: Outcome,
    cause: Cause,
    message: String,
    outputs: Vec<(String, Json)>,
}

impl Finished {
    fn result(&self) -> &Json {
        let found = self.outputs.iter().find(|(name, _)| name == "result");
        &found.unwrap_or_else(|| panic!("no result: {self:?}")).1
    }
}

struct World {
    folder: tempfile::TempDir,
    logs: LogStore,
    executor: ProcessExecutor,
    sink: Arc<Sink>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let logs = LogStore::new(folder.path().join("logs"));
        let options = ProcessOptions {
            data_dir: folder.path().to_path_buf(),
            shim_command: vec![
                env!("CARGO_BIN_EXE_kobza-test-python-shim").to_owned(),
                "shim".into(),
            ],
            logs: logs.clone(),
        };
        let sink = Arc::new(Sink::default());
        let executor =
            ProcessExecutor::start(options, Arc::clone(&sink) as Arc<dyn ReportSink>).unwrap();
        fs::write(folder.path().join("flow.py"), FLOW).unwrap();
        Self { folder, logs, executor, sink }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn task(&self, function: &str, args: Json) -> LaunchSpec {
        self.task_with(function, args, json!({}))
    }

    fn task_with(&self, function: &str, args: Json, more: Json) -> LaunchSpec {
        let mut python = json!({
            "function": function, "file": self.path("flow.py"), "args": args,
            "context": {"workflow": "flow"},
        });
        for (name, value) in more.as_object().unwrap() {
            python[name] = value.clone();
        }
        LaunchSpec { extra: json!({ "python": python }), ..LaunchSpec::default() }
    }

    fn run(&self, number: u32, spec: LaunchSpec) -> Finished {
        self.executor.launch(launch(number), spec);
        self.finished(number)
    }

    fn finished(&self, number: u32) -> Finished {
        let begin = Instant::now();
        let mut reports = self.sink.reports.lock().unwrap();
        loop {
            for report in reports.iter().filter(|r| r.launch == launch(number)) {
                if let ReportBody::Finished { outcome, cause, message, outputs, .. } = &report.body
                {
                    return Finished {
                        outcome: *outcome,
                        cause: *cause,
                        message: message.clone().unwrap_or_default(),
                        outputs: outputs.clone(),
                    };
                }
            }
            assert!(begin.elapsed() < PATIENCE, "no end of {number} among {reports:?}");
            reports = self.sink.changed.wait_timeout(reports, Duration::from_secs(1)).unwrap().0;
        }
    }

    fn log(&self, number: u32) -> String {
        let lines = self.logs.reader(launch(number)).tail(usize::MAX).unwrap().lines;
        lines.iter().map(|l| l.text().into_owned() + "\n").collect()
    }
}

fn launch(number: u32) -> LaunchId {
    let run = "0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
    LaunchId { run, task: TaskNo(number), launch: 1 }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_function_runs_in_a_child_of_the_shim() {
    let world = World::new();
    let finished = world.run(1, world.task("add", json!({"a": 2, "b": 3})));
    assert_eq!((finished.outcome, finished.cause), (Outcome::Succeeded, Cause::None));
    assert_eq!(finished.result(), &json!(5));
    assert_eq!(world.log(1), "adding 2 3\n");
    let first = world.run(2, world.task("who", json!([])));
    let second = world.run(3, world.task("who", json!(null)));
    let (first, second) = (first.result().clone(), second.result().clone());
    assert_ne!(first[0], second[0], "a process each");
    assert_eq!(first[1], second[1], "one import");
    assert_ne!(first[2], first[1], "the parent is not its parent, the shim is");
    assert_eq!(first[2], second[2]);
}

#[test]
fn surroundings() {
    let world = World::new();
    let mut spec = world.task("surroundings", json!([]));
    spec.env = vec![("COLOUR".into(), "blue".into())];
    spec.folder = Some(world.folder.path().to_string_lossy().into_owned());
    let finished = world.run(1, spec);
    let expected = json!([world.folder.path(), "blue", launch(1).to_string()]);
    assert_eq!(finished.result(), &expected);
}

#[test]
fn ends_that_are_no_success_say_why() {
    let world = World::new();
    let run = |number, function: &str| world.run(number, world.task(function, json!([])));

    let finished = run(1, "fails");
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Code));
    assert!(finished.message.starts_with("ValueError: bad row (flow.py:"), "{finished:?}");
    let log = world.log(1);
    assert!(log.contains("in fails") && !log.contains("kobza_worker"), "{log}");

    let finished = run(2, "leaves");
    assert_eq!(finished.outcome, Outcome::Failed);
    assert!(finished.message.contains("os._exit"), "{finished:?}");
    assert_eq!(run(3, "killed").message, "killed by SIGKILL (out of memory?)");
    let finished = run(4, "skips");
    assert_eq!((finished.outcome, finished.message.as_str()), (Outcome::Skipped, "nothing new"));
    let finished = run(5, "unstorable");
    assert!(finished.message.contains("cannot be kept"), "{finished:?}");
    let finished = run(6, "ad");
    assert!(finished.message.contains("did you mean 'add'"), "{finished:?}");

    let mut spec = world.task("hungry", json!([]));
    spec.memory_bytes = Some(1 << 30);
    assert_eq!(world.run(7, spec).cause, Cause::Limit);

    let mut spec = world.task("secret", json!([]));
    spec.secrets = vec!["hunter2".into()];
    let finished = world.run(8, spec);
    assert!(!finished.message.contains("hunter2") && !world.log(8).contains("hunter2"));

    let bad = LaunchSpec { extra: json!({"python": {"function": 3}}), ..LaunchSpec::default() };
    assert_eq!(world.run(9, bad).cause, Cause::Template);
    assert_eq!(run(10, "nop").outcome, Outcome::Succeeded, "all goes on");
}

#[test]
fn imports_that_fail() {
    let world = World::new();
    fs::write(world.path("flow.py"), "print('hello')\nimport no_such_thing\n").unwrap();
    let finished = world.run(1, world.task("nop", json!([])));
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Code));
    let words =
        "the import failed: ModuleNotFoundError: No module named 'no_such_thing' (flow.py:2";
    assert!(finished.message.starts_with(words), "{finished:?}");
    assert!(world.log(1).contains("hello\n"), "{}", world.log(1));

    let task = world.task_with("nop", json!([]), json!({"interpreter": "/no/such/python"}));
    let finished = world.run(2, task);
    assert!(finished.message.contains("there is no Python interpreter"), "{finished:?}");

    fs::write(world.path("flow.py"), "import os\nos._exit(3)\n").unwrap();
    let finished = world.run(3, world.task("nop", json!([])));
    assert!(finished.message.contains("ended while it imported"), "{finished:?}");
}

#[test]
fn changed_code_is_imported_anew() {
    let world = World::new();
    assert_eq!(world.run(1, world.task("version", json!([]))).result(), &json!(1));
    fs::write(world.path("flow.py"), "def version():\n    return 'two'\n").unwrap();
    assert_eq!(world.run(2, world.task("version", json!([]))).result(), &json!("two"));
}

#[test]
fn threads_at_import_make_it_spawn() {
    let world = World::new();
    let source = format!(
        "{FLOW}\nimport threading\n\
         threading.Thread(target=time.sleep, args=(1000,), daemon=True, name='poller').start()\n"
    );
    fs::write(world.path("flow.py"), source).unwrap();
    let finished = world.run(1, world.task("who", json!([])));
    let result = finished.result();
    assert_eq!(result[0], result[1], "it imports by itself");
    assert!(world.log(1).contains("poller"), "{}", world.log(1));
}

#[test]
fn a_task_that_is_stopped_dies_with_its_children() {
    let world = World::new();
    for (number, mode) in [(1, "fork"), (2, "reuse"), (3, "spawn")] {
        let sign = world.path(mode);
        let mut spec = world.task_with("waits", json!([sign]), json!({ "mode": mode }));
        spec.grace_ms = Some(10);
        world.executor.launch(launch(number), spec);
        until("the task is up", || fs::read_to_string(&sign).is_ok_and(|t| t == "up\n"));
        world.executor.kill(launch(number), KillReason::Stopped);
        assert_eq!(world.finished(number).outcome, Outcome::Cancelled);
        let token = format!("KOBZA_LAUNCH={}", launch(number));
        for entry in fs::read_dir("/proc").unwrap() {
            let environ = fs::read(entry.unwrap().path().join("environ")).unwrap_or_default();
            let alive = environ.split(|&b| b == 0).any(|v| v == token.as_bytes());
            assert!(!alive, "something of the task in mode {mode} is left");
        }
    }
    assert_eq!(world.run(4, world.task("nop", json!([]))).outcome, Outcome::Succeeded);
}

#[test]
fn a_time_limit_counts_from_the_start_of_the_function() {
    let world = World::new();
    let mut spec = world.task("waits", json!([world.path("sign")]));
    (spec.timeout_ms, spec.grace_ms) = (Some(300), Some(10));
    let finished = world.run(1, spec);
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Timeout));
}

#[test]
fn many_at_once() {
    let world = World::new();
    for mode in ["fork", "reuse"] {
        let base = if mode == "fork" { 0 } else { 1000 };
        for number in 0..200 {
            let args = json!({"a": number});
            let spec = world.task_with("add", args, json!({ "mode": mode }));
            world.executor.launch(launch(base + number), spec);
        }
        for number in 0..200 {
            let finished = world.finished(base + number);
            assert_eq!(finished.result(), &json!(number + 1));
            assert_eq!(world.log(base + number), format!("adding {number} 1\n"));
        }
    }
}

#[test]
fn reuse_shares_processes() {
    let world = World::new();
    let processes: BTreeSet<i64> = (0..20)
        .map(|number| {
            let spec = world.task_with("who", json!([]), json!({"mode": "reuse"}));
            world.run(number, spec).result()[0].as_i64().unwrap()
        })
        .collect();
    assert_eq!(processes.len(), 1, "one after another needs one process");
    // A process that a task kills takes only that task with it.
    let spec = world.task_with("killed", json!([]), json!({"mode": "reuse"}));
    assert_eq!(world.run(100, spec).message, "killed by SIGKILL (out of memory?)");
    let spec = world.task_with("nop", json!([]), json!({"mode": "reuse"}));
    assert_eq!(world.run(101, spec).outcome, Outcome::Succeeded);
}

/// Prints figures; run by name with `--ignored`, alone and in a release build.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let world = World::new();
    let mut next = 0;
    let mut number = || {
        next += 1;
        next
    };
    for mode in ["fork", "reuse"] {
        let task = || world.task_with("nop", json!([]), json!({ "mode": mode }));
        world.run(number(), task());
        let begin = Instant::now();
        for _ in 0..50 {
            assert_eq!(world.run(number(), task()).outcome, Outcome::Succeeded);
        }
        println!("{mode}: chain of 50: {:.2} ms each", begin.elapsed().as_secs_f64() * 20.0);
        let begin = Instant::now();
        let numbers: Vec<u32> = (0..1000).map(|_| number()).collect();
        for &n in &numbers {
            world.executor.launch(launch(n), task());
        }
        for &n in numbers.iter().rev() {
            assert_eq!(world.finished(n).outcome, Outcome::Succeeded);
        }
        println!("{mode}: fan-out of 1000: {:.0} a second", 1000.0 / begin.elapsed().as_secs_f64());
    }
}
