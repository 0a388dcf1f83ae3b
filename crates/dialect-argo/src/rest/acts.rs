//! What is done to a workflow: stopped, resumed, set, retried, resubmitted.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json as Body;
use axum::extract::{Path, State};
use kobza_engine::{ClearOptions, Command, StopMode};
use kobza_model::{
    Json, NodeNo, Outcome, RunState, TaskId, TaskNo, TaskRow, TaskState, TemplateBody,
};
use kobza_runtime::Submission;
use kobza_store::Write;
use serde_json::{Map, json};

use super::start::Origin;
use super::workflows::pairs;
use super::{Answer, ArgoError, ArgoState, blocking};
use crate::{Object, RunData};

/// Kind of the store's objects that are results by key.
pub(super) const CACHE: &str = "cache";

pub(super) async fn act(
    State(state): State<ArgoState>,
    Path((namespace, name, action)): Path<(String, String, String)>,
    Body(body): Body<Json>,
) -> Answer {
    let (reading, space, wanted) = (state.clone(), namespace.clone(), name.clone());
    let data = blocking(move || reading.load(reading.find(&space, &wanted)?)).await?;
    let run = data.run.run;
    let name = crate::names::workflow_name(&data.run).to_owned();
    let selector = body["nodeFieldSelector"].as_str().unwrap_or_default();
    let suspended = || chosen(&data, selector, |task| task.state == TaskState::Suspended);
    let commands = match action.as_str() {
        "stop" if !selector.is_empty() => suspended()?
            .into_iter()
            .map(|t| Command::Mark {
                task: TaskId { run, task: t.task },
                outcome: Outcome::Failed,
                by: body["message"].as_str().unwrap_or("stop").to_owned(),
            })
            .collect(),
        "stop" | "terminate" => vec![Command::StopRun {
            run,
            mode: if action == "stop" { StopMode::Stop } else { StopMode::Terminate },
            reason: body["message"].as_str().unwrap_or_default().to_owned(),
        }],
        "suspend" => vec![Command::PauseRun { run }],
        "resume" => {
            let mut commands = Vec::new();
            if data.run.state == RunState::Paused {
                commands.push(Command::ResumeRun { run });
            }
            for task in suspended()? {
                commands.push(resume(&data, task, &Json::Null)?);
            }
            if commands.is_empty() {
                return Err(ArgoError::invalid(
                    "currently, set only targets suspend nodes: no \
                    suspend nodes matching nodeFieldSelector",
                ));
            }
            commands
        }
        "set" => set(&data, &body, suspended()?)?,
        "retry" => retry(&data, &body)?,
        "resubmit" => {
            return resubmit(&state, &namespace, &data, &body).await;
        }
        other => return Err(ArgoError::not_found(format!("action {other:?}"))),
    };
    state.handle.submit(Submission { commands, writes: Vec::new() }).await?;
    state.get(&namespace, &name).await.map(Body)
}

/// What failed runs again, and with `restartSuccessful` what a selector means; parameters may be
/// others than before.
fn retry(data: &RunData, body: &Json) -> Result<Vec<Command>, ArgoError> {
    let run = data.run.run;
    let again = body["restartSuccessful"].as_bool().unwrap_or(false);
    let selector = body["nodeFieldSelector"].as_str().unwrap_or_default();
    if again && selector.is_empty() {
        return Err(ArgoError::invalid(
            "restartSuccessful needs a nodeFieldSelector: which nodes are to run again",
        ));
    }
    let failed = matches!(data.run.state, RunState::Failed | RunState::Cancelled);
    if !(failed || again && data.run.state == RunState::Succeeded) {
        return Err(ArgoError::invalid("workflow must be Failed/Error to retry"));
    }
    let mut commands = Vec::new();
    let given = pairs(&body["parameters"]);
    if !given.is_empty() {
        let mut extra = data.run.extra.clone();
        for (name, value) in given {
            extra["argo"]["parameters"][name.as_str()] = Json::from(value);
        }
        commands.push(Command::Annotate { run, labels: None, params: None, extra: Some(extra) });
    }
    if failed {
        let options = ClearOptions { downstream: false, only_failed: true };
        commands.push(Command::Clear { run, tasks: Vec::new(), options });
    }
    if again {
        let named = chosen(data, selector, |task| {
            task.state == TaskState::Succeeded && task.task.0 != 0 && task.hook.is_none()
        })?;
        let mut tasks = BTreeSet::new();
        for task in named {
            tasks.insert(task.task);
            after(data, task, &mut tasks);
        }
        let tasks: Vec<TaskNo> = tasks.into_iter().collect();
        if tasks.is_empty() && !failed {
            return Err(ArgoError::invalid(format!("no node matches {selector:?}")));
        }
        if !tasks.is_empty() {
            let options = ClearOptions { downstream: false, only_failed: false };
            commands.push(Command::Clear { run, tasks, options });
        }
    }
    Ok(commands)
}

/// What comes after a task, in its graph and in those around it.
fn after(data: &RunData, task: &TaskRow, found: &mut BTreeSet<TaskNo>) {
    let mut task = task;
    loop {
        let Some(scope) = data.scopes.get(task.scope.index()) else { return };
        let template = data.workflow.templates.get(scope.template.index());
        if let (Some(TemplateBody::Graph(graph)), Some(node)) =
            (template.map(|t| &t.body), task.node)
        {
            let mut later = BTreeSet::from([node]);
            // Upstream nodes need not come first in a graph.
            loop {
                let before = later.len();
                for (place, reader) in graph.nodes.iter().enumerate() {
                    if reader.edges.iter().any(|edge| later.contains(&edge.upstream)) {
                        later.insert(NodeNo(u32::try_from(place).unwrap_or(u32::MAX)));
                    }
                }
                if later.len() == before {
                    break;
                }
            }
            later.remove(&node);
            found.extend(
                data.tasks
                    .iter()
                    .filter(|other| other.scope == task.scope && other.index.is_none())
                    .filter(|other| other.hook.is_none())
                    .filter(|other| other.node.is_some_and(|n| later.contains(&n)))
                    .map(|other| other.task),
            );
        }
        let owner = scope.owner.filter(|owner| owner.0 != 0);
        match owner.and_then(|owner| data.tasks.get(owner.index())) {
            Some(owner) => task = owner,
            None => return,
        }
    }
}

async fn resubmit(state: &ArgoState, namespace: &str, data: &RunData, body: &Json) -> Answer {
    let old = crate::names::workflow_name(&data.run).to_owned();
    let memoized = body["memoized"].as_bool().unwrap_or(false);
    if memoized && !matches!(data.run.state, RunState::Failed | RunState::Cancelled) {
        return Err(ArgoError::invalid(
            "workflow must be Failed/Error to resubmit in memoized mode",
        ));
    }
    let notes = &data.run.extra["argo"];
    let prefix = match notes["generateName"].as_str() {
        Some(prefix) => prefix.to_owned(),
        None => format!("{}-", old.trim_end_matches('-')),
    };
    let mut labels = notes["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(
        "workflows.argoproj.io/resubmitted-from-workflow".to_owned(),
        Json::from(old.as_str()),
    );
    let object = Object::from_json(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {
            "generateName": prefix, "namespace": namespace, "labels": labels,
            "annotations": notes["annotations"],
        },
        "spec": crate::status::written_spec(data),
    }))?;
    let mut parameters: BTreeMap<String, String> = data
        .run
        .params
        .as_object()
        .into_iter()
        .chain(notes["parameters"].as_object())
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect();
    parameters.extend(pairs(&body["parameters"]));
    let mut origin = Origin { parameters, ..Origin::default() };
    if memoized {
        let token = uuid::Uuid::new_v4().to_string();
        let writes = remembered(data, &token);
        // They must be there before the first node asks for them.
        state.handle.submit(Submission { commands: Vec::new(), writes }).await?;
        origin.memoized = Some(token);
    }
    state.create(namespace, object, origin).await.map(Body)
}

/// Outputs of what succeeded, for the nodes of the same names of another workflow.
fn remembered(data: &RunData, token: &str) -> Vec<Write> {
    let old = crate::names::workflow_name(&data.run);
    let mut writes = Vec::new();
    for task in &data.tasks {
        let leaf = task.child.is_none() && !task.summary && task.task.0 != 0 && task.hook.is_none();
        if !leaf || task.state != TaskState::Succeeded {
            continue;
        }
        let name = crate::names::node_name(data, task);
        let Some(below) = name.strip_prefix(old) else { continue };
        let outputs: Map<String, Json> = data
            .outputs
            .get(&task.task)
            .into_iter()
            .flatten()
            .filter(|(key, _)| !key.starts_with('$'))
            .map(|(key, value)| (key.clone(), (**value).clone()))
            .collect();
        writes.push(Write::PutObject {
            kind: CACHE,
            namespace: data.run.namespace.clone(),
            key: crate::decide::resubmit_key(token, below),
            value: Some(json!({ "at": task.ended_at, "outputs": outputs })),
        });
    }
    writes
}

/// Tasks that a node field selector means, of those that may be.
fn chosen<'a>(
    data: &'a RunData,
    selector: &str,
    may: impl Fn(&TaskRow) -> bool,
) -> Result<Vec<&'a TaskRow>, ArgoError> {
    let mut found = Vec::new();
    for task in data.tasks.iter().filter(|task| may(task)) {
        let name = crate::names::node_name(data, task);
        let mut all = true;
        for part in selector.split(',').filter(|p| !p.trim().is_empty()) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| ArgoError::invalid(format!("cannot read selector {part:?}")))?;
            let value = value.trim_start_matches('=').trim();
            let own = match key.trim() {
                "displayName" => task.name.clone(),
                "name" => name.clone(),
                "id" => crate::node_id(crate::names::workflow_name(&data.run), &name),
                "phase" => crate::names::phase(&data.workflow, task).to_owned(),
                "templateName" => data.workflow.templates[task.template.index()].name.clone(),
                key => match key
                    .strip_prefix("inputs.parameters.")
                    .and_then(|k| k.strip_suffix(".value"))
                {
                    Some(parameter) => {
                        let value = &task.inputs["parameters"][parameter];
                        value.as_str().unwrap_or_default().to_owned()
                    }
                    None => {
                        return Err(ArgoError::invalid(format!(
                            "unsupported field selector {key:?}"
                        )));
                    }
                },
            };
            all &= own == value;
        }
        if all {
            found.push(task);
        }
    }
    Ok(found)
}

/// Ends a suspended task well, with its supplied outputs or their defaults.
fn resume(data: &RunData, task: &TaskRow, supplied: &Json) -> Result<Command, ArgoError> {
    let template = crate::names::template_json(&data.workflow, task.template);
    let mut parameters = Map::new();
    for declared in template["outputs"]["parameters"].as_array().into_iter().flatten() {
        let Some(name) = declared["name"].as_str() else { continue };
        let value = supplied.get(name).and_then(Json::as_str).map(str::to_owned);
        let value = value.or_else(|| {
            declared["valueFrom"]["default"]
                .as_str()
                .or(declared["default"].as_str())
                .map(str::to_owned)
        });
        match value {
            Some(value) => {
                parameters.insert(name.to_owned(), Json::from(value));
            }
            None => {
                return Err(ArgoError::invalid(format!(
                    "raw output parameter '{name}' has not been set and does not have a default \
                     value"
                )));
            }
        }
    }
    let outputs = if parameters.is_empty() {
        Vec::new()
    } else {
        vec![("parameters".to_owned(), Json::Object(parameters))]
    };
    let task = TaskId { run: data.run.run, task: task.task };
    Ok(Command::ResumeTask { task, outputs: Some(outputs), carry: None })
}

/// `set`: outputs, phase or message of suspended nodes.
fn set(data: &RunData, body: &Json, tasks: Vec<&TaskRow>) -> Result<Vec<Command>, ArgoError> {
    if tasks.is_empty() {
        return Err(ArgoError::invalid(
            "currently, set only targets suspend nodes: no suspend nodes matching \
             nodeFieldSelector",
        ));
    }
    let supplied = match body["outputParameters"].as_str() {
        Some(text) if !text.is_empty() => serde_json::from_str(text)
            .map_err(|e| ArgoError::invalid(format!("outputParameters is not JSON: {e}")))?,
        _ => Json::Null,
    };
    let phase = body["phase"].as_str().unwrap_or_default();
    tasks
        .into_iter()
        .map(|task| {
            let id = TaskId { run: data.run.run, task: task.task };
            match phase {
                "Failed" | "Error" => Ok(Command::Mark {
                    task: id,
                    outcome: Outcome::Failed,
                    by: body["message"].as_str().unwrap_or("set").to_owned(),
                }),
                "Skipped" => {
                    Ok(Command::Mark { task: id, outcome: Outcome::Skipped, by: "set".to_owned() })
                }
                "Succeeded" | "" => resume(data, task, &supplied),
                other => Err(ArgoError::invalid(format!("phase {other:?} cannot be set"))),
            }
        })
        .collect()
}
