//! `depends_on_past` and `wait_for_downstream`: what became of the run before.

use std::collections::BTreeMap;

use kobza_engine::{Decision, Question};
use kobza_model::{Cause, Json, RunRow, TaskRow, TaskState, Timestamp};
use kobza_runtime::Facts;
use serde_json::json;

use crate::decide::{logical_date, operator};

/// The kind under which the host answers for runs that are no longer live: a JSON text of
/// `{"workflow", "before": microseconds, "manual": bool, "tasks": [names]}` is looked up, and the
/// answer is `{"at": microseconds, "tasks": {name: [states]}}` of the newest such run, or nothing.
pub const PAST: &str = "airflow_past";

/// The run before: when it was for, and the states of the tasks asked for.
struct Before {
    at: Timestamp,
    states: BTreeMap<String, Vec<TaskState>>,
}

pub(crate) fn decide(question: &Question, facts: &dyn Facts) -> Decision {
    let run = Decision::Run { inputs: Json::Null };
    let Some(node) = question.node else { return run };
    let task = match operator(facts.workflow(), node) {
        Ok(task) => task,
        Err(message) => return Decision::Fail { cause: Cause::Template, message },
    };
    // A run without a logical date has none before it.
    let Some(at) = logical_date(&facts.run().extra) else { return run };
    if facts.run().extra["airflow"]["first_of_backfill"] == Json::Bool(true) {
        return run;
    }
    let catchup = facts.workflow().source["airflow"]["dag"]["catchup"] == Json::Bool(true);
    let mut names = vec![task.task_id.clone()];
    names.extend(task.downstream.iter().cloned());
    let Some(before) = run_before(facts, at, catchup, &names) else { return run };
    #[expect(clippy::cast_possible_truncation, reason = "seconds of a date")]
    let begins = task.start_date.map(|seconds| Timestamp((seconds * 1_000_000.0) as i64));
    if catchup && begins.is_some_and(|begins| before.at < begins) {
        return run;
    }
    let good = |states: &[TaskState]| {
        states.iter().all(|s| matches!(s, TaskState::Succeeded | TaskState::Skipped))
    };
    let none = Vec::new();
    let states = |name: &String| before.states.get(name).unwrap_or(&none);
    let own = states(&task.task_id);
    let date = crate::states::date(before.at);
    if own.is_empty() {
        if task.ignore_first_depends_on_past {
            return run;
        }
        return Decision::Wait {
            reason: format!("the run of {date} has no task {}", task.task_id),
        };
    }
    if !good(own) {
        return Decision::Wait {
            reason: format!("it depends on the past: {} of {date} has not succeeded", task.task_id),
        };
    }
    if task.wait_for_downstream {
        let open = task.downstream.iter().find(|name| !good(states(name)));
        if let Some(open) = open {
            return Decision::Wait {
                reason: format!("it waits for {open} of {date}, which has not succeeded"),
            };
        }
    }
    run
}

fn is_manual(run: &RunRow) -> bool {
    run.extra["airflow"]["run_type"] == "manual"
}

/// The newest run with an earlier logical date: of the live ones, or of those in the store.
fn run_before(facts: &dyn Facts, at: Timestamp, catchup: bool, names: &[String]) -> Option<Before> {
    let live = facts
        .live_runs()
        .into_iter()
        .filter_map(|run| Some((logical_date(&run.extra)?, run)))
        .filter(|(date, run)| *date < at && !(catchup && is_manual(run)))
        .max_by_key(|(date, _)| *date);
    let query = json!({
        "workflow": facts.run().workflow, "before": at.0, "manual": !catchup, "tasks": names,
    });
    let stored = facts.lookup(PAST, &query.to_string());
    let stored_at = stored.as_ref().and_then(|s| s["at"].as_i64()).map(Timestamp);
    match (live, stored_at) {
        (Some((at, run)), stored_at) if stored_at.is_none_or(|stored| stored <= at) => {
            let states = |name: &String| {
                facts.tasks_in(run.run, name).iter().map(|row: &TaskRow| row.state).collect()
            };
            let states = names.iter().map(|name| (name.clone(), states(name))).collect();
            Some(Before { at, states })
        }
        (_, Some(at)) => {
            let states = |name: &String| {
                let words = stored.as_ref().and_then(|s| s["tasks"][name].as_array());
                words
                    .into_iter()
                    .flatten()
                    .filter_map(|word| TaskState::from_word(word.as_str()?))
                    .collect()
            };
            let states = names.iter().map(|name| (name.clone(), states(name))).collect();
            Some(Before { at, states })
        }
        _ => None,
    }
}
