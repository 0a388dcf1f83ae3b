//! Routes of workflows.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json as Body, Router};
use kobza_engine::{Command, StopMode};
use kobza_model::{Json, RunId, RunState};
use kobza_store::RunFilter;
use serde::Deserialize;
use serde_json::{Map, json};

use super::start::Origin;
use super::{Answer, ArgoError, ArgoState, OBJECT, acts, blocking, select, stream};
use crate::{Kind, Object};

pub(super) fn routes() -> Router<ArgoState> {
    Router::new()
        .route("/api/v1/workflows/{namespace}", get(list).post(create))
        .route("/api/v1/workflows/{namespace}/lint", post(lint))
        .route("/api/v1/workflows/{namespace}/submit", post(submit))
        .route("/api/v1/workflows/{namespace}/{name}", get(one).delete(delete))
        .route("/api/v1/workflows/{namespace}/{name}/log", get(stream::logs))
        .route("/api/v1/workflows/{namespace}/{name}/{action}", put(acts::act))
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
    pub(super) limit: String,
    #[serde(rename = "listOptions.continue")]
    pub(super) cursor: String,
    pub(super) fields: String,
    #[serde(rename = "nameFilter")]
    pub(super) name_filter: String,
    #[serde(rename = "namePrefix")]
    pub(super) name_prefix: String,
    #[serde(rename = "createdAfter")]
    pub(super) created_after: String,
    #[serde(rename = "finishedBefore")]
    pub(super) finished_before: String,
    pub(super) uid: String,
    /// Of the archive's list.
    pub(super) namespace: String,
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
    let filter = RunFilter { namespaces: vec![namespace.to_owned()], ..RunFilter::default() };
    let with_nodes = wanted.fields.is_empty()
        || (wanted.fields.contains("status.nodes") && !wanted.fields.starts_with('-'));
    found(state, filter, wanted, with_nodes)
}

/// Workflows that have ended, of all namespaces unless one is named; without their nodes.
pub(super) fn archived(state: &ArgoState, wanted: &Wanted) -> Result<Json, ArgoError> {
    let namespace = select::field(&wanted.field_selector, "metadata.namespace");
    let namespace = namespace.or(Some(&wanted.namespace)).filter(|n| !n.is_empty());
    let filter = RunFilter {
        namespaces: namespace.into_iter().map(str::to_owned).collect(),
        states: vec![RunState::Succeeded, RunState::Failed, RunState::Cancelled],
        ..RunFilter::default()
    };
    found(state, filter, wanted, false)
}

fn found(
    state: &ArgoState,
    filter: RunFilter,
    wanted: &Wanted,
    with_nodes: bool,
) -> Result<Json, ArgoError> {
    let limit = wanted.limit.parse().ok().filter(|n| *n > 0).unwrap_or(LIST_MAX).min(LIST_MAX);
    let time = |text: &str| -> Result<Option<kobza_model::Timestamp>, ArgoError> {
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| ArgoError::invalid(format!("{text:?} is not a time")))
    };
    let filter = RunFilter { created_from: time(&wanted.created_after)?, ..filter };
    let finished_before = time(&wanted.finished_before)?;
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
pub(super) fn pairs(json: &Json) -> BTreeMap<String, String> {
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

pub(super) async fn delete(
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
    super::upkeep::delete(&state, vec![image.run], None).await?;
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

/// Used by the routes that answer streams.
pub(super) type Streamed = Result<Response, ArgoError>;
