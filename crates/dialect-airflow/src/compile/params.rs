//! A DAG's params as a schema, and the conf of a run checked against them.

use kobza_model::{Json, Workflow};
use serde_json::{Map, json};

use crate::dag::Dag;

/// JSON Schema of the conf: each param by name, and whatever else is sent.
pub(super) fn schema(dag: &Dag) -> Json {
    let mut properties = Map::new();
    for (name, param) in &dag.params {
        let mut schema = param["schema"].as_object().cloned().unwrap_or_default();
        if let Some(default) = param.get("default").filter(|d| !d.is_null()) {
            schema.insert("default".to_owned(), default.clone());
        }
        if let Some(words) = param["description"].as_str() {
            schema.entry("description").or_insert_with(|| json!(words));
        }
        properties.insert(name.clone(), Json::Object(schema));
    }
    json!({"type": "object", "properties": properties, "additionalProperties": true})
}

/// Checks the conf of a run. It stays as it was given: the DAG's defaults are laid under it where
/// the task runs. Each error is a field and a message.
pub fn conf(workflow: &Workflow, given: Json) -> Result<Json, Vec<(String, String)>> {
    let given = if given.is_null() { json!({}) } else { given };
    let Some(sent) = given.as_object() else {
        return Err(vec![(String::new(), "the conf must be an object".to_owned())]);
    };
    let mut problems = Vec::new();
    let mut known = Map::new();
    for (name, schema) in workflow.params["properties"].as_object().into_iter().flatten() {
        if let Some(value) = sent.get(name).or_else(|| schema.get("default")) {
            known.insert(name.clone(), value.clone());
        } else if schema.as_object().is_some_and(|s| s.contains_key("type")) && !allows_null(schema)
        {
            problems.push((name.clone(), "it has no default, so the run must give it".to_owned()));
        }
    }
    match jsonschema::validator_for(&workflow.params) {
        Ok(validator) => {
            let merged = Json::Object(known);
            for error in validator.iter_errors(&merged) {
                let field = error.instance_path().to_string();
                problems.push((field.trim_start_matches('/').to_owned(), error.to_string()));
            }
        }
        Err(error) => problems.push((String::new(), format!("the DAG's params: {error}"))),
    }
    if problems.is_empty() { Ok(given) } else { Err(problems) }
}

fn allows_null(schema: &Json) -> bool {
    match &schema["type"] {
        Json::String(one) => one == "null",
        Json::Array(many) => many.iter().any(|one| one == "null"),
        _ => true,
    }
}
