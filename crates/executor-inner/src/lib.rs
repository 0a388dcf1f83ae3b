//! Executors that need no process: calls of other workflows, and waits.
//!
//! Each has a thread of its own, so that the loop is never held up by a store or a disk.

mod wait;
mod workflow;

use kobza_engine::{Report, ReportBody};
use kobza_model::{Cause, Json, LaunchId, Outcome};
use kobza_runtime::wall_now;

pub use wait::WaitExecutor;
pub use workflow::{CheckParams, WorkflowExecutor};

fn report(launch: LaunchId, body: ReportBody) -> Report {
    Report { launch, at: wall_now(), body }
}

fn ended(
    launch: LaunchId,
    outcome: Outcome,
    cause: Cause,
    message: Option<String>,
    outputs: Vec<(String, Json)>,
) -> Report {
    let body = ReportBody::Finished {
        outcome,
        cause,
        message,
        exit_code: None,
        outputs,
        skips: Vec::new(),
        // The loop draws its own.
        jitter: 0.0,
    };
    report(launch, body)
}
