//! The Python packages `kobza` (SDK), `kobza_airflow` and `kobza_worker`, carried by this binary.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

const FILES: &[(&str, &str)] = &[
    ("kobza/__init__.py", include_str!("../../../python/kobza/__init__.py")),
    ("kobza/artifacts.py", include_str!("../../../python/kobza/artifacts.py")),
    ("kobza/asset.py", include_str!("../../../python/kobza/asset.py")),
    ("kobza/client.py", include_str!("../../../python/kobza/client.py")),
    ("kobza/context.py", include_str!("../../../python/kobza/context.py")),
    ("kobza/decoding.py", include_str!("../../../python/kobza/decoding.py")),
    ("kobza/document.py", include_str!("../../../python/kobza/document.py")),
    ("kobza/errors.py", include_str!("../../../python/kobza/errors.py")),
    ("kobza/export.py", include_str!("../../../python/kobza/export.py")),
    ("kobza/expression.py", include_str!("../../../python/kobza/expression.py")),
    ("kobza/formats.py", include_str!("../../../python/kobza/formats.py")),
    ("kobza/graph.py", include_str!("../../../python/kobza/graph.py")),
    ("kobza/luigi.py", include_str!("../../../python/kobza/luigi.py")),
    ("kobza/notes.py", include_str!("../../../python/kobza/notes.py")),
    ("kobza/options.py", include_str!("../../../python/kobza/options.py")),
    ("kobza/py.typed", include_str!("../../../python/kobza/py.typed")),
    ("kobza/runner.py", include_str!("../../../python/kobza/runner.py")),
    ("kobza/schema.py", include_str!("../../../python/kobza/schema.py")),
    ("kobza/task.py", include_str!("../../../python/kobza/task.py")),
    ("kobza/testing.py", include_str!("../../../python/kobza/testing.py")),
    ("kobza/triggers.py", include_str!("../../../python/kobza/triggers.py")),
    ("kobza/values.py", include_str!("../../../python/kobza/values.py")),
    ("kobza/workflow.py", include_str!("../../../python/kobza/workflow.py")),
    ("kobza_airflow/__init__.py", include_str!("../../../python/kobza_airflow/__init__.py")),
    ("kobza_airflow/answer.py", include_str!("../../../python/kobza_airflow/answer.py")),
    ("kobza_airflow/parse.py", include_str!("../../../python/kobza_airflow/parse.py")),
    ("kobza_airflow/runner.py", include_str!("../../../python/kobza_airflow/runner.py")),
    ("kobza_airflow/trigger.py", include_str!("../../../python/kobza_airflow/trigger.py")),
    ("kobza_worker/__init__.py", include_str!("../../../python/kobza_worker/__init__.py")),
    ("kobza_worker/__main__.py", include_str!("../../../python/kobza_worker/__main__.py")),
    ("kobza_worker/asking.py", include_str!("../../../python/kobza_worker/asking.py")),
    ("kobza_worker/failure.py", include_str!("../../../python/kobza_worker/failure.py")),
    ("kobza_worker/loading.py", include_str!("../../../python/kobza_worker/loading.py")),
    ("kobza_worker/parent.py", include_str!("../../../python/kobza_worker/parent.py")),
    ("kobza_worker/runner.py", include_str!("../../../python/kobza_worker/runner.py")),
    ("kobza_worker/wire.py", include_str!("../../../python/kobza_worker/wire.py")),
    ("kobza_worker/worker.py", include_str!("../../../python/kobza_worker/worker.py")),
];

/// Puts the packages into `<data_dir>/python/<digest>`, unless they are there, and answers that
/// folder. Safe when several processes do it at once.
pub fn unpack(data_dir: &Path) -> io::Result<PathBuf> {
    let base = data_dir.join("python");
    let folder = base.join(digest());
    if folder.join("kobza_worker/__main__.py").exists() {
        return Ok(folder);
    }
    let temporary = base.join(format!(".{}-{}", digest(), std::process::id()));
    for (name, text) in FILES {
        let path = temporary.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    match fs::rename(&temporary, &folder) {
        Ok(()) => Ok(folder),
        // Another process was faster, with the same content.
        Err(_) if folder.join("kobza_worker/__main__.py").exists() => {
            let _ = fs::remove_dir_all(&temporary);
            Ok(folder)
        }
        Err(error) => Err(error),
    }
}

fn digest() -> String {
    let mut hash = Sha256::new();
    for (name, text) in FILES {
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_file_is_carried() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
        let mut found = Vec::new();
        for package in ["kobza", "kobza_airflow", "kobza_worker"] {
            for entry in fs::read_dir(root.join(package)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name.ends_with(".py") || name == "py.typed" {
                    found.push(format!("{package}/{name}"));
                }
            }
        }
        found.sort();
        let carried: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(carried, found);
    }

    #[test]
    fn unpacking_twice_is_unpacking_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = unpack(folder.path()).unwrap();
        assert!(first.join("kobza/__init__.py").is_file());
        assert_eq!(unpack(folder.path()).unwrap(), first);
        assert_eq!(fs::read_dir(folder.path().join("python")).unwrap().count(), 1);
    }
}
