//! A DAG as `DagSerialization.to_dict` writes it (serializer version 3), typed.
//!
//! Fields whose value is the schema's default are left out there, and so are what the client's
//! settings change for all tasks (`client_defaults`): both are laid under each task here.

mod expand;
mod group;
mod operator;
mod plain;

use std::collections::BTreeMap;

use kobza_model::Json;
use serde::Deserialize;

pub use expand::{Argument, ExpandInput, XCom};
pub use group::{Child, TaskGroup};
pub use operator::Operator;
pub use plain::plain;

/// The serializer's version that this reader knows.
pub const SERIALIZER_VERSION: u64 = 3;

/// What is wrong with a serialised DAG: the field's path, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct DagError {
    pub field: String,
    pub message: String,
}

impl DagError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// A DAG.
#[derive(Clone, Debug)]
pub struct Dag {
    pub dag_id: String,
    pub description: Option<String>,
    pub tags: Vec<String>,
    /// As written: `{"__type": PATH, "__var": {...}}`.
    pub timetable: Json,
    pub catchup: bool,
    /// Seconds since the epoch.
    pub start_date: Option<f64>,
    pub end_date: Option<f64>,
    pub max_active_tasks: u32,
    pub max_active_runs: u32,
    /// 0: never paused for failures.
    pub max_consecutive_failed_dag_runs: u32,
    /// Seconds.
    pub dagrun_timeout: Option<f64>,
    pub fail_fast: bool,
    pub is_paused_upon_creation: Option<bool>,
    pub has_on_success_callback: bool,
    pub has_on_failure_callback: bool,
    /// Name, and `{default, description, schema}` with plain values.
    pub params: Vec<(String, Json)>,
    pub allowed_run_types: Option<Vec<String>>,
    pub relative_fileloc: String,
    pub tasks: Vec<Operator>,
    pub group: TaskGroup,
    /// Fields that this version does not know: kept in the source, not acted upon.
    pub unknown: Vec<String>,
}

#[derive(Deserialize)]
struct Raw {
    dag_id: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    timetable: Json,
    #[serde(default)]
    catchup: bool,
    #[serde(default)]
    start_date: Option<f64>,
    #[serde(default)]
    end_date: Option<f64>,
    #[serde(default = "sixteen")]
    max_active_tasks: u32,
    #[serde(default = "sixteen")]
    max_active_runs: u32,
    #[serde(default)]
    max_consecutive_failed_dag_runs: u32,
    #[serde(default)]
    dagrun_timeout: Option<f64>,
    #[serde(default)]
    fail_fast: bool,
    #[serde(default)]
    is_paused_upon_creation: Option<bool>,
    #[serde(default)]
    has_on_success_callback: bool,
    #[serde(default)]
    has_on_failure_callback: bool,
    #[serde(default)]
    params: Vec<(String, Json)>,
    #[serde(default)]
    allowed_run_types: Option<Vec<String>>,
    #[serde(default)]
    relative_fileloc: Option<String>,
}

/// Airflow's own default of `max_active_tasks_per_dag` and `max_active_runs_per_dag`.
fn sixteen() -> u32 {
    16
}

/// Every field of a DAG in the schema of version 3.
const KNOWN: &[&str] = &[
    "_concurrency",
    "_processor_dags_folder",
    "access_control",
    "allowed_run_types",
    "catchup",
    "dag_dependencies",
    "dag_display_name",
    "dag_id",
    "dagrun_timeout",
    "deadline",
    "default_args",
    "description",
    "disable_bundle_versioning",
    "doc_md",
    "edge_info",
    "end_date",
    "fail_fast",
    "fileloc",
    "has_on_failure_callback",
    "has_on_success_callback",
    "is_paused_upon_creation",
    "max_active_runs",
    "max_active_tasks",
    "max_consecutive_failed_dag_runs",
    "owner_links",
    "params",
    "relative_fileloc",
    "render_template_as_native_obj",
    "rerun_with_latest_version",
    "start_date",
    "tags",
    "task_group",
    "tasks",
    "timetable",
    "timezone",
];

impl Dag {
    /// Reads `{"__version": 3, "dag": {...}, "client_defaults": {...}}`.
    pub fn read(serialised: &Json) -> Result<Self, DagError> {
        let version = serialised["__version"].as_u64();
        if version != Some(SERIALIZER_VERSION) {
            let found = version.map_or("none".to_owned(), |v| v.to_string());
            return Err(DagError::new(
                "__version",
                format!("serializer version {found}; version {SERIALIZER_VERSION} is supported"),
            ));
        }
        let dag = &serialised["dag"];
        let Some(fields) = dag.as_object() else {
            return Err(DagError::new("dag", "it is no object"));
        };
        let raw = Raw::deserialize(dag).map_err(|e| DagError::new("dag", e.to_string()))?;
        let defaults = &serialised["client_defaults"]["tasks"];
        let mut tasks = Vec::new();
        for (place, task) in dag["tasks"].as_array().into_iter().flatten().enumerate() {
            tasks.push(Operator::read(task, defaults, place)?);
        }
        let group = match &dag["task_group"] {
            Json::Null => TaskGroup::flat(&tasks),
            group => TaskGroup::read(group, "dag.task_group")?,
        };
        let params = raw.params.iter().map(|(name, param)| (name.clone(), plain(param))).collect();
        Ok(Self {
            dag_id: raw.dag_id,
            description: raw.description,
            tags: raw.tags,
            timetable: raw.timetable,
            catchup: raw.catchup,
            start_date: raw.start_date,
            end_date: raw.end_date,
            max_active_tasks: raw.max_active_tasks,
            max_active_runs: raw.max_active_runs,
            max_consecutive_failed_dag_runs: raw.max_consecutive_failed_dag_runs,
            dagrun_timeout: raw.dagrun_timeout,
            fail_fast: raw.fail_fast,
            is_paused_upon_creation: raw.is_paused_upon_creation,
            has_on_success_callback: raw.has_on_success_callback,
            has_on_failure_callback: raw.has_on_failure_callback,
            params,
            allowed_run_types: raw.allowed_run_types,
            relative_fileloc: raw.relative_fileloc.unwrap_or_default(),
            tasks,
            group,
            unknown: fields.keys().filter(|f| !KNOWN.contains(&f.as_str())).cloned().collect(),
        })
    }

    /// Places of the tasks by their ids.
    #[must_use]
    pub fn places(&self) -> BTreeMap<&str, usize> {
        self.tasks.iter().enumerate().map(|(place, task)| (task.task_id.as_str(), place)).collect()
    }
}
