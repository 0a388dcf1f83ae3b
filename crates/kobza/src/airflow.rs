//! A folder of DAG files: read by Airflow's own parser at the start, and again when files change.
//!
//! What the system tells of changes is only a hint to look. A file that does not parse is kept as a
//! fault, and the last good version of its DAGs stays in force.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kobza_api::Problem;
use kobza_dialect_airflow::again::Guarded;
use kobza_dialect_airflow::parser::{ParseError, ParseHost, Parsed};
use kobza_dialect_airflow::{
    AssetNames, Bundle, Compiled, MAX_MAP_LENGTH, Weights, asset_names, compile, own_weights,
};
use kobza_engine::Command;
use kobza_model::{Json, LimitRow};
use kobza_runtime::{Handle, Submission, SubmitError, wall_now};
use kobza_store::{WorkflowFilter, Write};
use kobza_triggers::service::TriggerHandle;
use notify::Watcher as _;

use crate::airflow_faults::{keyed, problem_of, unfault};
use crate::airflow_setup::{Airflow, BUNDLE, NAMESPACE};
use crate::compose::{Database, Host};
use crate::failure::Failure;
use crate::watch::{Stamp, Stored, announce, stamp, wait};

/// Files read at the same time.
const READERS: usize = 2;
/// Looks without a hint: where the system tells of no changes, and after a failure.
const AGAIN: Duration = Duration::from_secs(30);
/// The pool of tasks that name none.
const DEFAULT_POOL: (&str, u32) = ("default_pool", 128);
/// Deepest folder that is looked at for modules.
const DEPTH_MAX: usize = 32;

/// A DAG file as it was read.
#[derive(Default)]
struct Known {
    stamp: Option<Stamp>,
    /// The DAGs of its last good reading.
    dags: BTreeSet<String>,
    /// It has a fault in the store.
    faulty: bool,
    /// Names of assets that its DAGs are scheduled by, and no DAG describes so far.
    unnamed: BTreeSet<String>,
}

/// The folder and what was read from it.
pub(crate) struct DagFolder {
    bundle: Bundle,
    parser: Arc<ParseHost>,
    handle: Handle,
    store: Arc<dyn Database>,
    guarded: Arc<Guarded>,
    triggers: TriggerHandle,
    tokio: tokio::runtime::Handle,
    files: BTreeMap<PathBuf, Known>,
    /// Modules that DAG files may import.
    modules: BTreeMap<PathBuf, Stamp>,
    /// Addresses of the assets that DAGs describe, by their names.
    assets: AssetNames,
    first: bool,
}

/// What a file's DAGs come to.
#[derive(Default)]
struct Fresh {
    submission: Submission,
    stored: Vec<Stored>,
    /// DAGs that are new and begin paused.
    paused: Vec<String>,
}

enum LookError {
    Environment(ParseError),
    Submit(SubmitError),
    Store(String),
}

impl From<SubmitError> for LookError {
    fn from(error: SubmitError) -> Self {
        Self::Submit(error)
    }
}

/// Reads the folder, and watches it until the server ends.
pub(crate) fn start(
    host: &Host,
    Airflow { bundle, parser }: Airflow,
    triggers: TriggerHandle,
    tokio: tokio::runtime::Handle,
) -> Result<(), Failure> {
    let limits = host.store.list_limits().map_err(|e| Failure::new(e.to_string()))?;
    if !limits.iter().any(|limit| limit.name == DEFAULT_POOL.0) {
        let pool = limit(LimitRow {
            name: DEFAULT_POOL.0.to_owned(),
            capacity: DEFAULT_POOL.1,
            strict: false,
            description: Some("Airflow's default pool".to_owned()),
        });
        host.handle.submit_blocking(pool)?;
    }
    let guarded = Arc::new(Guarded::default());
    kobza_dialect_airflow::again::start(host.handle.clone(), host.store.clone(), guarded.clone())?;
    kobza_dialect_airflow::ends::start(host.handle.clone(), host.store.clone(), parser.clone())?;
    let folder = DagFolder {
        bundle,
        parser,
        handle: host.handle.clone(),
        store: host.store.clone(),
        guarded,
        triggers,
        tokio,
        files: BTreeMap::new(),
        modules: BTreeMap::new(),
        assets: AssetNames::new(),
        first: true,
    };
    folder.watch()?;
    Ok(())
}

fn limit(row: LimitRow) -> Command {
    Command::SetLimit {
        name: row.name,
        capacity: row.capacity,
        strict: row.strict,
        description: row.description,
    }
}

impl DagFolder {
    fn watch(mut self) -> std::io::Result<()> {
        let (hint, hints) = channel();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if !event.is_ok_and(|e| matches!(e.kind, notify::EventKind::Access(_))) {
                    // The thread that listens ends with the server only.
                    let _gone = hint.send(());
                }
            });
        let path = PathBuf::from(&self.bundle.path);
        let told = watcher
            .as_mut()
            .map_err(|e| e.to_string())
            .and_then(|w| {
                w.watch(&path, notify::RecursiveMode::Recursive).map_err(|e| e.to_string())
            })
            .inspect_err(|error| {
                tracing::warn!(
                    error,
                    "changes of the DAG folder are not told; it is looked at every {} s",
                    AGAIN.as_secs()
                );
            })
            .is_ok();
        std::thread::Builder::new().name("dag-files".to_owned()).spawn(move || {
            let _watcher = watcher;
            loop {
                let failed = match self.look() {
                    Ok(()) => false,
                    Err(LookError::Submit(SubmitError::Stopped)) => return,
                    Err(LookError::Submit(error)) => {
                        tracing::error!(%error, "DAGs could not be stored; trying again");
                        true
                    }
                    Err(LookError::Store(error)) => {
                        tracing::error!(error, "DAGs could not be stored; trying again");
                        true
                    }
                    Err(LookError::Environment(error)) => {
                        tracing::error!(%error, "DAG files cannot be read");
                        self.environment_fault(&error);
                        true
                    }
                };
                let pause = if failed || !told { Some(AGAIN) } else { None };
                if !wait(&hints, pause) {
                    return;
                }
            }
        })?;
        Ok(())
    }

    /// Says in the list of faults that nothing can be read at all.
    fn environment_fault(&self, error: &ParseError) {
        let problem = Problem {
            path: String::new(),
            message: error.to_string(),
            hint: Some(
                "`airflow.python` names the interpreter of an environment with Airflow".to_owned(),
            ),
            file: Some(self.bundle.path.clone()),
            line: None,
            column: None,
        };
        let write = keyed(kobza_api::fault_write(BUNDLE, "", &[problem], wall_now()), BUNDLE, None);
        // The next look tries again.
        let _unstored =
            self.handle.submit_blocking(Submission { commands: Vec::new(), writes: vec![write] });
    }

    /// Reads what changed. What is known changes only when that is durable.
    fn look(&mut self) -> Result<(), LookError> {
        let root = PathBuf::from(&self.bundle.path);
        let listed = self.parser.list(&root).map_err(LookError::Environment)?;
        let mut modules = BTreeMap::new();
        walk(&root, 0, &mut modules);
        let mut stamps = BTreeMap::new();
        for path in listed {
            if let Some(stamp) = modules.remove(&path).or_else(|| stamp_of(&path)) {
                stamps.insert(path, stamp);
            }
        }
        // A module that changed may be imported by any file.
        let all = modules != self.modules && !self.first;
        let stale: Vec<(PathBuf, Stamp)> = stamps
            .iter()
            .filter(|(path, stamp)| {
                all || self.files.get(*path).and_then(|known| known.stamp) != Some(**stamp)
            })
            .map(|(path, stamp)| (path.clone(), *stamp))
            .collect();
        let gone: Vec<PathBuf> =
            self.files.keys().filter(|path| !stamps.contains_key(*path)).cloned().collect();
        for path in gone {
            self.forget(&path)?;
        }
        if self.first {
            let write = unfault(BUNDLE);
            self.handle
                .submit_blocking(Submission { commands: Vec::new(), writes: vec![write] })?;
        }
        self.read(stale)?;
        // An asset that a DAG names may be described in a file that was read later.
        let named = |known: &Known| known.unnamed.iter().any(|n| self.assets.contains_key(n));
        let again = self.files.iter().filter(|(_, known)| named(known));
        let again: Vec<(PathBuf, Stamp)> =
            again.filter_map(|(path, known)| Some((path.clone(), known.stamp?))).collect();
        self.read(again)?;
        if self.first {
            self.forget_strangers()?;
        }
        (self.modules, self.first) = (modules, false);
        Ok(())
    }

    /// Reads files, a few at a time, and stores each as it comes.
    fn read(&mut self, stale: Vec<(PathBuf, Stamp)>) -> Result<(), LookError> {
        let work = Mutex::new(stale.into_iter());
        let (sender, results) = channel();
        let (parser, bundle) = (self.parser.clone(), self.bundle.clone());
        let limit = parser.settings().file_limit;
        std::thread::scope(|scope| {
            for _ in 0..READERS {
                let (sender, work, parser, bundle) = (sender.clone(), &work, &parser, &bundle);
                scope.spawn(move || {
                    loop {
                        let next = work.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((path, stamp)) = next else { return };
                        let result = parser.parse(&path, bundle, limit);
                        if sender.send((path, stamp, result)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for (path, stamp, result) in results {
                match result {
                    Ok(parsed) => self.apply(&path, stamp, parsed)?,
                    Err(ParseError::File { message, output }) => {
                        let rel = self.rel(&path);
                        let text = if output.is_empty() {
                            message.clone()
                        } else {
                            format!("{output}\n{message}")
                        };
                        let errors = BTreeMap::from([(rel, text)]);
                        let parsed = Parsed { import_errors: errors, ..Parsed::default() };
                        self.apply(&path, stamp, parsed)?;
                    }
                    Err(error) => return Err(LookError::Environment(error)),
                }
            }
            Ok(())
        })
    }

    fn rel(&self, path: &Path) -> String {
        path.strip_prefix(&self.bundle.path).unwrap_or(path).display().to_string()
    }

    fn apply(&mut self, path: &Path, stamp: Stamp, parsed: Parsed) -> Result<(), LookError> {
        let rel = self.rel(path);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let before = self.files.remove(path).unwrap_or_default();
        let mut fresh = Fresh::default();
        let mut dags = BTreeSet::new();
        let mut problems: Vec<(Problem, Option<String>)> = Vec::new();
        let mut unnamed = BTreeSet::new();
        for serialised in &parsed.dags {
            asset_names(serialised, &mut self.assets);
        }
        for (file, trace) in &parsed.import_errors {
            problems.push((problem_of(file, trace), Some(trace.clone())));
        }
        for serialised in &parsed.dags {
            let dag_id = serialised["dag"]["dag_id"].as_str().unwrap_or_default().to_owned();
            let wrong = |message: String, hint: Option<String>| Problem {
                path: String::new(),
                message,
                hint,
                file: Some(rel.clone()),
                line: None,
                column: None,
            };
            let owner = self.files.iter().find(|(_, known)| known.dags.contains(&dag_id));
            if let Some((other, _)) = owner {
                let message = format!("the DAG {dag_id:?} is in {} already", self.rel(other));
                problems
                    .push((wrong(message, Some("give one of them another id".to_owned())), None));
                continue;
            }
            match compile(serialised, &self.bundle, &self.weights(serialised), &self.assets) {
                Ok(compiled) => {
                    unnamed.extend(compiled.unnamed.iter().cloned());
                    for warning in &compiled.warnings {
                        tracing::warn!(dag = dag_id, "{warning}");
                    }
                    self.put(compiled, &dag_id, serialised, &text, &mut fresh)?;
                    dags.insert(dag_id);
                }
                Err(error) => problems.push((wrong(format!("{dag_id}: {error}"), None), None)),
            }
        }
        if problems.is_empty() {
            for removed in before.dags.difference(&dags) {
                fresh.submission.writes.push(self.delete(removed));
            }
        } else {
            // The last good version stays in force.
            dags.extend(before.dags.iter().cloned());
        }
        let faulty = !problems.is_empty();
        if let Some((first, trace)) = problems.first() {
            tracing::error!(file = rel, "{}", first.message);
            let write =
                kobza_api::fault_write(&rel, &text, std::slice::from_ref(first), wall_now());
            fresh.submission.writes.push(keyed(write, &rel, trace.as_deref()));
        } else {
            fresh.submission.writes.push(unfault(&rel));
        }
        self.handle.submit_blocking(fresh.submission)?;
        self.files.insert(path.to_owned(), Known { stamp: Some(stamp), dags, faulty, unnamed });
        // Before its triggers are known: none of them fires in between.
        for dag in fresh.paused {
            let told = self.triggers.set_workflow_paused(NAMESPACE, &dag, true);
            if let Err(error) = self.tokio.block_on(told) {
                tracing::error!(%error, dag, "its triggers are not paused");
            }
        }
        announce(&self.triggers, &self.tokio, fresh.stored);
        Ok(())
    }

    /// What weight rules of the user's own say. A DAG whose rules fail runs with the tasks' own weights.
    fn weights(&self, serialised: &Json) -> Weights {
        let tasks = own_weights(serialised);
        if tasks.is_empty() {
            return Weights::new();
        }
        self.parser.weights(serialised, &tasks).unwrap_or_else(|error| {
            let dag = serialised["dag"]["dag_id"].as_str().unwrap_or_default();
            tracing::warn!(dag, error, "weight rules were not answered");
            Weights::new()
        })
    }

    fn put(
        &self,
        compiled: Compiled,
        dag_id: &str,
        serialised: &Json,
        text: &str,
        fresh: &mut Fresh,
    ) -> Result<(), LookError> {
        let Compiled { mut workflow, limits, .. } = compiled;
        let most = self.parser.settings().max_map_length;
        if most != MAX_MAP_LENGTH {
            workflow.source["airflow"]["max_map_length"] = Json::from(most);
        }
        let version =
            workflow.content_hash().map_err(|e| LookError::Store(format!("{dag_id}: {e}")))?;
        let known = self
            .store
            .get_workflow(NAMESPACE, dag_id, None)
            .map_err(|e| LookError::Store(e.to_string()))?;
        self.guarded.set(NAMESPACE, dag_id, &workflow);
        fresh.submission.commands.extend(limits.into_iter().map(limit));
        let triggers = workflow.triggers.clone();
        fresh.submission.writes.push(Write::PutWorkflow {
            namespace: NAMESPACE.to_owned(),
            version,
            workflow: Arc::new(workflow),
            source: Some(text.to_owned()),
        });
        if known.is_none() {
            let paused = serialised["dag"]["is_paused_upon_creation"]
                .as_bool()
                .unwrap_or_else(|| self.parser.settings().paused_at_creation);
            fresh.submission.writes.push(Write::PauseWorkflow {
                namespace: NAMESPACE.to_owned(),
                name: dag_id.to_owned(),
                paused,
            });
            if paused {
                fresh.paused.push(dag_id.to_owned());
            }
        }
        tracing::info!(dag = dag_id, "loaded");
        fresh.stored.push(Stored { name: (NAMESPACE.to_owned(), dag_id.to_owned()), triggers });
        Ok(())
    }

    fn delete(&self, dag_id: &str) -> Write {
        tracing::info!(dag = dag_id, "no file has it any more");
        Write::DeleteWorkflow { namespace: NAMESPACE.to_owned(), name: dag_id.to_owned() }
    }

    /// A file that is gone takes its DAGs along; their history stays.
    fn forget(&mut self, path: &Path) -> Result<(), LookError> {
        let Some(known) = self.files.get(path) else { return Ok(()) };
        let mut writes: Vec<Write> = known.dags.iter().map(|dag| self.delete(dag)).collect();
        if known.faulty {
            writes.push(unfault(&self.rel(path)));
        }
        self.handle.submit_blocking(Submission { commands: Vec::new(), writes })?;
        self.files.remove(path);
        Ok(())
    }

    /// DAGs of this folder that an earlier server stored, and no file has.
    fn forget_strangers(&self) -> Result<(), LookError> {
        let filter =
            WorkflowFilter { dialect: Some("airflow".to_owned()), ..WorkflowFilter::default() };
        let mut cursor: Option<String> = None;
        let mut writes = Vec::new();
        loop {
            let page = self
                .store
                .list_workflows(&filter, cursor.as_deref(), 500)
                .map_err(|e| LookError::Store(e.to_string()))?;
            for found in page.items {
                let held = self.files.values().any(|known| known.dags.contains(&found.name));
                // A file that is broken now may have had it.
                let broken = self.files.iter().any(|(path, known)| {
                    known.faulty && self.is_of(&found.namespace, &found.name, &self.rel(path))
                });
                if found.namespace == NAMESPACE && !held && !broken {
                    writes.push(self.delete(&found.name));
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        if !writes.is_empty() {
            self.handle.submit_blocking(Submission { commands: Vec::new(), writes })?;
        }
        Ok(())
    }

    fn is_of(&self, namespace: &str, dag_id: &str, rel: &str) -> bool {
        let stored = self.store.get_workflow(namespace, dag_id, None);
        matches!(stored, Ok(Some(stored)) if stored.workflow.source["airflow"]["rel_path"] == rel)
    }
}

/// Python files and archives of a folder, with what tells whether they changed.
fn walk(folder: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Stamp>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let hidden = name.as_encoded_bytes().starts_with(b".") || name == "__pycache__";
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && !hidden && depth < DEPTH_MAX {
            walk(&path, depth + 1, found);
        } else if matches!(path.extension().and_then(|e| e.to_str()), Some("py" | "zip"))
            && let Some(stamp) = stamp_of(&path)
        {
            found.insert(path, stamp);
        }
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    std::fs::metadata(path).ok().map(|metadata| stamp(&metadata))
}
