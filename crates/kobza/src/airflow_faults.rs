//! What is wrong with DAG files, as problems and stored faults.

use kobza_api::Problem;
use kobza_model::Json;
use kobza_store::{Write, kinds};

use crate::airflow_setup::{BUNDLE, NAMESPACE};

/// A traceback as a problem: the exception, and the last line of the file that it names.
pub(crate) fn problem_of(file: &str, trace: &str) -> Problem {
    let message = trace.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(trace).trim();
    let line = trace.lines().rev().find_map(|line| {
        let (path, rest) = line.trim().strip_prefix("File \"")?.split_once("\", line ")?;
        path.ends_with(file).then(|| rest.split(',').next()?.trim().parse().ok())?
    });
    Problem {
        path: String::new(),
        message: message.to_owned(),
        hint: None,
        file: Some(file.to_owned()),
        line,
        column: None,
    }
}

/// A fault under a file's own name, with its traceback.
pub(crate) fn keyed(write: Write, file: &str, trace: Option<&str>) -> Write {
    match write {
        Write::PutObject { kind, value: Some(mut value), .. } => {
            if let Some(trace) = trace {
                value["traceback"] = Json::from(trace);
            }
            value["bundle"] = Json::from(BUNDLE);
            Write::PutObject {
                kind,
                namespace: NAMESPACE.to_owned(),
                key: file.to_owned(),
                value: Some(value),
            }
        }
        other => other,
    }
}

/// No fault of a file.
pub(crate) fn unfault(file: &str) -> Write {
    Write::PutObject {
        kind: kinds::IMPORT_ERROR,
        namespace: NAMESPACE.to_owned(),
        key: file.to_owned(),
        value: None,
    }
}

#[cfg(test)]
mod tests {
    use super::problem_of;

    #[test]
    fn a_traceback_names_its_line() {
        let trace = "Traceback (most recent call last):\n  File \"/d/x.py\", line 3, in <module>\n    \
                     import nothing\nModuleNotFoundError: No module named 'nothing'\n";
        let problem = problem_of("x.py", trace);
        assert_eq!(problem.line, Some(3));
        assert_eq!(problem.message, "ModuleNotFoundError: No module named 'nothing'");
    }
}
