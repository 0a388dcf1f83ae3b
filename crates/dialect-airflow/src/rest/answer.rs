//! Calls and answers: what every handler is given, and the form of its errors (FastAPI's).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json as Body;
use axum::body::Bytes;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use kobza_engine::Refusal;
use kobza_model::Json;
use kobza_runtime::{Submission, SubmitError};
use kobza_store::{StoreError, ViewError};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Rest;
use super::listing::Query;
use super::table::Act;
use crate::start::StartError;
use crate::task::Refused;

/// Who calls, as those who checked it say.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    pub name: String,
    /// There are no accounts, and the caller is on this machine.
    pub local: bool,
}

/// A call of a route.
pub(crate) struct Call {
    path: String,
    method: Method,
    params: BTreeMap<String, String>,
    pub(crate) query: Query,
    headers: HeaderMap,
    body: Bytes,
    pub(crate) caller: String,
    pub(crate) is_local: bool,
}

/// A good answer.
#[derive(Debug)]
pub(crate) enum Reply {
    Body(StatusCode, Json),
    Text(&'static str, String),
    Nothing,
}

impl Reply {
    pub(crate) fn ok(body: Json) -> Result<Self, RestError> {
        Ok(Self::Body(StatusCode::OK, body))
    }

    pub(crate) fn created(body: Json) -> Result<Self, RestError> {
        Ok(Self::Body(StatusCode::CREATED, body))
    }
}

/// An error: a status, and FastAPI's `{"detail": ...}`.
#[derive(Clone, Debug)]
pub(crate) struct RestError {
    pub(crate) status: StatusCode,
    pub(crate) detail: Json,
}

impl RestError {
    pub(crate) fn new(status: StatusCode, detail: impl Into<Json>) -> Self {
        Self { status, detail: detail.into() }
    }

    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail.into())
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail.into())
    }

    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail.into())
    }

    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail.into())
    }

    /// One field of the request is not as it must be.
    pub(crate) fn field(place: &[&str], message: impl Into<String>) -> Self {
        let one = json!({"loc": place, "msg": message.into(), "type": "value_error"});
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, json!([one]))
    }

    /// Airflow has it, Kobza has not.
    pub(crate) fn unserved(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, detail.into())
    }

    pub(crate) fn words(&self) -> String {
        self.detail.as_str().map_or_else(|| self.detail.to_string(), str::to_owned)
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        (self.status, Body(json!({"detail": self.detail}))).into_response()
    }
}

impl From<StoreError> for RestError {
    fn from(error: StoreError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<ViewError> for RestError {
    fn from(error: ViewError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<std::io::Error> for RestError {
    fn from(error: std::io::Error) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<SubmitError> for RestError {
    fn from(error: SubmitError) -> Self {
        let status = match &error {
            SubmitError::Refused(Refusal::NoRun(_) | Refusal::NoTask(_)) => StatusCode::NOT_FOUND,
            SubmitError::Refused(Refusal::Invalid(_)) => StatusCode::BAD_REQUEST,
            SubmitError::Refused(_) | SubmitError::KeyTaken { .. } => StatusCode::CONFLICT,
            SubmitError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            SubmitError::Store(_) | SubmitError::Unknown(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<StartError> for RestError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Submit(error) => error.into(),
            error => {
                let status = StatusCode::from_u16(error.status());
                Self::new(status.unwrap_or(StatusCode::BAD_REQUEST), error.to_string())
            }
        }
    }
}

impl From<Refused> for RestError {
    fn from(refused: Refused) -> Self {
        let status = refused.detail["status_code"].as_u64().and_then(|s| u16::try_from(s).ok());
        let status = status.and_then(|s| StatusCode::from_u16(s).ok());
        let words = refused.detail["message"].as_str().or_else(|| refused.detail.as_str());
        let words = words.map_or_else(|| refused.detail.to_string(), str::to_owned);
        Self::new(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), words)
    }
}

impl Call {
    /// A part of the path.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// A part of the path that is a number.
    pub(crate) fn number(&self, name: &str) -> Result<i64, RestError> {
        let wrong = || RestError::field(&["path", name], "Input should be a valid integer");
        self.param(name).parse().map_err(|_| wrong())
    }

    /// The map index of the path, or else of the query; -1 is that of an unmapped task.
    pub(crate) fn map_index(&self) -> Result<i64, RestError> {
        Ok(self.given_map_index()?.unwrap_or(-1))
    }

    pub(crate) fn given_map_index(&self) -> Result<Option<i64>, RestError> {
        if self.params.contains_key("map_index") {
            return self.number("map_index").map(Some);
        }
        self.query.number("map_index")
    }

    /// The body, read strictly.
    pub(crate) fn body<T: DeserializeOwned>(&self) -> Result<T, RestError> {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        // A page of another site can send text, but not JSON, without being asked.
        if essence != "application/json" && !essence.ends_with("+json") {
            return Err(RestError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be JSON (Content-Type: application/json)",
            ));
        }
        parse(&self.body)
    }

    /// Whether there is no body.
    pub(crate) fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// A form or JSON.
    pub(crate) fn form<T: DeserializeOwned>(&self) -> Result<T, RestError> {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
            let pairs = Query::parse(&String::from_utf8_lossy(&self.body));
            let fields = pairs.pairs().map(|(name, value)| (name.to_owned(), Json::from(value)));
            let fields = Json::Object(fields.collect());
            return serde_json::from_value(fields).map_err(|e| wrong_body(&e));
        }
        self.body()
    }

    /// The fields that a partial change may touch: those of `update_mask`, or of the body.
    pub(crate) fn mask(&self) -> Option<Vec<String>> {
        let all: Vec<String> = self
            .query
            .all("update_mask")
            .flat_map(|mask| mask.split(',').map(|part| part.trim().to_owned()))
            .collect();
        (!all.is_empty()).then_some(all)
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What was asked for, in words: a method and a path.
    pub(crate) fn asked(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, RestError> {
    serde_json::from_slice(body).map_err(|error| wrong_body(&error))
}

fn wrong_body(error: &serde_json::Error) -> RestError {
    RestError::field(&["body"], error.to_string())
}

impl Rest {
    /// Commits commands and writes.
    pub(crate) fn submit(&self, submission: impl Into<Submission>) -> Result<(), RestError> {
        self.desk.handle.submit_blocking(submission)?;
        Ok(())
    }

    /// Waits for what another thread's loop answers.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        tokio::runtime::Handle::current().block_on(future)
    }
}

/// What the path holds, or how it is wrong.
pub(crate) type Parts = Result<RawPathParams, RawPathParamsRejection>;

pub(crate) fn parts(found: Parts) -> Result<BTreeMap<String, String>, RestError> {
    let found = found.map_err(|error| RestError::bad(error.body_text()))?;
    Ok(found.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A handler of axum's for a row of the table.
pub(crate) fn handler(
    act: Act,
) -> impl Fn(State<Arc<Rest>>, Parts, Request) -> Answering + Clone + Send + 'static {
    move |State(rest), params, request| Box::pin(answer(act, rest, params, request))
}

async fn answer(act: Act, rest: Arc<Rest>, params: Parts, request: Request) -> Response {
    let params = match parts(params) {
        Ok(params) => params,
        Err(error) => return error.into_response(),
    };
    let (parts, body) = request.into_parts();
    let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_default();
    let body = match axum::body::to_bytes(body, super::REQUEST_BYTES_MAX).await {
        Ok(body) => body,
        Err(_) => {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return RestError::new(status, "the body is too large").into_response();
        }
    };
    let call = Call {
        path: parts.uri.path().to_owned(),
        method: parts.method,
        params,
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        headers: parts.headers,
        body,
        caller: caller.name,
        is_local: caller.local,
    };
    // Views wait for the disk, commands for the loop.
    let result = tokio::task::spawn_blocking(move || act(&rest, &call)).await;
    let result = result
        .unwrap_or_else(|error| Err(RestError::internal(format!("it did not finish: {error}"))));
    match result {
        Ok(Reply::Body(status, body)) => (status, Body(body)).into_response(),
        Ok(Reply::Text(kind, text)) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Ok(Reply::Nothing) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.into_response(),
    }
}

pub(crate) async fn no_such_path() -> RestError {
    RestError::not_found("Not Found")
}

pub(crate) async fn no_such_method(method: Method, uri: Uri) -> RestError {
    let path = uri.path();
    RestError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not served at {path}"))
}
