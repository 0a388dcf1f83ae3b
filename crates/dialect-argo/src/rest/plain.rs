//! ConfigMaps and Secrets of a namespace, at the paths and in the shapes of Kubernetes. What a
//! Secret holds is never told again, only the names of its keys.

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json as Body, Router};
use kobza_model::Json;
use kobza_runtime::Submission;
use kobza_store::{ObjectQuery, Write, kinds};
use serde_json::{Map, json};

use super::{Answer, ArgoError, ArgoState, blocking};
use crate::{Kind, Object};

pub(super) fn routes() -> Router<ArgoState> {
    Router::new()
        .route("/api/v1/namespaces/{namespace}/{plural}", get(list).post(create))
        .route("/api/v1/namespaces/{namespace}/{plural}/{name}", get(one).put(put).delete(delete))
}

/// Longest list.
const LIST_MAX: usize = 10_000;

fn kind_of(plural: &str) -> Result<(Kind, &'static str), ArgoError> {
    match plural {
        "configmaps" => Ok((Kind::ConfigMap, kinds::CONFIG_MAP)),
        "secrets" => Ok((Kind::Secret, kinds::SECRET)),
        other => Err(ArgoError::not_found(format!("{other:?}"))),
    }
}

/// As it is shown.
fn shown(kind: Kind, namespace: &str, name: &str, value: &Json) -> Json {
    let metadata = json!({ "name": name, "namespace": namespace });
    let mut object = json!({ "apiVersion": "v1", "kind": kind.as_str(), "metadata": metadata });
    match kind {
        Kind::Secret => object["keys"] = value["keys"].clone(),
        _ => {
            for field in ["labels", "annotations"] {
                if let Some(set) = value["metadata"].get(field) {
                    object["metadata"][field] = set.clone();
                }
            }
            object["data"] = value.get("data").cloned().unwrap_or_else(|| json!({}));
        }
    }
    object
}

async fn list(
    State(state): State<ArgoState>,
    Path((namespace, plural)): Path<(String, String)>,
) -> Answer {
    let (kind, stored) = kind_of(&plural)?;
    blocking(move || {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = state.views.list_objects(&ObjectQuery {
                kind: stored,
                namespace: Some(&namespace),
                prefix: "",
                descending: false,
                cursor: cursor.as_deref(),
                limit: 500,
            })?;
            items.extend(page.items.iter().map(|o| shown(kind, &namespace, &o.key, &o.value)));
            cursor = page.next;
            if cursor.is_none() || items.len() >= LIST_MAX {
                let list = format!("{}List", kind.as_str());
                return Ok(Body(json!({ "apiVersion": "v1", "kind": list, "items": items })));
            }
        }
    })
    .await
}

async fn one(
    State(state): State<ArgoState>,
    Path((namespace, plural, name)): Path<(String, String, String)>,
) -> Answer {
    let (kind, stored) = kind_of(&plural)?;
    blocking(move || {
        let found = state.store.object(stored, &namespace, &name)?;
        let found = found.ok_or_else(|| ArgoError::not_found(format!("{plural} \"{name}\"")))?;
        Ok(Body(shown(kind, &namespace, &name, &found)))
    })
    .await
}

async fn create(
    State(state): State<ArgoState>,
    Path((namespace, plural)): Path<(String, String)>,
    Body(body): Body<Json>,
) -> Answer {
    let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (_, stored) = kind_of(&plural)?;
    let (reading, space, wanted) = (state.clone(), namespace.clone(), name.clone());
    let there = blocking(move || Ok(reading.store.object(stored, &space, &wanted)?)).await?;
    if there.is_some() {
        return Err(ArgoError::exists(format!("{plural} \"{name}\"")));
    }
    keep(state, namespace, plural, name, body).await
}

async fn put(
    State(state): State<ArgoState>,
    Path((namespace, plural, name)): Path<(String, String, String)>,
    Body(body): Body<Json>,
) -> Answer {
    keep(state, namespace, plural, name, body).await
}

async fn keep(
    state: ArgoState,
    namespace: String,
    plural: String,
    name: String,
    mut body: Json,
) -> Answer {
    let (kind, _) = kind_of(&plural)?;
    if !body.is_object() {
        return Err(ArgoError::invalid("the request is no object"));
    }
    kobza_model::validate_name(&name)
        .map_err(|e| ArgoError::invalid(format!("metadata.name: {e}")))?;
    body["kind"] = Json::from(kind.as_str());
    body["metadata"]["name"] = Json::from(name.as_str());
    let object = Object::from_json(body)?;
    let write = plain_write(&object, &namespace, state.seal.as_deref())
        .map_err(ArgoError::invalid)?
        .ok_or_else(|| ArgoError::invalid("it cannot be kept"))?;
    let value = match &write {
        Write::PutObject { value: Some(value), .. } => value.clone(),
        _ => Json::Null,
    };
    state.handle.submit(Submission { commands: Vec::new(), writes: vec![write] }).await?;
    Ok(Body(shown(kind, &namespace, &name, &value)))
}

async fn delete(
    State(state): State<ArgoState>,
    Path((namespace, plural, name)): Path<(String, String, String)>,
) -> Answer {
    let (_, kind) = kind_of(&plural)?;
    let write = Write::PutObject { kind, namespace, key: name, value: None };
    state.handle.submit(Submission { commands: Vec::new(), writes: vec![write] }).await?;
    Ok(Body(json!({})))
}

/// Encrypts a secret's value for its namespace and name.
pub type Seal = dyn Fn(&str, &str, &Json) -> Result<Json, String> + Send + Sync;

/// A ConfigMap or a Secret as a write; none for an object of another kind or without a name.
pub fn plain_write(
    object: &Object,
    namespace: &str,
    seal: Option<&Seal>,
) -> Result<Option<Write>, String> {
    let Some(name) = object.name() else { return Ok(None) };
    let (kind, value) = match object.kind {
        Kind::ConfigMap => (kinds::CONFIG_MAP, object.json.clone()),
        Kind::Secret => {
            let seal = seal.ok_or("secrets cannot be kept here: there is no key")?;
            let keys: Vec<&String> = ["data", "stringData"]
                .iter()
                .filter_map(|field| object.json[*field].as_object())
                .flat_map(Map::keys)
                .collect();
            let content = json!({
                "kind": "Secret", "data": object.json.get("data"),
                "stringData": object.json.get("stringData"),
            });
            let sealed = seal(namespace, name, &content)?;
            (kinds::SECRET, json!({ "sealed": sealed, "keys": keys }))
        }
        _ => return Ok(None),
    };
    Ok(Some(Write::PutObject {
        kind,
        namespace: namespace.to_owned(),
        key: name.to_owned(),
        value: Some(value),
    }))
}
