//! Parameters: their schema, and values against it.

use std::fmt;

use jsonschema::{Draft, PatternOptions, Validator};
use kobza_model::{Json, Workflow};
use serde_json::{Map, json};

use crate::diagnostic::{nearest, shown};
use crate::document::Located;
use crate::shape::{Finding, below};

/// Largest parameters of one run, in bytes of JSON: they are kept with every run.
pub const MAX_PARAMS_BYTES: usize = 1 << 20;

/// A parameter that was refused.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ParamError {
    /// Dotted path, such as `params.region`.
    pub field: String,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ParamError {}

fn compile(schema: &Json) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        // Patterns run over values from outside: this engine's time is linear.
        .with_pattern_options(PatternOptions::regex())
        .should_validate_formats(true)
        .build(schema)
        .map_err(|e| e.to_string())
}

/// The schema of a `params` section: an object that accepts these parameters only.
pub(crate) fn schema(params: &Located) -> Result<Json, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (key, value) in params.fields() {
        let path = below("params", &key.text);
        let mut one = value.json();
        // `date` and `datetime` are what people look for under `type`.
        let format = match one.get("type").and_then(Json::as_str) {
            Some("date") => Some("date"),
            Some("datetime" | "timestamp") => Some("date-time"),
            _ => None,
        };
        if let (Some(format), Some(object)) = (format, one.as_object_mut()) {
            object.insert("type".to_owned(), json!("string"));
            object.insert("format".to_owned(), json!(format));
        }
        if one.get("default").is_none() && one.get("required") != Some(&json!(false)) {
            required.push(key.text.clone());
        }
        // `required: false` (as people write it for one parameter) is no JSON Schema.
        if one.get("required").is_some_and(Json::is_boolean)
            && let Some(object) = one.as_object_mut()
        {
            object.shift_remove("required");
        }
        match jsonschema::draft202012::meta::validate(&one) {
            Err(error) => {
                let pointer = error.instance_path().as_str().to_owned();
                let segments: Vec<String> = pointer
                    .split('/')
                    .skip(1)
                    .map(|s| s.replace("~1", "/").replace("~0", "~"))
                    .collect();
                let at = value.pointer(segments.iter().map(String::as_str));
                let field = segments.iter().fold(path.clone(), |p, s| below(&p, s));
                let message = format!("is no JSON Schema: {}", cut(&error.to_string()));
                let hint = match (segments.last().map(String::as_str), at.text()) {
                    (Some("type"), Some(word)) => nearest(word, TYPES.iter().copied())
                        .map(|near| format!("did you mean `{near}`?"))
                        .unwrap_or_else(|| format!("types are {}", TYPES.join(", "))),
                    _ => "see https://json-schema.org/draft/2020-12".to_owned(),
                };
                findings.push(Finding::at(at, &field, message).hint(hint));
                continue;
            }
            Ok(()) => match compile(&one) {
                Err(message) => {
                    let message = format!("is no usable JSON Schema: {}", cut(&message));
                    findings.push(
                        Finding::at(value, &path, message)
                            .hint("references to other documents are not followed"),
                    );
                    continue;
                }
                Ok(validator) => {
                    if let (Some(default), Some(at)) = (one.get("default"), value.get("default"))
                        && let Err(error) = validator.validate(default)
                    {
                        let message = format!(
                            "breaks the parameter's own schema: {}",
                            cut(&error.to_string())
                        );
                        findings.push(
                            Finding::at(at, &below(&path, "default"), message)
                                .hint("change the default or the schema"),
                        );
                    }
                }
            },
        }
        properties.insert(key.text.clone(), one);
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    Ok(schema)
}

const TYPES: &[&str] =
    &["string", "integer", "number", "boolean", "array", "object", "null", "date", "datetime"];

fn cut(text: &str) -> String {
    let mut out: String = text.chars().take(200).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

/// Checks the parameters of a run and fills in defaults. `given` is an object, or null for none.
/// Works for every workflow whose `params` is such a schema, of whatever dialect.
pub fn validate_params(workflow: &Workflow, given: Json) -> Result<Json, Vec<ParamError>> {
    let refuse = |field: &str, message: String, hint: Option<String>| {
        vec![ParamError { field: field.to_owned(), message, hint }]
    };
    let mut values = match given {
        Json::Null => Map::new(),
        Json::Object(values) => values,
        other => {
            let message = format!("must be an object, not {}", kind_of(&other));
            let hint = "pass {\"name\": value, …}".to_owned();
            return Err(refuse("params", message, Some(hint)));
        }
    };
    let bytes = serde_json::to_vec(&values).map_or(usize::MAX, |text| text.len());
    if bytes > MAX_PARAMS_BYTES {
        let message = format!("have {bytes} bytes; at most {MAX_PARAMS_BYTES} are allowed");
        let hint = "put large values into a file or an object store".to_owned();
        return Err(refuse("params", message, Some(hint)));
    }
    if workflow.params.is_null() {
        return match values.keys().next() {
            None => Ok(Json::Object(values)),
            Some(name) => Err(refuse(
                &below("params", name),
                "the workflow takes no parameters".to_owned(),
                Some("declare it under `params`".to_owned()),
            )),
        };
    }
    let empty = Map::new();
    let properties = workflow.params["properties"].as_object().unwrap_or(&empty);
    for (name, property) in properties {
        if let (false, Some(default)) = (values.contains_key(name), property.get("default")) {
            values.insert(name.clone(), default.clone());
        }
    }
    let values = Json::Object(values);
    let validator = compile(&workflow.params).map_err(|message| {
        refuse("params", format!("the workflow's schema is not usable: {}", cut(&message)), None)
    })?;
    let errors: Vec<ParamError> = validator
        .iter_errors(&values)
        .take(20)
        .flat_map(|error| explain(&error, properties))
        .collect();
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

fn explain(
    error: &jsonschema::ValidationError<'_>,
    properties: &Map<String, Json>,
) -> Vec<ParamError> {
    use jsonschema::error::ValidationErrorKind as Kind;
    let pointer = error.instance_path().as_str().to_owned();
    let field = pointer
        .split('/')
        .skip(1)
        .map(|s| s.replace("~1", "/").replace("~0", "~"))
        .fold("params".to_owned(), |path, segment| below(&path, &segment));
    match error.kind() {
        Kind::AdditionalProperties { unexpected } if pointer.is_empty() => unexpected
            .iter()
            .map(|name| ParamError {
                field: below("params", name),
                message: "the workflow has no such parameter".to_owned(),
                hint: crate::diagnostic::suggest(name, properties.keys().map(String::as_str)),
            })
            .collect(),
        Kind::Required { property } => {
            let name = property.as_str().map_or_else(|| property.to_string(), str::to_owned);
            let hint =
                properties.get(&name).and_then(|p| p.get("description")?.as_str()).map(shown);
            vec![ParamError {
                field: below(&field, &name),
                message: "is required and was not given".to_owned(),
                hint,
            }]
        }
        _ => {
            let top = pointer.split('/').nth(1).and_then(|name| properties.get(name));
            // What is only ever written (a password) must not come back in a message.
            let secret = top
                .is_some_and(|p| p["writeOnly"] == json!(true) || p["format"] == json!("password"));
            let message = if secret { error.masked().to_string() } else { error.to_string() };
            vec![ParamError { field, message: cut(&message), hint: None }]
        }
    }
}

fn kind_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a truth value",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}
