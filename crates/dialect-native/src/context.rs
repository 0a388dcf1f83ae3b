//! What templates see of a run.
//!
//! Only what a task's templates look at is fetched; the compiler found out what that is.

use std::sync::Arc;

use kobza_expr::native::Context;
use kobza_model::{Graph, Json, NodeNo, ScopeNo, TaskNo, TaskRow, TemplateBody, Workflow};
use kobza_runtime::Facts;
use serde::Deserialize as _;
use serde_json::{Map, json};

use crate::spec::{Reads, TaskRead};

/// Where in a run a template is rendered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) task: TaskNo,
    pub(crate) scope: ScopeNo,
    pub(crate) index: Option<u32>,
}

/// What was gathered: the context, and secret values in it.
pub(crate) struct Gathered {
    pub(crate) context: Context,
    pub(crate) secrets: Vec<String>,
}

/// Gathers what `reads` names.
pub(crate) fn gather(
    place: Place,
    attempt: u32,
    reads: &Reads,
    facts: &dyn Facts,
) -> Result<Gathered, String> {
    let run = facts.run();
    let mut values = Map::new();
    let mut secrets = Vec::new();
    values.insert("params".to_owned(), run.params.clone());
    let created = run.created_at.to_string();
    values.insert(
        "run".to_owned(),
        json!({
            "id": run.run.to_string(), "name": run.key.clone().unwrap_or_else(|| run.run.to_string()),
            "key": run.key, "trigger": run.trigger, "created_at": created, "labels": run.labels,
        }),
    );
    values.insert("workflow".to_owned(), json!({"name": run.workflow, "version": run.version}));
    // A run without an interval stands for the moment it was asked for.
    let time = |t: Option<kobza_model::Timestamp>| t.unwrap_or(run.created_at).to_string();
    values.insert(
        "interval".to_owned(),
        json!({"start": time(run.interval_start), "end": time(run.interval_end)}),
    );
    values.insert("partition".to_owned(), json!(run.partition));
    let own = facts.task(place.task);
    let name = own.as_ref().map_or("", |row| row.name.as_str());
    values.insert("task".to_owned(), json!({"name": name, "attempt": attempt}));
    if let Some(owner) = own.as_ref().filter(|row| row.hook.is_some()) {
        values.insert("owner".to_owned(), owner_of(owner, facts));
    }
    if reads.item {
        let (item, index) = item_of(place, own.as_ref(), facts)?;
        values.insert("item".to_owned(), item);
        values.insert("index".to_owned(), json!(index));
    }
    if !reads.tasks.is_empty() {
        let mut tasks = Map::new();
        for read in &reads.tasks {
            insert(&mut tasks, &read.path, task_value(place, read, facts));
        }
        values.insert("tasks".to_owned(), Json::Object(tasks));
    }
    for (word, kind, names) in
        [("var", "variable", &reads.variables), ("secret", "secret", &reads.secrets)]
    {
        if names.is_empty() {
            continue;
        }
        let mut found = Map::new();
        for name in names {
            let Some(value) = facts.lookup(kind, name) else { continue };
            secrets.extend(secrets_of(kind, name, &value, facts));
            found.insert(name.clone(), Json::clone(&value));
        }
        values.insert(word.to_owned(), Json::Object(found));
    }
    Ok(Gathered { context: Context::new(&values), secrets })
}

/// What of a value must not show in logs.
pub(crate) fn secrets_of(kind: &str, name: &str, value: &Json, facts: &dyn Facts) -> Vec<String> {
    let mut secrets = Vec::new();
    match kind {
        "secret" => collect_texts(value, &mut secrets),
        _ => {
            if let Some(sealed) = facts.lookup(&format!("sealed/{kind}"), name) {
                collect_texts(&sealed, &mut secrets);
            }
        }
    }
    if kind == "connection" {
        hide(value, &mut secrets);
    }
    mask_worthy(&mut secrets);
    secrets
}

/// Masking every `a` would destroy a log; so short a secret protects nothing.
pub(crate) fn mask_worthy(secrets: &mut Vec<String>) {
    secrets.retain(|secret| secret.chars().count() >= 4);
    secrets.sort();
    secrets.dedup();
}

/// Gathers what must not show in logs: passwords in addresses and in fields that say they are.
pub(crate) fn hide(connection: &Json, secrets: &mut Vec<String>) {
    let Some(fields) = connection.as_object() else { return };
    for (key, value) in fields {
        let word = key.to_lowercase();
        if ["password", "secret", "token", "key"].iter().any(|mark| word.contains(mark)) {
            collect_texts(value, secrets);
        } else if value.is_object() {
            hide(value, secrets);
        } else if let Some(text) = value.as_str()
            && let Some((_, rest)) = text.split_once("://")
            && let Some((user, _)) = rest.split('/').next().unwrap_or("").rsplit_once('@')
            && let Some((_, password)) = user.split_once(':')
        {
            secrets.push(password.to_owned());
        }
    }
}

pub(crate) fn collect_texts(value: &Json, out: &mut Vec<String>) {
    match value {
        Json::String(text) if !text.is_empty() => out.push(text.clone()),
        Json::Array(items) => items.iter().for_each(|item| collect_texts(item, out)),
        Json::Object(fields) => fields.values().for_each(|item| collect_texts(item, out)),
        _ => {}
    }
}

/// What a hook hangs on: a task, or the run.
fn owner_of(hook: &TaskRow, facts: &dyn Facts) -> Json {
    match hook.parent.and_then(|parent| facts.task(parent)) {
        Some(row) => json!({
            "name": row.name, "state": row.state.as_str(), "cause": row.cause.as_str(),
            "message": row.message, "attempt": row.attempt, "exit_code": row.exit_code,
            "result": facts.output(row.task, "result").map(|r| Json::clone(&r)),
        }),
        None => {
            let run = facts.run();
            json!({
                "name": run.workflow, "state": run.state.as_str(), "cause": run.cause.as_str(),
                "message": run.message,
            })
        }
    }
}

fn insert(into: &mut Map<String, Json>, path: &[String], value: Json) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        match into.get_mut(first) {
            // A group with the fields of a task beside its members cannot occur: names differ.
            Some(Json::Object(old)) => {
                if let Json::Object(new) = value {
                    old.extend(new);
                }
            }
            _ => {
                into.insert(first.clone(), value);
            }
        }
        return;
    }
    let inner = into.entry(first.clone()).or_insert_with(|| Json::Object(Map::new()));
    if let Json::Object(inner) = inner {
        insert(inner, rest, value);
    }
}

/// The scope so many levels up, and the index that this place has in the caller there.
fn outer(place: Place, up: u32, facts: &dyn Facts) -> Option<(ScopeNo, Option<u32>)> {
    let mut scope = place.scope;
    let mut index = place.index;
    for _ in 0..up {
        let owner = facts.task(facts.scope(scope)?.owner?)?;
        scope = owner.scope;
        index = owner.index;
    }
    Some((scope, index))
}

fn task_value(place: Place, read: &TaskRead, facts: &dyn Facts) -> Json {
    let node = NodeNo(read.node);
    let Some((scope, index)) = outer(place, read.up, facts) else { return Json::Null };
    let Some(summary) = facts.task_of(scope, node, None) else { return Json::Null };
    // By its definition: an expansion of length zero has a plain task in its place.
    let workflow = facts.workflow();
    let mapped = graph_of(scope, workflow, facts)
        .and_then(|graph| graph.nodes.get(node.index()))
        .is_some_and(|definition| definition.expansion.is_some());
    if !mapped {
        return one_task(&summary, facts);
    }
    if read.aligned
        && let Some(row) = index.and_then(|i| facts.task_of(scope, node, Some(i)))
    {
        return one_task(&row, facts);
    }
    let length = facts.expansion(scope, node).unwrap_or(0);
    let rows: Vec<Option<TaskRow>> =
        (0..length).map(|i| facts.task_of(scope, node, Some(i))).collect();
    let mut outputs: Map<String, Json> = Map::new();
    outputs.insert("result".to_owned(), json!(vec![Json::Null; length as usize]));
    for (place, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        for (key, value) in outputs_of(row, facts) {
            let list =
                outputs.entry(key).or_insert_with(|| json!(vec![Json::Null; length as usize]));
            list[place] = Json::clone(&value);
        }
    }
    let states: Vec<&str> =
        rows.iter().map(|row| row.as_ref().map_or("pending", |r| r.state.as_str())).collect();
    json!({
        "name": summary.name, "state": summary.state.as_str(), "states": states,
        "result": outputs["result"], "output": outputs, "count": length,
    })
}

fn one_task(row: &TaskRow, facts: &dyn Facts) -> Json {
    let outputs: Map<String, Json> =
        outputs_of(row, facts).into_iter().map(|(key, value)| (key, Json::clone(&value))).collect();
    let mut value = json!({"name": row.name, "state": row.state.as_str()});
    // Absent rather than null: a template that needs it then fails with its name.
    if let Some(result) = outputs.get("result") {
        value["result"] = result.clone();
    }
    value["output"] = Json::Object(outputs);
    value
}

/// A task's outputs, the engine's own left out. The result of an `sql` task is its rows, that of an
/// `http` task the body of the answer.
fn outputs_of(row: &TaskRow, facts: &dyn Facts) -> Vec<(String, Arc<Json>)> {
    let mut all: Vec<(String, Arc<Json>)> =
        facts.outputs(row.task).into_iter().filter(|(key, _)| !key.starts_with('$')).collect();
    let find = |wanted: &str| all.iter().find(|(key, _)| key == wanted).map(|(_, v)| v.clone());
    if find("result").is_none()
        && let Some(result) = find("rows").or_else(|| find("body"))
    {
        all.push(("result".to_owned(), result));
    }
    all
}

/// The item of the nearest mapped task around this place.
fn item_of(place: Place, own: Option<&TaskRow>, facts: &dyn Facts) -> Result<(Json, u32), String> {
    let mut scope = place.scope;
    let mut row = own.cloned();
    let mut index = place.index;
    // A hook stands for the task that it hangs on.
    if let Some(hook) = row.as_ref().filter(|row| row.hook.is_some())
        && let Some(owner) = hook.parent.and_then(|parent| facts.task(parent))
    {
        (scope, index) = (owner.scope, owner.index);
        row = Some(owner);
    }
    loop {
        if let (Some(index), Some(node)) = (index, row.as_ref().and_then(|r| r.node)) {
            return Ok((item_at(scope, node, index, facts)?, index));
        }
        let owner = facts.scope(scope).and_then(|s| s.owner).and_then(|task| facts.task(task));
        let Some(owner) = owner else {
            return Err("`item` is known only in instances of a mapped task".to_owned());
        };
        scope = owner.scope;
        index = owner.index;
        row = Some(owner);
    }
}

fn item_at(scope: ScopeNo, node: NodeNo, index: u32, facts: &dyn Facts) -> Result<Json, String> {
    let workflow = facts.workflow();
    let mut node = node;
    // Chains of `like` end, since they may not form a cycle.
    for _ in 0..1000 {
        let Some(graph) = graph_of(scope, workflow, facts) else { break };
        let Some(definition) = graph.nodes.get(node.index()) else { break };
        // Read in place: written-out items can be many, and each instance wants one.
        let map = &definition.arguments["map"];
        let at = |items: &Json| items.get(index as usize).cloned().ok_or_else(|| missing(index));
        if let Some(items) = map.get("items") {
            return at(items);
        }
        if map.get("range").is_some() || map.get("range_of").is_some() {
            return Ok(json!(index));
        }
        if let Some(leader) = map.get("like").and_then(Json::as_u64) {
            node = NodeNo(u32::try_from(leader).unwrap_or(u32::MAX));
            continue;
        }
        let summary = facts.task_of(scope, node, None).ok_or_else(|| missing(index))?;
        if let Some(items) = map.get("templates") {
            // The item does not exist yet: it is rendered where the node as a whole stands.
            let reads = Reads::deserialize(&definition.arguments["reads"]).unwrap_or_default();
            let outside = Place { task: summary.task, scope, index: None };
            let gathered = gather(outside, 0, &reads, facts)?;
            return kobza_expr::native::render_json(&at(items)?, &gathered.context)
                .map_err(|e| format!("map: {e}"));
        }
        let items = facts.output(summary.task, "$items").ok_or_else(|| missing(index))?;
        return at(items.as_ref());
    }
    Err(missing(index))
}

fn missing(index: u32) -> String {
    format!("item {index} is not known")
}

/// The graph that a scope activates.
pub(crate) fn graph_of<'w>(
    scope: ScopeNo,
    workflow: &'w Workflow,
    facts: &dyn Facts,
) -> Option<&'w Graph> {
    let template = facts.scope(scope)?.template;
    match &workflow.templates.get(template.index())?.body {
        TemplateBody::Graph(graph) => Some(graph),
        TemplateBody::Leaf(_) => None,
    }
}
