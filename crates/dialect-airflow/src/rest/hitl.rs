//! Questions that tasks ask of people, and people's answers.

use kobza_model::{Json, RunRow, TaskId, TaskRow};
use kobza_store::kinds;
use serde::Deserialize;
use serde_json::json;

use super::answer::{Call, Reply, RestError};
use super::lens::Lens;
use super::listing::{Filter, Listing};
use super::table::{Route, get, operate};
use super::{NAMESPACE, Rest};
use crate::people;

pub(crate) fn routes() -> Vec<Route> {
    const ONE: &str = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/hitlDetails";
    vec![
        get("/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/hitlDetails", list),
        get(ONE, one),
        operate("PATCH", ONE, respond),
        get(
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/hitlDetails/tries/{try_number}",
            of_try,
        ),
    ]
}

const DETAILS: Listing = Listing {
    key: "hitl_details",
    filters: &[
        Filter::Text("dag_id", "_dag_id"),
        Filter::Any("task_id", "_task_id"),
        Filter::Text("task_id", "_task_id"),
        Filter::Any("map_index", "_map_index"),
        Filter::Any("state", "_state"),
        Filter::Flag("response_received", "response_received"),
        Filter::Any("responded_by_user_id", "responded_by_user/id"),
        Filter::Any("responded_by_user_name", "responded_by_user/name"),
        Filter::Contains("subject_search", "subject"),
        Filter::Contains("body_search", "body"),
        Filter::Time("created_at", "created_at"),
    ],
    order: &[
        ("ti_id", "_id"),
        ("subject", "subject"),
        ("responded_at", "responded_at"),
        ("created_at", "created_at"),
        ("responded_by_user_id", "responded_by_user/id"),
        ("responded_by_user_name", "responded_by_user/name"),
        ("dag_id", "_dag_id"),
        ("run_id", "_run_id"),
        ("task_display_name", "_task_id"),
        ("run_after", "_run_after"),
        ("rendered_map_index", "_map_index"),
        ("task_instance_operator", "_operator"),
        ("task_instance_state", "_state"),
    ],
};

/// A question as stored, without its task instance.
fn question(object: &Json) -> Json {
    let params = object["params"].as_object().cloned().unwrap_or_default();
    json!({
        "options": object["options"], "subject": object["subject"], "body": object["body"],
        "defaults": object["defaults"], "multiple": object["multiple"] == true, "params": params,
        "assigned_users": object["assigned_users"].as_array().cloned().unwrap_or_default(),
        "created_at": object["created_at"], "responded_by_user": object["responded_by_user"],
        "responded_at": object["responded_at"], "chosen_options": object["chosen_options"],
        "params_input": object["params_input"].as_object().cloned().unwrap_or_default(),
        "response_received": object["response_received"] == true,
    })
}

fn list(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (dag_id, run_id) = (call.param("dag_id"), call.param("dag_run_id"));
    let lens = Lens::new(rest);
    let mut items: Vec<(Json, (RunRow, TaskRow))> = Vec::new();
    for object in rest.objects(kinds::AIRFLOW_OBJECT, people::PREFIX)? {
        let Some(id) = object.key.strip_prefix(people::PREFIX).and_then(|id| id.parse().ok())
        else {
            continue;
        };
        let id: TaskId = id;
        let (Some(run), Some(row)) =
            (rest.desk.views.get_run(id.run)?, rest.desk.views.get_task(id)?)
        else {
            continue;
        };
        if (dag_id != "~" && run.workflow != dag_id)
            || (run_id != "~" && crate::run_id(&run) != run_id)
        {
            continue;
        }
        let told = lens.instance_light(&run, &row)?;
        let mut item = question(&object.value);
        for (name, field) in [
            ("_dag_id", "dag_id"),
            ("_run_id", "dag_run_id"),
            ("_task_id", "task_id"),
            ("_map_index", "map_index"),
            ("_state", "state"),
            ("_run_after", "run_after"),
            ("_operator", "operator"),
            ("_id", "_id"),
        ] {
            item[name] = told[field].clone();
        }
        items.push((item, (run, row)));
    }
    DETAILS.page(call, items, |mut item, (run, row)| {
        item["task_instance"] = lens.instance(&run, &row)?;
        Ok(item)
    })
}

/// A task instance's question.
fn asked(rest: &Rest, call: &Call) -> Result<(RunRow, TaskRow, Json), RestError> {
    let (run, row) = rest.instance_of(call)?;
    let id = TaskId { run: row.run, task: row.task };
    let object = rest.desk.views.get_object(kinds::AIRFLOW_OBJECT, NAMESPACE, &people::key(id))?;
    let object = object.ok_or_else(|| {
        let id = crate::ids::task_instance(row.run, row.task, row.attempt);
        RestError::not_found(format!(
            "Human-in-the-loop detail does not exist for Task Instance with id {id}"
        ))
    })?;
    Ok((run, row, object.value))
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (run, row, object) = asked(rest, call)?;
    let mut told = question(&object);
    told["task_instance"] = Lens::new(rest).instance(&run, &row)?;
    Reply::ok(told)
}

/// Of a try. Only the newest question of a task is kept.
fn of_try(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let number = call.number("try_number")?;
    let (run, row) = rest.try_of(call, number)?;
    let (_, _, object) = asked(rest, call)?;
    if object["try_number"] != number {
        return Err(RestError::not_found(format!(
            "Human-in-the-loop detail does not exist for try {number} of the Task Instance"
        )));
    }
    let mut told = question(&object);
    told["task_instance"] = Lens::new(rest).history(&run, &row)?;
    Reply::ok(told)
}

#[derive(Deserialize)]
struct Response {
    chosen_options: Vec<String>,
    #[serde(default)]
    params_input: Option<Json>,
}

fn respond(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let body: Response = call.body()?;
    if body.chosen_options.is_empty() {
        let message = "List should have at least 1 item after validation, not 0";
        return Err(RestError::field(&["body", "chosen_options"], message));
    }
    let (_, row, _) = asked(rest, call)?;
    let params = body.params_input.filter(Json::is_object).unwrap_or_else(|| json!({}));
    let id = TaskId { run: row.run, task: row.task };
    let person = people::Person { name: &call.caller, anybody: call.is_local };
    rest.desk.respond(id, person, body.chosen_options, params)?;
    let (_, _, object) = asked(rest, call)?;
    Reply::ok(json!({
        "responded_by": object["responded_by_user"], "responded_at": object["responded_at"],
        "chosen_options": object["chosen_options"], "params_input": object["params_input"],
    }))
}
