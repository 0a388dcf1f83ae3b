//! Routes of events from outside, and of the sizes of limits that are kept here.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json as Body, Router};
use kobza_expr::argo_expr::{Env, Program, Value};
use kobza_model::Json;
use kobza_runtime::Submission;
use kobza_store::Write;
use serde_json::{Map, json};

use super::start::Origin;
use super::{Answer, ArgoError, ArgoState, OBJECT, blocking};
use crate::{Kind, Object};

pub(super) fn routes() -> Router<ArgoState> {
    Router::new()
        .route("/api/v1/events/{namespace}/{discriminator}", post(event))
        .route("/api/v1/events/{namespace}/", post(event_plain))
        .route("/api/v1/sync/{namespace}", post(put_sync))
        .route(
            "/api/v1/sync/{namespace}/{key}",
            get(get_sync).put(put_sync_key).delete(delete_sync),
        )
}

async fn event_plain(
    State(state): State<ArgoState>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Body(payload): Body<Json>,
) -> Answer {
    received(state, namespace, String::new(), headers, payload).await
}

async fn event(
    State(state): State<ArgoState>,
    Path((namespace, discriminator)): Path<(String, String)>,
    headers: HeaderMap,
    Body(payload): Body<Json>,
) -> Answer {
    received(state, namespace, discriminator, headers, payload).await
}

/// An event: every binding whose selector holds starts a workflow.
async fn received(
    state: ArgoState,
    namespace: String,
    discriminator: String,
    headers: HeaderMap,
    payload: Json,
) -> Answer {
    let mut metadata = Map::new();
    for name in headers.keys() {
        // Credentials of the caller are none of a workflow's business.
        if matches!(name.as_str(), "authorization" | "cookie") {
            continue;
        }
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        metadata.insert(name.as_str().to_owned(), values.collect());
    }
    let seen = json!({ "payload": payload, "metadata": metadata, "discriminator": discriminator });
    let mut env = Env::default();
    for (name, value) in seen.as_object().into_iter().flatten() {
        env.variables.insert(name.clone(), Value::from(value));
    }
    let (reading, space) = (state.clone(), namespace.clone());
    let bindings = blocking(move || reading.objects(Kind::WorkflowEventBinding, &space)).await?;
    for binding in bindings {
        let selector = binding["spec"]["event"]["selector"].as_str().unwrap_or("false");
        let holds = Program::parse(selector).and_then(|p| p.eval(&env));
        // One bad binding must not keep the others from their event.
        if !matches!(holds, Ok(Value::Bool(true))) {
            continue;
        }
        let submit = &binding["spec"]["submit"];
        if !submit.is_object() {
            continue;
        }
        let mut parameters = std::collections::BTreeMap::new();
        for parameter in submit["arguments"]["parameters"].as_array().into_iter().flatten() {
            let Some(name) = parameter["name"].as_str() else { continue };
            let value = match parameter["valueFrom"]["event"].as_str() {
                Some(text) => Program::parse(text)
                    .and_then(|p| p.eval(&env))
                    .map_err(|e| ArgoError::invalid(format!("{text:?}: {e}")))?
                    .to_text(),
                None => parameter["value"].as_str().unwrap_or_default().to_owned(),
            };
            parameters.insert(name.to_owned(), value);
        }
        let reference = &submit["workflowTemplateRef"];
        let mut metadata = submit["metadata"].as_object().cloned().unwrap_or_default();
        if !metadata.contains_key("name") && !metadata.contains_key("generateName") {
            let prefix = format!("{}-", reference["name"].as_str().unwrap_or("event"));
            metadata.insert("generateName".to_owned(), Json::from(prefix));
        }
        let object = Object::from_json(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata,
            "spec": { "workflowTemplateRef": reference },
        }))?;
        let mut labels = Map::new();
        labels.insert(
            "workflows.argoproj.io/workflow-event-binding".to_owned(),
            binding["metadata"]["name"].clone(),
        );
        let origin = Origin { parameters, labels, trigger: Some("event"), ..Origin::default() };
        state.create(&namespace, object, origin).await?;
    }
    Ok(Body(json!({})))
}

async fn put_limit(state: ArgoState, namespace: String, key: String, body: Json) -> Answer {
    let limit = body["limit"]
        .as_u64()
        .filter(|n| *n > 0)
        .ok_or_else(|| ArgoError::invalid("limit must be greater than zero"))?;
    if body["type"].as_str().is_some_and(|t| t == "CONFIG_MAP") {
        return Err(ArgoError::unimplemented(
            "limits in ConfigMaps are changed by writing the ConfigMap",
        ));
    }
    let value = json!({ "type": "DATABASE", "namespace": namespace, "key": key, "limit": limit });
    let write = Write::PutObject {
        kind: OBJECT,
        namespace,
        key: format!("SyncLimit/{key}"),
        value: Some(value.clone()),
    };
    state.handle.submit(Submission { commands: Vec::new(), writes: vec![write] }).await?;
    Ok(Body(value))
}

async fn put_sync(
    State(state): State<ArgoState>,
    Path(namespace): Path<String>,
    Body(body): Body<Json>,
) -> Answer {
    let key = body["key"].as_str().unwrap_or_default().to_owned();
    if key.is_empty() {
        return Err(ArgoError::invalid("key is required"));
    }
    put_limit(state, namespace, key, body).await
}

async fn put_sync_key(
    State(state): State<ArgoState>,
    Path((namespace, key)): Path<(String, String)>,
    Body(body): Body<Json>,
) -> Answer {
    put_limit(state, namespace, key, body).await
}

async fn get_sync(
    State(state): State<ArgoState>,
    Path((namespace, key)): Path<(String, String)>,
) -> Answer {
    blocking(move || {
        let found = state.store.object(OBJECT, &namespace, &format!("SyncLimit/{key}"))?;
        found.map(Body).ok_or_else(|| ArgoError::not_found(format!("sync limit {key:?}")))
    })
    .await
}

async fn delete_sync(
    State(state): State<ArgoState>,
    Path((namespace, key)): Path<(String, String)>,
) -> Answer {
    let key = format!("SyncLimit/{key}");
    let write = Write::PutObject { kind: OBJECT, namespace, key, value: None };
    state.handle.submit(Submission { commands: Vec::new(), writes: vec![write] }).await?;
    Ok(Body(json!({})))
}
