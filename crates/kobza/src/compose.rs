//! The composition root: store, executors, dialects and the loop, wired together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kobza_api::{Approval, Catalog, Decision, Definition, NotTaken, Problem, Rendered, Vault};
use kobza_blobs::{ArtifactStore, LogStore};
use kobza_dialect_native::{Diagnostic, LaunchToken, NativeDialect, Options};
use kobza_engine::EngineOptions;
use kobza_executor_inner::{CheckParams, WaitExecutor, WorkflowExecutor};
use kobza_executor_process::{ProcessExecutor, ProcessOptions};
use kobza_model::{Json, LimitRow, TaskNo, TemplateBody, Workflow};
use kobza_runtime::{
    Dialect, Executor, Facts, Handle, Runtime, RuntimeOptions, Submission, channel,
};
use kobza_store::{SqliteOptions, SqliteStore, Store, Views};

use crate::airflow_desk::{self, Reception, Waiters};
use crate::airflow_host::Ends;
use crate::failure::Failure;

/// A whole store.
pub(crate) trait Database: Store + Views {}

impl<T: Store + Views> Database for T {}

/// Everything of a running Kobza but its HTTP side.
pub(crate) struct Host {
    pub(crate) handle: Handle,
    pub(crate) store: Arc<dyn Database>,
    pub(crate) logs: LogStore,
    pub(crate) vault: Arc<Vault>,
    runtime: Runtime,
    /// What Airflow's tasks ask, and what wakes them.
    pub(crate) desk: Arc<kobza_dialect_airflow::desk::Desk>,
    _triggerer: kobza_dialect_airflow::triggerer::Triggerer,
    pub(crate) executor: Arc<ProcessExecutor>,
    /// Ends of the server's own processes among those of tasks.
    pub(crate) ends: Arc<Ends>,
}

/// What a host is made of.
pub(crate) struct HostOptions {
    pub(crate) data: PathBuf,
    pub(crate) slots: u32,
    /// Where relative paths of workflows count from.
    pub(crate) base_folder: Option<PathBuf>,
    pub(crate) api_url: Option<String>,
    /// What images of Argo's containers stand for.
    pub(crate) images: BTreeMap<String, kobza_dialect_argo::Image>,
    /// Whether variables, connections and secrets that the store has not are looked for in the
    /// environment, as `KOBZA_SECRET_<NAME>`: for runs of one's own, without a server.
    pub(crate) values_from_environment: bool,
}

/// The interpreter of what names none: that of the virtual environment in which this program is
/// installed, else the one in `PATH`.
pub(crate) fn own_python() -> String {
    let own = std::env::current_exe().ok().and_then(|exe| {
        let folder = exe.parent()?;
        let is_venv = folder.parent()?.join("pyvenv.cfg").is_file();
        let python = folder.join("python3");
        (is_venv && python.exists()).then(|| python.to_str().map(str::to_owned))?
    });
    own.unwrap_or_else(|| "python3".to_owned())
}

/// A value for tasks from this process's environment. Variables and connections may be JSON.
fn from_environment(kind: &str, name: &str) -> Option<Json> {
    if !matches!(kind, "variable" | "connection" | "secret") {
        return None;
    }
    let name = format!("KOBZA_{kind}_{name}").to_uppercase().replace(['-', '.', '/'], "_");
    let text = std::env::var(name).ok()?;
    if kind == "secret" {
        return Some(text.into());
    }
    Some(serde_json::from_str(&text).unwrap_or_else(|_| text.into()))
}

pub(crate) fn self_exe() -> Result<String, Failure> {
    let path = std::env::current_exe()?;
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("the path of this program is not UTF-8"))
}

pub(crate) fn log_store(data: &Path) -> LogStore {
    LogStore::new(data.join("logs"))
}

/// Where Python tasks keep what is large; the API shows it.
pub(crate) fn artifact_store(data: &Path) -> Result<Arc<ArtifactStore>, Failure> {
    let store = ArtifactStore::open(data.join("artifacts"));
    store.map(Arc::new).map_err(|e| Failure::new(e.to_string()))
}

pub(crate) fn open_folder(folder: &Path) -> Result<Arc<dyn Database>, Failure> {
    let store = SqliteStore::open(folder, SqliteOptions::default()).map_err(|e| {
        Failure::hint(
            e.to_string(),
            format!("the store is in {}; --data names another folder", folder.display()),
        )
    })?;
    Ok(Arc::new(store))
}

impl Host {
    /// For one run, on the store of a folder.
    pub(crate) fn start(store: Arc<dyn Database>, options: HostOptions) -> Result<Self, Failure> {
        let owner = format!("kobza, process {}", std::process::id());
        Self::start_on(store, owner, options)
    }

    pub(crate) fn start_on(
        store: Arc<dyn Database>,
        owner: String,
        options: HostOptions,
    ) -> Result<Self, Failure> {
        let exe = self_exe()?;
        let data = std::fs::canonicalize(&options.data)?;
        let logs = log_store(&data);
        let argo = crate::argo::dialect(exe.clone(), &data, options.images);
        let vault = Vault::open(&data).map_err(|e| Failure::new(e.to_string()))?;
        let vault = Arc::new(vault);
        let (lookup_vault, lookup_store) = (vault.clone(), store.clone());
        let past = Arc::new(kobza_dialect_airflow::dated::Dated::default());
        let own_values = options.values_from_environment;
        let (handle, inbox) = channel();
        let desk = airflow_desk::desk(&handle, &store, &vault, past.clone());
        let ends = Arc::new(Ends::default());
        let executor = ProcessExecutor::start(
            ProcessOptions {
                data_dir: data.clone(),
                shim_command: vec![exe.clone(), "shim".to_owned()],
                logs: logs.clone(),
            },
            Arc::new(Reception::new(handle.clone(), store.clone(), &desk, ends.clone())?),
        )?;
        let executor = Arc::new(executor);
        let mut executors: BTreeMap<&'static str, Arc<dyn Executor>> = BTreeMap::new();
        executors.insert("process", executor.clone());
        executors.insert(kobza_dialect_airflow::WAITERS, Arc::new(Waiters::start(handle.clone())?));
        executors.insert("wait", Arc::new(WaitExecutor::start(handle.clone(), store.clone())?));
        let check: Arc<CheckParams> = Arc::new(|workflow: &Workflow, given| {
            Dialects::default().params(workflow, given).map_err(|problems| {
                problems.iter().map(crate::check::show).collect::<Vec<_>>().join("; ")
            })
        });
        let calls = WorkflowExecutor::start(handle.clone(), store.clone(), store.clone(), check)?;
        executors.insert("workflow", Arc::new(calls));
        let native: Arc<dyn Dialect> = Arc::new(NativeDialect::new(Options {
            self_exe: exe,
            python: Some(own_python()),
            base_folder: options.base_folder,
            api_url: options.api_url,
            token: Some(LaunchToken(Arc::new({
                let vault = vault.clone();
                move |launch| vault.launch_token(launch)
            }))),
            warm_python: true,
        }));
        let runtime = Runtime::start(
            RuntimeOptions {
                engine: EngineOptions {
                    slots: options.slots,
                    // A steps template of Argo is two graphs deep, and may call a hundred more.
                    depth: 256,
                    ..EngineOptions::default()
                },
                owner,
                store: store.clone(),
                dialects: vec![
                    native,
                    Arc::new(kobza_dialect_airflow::AirflowDialect::default()),
                    Arc::new(kobza_dialect_luigi::LuigiDialect),
                    Arc::new(argo),
                ],
                lookup: Some(Arc::new(move |kind, namespace, name| {
                    if kind == kobza_dialect_airflow::PAST {
                        return past.lookup(lookup_store.as_ref(), namespace, name);
                    }
                    let store: &dyn Store = lookup_store.as_ref();
                    let found = lookup_vault.lookup(store, kind, namespace, name);
                    found.or_else(|| from_environment(kind, name).filter(|_| own_values))
                })),
            },
            &handle,
            inbox,
            executors,
        )?;
        let triggerer = airflow_desk::triggerer(desk.clone(), &data)?;
        Ok(Self {
            handle,
            store,
            logs,
            vault,
            runtime,
            desk,
            _triggerer: triggerer,
            executor,
            ends,
        })
    }

    /// Whether the loop has ended by itself: it lost its store.
    pub(crate) fn has_ended(&self) -> bool {
        self.runtime.is_finished()
    }

    /// Ends the loop after what it has in hand. Tasks that run go on in their shim.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        self.handle.stop();
        Ok(self.runtime.join()?)
    }
}

fn problem(diagnostic: Diagnostic) -> Problem {
    Problem {
        path: diagnostic.field,
        message: diagnostic.message,
        hint: diagnostic.hint,
        file: Some(diagnostic.file),
        line: Some(diagnostic.line),
        column: Some(diagnostic.column),
    }
}

/// Readers of definitions, by dialect.
#[derive(Clone, Default)]
pub(crate) struct Dialects {
    /// Who knows Airflow's timetables of the user's own.
    pub(crate) timetables: Option<Arc<dyn kobza_dialect_airflow::schedule::CustomTimetables>>,
}

impl Catalog for Dialects {
    fn parse(&self, source: &[u8], file: &str) -> Result<Definition, Vec<Problem>> {
        if crate::argo::is_argo(source) {
            return crate::argo::definition(source, file, &crate::argo::Shelf::default());
        }
        let parsed = kobza_dialect_native::parse(source, file)
            .map_err(|all| all.into_iter().map(problem).collect::<Vec<_>>())?;
        kobza_triggers::parse_triggers(&parsed.workflow.triggers).map_err(|errors| {
            errors
                .into_iter()
                .map(|error| {
                    let (path, place) =
                        kobza_dialect_native::trigger_place(source, file, &error.field);
                    Problem {
                        path,
                        message: error.message,
                        hint: error.hint,
                        file: Some(file.to_owned()),
                        line: place.map(|(line, _)| line),
                        column: place.map(|(_, column)| column),
                    }
                })
                .collect::<Vec<_>>()
        })?;
        Ok(Definition {
            workflow: parsed.workflow,
            namespace: parsed.namespace,
            limits: parsed
                .pools
                .into_iter()
                .map(|p| LimitRow {
                    name: p.name,
                    capacity: p.capacity,
                    strict: p.strict,
                    description: p.description,
                })
                .collect(),
            warnings: parsed.warnings.into_iter().map(problem).collect(),
        })
    }

    fn rendered(&self, facts: &dyn Facts, task: TaskNo) -> Result<Option<Rendered>, String> {
        match facts.workflow().dialect.as_str() {
            kobza_dialect_native::DIALECT => {
                let seen = kobza_dialect_native::rendered(facts, task)?;
                Ok(seen.map(|r| Rendered { language: r.language, text: r.text, inputs: r.inputs }))
            }
            "airflow" => {
                let seen = kobza_dialect_airflow::shown::rendered(facts, task);
                Ok(seen.map(|(language, text, inputs)| Rendered { language, text, inputs }))
            }
            _ => Ok(None),
        }
    }

    fn approval(&self, facts: &dyn Facts, task: TaskNo) -> Option<Approval> {
        if facts.workflow().dialect == "airflow" {
            return crate::airflow_people::approval(facts, task);
        }
        let row = facts.task(task)?;
        let template = facts.workflow().templates.get(row.template.index())?;
        let TemplateBody::Leaf(leaf) = &template.body else { return None };
        let asked = leaf.spec.pointer("/body/suspend")?;
        let names = asked["approvers"].as_array().into_iter().flatten();
        Some(Approval {
            prompt: asked["message"].as_str().map(str::to_owned),
            fields: asked["inputs"].clone(),
            approvers: names.filter_map(Json::as_str).map(str::to_owned).collect(),
        })
    }

    fn decide(
        &self,
        facts: &dyn Facts,
        task: TaskNo,
        decision: Decision,
    ) -> Result<Submission, NotTaken> {
        match facts.workflow().dialect.as_str() {
            "airflow" => crate::airflow_people::decide(facts, task, decision),
            _ => kobza_api::decide(facts, task, decision),
        }
    }

    fn complete(&self, start: &mut kobza_engine::StartRun, now: kobza_model::Timestamp) {
        if start.workflow.dialect == "airflow" {
            kobza_dialect_airflow::manual::complete(start, now, self.timetables.as_deref());
        }
    }

    fn params(&self, workflow: &Workflow, given: Json) -> Result<Json, Vec<Problem>> {
        if workflow.dialect == "airflow" {
            return kobza_dialect_airflow::conf(workflow, given).map_err(|problems| {
                problems
                    .into_iter()
                    .map(|(path, message)| Problem {
                        path,
                        message,
                        hint: None,
                        file: None,
                        line: None,
                        column: None,
                    })
                    .collect()
            });
        }
        let given = match workflow.dialect.as_str() {
            "argo" => crate::argo::params(workflow, given),
            _ => given,
        };
        kobza_dialect_native::validate_params(workflow, given).map_err(|errors| {
            errors
                .into_iter()
                .map(|e| Problem {
                    path: e.field,
                    message: e.message,
                    hint: e.hint,
                    file: None,
                    line: None,
                    column: None,
                })
                .collect()
        })
    }
}
