//! A folder of workflow files: read at the start, and again whenever a file of it changes.
//!
//! Each look compares the whole folder with what was read before; what the system tells of changes
//! is only a hint to look. A file that does not parse is kept as a fault of its workflow, whose last
//! good version stays in force. So does that of a file that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use kobza_api::Problem;
use kobza_engine::Command;
use kobza_model::Json;
use kobza_runtime::{Handle, Submission, SubmitError, wall_now};
use kobza_store::{Write, kinds};
use kobza_triggers::service::TriggerHandle;
use notify::Watcher as _;

use crate::check;
use crate::compose::Database;
use crate::failure::Failure;

/// An editor writes a file in several steps: it is read once it is quiet for so long ...
const QUIET: Duration = Duration::from_millis(100);
/// ... or after so long at the latest.
const LONGEST_NOISE: Duration = Duration::from_secs(2);
/// Looks without a hint: where the system tells of no changes, and after a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// The object that says which file each workflow came from.
const ORIGINS: &str = "workflow_files";

/// Namespace and name.
pub(crate) type Name = (String, String);

/// What tells whether a file changed, without reading it.
pub(crate) type Stamp = (u64, i64, i64, u64);

/// A file as it was read.
#[derive(Default)]
struct Known {
    stamp: Option<Stamp>,
    /// Workflows of its last good reading.
    defines: BTreeSet<Name>,
    /// Why it is not in force, as an object's name and value.
    fault: Option<(Name, Option<Json>)>,
}

/// The folder and what was read from it.
pub(crate) struct Folder {
    path: PathBuf,
    handle: Handle,
    store: Arc<dyn Database>,
    seal: Arc<kobza_dialect_argo::rest::Seal>,
    files: BTreeMap<PathBuf, Known>,
    /// Which file each workflow came from, of this and of earlier servers.
    origins: BTreeMap<Name, PathBuf>,
    /// Faults as they are stored.
    faults: BTreeMap<Name, Option<Json>>,
}

/// A workflow that was stored, with its triggers.
pub(crate) struct Stored {
    pub(crate) name: Name,
    pub(crate) triggers: Json,
}

impl Folder {
    /// Reads the whole folder.
    pub(crate) fn load(
        path: &Path,
        handle: Handle,
        store: Arc<dyn Database>,
        seal: Arc<kobza_dialect_argo::rest::Seal>,
    ) -> Result<Self, Failure> {
        if !path.is_dir() {
            return Err(Failure::hint(
                format!("{} is not a folder", path.display()),
                "`workflows` names a folder of workflow files",
            ));
        }
        let mut folder = Self {
            path: path.to_owned(),
            handle,
            origins: origins(store.as_ref())?,
            store,
            seal,
            files: BTreeMap::new(),
            faults: BTreeMap::new(),
        };
        let known = kobza_api::forget_faults(folder.store.as_ref());
        let forget = known.map_err(|e| Failure::new(e.to_string()))?;
        folder.look(forget).map_err(|e| Failure::new(e.to_string()))?;
        Ok(folder)
    }

    /// Looks again at each hint, until the loop stops.
    pub(crate) fn watch(
        mut self,
        triggers: TriggerHandle,
        tokio: tokio::runtime::Handle,
    ) -> std::io::Result<()> {
        let (hint, hints) = channel();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if !event.is_ok_and(|e| matches!(e.kind, notify::EventKind::Access(_))) {
                    // The thread that listens ends with the server only.
                    let _gone = hint.send(());
                }
            });
        let told = watcher
            .as_mut()
            .map_err(|e| e.to_string())
            .and_then(|w| {
                w.watch(&self.path, notify::RecursiveMode::Recursive).map_err(|e| e.to_string())
            })
            .inspect_err(|error| {
                let every = AGAIN.as_secs();
                tracing::warn!(
                    error,
                    "changes of the workflows' folder are not told; looking every {every} s"
                );
            })
            .is_ok();
        std::thread::Builder::new().name("workflow-files".to_owned()).spawn(move || {
            let _watcher = watcher;
            // Something may have changed before the watch began.
            let mut failed = true;
            loop {
                let pause = if failed || !told { Some(AGAIN) } else { None };
                if !wait(&hints, pause) {
                    return;
                }
                failed = match self.look(Vec::new()) {
                    Ok(stored) => !announce(&triggers, &tokio, stored),
                    Err(LookError::Submit(SubmitError::Stopped)) => return,
                    Err(error) => {
                        tracing::error!(%error, "the workflows' folder could not be read; trying again");
                        true
                    }
                };
            }
        })?;
        Ok(())
    }

    /// Reads what changed and stores it. What is known changes only when that is durable.
    fn look(&mut self, mut writes: Vec<Write>) -> Result<Vec<Stored>, LookError> {
        let paths = check::files_in(&self.path)?;
        let mut files: BTreeMap<PathBuf, Known> = BTreeMap::new();
        let mut commands = Vec::new();
        let mut stored = Vec::new();
        let mut taken: BTreeMap<Name, PathBuf> = BTreeMap::new();
        let mut changed: Vec<(PathBuf, Stamp)> = Vec::new();
        for path in paths {
            // It may be gone since.
            let Ok(stamp) = std::fs::metadata(&path).map(|m| stamp(&m)) else { continue };
            match self.files.remove(&path) {
                Some(known) if known.stamp == Some(stamp) => {
                    for name in &known.defines {
                        taken.insert(name.clone(), path.clone());
                    }
                    files.insert(path, known);
                }
                Some(known) => {
                    files.insert(path.clone(), known);
                    changed.push((path, stamp));
                }
                None => changed.push((path, stamp)),
            }
        }
        if changed.is_empty() && self.files.is_empty() && writes.is_empty() {
            self.files = files;
            return Ok(stored);
        }
        for (path, stamp) in changed {
            let mut known = files.remove(&path).unwrap_or_default();
            known.stamp = Some(stamp);
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            match self.read(&path, &text, &mut taken, &mut commands, &mut writes, &mut stored) {
                Ok(defines) => (known.defines, known.fault) = (defines, None),
                Err(problems) => {
                    for problem in &problems {
                        tracing::error!("{}", check::show(problem));
                    }
                    let stem = path.file_stem().map(|s| s.to_string_lossy()).unwrap_or_default();
                    known.fault =
                        fault(kobza_api::fault_write(&stem, &text, &problems, wall_now()));
                    for name in &known.defines {
                        taken.entry(name.clone()).or_insert_with(|| path.clone());
                    }
                }
            }
            files.insert(path, known);
        }
        let mut all = self.origins.clone();
        all.extend(taken.clone());
        let faults = self.wanted_faults(&files, &taken, &mut all)?;
        writes.extend(changes(&self.faults, &faults));
        if all != self.origins {
            writes.push(keep(&all));
        }
        if !writes.is_empty() || !commands.is_empty() {
            let submission = Submission { commands, writes };
            if let Err(error) = self.handle.submit_blocking(submission) {
                // Everything is read again.
                self.files.clear();
                return Err(error.into());
            }
        }
        (self.files, self.origins, self.faults) = (files, all, faults);
        Ok(stored)
    }

    /// One file's definitions as writes.
    fn read(
        &self,
        path: &Path,
        text: &str,
        taken: &mut BTreeMap<Name, PathBuf>,
        commands: &mut Vec<Command>,
        writes: &mut Vec<Write>,
        stored: &mut Vec<Stored>,
    ) -> Result<BTreeSet<Name>, Vec<Problem>> {
        let problem = |message: String, hint: Option<String>| {
            let file = Some(path.display().to_string());
            vec![Problem { path: String::new(), message, hint, file, line: None, column: None }]
        };
        if crate::argo::is_argo(text.as_bytes()) {
            writes.extend(
                crate::argo::writes(text, "default", self.seal.as_ref())
                    .map_err(|e| problem(e, None))?,
            );
            if !crate::argo::has_workflow(text) {
                return Ok(BTreeSet::new());
            }
        }
        let mut defines = BTreeSet::new();
        let all = if crate::argo::is_argo(text.as_bytes()) {
            // Its templates may be in other files.
            let files = check::files_in(&self.path).map_err(|e| problem(e.to_string(), None))?;
            let shelf = crate::argo::Shelf::of(&files);
            let shown = path.display().to_string();
            let definition = crate::argo::definition(text.as_bytes(), &shown, &shelf)?;
            vec![(definition, text.to_owned())]
        } else {
            check::read_all(path)?
        };
        for (definition, source) in all {
            let namespace = definition.namespace.unwrap_or_else(|| "default".to_owned());
            let name = (namespace, definition.workflow.name.clone());
            if let Some(other) = taken.get(&name).filter(|other| *other != path) {
                return Err(problem(
                    format!("workflow {:?} is defined in {} already", name.1, other.display()),
                    Some("give one of them another name".to_owned()),
                ));
            }
            let version = definition
                .workflow
                .content_hash()
                .map_err(|e| problem(format!("it cannot be stored: {e}"), None))?;
            commands.extend(definition.limits.into_iter().map(|limit| Command::SetLimit {
                name: limit.name,
                capacity: limit.capacity,
                strict: limit.strict,
                description: limit.description,
            }));
            tracing::info!(workflow = name.1, file = %path.display(), "loaded");
            let triggers = definition.workflow.triggers.clone();
            writes.push(Write::PutWorkflow {
                namespace: name.0.clone(),
                version,
                workflow: Arc::new(definition.workflow),
                source: Some(source),
            });
            stored.push(Stored { name: name.clone(), triggers });
            defines.insert(name);
        }
        taken.extend(defines.iter().map(|name| (name.clone(), path.to_owned())));
        Ok(defines)
    }

    /// The faults that there should be: of files that are there, and of workflows whose file is gone.
    fn wanted_faults(
        &self,
        files: &BTreeMap<PathBuf, Known>,
        taken: &BTreeMap<Name, PathBuf>,
        origins: &mut BTreeMap<Name, PathBuf>,
    ) -> Result<BTreeMap<Name, Option<Json>>, LookError> {
        let mut faults: BTreeMap<Name, Option<Json>> =
            files.values().filter_map(|known| known.fault.clone()).collect();
        let mut forgotten = Vec::new();
        for (name, path) in origins.iter() {
            // A broken file's own name stands for its workflow.
            if taken.contains_key(name) || files.contains_key(path) || faults.contains_key(name) {
                continue;
            }
            if self.store.get_workflow(&name.0, &name.1, None)?.is_none() {
                forgotten.push(name.clone());
                continue;
            }
            let message = format!("its file {} is gone", path.display());
            if !self.faults.contains_key(name) {
                tracing::warn!(workflow = name.1, "{message}; its last version stays in force");
            }
            let hint = Some(format!(
                "put the file back, or delete the workflow: kobza workflows delete {}",
                name.1
            ));
            let gone = Problem {
                path: String::new(),
                message,
                hint,
                file: Some(path.display().to_string()),
                line: None,
                column: None,
            };
            let fault = fault(kobza_api::fault_write(&name.1, "", &[gone], wall_now()));
            let value = match self.faults.get(name) {
                Some(before) => before.clone(),
                None => fault.and_then(|(_, value)| value),
            };
            faults.insert(name.clone(), value);
        }
        for name in forgotten {
            origins.remove(&name);
        }
        Ok(faults)
    }
}

/// Waits for a hint and for quiet after it; false when there will be no more.
pub(crate) fn wait(hints: &Receiver<()>, pause: Option<Duration>) -> bool {
    match pause {
        None if hints.recv().is_err() => return false,
        None => {}
        Some(pause) => match hints.recv_timeout(pause) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            // Without a watcher there are no hints.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(pause);
                return true;
            }
        },
    }
    let began = Instant::now();
    while began.elapsed() < LONGEST_NOISE && hints.recv_timeout(QUIET).is_ok() {}
    true
}

/// Lets triggers follow what was stored; whether all do.
pub(crate) fn announce(
    triggers: &TriggerHandle,
    tokio: &tokio::runtime::Handle,
    stored: Vec<Stored>,
) -> bool {
    let mut good = true;
    for Stored { name, triggers: specs } in stored {
        let told = tokio.block_on(triggers.set_workflow(&name.0, &name.1, &specs));
        if let Err(error) = told {
            tracing::error!(%error, workflow = name.1, "its triggers are not in force");
            good = false;
        }
    }
    good
}

pub(crate) fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    (metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len())
}

fn fault(write: Write) -> Option<(Name, Option<Json>)> {
    match write {
        Write::PutObject { namespace, key, value, .. } => Some(((namespace, key), value)),
        _ => None,
    }
}

/// The writes that make the stored faults be as they should.
fn changes(
    before: &BTreeMap<Name, Option<Json>>,
    after: &BTreeMap<Name, Option<Json>>,
) -> Vec<Write> {
    let put = |(namespace, key): &Name, value: Option<Json>| Write::PutObject {
        kind: kinds::IMPORT_ERROR,
        namespace: namespace.clone(),
        key: key.clone(),
        value,
    };
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| put(name, None));
    let new = after.iter().filter(|(name, value)| before.get(*name) != Some(*value));
    gone.chain(new.map(|(name, value)| put(name, value.clone()))).collect()
}

fn keep(origins: &BTreeMap<Name, PathBuf>) -> Write {
    let all: Vec<_> = origins
        .iter()
        .map(|((namespace, name), path)| {
            serde_json::json!({"namespace": namespace, "name": name, "file": path})
        })
        .collect();
    Write::PutObject {
        kind: kinds::SETTING,
        namespace: String::new(),
        key: ORIGINS.to_owned(),
        value: Some(all.into()),
    }
}

fn origins(store: &dyn Database) -> Result<BTreeMap<Name, PathBuf>, Failure> {
    let Some(kept) = store.object(kinds::SETTING, "", ORIGINS)? else {
        return Ok(BTreeMap::new());
    };
    let text = |entry: &Json, field: &str| entry[field].as_str().map(str::to_owned);
    let entries = kept.as_array().into_iter().flatten().filter_map(|entry| {
        let name = (text(entry, "namespace")?, text(entry, "name")?);
        Some((name, PathBuf::from(text(entry, "file")?)))
    });
    Ok(entries.collect())
}

#[derive(Debug)]
enum LookError {
    Folder(std::io::Error),
    Submit(SubmitError),
    View(kobza_store::ViewError),
}

impl std::fmt::Display for LookError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(error) => error.fmt(f),
            Self::Submit(error) => error.fmt(f),
            Self::View(error) => error.fmt(f),
        }
    }
}

impl From<std::io::Error> for LookError {
    fn from(error: std::io::Error) -> Self {
        Self::Folder(error)
    }
}

impl From<SubmitError> for LookError {
    fn from(error: SubmitError) -> Self {
        Self::Submit(error)
    }
}

impl From<kobza_store::ViewError> for LookError {
    fn from(error: kobza_store::ViewError) -> Self {
        Self::View(error)
    }
}
