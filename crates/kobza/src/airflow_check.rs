//! `kobza check` on DAG files: read by Airflow's own parser, in the environment that is named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kobza_api::Problem;
use kobza_dialect_airflow::parser::{ParseError, ParseHost};
use kobza_dialect_airflow::remarks::remarks;
use kobza_dialect_airflow::{
    AssetNames, Bundle, Place, Weights, asset_names, compile, environment, own_weights,
};
use kobza_model::Json;
use serde_json::json;

use crate::airflow_faults::problem_of;
use crate::airflow_setup::BUNDLE;

/// For one file, as the server has it.
const FILE_LIMIT: Duration = Duration::from_secs(50);

/// What was found in a file.
pub(crate) struct Checked {
    pub(crate) file: PathBuf,
    /// DAGs with what of each is not acted upon.
    pub(crate) dags: Vec<(String, Vec<Problem>)>,
    pub(crate) problems: Vec<Problem>,
}

/// Whether a Python file is a DAG file: it imports Airflow.
pub(crate) fn is_dag_file(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "py")
        && std::fs::read_to_string(path).is_ok_and(|text| {
            text.lines().any(|line| {
                let line = line.trim_start();
                let rest = line
                    .strip_prefix("from airflow")
                    .or_else(|| line.strip_prefix("import airflow"));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ' ', ',']))
            })
        })
}

/// DAG files below a folder, as far as can be told without Airflow.
pub(crate) fn dag_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") || name == "__pycache__" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if is_dag_file(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Says what is missing to read DAG files.
pub(crate) fn no_python(files: &[PathBuf]) -> Problem {
    let first = files.first().map(|file| file.display().to_string()).unwrap_or_default();
    let message = match files.len() {
        1 => "this is a DAG file of Airflow's, which only Airflow can read".to_owned(),
        n => format!("this is one of {n} DAG files of Airflow's, which only Airflow can read"),
    };
    Problem {
        path: String::new(),
        message,
        hint: Some(
            "name the interpreter of the environment with Airflow: --airflow-python \
             venv/bin/python, or `airflow.python` in kobza.toml"
                .to_owned(),
        ),
        file: Some(first),
        line: None,
        column: None,
    }
}

/// Reads DAG files below a folder: those that Airflow finds there, or the one that is named.
pub(crate) fn check(
    folder: &Path,
    only: Option<&Path>,
    python: &str,
    cache: &Path,
) -> Result<Vec<Checked>, Problem> {
    let place = |message: String, hint: Option<String>| Problem {
        path: String::new(),
        message,
        hint,
        file: Some(folder.display().to_string()),
        line: None,
        column: None,
    };
    let folder_found =
        std::fs::canonicalize(folder).map_err(|error| place(error.to_string(), None))?;
    let path = folder_found
        .to_str()
        .ok_or_else(|| place("the folder's name is not UTF-8".to_owned(), None))?;
    let packages = kobza_executor_python::sources::unpack(cache)
        .map_err(|error| place(format!("{}: {error}", cache.display()), None))?;
    let bundle = Bundle {
        name: BUNDLE.to_owned(),
        path: path.to_owned(),
        python: python.to_owned(),
        version: None,
    };
    let own = Place {
        name: bundle.name.clone(),
        path: bundle.path.clone(),
        python: python.to_owned(),
        version: None,
    };
    let environment =
        environment(&own).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let parser = ParseHost::new(python.to_owned(), packages, environment, Arc::new(unknown));
    let broken = |error: ParseError| {
        let hint = "--airflow-python names the interpreter of an environment with Airflow 3.3";
        place(error.to_string(), Some(hint.to_owned()))
    };
    let files = match only {
        Some(file) => {
            // So that a wrong environment is told as one.
            parser.check().map_err(broken)?;
            vec![std::fs::canonicalize(file).map_err(|error| place(error.to_string(), None))?]
        }
        None => parser.list(&folder_found).map_err(broken)?,
    };
    let mut parsed = Vec::new();
    let mut names = AssetNames::new();
    for file in files {
        let result = parser.parse(&file, &bundle, FILE_LIMIT);
        if let Ok(found) = &result {
            found.dags.iter().for_each(|dag| asset_names(dag, &mut names));
        }
        parsed.push((file, result));
    }
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut all = Vec::new();
    for (file, result) in parsed {
        let rel = file.strip_prefix(&folder_found).unwrap_or(&file);
        let shown = folder.join(rel);
        let name = shown.display().to_string();
        let fault = |message: String, path: String, hint: Option<String>| Problem {
            path,
            message,
            hint,
            file: Some(name.clone()),
            line: None,
            column: None,
        };
        let mut checked = Checked { file: shown.clone(), dags: Vec::new(), problems: Vec::new() };
        let found = match result {
            Ok(found) => found,
            Err(ParseError::File { message, output }) => {
                let last = output.lines().rev().find(|line| !line.trim().is_empty());
                let last = last.map(|line| format!(": {}", line.trim())).unwrap_or_default();
                checked.problems.push(fault(format!("{message}{last}"), String::new(), None));
                all.push(checked);
                continue;
            }
            Err(error) => return Err(broken(error)),
        };
        for (of, trace) in &found.import_errors {
            let mut problem = problem_of(of, trace);
            problem.file = Some(name.clone());
            problem.hint = hint_of(&problem.message);
            checked.problems.push(problem);
        }
        for serialised in &found.dags {
            let dag_id = serialised["dag"]["dag_id"].as_str().unwrap_or_default().to_owned();
            if let Some(other) = seen.get(&dag_id) {
                let message = format!("the DAG {dag_id:?} is in {} already", other.display());
                let hint = "give one of them another id".to_owned();
                checked.problems.push(fault(message, String::new(), Some(hint)));
                continue;
            }
            let weights = weights(&parser, serialised);
            match compile(serialised, &bundle, &weights, &names) {
                Ok(compiled) => {
                    let remarks = remarks(serialised, &compiled).into_iter();
                    let remarks = remarks.map(|r| fault(r.message, r.field, r.hint)).collect();
                    seen.insert(dag_id.clone(), shown.clone());
                    checked.dags.push((dag_id, remarks));
                }
                Err(error) => {
                    let message = format!("{dag_id}: {}", error.message);
                    let hint = "Kobza cannot run this DAG as it is".to_owned();
                    checked.problems.push(fault(message, error.field, Some(hint)));
                }
            }
        }
        for warning in &found.warnings {
            if let Some(text) = warning["message"].as_str().or_else(|| warning.as_str())
                && let Some((_, remarks)) = checked.dags.first_mut()
            {
                remarks.push(fault(text.to_owned(), String::new(), None));
            }
        }
        all.push(checked);
    }
    Ok(all)
}

fn weights(parser: &ParseHost, serialised: &Json) -> Weights {
    let tasks = own_weights(serialised);
    if tasks.is_empty() {
        return Weights::new();
    }
    // That it was not answered is a remark of the compiler's.
    parser.weights(serialised, &tasks).unwrap_or_default()
}

/// There is no server that knows variables and the like.
fn unknown(request: &Json) -> Json {
    let (error, detail) = match request["type"].as_str() {
        Some("GetVariable") => ("VARIABLE_NOT_FOUND", json!({"key": request["key"]})),
        Some("GetConnection") => ("CONNECTION_NOT_FOUND", json!({"conn_id": request["conn_id"]})),
        _ => {
            ("API_SERVER_ERROR", json!({"status_code": 400, "message": "not while it is checked"}))
        }
    };
    json!({"type": "ErrorResponse", "error": error, "detail": detail})
}

/// What to do about an exception of a DAG file.
fn hint_of(message: &str) -> Option<String> {
    let hint = if message.contains("VARIABLE_NOT_FOUND") || message.contains("Variable ") {
        "it reads a variable while it is loaded: for a check, set AIRFLOW_VAR_<NAME>; better, read it \
         in a task"
    } else if message.contains("CONNECTION_NOT_FOUND") {
        "it reads a connection while it is loaded: for a check, set AIRFLOW_CONN_<NAME>; better, read \
         it in a task"
    } else if message.starts_with("ModuleNotFoundError") {
        "install it in the environment of --airflow-python"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dag_files_are_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        assert!(is_dag_file(&write("a.py", "x = 1\nfrom airflow.sdk import DAG\n")));
        assert!(is_dag_file(&write("b.py", "import airflow\n")));
        assert!(!is_dag_file(&write("c.py", "import airflow_like\n# from airflow\n")));
        assert!(!is_dag_file(&write("d.yaml", "from airflow import x\n")));
        assert_eq!(dag_files(folder.path()).unwrap().len(), 2);
    }
}
