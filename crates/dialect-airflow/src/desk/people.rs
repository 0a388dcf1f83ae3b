//! Questions that tasks ask of people.

use kobza_engine::Command;
use kobza_model::{Json, TaskId, Timestamp};
use kobza_runtime::{Submission, wall_now};
use kobza_store::{ObjectQuery, Write, kinds};
use serde_json::json;

use super::{Asker, Desk};
use crate::ids;
use crate::task::{Carry, Refused};

/// Where a task's question is kept.
#[must_use]
pub(crate) fn key(task: TaskId) -> String {
    format!("hitl/{task}")
}

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
        let key = key(asker.launch.task_id());
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
                prefix: "hitl/",
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
    /// A person's answer to a task's question: the task goes on with it. Answers nothing if nobody
    /// waits for it any more.
    pub fn respond(
        &self,
        task: TaskId,
        user: Option<(&str, &str)>,
        chosen: Vec<String>,
        params: Json,
    ) -> Result<(), Refused> {
        let Some(run) = self.views.get_run(task.run)? else { return Ok(()) };
        let key = key(task);
        let object = self.store.object(kinds::AIRFLOW_OBJECT, &run.namespace, &key)?;
        let mut object = object.ok_or_else(|| Refused::api(404, "the task asks nothing"))?;
        if object["response_received"] == true {
            return Err(Refused::api(409, "the question has been answered already"));
        }
        object["response_received"] = json!(true);
        object["responded_at"] = json!(wall_now());
        object["responded_by_user"] = json!(user.map(|(id, name)| json!({"id": id, "name": name})));
        object["chosen_options"] = json!(chosen);
        object["params_input"] = params;
        self.resume_with(task, &run.namespace, &key, object, false)
    }

    /// The time for an answer is over.
    pub(crate) fn nobody_responded(&self, task: TaskId) -> Result<(), Refused> {
        let Some(run) = self.views.get_run(task.run)? else { return Ok(()) };
        let key = key(task);
        let object = self.store.object(kinds::AIRFLOW_OBJECT, &run.namespace, &key)?;
        let mut object = object.unwrap_or_default();
        if object["response_received"] == true {
            return self.resume_with(task, &run.namespace, &key, object, false);
        }
        let Some(defaults) = object["defaults"].as_array().cloned() else {
            let event = json!({
                "error": "The Human-in-the-loop response timeout has passed without a response.",
                "error_type": "timeout",
            });
            return self.resume(task, event, Vec::new());
        };
        let params = object["params"].as_object().cloned().unwrap_or_default();
        let value = |value: Json| value.get("value").cloned().unwrap_or(value);
        let params = params.into_iter().map(|(key, given)| (key, value(given))).collect();
        object["response_received"] = json!(true);
        object["responded_at"] = json!(wall_now());
        object["chosen_options"] = Json::Array(defaults);
        object["params_input"] = Json::Object(params);
        self.resume_with(task, &run.namespace, &key, object, true)
    }

    fn resume_with(
        &self,
        task: TaskId,
        namespace: &str,
        key: &str,
        object: Json,
        timed_out: bool,
    ) -> Result<(), Refused> {
        let event = json!({
            "chosen_options": object["chosen_options"],
            "params_input": object["params_input"],
            "responded_at": instant(&object["responded_at"]),
            "responded_by_user": object["responded_by_user"],
            "timedout": timed_out,
        });
        let write = Write::PutObject {
            kind: kinds::AIRFLOW_OBJECT,
            namespace: namespace.to_owned(),
            key: key.to_owned(),
            value: Some(object),
        };
        self.resume(task, event, vec![write])
    }

    /// Lets a task that waits for a person go on with an event.
    fn resume(&self, task: TaskId, event: Json, writes: Vec<Write>) -> Result<(), Refused> {
        let Some(row) = self.views.get_task(task)? else { return Ok(()) };
        let carry = Carry::of(&row.carry).with_event(event);
        let resume = Command::ResumeTask { task, outputs: None, carry: Some(json!(carry)) };
        self.handle.submit_blocking(Submission { commands: vec![resume], writes })?;
        Ok(())
    }
}

/// An instant as the SDK's `serde` encodes it.
fn instant(text: &Json) -> Json {
    let at: Option<Timestamp> = text.as_str().and_then(|text| text.parse().ok());
    #[expect(clippy::cast_precision_loss, reason = "as Python keeps it")]
    let seconds = at.map(|at| at.0 as f64 / 1_000_000.0);
    json!({
        "__classname__": "datetime.datetime",
        "__version__": 2,
        "__data__": {
            "timestamp": seconds,
            "tz": ["UTC", "pendulum.tz.timezone.Timezone", 1, true],
        },
    })
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
