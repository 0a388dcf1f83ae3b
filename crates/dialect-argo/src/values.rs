//! The variables that texts of a workflow may refer to, and where their values are.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_expr::argo_expr::{Env, Value};
use kobza_expr::argo_template::{Found, Variables};
use kobza_model::{
    Json, NodeNo, RunRow, ScopeNo, ScopeRow, TaskNo, TaskRow, TaskState, Timestamp, Workflow,
};
use kobza_runtime::Facts;
use serde_json::json;

use crate::names::{self, Rows, phase, template_spec};
use crate::normal::scalar_text;
use crate::outputs;

/// A run's rows as the engine has them now.
pub(crate) struct Live<'a>(pub(crate) &'a dyn Facts);

impl Rows for Live<'_> {
    fn run(&self) -> &RunRow {
        self.0.run()
    }

    fn workflow(&self) -> &Workflow {
        self.0.workflow()
    }

    fn scope(&self, scope: ScopeNo) -> Option<ScopeRow> {
        self.0.scope(scope)
    }

    fn task(&self, task: TaskNo) -> Option<TaskRow> {
        self.0.task(task)
    }

    fn output(&self, task: TaskNo, key: &str) -> Option<Arc<Json>> {
        self.0.output(task, key)
    }
}

/// Where a text stands, and so what it may refer to.
pub(crate) struct Values<'a> {
    pub(crate) facts: &'a dyn Facts,
    /// Where `steps` and `tasks` are looked up.
    pub(crate) scope: Option<ScopeNo>,
    /// Inputs of the enclosing template: `{parameters, artifacts}`.
    pub(crate) inputs: Arc<Json>,
    pub(crate) item: Option<Json>,
    /// Variables of this place alone, by whole name; looked at first.
    pub(crate) own: BTreeMap<String, String>,
    /// Seed of functions that draw.
    pub(crate) seed: u64,
}

/// Names that only a later phase knows: a tag with one of them is left as it is.
const LATE: &[&str] = &["item", "retries", "lastRetry", "status", "duration", "exitCode"];

impl<'a> Values<'a> {
    pub(crate) fn new(facts: &'a dyn Facts, scope: Option<ScopeNo>) -> Self {
        let inputs = match scope {
            Some(scope) => enclosing_inputs(facts, scope),
            None => Arc::new(Json::Null),
        };
        let bytes = facts.run().run.0.as_u64_pair();
        let seed = bytes.0 ^ bytes.1 ^ scope.map_or(0, |s| u64::from(s.0) << 32);
        Self { facts, scope, inputs, item: None, own: BTreeMap::new(), seed }
    }

    /// The value of an artifact by its reference, such as `steps.a.outputs.artifacts.x`.
    pub(crate) fn artifact(&self, name: &str) -> Result<Option<Json>, String> {
        match self.find(name) {
            Found::Text(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|_| format!("{{{{{name}}}}} is not an artifact")),
            Found::Absent => Ok(None),
            Found::Unknown => Err(format!("failed to resolve {{{{{name}}}}}")),
        }
    }

    fn input(&self, rest: &str) -> Found {
        let (side, name) = rest.split_once('.').unwrap_or((rest, ""));
        match (side, name) {
            ("parameters", "") => {
                let list: Vec<Json> = self.inputs["parameters"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, value)| json!({ "name": name, "value": value }))
                    .collect();
                Found::Text(Json::Array(list).to_string())
            }
            ("parameters", name) => match &self.inputs["parameters"][name] {
                Json::String(value) => Found::Text(value.clone()),
                _ => Found::Unknown,
            },
            ("artifacts", name) => match self.inputs["artifacts"].get(name) {
                Some(artifact) if !artifact.is_null() => Found::Text(artifact.to_string()),
                // An optional artifact that nobody supplied.
                Some(_) => Found::Absent,
                None => Found::Unknown,
            },
            _ => Found::Unknown,
        }
    }

    fn item(&self, rest: Option<&str>) -> Found {
        let Some(item) = &self.item else { return Found::Unknown };
        let value = match rest {
            None => Some(item),
            Some(field) => item.get(field),
        };
        match value {
            None => Found::Unknown,
            Some(value) => Found::Text(scalar_text(value).unwrap_or_else(|| value.to_string())),
        }
    }

    /// The scope and node of a step or task by name.
    pub(crate) fn locate(&self, name: &str) -> Option<(ScopeNo, NodeNo)> {
        let here = self.scope?;
        let row = self.facts.scope(here)?;
        let workflow = self.facts.workflow();
        let spec = template_spec(workflow, row.template);
        let steps = match spec["role"].as_str()? {
            "dag" => {
                let node = spec["names"].get(name)?.as_u64()?;
                return Some((here, NodeNo(u32::try_from(node).ok()?)));
            }
            "steps" => here,
            "group" => self.facts.task(row.owner?)?.scope,
            _ => return None,
        };
        let row = self.facts.scope(steps)?;
        let place = template_spec(workflow, row.template)["names"].get(name)?;
        let group = u32::try_from(place[0].as_u64()?).ok()?;
        let node = u32::try_from(place[1].as_u64()?).ok()?;
        let child = self.facts.task_of(steps, NodeNo(group), None)?.child?;
        Some((child, NodeNo(node)))
    }

    fn sibling(&self, rest: &str) -> Found {
        let Some((name, field)) = rest.split_once('.') else { return Found::Unknown };
        let Some((scope, node)) = self.locate(name) else { return Found::Unknown };
        let Some(task) = self.facts.task_of(scope, node, None) else { return Found::Unknown };
        let rows = Live(self.facts);
        let time = |at: Option<Timestamp>| match at {
            Some(at) => Found::Text(seconds(at)),
            None => Found::Unknown,
        };
        match field {
            "status" => Found::Text(phase(self.facts.workflow(), &task).to_owned()),
            "id" => {
                let full = names::node_name(&rows, &task);
                Found::Text(names::node_id(names::workflow_name(self.facts.run()), &full))
            }
            "ip" => Found::Text("127.0.0.1".to_owned()),
            "hostNodeName" => Found::Text("localhost".to_owned()),
            "startedAt" => time(task.started_at),
            "finishedAt" => time(task.ended_at),
            "exitCode" => match task.exit_code {
                Some(code) => Found::Text(code.to_string()),
                None if task.state == TaskState::Succeeded => Found::Text("0".to_owned()),
                None => Found::Unknown,
            },
            _ => match field.strip_prefix("outputs.") {
                Some(output) => outputs::find(self.facts, scope, node, &task, output),
                None => Found::Unknown,
            },
        }
    }

    fn workflow(&self, rest: &str) -> Found {
        let run = self.facts.run();
        let workflow = self.facts.workflow();
        let spec = &workflow.source["spec"];
        let text = |value: &Json| match value.as_str() {
            Some(text) => Found::Text(text.to_owned()),
            None => Found::Unknown,
        };
        let (head, tail) = rest.split_once('.').unwrap_or((rest, ""));
        match (head, tail) {
            ("name", "") => Found::Text(names::workflow_name(run).to_owned()),
            ("namespace", "") => Found::Text(run.namespace.clone()),
            ("uid", "") => Found::Text(run.run.to_string()),
            ("mainEntrypoint", "") => text(&spec["entrypoint"]),
            ("serviceAccountName", "") => {
                Found::Text(spec["serviceAccountName"].as_str().unwrap_or("default").to_owned())
            }
            ("priority", "") => match run.priority {
                0 if spec.get("priority").is_none() => Found::Unknown,
                priority => Found::Text(priority.to_string()),
            },
            ("creationTimestamp", "" | "RFC3339") => Found::Text(seconds(run.created_at)),
            ("creationTimestamp", format) => {
                let format = format!("%{format}");
                let time = run.created_at.to_jiff().to_zoned(jiff::tz::TimeZone::UTC);
                match jiff::fmt::strtime::format(&format, &time) {
                    Ok(text) => Found::Text(text),
                    Err(_) => Found::Unknown,
                }
            }
            ("duration", "") => {
                let start = run.started_at.unwrap_or(run.created_at);
                let micros = (self.facts.now().0 - start.0).max(0);
                Found::Text(format!("{:.6}", micros as f64 / 1e6))
            }
            // Known once the entrypoint has ended: to exit handlers and all that they call.
            ("status" | "failures", "") => {
                let entry = self.facts.task_of(ScopeNo(0), NodeNo(0), None);
                if !entry.is_some_and(|entry| entry.state.is_finished()) {
                    return Found::Unknown;
                }
                Found::Text(match head {
                    "status" => crate::decide::final_status(self.facts).to_owned(),
                    _ => crate::decide::failures(self.facts),
                })
            }
            ("scheduledTime", "") => text(&run.extra["argo"]["scheduledTime"]),
            ("parameters", "" | "json") => {
                let list: Vec<Json> = parameters(self.facts)
                    .into_iter()
                    .map(|(name, value)| json!({ "name": name, "value": value }))
                    .collect();
                Found::Text(Json::Array(list).to_string())
            }
            ("parameters", name) => match parameter(self.facts, name) {
                Some(value) => Found::Text(value),
                None => Found::Unknown,
            },
            ("labels" | "annotations", "json" | "") => {
                Found::Text(run.extra["argo"].get(head).cloned().unwrap_or(json!({})).to_string())
            }
            ("labels" | "annotations", name) => text(&run.extra["argo"][head][name]),
            ("outputs", _) => match outputs::global(self.facts, tail) {
                Some(value) => Found::Text(value),
                None => Found::Unknown,
            },
            _ => Found::Unknown,
        }
    }

    /// What an expression reads at a path.
    fn reading(&self, path: &[String], into: &mut Vec<(String, Value)>) {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        match parts[..] {
            ["item", ..] => {
                if let Some(item) = &self.item {
                    into.push(("item".to_owned(), item_value(item)));
                }
                return;
            }
            ["inputs", "parameters"] | ["inputs"] => {
                into.push(("inputs.parameters".to_owned(), Value::map([])));
                for (name, value) in self.inputs["parameters"].as_object().into_iter().flatten() {
                    into.push((format!("inputs.parameters.{name}"), Value::from(value)));
                }
                return;
            }
            ["workflow", "parameters"] => {
                for (name, value) in parameters(self.facts) {
                    into.push((format!("workflow.parameters.{name}"), Value::str(value)));
                }
                return;
            }
            ["steps" | "tasks", name, "outputs", "parameters"] => {
                let found = self.locate(name).and_then(|(scope, node)| {
                    let task = self.facts.task_of(scope, node, None)?;
                    (self.facts.expansion(scope, node).is_none())
                        .then(|| self.facts.output(task.task, "parameters"))?
                });
                if let Some(map) = found {
                    into.push((path.join("."), Value::from(&*map)));
                    return;
                }
            }
            _ => {}
        }
        for length in (1..=parts.len()).rev() {
            let name = parts[..length].join(".");
            match self.find(&name) {
                Found::Text(text) => {
                    // Artifacts are objects to expressions.
                    let value = if name.contains(".artifacts.") && !name.ends_with(".path") {
                        serde_json::from_str::<Json>(&text)
                            .map_or_else(|_| Value::str(&text), |json| Value::from(&json))
                    } else {
                        Value::str(text)
                    };
                    into.push((name, value));
                    return;
                }
                Found::Absent => {
                    into.push((name, Value::Nil));
                    return;
                }
                Found::Unknown => {}
            }
        }
        // A known family without this member: nil, which `??` and conditions can see.
        if matches!(parts[0], "inputs" | "workflow" | "steps" | "tasks" | "outputs") {
            into.push((parts.join("."), Value::Nil));
        }
    }
}

impl Variables for Values<'_> {
    fn find(&self, name: &str) -> Found {
        if let Some(value) = self.own.get(name) {
            return Found::Text(value.clone());
        }
        match name.split_once('.') {
            None if name == "item" => self.item(None),
            Some(("item", field)) => self.item(Some(field)),
            Some(("inputs", rest)) => self.input(rest),
            Some(("steps" | "tasks", rest)) => self.sibling(rest),
            Some(("workflow", rest)) => self.workflow(rest),
            _ => Found::Unknown,
        }
    }

    fn env(&self, paths: &[Vec<String>]) -> Option<Env> {
        let mut entries = Vec::new();
        for path in paths {
            let known = self.own.keys().any(|k| k.split('.').next() == Some(&path[0]));
            let late = LATE.contains(&path[0].as_str());
            if path[0] == "workflow"
                && matches!(path.get(1).map(String::as_str), Some("status" | "failures"))
                && self.find(&path[..2].join(".")) == Found::Unknown
            {
                return None;
            }
            if late && !known && !(path[0] == "item" && self.item.is_some()) {
                return None;
            }
            self.reading(path, &mut entries);
        }
        let mut env = Env::from_dotted(entries.iter().map(|(k, v)| (k.as_str(), v.clone())));
        env.now = Some(self.facts.now().to_jiff());
        env.seed = self.seed;
        Some(env)
    }

    fn must_know(&self, name: &str) -> bool {
        name.starts_with("steps.") || name.starts_with("tasks.") || name.starts_with("inputs.")
    }
}

/// An item as expressions see it: scalars are strings, as everywhere.
fn item_value(item: &Json) -> Value {
    let scalar = |value: &Json| match scalar_text(value) {
        Some(text) => Value::str(text),
        None => Value::from(value),
    };
    match item {
        Json::Object(fields) => {
            Value::map(fields.iter().map(|(key, value)| (key.clone(), scalar(value))))
        }
        other => scalar(other),
    }
}

/// RFC 3339 to the second.
pub(crate) fn seconds(at: Timestamp) -> String {
    let whole = Timestamp(at.0.div_euclid(1_000_000) * 1_000_000);
    format!("{:.0}", whole.to_jiff())
}

/// The inputs of the template that a scope activates; of the steps template for a group.
pub(crate) fn enclosing_inputs(facts: &dyn Facts, scope: ScopeNo) -> Arc<Json> {
    let none = || Arc::new(Json::Null);
    let Some(row) = facts.scope(scope) else { return none() };
    let Some(owner) = row.owner.and_then(|o| facts.task(o)) else { return none() };
    if template_spec(facts.workflow(), row.template)["role"] == "group" {
        return enclosing_inputs(facts, owner.scope);
    }
    if facts.run().extra["argo"]["parameters"].is_object()
        && let Some(inputs) = crate::decide::inputs_again(facts, &owner)
    {
        return Arc::new(inputs);
    }
    Arc::new(owner.inputs)
}

/// All parameters of the workflow, in the order of the spec, further ones after.
pub(crate) fn parameters(facts: &dyn Facts) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let spec = &facts.workflow().source["spec"]["arguments"]["parameters"];
    for declared in spec.as_array().into_iter().flatten() {
        if let Some(name) = declared["name"].as_str()
            && let Some(value) = parameter(facts, name)
        {
            all.push((name.to_owned(), value));
        }
    }
    for name in facts.run().params.as_object().into_iter().flat_map(serde_json::Map::keys) {
        if !all.iter().any(|(known, _)| known == name)
            && let Some(value) = parameter(facts, name)
        {
            all.push((name.clone(), value));
        }
    }
    all
}

/// One parameter of the workflow.
pub(crate) fn parameter(facts: &dyn Facts, name: &str) -> Option<String> {
    // A retry may have brought another value.
    if let Some(value) = facts.run().extra["argo"]["parameters"][name].as_str() {
        return Some(value.to_owned());
    }
    if let Some(value) = facts.run().params.get(name).filter(|v| !v.is_null()) {
        return Some(scalar_text(value).unwrap_or_else(|| value.to_string()));
    }
    let spec = &facts.workflow().source["spec"]["arguments"]["parameters"];
    let declared = spec.as_array()?.iter().find(|p| p["name"].as_str() == Some(name))?;
    let default = declared["valueFrom"]["default"].as_str().or(declared["default"].as_str());
    value_from(facts, declared).or_else(|| default.map(str::to_owned))
}

/// A parameter's own value: literal, or from a ConfigMap or Secret.
fn value_from(facts: &dyn Facts, declared: &Json) -> Option<String> {
    if let Some(value) = declared["value"].as_str() {
        return Some(value.to_owned());
    }
    config_value(facts, "configmap", &declared["valueFrom"]["configMapKeyRef"])
}

/// A value of a ConfigMap or Secret by `{name, key}`.
pub(crate) fn config_value(facts: &dyn Facts, kind: &str, reference: &Json) -> Option<String> {
    key_of(&|kind, name| facts.lookup(kind, name), kind, reference)
}

/// The same, of what a lookup by kind and name finds.
pub(crate) fn key_of(
    lookup: &dyn Fn(&str, &str) -> Option<Arc<Json>>,
    kind: &str,
    reference: &Json,
) -> Option<String> {
    let map = lookup(kind, reference["name"].as_str()?)?;
    let key = reference["key"].as_str()?;
    let data = map.get("data").filter(|d| d.is_object()).unwrap_or(&map);
    if let Some(text) = map.get("stringData").and_then(|d| d.get(key)).and_then(Json::as_str) {
        return Some(text.to_owned());
    }
    let text = data.get(key)?.as_str()?;
    // Secrets as Kubernetes writes them are base64; ours say so by `data` beside a kind.
    if kind == "secret" && map.get("kind").is_some_and(|k| k == "Secret") {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
        return String::from_utf8(bytes).ok();
    }
    Some(text.to_owned())
}
