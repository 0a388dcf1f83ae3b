//! A process with the stock trigger runner.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::Duration;

use kobza_model::Json;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::Input;
use crate::task::msgpack::{Frames, frame};

/// What the interpreter is told: our package must be found without hiding the environment's own.
const PROGRAM: &str =
    "import sys; sys.path.append(sys.argv[1]); from kobza_airflow.trigger import main; main()";
/// How long a runner that does not take what it is told may hold up the others.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Runner {
    child: Child,
    stream: UnixStream,
    /// It has said something: now it can be woken.
    pub(super) is_up: bool,
}

impl Runner {
    /// Starts one for an interpreter. What it says comes as inputs with its number.
    pub(super) fn start(
        number: u64,
        python: &str,
        packages: &Path,
        environment: &BTreeMap<&'static str, String>,
        inputs: &Sender<Input>,
    ) -> std::io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_write_timeout(Some(WRITE_PATIENCE))?;
        let mut child = Command::new(python)
            .args(["-c", PROGRAM])
            .arg(packages)
            .envs(environment)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let streams = (child.stdout.take(), child.stderr.take());
        if let (Some(records), Some(words)) = streams {
            log(BufReader::new(records))?;
            log(BufReader::new(words))?;
        }
        let mut reading = ours.try_clone()?;
        let inputs = inputs.clone();
        std::thread::Builder::new().name("kobza-triggers-in".to_owned()).spawn(move || {
            let mut frames = Frames::default();
            let mut buffer = vec![0; 64 * 1024];
            'reading: while let Ok(got @ 1..) = reading.read(&mut buffer) {
                frames.push(&buffer[..got]);
                loop {
                    match frames.take_frame() {
                        Ok(Some(frame)) => {
                            if inputs.send(Input::Frame { runner: number, frame }).is_err() {
                                return;
                            }
                        }
                        Ok(None) => break,
                        Err(error) => {
                            tracing::error!(%error, "the trigger runner speaks nonsense");
                            break 'reading;
                        }
                    }
                }
            }
            // Nobody is left to tell when the server ends.
            let _gone = inputs.send(Input::Gone { runner: number });
        })?;
        let mut runner = Self { child, stream: ours, is_up: false };
        runner.send(&json!([0, {"type": "StartTriggerer"}]));
        Ok(runner)
    }

    /// That it has gone is told by its reading half.
    pub(super) fn send(&mut self, value: &Json) {
        if let Err(error) = self.stream.write_all(&frame(value)) {
            tracing::debug!(%error, "write to the trigger runner");
            self.end();
        }
    }

    /// Lets it look around now.
    pub(super) fn wake(&self) {
        if self.is_up
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            // Its end is told elsewhere.
            let _gone = kill(Pid::from_raw(pid), Signal::SIGUSR1);
        }
    }

    pub(super) fn end(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the runner says goes to the server's own log.
fn log(mut lines: impl std::io::BufRead + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("kobza-triggers-log".to_owned()).spawn(move || {
        let mut line = Vec::new();
        while let Ok(1..) = lines.by_ref().take(64 * 1024).read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            match serde_json::from_str::<Json>(&text) {
                Ok(record) => {
                    let event = record["event"].as_str().unwrap_or_default();
                    let task = record["task_id"].as_str();
                    match record["level"].as_str() {
                        Some("error" | "critical") => {
                            tracing::error!(task, detail = %record["exception"], "trigger runner: {event}");
                        }
                        Some("warning") => tracing::warn!(task, "trigger runner: {event}"),
                        _ => tracing::debug!(task, "trigger runner: {event}"),
                    }
                }
                Err(_) => tracing::debug!("trigger runner: {text}"),
            }
        }
    })?;
    Ok(())
}
