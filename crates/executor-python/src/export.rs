//! Workflows written in Python, as native documents: `python kobza_worker export FILE`.

use std::path::Path;
use std::process::{Command, Stdio};

use kobza_model::Json;
use serde::Deserialize;

use crate::environment::{BuildError, Builder};
use crate::requirements::Requirements;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Problem {
    pub message: String,
    pub file: Option<String>,
    pub line: Option<u32>,
    #[serde(default)]
    pub traceback: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Environment(#[from] BuildError),
    #[error("the Python interpreter {program:?} could not be started: {reason}")]
    Interpreter { program: String, reason: String },
    #[error(
        "{file} could not be read as a workflow: its process ended without an answer ({status})"
    )]
    NoAnswer { file: String, status: String },
    #[error("{} problems in the file", .0.len())]
    Problems(Vec<Problem>),
}

/// The native documents of a Python file. Runs the file in its own environment (inline script
/// metadata is honoured) and waits for it; what it prints goes to the standard error.
pub fn export(
    file: &Path,
    packages: &Path,
    builder: &Builder,
    interpreter: &str,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Json>, ExportError> {
    let program = match Requirements::of(None, Some(file), None)? {
        Some(requirements) => builder.build(&requirements, progress)?,
        None => interpreter.into(),
    };
    let shown = program.to_string_lossy().into_owned();
    let output = Command::new(&program)
        .arg(packages.join("kobza_worker"))
        .arg("export")
        .arg(file)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| ExportError::Interpreter { program: shown, reason: e.to_string() })?;
    let answer = serde_json::from_slice(&output.stdout).map_err(|_| ExportError::NoAnswer {
        file: file.display().to_string(),
        status: output.status.to_string(),
    })?;
    match answer {
        Json::Array(documents) => Ok(documents),
        other => {
            let errors = other.get("errors").cloned().unwrap_or(Json::Null);
            match Vec::<Problem>::deserialize(errors) {
                Ok(problems) if !problems.is_empty() => Err(ExportError::Problems(problems)),
                _ => Err(ExportError::NoAnswer {
                    file: file.display().to_string(),
                    status: output.status.to_string(),
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources;

    fn export_text(text: &str) -> Result<Vec<Json>, ExportError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("flow.py");
        std::fs::write(&file, text).unwrap();
        let packages = sources::unpack(folder.path()).unwrap();
        let builder = Builder::new(folder.path().join("envs"), "uv");
        export(&file, &packages, &builder, "python3", &mut |_| {})
    }

    #[test]
    fn documents_and_problems() {
        let good = "import kobza\n@kobza.task\ndef go(): pass\n@kobza.workflow\ndef flow(): go()\n";
        let documents = export_text(good).unwrap();
        assert_eq!(documents.len(), 1);
        assert_eq!(documents[0]["name"], "flow");
        let Err(ExportError::Problems(problems)) = export_text("x = (\n") else {
            panic!("a syntax error is a problem");
        };
        assert_eq!(problems[0].line, Some(1));
        assert!(matches!(export_text("import os; os._exit(0)"), Err(ExportError::NoAnswer { .. })));
    }
}
