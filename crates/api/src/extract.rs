//! What handlers take and give. Wrong input is told the same way everywhere, as an [`ApiError`].

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, Problem};

/// Parts of the path.
pub(crate) struct Path<T>(pub(crate) T);
/// Parameters of the query.
pub(crate) struct Query<T>(pub(crate) T);
/// A JSON body, of a request or of an answer with status 200.
pub(crate) struct Json<T>(pub(crate) T);
/// The id of what a call makes. It goes with the call's idempotency key, so that a repetition, even
/// after the server died in between, finds what was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewId {
    pub(crate) id: uuid::Uuid,
    /// An earlier call may have made it.
    pub(crate) again: bool,
}
/// A JSON body that may be left out.
pub(crate) struct Given<T>(pub(crate) T);
/// An answer with status 201.
pub(crate) struct Created<T>(pub(crate) T);
/// An answer without a body: status 204.
pub(crate) struct NoContent;

/// One piece of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
    /// Give it as `cursor` to get what follows; null at the end.
    pub(crate) next: Option<String>,
    /// How many there are in all, where that is cheap to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<u64>,
}

impl<T> List<T> {
    pub(crate) fn new(items: Vec<T>, next: Option<String>) -> Self {
        Self { items, next, total: None }
    }

    pub(crate) fn whole(items: Vec<T>) -> Self {
        Self::new(items, None)
    }
}

/// Which piece of a list.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct Paging {
    /// The `next` of the piece before.
    pub(crate) cursor: Option<String>,
    /// Most items of the answer. A larger number than the route allows means that.
    pub(crate) limit: Option<u32>,
}

impl Paging {
    pub(crate) fn limit(&self, usual: u32, most: u32) -> u32 {
        self.limit.unwrap_or(usual).clamp(1, most)
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let found = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        found.map(|path| Self(path.0)).map_err(|e| ApiError::bad(e.body_text()))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let found = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        found.map(|query| Self(query.0)).map_err(|e| ApiError::bad(e.body_text()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NewId {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let fresh = || Self { id: uuid::Uuid::now_v7(), again: false };
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_else(fresh))
    }
}

async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is too large")
        } else {
            ApiError::bad(error.body_text())
        }
    })
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|e| ApiError::bad(format!("the body is not as expected: {e}")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence == "application/json" || essence.ends_with("+json")
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        // A page of another site can send text, but not JSON, without being asked.
        if !is_json(request.headers()) {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "media_type",
                "the body must be JSON",
            )
            .hint("send the header Content-Type: application/json"));
        }
        parsed(&bytes(request, state).await?).map(Self)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Given<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = bytes(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        // A list would be taken field by field.
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            return Err(ApiError::bad("the body must be a JSON object"));
        }
        parsed(&bytes).map(Self)
    }
}

/// A body as it was sent: what is signed is its bytes.
pub(crate) struct Verbatim(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Verbatim {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        bytes(request, state).await.map(Self)
    }
}

/// The text of a definition.
pub(crate) struct Source {
    pub(crate) json: bool,
    pub(crate) text: Bytes,
}

impl Source {
    /// What a definition of a request is called in messages.
    pub(crate) fn file(json: bool) -> &'static str {
        if json { "body.json" } else { "body.yaml" }
    }
}

/// A definition that is not even read to its end: told as the parser would tell it.
fn too_large(json: bool) -> ApiError {
    ApiError::invalid(vec![Problem {
        path: String::new(),
        message: "has too many bytes; a definition has at most 16777216 (16 MiB)".to_owned(),
        hint: Some("keep data in files of its own, and let tasks read them".to_owned()),
        file: Some(Source::file(json).to_owned()),
        line: Some(1),
        column: Some(1),
    }])
}

impl<S: Send + Sync> FromRequest<S> for Source {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let json = is_json(request.headers());
        // Said before it is sent, so that nobody sends it.
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        if length.and_then(|l| l.parse::<usize>().ok()).is_some_and(|l| l > crate::MAX_BODY_BYTES) {
            return Err(too_large(json));
        }
        let text = bytes(request, state).await.map_err(|error| {
            if error.status == StatusCode::PAYLOAD_TOO_LARGE { too_large(json) } else { error }
        })?;
        Ok(Self { json, text })
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, axum::Json(self.0)).into_response()
    }
}

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

/// An answer that is not JSON; `KIND` names it in the description.
pub(crate) struct Raw<K>(pub(crate) Response, pub(crate) std::marker::PhantomData<K>);

impl<K> Raw<K> {
    pub(crate) fn new(response: impl IntoResponse) -> Self {
        Self(response.into_response(), std::marker::PhantomData)
    }
}

impl<K> IntoResponse for Raw<K> {
    fn into_response(self) -> Response {
        self.0
    }
}

/// What a [`Raw`] answer holds.
pub(crate) trait Media {
    const TYPE: &'static str;
    const ABOUT: &'static str;
}

/// Text for people.
pub(crate) struct PlainText;
/// Metrics for Prometheus.
pub(crate) struct Metrics;

/// A copy of the store.
pub(crate) struct StoreCopy;

impl Media for StoreCopy {
    const TYPE: &'static str = "application/vnd.sqlite3";
    const ABOUT: &'static str = "An SQLite database";
}

impl Media for PlainText {
    const TYPE: &'static str = "text/plain";
    const ABOUT: &'static str = "The text";
}

impl Media for Metrics {
    const TYPE: &'static str = "application/openmetrics-text";
    const ABOUT: &'static str = "Metrics in the OpenMetrics format";
}

/// Server-sent events; `T` is the data of a frame.
pub(crate) struct Stream<T>(pub(crate) Response, pub(crate) std::marker::PhantomData<T>);

impl<T> Stream<T> {
    pub(crate) fn new(response: impl IntoResponse) -> Self {
        Self(response.into_response(), std::marker::PhantomData)
    }
}

impl<T> IntoResponse for Stream<T> {
    fn into_response(self) -> Response {
        self.0
    }
}

/// Either of two answers.
pub(crate) enum Either<A, B> {
    A(A),
    B(B),
}

impl<A: IntoResponse, B: IntoResponse> IntoResponse for Either<A, B> {
    fn into_response(self) -> Response {
        match self {
            Self::A(a) => a.into_response(),
            Self::B(b) => b.into_response(),
        }
    }
}
