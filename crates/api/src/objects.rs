//! Connections and variables. What is secret is encrypted before it is stored and never comes back.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use kobza_model::Timestamp;
use kobza_store::{ObjectQuery, StoredObject, Write, kinds};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::auth::Role::{Editor, Operator, Viewer};
use crate::error::ApiError;
use crate::extract::{Json, List, NoContent, Path, Query};
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

/// How to reach an outside system.
#[derive(Debug, Serialize, JsonSchema)]
struct Connection {
    name: String,
    kind: String,
    description: Option<String>,
    fields: Map<String, Value>,
    /// Names of the secrets that are kept for it.
    secrets: Vec<String>,
    /// Secrets that are kept elsewhere, by field.
    from: BTreeMap<String, Reference>,
    updated_at: Timestamp,
}

/// A field of a stored object; its default where it has none.
fn field<T: DeserializeOwned + Default>(object: &StoredObject, name: &str) -> T {
    let value = object.value.get(name).cloned().unwrap_or_default();
    serde_json::from_value(value).unwrap_or_default()
}

impl From<&StoredObject> for Connection {
    fn from(object: &StoredObject) -> Self {
        Self {
            name: object.key.clone(),
            kind: field(object, "kind"),
            description: field(object, "description"),
            fields: field(object, "fields"),
            secrets: field(object, "secrets"),
            from: field(object, "from"),
            updated_at: object.updated_at,
        }
    }
}

async fn connections(
    State(state): State<ApiState>,
    Query(place): Query<Place>,
    Query(asked): Query<ListAsked>,
) -> Result<Json<List<Connection>>, ApiError> {
    let (items, next) = objects(&state, kinds::CONNECTION, Some(place.namespace()), asked).await?;
    Ok(Json(List::new(items.iter().map(Connection::from).collect(), next)))
}

/// A notification that has not been delivered.
#[derive(Debug, Serialize, JsonSchema)]
struct Notification {
    /// Stays the same however often it is sent.
    id: String,
    rule: String,
    /// `pending`, or `dead`: it is not tried any more.
    state: String,
    attempts: u64,
    next_at: Option<Timestamp>,
    /// Why the last attempt failed.
    error: Option<String>,
    text: String,
    event: Value,
}

impl From<&StoredObject> for Notification {
    fn from(object: &StoredObject) -> Self {
        Self {
            id: field(object, "id"),
            rule: field(object, "rule"),
            state: field(object, "state"),
            attempts: field(object, "attempts"),
            next_at: field(object, "next_at"),
            error: field(object, "error"),
            text: field(object, "text"),
            event: field(object, "event"),
        }
    }
}

/// What is on its way, and what could not be delivered.
async fn notifications(
    State(state): State<ApiState>,
    Query(asked): Query<ListAsked>,
) -> Result<Json<List<Notification>>, ApiError> {
    let (items, next) = objects(&state, kinds::NOTIFICATION, Some(String::new()), asked).await?;
    Ok(Json(List::new(items.iter().map(Notification::from).collect(), next)))
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

/// What was stored just now.
async fn kept(
    state: &ApiState,
    kind: &'static str,
    namespace: &str,
    key: &str,
) -> Result<StoredObject, ApiError> {
    let found = stored(state, kind, namespace, key).await?;
    found.ok_or_else(|| ApiError::not_found("somebody has removed it again"))
}

async fn put_connection(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    Json(body): Json<ConnectionBody>,
) -> Result<Json<Connection>, ApiError> {
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
    let object = kept(&state, kinds::CONNECTION, &namespace, &name).await?;
    Ok(Json(Connection::from(&object)))
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

/// A value by name.
#[derive(Debug, Serialize, JsonSchema)]
struct Variable {
    key: String,
    /// Null where it is secret.
    value: Value,
    secret: bool,
    /// Where a secret is kept, if it is kept elsewhere.
    from: Option<Reference>,
    description: Option<String>,
    updated_at: Timestamp,
}

impl From<&StoredObject> for Variable {
    fn from(object: &StoredObject) -> Self {
        let there = |name: &str| object.value.get(name).is_some_and(|s| !s.is_null());
        let secret = there("sealed") || there("from");
        Self {
            key: object.key.clone(),
            value: if secret { Value::Null } else { field(object, "value") },
            secret,
            from: field(object, "from"),
            description: field(object, "description"),
            updated_at: object.updated_at,
        }
    }
}

async fn variables(
    State(state): State<ApiState>,
    Query(place): Query<Place>,
    Query(asked): Query<ListAsked>,
) -> Result<Json<List<Variable>>, ApiError> {
    let (items, next) = objects(&state, kinds::VARIABLE, Some(place.namespace()), asked).await?;
    Ok(Json(List::new(items.iter().map(Variable::from).collect(), next)))
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
) -> Result<Json<Variable>, ApiError> {
    name_ok(&key)?;
    let namespace = place.namespace();
    if let Some(from) = &body.from {
        from.check()?;
        if body.value.is_some() {
            return Err(ApiError::bad("give either a value or where it is kept"));
        }
        let value = json!({"from": from, "description": body.description});
        put_object(&state, kinds::VARIABLE, &namespace, &key, Some(value)).await?;
        let object = kept(&state, kinds::VARIABLE, &namespace, &key).await?;
        return Ok(Json(Variable::from(&object)));
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
    let object = kept(&state, kinds::VARIABLE, &namespace, &key).await?;
    Ok(Json(Variable::from(&object)))
}

async fn delete_variable(
    State(state): State<ApiState>,
    Path(key): Path<String>,
    Query(place): Query<Place>,
) -> Result<NoContent, ApiError> {
    remove(&state, kinds::VARIABLE, "variable", &place, &key).await
}
