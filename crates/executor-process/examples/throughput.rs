//! Measures the executor with its shim, without engine and store: whole lives of small tasks, and
//! log bytes. `cargo run --release -p kobza-executor-process --example throughput [tasks]`

use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use kobza_blobs::LogStore;
use kobza_engine::{Report, ReportBody};
use kobza_executor_process::{ProcessExecutor, ProcessOptions, shim_main};
use kobza_model::{LaunchId, RunId, TaskNo};
use kobza_runtime::{Executor, LaunchSpec, ReportSink};

/// Launches that are out at once.
const WINDOW: u32 = 64;

struct Ends(Mutex<Sender<Report>>);

impl ReportSink for Ends {
    fn engine_time(&self, wall: kobza_model::Timestamp) -> kobza_model::EngineTime {
        kobza_model::EngineTime(wall.0)
    }

    fn report(&self, report: Report, on_durable: Box<dyn FnOnce() + Send>) {
        on_durable();
        if let (Ok(sender), false) = (self.0.lock(), matches!(report.body, ReportBody::Started)) {
            // The receiver lives until the executor is dropped.
            let _ = sender.send(report);
        }
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let first = args.next();
    if first.as_deref() == Some("shim") {
        return shim_main(args);
    }
    let tasks = first.and_then(|n| n.parse().ok()).unwrap_or(8000);
    match measure(tasks) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(tasks: u32) -> Result<(), Box<dyn std::error::Error>> {
    let data_dir = std::env::temp_dir().join(format!("kobza-throughput-{}", std::process::id()));
    std::fs::create_dir_all(&data_dir)?;
    let logs = LogStore::new(data_dir.join("logs"));
    let shim = std::env::current_exe()?.to_string_lossy().into_owned();
    let (sender, ends) = channel();
    let options = ProcessOptions {
        data_dir: data_dir.clone(),
        shim_command: vec![shim, "shim".into()],
        logs: logs.clone(),
    };
    let executor = ProcessExecutor::start(options, Arc::new(Ends(Mutex::new(sender))))?;
    let launch =
        |number| LaunchId { run: RunId(uuid::Uuid::nil()), task: TaskNo(number), launch: 1 };

    let mut number = 0;
    let mut lives = |name: &str, script: Option<&str>| -> Result<(), Box<dyn std::error::Error>> {
        let (begin, first) = (Instant::now(), number);
        let mut ended = 0;
        while ended < tasks {
            while number - first < tasks && number - first - ended < WINDOW {
                let mut spec = LaunchSpec { program: "true".into(), ..LaunchSpec::default() };
                if let Some(script) = script {
                    spec.program = "sh".into();
                    spec.args = vec!["-c".into(), script.into()];
                }
                executor.launch(launch(number), spec);
                number += 1;
            }
            ends.recv()?;
            ended += 1;
        }
        let rate = f64::from(tasks) / begin.elapsed().as_secs_f64();
        println!("{name}: {rate:.0} tasks a second");
        Ok(())
    };
    lives("true", None)?;
    lives(
        "sh -c 'echo $KOBZA_LAUNCH; echo a=1 > $KOBZA_OUTPUT'",
        Some("echo $KOBZA_LAUNCH; echo a=1 > $KOBZA_OUTPUT"),
    )?;

    for (name, script, limit) in [
        ("lines of 100 bytes", "yes $(printf %099d 0) | head -c 1073741824", u64::MAX),
        (
            "the same, over the default limit",
            "yes $(printf %099d 0) | head -c 1073741824",
            64 << 20,
        ),
        ("10 million short lines", "seq 10000000", u64::MAX),
        ("1 GiB without line ends", "head -c 1073741824 /dev/zero", u64::MAX),
    ] {
        number += 1;
        let begin = Instant::now();
        executor.launch(
            launch(number),
            LaunchSpec {
                program: "sh".into(),
                args: vec!["-c".into(), script.into()],
                log_bytes: Some(limit),
                ..LaunchSpec::default()
            },
        );
        loop {
            let report = ends.recv()?;
            match report.body {
                ReportBody::Finished { outcome, .. } => {
                    let seconds = begin.elapsed().as_secs_f64();
                    let mut reader = logs.reader(launch(number));
                    let kept = reader.len()?;
                    let begin = Instant::now();
                    let lines = reader.line_count()?;
                    println!(
                        "{name}: {outcome} in {seconds:.2} s; {} MiB and {lines} lines kept \
                         ({:.0} MiB a second), counted in {:.2} s",
                        kept >> 20,
                        (kept >> 20) as f64 / seconds,
                        begin.elapsed().as_secs_f64()
                    );
                    break;
                }
                other => println!("{other:?}"),
            }
        }
        logs.remove_run(RunId(uuid::Uuid::nil()))?;
    }
    drop(executor);
    std::fs::remove_dir_all(&data_dir)?;
    Ok(())
}
