//! Routes of workflows.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json as Body, Router};
use kobza_engine::{ClearOptions, Command, StopMode};
use kobza_model::{Json, Outcome, RunId, RunState, TaskId, TaskRow, TaskState};
use kobza_runtime::Submission;
use kobza_store::RunFilter;
use serde::Deserialize;
use serde_json::{Map, json};

use super::start::Origin;
use super::{Answer, ArgoError, ArgoState, OBJECT, blocking, select, stream};
use crate::{Kind, Object};

pub(super) fn routes() -> Router<ArgoState> {
    Router::new()
        .route("/api/v1/workflows/{namespace}", get(list).post(create))
        .route("/api/v1/workflows/{namespace}/lint", post(lint))
        .route("/api/v1/workflows/{namespace}/submit", post(submit))
        .route("/api/v1/workflows/{namespace}/{name}", get(one).delete(delete))
        .route("/api/v1/workflows/{namespace}/{name}/log", get(stream::logs))
        .route("/api/v1/workflows/{namespace}/{name}/{action}", put(act))
        .route("/api/v1/workflows/{namespace}/{name}/{pod}/log", get(stream::pod_logs))
        .route("/api/v1/workflow-events/{namespace}", get(stream::watch))
        .route("/api/v1/stream/events/{namespace}", get(stream::no_events))
}

/// Query parameters of lists and watches.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    #[serde(rename = "listOptions.labelSelector")]
    pub(super) labels: String,
    #[serde(rename = "listOptions.fieldSelector")]
    pub(super) field_selector: String,
    #[serde(rename = "listOptions.limit")]
    limit: String,
    #[serde(rename = "listOptions.continue")]
    cursor: String,
    pub(super) fields: String,
    #[serde(rename = "nameFilter")]
    name_filter: String,
    #[serde(rename = "namePrefix")]
    name_prefix: String,
    #[serde(rename = "createdAfter")]
    created_after: String,
    #[serde(rename = "finishedBefore")]
    finished_before: String,
    uid: String,
}

async fn list(
    State(state): State<ArgoState>,
    Path(namespace): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let fields = wanted.fields.clone();
    let found = blocking(move || listed(&state, &namespace, &wanted)).await?;
    Ok(Body(select::fields(found, &fields)))
}

/// Most objects of a list whose limit is open.
const LIST_MAX: usize = 5000;

fn listed(state: &ArgoState, namespace: &str, wanted: &Wanted) -> Result<Json, ArgoError> {
    let limit = wanted.limit.parse().ok().filter(|n| *n > 0).unwrap_or(LIST_MAX).min(LIST_MAX);
    let time = |text: &str| -> Result<Option<kobza_model::Timestamp>, ArgoError> {
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| ArgoError::invalid(format!("{text:?} is not a time")))
    };
    let filter = RunFilter {
        namespaces: vec![namespace.to_owned()],
        created_from: time(&wanted.created_after)?,
        ..RunFilter::default()
    };
    let finished_before = time(&wanted.finished_before)?;
    let with_nodes = wanted.fields.is_empty()
        || (wanted.fields.contains("status.nodes") && !wanted.fields.starts_with('-'));
    let by_name = select::field(&wanted.field_selector, "metadata.name");
    let mut cursor = Some(wanted.cursor.clone()).filter(|c| !c.is_empty());
    let mut items = Vec::new();
    loop {
        let size = u32::try_from((limit - items.len()).clamp(1, 500)).unwrap_or(500);
        let page = state.views.list_runs(&filter, cursor.as_deref(), size)?;
        for run in page.items {
            let name = crate::names::workflow_name(&run).to_owned();
            let prefix = match wanted.name_filter.as_str() {
                "Contains" => name.contains(&wanted.name_prefix),
                "Exact" => name == wanted.name_prefix,
                _ => name.starts_with(&wanted.name_prefix),
            };
            let named = by_name.is_none_or(|wanted| wanted == name);
            let ended = finished_before.is_none_or(|at| run.ended_at.is_some_and(|e| e < at));
            if run.dialect != "argo" || !prefix || !named || !ended {
                continue;
            }
            let id = run.run;
            let Some(light) = state.light(run)? else { continue };
            let mut object = crate::workflow_object(&light);
            if !select::labels_match(&wanted.labels, &object["metadata"]["labels"])
                .map_err(ArgoError::invalid)?
            {
                continue;
            }
            if with_nodes {
                object = crate::workflow_object(&state.load(id)?);
            }
            items.push(object);
        }
        cursor = page.next;
        if cursor.is_none() || items.len() >= limit {
            break;
        }
    }
    let mut metadata = json!({ "resourceVersion": state.handle.next_event().borrow().to_string() });
    if let Some(cursor) = cursor {
        metadata["continue"] = Json::from(cursor);
    }
    Ok(json!({ "metadata": metadata, "items": items }))
}

fn workflow_in(body: &Json, field: &str, kind: Kind) -> Result<Object, ArgoError> {
    let mut json = body
        .get(field)
        .filter(|w| w.is_object())
        .cloned()
        .ok_or_else(|| ArgoError::invalid(format!("the request has no field {field:?}")))?;
    // Clients leave these out.
    if json["kind"].as_str().is_none_or(str::is_empty) {
        json["kind"] = Json::from(kind.as_str());
    }
    Ok(Object::from_json(json)?)
}

async fn create(
    State(state): State<ArgoState>,
    Path(namespace): Path<String>,
    Body(body): Body<Json>,
) -> Answer {
    let object = workflow_in(&body, "workflow", Kind::Workflow)?;
    let dry = body["serverDryRun"].as_bool().unwrap_or(false)
        || body["createOptions"]["dryRun"].as_array().is_some_and(|all| !all.is_empty());
    let origin = Origin { dry, ..Origin::default() };
    state.create(&namespace, object, origin).await.map(Body)
}

async fn lint(
    State(state): State<ArgoState>,
    Path(namespace): Path<String>,
    Body(body): Body<Json>,
) -> Answer {
    let object = workflow_in(&body, "workflow", Kind::Workflow)?;
    blocking(move || {
        state.lint(&namespace, &object)?;
        Ok(Body(object.json))
    })
    .await
}

/// `a=b` pairs.
fn pairs(json: &Json) -> BTreeMap<String, String> {
    json.as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| p.as_str()?.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// `a=b,c=d` in one text.
fn label_map(text: Option<&str>) -> Map<String, Json> {
    text.into_iter()
        .flat_map(|t| t.split(','))
        .filter_map(|p| p.split_once('='))
        .map(|(k, v)| (k.trim().to_owned(), Json::from(v.trim())))
        .collect()
}

async fn submit(
    State(state): State<ArgoState>,
    Path(namespace): Path<String>,
    Body(body): Body<Json>,
) -> Answer {
    let kind = body["resourceKind"].as_str().unwrap_or_default().to_lowercase();
    let name = body["resourceName"].as_str().unwrap_or_default().to_owned();
    let options = body["submitOptions"].clone();
    let mut spec = match kind.as_str() {
        "workflowtemplate" | "workflow-template" | "workflowtemplates" => {
            json!({ "workflowTemplateRef": { "name": name } })
        }
        "clusterworkflowtemplate" | "cluster-workflow-template" | "clusterworkflowtemplates" => {
            json!({ "workflowTemplateRef": { "name": name, "clusterScope": true } })
        }
        "cronworkflow" | "cron-workflow" | "cronworkflows" | "cronwf" => {
            let (state, namespace, name) = (state.clone(), namespace.clone(), name.clone());
            blocking(move || {
                let found =
                    state.store.object(OBJECT, &namespace, &format!("CronWorkflow/{name}"))?;
                let found =
                    found.ok_or_else(|| ArgoError::not_found(format!("cron workflow {name:?}")))?;
                Ok(found["spec"]["workflowSpec"].clone())
            })
            .await?
        }
        other => {
            return Err(ArgoError::invalid(format!("resource kind {other:?} is not supported")));
        }
    };
    if let Some(entry) = options["entryPoint"].as_str().filter(|e| !e.is_empty()) {
        spec["entrypoint"] = Json::from(entry);
    }
    let mut metadata = json!({ "namespace": namespace });
    match (options["name"].as_str(), options["generateName"].as_str()) {
        (Some(own), _) if !own.is_empty() => metadata["name"] = Json::from(own),
        (_, Some(prefix)) if !prefix.is_empty() => metadata["generateName"] = Json::from(prefix),
        _ => metadata["generateName"] = Json::from(format!("{name}-")),
    }
    let object = Object::from_json(json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "spec": spec,
    }))?;
    let origin = Origin {
        parameters: pairs(&options["parameters"]),
        labels: label_map(options["labels"].as_str()),
        annotations: label_map(options["annotations"].as_str()),
        trigger: None,
        dry: options["serverDryRun"].as_bool().unwrap_or(false)
            || options["dryRun"].as_bool().unwrap_or(false),
        ..Origin::default()
    };
    state.create(&namespace, object, origin).await.map(Body)
}

async fn one(
    State(state): State<ArgoState>,
    Path((namespace, name)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Answer {
    let object = state.get(&namespace, &name).await?;
    if !wanted.uid.is_empty() && object["metadata"]["uid"] != wanted.uid.as_str() {
        return Err(ArgoError::not_found(format!("workflows.argoproj.io \"{name}\"")));
    }
    Ok(Body(select::fields(object, &wanted.fields)))
}

async fn delete(
    State(state): State<ArgoState>,
    Path((namespace, name)): Path<(String, String)>,
) -> Answer {
    let (reading, space, wanted) = (state.clone(), namespace.clone(), name.clone());
    let image = blocking(move || reading.image(reading.find(&space, &wanted)?)).await?;
    let run = image.run.run;
    if !image.run.state.is_finished() {
        let reason = "the workflow was deleted".to_owned();
        let stop = Command::StopRun { run, mode: StopMode::Terminate, reason };
        // It may have ended by itself meanwhile.
        let _ended = state.handle.submit(stop).await;
        wait_for_end(&state, run).await;
    }
    let writes = super::upkeep::removal(&image.run).into();
    state.handle.submit(Submission { commands: Vec::new(), writes }).await?;
    Ok(Body(json!({})))
}

/// Waits until a run that was stopped has ended; not for ever, since bodies may not die.
async fn wait_for_end(state: &ArgoState, run: RunId) {
    let mut changed = state.handle.next_event();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let reading = state.clone();
        let ended =
            blocking(move || Ok(reading.image(run)?.run.state.is_finished())).await.unwrap_or(true);
        if ended || tokio::time::timeout_at(deadline, changed.changed()).await.is_err() {
            return;
        }
    }
}

async fn act(
    State(state): State<ArgoState>,
    Path((namespace, name, action)): Path<(String, String, String)>,
    Body(body): Body<Json>,
) -> Answer {
    let (reading, space, wanted) = (state.clone(), namespace.clone(), name.clone());
    let data = blocking(move || reading.load(reading.find(&space, &wanted)?)).await?;
    let run = data.run.run;
    let name = crate::names::workflow_name(&data.run).to_owned();
    let selector = body["nodeFieldSelector"].as_str().unwrap_or_default();
    let suspended = || chosen(&data, selector);
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
        "retry" => {
            if !matches!(data.run.state, RunState::Failed | RunState::Cancelled) {
                return Err(ArgoError::invalid("workflow must be Failed/Error to retry"));
            }
            let options = ClearOptions { downstream: false, only_failed: true };
            vec![Command::Clear { run, tasks: Vec::new(), options }]
        }
        "resubmit" => {
            return resubmit(&state, &namespace, &data, &body).await;
        }
        other => return Err(ArgoError::not_found(format!("action {other:?}"))),
    };
    state.handle.submit(Submission { commands, writes: Vec::new() }).await?;
    state.get(&namespace, &name).await.map(Body)
}

async fn resubmit(
    state: &ArgoState,
    namespace: &str,
    data: &crate::RunData,
    body: &Json,
) -> Answer {
    let old = crate::names::workflow_name(&data.run).to_owned();
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
        "spec": notes["spec"],
    }))?;
    let mut parameters: BTreeMap<String, String> = data
        .run
        .params
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect();
    parameters.extend(pairs(&body["parameters"]));
    let origin = Origin { parameters, ..Origin::default() };
    state.create(namespace, object, origin).await.map(Body)
}

/// Suspended tasks that a node field selector means.
fn chosen<'a>(data: &'a crate::RunData, selector: &str) -> Result<Vec<&'a TaskRow>, ArgoError> {
    let mut found = Vec::new();
    for task in data.tasks.iter().filter(|t| t.state == TaskState::Suspended) {
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
                "phase" => "Running".to_owned(),
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
fn resume(data: &crate::RunData, task: &TaskRow, supplied: &Json) -> Result<Command, ArgoError> {
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
fn set(
    data: &crate::RunData,
    body: &Json,
    tasks: Vec<&TaskRow>,
) -> Result<Vec<Command>, ArgoError> {
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

/// Used by the routes that answer streams.
pub(super) type Streamed = Result<Response, ArgoError>;
