//! Answers to the engine's questions: conditions, inputs, loops, outputs of graphs, retries.

use std::sync::Arc;

use kobza_engine::{Decision, Question, QuestionKind};
use kobza_expr::argo_expr::Value;
use kobza_expr::argo_template::substitute;
use kobza_expr::govaluate;
use kobza_model::{Cause, HookOn, Json, NodeNo, ScopeNo, TaskNo, TaskRow};
use kobza_runtime::Facts;
use serde_json::{Map, json};

use crate::arguments::{self, Arguments, artifact_value, expression, optional_text};
use crate::compile::duration_ms;
use crate::launch::{ArgoSettings, Image, image_of};
use crate::names::{node_of, phase, template_json, template_spec};
use crate::values::{Values, parameters};

/// Templates that call templates.
pub const RECURSION_MAX: u32 = 100;

fn template_error(message: impl Into<String>) -> Decision {
    Decision::Fail { cause: Cause::Template, message: message.into() }
}

pub(crate) fn decide(question: &Question, facts: &dyn Facts, settings: &ArgoSettings) -> Decision {
    let Some(task) = facts.task(question.task.task) else {
        return template_error("the task is gone");
    };
    let answer = match question.kind {
        QuestionKind::Guard if task.hook.is_some() => hook(&task, facts, settings),
        QuestionKind::Guard => guard(&task, question, facts, settings),
        QuestionKind::Expansion => crate::loops::expand(question.scope, question.node, facts),
        QuestionKind::ScopeOutputs { child } => scope_outputs(&task, child, facts),
        QuestionKind::Retry => return crate::retry::decide(&task, facts),
    };
    answer.unwrap_or_else(template_error)
}

pub(crate) type Answer = Result<Decision, String>;

pub(crate) fn call_of(facts: &dyn Facts, scope: ScopeNo, node: Option<NodeNo>) -> Option<&Json> {
    let row = facts.scope(scope)?;
    Some(&node_of(facts.workflow(), row.template, node?)?.arguments)
}

/// Whether a condition holds; its text after substitution when it does not.
pub(crate) fn condition(when: &str, values: &Values<'_>) -> Result<Option<String>, String> {
    let text = substitute(when, values).map_err(|e| e.to_string())?;
    match govaluate::evaluate(&text) {
        Ok(true) => Ok(None),
        Ok(false) => Ok(Some(text)),
        Err(error) => {
            let hint = "(hint: try wrapping the affected expression in quotes (\"))";
            Err(format!("Invalid 'when' expression '{text}': {error} {hint}"))
        }
    }
}

pub(crate) fn skipped(text: &str) -> Decision {
    Decision::Skip { cause: Cause::Guard, message: Some(format!("when '{text}' evaluated false")) }
}

fn guard(
    task: &TaskRow,
    question: &Question,
    facts: &dyn Facts,
    settings: &ArgoSettings,
) -> Answer {
    let arguments = call_of(facts, question.scope, question.node).unwrap_or(&Json::Null);
    let call = &arguments["call"];
    let mut values = Values::new(facts, Some(question.scope));
    if let Some(index) = question.index {
        let items = task.parent.and_then(|summary| facts.output(summary, "$items"));
        values.item = items.and_then(|items| items.get(index as usize).cloned());
    }
    if let Some(when) = call["when"].as_str().filter(|w| !w.trim().is_empty())
        && let Some(text) = condition(when, &values)?
    {
        return Ok(skipped(&text));
    }
    if depth(facts, question.scope) > RECURSION_MAX {
        return Err(format!("Maximum recursion depth exceeded ({RECURSION_MAX})"));
    }
    let given = if arguments["entry"] == true {
        entry_arguments(facts)
    } else {
        arguments::resolve(&call["arguments"], &values)?
    };
    run(task, &given, values, settings)
}

/// The inputs of a graph that goes on after a retry with other parameters: what its arguments are
/// now. None: they cannot be told, and stay as they were.
pub(crate) fn inputs_again(facts: &dyn Facts, task: &TaskRow) -> Option<Json> {
    let arguments = call_of(facts, task.scope, task.node)?;
    let mut values = Values::new(facts, Some(task.scope));
    values.item = crate::names::item_of(&crate::values::Live(facts), task);
    let given = if arguments["entry"] == true {
        entry_arguments(facts)
    } else {
        arguments::resolve(&arguments["call"]["arguments"], &values).ok()?
    };
    let template = template_json(facts.workflow(), task.template);
    arguments::inputs(template, &given, &mut values).ok()
}

/// Templates between a scope and the root.
fn depth(facts: &dyn Facts, mut scope: ScopeNo) -> u32 {
    let mut depth = 0;
    while let Some(row) = facts.scope(scope) {
        if template_spec(facts.workflow(), row.template)["role"] != "group" {
            depth += 1;
        }
        match row.owner.filter(|o| o.0 != 0).and_then(|o| facts.task(o)) {
            Some(owner) => scope = owner.scope,
            None => break,
        }
    }
    depth
}

/// The entrypoint gets the workflow's arguments.
fn entry_arguments(facts: &dyn Facts) -> Arguments {
    let mut given = Arguments::default();
    for (name, value) in parameters(facts) {
        given.parameters.insert(name, Json::String(value));
    }
    let spec = &facts.workflow().source["spec"]["arguments"]["artifacts"];
    let sent = &facts.run().extra["argo"]["artifacts"];
    for artifact in
        spec.as_array().into_iter().flatten().chain(sent.as_array().into_iter().flatten())
    {
        if let Some(name) = artifact["name"].as_str() {
            given.artifacts.insert(name.to_owned(), artifact.clone());
        }
    }
    given
}

/// The task runs with these arguments, or takes its outputs from the cache.
fn run(
    task: &TaskRow,
    given: &Arguments,
    mut values: Values<'_>,
    settings: &ArgoSettings,
) -> Answer {
    let facts = values.facts;
    let template = template_json(facts.workflow(), task.template);
    let mut inputs = arguments::inputs(template, given, &mut values)?;
    values.inputs = Arc::new(inputs.clone());
    if let Some(suspend) = template.get("suspend")
        && let Some(text) = suspend["duration"].as_str()
    {
        let text = substitute(text, &values).map_err(|e| e.to_string())?;
        let duration = duration_ms(&text)
            .ok_or_else(|| format!("suspend.duration {text:?} is not a duration"))?;
        inputs["duration_ms"] = Json::from(duration);
    }
    if let Some(outputs) = nothing(task, template, &values, settings)? {
        return Ok(Decision::Succeed { cause: Cause::None, outputs });
    }
    if let Some(token) = facts.run().extra["argo"]["memoized"].as_str() {
        let rows = crate::values::Live(facts);
        let name = crate::names::node_name(&rows, task);
        let below = name.strip_prefix(crate::names::workflow_name(facts.run()));
        if let Some((_, outputs)) = below.and_then(|b| facts.cached(&resubmit_key(token, b))) {
            return Ok(Decision::Succeed { cause: Cause::Cache, outputs });
        }
    }
    if let Some(memoize) = template.get("memoize").filter(|m| m.is_object()) {
        let key = memoize["key"].as_str().unwrap_or_default();
        let key = substitute(key, &values).map_err(|e| e.to_string())?;
        let cache = &memoize["cache"]["configMap"]["name"];
        let full = format!("argo/{}/{key}", cache.as_str().unwrap_or("default"));
        if let Some((at, outputs)) = facts.cached(&full) {
            let fresh = match memoize["maxAge"].as_str().filter(|a| !a.is_empty()) {
                None => true,
                Some(age) => {
                    let limit = duration_ms(age)
                        .ok_or_else(|| format!("memoize.maxAge {age:?} is not a duration"))?;
                    let old = (facts.now().0 - at.0).max(0) / 1000;
                    u64::try_from(old).unwrap_or(u64::MAX) <= limit
                }
            };
            if fresh {
                let mut outputs = outputs;
                outputs.push(("$cache".to_owned(), Json::String(full)));
                return Ok(Decision::Succeed { cause: Cause::Cache, outputs });
            }
        }
        inputs["$cache_key"] = Json::String(full);
    }
    if inputs.as_object().is_some_and(Map::is_empty) {
        inputs = Json::Null;
    }
    Ok(Decision::Run { inputs })
}

/// The outputs of a template whose image stands for nothing: the defaults, or empty texts.
fn nothing(
    task: &TaskRow,
    template: &Json,
    values: &Values<'_>,
    settings: &ArgoSettings,
) -> Result<Option<Vec<(String, Json)>>, String> {
    if settings.images.values().all(|image| *image != Image::Nothing) {
        return Ok(None);
    }
    let container = match (&template["script"], &template["containerSet"]["containers"][0]) {
        (script @ Json::Object(_), _) => script,
        (_, member @ Json::Object(_)) => member,
        _ => &template["container"],
    };
    let Some(image) = container["image"].as_str() else { return Ok(None) };
    let image = substitute(image, values).map_err(|e| e.to_string())?;
    if image_of(&settings.images, &image) != Image::Nothing {
        return Ok(None);
    }
    let facts = values.facts;
    let reads_results = facts
        .scope(task.scope)
        .is_some_and(|s| template_spec(facts.workflow(), s.template)["results"] == true);
    let mut outputs = Vec::new();
    if reads_results {
        outputs.push(("result".to_owned(), Json::from("")));
    }
    let mut parameters = Map::new();
    for declared in template["outputs"]["parameters"].as_array().into_iter().flatten() {
        if let Some(name) = declared["name"].as_str() {
            let value = declared["valueFrom"]["default"].as_str().or(declared["value"].as_str());
            parameters.insert(name.to_owned(), Json::from(value.unwrap_or_default()));
        }
    }
    if !parameters.is_empty() {
        outputs.push(("parameters".to_owned(), Json::Object(parameters)));
    }
    Ok(Some(outputs))
}

/// Where the result of an earlier workflow's node is kept for one that is a copy of it.
pub(crate) fn resubmit_key(token: &str, node: &str) -> String {
    format!("argo-resubmit/{token}/{node}")
}

/// A hook runs when its expression holds; once, at the start or at the end.
fn hook(task: &TaskRow, facts: &dyn Facts, settings: &ArgoSettings) -> Answer {
    let workflow = facts.workflow();
    let owner = task.parent.unwrap_or(TaskNo(0));
    let place = usize::from(task.hook.unwrap_or(0));
    let owner_row = facts.task(owner);
    let definition = if owner.0 == 0 {
        workflow.hooks.get(place)
    } else {
        owner_row.as_ref().and_then(|row| {
            let scope = facts.scope(row.scope)?;
            node_of(workflow, scope.template, row.node?)?.hooks.get(place)
        })
    };
    let Some(definition) = definition else { return Err("the hook is not defined".to_owned()) };
    let hook = &definition.arguments["hook"];
    let of_workflow = definition.arguments["level"] == "workflow";
    let mut values = Values::new(facts, Some(task.scope));
    if of_workflow {
        values.inputs = Arc::new(Json::Null);
        if definition.on == HookOn::Start {
            values.own.insert("workflow.status".to_owned(), "Running".to_owned());
        }
    } else if let Some(item) = owner_row.as_ref().and_then(|row| {
        let items = facts.output(row.parent?, "$items")?;
        items.get(row.index? as usize).cloned()
    }) {
        values.item = Some(item);
    }
    if let Some(text) = hook["expression"].as_str().filter(|t| !t.is_empty()) {
        let holds = |values: &Values<'_>| -> Result<bool, String> {
            match expression(text, values)? {
                Value::Bool(holds) => Ok(holds),
                other => Err(format!("hook expression {text:?} is {} and no bool", other.kind())),
            }
        };
        if !holds(&values)? {
            return Ok(Decision::Skip { cause: Cause::Branch, message: None });
        }
        if definition.on != HookOn::Start {
            // What held at the start has run then.
            let mut before =
                Values { own: values.own.clone(), ..Values::new(facts, Some(task.scope)) };
            before.own.insert("workflow.status".to_owned(), "Running".to_owned());
            if let Some(row) = &owner_row {
                for family in ["steps", "tasks"] {
                    before
                        .own
                        .insert(format!("{family}.{}.status", row.name), "Running".to_owned());
                }
            }
            if holds(&before).unwrap_or(false) {
                return Ok(Decision::Skip { cause: Cause::Branch, message: None });
            }
        }
    }
    let given = arguments::resolve(&hook["arguments"], &values)?;
    // Hooks of a workflow see its parameters as arguments, as the entrypoint does.
    let given = if of_workflow && hook.get("arguments").is_none() {
        let mut all = entry_arguments(facts);
        all.parameters.extend(given.parameters);
        all
    } else {
        given
    };
    run(task, &given, values, settings)
}

/// The phase that the workflow ends with, hooks apart.
pub(crate) fn final_status(facts: &dyn Facts) -> &'static str {
    let Some(entry) = facts.task_of(ScopeNo(0), NodeNo(0), None) else { return "Failed" };
    match phase(facts.workflow(), &entry) {
        "Succeeded" | "Skipped" | "Omitted" if facts.run().stop.is_none() => "Succeeded",
        "Error" => "Error",
        _ => "Failed",
    }
}

/// `workflow.failures`: a JSON list, as a JSON string.
pub(crate) fn failures(facts: &dyn Facts) -> String {
    let rows = crate::values::Live(facts);
    let mut list = Vec::new();
    for number in 1.. {
        let Some(task) = facts.task(TaskNo(number)) else { break };
        let word = phase(facts.workflow(), &task);
        let leaf = task.child.is_none() && !task.summary;
        if !leaf || !matches!(word, "Failed" | "Error") {
            continue;
        }
        let name = crate::names::attempt_name(&rows, &task);
        let template = &facts.workflow().templates[task.template.index()].name;
        let run = crate::names::workflow_name(facts.run());
        list.push(json!({
            "displayName": name.rsplit('.').next().unwrap_or(&name),
            "message": task.message.clone().unwrap_or_default(),
            "templateName": template,
            "phase": word,
            "podName": crate::names::pod_name(run, &name, template),
            "finishedAt": task.ended_at.map(crate::values::seconds),
        }));
        if list.len() >= 1000 {
            break;
        }
    }
    Json::String(Json::Array(list).to_string()).to_string()
}

/// Outputs of a steps or dag template that ended well.
fn scope_outputs(owner: &TaskRow, child: ScopeNo, facts: &dyn Facts) -> Answer {
    let template = template_json(facts.workflow(), owner.template);
    let mut values = Values::new(facts, Some(child));
    values.inputs = Arc::new(owner.inputs.clone());
    let mut outputs = Vec::new();
    let mut parameters = Map::new();
    for declared in template["outputs"]["parameters"].as_array().into_iter().flatten() {
        let Some(name) = declared["name"].as_str() else { continue };
        let from = &declared["valueFrom"];
        let value = if let Some(text) = from["parameter"].as_str() {
            match optional_text(text, &values)? {
                // A reference that could not be resolved is left; a default stands for it.
                Some(text) if text.contains("{{") && from.get("default").is_some() => None,
                other => other,
            }
        } else if let Some(text) = from["expression"].as_str() {
            match expression(text, &values)? {
                Value::Nil => None,
                value => Some(value.to_text()),
            }
        } else {
            match declared["value"].as_str() {
                Some(text) => optional_text(text, &values)?,
                None => None,
            }
        };
        let value = value.or_else(|| from["default"].as_str().map(str::to_owned));
        match value {
            Some(value) => {
                parameters.insert(name.to_owned(), Json::String(value));
            }
            None => {
                return Err(format!("outputs.parameters.{name}: its source has no value"));
            }
        }
    }
    let mut artifacts = Map::new();
    for declared in template["outputs"]["artifacts"].as_array().into_iter().flatten() {
        let Some(name) = declared["name"].as_str() else { continue };
        if let Some(mut artifact) = artifact_value(declared, &values)? {
            artifact["name"] = Json::from(name);
            artifacts.insert(name.to_owned(), artifact);
        }
    }
    if !parameters.is_empty() {
        outputs.push(("parameters".to_owned(), Json::Object(parameters)));
    }
    if !artifacts.is_empty() {
        outputs.push(("artifacts".to_owned(), Json::Object(artifacts)));
    }
    Ok(Decision::Outputs(outputs))
}
