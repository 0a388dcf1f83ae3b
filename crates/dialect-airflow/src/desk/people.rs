//! Questions that tasks ask of people.

use kobza_model::{Json, TaskId};
use kobza_runtime::{Submission, wall_now};
use kobza_store::{ObjectQuery, kinds};
use serde_json::json;

use super::{Asker, Desk};
use crate::ids;
use crate::people::{self, Person};
use crate::task::Refused;

impl Desk {
    /// Puts a task's question. One that was put before, by an earlier launch of the try, stays.
    pub(super) fn ask_people(
        &self,
        asker: Asker,
        namespace: &str,
        mut detail: Json,
    ) -> Result<Json, Refused> {
        let task = self.task_of(asker)?;
        let id = ids::task_instance(task.run, task.task, task.attempt).to_string();
        let key = people::key(asker.launch.task_id());
        detail["ti_id"] = json!(id);
        let known = self.store.object(kinds::AIRFLOW_OBJECT, namespace, &key)?;
        if known.is_none_or(|known| known["ti_id"] != id.as_str()) {
            let mut object = detail.clone();
            object["created_at"] = json!(wall_now());
            object["try_number"] = json!(task.attempt);
            self.put(kinds::AIRFLOW_OBJECT, namespace, &key, Some(object))?;
        }
        detail["type"] = json!("HITLDetailRequestResult");
        Ok(detail)
    }

    fn question(&self, namespace: &str, ti_id: &str) -> Result<(String, Json), Refused> {
        let mut cursor = None::<String>;
        loop {
            let page = self.views.list_objects(&ObjectQuery {
                kind: kinds::AIRFLOW_OBJECT,
                namespace: Some(namespace),
                prefix: people::PREFIX,
                descending: true,
                cursor: cursor.as_deref(),
                limit: 1000,
            })?;
            let found = page.items.into_iter().find(|object| object.value["ti_id"] == ti_id);
            match (found, page.next) {
                (Some(object), _) => return Ok((object.key, object.value)),
                (None, Some(next)) => cursor = Some(next),
                (None, None) => {
                    return Err(Refused::api(404, format!("{ti_id} asks nothing of people")));
                }
            }
        }
    }

    pub(super) fn people_said(&self, namespace: &str, ti_id: &str) -> Result<Json, Refused> {
        let (_, object) = self.question(namespace, ti_id)?;
        Ok(said(&object))
    }

    pub(super) fn say_for_people(
        &self,
        namespace: &str,
        ti_id: &str,
        chosen: Vec<String>,
        params: Option<Json>,
    ) -> Result<Json, Refused> {
        let (key, mut object) = self.question(namespace, ti_id)?;
        if object["response_received"] != true {
            object["response_received"] = json!(true);
            object["responded_at"] = json!(wall_now());
            object["chosen_options"] = json!(chosen);
            object["params_input"] = params.unwrap_or(json!({}));
            self.put(kinds::AIRFLOW_OBJECT, namespace, &key, Some(object.clone()))?;
        }
        Ok(said(&object))
    }
}

impl Desk {
    /// A person's answer to a task's question: the task goes on with it.
    pub fn respond(
        &self,
        task: TaskId,
        person: Person<'_>,
        chosen: Vec<String>,
        params: Json,
    ) -> Result<(), Refused> {
        let asks = || Refused::api(404, "the task asks nothing");
        let run = self.views.get_run(task.run)?.ok_or_else(asks)?;
        let question =
            self.store.object(kinds::AIRFLOW_OBJECT, &run.namespace, &people::key(task))?;
        let question = question.ok_or_else(asks)?;
        people::check(&question, person, &chosen)
            .map_err(|error| Refused::api(error.status, error.words))?;
        let answered = people::answered(question, Some(person.name), chosen, params, wall_now());
        self.resume_with(task, &run.namespace, answered, false)
    }

    /// The time for an answer is over.
    pub(crate) fn nobody_responded(&self, task: TaskId) -> Result<(), Refused> {
        let Some(run) = self.views.get_run(task.run)? else { return Ok(()) };
        let object =
            self.store.object(kinds::AIRFLOW_OBJECT, &run.namespace, &people::key(task))?;
        let object = object.unwrap_or_default();
        if object["response_received"] == true {
            return self.resume_with(task, &run.namespace, object, false);
        }
        let Some(defaults) = object["defaults"].as_array().cloned() else {
            let event = json!({
                "error": "The Human-in-the-loop response timeout has passed without a response.",
                "error_type": "timeout",
            });
            let Some(row) = self.views.get_task(task)? else { return Ok(()) };
            self.handle.submit_blocking(people::resume(task, &row.carry, event))?;
            return Ok(());
        };
        let params = object["params"].as_object().cloned().unwrap_or_default();
        let value = |value: Json| value.get("value").cloned().unwrap_or(value);
        let params = params.into_iter().map(|(key, given)| (key, value(given))).collect();
        let chosen = defaults.iter().filter_map(|d| d.as_str().map(str::to_owned)).collect();
        let answered = people::answered(object, None, chosen, Json::Object(params), wall_now());
        self.resume_with(task, &run.namespace, answered, true)
    }

    fn resume_with(
        &self,
        task: TaskId,
        namespace: &str,
        answered: Json,
        timed_out: bool,
    ) -> Result<(), Refused> {
        let Some(row) = self.views.get_task(task)? else { return Ok(()) };
        let (resume, write) = people::go_on(task, &row.carry, namespace, answered, timed_out);
        self.handle.submit_blocking(Submission { commands: vec![resume], writes: vec![write] })?;
        Ok(())
    }
}

fn said(object: &Json) -> Json {
    json!({
        "type": "HITLDetailResponseResult",
        "response_received": object["response_received"] == true,
        "responded_by_user": object["responded_by_user"],
        "responded_at": object["responded_at"],
        "chosen_options": object["chosen_options"],
        "params_input": object.get("params_input").cloned().unwrap_or(json!({})),
    })
}
