//! What a Python task is to the pool.

use std::path::{Path, PathBuf};

use kobza_executor_process::WarmBody;
use kobza_model::Json;
use kobza_runtime::LaunchSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

/// How the process of a task comes to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A fresh copy of the warm parent.
    #[default]
    Fork,
    /// A fresh interpreter, for code that starts threads when it is imported.
    Spawn,
    /// A process that runs many tasks, one after another: for pure functions.
    Reuse,
}

/// The field `python` of [`LaunchSpec::extra`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PythonTask {
    /// `module:qualname`, or `qualname` in `file`.
    pub function: String,
    pub file: Option<String>,
    /// Folders for the front of the module search path.
    pub path: Vec<String>,
    /// Program; `python3` when neither this nor `venv` is given.
    pub interpreter: Option<String>,
    /// Folder of a virtual environment.
    pub venv: Option<String>,
    /// Program when nothing else names one.
    pub fallback: Option<String>,
    /// The function judges something: it fails when it returns false.
    pub check: bool,
    /// What a parent must have loaded, for an adapter that has a `load` of its own; else the
    /// function's file or module.
    pub load: Json,
    /// What must be installed: a file's path, or requirements.
    pub requirements: Option<Listed>,
    pub mode: Mode,
    /// Arguments: an object or a list.
    pub args: Json,
    /// What the task may know of its run.
    pub context: Json,
    /// The package that makes calls for the system whose task this is: see `kobza_worker`.
    pub adapter: Option<String>,
}

/// Requirements as written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Listed {
    /// A `requirements.txt` or `pyproject.toml`.
    File(String),
    Packages(Vec<String>),
}

/// A task that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    #[error("the Python task is not of the form expected: {0}")]
    Form(String),
    #[error("the Python task names no function")]
    NoFunction,
    #[error("{0:?} is no path, since it contains a zero byte")]
    Path(String),
    #[error("{0:?} is no adapter")]
    Adapter(String),
    #[error("the arguments of a Python task are an object or a list, not {0}")]
    Arguments(&'static str),
}

impl PythonTask {
    /// The Python task in a launch, if it is one.
    pub fn of(spec: &LaunchSpec) -> Option<Result<Self, TaskError>> {
        let python = spec.extra.get("python")?;
        Some(Self::parse(python))
    }

    fn parse(python: &Json) -> Result<Self, TaskError> {
        let task = Self::deserialize(python).map_err(|e| TaskError::Form(e.to_string()))?;
        if task.function.is_empty() {
            return Err(TaskError::NoFunction);
        }
        // It becomes a path.
        let name = task.adapter();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(TaskError::Adapter(name.chars().take(80).collect()));
        }
        let paths = task.path.iter().chain(&task.file).chain(&task.interpreter).chain(&task.venv);
        if let Some(bad) = paths.into_iter().find(|p| p.contains('\0')) {
            return Err(TaskError::Path(bad.chars().take(80).collect()));
        }
        match &task.args {
            Json::Null | Json::Array(_) | Json::Object(_) => Ok(task),
            Json::String(_) => Err(TaskError::Arguments("text")),
            Json::Bool(_) | Json::Number(_) => Err(TaskError::Arguments("a single value")),
        }
    }

    pub(crate) fn adapter(&self) -> &str {
        self.adapter.as_deref().unwrap_or("kobza")
    }

    /// The interpreter as the task names it.
    #[must_use]
    pub fn interpreter(&self) -> PathBuf {
        match (&self.interpreter, &self.venv) {
            (Some(interpreter), _) => interpreter.into(),
            (None, Some(venv)) => Path::new(venv).join("bin/python"),
            (None, None) => self.fallback.as_deref().unwrap_or("python3").into(),
        }
    }

    /// What a parent must import to have this function.
    pub(crate) fn load(&self) -> Json {
        if !self.load.is_null() {
            return self.load.clone();
        }
        match &self.file {
            Some(file) => json!({"file": file}),
            None => {
                let module = match self.function.split_once(':') {
                    Some((module, _)) => module,
                    None => self.function.rsplit_once('.').map_or("", |(module, _)| module),
                };
                json!({"module": module})
            }
        }
    }

    /// What a parent must have loaded that parents of this task's kind are forked from: the
    /// field `load` without what is only this task's, if an adapter says so by the field `base`.
    pub(crate) fn base(&self) -> Option<Json> {
        self.load.get("base").cloned()
    }

    /// The description for the worker. `environment` comes on top of the parent's.
    pub(crate) fn describe(&self, body: &WarmBody) -> Json {
        let spec = &body.spec;
        let mut task = Map::new();
        let mut put = |name: &str, value: Json| {
            if !value.is_null() {
                task.insert(name.to_owned(), value);
            }
        };
        put("function", json!(self.function));
        put("file", json!(self.file));
        if !self.path.is_empty() {
            put("path", json!(self.path));
        }
        put("runner", json!(format!("{}.runner:run", self.adapter())));
        put("args", self.args.clone());
        put("context", self.context.clone());
        let environment: Map<String, Json> = body
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), Json::from(value.as_str())))
            .collect();
        put("env", Json::Object(environment));
        if spec.clear_env {
            put("clear_env", json!(true));
        }
        put("folder", json!(body.folder));
        put("umask", json!(spec.umask));
        if spec.memory_bytes.is_some() || spec.cpu_seconds.is_some() {
            let limits =
                json!({"memory_bytes": spec.memory_bytes, "cpu_seconds": spec.cpu_seconds});
            put("limits", limits);
        }
        if self.check {
            put("check", json!(true));
        }
        put("output", json!(body.output));
        put("output_bytes", json!(spec.output_bytes));
        Json::Object(task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(python: Json) -> Result<PythonTask, TaskError> {
        let spec = LaunchSpec { extra: json!({ "python": python }), ..LaunchSpec::default() };
        PythonTask::of(&spec).unwrap()
    }

    #[test]
    fn tasks_are_parsed_and_checked() {
        assert!(PythonTask::of(&LaunchSpec::default()).is_none());
        let task = parse(json!({"function": "etl:load", "mode": "reuse", "args": [1]})).unwrap();
        assert_eq!((task.mode, task.load()), (Mode::Reuse, json!({"module": "etl"})));
        assert_eq!(task.interpreter(), PathBuf::from("python3"));
        let task = parse(json!({"function": "a.b.c", "venv": "/v"})).unwrap();
        assert_eq!(task.load(), json!({"module": "a.b"}));
        assert_eq!(task.interpreter(), PathBuf::from("/v/bin/python"));
        let task = parse(json!({"function": "f", "file": "/x.py"})).unwrap();
        assert_eq!(task.load(), json!({"file": "/x.py"}));
        for bad in [
            json!({}),
            json!({"function": ""}),
            json!({"function": 3}),
            json!({"function": "f", "mode": "thread"}),
            json!({"function": "f", "file": "a\0b"}),
            json!({"function": "f", "args": "x"}),
            json!({"function": "f", "adapter": "../x"}),
            json!([]),
        ] {
            assert!(parse(bad.clone()).is_err(), "{bad}");
        }
    }
}
