//! A task's body with its templates filled in, for people to read.

use kobza_expr::native;
use kobza_model::{Json, TaskNo, TemplateBody};
use kobza_runtime::Facts;
use serde::Deserialize as _;
use serde_json::Map;

use crate::context::{Place, gather};
use crate::spec::{Body, LeafSpec, Wait};

/// What a task runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// What colours the text: `bash`, `python`, `sql`, `text`.
    pub language: &'static str,
    /// Values stand where templates stood. (The task itself gets those of a shell script through
    /// variables, and those of a statement as parameters.)
    pub text: String,
    /// Arguments by name; null where it takes none.
    pub inputs: Json,
}

/// `None` where a body has nothing to show. `facts` tells secrets as something that may be shown.
pub fn rendered(facts: &dyn Facts, task: TaskNo) -> Result<Option<Rendered>, String> {
    let row = facts.task(task).ok_or("the task is gone")?;
    if let Some(function) = row.extra["python"]["function"].as_str() {
        // Added by a task: nothing of it is a template.
        return Ok(Some(call(function, row.inputs)));
    }
    let workflow = facts.workflow().clone();
    let leaf = match workflow.templates.get(row.template.index()).map(|t| &t.body) {
        Some(TemplateBody::Leaf(leaf)) if !leaf.spec.is_null() => leaf,
        _ => return Ok(None),
    };
    let spec = LeafSpec::deserialize(&leaf.spec).map_err(|e| e.to_string())?;
    let place = Place { task, scope: row.scope, index: row.index };
    let context = gather(place, row.attempt, &spec.reads, facts)?.context;
    let text = |source: &str| native::render_text(source, &context).map_err(|e| e.to_string());
    let values = |source: &Json| native::render_json(source, &context).map_err(|e| e.to_string());
    let shown = |language, text| Rendered { language, text, inputs: Json::Null };
    Ok(Some(match &spec.body {
        Body::Noop => return Ok(None),
        Body::Shell { command, .. } => shown("bash", text(command)?),
        Body::Sql { statement, .. } => shown("sql", text(statement)?),
        Body::Python { function, file, code, with, .. } => {
            let inputs = values(with)?;
            match (function, code, file) {
                (Some(function), ..) => call(function, inputs),
                (_, Some(code), _) => Rendered { inputs, ..shown("python", code.clone()) },
                (_, _, Some(file)) => Rendered { inputs, ..shown("text", file.clone()) },
                _ => return Ok(None),
            }
        }
        Body::Http { url, method, json, body, .. } => {
            let mut request = format!("{} {}", method.to_uppercase(), text(url)?);
            if let Some(json) = json {
                request = format!("{request}\n\n{:#}", values(json)?);
            } else if let Some(body) = body {
                request = format!("{request}\n\n{}", text(body)?);
            }
            shown("text", request)
        }
        Body::Suspend { message: Some(message), .. } => shown("text", text(message)?),
        Body::Suspend { message: None, .. } => return Ok(None),
        Body::Wait(Wait::Until { time }) => shown("text", text(time)?),
        Body::Wait(Wait::File { path, .. }) => shown("text", text(path)?),
        Body::Wait(Wait::Asset { name, .. }) => shown("text", text(name)?),
        Body::Wait(Wait::Poll { body, .. }) => match body.as_ref() {
            Body::Http { url, method, .. } => {
                shown("text", format!("{} {}", method.to_uppercase(), text(url)?))
            }
            Body::Sql { statement, .. } => shown("sql", text(statement)?),
            _ => return Ok(None),
        },
        Body::Wait(_) => return Ok(None),
        Body::Workflow { name, with, .. } => {
            Rendered { inputs: values(with)?, ..shown("text", name.clone()) }
        }
    }))
}

/// A Python call as one would write it.
fn call(function: &str, inputs: Json) -> Rendered {
    let no_names = Map::new();
    let named = inputs.as_object().unwrap_or(&no_names).iter();
    let arguments: Vec<String> =
        named.map(|(name, value)| format!("    {name}={},\n", python(value))).collect();
    let text = match arguments.as_slice() {
        [] => format!("{function}()"),
        some => format!("{function}(\n{})", some.concat()),
    };
    Rendered { language: "python", text, inputs }
}

fn python(value: &Json) -> String {
    match value {
        Json::Null => "None".to_owned(),
        Json::Bool(true) => "True".to_owned(),
        Json::Bool(false) => "False".to_owned(),
        Json::Array(items) => {
            format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", "))
        }
        Json::Object(fields) => {
            let pairs =
                fields.iter().map(|(k, v)| format!("{}: {}", Json::from(k.as_str()), python(v)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_written_as_python() {
        let seen = call("etl.load", json!({"day": "a\"b", "full": true, "of": [null, {"k": 1}]}));
        assert_eq!(
            seen.text,
            "etl.load(\n    day=\"a\\\"b\",\n    full=True,\n    of=[None, {\"k\": 1}],\n)"
        );
        assert_eq!(call("etl.load", Json::Null).text, "etl.load()");
    }
}
