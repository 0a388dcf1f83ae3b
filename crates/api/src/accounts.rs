//! People, tokens, and the audit log.

use std::collections::BTreeMap;

use axum::extract::{Extension, State};
use axum::http::{HeaderName, HeaderValue};
use kobza_model::Timestamp;
use kobza_store::{ObjectQuery, Write, kinds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::Role::Admin;
use crate::auth::{Principal, Role, TokenRow, UserRow, hash_password, new_token};
use crate::error::ApiError;
use crate::extract::{Created, Json, List, NoContent, Path, Query};
use crate::gate::SECRET_ANSWER;
use crate::objects::{ListAsked, objects, put_object};
use crate::state::ApiState;
use crate::table::{Routes, Space};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get("/users", (Admin, Space::Global), "People", users)
        .post("/users", (Admin, Space::Global), "Add or change a person", put_user)
        .delete("/users/{name}", (Admin, Space::Global), "Remove a person", delete_user)
        .get("/tokens", (Admin, Space::Global), "Tokens, without their text", tokens)
        .post("/tokens", (Admin, Space::Global), "Make a token; its text is shown once", make_token)
        .delete("/tokens/{id}", (Admin, Space::Global), "Revoke a token", delete_token)
        .get("/audit", (Admin, Space::Global), "Who changed what", audit)
}

/// A person.
#[derive(Debug, Serialize, JsonSchema)]
struct User {
    name: String,
    /// By namespace; `*` for all.
    roles: BTreeMap<String, Role>,
    created_at: Timestamp,
    disabled: bool,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        let UserRow { name, roles, created_at, disabled, password: _ } = row;
        Self { name, roles, created_at, disabled }
    }
}

async fn users(
    State(state): State<ApiState>,
    Query(asked): Query<ListAsked>,
) -> Result<Json<List<User>>, ApiError> {
    let (items, next) = objects(&state, kinds::USER, Some(String::new()), asked).await?;
    let rows = items.into_iter().filter_map(|o| serde_json::from_value::<UserRow>(o.value).ok());
    Ok(Json(List::new(rows.map(User::from).collect(), next)))
}

#[derive(Deserialize, JsonSchema)]
struct UserBody {
    name: String,
    password: String,
    roles: BTreeMap<String, Role>,
}

/// The row of a new person, as a write. Also for the command line, before any account exists.
pub fn user_write(
    name: &str,
    password: &str,
    roles: BTreeMap<String, Role>,
) -> Result<Write, ApiError> {
    user_row(name, password, roles).and_then(|row| kept(&row))
}

fn user_row(
    name: &str,
    password: &str,
    roles: BTreeMap<String, Role>,
) -> Result<UserRow, ApiError> {
    kobza_model::validate_name(name).map_err(|e| ApiError::name("name", &e))?;
    if name.contains(':') {
        return Err(ApiError::bad("a person's name has no colon"));
    }
    if roles.is_empty() {
        return Err(ApiError::bad("roles: at least one namespace with a role")
            .hint("{\"default\": \"viewer\"}; * means everywhere"));
    }
    Ok(UserRow {
        name: name.to_owned(),
        password: hash_password(password)?,
        roles,
        created_at: kobza_runtime::wall_now(),
        disabled: false,
    })
}

fn kept(row: &UserRow) -> Result<Write, ApiError> {
    let value = serde_json::to_value(row).map_err(|e| ApiError::bad(e.to_string()))?;
    Ok(Write::PutObject {
        kind: kinds::USER,
        namespace: String::new(),
        key: row.name.clone(),
        value: Some(value),
    })
}

async fn put_user(
    State(state): State<ApiState>,
    Json(body): Json<UserBody>,
) -> Result<Created<User>, ApiError> {
    let row = tokio::task::spawn_blocking(move || user_row(&body.name, &body.password, body.roles))
        .await
        .map_err(|e| ApiError::bad(e.to_string()))??;
    state.write(vec![kept(&row)?]).await?;
    Ok(Created(User::from(row)))
}

async fn delete_user(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<NoContent, ApiError> {
    let wanted = name.clone();
    state
        .read(move |v| v.get_object(kinds::USER, "", &wanted))
        .await?
        .ok_or_else(|| ApiError::not_found(format!("there is no user {name:?}")))?;
    put_object(&state, kinds::USER, "", &name, None).await?;
    Ok(NoContent)
}

/// A token, without its text.
#[derive(Debug, Serialize, JsonSchema)]
struct Token {
    id: String,
    name: String,
    user: Option<String>,
    role: Role,
    /// All when absent.
    namespace: Option<String>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

impl From<TokenRow> for Token {
    fn from(row: TokenRow) -> Self {
        let TokenRow { id, name, user, role, namespace, created_at, expires_at } = row;
        Self { id, name, user, role, namespace, created_at, expires_at }
    }
}

/// A token that was made just now.
#[derive(Serialize, JsonSchema)]
struct NewToken {
    #[serde(flatten)]
    made: Token,
    /// Shown this once.
    token: String,
}

async fn tokens(
    State(state): State<ApiState>,
    Query(asked): Query<ListAsked>,
) -> Result<Json<List<Token>>, ApiError> {
    let (items, next) = objects(&state, kinds::TOKEN, Some(String::new()), asked).await?;
    let rows = items.into_iter().filter_map(|o| serde_json::from_value::<TokenRow>(o.value).ok());
    Ok(Json(List::new(rows.map(Token::from).collect(), next)))
}

#[derive(Deserialize, JsonSchema)]
struct TokenBody {
    name: String,
    role: Role,
    namespace: Option<String>,
    expires_at: Option<Timestamp>,
}

/// A new token: its text and the write that keeps its hash.
pub fn token_write(
    name: &str,
    role: Role,
    namespace: Option<String>,
    expires_at: Option<Timestamp>,
) -> Result<(String, TokenRow, Write), ApiError> {
    kobza_model::validate_name(name).map_err(|e| ApiError::name("name", &e))?;
    let (text, key) = new_token();
    let row = TokenRow {
        id: uuid::Uuid::now_v7().to_string(),
        name: name.to_owned(),
        user: None,
        role,
        namespace: namespace.filter(|n| n != crate::auth::ANYWHERE),
        created_at: kobza_runtime::wall_now(),
        expires_at,
    };
    let value = serde_json::to_value(&row).map_err(|e| ApiError::bad(e.to_string()))?;
    let write =
        Write::PutObject { kind: kinds::TOKEN, namespace: String::new(), key, value: Some(value) };
    Ok((text, row, write))
}

async fn make_token(
    State(state): State<ApiState>,
    Extension(_principal): Extension<Principal>,
    Json(body): Json<TokenBody>,
) -> Result<([(HeaderName, HeaderValue); 1], Created<NewToken>), ApiError> {
    let (token, row, write) = token_write(&body.name, body.role, body.namespace, body.expires_at)?;
    state.write(vec![write]).await?;
    let mark = (HeaderName::from_static(SECRET_ANSWER), HeaderValue::from_static("1"));
    Ok(([mark], Created(NewToken { made: row.into(), token })))
}

async fn delete_token(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<NoContent, ApiError> {
    let asked = ListAsked { q: None, cursor: None, limit: Some(500) };
    let (items, _) = objects(&state, kinds::TOKEN, Some(String::new()), asked).await?;
    let found =
        items.into_iter().find(|o| o.value.get("id").and_then(Value::as_str) == Some(id.as_str()));
    let found = found.ok_or_else(|| ApiError::not_found("there is no such token"))?;
    put_object(&state, kinds::TOKEN, "", &found.key, None).await?;
    Ok(NoContent)
}

#[derive(Debug, Deserialize, JsonSchema)]
struct AuditAsked {
    principal: Option<String>,
    action: Option<String>,
    q: Option<String>,
    cursor: Option<String>,
    limit: Option<u32>,
}

/// A write that somebody made.
#[derive(Debug, Serialize, JsonSchema)]
struct AuditEntry {
    /// Grows with time.
    seq: Option<u64>,
    at: Timestamp,
    principal: String,
    /// Such as `workflow.create`.
    action: String,
    /// Path below the API's base.
    target: String,
    /// `ok` or `refused`.
    result: String,
    /// Of the answer.
    status: u16,
}

async fn audit(
    State(state): State<ApiState>,
    Query(asked): Query<AuditAsked>,
) -> Result<Json<List<AuditEntry>>, ApiError> {
    let (cursor, limit) = (asked.cursor.clone(), asked.limit.unwrap_or(100).clamp(1, 500));
    let page = state
        .read(move |views| {
            views.list_objects(&ObjectQuery {
                kind: kinds::AUDIT,
                namespace: Some(""),
                prefix: "",
                descending: true,
                cursor: cursor.as_deref(),
                limit,
            })
        })
        .await?;
    let needle = asked.q.unwrap_or_default().to_lowercase();
    let is = |value: &Value, field: &str, wanted: &Option<String>| {
        wanted.as_ref().is_none_or(|w| value.get(field).and_then(Value::as_str) == Some(w.as_str()))
    };
    let items = page
        .items
        .into_iter()
        .filter(|o| {
            is(&o.value, "principal", &asked.principal) && is(&o.value, "action", &asked.action)
        })
        .filter(|o| needle.is_empty() || o.value.to_string().to_lowercase().contains(&needle))
        .map(|o| {
            let seq = o.key.split('-').next().and_then(|h| u64::from_str_radix(h, 16).ok());
            let text = |field: &str| o.value[field].as_str().unwrap_or_default().to_owned();
            AuditEntry {
                seq,
                at: o.updated_at,
                principal: text("principal"),
                action: text("action"),
                target: text("target"),
                result: text("result"),
                status: o.value["status"].as_u64().and_then(|s| s.try_into().ok()).unwrap_or(0),
            }
        });
    Ok(Json(List::new(items.collect(), page.next)))
}
