//! Environments, built by `uv` and kept by the hash of what they hold.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{Flock, FlockArg};

use crate::requirements::{Requirements, Source};

/// Last lines of a failed build that go into its message; the log has all of them.
const MESSAGE_LINES: usize = 12;

/// Why there is no environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("requirements {path}: {reason}", path = path.display())]
    File { path: PathBuf, reason: String },
    #[error("the inline script metadata cannot be read: {0}")]
    Inline(String),
    #[error("{0:?} is no requirement: it has more than one line")]
    Requirement(String),
    #[error(
        "requirements need `uv` to build their environment, and it was found neither in PATH nor \
         beside this program nor in ~/.local/bin; `pip install uv`, say where it is with KOBZA_UV, \
         or name a virtual environment with `venv`"
    )]
    NoUv,
    #[error("the environment could not be built ({step}):\n{output}")]
    Failed { step: &'static str, output: String },
    #[error("environment {path}: {reason}", path = path.display())]
    Io { path: PathBuf, reason: String },
}

/// The program `uv`: what `KOBZA_UV` names, else that of `PATH`, else one beside this program (they
/// are installed together by pip) or where its own installer puts it.
#[must_use]
pub fn find_uv() -> PathBuf {
    if let Some(named) = std::env::var_os("KOBZA_UV").filter(|named| !named.is_empty()) {
        return named.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_path_buf()));
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let own = home.iter().flat_map(|home| [home.join(".local/bin"), home.join(".cargo/bin")]);
    std::env::split_paths(&path)
        .chain(beside)
        .chain(own)
        .map(|folder| folder.join("uv"))
        .find(|program| program.is_file())
        // The build then says that there is none.
        .unwrap_or_else(|| "uv".into())
}

/// Builds environments below one folder. Blocks: call it on a thread of its own.
#[derive(Clone, Debug)]
pub struct Builder {
    folder: PathBuf,
    uv: PathBuf,
    processes: Processes,
}

impl Builder {
    /// `folder` holds one subfolder for each environment; `uv` is the program.
    pub fn new(folder: impl Into<PathBuf>, uv: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), uv: uv.into(), processes: Processes::default() }
    }

    /// The interpreter of an environment that was built before.
    #[must_use]
    pub fn existing(&self, requirements: &Requirements) -> Option<PathBuf> {
        let folder = self.folder.join(requirements.hash());
        folder.join("kobza-complete").is_file().then(|| folder.join("bin/python"))
    }

    /// The interpreter of the environment, built if need be. Processes that ask at the same time
    /// wait for one build. `progress` gets each line that the build prints.
    pub fn build(
        &self,
        requirements: &Requirements,
        progress: &mut dyn FnMut(&str),
    ) -> Result<PathBuf, BuildError> {
        if let Some(interpreter) = self.existing(requirements) {
            return Ok(interpreter);
        }
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |e: io::Error| BuildError::Io { path, reason: e.to_string() }
        };
        fs::create_dir_all(&self.folder).map_err(failed(&self.folder))?;
        let hash = requirements.hash();
        let lock = self.folder.join(format!("{hash}.lock"));
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&lock);
        let _held = Flock::lock(file.map_err(failed(&lock))?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed(&lock)(errno.into()))?;
        if let Some(interpreter) = self.existing(requirements) {
            return Ok(interpreter);
        }
        let folder = self.folder.join(&hash);
        // What an interrupted build left.
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed(&folder))?;
        }
        let built = self.build_in(&folder, requirements, progress);
        if built.is_err() {
            let _ = fs::remove_dir_all(&folder);
            return built;
        }
        let complete = folder.join("kobza-complete");
        File::create(&complete).map_err(failed(&complete))?;
        built
    }

    fn build_in(
        &self,
        folder: &Path,
        requirements: &Requirements,
        progress: &mut dyn FnMut(&str),
    ) -> Result<PathBuf, BuildError> {
        let word = |text: &str| OsString::from(text);
        let mut venv = vec![word("venv"), word("--no-project")];
        if let Some(python) = &requirements.python {
            venv.extend([word("--python"), word(python)]);
        }
        venv.extend([word("--"), folder.into()]);
        self.run(venv, None, None, "making it", progress)?;
        let interpreter = folder.join("bin/python");
        let from = |source: &str| {
            let mut words = vec![word("pip"), word("install"), word("--python")];
            words.push(interpreter.clone().into());
            words.extend([word("-r"), word(source)]);
            words
        };
        let step = "installing packages";
        match &requirements.source {
            Source::Lines(lines) if lines.is_empty() => {}
            Source::Lines(lines) => {
                self.run(from("-"), None, Some(&lines.join("\n")), step, progress)?;
            }
            Source::File { path, content } => {
                // Relative lines mean files beside it.
                let beside = path.parent().filter(|p| !p.as_os_str().is_empty());
                if path.file_name().is_some_and(|n| n == "pyproject.toml") {
                    self.run(from("pyproject.toml"), beside, None, step, progress)?;
                } else {
                    self.run(from("-"), beside, Some(content), step, progress)?;
                }
            }
        }
        Ok(interpreter)
    }
}

/// Prints the exit code as the last line: the shim reaps every child of its process, so a wait for
/// this one could find nothing.
const WRAPPER: &str = "\"$@\"; echo \"kobza-exit $?\" >&2";
/// What a shell answers when there is no such program.
const NOT_FOUND: &str = "127";

impl Builder {
    fn run(
        &self,
        command: Vec<OsString>,
        folder: Option<&Path>,
        input: Option<&str>,
        step: &'static str,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), BuildError> {
        let failed = |error: io::Error| BuildError::Failed { step, output: error.to_string() };
        let mut wrapped = Command::new("/bin/sh");
        wrapped.args(["-c", WRAPPER, "sh"]).arg(&self.uv).args(command);
        wrapped.env("NO_COLOR", "1").env_remove("VIRTUAL_ENV").process_group(0);
        if let Some(folder) = folder {
            wrapped.current_dir(folder);
        }
        wrapped.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let running = self.processes.enter();
        let mut child = wrapped.spawn().map_err(failed)?;
        let running = running.with(i32::try_from(child.id()).unwrap_or(0));
        if let Some(mut stdin) = child.stdin.take()
            && let Some(input) = input
        {
            // Requirements are short and read at once; a child that has gone says why by itself.
            let _ = stdin.write_all(input.as_bytes());
        }
        let mut last: VecDeque<String> = VecDeque::new();
        if let Some(stderr) = child.stderr.take() {
            for line in BufReader::new(stderr).split(b'\n') {
                let line = String::from_utf8_lossy(&line.map_err(failed)?).trim_end().to_owned();
                if !line.starts_with("kobza-exit ") {
                    progress(&line);
                }
                last.push_back(line);
                if last.len() > MESSAGE_LINES + 1 {
                    last.pop_front();
                }
            }
        }
        let _ = child.wait();
        drop(running);
        let code = last.pop_back();
        let code = code.as_deref().and_then(|line| line.strip_prefix("kobza-exit "));
        match code {
            Some("0") => Ok(()),
            Some(NOT_FOUND) => Err(BuildError::NoUv),
            _ => Err(BuildError::Failed {
                step,
                output: last.into_iter().collect::<Vec<_>>().join("\n"),
            }),
        }
    }

    /// The processes of builds that run now.
    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }
}

/// Children of this process that belong to builds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes(Arc<Mutex<(usize, BTreeSet<i32>)>>);

impl Processes {
    /// Whether a child belongs to a build, or may: its number is not known while it starts.
    pub(crate) fn may_own(&self, pid: i32) -> bool {
        let state = self.lock();
        state.0 > 0 || state.1.contains(&pid)
    }

    fn enter(&self) -> Entered {
        self.lock().0 += 1;
        Entered { processes: self.clone(), pid: None }
    }

    fn lock(&self) -> MutexGuard<'_, (usize, BTreeSet<i32>)> {
        // Nothing in here can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Entered {
    processes: Processes,
    pid: Option<i32>,
}

impl Entered {
    fn with(mut self, pid: i32) -> Self {
        {
            let mut state = self.processes.lock();
            state.0 -= 1;
            state.1.insert(pid);
        }
        self.pid = Some(pid);
        self
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut state = self.processes.lock();
        match self.pid {
            Some(pid) => {
                state.1.remove(&pid);
            }
            None => state.0 -= 1,
        }
    }
}
