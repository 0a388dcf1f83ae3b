//! Questions that tasks ask of people: how they are kept, who may answer what, and what the task gets
//! to hear. Pure: the desk, Airflow's API and Kobza's own all answer by these rules.

use kobza_engine::Command;
use kobza_model::{Json, TaskId, Timestamp};
use kobza_store::{Write, kinds};
use serde_json::{Map, json};

use crate::task::Carry;

/// What keys of questions begin with.
pub const PREFIX: &str = "hitl/";

/// Where a task's question is kept, among the objects of Airflow.
#[must_use]
pub fn key(task: TaskId) -> String {
    format!("{PREFIX}{task}")
}

/// Why an answer is not taken: an HTTP status, and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTaken {
    pub status: u16,
    pub words: String,
}

fn not_taken(status: u16, words: impl Into<String>) -> NotTaken {
    NotTaken { status, words: words.into() }
}

/// Who answers.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    pub name: &'a str,
    /// There are no accounts: nobody can be told from another.
    pub anybody: bool,
}

fn texts(value: &Json) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Json::as_str).collect()
}

/// Checks an answer to a stored question.
pub fn check(question: &Json, person: Person<'_>, chosen: &[String]) -> Result<(), NotTaken> {
    if question["response_received"] == true {
        return Err(not_taken(
            409,
            "Human-in-the-loop detail has already been updated for this Task Instance and is not \
             allowed to write again.",
        ));
    }
    let assigned = question["assigned_users"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_assigned = |user: &Json| user["id"] == person.name || user["name"] == person.name;
    if !assigned.is_empty() && !person.anybody && !assigned.iter().any(is_assigned) {
        let name = person.name;
        return Err(not_taken(
            403,
            format!("User={name} (id={name}) is not a respondent for the task."),
        ));
    }
    let options = texts(&question["options"]);
    let wrong: Vec<&str> =
        chosen.iter().map(String::as_str).filter(|option| !options.contains(option)).collect();
    if !wrong.is_empty() {
        return Err(not_taken(
            400,
            format!("Invalid options {wrong:?}; allowed options are {options:?}."),
        ));
    }
    if chosen.is_empty() {
        return Err(not_taken(400, format!("choose one of {options:?}")));
    }
    if question["multiple"] != true && chosen.len() > 1 {
        return Err(not_taken(
            400,
            "Multiple options chosen but this Human-in-the-loop task accepts only a single option.",
        ));
    }
    Ok(())
}

/// The question with its answer, as it is kept.
#[must_use]
pub fn answered(
    mut question: Json,
    by: Option<&str>,
    chosen: Vec<String>,
    params: Json,
    now: Timestamp,
) -> Json {
    question["response_received"] = json!(true);
    question["responded_at"] = json!(now);
    question["responded_by_user"] = json!(by.map(|name| json!({"id": name, "name": name})));
    question["chosen_options"] = json!(chosen);
    question["params_input"] = params;
    question
}

/// Lets the task that asked go on with the answer; both belong into one commit.
#[must_use]
pub fn go_on(
    task: TaskId,
    carry: &Json,
    namespace: &str,
    answered: Json,
    timed_out: bool,
) -> (Command, Write) {
    let event = json!({
        "chosen_options": answered["chosen_options"],
        "params_input": answered["params_input"],
        "responded_at": instant(&answered["responded_at"]),
        "responded_by_user": answered["responded_by_user"],
        "timedout": timed_out,
    });
    let write = Write::PutObject {
        kind: kinds::AIRFLOW_OBJECT,
        namespace: namespace.to_owned(),
        key: key(task),
        value: Some(answered),
    };
    (resume(task, carry, event), write)
}

/// Lets a task that waits for a person go on with an event.
pub(crate) fn resume(task: TaskId, carry: &Json, event: Json) -> Command {
    let carry = Carry::of(carry).with_event(event);
    Command::ResumeTask { task, outputs: None, carry: Some(json!(carry)) }
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

/// The option of an `ApprovalOperator` that lets the rest run, and the other one.
const APPROVE: &str = "Approve";
const REJECT: &str = "Reject";
/// The field of an approval's values that holds the options that were chosen.
pub const CHOSEN: &str = "chosen_options";

fn is_approval(options: &[&str]) -> bool {
    options == [APPROVE, REJECT]
}

/// What is asked, for people.
#[must_use]
pub fn prompt(question: &Json) -> String {
    let subject = question["subject"].as_str().unwrap_or_default();
    match question["body"].as_str().filter(|body| !body.trim().is_empty()) {
        Some(body) => format!("{subject}\n\n{body}"),
        None => subject.to_owned(),
    }
}

/// The schema of what an answer holds: the options, unless they are to approve or to reject, and the
/// question's parameters.
#[must_use]
pub fn fields(question: &Json) -> Json {
    let options = texts(&question["options"]);
    let mut fields = Map::new();
    if !is_approval(&options) {
        let choice = json!({"type": "string", "enum": options, "title": "Choice"});
        let mut choice = if question["multiple"] == true {
            json!({"type": "array", "items": choice, "title": "Choices"})
        } else {
            choice
        };
        match (question["multiple"] == true, texts(&question["defaults"]).as_slice()) {
            (true, defaults) if !defaults.is_empty() => choice["default"] = json!(defaults),
            (false, [only, ..]) => choice["default"] = json!(only),
            _ => {}
        }
        fields.insert(CHOSEN.to_owned(), choice);
    }
    for (name, param) in question["params"].as_object().into_iter().flatten() {
        let mut schema = param["schema"].as_object().cloned().unwrap_or_default();
        let value = if param.is_object() { param["value"].clone() } else { param.clone() };
        if !value.is_null() {
            schema.insert("default".to_owned(), value);
        }
        if let Some(text) = param["description"].as_str() {
            schema.insert("description".to_owned(), json!(text));
        }
        fields.insert(name.clone(), Json::Object(schema));
    }
    let required: Vec<&str> = if fields.contains_key(CHOSEN) { vec![CHOSEN] } else { Vec::new() };
    json!({"type": "object", "properties": fields, "required": required})
}

/// Who may answer; nobody in particular if empty.
#[must_use]
pub fn respondents(question: &Json) -> Vec<String> {
    let all = question["assigned_users"].as_array().into_iter().flatten();
    all.filter_map(|user| user["id"].as_str().or_else(|| user["name"].as_str()))
        .map(str::to_owned)
        .collect()
}

/// What an approval or a refusal of Kobza's own says to a question: options and parameters.
pub fn decision(
    question: &Json,
    approved: bool,
    values: &Json,
) -> Result<(Vec<String>, Json), NotTaken> {
    let options = texts(&question["options"]);
    let mut values = values.as_object().cloned().unwrap_or_default();
    let chosen = match values.remove(CHOSEN) {
        Some(Json::String(one)) => vec![one],
        Some(many @ Json::Array(_)) => texts(&many).into_iter().map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let chosen = match (approved, chosen.is_empty()) {
        (_, false) => chosen,
        (true, true) if options.contains(&APPROVE) => vec![APPROVE.to_owned()],
        (true, true) if options.len() == 1 => vec![options[0].to_owned()],
        (false, true) if options.contains(&REJECT) => vec![REJECT.to_owned()],
        _ => {
            return Err(not_taken(
                400,
                format!("the task wants one of {options:?}, in values.{CHOSEN}"),
            ));
        }
    };
    let mut params = Map::new();
    if !values.is_empty() {
        // The operator takes all of its parameters, or none.
        for (name, param) in question["params"].as_object().into_iter().flatten() {
            let usual = if param.is_object() { param["value"].clone() } else { param.clone() };
            params.insert(name.clone(), usual);
        }
        params.extend(values);
    }
    Ok((chosen, Json::Object(params)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str) -> Person<'_> {
        Person { name, anybody: false }
    }

    #[test]
    fn answers_are_checked() {
        let question = json!({
            "options": ["a", "b"], "multiple": false, "assigned_users": [{"id": "ann", "name": "Ann"}],
        });
        let chosen = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let status = |who: &str, all: &[&str]| {
            check(&question, person(who), &chosen(all)).map_err(|error| error.status)
        };
        assert_eq!(status("ann", &["a"]), Ok(()));
        assert_eq!(status("bob", &["a"]), Err(403));
        assert_eq!(status("ann", &["c"]), Err(400));
        assert_eq!(status("ann", &["a", "b"]), Err(400));
        assert_eq!(status("ann", &[]), Err(400));
        let anybody = Person { name: "local", anybody: true };
        assert!(check(&question, anybody, &chosen(&["a"])).is_ok());
        let done = answered(question, Some("ann"), chosen(&["a"]), json!({}), Timestamp(0));
        assert_eq!(check(&done, person("ann"), &chosen(&["a"])).unwrap_err().status, 409);
    }

    #[test]
    fn approvals_become_options() {
        let approval = json!({"options": ["Approve", "Reject"], "params": {}});
        assert_eq!(decision(&approval, true, &Json::Null).unwrap().0, ["Approve"]);
        assert_eq!(decision(&approval, false, &Json::Null).unwrap().0, ["Reject"]);
        assert_eq!(fields(&approval)["properties"], json!({}));
        let choice = json!({
            "options": ["x", "y"], "params": {"why": {"value": "none", "schema": {"type": "string"}}},
        });
        assert_eq!(decision(&choice, true, &Json::Null).unwrap_err().status, 400);
        let (chosen, params) =
            decision(&choice, true, &json!({"chosen_options": "y", "why": "late"})).unwrap();
        assert_eq!((chosen, params), (vec!["y".to_owned()], json!({"why": "late"})));
        let (_, params) = decision(&choice, true, &json!({"chosen_options": "y"})).unwrap();
        assert_eq!(params, json!({}));
        assert_eq!(fields(&choice)["properties"]["why"]["default"], "none");
    }
}
