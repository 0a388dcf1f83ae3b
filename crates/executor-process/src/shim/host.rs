//! What is the same for all tasks of a shim.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use nix::sys::resource::{Resource, getrlimit};

use super::cgroup::CgroupRoot;

/// Descriptors that the shim needs for itself.
const OWN_FILES: u64 = 64;
/// Descriptors of one task: two pipes and a log file.
const FILES_PER_TASK: u64 = 3;

#[derive(Debug)]
pub(super) struct Host {
    /// The shim's id: the name of its folder.
    pub shim: String,
    /// Its folder, by which its tasks are marked.
    pub folder: PathBuf,
    /// Private folders of tasks.
    pub work: PathBuf,
    /// This binary, for bodies that are part of it.
    pub program: PathBuf,
    /// The environment that tasks inherit: the server's, without what is Kobza's own.
    pub environment: Vec<(OsString, OsString)>,
    pub cgroups: CgroupRoot,
    /// More tasks at once than this wait.
    pub max_tasks: usize,
    remover: Option<mpsc::Sender<PathBuf>>,
}

impl Host {
    pub(super) fn new(folder: &Path) -> Result<Self, String> {
        let shim = folder.file_name().and_then(|n| n.to_str()).ok_or("the folder has no name")?;
        let work = folder.join("work");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&work)
            .map_err(|e| format!("{}: {e}", work.display()))?;
        let program = std::env::current_exe().map_err(|e| format!("own program: {e}"))?;
        let environment = std::env::vars_os()
            .filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"KOBZA_"))
            .collect();
        // The soft limit is not raised, since tasks would inherit that.
        let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| e.to_string())?;
        let max_tasks = (files.saturating_sub(OWN_FILES) / FILES_PER_TASK).clamp(1, 100_000);
        Ok(Self {
            cgroups: CgroupRoot::find(shim),
            shim: shim.to_owned(),
            folder: folder.to_path_buf(),
            work,
            program,
            environment,
            max_tasks: usize::try_from(max_tasks).unwrap_or(1),
            remover: None,
        })
    }

    /// Removes a task's folder; a large one aside, so that the other tasks need not wait.
    pub(super) fn remove_folder(&mut self, folder: PathBuf) {
        if fs::remove_dir(&folder).is_ok() {
            return;
        }
        let remover = self.remover.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel::<PathBuf>();
            thread::spawn(move || {
                for folder in receiver {
                    if let Err(error) = fs::remove_dir_all(&folder) {
                        eprintln!("kobza shim: remove {}: {error}", folder.display());
                    }
                }
            });
            sender
        });
        // The thread lives as long as the sender.
        let _ = remover.send(folder);
    }
}
