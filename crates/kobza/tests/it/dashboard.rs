//! The dashboard and the alert rules speak of metrics that there are.

use std::collections::BTreeSet;
use std::path::Path;

use crate::machine::{Folder, Server};

/// Names of our metrics in a text of expressions.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c: char| !word(c)).filter(|w| w.starts_with("kobza_")).map(str::to_owned).collect()
}

#[test]
fn the_dashboard_and_the_alerts_name_metrics_that_there_are() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let yaml = "name: w\ntasks: {a: {noop: true}}\n";
    server.post("/api/v1/workflows", "application/yaml", yaml);
    let (_, run) = server.post("/api/v1/workflows/w/runs", "application/json", "{}");
    server.wait_run(run["id"].as_str().unwrap());
    let metrics = server.get("/metrics").1;
    let there: BTreeSet<String> = names(metrics.as_str().unwrap());
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let read = |name: &str| std::fs::read_to_string(packaging.join(name)).unwrap();

    let dashboard: serde_json::Value =
        serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 5);
    let mut shown = BTreeSet::new();
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            let found = names(target["expr"].as_str().unwrap());
            assert!(!found.is_empty(), "{}: {}", panel["title"], target["expr"]);
            shown.extend(found);
        }
    }
    let alerts = read("prometheus-alerts.yaml");
    let expressions: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert_eq!(expressions.len(), alerts.matches("- alert: ").count());
    shown.extend(names(&expressions.join("\n")));
    let missing: Vec<&String> = shown.difference(&there).collect();
    assert!(missing.is_empty(), "{missing:?} are not among {there:?}");
    // Each phase of the loop is measured.
    for phase in ["take", "decide", "commit", "act"] {
        let sample = format!("kobza_loop_phase_seconds_count{{phase=\"{phase}\"}}");
        assert!(metrics.as_str().unwrap().contains(&sample), "{sample}");
    }
}
