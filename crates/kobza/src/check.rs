//! `kobza check` and `kobza schema`.

use std::path::{Path, PathBuf};

use kobza_api::{Catalog as _, Definition, Problem};

use crate::cli::{CheckArgs, Output};
use crate::compose::Dialects;
use crate::failure::Failure;

/// Endings of files that a folder is searched for.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads one file into a definition.
pub(crate) fn read(path: &Path) -> Result<(Definition, String), Vec<Problem>> {
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
    let definition = Dialects.parse(text.as_bytes(), &name)?;
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

#[expect(clippy::print_stderr, reason = "messages for people go to the standard error")]
pub(crate) fn print(problems: &[Problem]) {
    for problem in problems {
        eprintln!("{}", show(problem));
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

#[expect(clippy::print_stdout, reason = "the command's data")]
pub(crate) fn check(args: CheckArgs) -> Result<(), Failure> {
    let mut files = Vec::new();
    for path in &args.paths {
        if path.is_dir() {
            files.extend(files_in(path)?);
        } else {
            files.push(path.clone());
        }
    }
    let mut bad = false;
    let mut results = Vec::new();
    for file in &files {
        match read(file) {
            Ok((definition, _)) => {
                if args.output == Output::Text {
                    print(&definition.warnings);
                    println!("{}: {} is good", file.display(), definition.workflow.name);
                }
                results.push(serde_json::json!({"file": file, "workflow": definition.workflow.name, "ok": true, "warnings": definition.warnings}));
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
        println!("{}", serde_json::to_string_pretty(&results)?);
    }
    if bad { Err(Failure::Input) } else { Ok(()) }
}

#[expect(clippy::print_stdout, reason = "the command's data")]
pub(crate) fn schema() -> Result<(), Failure> {
    println!("{}", serde_json::to_string_pretty(&kobza_dialect_native::json_schema())?);
    Ok(())
}
