//! What of a DAG Kobza does not act upon, and what to do about it.

use kobza_model::Json;

use crate::compile::Compiled;
use crate::dag::plain;

/// One thing that a DAG says and Kobza does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Dotted path in the DAG.
    pub field: String,
    pub message: String,
    pub hint: Option<String>,
}

/// The pool of tasks that name none; it is always there.
const DEFAULT_POOL: &str = "default_pool";

/// Remarks on a serialised DAG that compiles.
#[must_use]
pub fn remarks(serialised: &Json, compiled: &Compiled) -> Vec<Remark> {
    let mut found = Vec::new();
    let mut say = |field: String, message: String, hint: &str| {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        found.push(Remark { field, message, hint });
    };
    for warning in &compiled.warnings {
        let (field, message) = warning.split_once(": ").unwrap_or(("dag", warning));
        say(field.to_owned(), message.to_owned(), "");
    }
    for name in &compiled.unnamed {
        say(
            "dag.timetable".to_owned(),
            format!("it waits for the asset {name:?}, which no DAG describes by that name"),
            "one of the DAGs must name the asset with its URI",
        );
    }
    let dag = &serialised["dag"];
    if dag["deadline"].as_array().is_some_and(|all| !all.is_empty()) {
        say(
            "dag.deadline".to_owned(),
            "deadline alerts are not raised".to_owned(),
            "a notification rule tells of runs that take too long",
        );
    }
    if dag["access_control"].is_object() {
        say(
            "dag.access_control".to_owned(),
            "it is not acted upon".to_owned(),
            "who may do what is said by the roles of users and tokens",
        );
    }
    for task in dag["tasks"].as_array().into_iter().flatten() {
        let own = &task["__var"];
        let shared = plain(&own["partial_kwargs"]);
        let id = own["task_id"].as_str().unwrap_or_default();
        let given = |name: &str| match own.get(name) {
            Some(value) => plain(value),
            None => shared[name].clone(),
        };
        let at = |name: &str| format!("dag.tasks[{id:?}].{name}");
        if let Some(executor) = given("executor").as_str() {
            say(
                at("executor"),
                format!(
                    "the executor {executor:?} is not used: the task runs on the server's machine"
                ),
                "take it out, or give such tasks a pool to hold them back",
            );
        }
        if let Some(queue) = given("queue").as_str().filter(|queue| *queue != "default") {
            say(
                at("queue"),
                format!(
                    "there are no workers of a queue {queue:?}: the task runs on the server's machine"
                ),
                "give it a pool if it must be held back",
            );
        }
        if given("executor_config").as_object().is_some_and(|config| !config.is_empty()) {
            say(at("executor_config"), "it is for executors that are not used".to_owned(), "");
        }
        if given("wait_for_past_depends_before_skipping") == true {
            say(
                at("wait_for_past_depends_before_skipping"),
                "the task is skipped without waiting for the past".to_owned(),
                "",
            );
        }
        if given("email").is_string() || given("email").is_array() {
            say(
                at("email"),
                "no e-mail is sent".to_owned(),
                "use a callback with a notifier, or a notification rule of Kobza's",
            );
        }
        if let Some(pool) = given("pool").as_str().filter(|pool| *pool != DEFAULT_POOL) {
            say(
                at("pool"),
                format!(
                    "its pool {pool:?} must exist: tasks of a pool that is not there never run"
                ),
                &format!("kobza limits set {pool} 8"),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::Bundle;

    #[test]
    fn what_is_not_acted_upon_is_said() {
        let serialised = json!({"__version": 3, "dag": {
            "dag_id": "d", "timetable": {"__type": "airflow.timetables.simple.NullTimetable", "__var": {}},
            "relative_fileloc": "d.py", "new_thing": 1, "deadline": [{"x": 1}],
            "tasks": [{"__type": "operator", "__var": {
                "task_id": "t", "task_type": "BashOperator", "queue": "gpu", "executor": "K8s",
                "pool": "narrow", "email": "a@b",
            }}],
        }});
        let bundle = Bundle {
            name: "b".to_owned(),
            path: "/d".to_owned(),
            python: "python".to_owned(),
            version: None,
        };
        let compiled =
            crate::compile(&serialised, &bundle, &BTreeMap::new(), &BTreeMap::new()).unwrap();
        let fields: Vec<String> =
            remarks(&serialised, &compiled).into_iter().map(|remark| remark.field).collect();
        assert_eq!(
            fields,
            [
                "dag.new_thing is not known to this version",
                "dag.deadline",
                "dag.tasks[\"t\"].executor",
                "dag.tasks[\"t\"].queue",
                "dag.tasks[\"t\"].email",
                "dag.tasks[\"t\"].pool",
            ]
        );
    }
}
