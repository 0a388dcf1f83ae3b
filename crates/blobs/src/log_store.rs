//! Where the logs of launches lie.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kobza_model::{LaunchId, RunId, TaskId};

use crate::LogReader;

/// Logs in a local folder: `<root>/<two hex digits>/<run>/<task>/<launch>.log`, further segments
/// `<launch>.1.log` and so on. The digits are from the run id's random end, which spreads runs
/// evenly.
#[derive(Clone, Debug)]
pub struct LogStore {
    root: PathBuf,
}

impl LogStore {
    /// A store in `root`, which is created when the first log is written.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The first segment of a launch's log: what a writer is given.
    #[must_use]
    pub fn path(&self, launch: LaunchId) -> PathBuf {
        self.task_folder(launch.task_id()).join(format!("{}.log", launch.launch))
    }

    /// A reader. A launch that wrote nothing has no file and reads as empty.
    #[must_use]
    pub fn reader(&self, launch: LaunchId) -> LogReader {
        LogReader::new(self.path(launch))
    }

    /// The launches of a task that wrote something, in order.
    pub fn launches(&self, task: TaskId) -> io::Result<Vec<LaunchId>> {
        let entries = match fs::read_dir(self.task_folder(task)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut launches = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            // `<launch>.log` only: a further segment has a second dot and does not parse.
            let number =
                name.to_str().and_then(|n| n.strip_suffix(".log")).and_then(|n| n.parse().ok());
            if let Some(launch) = number {
                launches.push(LaunchId { run: task.run, task: task.task, launch });
            }
        }
        launches.sort_unstable();
        Ok(launches)
    }

    /// Removes all logs of a run. That there are none is no error.
    pub fn remove_run(&self, run: RunId) -> io::Result<()> {
        match fs::remove_dir_all(self.run_folder(run)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes all logs of a task. That there are none is no error.
    pub fn remove_task(&self, task: TaskId) -> io::Result<()> {
        match fs::remove_dir_all(self.task_folder(task)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn run_folder(&self, run: RunId) -> PathBuf {
        self.root.join(format!("{:02x}", run.0.as_bytes()[15])).join(run.to_string())
    }

    fn task_folder(&self, task: TaskId) -> PathBuf {
        self.run_folder(task.run).join(task.task.to_string())
    }
}

/// The path of a segment, from that of the first.
pub(crate) fn segment_path(first: &Path, segment: u32) -> PathBuf {
    if segment == 0 { first.to_path_buf() } else { first.with_extension(format!("{segment}.log")) }
}
