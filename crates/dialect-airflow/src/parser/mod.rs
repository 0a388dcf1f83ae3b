//! Reads DAG files: a process of the user's own environment that imports Airflow once, and forks a
//! child for each file.

mod hosted;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kobza_model::Json;
use serde_json::json;

use crate::Bundle;
use hosted::{NotConnected, connected};

/// The releases that this version was tested with: Airflow's core and its task SDK.
pub const SUPPORTED: (&str, &str) = ("3.3", "1.3");

/// What a file that is being read may ask, answered: variables and the like.
pub type Answers = dyn Fn(&Json) -> Json + Send + Sync;

/// How long the process may take to import Airflow.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// Beyond a file's own time limit, which the process itself keeps.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// For the end of a process, when the server ends.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// Between the end of a hosted process's connection and its last words.
const ENDING_PATIENCE: Duration = Duration::from_secs(10);
/// Lines kept of what the process prints, for the message when it dies.
const TAIL_LINES: usize = 30;

const PROGRAM: &str =
    "import sys; sys.path.append(sys.argv[1]); from kobza_airflow.parse import main; main()";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{python} could not be started: {reason}")]
    Start { python: String, reason: String },
    #[error("{python} has no Airflow that can be imported: {reason}")]
    NoAirflow { python: String, reason: String },
    #[error("{python} has Airflow {found}, whose task SDK is {sdk}; {0}.x with {1}.x is supported", SUPPORTED.0, SUPPORTED.1)]
    Version { python: String, found: String, sdk: String },
    /// The file's own fault: its process died, or took too long.
    #[error("{message}")]
    File { message: String, output: String },
    #[error("the process that reads DAG files ended: {0}")]
    Ended(String),
}

/// What a file gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// Serialised DAGs: `{"__version", "dag", "client_defaults"}`.
    pub dags: Vec<Json>,
    /// Tracebacks by file, relative to the bundle.
    pub import_errors: BTreeMap<String, String>,
    pub warnings: Vec<Json>,
}

/// What counts of `airflow.cfg` and its environment variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `dags_are_paused_at_creation`
    pub paused_at_creation: bool,
    /// `dag_file_processor_timeout`: for reading one file.
    pub file_limit: Duration,
    /// Longest list that a mapped task may be made from.
    pub max_map_length: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            paused_at_creation: true,
            file_limit: Duration::from_secs(50),
            max_map_length: crate::MAX_MAP_LENGTH,
        }
    }
}

/// Lets the process begin elsewhere than as a child of this one.
pub trait Hosting: Send + Sync {
    /// Starts one that connects to the socket of this abstract name. When it has ended, whether it
    /// connected or not, its last words come.
    fn start(&self, socket: &str) -> Receiver<String>;

    /// Ends it, if there is one.
    fn stop(&self);
}

/// How the process comes to be.
enum Birth {
    Child { packages: PathBuf, environment: Vec<(String, String)> },
    Hosted(Arc<dyn Hosting>),
}

/// The process, started when it is first needed and again after it died.
pub struct ParseHost {
    python: String,
    birth: Birth,
    answers: Arc<Answers>,
    process: Mutex<Option<Arc<Process>>>,
    settings: Mutex<Settings>,
    stopped: AtomicBool,
}

impl std::fmt::Debug for ParseHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParseHost").field("python", &self.python).finish_non_exhaustive()
    }
}

impl ParseHost {
    /// For an interpreter; `packages` holds Kobza's own Python packages.
    #[must_use]
    pub fn new(
        python: String,
        packages: PathBuf,
        environment: Vec<(String, String)>,
        answers: Arc<Answers>,
    ) -> Self {
        Self {
            python,
            birth: Birth::Child { packages, environment },
            answers,
            process: Mutex::new(None),
            settings: Mutex::new(Settings::default()),
            stopped: AtomicBool::new(false),
        }
    }

    /// For an interpreter whose process somebody else starts.
    #[must_use]
    pub fn hosted(python: String, hosting: Arc<dyn Hosting>, answers: Arc<Answers>) -> Self {
        Self {
            python,
            birth: Birth::Hosted(hosting),
            answers,
            process: Mutex::new(None),
            settings: Mutex::new(Settings::default()),
            stopped: AtomicBool::new(false),
        }
    }

    /// Starts the process, unless it runs; says what is wrong with the environment.
    pub fn check(&self) -> Result<(), ParseError> {
        self.process().map(|_| ())
    }

    /// Ends the process, and waits until whoever started it knows: what lives on elsewhere would hold
    /// its place for a successor of this server. No call starts another.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        let Ok(mut held) = self.process.try_lock() else {
            // It is being started.
            if let Birth::Hosted(hosting) = &self.birth {
                hosting.stop();
            }
            return;
        };
        let Some(process) = held.take() else { return };
        process.end();
        let until = Instant::now() + STOP_PATIENCE;
        while !process.is_over() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What Airflow's own settings say; known once the process has started.
    #[must_use]
    pub fn settings(&self) -> Settings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files of a folder that may hold DAGs, by Airflow's own rules.
    pub fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, ParseError> {
        let request = json!({"op": "list", "folder": folder});
        let answer = self.call(request, ANSWER_PATIENCE)?;
        let files = answer["files"].as_array();
        Ok(files.into_iter().flatten().filter_map(|f| f.as_str().map(PathBuf::from)).collect())
    }

    /// Reads a file, in a process of its own that may take so long.
    pub fn parse(
        &self,
        file: &Path,
        bundle: &Bundle,
        limit: Duration,
    ) -> Result<Parsed, ParseError> {
        let answer = self.call(work(file, bundle, limit, &Json::Null), limit + ANSWER_PATIENCE)?;
        let errors = answer["import_errors"].as_object().into_iter().flatten();
        Ok(Parsed {
            dags: answer["dags"].as_array().cloned().unwrap_or_default(),
            import_errors: errors
                .map(|(file, text)| (file.clone(), text.as_str().unwrap_or_default().to_owned()))
                .collect(),
            warnings: answer["warnings"].as_array().cloned().unwrap_or_default(),
        })
    }

    /// What only classes of the user's own know: a question of `kobza_airflow.answer`.
    pub(crate) fn ask(&self, question: Json, limit: Duration) -> Result<Json, ParseError> {
        let request = json!({"op": "ask", "question": question, "timeout": limit.as_secs_f64()});
        let mut answer = self.call(request, limit + ANSWER_PATIENCE)?;
        Ok(answer["answer"].take())
    }

    /// Runs callbacks of a file's DAGs: Airflow's own callback requests.
    pub fn callbacks(
        &self,
        file: &Path,
        bundle: &Bundle,
        limit: Duration,
        requests: &Json,
    ) -> Result<(), ParseError> {
        match self.call(work(file, bundle, limit, requests), limit + ANSWER_PATIENCE) {
            // Callbacks have no result: their process just ends.
            Ok(_) => Ok(()),
            Err(ParseError::File { message, output }) if message.contains("without a result") => {
                tracing::debug!(file = %file.display(), "callbacks ran: {output}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn process(&self) -> Result<Arc<Process>, ParseError> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(ParseError::Ended("the server stops".to_owned()));
        }
        let mut held = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = held.as_ref().filter(|p| !p.is_over()) {
            return Ok(process.clone());
        }
        let process = Arc::new(self.start()?);
        let hello = process.call(json!({"op": "hello"}), START_PATIENCE).map_err(|error| {
            let reason = match error {
                ParseError::Ended(words) => words,
                other => other.to_string(),
            };
            ParseError::NoAirflow { python: self.python.clone(), reason }
        })?;
        let word = |name: &str| hello[name].as_str().unwrap_or_default().to_owned();
        let (found, sdk) = (word("airflow"), word("sdk"));
        let same = |version: &str, wanted: &str| {
            version.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'))
        };
        if !same(&found, SUPPORTED.0) || !same(&sdk, SUPPORTED.1) {
            return Err(ParseError::Version { python: self.python.clone(), found, sdk });
        }
        let known = Settings::default();
        let seconds = hello["file_seconds"].as_f64().filter(|seconds| *seconds > 0.0);
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Settings {
            paused_at_creation: hello["paused_at_creation"] != Json::Bool(false),
            file_limit: seconds
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .unwrap_or(known.file_limit),
            max_map_length: hello["max_map_length"].as_u64().unwrap_or(known.max_map_length),
        };
        *held = Some(process.clone());
        Ok(process)
    }

    fn start(&self) -> Result<Process, ParseError> {
        let failed = |reason: std::io::Error| ParseError::Start {
            python: self.python.clone(),
            reason: reason.to_string(),
        };
        match &self.birth {
            Birth::Child { packages, environment } => {
                self.start_child(packages, environment).map_err(failed)
            }
            Birth::Hosted(hosting) => {
                let (stream, ended) = connected(hosting.as_ref()).map_err(|error| match error {
                    NotConnected::Io(error) => failed(error),
                    NotConnected::Ended(reason) => {
                        ParseError::NoAirflow { python: self.python.clone(), reason }
                    }
                })?;
                let life = Life::Hosted(stream.try_clone().map_err(failed)?, hosting.clone());
                let answers = stream.try_clone().map_err(failed)?;
                let last_words = move |shared: &Shared| {
                    if let Ok(words) = ended.recv_timeout(ENDING_PATIENCE) {
                        shared.say_last(words);
                    }
                };
                self.follow(Box::new(stream), answers, last_words, life).map_err(failed)
            }
        }
    }

    fn start_child(
        &self,
        packages: &Path,
        environment: &[(String, String)],
    ) -> std::io::Result<Process> {
        let mut child = Command::new(&self.python)
            .args(["-c", PROGRAM])
            .arg(packages)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // Sets come in the same order each time: an unchanged DAG is no new version.
            .env("PYTHONHASHSEED", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(std::io::Error::other("it has no standard streams"));
        };
        let last_words = move |shared: &Shared| shared.keep(BufReader::new(stderr));
        self.follow(Box::new(stdin), stdout, last_words, Life::Child(Mutex::new(child)))
    }

    /// Reads what a process says. `last_words` runs beside that, and ends with the process.
    fn follow(
        &self,
        requests: Box<dyn std::io::Write + Send>,
        said: impl std::io::Read + Send + 'static,
        last_words: impl FnOnce(&Shared) + Send + 'static,
        life: Life,
    ) -> std::io::Result<Process> {
        let shared = Arc::new(Shared {
            requests: Mutex::new(requests),
            waiting: Mutex::new(Waiting::default()),
            tail: Mutex::new(VecDeque::new()),
        });
        let ending = shared.clone();
        let log = std::thread::Builder::new()
            .name("kobza-dags-log".to_owned())
            .spawn(move || last_words(&ending))?;
        let (reading, answers) = (shared.clone(), self.answers.clone());
        std::thread::Builder::new().name("kobza-dags".to_owned()).spawn(move || {
            reading.read(BufReader::new(said), &answers);
            // Its last words come before its end is told.
            let _told = log.join();
            reading.end();
        })?;
        Ok(Process { life, shared })
    }

    fn call(&self, request: Json, patience: Duration) -> Result<Json, ParseError> {
        let answer = self.process()?.call(request, patience)?;
        match answer["error"].as_str() {
            None => Ok(answer),
            Some(message) => Err(ParseError::File {
                message: message.to_owned(),
                output: answer["output"].as_str().unwrap_or_default().to_owned(),
            }),
        }
    }
}

fn work(file: &Path, bundle: &Bundle, limit: Duration, callbacks: &Json) -> Json {
    json!({
        "op": "parse",
        "file": file,
        "bundle_path": bundle.path,
        "bundle_name": bundle.name,
        "timeout": limit.as_secs_f64(),
        "callbacks": callbacks,
    })
}

struct Process {
    life: Life,
    shared: Arc<Shared>,
}

/// What ends a process.
enum Life {
    Child(Mutex<Child>),
    /// It ends with its connection, or else by force.
    Hosted(UnixStream, Arc<dyn Hosting>),
}

struct Shared {
    requests: Mutex<Box<dyn std::io::Write + Send>>,
    waiting: Mutex<Waiting>,
    tail: Mutex<VecDeque<String>>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    calls: HashMap<u64, Sender<Json>>,
    over: bool,
}

impl Process {
    fn is_over(&self) -> bool {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).over
    }

    fn call(&self, mut request: Json, patience: Duration) -> Result<Json, ParseError> {
        let (sender, receiver): (_, Receiver<Json>) = channel();
        let number = {
            let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.over {
                return Err(ParseError::Ended(self.shared.last_words()));
            }
            waiting.last += 1;
            let number = waiting.last;
            waiting.calls.insert(number, sender);
            number
        };
        request["id"] = json!(number);
        self.shared.say(&request);
        match receiver.recv_timeout(patience) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Disconnected) => Err(ParseError::Ended(self.shared.last_words())),
            Err(RecvTimeoutError::Timeout) => {
                // It hangs: the next call starts another.
                self.end();
                Err(ParseError::Ended("it did not answer in time".to_owned()))
            }
        }
    }

    fn end(&self) {
        // It may have ended by itself.
        match &self.life {
            Life::Child(child) => {
                let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
                let _ended = child.kill();
                let _status = child.wait();
            }
            Life::Hosted(stream, hosting) => {
                let _closed = stream.shutdown(std::net::Shutdown::Both);
                hosting.stop();
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn say(&self, message: &Json) {
        let mut line = message.to_string();
        line.push('\n');
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        // That it has gone is told by its reading half.
        let _gone = requests.write_all(line.as_bytes()).and_then(|()| requests.flush());
    }

    fn read(self: &Arc<Self>, lines: impl std::io::BufRead, answers: &Arc<Answers>) {
        for line in lines.lines() {
            let Ok(line) = line else { return };
            let Ok(message) = serde_json::from_str::<Json>(&line) else {
                tracing::error!("the process that reads DAG files speaks nonsense");
                return;
            };
            if let Some(ask) = message["ask"].as_u64() {
                let (shared, answers) = (self.clone(), answers.clone());
                // An answer may wait for the loop; other files go on meanwhile.
                std::thread::spawn(move || {
                    let body = answers(&message["request"]);
                    shared.say(&json!({"answer": ask, "body": body}));
                });
                continue;
            }
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(call) = message["id"].as_u64().and_then(|id| waiting.calls.remove(&id)) {
                // Who asked may have lost patience.
                let _gone = call.send(message);
            }
        }
    }

    fn keep(&self, lines: impl std::io::BufRead) {
        for line in lines.lines() {
            let Ok(line) = line else { return };
            tracing::debug!("DAG files: {line}");
            self.say_last(line);
        }
    }

    fn say_last(&self, line: String) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() >= TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }

    fn end(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.over = true;
        waiting.calls.clear();
    }

    /// The last line that says something: of a traceback, the exception.
    fn last_words(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let line = tail.iter().rev().find(|line| !line.trim().is_empty());
        line.map_or_else(|| "it said nothing".to_owned(), |line| line.trim().to_owned())
    }
}
