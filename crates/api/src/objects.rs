//! Connections and variables. What is secret is encrypted before it is stored and never comes back.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use kobza_store::{ObjectQuery, StoredObject, Write, kinds};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::auth::Role::{Editor, Operator, Viewer};
use crate::error::ApiError;
use crate::extract::{Json, NoContent, Path, Query};
use crate::reference::Reference;
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::vault::VaultError;
use crate::workflows::Place;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get(
            "/connections",
            (Viewer, Space::Query),
            "Connections, without what is secret",
            connections,
        )
        .put("/connections/{name}", (Editor, Space::Query), "Set a connection", put_connection)
        .delete(
            "/connections/{name}",
            (Editor, Space::Query),
            "Remove a connection",
            delete_connection,
        )
        .get(
            "/notifications",
            (Operator, Space::Global),
            "Notifications on their way, and dead letters",
            notifications,
        )
        .get("/variables", (Viewer, Space::Query), "Variables, without what is secret", variables)
        .put("/variables/{key}", (Editor, Space::Query), "Set a variable", put_variable)
        .delete("/variables/{key}", (Editor, Space::Query), "Remove a variable", delete_variable)
}

impl From<VaultError> for ApiError {
    fn from(error: VaultError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "vault", error.to_string())
            .hint("look at the server's secret key")
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ListAsked {
    pub(crate) q: Option<String>,
    pub(crate) cursor: Option<String>,
    pub(crate) limit: Option<u32>,
}

pub(crate) async fn objects(
    state: &ApiState,
    kind: &'static str,
    namespace: Option<String>,
    asked: ListAsked,
) -> Result<(Vec<StoredObject>, Option<String>), ApiError> {
    let page = state
        .read(move |views| {
            views.list_objects(&ObjectQuery {
                kind,
                namespace: namespace.as_deref(),
                prefix: "",
                descending: false,
                cursor: asked.cursor.as_deref(),
                limit: asked.limit.unwrap_or(500).clamp(1, 500),
            })
        })
        .await?;
    let needle = asked.q.unwrap_or_default().to_lowercase();
    let items = page.items.into_iter().filter(|o| o.key.to_lowercase().contains(&needle)).collect();
    Ok((items, page.next))
}

fn connection(object: &StoredObject) -> Value {
    let v = &object.value;
    json!({
        "name": object.key, "kind": v.get("kind"), "description": v.get("description"),
        "fields": v.get("fields"), "secrets": v.get("secrets"), "from": v.get("from"),
        "updated_at": object.updated_at,
    })
}

async fn connections(
    State(state): State<ApiState>,
    Query(place): Query<Place>,
    Query(asked): Query<ListAsked>,
) -> Result<Json<Value>, ApiError> {
    let (items, next) = objects(&state, kinds::CONNECTION, Some(place.namespace()), asked).await?;
    Ok(Json(json!({"items": items.iter().map(connection).collect::<Vec<_>>(), "next": next})))
}

/// What is on its way, and what could not be delivered.
async fn notifications(
    State(state): State<ApiState>,
    Query(asked): Query<ListAsked>,
) -> Result<Json<Value>, ApiError> {
    let (items, next) = objects(&state, kinds::NOTIFICATION, Some(String::new()), asked).await?;
    let items: Vec<Value> = items.into_iter().map(|object| object.value).collect();
    Ok(Json(json!({"items": items, "next": next})))
}

#[derive(Deserialize, JsonSchema)]
struct ConnectionBody {
    kind: String,
    description: Option<String>,
    #[serde(default)]
    fields: Map<String, Value>,
    /// Kept encrypted, and never shown. Null removes one; those that are not named stay.
    #[serde(default)]
    secrets: Map<String, Value>,
    /// Secrets that are kept elsewhere, by field: where they are.
    #[serde(default)]
    from: BTreeMap<String, Reference>,
}

fn name_ok(name: &str) -> Result<(), ApiError> {
    kobza_model::validate_name(name).map_err(|e| ApiError::name("name", &e))
}

async fn stored(
    state: &ApiState,
    kind: &'static str,
    namespace: &str,
    key: &str,
) -> Result<Option<StoredObject>, ApiError> {
    let (namespace, key) = (namespace.to_owned(), key.to_owned());
    state.read(move |v| v.get_object(kind, &namespace, &key)).await
}

async fn put_connection(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    Json(body): Json<ConnectionBody>,
) -> Result<Json<Value>, ApiError> {
    name_ok(&name)?;
    for reference in body.from.values() {
        reference.check()?;
    }
    let namespace = place.namespace();
    let at = (kinds::CONNECTION, namespace.as_str(), name.as_str());
    let old = stored(&state, kinds::CONNECTION, &namespace, &name).await?;
    let sealed = old.as_ref().and_then(|o| o.value.get("sealed")).filter(|s| !s.is_null());
    let mut secrets = match sealed {
        Some(sealed) => match state.vault.unseal(at, sealed)? {
            Value::Object(secrets) => secrets,
            _ => Map::new(),
        },
        None => Map::new(),
    };
    for (key, value) in body.secrets {
        if value.is_null() {
            secrets.remove(&key);
        } else {
            secrets.insert(key, value);
        }
    }
    let names: Vec<String> = secrets.keys().cloned().collect();
    let sealed = if secrets.is_empty() {
        Value::Null
    } else {
        state.vault.seal(at, &Value::Object(secrets))?
    };
    let value = json!({
        "kind": body.kind, "description": body.description, "fields": body.fields,
        "secrets": names, "sealed": sealed, "from": body.from,
    });
    put_object(&state, kinds::CONNECTION, &namespace, &name, Some(value)).await?;
    let object = stored(&state, kinds::CONNECTION, &namespace, &name).await?;
    Ok(Json(object.as_ref().map_or(Value::Null, connection)))
}

pub(crate) async fn put_object(
    state: &ApiState,
    kind: &'static str,
    namespace: &str,
    key: &str,
    value: Option<Value>,
) -> Result<(), ApiError> {
    let write =
        Write::PutObject { kind, namespace: namespace.to_owned(), key: key.to_owned(), value };
    state.write(vec![write]).await
}

async fn remove(
    state: &ApiState,
    kind: &'static str,
    what: &str,
    place: &Place,
    key: &str,
) -> Result<NoContent, ApiError> {
    let namespace = place.namespace();
    if stored(state, kind, &namespace, key).await?.is_none() {
        return Err(ApiError::not_found(format!("there is no {what} {key:?}")));
    }
    put_object(state, kind, &namespace, key, None).await?;
    Ok(NoContent)
}

async fn delete_connection(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<NoContent, ApiError> {
    remove(&state, kinds::CONNECTION, "connection", &place, &name).await
}

fn variable(object: &StoredObject) -> Value {
    let v = &object.value;
    let there = |field: &str| v.get(field).is_some_and(|s| !s.is_null());
    let secret = there("sealed") || there("from");
    json!({
        "key": object.key, "value": if secret { Value::Null } else { v.get("value").cloned().unwrap_or_default() },
        "secret": secret, "from": v.get("from"), "description": v.get("description"), "updated_at": object.updated_at,
    })
}

async fn variables(
    State(state): State<ApiState>,
    Query(place): Query<Place>,
    Query(asked): Query<ListAsked>,
) -> Result<Json<Value>, ApiError> {
    let (items, next) = objects(&state, kinds::VARIABLE, Some(place.namespace()), asked).await?;
    Ok(Json(json!({"items": items.iter().map(variable).collect::<Vec<_>>(), "next": next})))
}

#[derive(Deserialize, JsonSchema)]
struct VariableBody {
    /// Absent keeps a secret's value.
    value: Option<Value>,
    #[serde(default)]
    secret: bool,
    /// A secret that is kept elsewhere: where it is. Instead of a value.
    from: Option<Reference>,
    description: Option<String>,
}

async fn put_variable(
    State(state): State<ApiState>,
    Path(key): Path<String>,
    Query(place): Query<Place>,
    Json(body): Json<VariableBody>,
) -> Result<Json<Value>, ApiError> {
    name_ok(&key)?;
    let namespace = place.namespace();
    if let Some(from) = &body.from {
        from.check()?;
        if body.value.is_some() {
            return Err(ApiError::bad("give either a value or where it is kept"));
        }
        let value = json!({"from": from, "description": body.description});
        put_object(&state, kinds::VARIABLE, &namespace, &key, Some(value)).await?;
        let object = stored(&state, kinds::VARIABLE, &namespace, &key).await?;
        return Ok(Json(object.as_ref().map_or(Value::Null, variable)));
    }
    let value = match (body.secret, body.value) {
        (false, value) => json!({"value": value, "description": body.description}),
        (true, Some(value)) if !value.is_null() => {
            let sealed = state.vault.seal((kinds::VARIABLE, &namespace, &key), &value)?;
            json!({"sealed": sealed, "description": body.description})
        }
        (true, _) => {
            let old = stored(&state, kinds::VARIABLE, &namespace, &key).await?;
            let sealed = old.and_then(|o| o.value.get("sealed").cloned()).filter(|s| !s.is_null());
            let sealed = sealed.ok_or_else(|| ApiError::bad("a new secret needs a value"))?;
            json!({"sealed": sealed, "description": body.description})
        }
    };
    put_object(&state, kinds::VARIABLE, &namespace, &key, Some(value)).await?;
    let object = stored(&state, kinds::VARIABLE, &namespace, &key).await?;
    Ok(Json(object.as_ref().map_or(Value::Null, variable)))
}

async fn delete_variable(
    State(state): State<ApiState>,
    Path(key): Path<String>,
    Query(place): Query<Place>,
) -> Result<NoContent, ApiError> {
    remove(&state, kinds::VARIABLE, "variable", &place, &key).await
}
