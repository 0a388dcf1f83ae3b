//! Published workflows with the phases that they are known to end in, run with real processes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kobza_dialect_argo::exec;
use kobza_engine::StopMode;

use crate::driver::{Driver, read};

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("KOBZA_CONFORMANCE").map(PathBuf::from)?.join("argo");
    folder.is_dir().then_some(folder)
}

/// Runs one file; its phase, its nodes, and what its tasks said.
fn run_file(path: &Path, stop: Option<(&str, StopMode)>) -> Result<Driver, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let store = tempfile::tempdir().map_err(|e| e.to_string())?.keep();
    let work = tempfile::tempdir().map_err(|e| e.to_string())?.keep();
    let mut number = 0;
    let body = Box::new(move |spec: &kobza_dialect_argo::ExecSpec| {
        number += 1;
        let mut spec = spec.clone();
        spec.store = store.clone();
        let folder = work.join(number.to_string());
        // A thread of its own: its mounts are its own too.
        let ended = std::thread::spawn(move || exec::run(&spec, &folder)).join();
        ended.expect("the runner does not panic")
    });
    let (shelf, object) = read(&text);
    let params: &[(&str, &str)] = if path.ends_with("event-consumer-workflowtemplate.yaml") {
        &[("appellation", "world")]
    } else {
        &[]
    };
    let mut driver = Driver::new(shelf, &object, params, body);
    driver.stop_after = stop.map(|(name, mode)| (name.to_owned(), mode));
    driver.go();
    Ok(driver)
}

fn rows(table: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(table).expect("a table");
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

/// Files whose phase differs here, and why.
const EXCEPT: &[(&str, &str)] = &[(
    "testdata/workflow-template-with-resource-expr.yaml",
    "creates a pod through a Kubernetes cluster, which this server has none of",
)];

/// Node phases that a published test names, and that do not appear here.
const NODES_EXCEPT: &[(&str, &str, &str)] = &[(
    "functional/steps-skipped-withparam-ref.yaml",
    "Omitted",
    "no step comes after the failed one, so there is nothing to omit",
)];

#[test]
fn published_workflows_end_as_known() {
    let Some(folder) = folder() else {
        eprintln!("skipped: KOBZA_CONFORMANCE names no folder with `argo` in it");
        return;
    };
    let mut wrong = Vec::new();
    let mut passed = 0;
    let mut cases: Vec<(PathBuf, Vec<String>)> = Vec::new();
    for row in rows(&folder.join("expected.tsv")) {
        cases.push((folder.join("examples").join(&row[0]), row));
    }
    for row in rows(&folder.join("expected_e2e.tsv")) {
        cases.push((folder.join("e2e").join(&row[0]), row));
    }
    assert!(!cases.is_empty());
    for (path, row) in cases {
        if let Some((_, why)) = EXCEPT.iter().find(|(name, _)| *name == row[0]) {
            eprintln!("left out: {}: {why}", row[0]);
            continue;
        }
        let stop = row[0].ends_with("stop-terminate-2.yaml").then_some(("wf[0].A", StopMode::Stop));
        let outcome = std::panic::catch_unwind(|| run_file(&path, stop));
        let driver = match outcome {
            Ok(Ok(driver)) => driver,
            Ok(Err(error)) => {
                wrong.push(format!("{}: {error}", row[0]));
                continue;
            }
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_default();
                wrong.push(format!("{}: panicked: {text}", row[0]));
                continue;
            }
        };
        let nodes = driver.nodes();
        let mut missing = Vec::new();
        if let Some(expected) = row.get(2) {
            let mut have: BTreeMap<&str, i32> = BTreeMap::new();
            for (phase, _) in nodes.values() {
                *have.entry(phase).or_default() += 1;
            }
            for phase in expected.split(',').filter(|p| !p.is_empty()) {
                let left = have.entry(phase).or_default();
                *left -= 1;
                let except = NODES_EXCEPT.iter().any(|e| e.0 == row[0] && e.1 == phase);
                if *left < 0 && !except {
                    missing.push(phase.to_owned());
                }
            }
        }
        if driver.phase() == row[1] && missing.is_empty() {
            passed += 1;
        } else {
            let messages: Vec<String> = driver
                .data()
                .tasks
                .iter()
                .filter_map(|t| Some(format!("{}: {}", t.name, t.message.as_ref()?)))
                .collect();
            wrong.push(format!(
                "{}: {} instead of {}; without {missing:?}; nodes {nodes:#?}; messages {messages:#?}",
                row[0],
                driver.phase(),
                row[1]
            ));
        }
    }
    eprintln!("{passed} files end as known");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
