//! The tries of a task instance.

use kobza_model::{RunRow, TaskId, TaskRow, TaskState};
use serde_json::json;

use super::Rest;
use super::answer::{Call, Reply, RestError};
use super::lens::Lens;
use super::table::{Route, get};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        get("/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/tries", all),
        get(
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/tries",
            all,
        ),
        get(
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/tries/{task_try_number}",
            one,
        ),
        get(
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/tries/{task_try_number}",
            one,
        ),
    ]
}

impl Rest {
    /// The tries of a task instance, the first one first; the last is the present one.
    pub(crate) fn tries(&self, row: &TaskRow) -> Result<Vec<TaskRow>, RestError> {
        let id = TaskId { run: row.run, task: row.task };
        let mut rows = self.desk.views.list_attempts(id)?;
        rows.retain(|old| old.attempt != row.attempt);
        for old in &mut rows {
            // What waited for the next try had failed.
            if old.state == TaskState::RetryWait {
                old.state = TaskState::Failed;
            }
        }
        rows.push(row.clone());
        rows.sort_by_key(|row| row.attempt);
        Ok(rows)
    }

    /// A try by its number.
    pub(crate) fn try_of(&self, call: &Call, number: i64) -> Result<(RunRow, TaskRow), RestError> {
        let (run, row) = self.instance_of(call)?;
        let found = self.tries(&row)?.into_iter().find(|row| i64::from(row.attempt) == number);
        let found = found.ok_or_else(|| {
            RestError::not_found(format!(
                "The Task Instance with dag_id: `{}`, run_id: `{}`, task_id: `{}`, try_number: \
                 `{number}` and map_index: `{}` was not found",
                run.workflow,
                crate::run_id(&run),
                row.name,
                crate::desk::map_index(&row),
            ))
        })?;
        Ok((run, found))
    }
}

fn all(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (run, row) = rest.instance_of(call)?;
    let lens = Lens::new(rest);
    let mut shown = Vec::new();
    for row in rest.tries(&row)? {
        shown.push(lens.history(&run, &row)?);
    }
    Reply::ok(json!({"total_entries": shown.len(), "task_instances": shown}))
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (run, row) = rest.try_of(call, call.number("task_try_number")?)?;
    Reply::ok(Lens::new(rest).history(&run, &row)?)
}
