//! What comes from outside: events by name, and deliveries of webhooks.

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use kobza_engine::Command;
use kobza_model::{RunId, Timestamp, validate_name};
use kobza_runtime::wall_now;
use kobza_store::kinds;
use kobza_triggers::service::TriggerError;
use kobza_triggers::{SlotOutcome, SlotRow, TriggerKey, TriggerKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::{Principal, Role};
use crate::error::ApiError;
use crate::extract::{Json, NoContent, Path, Query, Verbatim};
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::workflows::Place;

/// Below this the path of a webhook begins.
pub(crate) const WEBHOOKS: &str = "/webhooks/";
/// Longest payload of an event, as JSON text.
const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .post("/events", (Role::Operator, Space::Query), "Send an event by name", send)
        .post("/webhooks/{path}", (None, Space::Handler), "Deliver to a webhook trigger", deliver)
}

/// An event for triggers and waits of the namespace.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sent {
    name: String,
    /// What its readers see as `event.payload`; at most 64 KiB as JSON.
    #[serde(default)]
    payload: Value,
}

/// Puts an event on record; whoever waits for it is told once it is durable.
async fn send(
    State(state): State<ApiState>,
    Extension(_): Extension<Principal>,
    Query(place): Query<Place>,
    Json(sent): Json<Sent>,
) -> Result<NoContent, ApiError> {
    validate_name(&sent.name).map_err(|e| ApiError::name("name", &e))?;
    let payload = sent.payload.to_string();
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the payload has {} bytes; at most {MAX_PAYLOAD_BYTES}", payload.len()),
        )
        .hint("keep the data elsewhere, and send where it is"));
    }
    let (namespace, name) = (place.namespace(), sent.name);
    state.handle.submit(Command::Announce { namespace, name, payload }).await?;
    Ok(NoContent)
}

/// What a delivery led to.
#[derive(Debug, Serialize, JsonSchema)]
struct Delivered {
    decisions: Vec<DeliveredTo>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct DeliveredTo {
    workflow: String,
    trigger: String,
    at: Timestamp,
    started: bool,
    reason: String,
    /// The run that it started; of a repeated delivery the run that the first one started.
    run: Option<RunId>,
}

impl From<(TriggerKey, SlotRow)> for DeliveredTo {
    fn from((key, row): (TriggerKey, SlotRow)) -> Self {
        Self {
            workflow: key.workflow,
            trigger: key.name,
            at: row.at,
            started: row.outcome == SlotOutcome::Started,
            reason: row.reason,
            run: row.run,
        }
    }
}

/// A delivery proves itself by its signature; to a trigger without a secret only who may start runs
/// may deliver.
async fn deliver(
    State(state): State<ApiState>,
    Path(path): Path<String>,
    Query(place): Query<Place>,
    headers: HeaderMap,
    Verbatim(body): Verbatim,
) -> Result<Json<Delivered>, ApiError> {
    if body.len() > kobza_triggers::webhook::MAX_BODY_BYTES {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "a delivery has at most 1 MiB",
        ));
    }
    let (namespace, triggers) = (place.namespace(), state.triggers()?);
    let found = triggers.webhooks_at(&namespace, &path).await?;
    if found.is_empty() {
        return Err(ApiError::not_found("no trigger listens here"));
    }
    let texts = headers.iter().filter_map(|(n, v)| Some((n.as_str(), v.to_str().ok()?)));
    let texts: Vec<(String, String)> =
        texts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut decisions = Vec::new();
    let mut refused = None;
    for view in &found {
        let TriggerKind::Webhook { secret, .. } = &view.spec.kind else { continue };
        let secret = match secret {
            Some(name) => match secret_value(&state, &namespace, name).await {
                Some(value) => Some(value),
                None => {
                    tracing::warn!(trigger = view.key.object_key(), "its secret is missing");
                    refused = Some(ApiError::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "no_secret",
                        "the trigger's secret is not there",
                    ));
                    continue;
                }
            },
            None => match may_start(&state, &headers, &namespace).await {
                Ok(()) => None,
                Err(error) => {
                    refused = Some(error);
                    continue;
                }
            },
        };
        let secret = secret.as_deref().map(str::as_bytes);
        match triggers.deliver(view, secret, &texts, &body, wall_now()).await {
            Ok(decided) => decisions.push(decided),
            Err(TriggerError::Invalid(reason)) => {
                refused = Some(ApiError::new(StatusCode::UNAUTHORIZED, "signature", reason));
            }
            Err(error) => return Err(error.into()),
        }
    }
    match (decisions.is_empty(), refused) {
        (true, Some(refused)) => Err(refused),
        _ => {
            let decisions = decisions.into_iter().flatten().map(DeliveredTo::from).collect();
            Ok(Json(Delivered { decisions }))
        }
    }
}

async fn secret_value(state: &ApiState, namespace: &str, name: &str) -> Option<String> {
    let (vault, store) = (state.vault.clone(), state.store.clone());
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let read = move || vault.lookup(store.as_ref(), kinds::SECRET, &namespace, &name);
    let value = tokio::task::spawn_blocking(read).await.ok().flatten()?;
    value.as_str().map(str::to_owned)
}

async fn may_start(state: &ApiState, headers: &HeaderMap, namespace: &str) -> Result<(), ApiError> {
    let principal = state.principal(headers).await?;
    // Another site's page can make a browser send its cookie, but not a header.
    let by_cookie = !principal.local && !headers.contains_key(header::AUTHORIZATION);
    if by_cookie && !headers.contains_key("x-kobza-csrf") {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "csrf",
            "a write with a session needs the header X-Kobza-Csrf",
        ));
    }
    principal.need(Role::Operator, Some(namespace))
}
