//! Runs one leaf: a private view of the file system, its inputs, its command, its outputs.
//!
//! The process executor starts this as `kobza exec argo` with an [`ExecSpec`] on standard input. What
//! the leaf put out goes to the file `$KOBZA_OUTPUT` as JSON. The exit code is the command's; 64 is
//! a failure of the runner itself (an input that cannot be loaded, an output that is missing).

mod archive;
mod artifacts;
mod command;
mod engine;
mod http;
mod looks;
mod places;
mod view;
mod web;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use kobza_model::Json;
use serde_json::Map;

use crate::launch::ExecSpec;
use command::Keep;
use view::View;

pub use archive::{ArchiveError, LIMITS, Limits, unpack_any};
pub(crate) use places::Places;

/// Exit code of a failure that is not the command's.
pub const EXIT_RUNNER: i32 = 64;

/// How a leaf ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    pub exit_code: i32,
    /// Why, when it is not the command's own exit code.
    pub message: Option<String>,
    /// `result`, `parameters`, `artifacts`, `containers`: as other nodes refer to them.
    pub outputs: Map<String, Json>,
}

impl Report {
    fn failed(message: impl Into<String>) -> Self {
        Self { exit_code: EXIT_RUNNER, message: Some(message.into()), outputs: Map::new() }
    }
}

/// The hidden subcommand. Answers the exit code.
#[must_use]
pub fn argo_exec_main() -> i32 {
    let mut text = String::new();
    let spec: Result<ExecSpec, String> = match std::io::stdin().read_to_string(&mut text) {
        Ok(_) => serde_json::from_str(&text).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let spec = match spec {
        Ok(spec) => spec,
        Err(error) => {
            complain(&format!("the task's description cannot be read: {error}"));
            return EXIT_RUNNER;
        }
    };
    let folder = std::env::var_os("KOBZA_FOLDER")
        .map_or_else(|| PathBuf::from("."), PathBuf::from)
        .join(".argo");
    let report = run(&spec, &folder);
    if let Some(message) = &report.message {
        // The executor shows the last line as the reason of a failure: exactly Argo's text.
        say(message);
    }
    if let Some(path) = std::env::var_os("KOBZA_OUTPUT") {
        let mut outputs = report.outputs.clone();
        if let Some(message) = &report.message {
            outputs.insert("message".to_owned(), Json::from(message.as_str()));
        }
        let written = std::fs::write(&path, Json::Object(outputs).to_string());
        if let Err(error) = written {
            complain(&format!("outputs cannot be written: {error}"));
            return EXIT_RUNNER;
        }
    }
    report.exit_code
}

fn complain(message: &str) {
    say(&format!("kobza: {message}"));
}

#[expect(clippy::print_stderr, reason = "the task's log is where its reader looks")]
fn say(message: &str) {
    eprintln!("{message}");
}

/// Runs a leaf in a folder of its own, which is made and may be left behind.
///
/// Where the process may mount, the calling thread gets a mount namespace of its own and keeps it:
/// call this from a thread that ends afterwards.
#[must_use]
pub fn run(spec: &ExecSpec, folder: &Path) -> Report {
    match spec.body.as_str() {
        "http" => return http::run(spec),
        "data" => return artifacts::data(spec),
        _ => {}
    }
    let view = match View::new(spec, folder) {
        Ok(view) => view,
        Err(error) => return Report::failed(error),
    };
    run_in(spec, &view).unwrap_or_else(Report::failed)
}

fn run_in(spec: &ExecSpec, view: &View) -> Result<Report, String> {
    let template = &spec.template;
    for declared in template["inputs"]["artifacts"].as_array().into_iter().flatten() {
        artifacts::load(spec, view, declared)?;
    }
    for list in ["parameters", "artifacts"] {
        for declared in template["outputs"][list].as_array().into_iter().flatten() {
            let path = declared["path"].as_str().or(declared["valueFrom"]["path"].as_str());
            if let Some(path) = path {
                view.prepare_parent(path)?;
            }
        }
    }
    for container in template["initContainers"].as_array().into_iter().flatten() {
        let ended = command::run(spec, view, container, None, Keep::Nothing)?;
        if ended.code != 0 {
            let name = container["name"].as_str().unwrap_or("init");
            return Ok(Report {
                exit_code: ended.code,
                message: Some(format!("{name}: Error (exit code {})", ended.code)),
                outputs: Map::new(),
            });
        }
    }
    let mut sidecars = Vec::new();
    for container in template["sidecars"].as_array().into_iter().flatten() {
        sidecars.push(command::start(spec, view, container, None)?);
    }
    let mut outputs = Map::new();
    let ended = match spec.body.as_str() {
        "containerSet" => command::run_set(spec, view, &mut outputs)?,
        "script" => {
            let script = &template["script"];
            let source = script["source"].as_str().unwrap_or_default();
            let file = if source.is_empty() { None } else { Some(view.stage_script(source)?) };
            command::run(spec, view, script, file.as_deref(), Keep::of(spec))?
        }
        _ => command::run(spec, view, &template["container"], None, Keep::of(spec))?,
    };
    command::stop(sidecars);
    if let Some(result) = &ended.result {
        outputs.insert("result".to_owned(), Json::from(result.as_str()));
    }
    let logs = keep_logs(spec, view);
    let saved = save(spec, view, &mut outputs, logs, ended.code == 0);
    let (code, message) = match (ended.code, saved) {
        (0, Err(error)) => (EXIT_RUNNER, Some(error)),
        (code, _) => (code, ended.message),
    };
    Ok(Report { exit_code: code, message, outputs })
}

/// The logs that are to be artifacts. One that cannot be kept is no failure of the task's.
fn keep_logs(spec: &ExecSpec, view: &View) -> Map<String, Json> {
    let mut kept = Map::new();
    for (container, log) in view.logs() {
        match artifacts::save_log(spec, &container, &log) {
            Ok(value) => {
                kept.insert(format!("{container}-logs"), value);
            }
            Err(error) => complain(&error),
        }
    }
    kept
}

/// Collects outputs. Of a command that failed only what is there.
fn save(
    spec: &ExecSpec,
    view: &View,
    outputs: &mut Map<String, Json>,
    logs: Map<String, Json>,
    must: bool,
) -> Result<(), String> {
    let declared = &spec.template["outputs"];
    let mut parameters = Map::new();
    for parameter in declared["parameters"].as_array().into_iter().flatten() {
        let Some(name) = parameter["name"].as_str() else { continue };
        let from = &parameter["valueFrom"];
        let value = if let Some(path) = from["path"].as_str() {
            match view.read_text(path) {
                Ok(text) => Some(trim_newline(text)),
                Err(error) => match from["default"].as_str() {
                    Some(default) => Some(default.to_owned()),
                    None if must => {
                        return Err(format!(
                            "outputs.parameters.{name}: cannot read {path}: {error}"
                        ));
                    }
                    None => None,
                },
            }
        } else {
            parameter["value"].as_str().or(from["default"].as_str()).map(str::to_owned)
        };
        if let Some(value) = value {
            parameters.insert(name.to_owned(), Json::from(value));
        }
    }
    if !parameters.is_empty() {
        outputs.insert("parameters".to_owned(), Json::Object(parameters));
    }
    let mut saved = logs;
    let mut shown = Map::new();
    for artifact in declared["artifacts"].as_array().into_iter().flatten() {
        match artifacts::save(spec, view, artifact) {
            Ok(Some((name, value))) => {
                if let Some(folder) = &spec.looks
                    && let Some(reference) = looks::keep(folder, view, artifact)
                {
                    shown.insert(name.clone(), reference);
                }
                saved.insert(name, value);
            }
            Ok(None) => {}
            Err(error) if must => return Err(error),
            Err(_) => {}
        }
    }
    if !saved.is_empty() {
        outputs.insert("artifacts".to_owned(), Json::Object(saved));
    }
    if !shown.is_empty() {
        outputs.insert(looks::OUTPUT.to_owned(), Json::Object(shown));
    }
    Ok(())
}

/// Without one newline at the end.
fn trim_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}
