//! `kobza check` and `kobza schema`.

use std::path::{Path, PathBuf};

use kobza_api::{Catalog as _, Definition, Problem};
use kobza_executor_python::ExportError;
use kobza_model::Json;

use crate::airflow_check;
use crate::cli::{CheckArgs, Output};
use crate::compose::Dialects;
use crate::config::Settings;
use crate::failure::Failure;

/// Endings of files that a folder is searched for.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads one file into a definition. Of a Python file with several workflows one must be named.
pub(crate) fn read(
    path: &Path,
    wanted: Option<&str>,
) -> Result<(Definition, String), Vec<Problem>> {
    let all = read_all(path)?;
    let names: Vec<String> = all.iter().map(|(d, _)| d.workflow.name.clone()).collect();
    let mut fitting = all.into_iter().filter(|(d, _)| wanted.is_none_or(|w| d.workflow.name == w));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        (found, _) => {
            let shown = path.display();
            let (message, hint) = if found.is_some() {
                let message = format!("{shown} has {} workflows", names.len());
                (message, format!("name one with --workflow: {}", names.join(", ")))
            } else {
                let message = format!("{shown} has no workflow {:?}", wanted.unwrap_or_default());
                (message, format!("it has {}", names.join(", ")))
            };
            Err(vec![Problem { message, hint: Some(hint), ..problem_of(path) }])
        }
    }
}

/// All definitions of a file: a Python file may hold several.
pub(crate) fn read_all(path: &Path) -> Result<Vec<(Definition, String)>, Vec<Problem>> {
    if path.extension().is_none_or(|e| e != "py") {
        return Ok(vec![read_document(path)?]);
    }
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for document in export(path)? {
        let text = document.to_string();
        match Dialects::default().parse(text.as_bytes(), &path.display().to_string()) {
            Ok(definition) => found.push((definition, text)),
            // Places in the document are none in the file.
            Err(all) => {
                problems.extend(all.into_iter().map(|p| Problem { line: None, column: None, ..p }))
            }
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

fn problem_of(path: &Path) -> Problem {
    Problem {
        path: String::new(),
        message: String::new(),
        hint: None,
        file: Some(path.display().to_string()),
        line: None,
        column: None,
    }
}

fn export(file: &Path) -> Result<Vec<Json>, Vec<Problem>> {
    let failed = |message: String| vec![Problem { message, ..problem_of(file) }];
    let cache = cache_folder();
    let packages = kobza_executor_python::sources::unpack(&cache)
        .map_err(|e| failed(format!("{}: {e}", cache.display())))?;
    let python = crate::compose::own_python();
    let builder =
        kobza_executor_python::Builder::new(cache.join("envs"), kobza_executor_python::find_uv());
    let mut progress = |line: &str| print(&failed(format!("environment: {line}")));
    kobza_executor_python::export(file, &packages, &builder, &python, &mut progress).map_err(
        |error| match error {
            ExportError::Problems(all) => all
                .into_iter()
                .map(|p| Problem {
                    message: p.message,
                    file: p.file.or_else(|| Some(file.display().to_string())),
                    line: p.line,
                    ..problem_of(file)
                })
                .collect(),
            other => failed(other.to_string()),
        },
    )
}

/// Where what can be made anew is kept.
fn cache_folder() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    match (named("XDG_CACHE_HOME"), named("HOME")) {
        (Some(cache), _) => cache.join("kobza"),
        (None, Some(home)) => home.join(".cache/kobza"),
        (None, None) => PathBuf::from(".kobza/cache"),
    }
}

fn read_document(path: &Path) -> Result<(Definition, String), Vec<Problem>> {
    let name = path.display().to_string();
    let text = kobza_dialect_native::read_file(path).map_err(|all| {
        all.into_iter()
            .map(|d| Problem {
                path: d.field,
                message: d.message,
                hint: d.hint,
                file: Some(d.file),
                line: Some(d.line),
                column: Some(d.column),
            })
            .collect::<Vec<_>>()
    })?;
    let definition = Dialects::default().parse(text.as_bytes(), &name)?;
    Ok((definition, text))
}

/// One problem as compilers print them, with its hint on a line of its own.
pub(crate) fn show(problem: &Problem) -> String {
    let mut text = String::new();
    if let Some(file) = &problem.file {
        text.push_str(&format!(
            "{file}:{}:{}: ",
            problem.line.unwrap_or(1),
            problem.column.unwrap_or(1)
        ));
    }
    if !problem.path.is_empty() {
        text.push_str(&format!("{}: ", problem.path));
    }
    text.push_str(&problem.message);
    if let Some(hint) = &problem.hint {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text
}

pub(crate) fn print(problems: &[Problem]) {
    for problem in problems {
        crate::out::tell!("{}", show(problem));
    }
}

/// Workflow files below a folder, in order of name.
pub(crate) fn files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let kind = entry.file_type()?;
            if hidden {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .and_then(|e| e.to_str())
                .is_some_and(|e| ENDINGS.contains(&e))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Checks DAG files of Airflow's among what is named. Answers whether all is well.
fn check_dags(
    args: &CheckArgs,
    python: Option<&str>,
    results: &mut Vec<Json>,
) -> Result<bool, Failure> {
    let mut good = true;
    let mut fail = |problem: Problem, results: &mut Vec<Json>| {
        good = false;
        if args.output == Output::Text {
            print(std::slice::from_ref(&problem));
        }
        let file = problem.file.clone();
        results.push(serde_json::json!({"file": file, "ok": false, "errors": [problem]}));
    };
    for path in &args.paths {
        let files = match path.is_dir() {
            true => airflow_check::dag_files(path)?,
            false if airflow_check::is_dag_file(path) => vec![path.clone()],
            false => continue,
        };
        if files.is_empty() {
            continue;
        }
        let Some(python) = python else {
            fail(airflow_check::no_python(&files), results);
            continue;
        };
        let own = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let (folder, only) = match path.is_dir() {
            true => (path.as_path(), None),
            false => (own.unwrap_or(Path::new(".")), Some(path.as_path())),
        };
        match airflow_check::check(folder, only, python, &cache_folder()) {
            Ok(all) => {
                all.into_iter().for_each(|checked| show_dags(args, checked, results, &mut fail))
            }
            Err(problem) => fail(problem, results),
        }
    }
    Ok(good)
}

fn show_dags(
    args: &CheckArgs,
    checked: airflow_check::Checked,
    results: &mut Vec<Json>,
    fail: &mut impl FnMut(Problem, &mut Vec<Json>),
) {
    let file = checked.file;
    for (dag_id, remarks) in checked.dags {
        if args.output == Output::Text {
            print(&remarks);
            let few = if remarks.is_empty() {
                "is good"
            } else {
                "runs, but not all of it is acted upon"
            };
            crate::out::show!("{}: {dag_id} {few}", file.display());
        }
        results.push(
            serde_json::json!({"file": file, "workflow": dag_id, "ok": true, "warnings": remarks}),
        );
    }
    for problem in checked.problems {
        fail(problem, results);
    }
}

/// The interpreter that is named, as it is named: the link of an environment is what makes it one.
fn airflow_python(args: &CheckArgs) -> Result<Option<String>, Failure> {
    let given = args.airflow_python.as_ref().map(|path| path.display().to_string());
    let given = given.map(|python| ("airflow.python", python));
    let settings = Settings::load(None, &given.into_iter().collect())?;
    let Some(python) = settings.path("airflow.python") else { return Ok(None) };
    let python = match python.components().count() {
        0 | 1 => python.to_owned(),
        _ => std::path::absolute(python)?,
    };
    Ok(Some(python.display().to_string()))
}

pub(crate) fn check(args: CheckArgs) -> Result<(), Failure> {
    let python = airflow_python(&args)?;
    let mut files = Vec::new();
    for path in &args.paths {
        if path.is_dir() {
            files.extend(files_in(path)?);
        } else if !airflow_check::is_dag_file(path) {
            files.push(path.clone());
        }
    }
    let mut results = Vec::new();
    let mut bad = !check_dags(&args, python.as_deref(), &mut results)?;
    let shelf = crate::argo::Shelf::of(&files);
    for file in &files {
        let argo = std::fs::read(file).ok().filter(|source| crate::argo::is_argo(source));
        if let Some(source) = argo {
            match crate::argo::check(&source, &file.display().to_string(), &shelf) {
                Ok(names) => {
                    for name in names {
                        if args.output == Output::Text {
                            crate::out::show!("{}: {name} is good", file.display());
                        }
                        results.push(serde_json::json!({"file": file, "workflow": name, "ok": true, "warnings": []}));
                    }
                }
                Err(problems) => {
                    bad = true;
                    if args.output == Output::Text {
                        print(&problems);
                    }
                    results
                        .push(serde_json::json!({"file": file, "ok": false, "errors": problems}));
                }
            }
            continue;
        }
        match read_all(file) {
            Ok(definitions) => {
                for (definition, _) in definitions {
                    if args.output == Output::Text {
                        print(&definition.warnings);
                        crate::out::show!(
                            "{}: {} is good",
                            file.display(),
                            definition.workflow.name
                        );
                    }
                    results.push(serde_json::json!({"file": file, "workflow": definition.workflow.name, "ok": true, "warnings": definition.warnings}));
                }
            }
            Err(problems) => {
                bad = true;
                if args.output == Output::Text {
                    print(&problems);
                }
                results.push(serde_json::json!({"file": file, "ok": false, "errors": problems}));
            }
        }
    }
    if args.output == Output::Json {
        crate::out::show!("{}", serde_json::to_string_pretty(&results)?);
    }
    if bad { Err(Failure::Input) } else { Ok(()) }
}

pub(crate) fn schema(what: crate::cli::Described) -> Result<(), Failure> {
    let schema = match what {
        crate::cli::Described::Workflow => kobza_dialect_native::json_schema(),
        crate::cli::Described::Openapi => kobza_api::openapi_document(),
    };
    crate::out::show!("{}", serde_json::to_string_pretty(&schema)?);
    Ok(())
}
