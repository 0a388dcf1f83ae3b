//! Isolated schedulers in memory, with a clock that the caller sets: what a conformance test needs
//! to compare replies call by call. Only there when the server was started with test hooks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use kobza_model::{EngineTime, Json, Now, RunId, Timestamp};

use super::{Call, HostError, LuigiHttp, MachineHost, form};
use crate::config::LuigiConfig;
use crate::memory::MemoryHost;

/// Schedulers kept; the oldest makes room.
const MAX_SCHEDULERS: usize = 64;

/// The isolated schedulers.
#[derive(Default)]
pub struct TestHooks {
    made: Mutex<(u64, BTreeMap<u64, Arc<MemoryHost>>)>,
}

impl TestHooks {
    fn get(&self, id: u64) -> Option<Arc<MemoryHost>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).1.get(&id).cloned()
    }
}

/// One call at a set time.
struct At {
    host: Arc<MemoryHost>,
    now: Option<Now>,
}

impl MachineHost for At {
    fn call(&self, _run: RunId, method: &str, arguments: Json) -> Call<'_> {
        let now = self.now.unwrap_or_else(|| self.host.now());
        let reply = self.host.call_at(now, method, &arguments);
        Box::pin(std::future::ready(reply.map_err(HostError::Refused)))
    }
}

/// `{config, resources}` → `{id, url}`.
pub(super) async fn new(State(state): State<LuigiHttp>, body: Bytes) -> Response {
    let Some(hooks) = state.hooks else { return StatusCode::NOT_FOUND.into_response() };
    let settings: Json = if body.is_empty() {
        Json::Null
    } else {
        match serde_json::from_slice(&body) {
            Ok(settings) => settings,
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        }
    };
    let config = match LuigiConfig::from_json(&settings["config"], &settings["resources"]) {
        Ok(config) => config,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let mut made = hooks.made.lock().unwrap_or_else(PoisonError::into_inner);
    made.0 += 1;
    let id = made.0;
    let run = RunId(uuid::Uuid::from_u128(u128::from(id)));
    made.1.insert(id, Arc::new(MemoryHost::new(run, config)));
    if made.1.len() > MAX_SCHEDULERS {
        made.1.pop_first();
    }
    axum::Json(serde_json::json!({ "id": id.to_string(), "url": format!("/s/{id}") }))
        .into_response()
}

/// Makes a scheduler anew from its rows, as a restarted server does; what is not durable by design
/// (when workers were last seen, marks for removal) is carried over, so that replies stay
/// comparable.
pub(super) async fn reload(State(state): State<LuigiHttp>, Path(id): Path<u64>) -> Response {
    match state.hooks.and_then(|hooks| hooks.get(id)) {
        Some(host) => {
            host.reload();
            StatusCode::NO_CONTENT.into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

pub(super) async fn api_get(
    State(state): State<LuigiHttp>,
    Path((id, method)): Path<(u64, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let data = form::data(query.unwrap_or_default().as_bytes());
    call(&state, id, &method, data, &headers).await
}

pub(super) async fn api_post(
    State(state): State<LuigiHttp>,
    Path((id, method)): Path<(u64, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let data = form::posted(&headers, &body, None);
    call(&state, id, &method, data, &headers).await
}

async fn call(
    state: &LuigiHttp,
    id: u64,
    method: &str,
    data: String,
    headers: &HeaderMap,
) -> Response {
    let Some(host) = state.hooks.as_ref().and_then(|hooks| hooks.get(id)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let text = headers.get("x-now").and_then(|value| value.to_str().ok());
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let now = text.and_then(|text| text.parse::<f64>().ok()).map(|seconds| {
        let micros = (seconds * 1e6).round() as i64;
        Now { wall: Timestamp(micros), engine: EngineTime(micros) }
    });
    super::answer(Arc::new(At { host, now }), RunId(uuid::Uuid::nil()), method, data).await
}
