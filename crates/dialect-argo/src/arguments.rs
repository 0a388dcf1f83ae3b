//! Arguments of a call, and the inputs that they become.

use std::sync::Arc;

use kobza_expr::argo_expr::Program;
use kobza_expr::argo_template::{
    self, Error as TemplateError, Found, Variables, pure_reference, substitute,
};
use kobza_model::Json;
use serde_json::{Map, json};

use crate::values::{Values, config_value};

/// Parameters and artifacts by name, absent ones left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) parameters: Map<String, Json>,
    pub(crate) artifacts: Map<String, Json>,
}

/// Substitutes one text; `None` when it is nothing but a reference to an output that is absent.
pub(crate) fn optional_text(text: &str, values: &Values<'_>) -> Result<Option<String>, String> {
    if let Some(name) = pure_reference(text)
        && values.find(&name) == Found::Absent
    {
        return Ok(None);
    }
    substitute(text, values).map(Some).map_err(|error| error.to_string())
}

/// Evaluates an expression that stands alone, outside of a tag.
pub(crate) fn expression(
    text: &str,
    values: &Values<'_>,
) -> Result<kobza_expr::argo_expr::Value, String> {
    let program = Program::parse(text).map_err(|e| format!("cannot read {text:?}: {e}"))?;
    let env = values
        .env(&program.variables())
        .ok_or_else(|| format!("{text:?} refers to something that is not known here"))?;
    program.eval(&env).map_err(|e| format!("failed to evaluate expression {text:?}: {e}"))
}

/// Resolves the arguments of a step, task or hook.
pub(crate) fn resolve(arguments: &Json, values: &Values<'_>) -> Result<Arguments, String> {
    let mut out = Arguments::default();
    for parameter in arguments["parameters"].as_array().into_iter().flatten() {
        let Some(name) = parameter["name"].as_str() else { continue };
        if let Some(value) = parameter_value(parameter, values)? {
            out.parameters.insert(name.to_owned(), Json::String(value));
        }
    }
    for artifact in arguments["artifacts"].as_array().into_iter().flatten() {
        let Some(name) = artifact["name"].as_str() else { continue };
        if let Some(value) = artifact_value(artifact, values)? {
            out.artifacts.insert(name.to_owned(), value);
        }
    }
    Ok(out)
}

fn parameter_value(parameter: &Json, values: &Values<'_>) -> Result<Option<String>, String> {
    if let Some(text) = parameter["value"].as_str() {
        return optional_text(text, values);
    }
    let from = &parameter["valueFrom"];
    if let Some(text) = from["expression"].as_str() {
        let value = expression(text, values)?;
        return Ok(match value {
            kobza_expr::argo_expr::Value::Nil => from["default"].as_str().map(str::to_owned),
            value => Some(value.to_text()),
        });
    }
    if from["configMapKeyRef"].is_object() {
        let reference = argo_template::substitute_json(&from["configMapKeyRef"], values)
            .map_err(|e| e.to_string())?;
        let found = config_value(values.facts, "configmap", &reference)
            .or_else(|| from["default"].as_str().map(str::to_owned));
        return match found {
            Some(value) => Ok(Some(value)),
            None if reference["optional"].as_bool().unwrap_or(false) => Ok(None),
            None => Err(format!(
                "ConfigMap {:?} with key {:?} not found",
                reference["name"].as_str().unwrap_or(""),
                reference["key"].as_str().unwrap_or("")
            )),
        };
    }
    match parameter["default"].as_str() {
        Some(text) => optional_text(text, values),
        None => Ok(None),
    }
}

/// The artifact that an argument means; fields beside the reference (`subPath`, `mode`, ...) are
/// the argument's.
pub(crate) fn artifact_value(artifact: &Json, values: &Values<'_>) -> Result<Option<Json>, String> {
    let optional = artifact["optional"].as_bool().unwrap_or(false);
    let mut own = artifact.clone();
    let mut found = None;
    if let Some(fields) = own.as_object_mut() {
        let from = fields.shift_remove("from");
        let from_expression = fields.shift_remove("fromExpression");
        if let Some(from) = from.as_ref().and_then(Json::as_str) {
            let name = pure_reference(from)
                .ok_or_else(|| format!("artifact reference {from:?} must be one {{{{tag}}}}"))?;
            // The reference may have tags of its own in its name.
            let name = substitute(&name, values).map_err(|e| e.to_string())?;
            found = values.artifact(&name)?;
            if found.is_none() {
                return absent(&name, optional);
            }
        } else if let Some(text) = from_expression.as_ref().and_then(Json::as_str) {
            let value = expression(text, values)?.to_json();
            if value.is_null() {
                return absent(text, optional);
            }
            found = Some(value);
        }
    }
    let own = argo_template::substitute_json(&own, values).map_err(|e| e.to_string())?;
    Ok(Some(match found {
        Some(mut base) => {
            for key in ["subPath", "mode", "recurseMode", "archive", "optional"] {
                if let (Some(value), Some(base)) = (own.get(key), base.as_object_mut()) {
                    base.insert(key.to_owned(), value.clone());
                }
            }
            base
        }
        None => own,
    }))
}

fn absent(name: &str, optional: bool) -> Result<Option<Json>, String> {
    if optional { Ok(None) } else { Err(TemplateError::Absent(name.to_owned()).to_string()) }
}

/// Keys that say where an artifact is.
pub(crate) const LOCATIONS: &[&str] =
    &["raw", "s3", "http", "git", "gcs", "azure", "oss", "hdfs", "artifactory", "plugin", "local"];

/// Inputs of a template from the arguments of its call.
pub(crate) fn inputs(
    template: &Json,
    given: &Arguments,
    values: &mut Values<'_>,
) -> Result<Json, String> {
    let mut parameters = Map::new();
    let mut tagged = Vec::new();
    let mut waiting = Vec::new();
    for declared in template["inputs"]["parameters"].as_array().into_iter().flatten() {
        let Some(name) = declared["name"].as_str() else { continue };
        if let Some(value) = given.parameters.get(name) {
            parameters.insert(name.to_owned(), value.clone());
            continue;
        }
        if let Some(value) = declared["value"].as_str() {
            if value.contains("{{") {
                tagged.push((name, value));
            } else {
                parameters.insert(name.to_owned(), Json::from(value));
            }
            continue;
        }
        waiting.push((name, declared));
    }
    // Values with tags may refer to other inputs of the same template.
    values.scope = None;
    values.item = None;
    values.inputs = Arc::new(json!({ "parameters": parameters, "artifacts": {} }));
    let mut rounds = tagged.len();
    while !tagged.is_empty() {
        let mut later = Vec::new();
        for (name, text) in std::mem::take(&mut tagged) {
            match substitute(text, values) {
                Ok(value) => {
                    parameters.insert(name.to_owned(), Json::String(value));
                    values.inputs = Arc::new(json!({ "parameters": parameters, "artifacts": {} }));
                }
                Err(_) if rounds > 0 => later.push((name, text)),
                Err(error) => return Err(error.to_string()),
            }
        }
        rounds = rounds.saturating_sub(1);
        tagged = later;
    }
    for (name, declared) in waiting {
        match parameter_value(declared, values)? {
            Some(value) => parameters.insert(name.to_owned(), Json::String(value)),
            None => return Err(format!("inputs.parameters.{name} was not supplied")),
        };
    }
    for declared in template["inputs"]["parameters"].as_array().into_iter().flatten() {
        let (Some(name), Some(choices)) = (declared["name"].as_str(), declared["enum"].as_array())
        else {
            continue;
        };
        if let Some(value) = parameters.get(name)
            && !choices.contains(value)
        {
            return Err(format!("inputs.parameters.{name}: {value} is not one of its enum values"));
        }
    }
    values.inputs = Arc::new(json!({ "parameters": parameters, "artifacts": {} }));
    let artifacts = artifacts(template, given, values)?;
    let mut out = json!({});
    if !parameters.is_empty() {
        out["parameters"] = Json::Object(parameters);
    }
    if !artifacts.is_empty() {
        out["artifacts"] = Json::Object(artifacts);
    }
    Ok(out)
}

fn artifacts(
    template: &Json,
    given: &Arguments,
    values: &Values<'_>,
) -> Result<Map<String, Json>, String> {
    let mut artifacts = Map::new();
    for declared in template["inputs"]["artifacts"].as_array().into_iter().flatten() {
        let Some(name) = declared["name"].as_str() else { continue };
        let located = LOCATIONS.iter().any(|key| declared.get(*key).is_some())
            || declared.get("from").is_some()
            || declared.get("fromExpression").is_some();
        let value = match given.artifacts.get(name) {
            Some(value) => Some(value.clone()),
            None if located => artifact_value(declared, values)?,
            None => None,
        };
        match value {
            Some(value) => artifacts.insert(name.to_owned(), value),
            None if declared["optional"].as_bool().unwrap_or(false) => {
                artifacts.insert(name.to_owned(), Json::Null)
            }
            None => return Err(format!("inputs.artifacts.{name} was not supplied")),
        };
    }
    Ok(artifacts)
}
