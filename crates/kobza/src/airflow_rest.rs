//! Airflow's REST API at `/airflow`: who may use it, and what it needs of the rest.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse as _, Response};
use kobza_api::{ApiState, Need, Principal, Role, protect_by};
use kobza_dialect_airflow::rest::{self, Caller, Level, NAMESPACE, RestState};
use kobza_model::Json;
use kobza_triggers::service::TriggerHandle;
use serde_json::json;
use tokio::runtime::Handle;

use crate::compose::Host;

/// Where it is mounted.
pub(crate) const PLACE: &str = "/airflow";
/// A token that says nothing: without accounts none is needed.
const NO_ACCOUNTS: &str = "no-accounts";

pub(crate) fn router(host: &Host, api: &ApiState, triggers: &TriggerHandle) -> axum::Router {
    let (signing, deleting, store) = (api.clone(), api.clone(), host.store.clone());
    let state = RestState {
        desk: host.desk.clone(),
        triggers: triggers.clone(),
        logs: host.logs.clone(),
        sign_in: Arc::new(move |name, password| {
            if matches!(kobza_api::accounts_exist(store.as_ref()), Ok(false)) {
                return Ok(NO_ACCOUNTS.to_owned());
            }
            let token = Handle::current().block_on(signing.session_token(name, password));
            token.map_err(|error| (error.status.as_u16(), error.message))
        }),
        delete_run: Arc::new(move |run| {
            let deleted = Handle::current().block_on(kobza_api::delete_run(&deleting, run));
            deleted.map_err(|error| error.message)
        }),
    };
    let routes = rest::router(state).layer(from_fn(tell_caller));
    let routes = protect_by(routes, api, needs());
    let routes = crate::accounts::any_token_without(routes, host.store.clone());
    routes.layer(map_response(as_detail))
}

/// Who calls, in the dialect's words.
async fn tell_caller(mut request: Request, next: Next) -> Response {
    if let Some(principal) = request.extensions().get::<Principal>() {
        let caller = Caller { name: principal.name.clone(), local: principal.local };
        request.extensions_mut().insert(caller);
    }
    next.run(request).await
}

/// What each route needs. Pools are Kobza's limits, which belong to no namespace.
fn needs() -> impl Fn(&Method, &str) -> Option<Need> + Clone + Send + Sync + 'static {
    let table: HashMap<(&str, String), Level> = rest::access()
        .into_iter()
        .map(|route| ((route.method, format!("{PLACE}{}", route.path)), route.level))
        .collect();
    let table = Arc::new(table);
    move |method, path| {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let level = table.get(&(method.as_str(), path.to_owned()));
        let role = match level {
            Some(Level::Open) => return None,
            // What is not there is told to those who may look.
            Some(Level::Read) | None => Role::Viewer,
            Some(Level::Operate) => Role::Operator,
            Some(Level::Edit) => Role::Editor,
        };
        let everywhere = role == Role::Editor && path.starts_with("/airflow/api/v2/pools");
        // What only looks is not put on record, whatever its method.
        let record = (role > Role::Viewer).then_some("airflow");
        Some(Need { role, namespace: (!everywhere).then_some(NAMESPACE), record })
    }
}

/// Refusals before a route is reached, in the form of its own.
async fn as_detail(response: Response) -> Response {
    let refused = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::MISDIRECTED_REQUEST,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if !refused.contains(&response.status()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 64 * 1024).await.unwrap_or_default();
    let told: Json = serde_json::from_slice(&bytes).unwrap_or_default();
    match told["error"]["message"].as_str() {
        Some(message) => {
            let detail = match told["error"]["hint"].as_str() {
                Some(hint) => format!("{message} ({hint})"),
                None => message.to_owned(),
            };
            (parts.status, axum::Json(json!({"detail": detail}))).into_response()
        }
        None => Response::from_parts(parts, bytes.into()),
    }
}
