//! What fields of a workflow may hold, alone and beside each other.

use std::collections::BTreeSet;

use kobza_model::Json;

use super::fields::list;
use super::{Result, each_call, local, spec_of};
use crate::arguments::LOCATIONS;
use crate::document::{Diagnostic, Kind, Object};

/// Longest name of a template.
const NAME_MAX: usize = 128;

fn wrong<T>(
    path: impl Into<String>,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Result<T> {
    Err(Diagnostic::new(path, message).hint(hint))
}

pub(super) fn check(object: &Object) -> Result<()> {
    let (spec, path) = spec_of(object);
    let reference = &spec["workflowTemplateRef"];
    if reference.is_object() && list(&spec["templates"]).next().is_some() {
        return wrong(
            format!("{path}.templates"),
            "is not allowed beside workflowTemplateRef",
            "call the other template by a templateRef in a step, or leave templates out",
        );
    }
    match spec["podGC"]["strategy"].as_str() {
        None
        | Some(
            "" | "OnPodCompletion" | "OnPodSuccess" | "OnWorkflowCompletion" | "OnWorkflowSuccess",
        ) => {}
        Some(other) => {
            return wrong(
                format!("{path}.podGC.strategy"),
                format!("unknown strategy '{other}'"),
                "OnPodCompletion, OnPodSuccess, OnWorkflowCompletion or OnWorkflowSuccess",
            );
        }
    }
    names(&spec["arguments"], &format!("{path}.arguments"))?;
    choices(&spec["arguments"], &format!("{path}.arguments"))?;
    metrics(&spec["metrics"], &format!("{path}.metrics"))?;
    let mut seen = BTreeSet::new();
    for (at, template) in list(&spec["templates"]) {
        let path = format!("{path}.templates[{at}]");
        let name = template["name"].as_str().unwrap_or_default();
        let good = name.len() <= NAME_MAX
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if name.is_empty() {
            return wrong(format!("{path}.name"), "name is required", "calls name templates by it");
        }
        if !good {
            return wrong(
                format!("{path}.name"),
                format!("name '{name}' is invalid"),
                "letters, digits and `-`, at most 128, the first a letter or digit",
            );
        }
        if !seen.insert(name) {
            return wrong(
                format!("{path}.name"),
                format!("name '{name}' is not unique"),
                "give each template a name of its own",
            );
        }
        one(spec, template, &path)?;
        each_call(template, &path, &mut |step, path| call(spec, step, path))?;
    }
    if object.kind == Kind::Workflow && !reference.is_object() {
        entry(spec, path)?;
    }
    Ok(())
}

/// What the entrypoint needs comes from the workflow's arguments.
fn entry(spec: &Json, path: &str) -> Result<()> {
    let Some(target) = local(spec, &serde_json::json!({ "template": spec["entrypoint"] })) else {
        return Ok(());
    };
    supplied(target, &spec["arguments"], &format!("{path}.arguments"))
}

/// Parameters and artifacts have good names, each its own.
fn names(values: &Json, path: &str) -> Result<()> {
    for side in ["parameters", "artifacts"] {
        let mut seen = BTreeSet::new();
        for (at, item) in list(&values[side]) {
            let path = format!("{path}.{side}[{at}].name");
            let name = item["name"].as_str().unwrap_or_default();
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !name.chars().all(good) {
                return wrong(
                    path,
                    format!("name '{name}' is invalid"),
                    "letters, digits, `-` and `_`",
                );
            }
            if !seen.insert(name) {
                return wrong(
                    path,
                    format!("name '{name}' is not unique"),
                    format!("name each of the {side} differently"),
                );
            }
        }
    }
    Ok(())
}

/// Values are among their choices.
fn choices(values: &Json, path: &str) -> Result<()> {
    for (at, parameter) in list(&values["parameters"]) {
        let Some(choices) = parameter["enum"].as_array() else { continue };
        let at = format!("{path}.parameters[{at}]");
        let name = parameter["name"].as_str().unwrap_or_default();
        if choices.is_empty() {
            return wrong(
                format!("{at}.enum"),
                "should contain at least one value",
                "list what may be chosen, or leave it out",
            );
        }
        if let Some(value) = parameter["value"]
            .as_str()
            .filter(|v| !v.contains("{{") && !choices.iter().any(|choice| choice == v))
        {
            return wrong(
                format!("{at}.value"),
                format!(
                    "spec.arguments.{name}.value should be present in spec.arguments.{name}.enum \
                     list: {value:?} is not"
                ),
                "choose one of its enum",
            );
        }
    }
    Ok(())
}

fn one(spec: &Json, template: &Json, path: &str) -> Result<()> {
    for side in ["inputs", "outputs"] {
        names(&template[side], &format!("{path}.{side}"))?;
    }
    choices(&template["inputs"], &format!("{path}.inputs"))?;
    metrics(&template["metrics"], &format!("{path}.metrics"))?;
    let composite = template["steps"].is_array() || template["dag"].is_object();
    if !composite && !template["parallelism"].is_null() {
        return wrong(
            format!("{path}.parallelism"),
            "is only valid for steps and dag templates",
            "set it at the template that calls this one, or at spec.parallelism",
        );
    }
    if let Some(seconds) = template["activeDeadlineSeconds"].as_str()
        && !seconds.contains("{{")
        && !seconds.parse::<i64>().is_ok_and(|s| s > 0)
    {
        return wrong(
            format!("{path}.activeDeadlineSeconds"),
            "activeDeadlineSeconds must be a positive integer > 0",
            "a number of seconds",
        );
    }
    for body in ["container", "script"] {
        let container = &template[body];
        if container.is_object() && container["image"].as_str().is_none_or(str::is_empty) {
            return wrong(
                format!("{path}.{body}.image"),
                "may not be empty",
                "name an image; without container engines it stands for the host's commands",
            );
        }
        mounted(template, container, &format!("{path}.{body}"))?;
    }
    members(&template["containerSet"], &format!("{path}.containerSet"))?;
    resource(&template["resource"], &format!("{path}.resource"))?;
    let token =
        template.get("automountServiceAccountToken").or(spec.get("automountServiceAccountToken"));
    let account = |json: &Json| {
        let account = json["executor"]
            .get("serviceAccountName")
            .or(json["executor"].get("ServiceAccountName"));
        account.and_then(Json::as_str).is_some_and(|name| !name.is_empty())
    };
    if token == Some(&Json::Bool(false)) && !account(template) && !account(spec) {
        return wrong(
            format!("{path}.executor.serviceAccountName"),
            "must not be empty if automountServiceAccountToken is false",
            "name the account that reports for the pod",
        );
    }
    if template["memoize"].is_object()
        && template["memoize"]["key"].as_str().is_none_or(str::is_empty)
    {
        return wrong(format!("{path}.memoize.key"), "is required", "what tells results apart");
    }
    outputs(template, composite, path)
}

/// An input artifact does not lie where a volume does.
fn mounted(template: &Json, container: &Json, path: &str) -> Result<()> {
    for (at, mount) in list(&container["volumeMounts"]) {
        let Some(place) = mount["mountPath"].as_str() else { continue };
        if list(&template["inputs"]["artifacts"]).any(|(_, a)| a["path"] == place) {
            return wrong(
                format!("{path}.volumeMounts[{at}].mountPath"),
                format!("'{place}' already mounted: an input artifact has the same path"),
                "give one of them another path",
            );
        }
    }
    Ok(())
}

fn members(set: &Json, path: &str) -> Result<()> {
    if !set.is_object() {
        return Ok(());
    }
    let names: Vec<&str> =
        list(&set["containers"]).filter_map(|(_, c)| c["name"].as_str()).collect();
    if list(&set["containers"]).next().is_none() {
        return wrong(format!("{path}.containers"), "must have at least one container", "add one");
    }
    for (at, container) in list(&set["containers"]) {
        let path = format!("{path}.containers[{at}]");
        let name = container["name"].as_str().unwrap_or_default();
        if name.is_empty() || names.iter().filter(|n| **n == name).count() > 1 {
            return wrong(
                format!("{path}.name"),
                format!("name '{name}' is missing or not unique"),
                "name each container of the set differently",
            );
        }
        for (number, needed) in list(&container["dependencies"]) {
            if !needed.as_str().is_some_and(|needed| names.contains(&needed)) {
                return wrong(
                    format!("{path}.dependencies[{number}]"),
                    format!("container {needed} is not defined"),
                    format!("the set has {}", names.join(", ")),
                );
            }
        }
    }
    Ok(())
}

fn resource(resource: &Json, path: &str) -> Result<()> {
    if !resource.is_object() {
        return Ok(());
    }
    let known = ["get", "create", "apply", "delete", "replace", "patch"];
    let action = resource["action"].as_str().unwrap_or_default();
    if !known.contains(&action) && !action.contains("{{") {
        return wrong(
            format!("{path}.action"),
            format!("must be one of: {}", known.join(", ")),
            format!("{action:?} is none of them"),
        );
    }
    if let Some(manifest) = resource["manifest"].as_str().filter(|m| !m.contains("{{"))
        && let Err(error) = serde_saphyr::from_str::<Json>(manifest)
    {
        return wrong(
            format!("{path}.manifest"),
            "must be a valid yaml",
            error.without_snippet().to_string(),
        );
    }
    Ok(())
}

/// Where outputs come from fits the kind of their template.
fn outputs(template: &Json, composite: bool, path: &str) -> Result<()> {
    for (at, parameter) in list(&template["outputs"]["parameters"]) {
        let path = format!("{path}.outputs.parameters[{at}]");
        let from = &parameter["valueFrom"];
        if !from.is_object() {
            if parameter.get("value").is_none() {
                return wrong(
                    path,
                    "does not have valueFrom or value specified",
                    "say where its value is",
                );
            }
            continue;
        }
        let sources: Vec<&String> = from
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
            .filter(|key| *key != "default")
            .collect();
        if sources.len() > 1 {
            let sources: Vec<&str> = sources.iter().map(|s| s.as_str()).collect();
            return wrong(
                format!("{path}.valueFrom"),
                format!("multiple valueFrom types specified: {}", sources.join(", ")),
                "choose one",
            );
        }
        let has = |key: &str| from.get(key).is_some();
        let runs = ["container", "script", "containerSet"].iter().any(|b| template[*b].is_object());
        if runs && !has("path") && !has("expression") {
            return wrong(
                format!("{path}.valueFrom"),
                ".path must be specified for Container templates",
                "the file that the container writes",
            );
        }
        if composite && !has("parameter") && !has("expression") {
            return wrong(
                format!("{path}.valueFrom"),
                ".parameter or expression must be specified for Steps and DAG templates",
                "refer to an output of a step or task",
            );
        }
    }
    for (at, artifact) in list(&template["outputs"]["artifacts"]) {
        let path = format!("{path}.outputs.artifacts[{at}]");
        if composite && artifact.get("from").is_none() && artifact.get("fromExpression").is_none() {
            return wrong(
                path,
                "from or fromExpression must be specified for Steps and DAG templates",
                "refer to an artifact of a step or task",
            );
        }
        if !composite && artifact["path"].as_str().is_none_or(str::is_empty) {
            return wrong(
                format!("{path}.path"),
                "is required",
                "the file that the container writes",
            );
        }
    }
    Ok(())
}

fn call(spec: &Json, step: &Json, path: &str) -> Result<()> {
    let arguments = &step["arguments"];
    let at = format!("{path}.arguments");
    names(arguments, &at)?;
    for (number, parameter) in list(&arguments["parameters"]) {
        if parameter.get("value").is_none() && parameter.get("valueFrom").is_none() {
            return wrong(
                format!("{at}.parameters[{number}].value"),
                ".value is required",
                "give a value, or valueFrom",
            );
        }
    }
    for (number, artifact) in list(&arguments["artifacts"]) {
        let located = LOCATIONS.iter().any(|kind| artifact.get(*kind).is_some())
            || artifact.get("from").is_some()
            || artifact.get("fromExpression").is_some();
        if !located && !artifact["optional"].as_bool().unwrap_or(false) {
            return wrong(
                format!("{at}.artifacts[{number}]"),
                "from, artifact location, or key is required",
                "refer to an artifact by from, or say where it is",
            );
        }
    }
    let sequence = &step["withSequence"];
    if sequence.is_object() {
        if sequence.get("count").is_some() && sequence.get("end").is_some() {
            return wrong(
                format!("{path}.withSequence"),
                "only one of count and end may be used",
                "count is how many, end is the last",
            );
        }
        if sequence.get("count").is_none() && sequence.get("end").is_none() {
            return wrong(
                format!("{path}.withSequence"),
                "must have count or end",
                "say how long it is",
            );
        }
    }
    let depends = step["depends"].as_str().is_some_and(|d| !d.trim().is_empty());
    if depends && step["continueOn"].is_object() {
        return wrong(
            format!("{path}.continueOn"),
            "cannot be used with depends",
            "write `NAME.Succeeded || NAME.Failed` in depends instead",
        );
    }
    match local(spec, step) {
        Some(target) => supplied(target, arguments, &at),
        None => Ok(()),
    }
}

/// A template's inputs without a value of their own are among the arguments.
fn supplied(target: &Json, arguments: &Json, path: &str) -> Result<()> {
    let name = target["name"].as_str().unwrap_or_default();
    for side in ["parameters", "artifacts"] {
        for (_, input) in list(&target["inputs"][side]) {
            let own = ["value", "default", "valueFrom", "from", "fromExpression"]
                .iter()
                .chain(LOCATIONS)
                .any(|field| input.get(*field).is_some())
                || input["optional"].as_bool().unwrap_or(false);
            if !own && !list(&arguments[side]).any(|(_, given)| given["name"] == input["name"]) {
                let input = input["name"].as_str().unwrap_or_default();
                return wrong(
                    format!("{path}.{side}"),
                    format!("templates.{name} inputs.{side}.{input} was not supplied"),
                    format!("pass {input:?}, or give it a default in the template"),
                );
            }
        }
    }
    Ok(())
}

fn metrics(metrics: &Json, path: &str) -> Result<()> {
    for (at, metric) in list(&metrics["prometheus"]) {
        let path = format!("{path}.prometheus[{at}]");
        let name = metric["name"].as_str().unwrap_or_default();
        if !crate::metrics::good_name(name, true) {
            return wrong(
                format!("{path}.name"),
                format!("metric name '{name}' is invalid"),
                "Metric names must contain alphanumeric characters, '_', or ':'",
            );
        }
        if metric["help"].as_str().is_none_or(str::is_empty) {
            return wrong(
                format!("{path}.help"),
                format!("metric '{name}' must contain a help string under 'help: ' field"),
                "say what it counts",
            );
        }
        for (number, label) in list(&metric["labels"]) {
            let key = label["key"].as_str().unwrap_or_default();
            if !crate::metrics::good_name(key, false) {
                return wrong(
                    format!("{path}.labels[{number}].key"),
                    format!("metric label '{key}' is invalid"),
                    "keys may only contain alphanumeric characters and '_'",
                );
            }
        }
        let kinds = ["counter", "gauge", "histogram"];
        let given = kinds.iter().filter(|kind| metric[**kind].is_object()).count();
        if given != 1 {
            return wrong(path, "must have one of counter, gauge and histogram", "choose one");
        }
    }
    Ok(())
}
