//! One form of each field: values of parameters become strings, older singular fields become the
//! current lists.

use kobza_expr::argo_expr::float_text;
use kobza_model::Json;

use crate::document::{Diagnostic, Kind};

type Result<T> = std::result::Result<T, Diagnostic>;

/// The string that a scalar stands for, as Go writes it.
#[must_use]
pub(crate) fn scalar_text(value: &Json) -> Option<String> {
    Some(match value {
        Json::String(text) => text.clone(),
        Json::Bool(b) => b.to_string(),
        Json::Number(n) => match n.as_i64() {
            Some(n) => n.to_string(),
            None => float_text(n.as_f64()?),
        },
        _ => return None,
    })
}

/// Brings an object to the current forms.
pub(crate) fn object(kind: Kind, json: &mut Json) -> Result<()> {
    match kind {
        Kind::ConfigMap | Kind::Secret => {
            for field in ["data", "stringData", "binaryData"] {
                if let Some(Json::Object(data)) = json.get_mut(field) {
                    for (key, value) in data.iter_mut() {
                        stringify(value, &format!("{field}.{key}"))?;
                    }
                }
            }
            return Ok(());
        }
        Kind::WorkflowEventBinding => return Ok(()),
        _ => {}
    }
    let Some(body) = json.get_mut("spec") else {
        return Err(Diagnostic::new("spec", "is missing")
            .hint("what is to run stands under spec: entrypoint, templates"));
    };
    if !body.is_object() {
        return Err(Diagnostic::new("spec", "must be a mapping")
            .hint("of fields such as entrypoint and templates"));
    }
    if kind == Kind::CronWorkflow {
        if let Some(schedule) = take(body, "schedule")
            && body.get("schedules").is_none()
        {
            body["schedules"] = Json::Array(vec![schedule]);
        }
        if let Some(inner) = body.get_mut("workflowSpec") {
            spec(inner, "spec.workflowSpec")?;
        }
        return Ok(());
    }
    spec(body, "spec")
}

fn take(json: &mut Json, key: &str) -> Option<Json> {
    json.as_object_mut()?.shift_remove(key)
}

fn stringify(value: &mut Json, path: &str) -> Result<()> {
    if value.is_null() {
        return Ok(());
    }
    match scalar_text(value) {
        Some(text) => {
            *value = Json::String(text);
            Ok(())
        }
        None => Err(Diagnostic::new(path, "must be a string, number or boolean")
            .hint("write lists and maps as JSON text in quotes")),
    }
}

fn stringify_field(json: &mut Json, key: &str, path: &str) -> Result<()> {
    match json.get_mut(key) {
        Some(value) => stringify(value, &format!("{path}.{key}")),
        None => Ok(()),
    }
}

fn stringify_list(json: &mut Json, key: &str, path: &str) -> Result<()> {
    if let Some(Json::Array(items)) = json.get_mut(key) {
        for (at, item) in items.iter_mut().enumerate() {
            stringify(item, &format!("{path}.{key}[{at}]"))?;
        }
    }
    Ok(())
}

fn each<'a>(
    json: &'a mut Json,
    key: &str,
    path: &str,
) -> Result<impl Iterator<Item = (String, &'a mut Json)> + use<'a>> {
    let path = format!("{path}.{key}");
    let items: &mut [Json] = match json.get_mut(key) {
        None | Some(Json::Null) => &mut [],
        Some(Json::Array(items)) => items,
        Some(_) => {
            return Err(Diagnostic::new(path, "must be a list").hint("begin each item with `- `"));
        }
    };
    Ok(items.iter_mut().enumerate().map(move |(at, item)| (format!("{path}[{at}]"), item)))
}

/// A workflow's spec.
pub(crate) fn spec(json: &mut Json, path: &str) -> Result<()> {
    if !json.is_object() {
        return Err(Diagnostic::new(path, "must be a mapping").hint("of fields and values"));
    }
    if let Some(arguments) = json.get_mut("arguments") {
        values(arguments, &format!("{path}.arguments"))?;
    }
    stringify_field(json, "activeDeadlineSeconds", path)?;
    synchronization(json);
    retry(json, path)?;
    hooks(json, path)?;
    for (at, item) in each(json, "templates", path)? {
        template(item, &at)?;
    }
    if let Some(defaults) = json.get_mut("templateDefaults") {
        template(defaults, &format!("{path}.templateDefaults"))?;
    }
    Ok(())
}

/// `arguments`, `inputs` or `outputs`.
fn values(json: &mut Json, path: &str) -> Result<()> {
    for (at, parameter) in each(json, "parameters", path)? {
        if !parameter.is_object() {
            return Err(
                Diagnostic::new(at, "must be a mapping with a name").hint("write `- name: ...`")
            );
        }
        stringify_field(parameter, "value", &at)?;
        stringify_field(parameter, "default", &at)?;
        if parameter.get("name").is_some_and(|name| !name.is_string()) {
            return Err(Diagnostic::new(format!("{at}.name"), "must be a string")
                .hint("YAML reads n, y, no, on and numbers as other things: put it in quotes"));
        }
        stringify_list(parameter, "enum", &at)?;
        if let Some(from) = parameter.get_mut("valueFrom") {
            stringify_field(from, "default", &format!("{at}.valueFrom"))?;
        }
    }
    for (at, artifact) in each(json, "artifacts", path)? {
        if !artifact.is_object() {
            return Err(
                Diagnostic::new(at, "must be a mapping with a name").hint("write `- name: ...`")
            );
        }
    }
    Ok(())
}

fn synchronization(json: &mut Json) {
    if let Some(sync) = json.get_mut("synchronization").filter(|s| s.is_object()) {
        for (one, many) in [("mutex", "mutexes"), ("semaphore", "semaphores")] {
            if let Some(value) = take(sync, one) {
                match sync.get_mut(many) {
                    Some(Json::Array(list)) => list.insert(0, value),
                    _ => sync[many] = Json::Array(vec![value]),
                }
            }
        }
    }
}

fn retry(json: &mut Json, path: &str) -> Result<()> {
    if let Some(retry) = json.get_mut("retryStrategy") {
        let path = format!("{path}.retryStrategy");
        stringify_field(retry, "limit", &path)?;
        if let Some(backoff) = retry.get_mut("backoff") {
            for key in ["duration", "factor", "maxDuration", "cap"] {
                stringify_field(backoff, key, &format!("{path}.backoff"))?;
            }
        }
    }
    Ok(())
}

fn hooks(json: &mut Json, path: &str) -> Result<()> {
    if let Some(Json::Object(hooks)) = json.get_mut("hooks") {
        for (name, hook) in hooks.iter_mut() {
            if let Some(arguments) = hook.get_mut("arguments") {
                values(arguments, &format!("{path}.hooks.{name}.arguments"))?;
            }
        }
    }
    Ok(())
}

fn container(json: &mut Json, path: &str) -> Result<()> {
    stringify_list(json, "command", path)?;
    stringify_list(json, "args", path)?;
    for (at, variable) in each(json, "env", path)? {
        stringify_field(variable, "value", &at)?;
    }
    Ok(())
}

fn template(json: &mut Json, path: &str) -> Result<()> {
    if !json.is_object() {
        return Err(Diagnostic::new(path, "must be a mapping").hint("of fields and values"));
    }
    for side in ["inputs", "outputs"] {
        if let Some(side_json) = json.get_mut(side) {
            values(side_json, &format!("{path}.{side}"))?;
        }
    }
    stringify_field(json, "activeDeadlineSeconds", path)?;
    stringify_field(json, "timeout", path)?;
    synchronization(json);
    retry(json, path)?;
    for body in ["container", "script"] {
        if let Some(inner) = json.get_mut(body) {
            container(inner, &format!("{path}.{body}"))?;
        }
    }
    for list in ["sidecars", "initContainers"] {
        for (at, inner) in each(json, list, path)? {
            container(inner, &at)?;
        }
    }
    if let Some(set) = json.get_mut("containerSet") {
        let path = format!("{path}.containerSet");
        for (at, inner) in each(set, "containers", &path)? {
            container(inner, &at)?;
        }
        if let Some(retry) = set.get_mut("retryStrategy") {
            stringify_field(retry, "retries", &path)?;
            stringify_field(retry, "duration", &path)?;
        }
    }
    if let Some(suspend) = json.get_mut("suspend") {
        stringify_field(suspend, "duration", &format!("{path}.suspend"))?;
    }
    for (at, group) in each(json, "steps", path)? {
        // A lone step is a group of one.
        if group.is_object() {
            *group = Json::Array(vec![group.take()]);
        }
        let Some(steps) = group.as_array_mut() else {
            return Err(Diagnostic::new(at, "must be a list of steps")
                .hint("steps is a list of lists: write `- - name: ...`"));
        };
        for (number, step) in steps.iter_mut().enumerate() {
            call(step, &format!("{at}[{number}]"))?;
        }
    }
    if let Some(dag) = json.get_mut("dag") {
        let path = format!("{path}.dag");
        for (at, task) in each(dag, "tasks", &path)? {
            call(task, &at)?;
        }
    }
    Ok(())
}

/// A step or a task.
fn call(json: &mut Json, path: &str) -> Result<()> {
    if !json.is_object() {
        return Err(Diagnostic::new(path, "must be a mapping with a name and a template")
            .hint("write `- name: ...`, and `template: ...` below it"));
    }
    if let Some(arguments) = json.get_mut("arguments") {
        values(arguments, &format!("{path}.arguments"))?;
    }
    hooks(json, path)?;
    if let Some(on_exit) = take(json, "onExit")
        && json.pointer("/hooks/exit").is_none()
    {
        if json.get("hooks").is_none() {
            json["hooks"] = Json::Object(serde_json::Map::new());
        }
        json["hooks"]["exit"] = serde_json::json!({ "template": on_exit });
    }
    if let Some(sequence) = json.get_mut("withSequence") {
        for key in ["count", "start", "end"] {
            stringify_field(sequence, key, &format!("{path}.withSequence"))?;
        }
    }
    stringify_field(json, "when", path)?;
    if let Some(value) = json.get_mut("withParam")
        && !value.is_string()
    {
        *value = Json::String(value.to_string());
    }
    if let Some(inline) = json.get_mut("inline") {
        template(inline, &format!("{path}.inline"))?;
    }
    Ok(())
}

/// Lays `over` on `under`: maps are merged, lists of named things by name, all else is replaced.
#[must_use]
pub(crate) fn merge(under: &Json, over: &Json) -> Json {
    match (under, over) {
        (Json::Object(a), Json::Object(b)) => {
            let mut out = a.clone();
            for (key, value) in b {
                let merged = match out.get(key) {
                    Some(there) => merge(there, value),
                    None => value.clone(),
                };
                out.insert(key.clone(), merged);
            }
            Json::Object(out)
        }
        (Json::Array(a), Json::Array(b)) if named(a) && named(b) => {
            let mut out = b.clone();
            for item in a {
                match out.iter_mut().find(|o| o["name"] == item["name"]) {
                    Some(there) => *there = merge(item, there),
                    None => out.push(item.clone()),
                }
            }
            Json::Array(out)
        }
        (under, Json::Null) => under.clone(),
        (_, over) => over.clone(),
    }
}

fn named(items: &[Json]) -> bool {
    !items.is_empty() && items.iter().all(|i| i.get("name").is_some_and(Json::is_string))
}
