//! The process that reads DAG files, forked from the one that Airflow's tasks are forked from:
//! Airflow is imported once for both, before the first task comes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use kobza_blobs::LogStore;
use kobza_dialect_airflow::parser::Hosting;
use kobza_dialect_airflow::{ADAPTER, Place, base, environment};
use kobza_engine::{KillReason, Report, ReportBody};
use kobza_executor_process::ProcessExecutor;
use kobza_model::{LaunchId, RunId, TaskNo};
use kobza_runtime::{Executor as _, LaunchSpec};
use serde_json::json;

/// No run of the engine's has this id: what is launched under it is the server's own.
const RUN: RunId = RunId(uuid::Uuid::from_u128(0x6b6f_627a_6100_8000_8000_0000_0000_0001));

/// Who waits for the ends of the server's own processes.
#[derive(Debug, Default)]
pub(crate) struct Ends(Mutex<HashMap<LaunchId, Sender<String>>>);

impl Ends {
    /// Whether a report is about a process of the server's own.
    pub(crate) fn take(&self, report: &Report) -> bool {
        if report.launch.run != RUN {
            return false;
        }
        let words = match &report.body {
            ReportBody::Finished { message, .. } => {
                message.clone().unwrap_or_else(|| "it ended".to_owned())
            }
            ReportBody::Lost { message } => message.clone(),
            _ => return true,
        };
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.remove(&report.launch) {
            // Who waited may have gone.
            let _gone = sender.send(words);
        }
        true
    }
}

/// Starts such processes in the shim.
pub(crate) struct Nursery {
    pub(crate) executor: Arc<ProcessExecutor>,
    pub(crate) ends: Arc<Ends>,
    pub(crate) logs: LogStore,
    pub(crate) place: Place,
    /// Of the last launch.
    pub(crate) number: AtomicU32,
}

impl Nursery {
    fn next(&self) -> LaunchId {
        // Another than those of earlier servers, which the shim may still know.
        let (task, _, _, _) = uuid::Uuid::new_v4().as_fields();
        let launch = self.number.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        LaunchId { run: RUN, task: TaskNo(task), launch }
    }
}

impl Hosting for Nursery {
    fn start(&self, socket: &str) -> Receiver<String> {
        let launch = self.next();
        // What its predecessors had to say.
        let _none = self.logs.remove_run(RUN);
        let (sender, ended) = channel();
        self.ends.0.lock().unwrap_or_else(PoisonError::into_inner).insert(launch, sender);
        let python = json!({
            "function": "$parse",
            "adapter": ADAPTER,
            "interpreter": self.place.python,
            "load": {"env": environment(&self.place), "base": base(&self.place)},
            "args": {"socket": socket},
        });
        let spec = LaunchSpec {
            program: self.place.python.clone(),
            extra: json!({"python": python}),
            ..LaunchSpec::default()
        };
        self.executor.launch(launch, spec);
        ended
    }

    fn stop(&self) {
        let waiting = self.ends.0.lock().unwrap_or_else(PoisonError::into_inner);
        for launch in waiting.keys() {
            self.executor.kill(*launch, KillReason::Stopped);
        }
    }
}
