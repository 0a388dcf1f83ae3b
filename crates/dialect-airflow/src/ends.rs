//! What follows from the end of a DAG run: its callbacks, and the pause after too many failures.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kobza_model::{EventKind, Json, RunId, RunRow, RunState};
use kobza_runtime::{Handle, Submission};
use kobza_store::{RunFilter, Views, Write};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::launch::{dag_run, run_id};
use crate::parser::ParseHost;
use crate::{Bundle, Origin};

/// How long callbacks of one run may take.
const CALLBACK_LIMIT: Duration = Duration::from_secs(50);
/// Runs looked at for consecutive failures.
const FAILURES_MAX: u32 = 1000;

/// Follows the ends of runs until the loop ends.
pub fn start(handle: Handle, views: Arc<dyn Views>, parser: Arc<ParseHost>) -> std::io::Result<()> {
    let mut events = handle.follow();
    std::thread::Builder::new().name("kobza-airflow-ends".to_owned()).spawn(move || {
        loop {
            let committed = match events.blocking_recv() {
                Ok(committed) => committed,
                // Callbacks are best effort in Airflow too.
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "ends of DAG runs were missed: no callbacks for them");
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            let mut ended: HashMap<RunId, RunState> = HashMap::new();
            for event in committed.events.iter() {
                if let (Some(run), EventKind::Run { state, .. }) = (event.run, &event.kind)
                    && state.is_finished()
                {
                    ended.insert(run, *state);
                }
            }
            for run in ended.into_keys() {
                match views.get_run(run) {
                    Ok(Some(row)) if row.dialect == "airflow" => {
                        end(&handle, &views, &parser, &row);
                    }
                    _ => {}
                }
            }
        }
    })?;
    Ok(())
}

fn end(handle: &Handle, views: &Arc<dyn Views>, parser: &Arc<ParseHost>, run: &RunRow) {
    let stored = views.get_workflow(&run.namespace, &run.workflow, Some(&run.version));
    let Ok(Some(stored)) = stored else { return };
    let dag = &stored.workflow.source["airflow"]["dag"];
    let failed = run.state != RunState::Succeeded;
    let callback = if failed { "has_on_failure_callback" } else { "has_on_success_callback" };
    if dag[callback] == Json::Bool(true) {
        let origin = Origin::of(&stored.workflow);
        let (run, parser) = (run.clone(), parser.clone());
        // They may take long; other runs end meanwhile.
        std::thread::spawn(move || call(&parser, &origin, &run, failed));
    }
    let most = dag["max_consecutive_failed_dag_runs"].as_u64().unwrap_or(0);
    if failed && most > 0 {
        pause(handle, views.as_ref(), run, most);
    }
}

/// Runs the DAG's own callback by Airflow's parser, as its DAG processor does.
fn call(parser: &ParseHost, origin: &Origin, run: &RunRow, failed: bool) {
    let file = Path::new(&origin.bundle.path).join(&origin.rel_path);
    let bundle = Bundle {
        name: origin.bundle.name.clone(),
        path: origin.bundle.path.clone(),
        python: origin.bundle.python.clone(),
        version: origin.bundle.version.clone(),
    };
    let request = json!([{
        "type": "DagCallbackRequest",
        "filepath": origin.rel_path,
        "bundle_name": bundle.name,
        "bundle_version": bundle.version,
        "msg": if failed { "task_failure" } else { "success" },
        "dag_id": run.workflow,
        "run_id": run_id(run),
        "is_failure_callback": failed,
        "context_from_server": {"dag_run": dag_run(run), "last_ti": null},
    }]);
    if let Err(error) = parser.callbacks(&file, &bundle, CALLBACK_LIMIT, &request) {
        tracing::error!(%error, dag = run.workflow, "callback of a DAG run");
    }
}

/// Pauses the DAG if its newest runs have all failed.
fn pause(handle: &Handle, views: &dyn Views, run: &RunRow, most: u64) {
    let filter = RunFilter {
        namespaces: vec![run.namespace.clone()],
        workflow: Some(run.workflow.clone()),
        states: vec![RunState::Succeeded, RunState::Failed, RunState::Cancelled],
        ..RunFilter::default()
    };
    let limit = u32::try_from(most).unwrap_or(FAILURES_MAX).min(FAILURES_MAX);
    let Ok(page) = views.list_runs(&filter, None, limit) else { return };
    let failures = page.items.iter().take_while(|row| row.state != RunState::Succeeded).count();
    if failures as u64 >= most {
        tracing::warn!(dag = run.workflow, "paused: its last {most} runs failed");
        let write = Write::PauseWorkflow {
            namespace: run.namespace.clone(),
            name: run.workflow.clone(),
            paused: true,
        };
        // The next failure tries again.
        let _unstored =
            handle.submit_blocking(Submission { commands: Vec::new(), writes: vec![write] });
    }
}
