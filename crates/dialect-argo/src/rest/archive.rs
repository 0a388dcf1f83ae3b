//! The archive: finished workflows, by uid. They are kept in one place, so that what is archived is
//! what has ended and was not deleted.

use std::collections::BTreeSet;

use axum::extract::{Path, Query, State};
use axum::routing::{get, put};
use axum::{Json as Body, Router};
use kobza_model::{Json, RunId};
use serde_json::json;

use super::workflows::Wanted;
use super::{Answer, ArgoError, ArgoState, acts, blocking, select, workflows};

/// Workflows that are looked at for the lists of labels.
const LABELS_OF_MAX: usize = 5000;

pub(super) fn routes() -> Router<ArgoState> {
    Router::new()
        .route("/api/v1/archived-workflows", get(list))
        .route("/api/v1/archived-workflows-label-keys", get(label_keys))
        .route("/api/v1/archived-workflows-label-values", get(label_values))
        .route("/api/v1/archived-workflows/{uid}", get(one).delete(delete))
        .route("/api/v1/archived-workflows/{uid}/{action}", put(act))
}

async fn list(State(state): State<ArgoState>, Query(wanted): Query<Wanted>) -> Answer {
    let fields = wanted.fields.clone();
    let mut found = blocking(move || workflows::archived(&state, &wanted)).await?;
    for object in found["items"].as_array_mut().into_iter().flatten() {
        mark(object);
    }
    Ok(Body(select::fields(found, &fields)))
}

fn mark(object: &mut Json) {
    object["metadata"]["labels"]["workflows.argoproj.io/workflow-archiving-status"] =
        Json::from("Persisted");
}

/// Namespace and name of a finished workflow.
async fn find(state: &ArgoState, uid: String) -> Result<(String, String), ArgoError> {
    let unknown = ArgoError::not_found(format!("archived workflow with uid {uid:?}"));
    let Ok(run) = uid.parse::<RunId>() else { return Err(unknown) };
    let state = state.clone();
    let row = blocking(move || Ok(state.views.get_run(run)?)).await?;
    match row.filter(|row| row.dialect == "argo" && row.state.is_finished()) {
        Some(row) => Ok((row.namespace.clone(), crate::names::workflow_name(&row).to_owned())),
        None => Err(unknown),
    }
}

async fn one(State(state): State<ArgoState>, Path(uid): Path<String>) -> Answer {
    let (namespace, name) = find(&state, uid).await?;
    let mut object = state.get(&namespace, &name).await?;
    mark(&mut object);
    Ok(Body(object))
}

async fn delete(State(state): State<ArgoState>, Path(uid): Path<String>) -> Answer {
    let (namespace, name) = find(&state, uid).await?;
    workflows::delete(State(state), Path((namespace, name))).await
}

async fn act(
    State(state): State<ArgoState>,
    Path((uid, action)): Path<(String, String)>,
    Body(body): Body<Json>,
) -> Answer {
    if !matches!(action.as_str(), "retry" | "resubmit") {
        return Err(ArgoError::not_found(format!("action {action:?}")));
    }
    let (namespace, name) = find(&state, uid).await?;
    acts::act(State(state), Path((namespace, name, action)), Body(body)).await
}

async fn label_keys(State(state): State<ArgoState>) -> Answer {
    let keys = blocking(move || {
        let mut keys = BTreeSet::new();
        each_labels(&state, |labels| {
            keys.extend(labels.as_object().into_iter().flat_map(|l| l.keys().cloned()));
        })?;
        Ok(keys)
    });
    Ok(Body(json!({ "items": keys.await? })))
}

async fn label_values(State(state): State<ArgoState>, Query(wanted): Query<Wanted>) -> Answer {
    let key = wanted.labels.trim().trim_end_matches('=').to_owned();
    if key.is_empty() || key.contains(',') {
        return Err(ArgoError::invalid("listOptions.labelSelector must be the key of one label"));
    }
    let values = blocking(move || {
        let mut values = BTreeSet::new();
        each_labels(&state, |labels| {
            values.extend(labels[&key].as_str().map(str::to_owned));
        })?;
        Ok(values)
    });
    Ok(Body(json!({ "items": values.await? })))
}

fn each_labels(state: &ArgoState, mut with: impl FnMut(&Json)) -> Result<(), ArgoError> {
    let wanted = Wanted { limit: LABELS_OF_MAX.to_string(), ..Wanted::default() };
    let found = workflows::archived(state, &wanted)?;
    for object in found["items"].as_array().into_iter().flatten() {
        with(&object["metadata"]["labels"]);
    }
    Ok(())
}
