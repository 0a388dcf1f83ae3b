//! Errors as clients see them: a status, a code, a sentence, a hint, and fields.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kobza_engine::Refusal;
use kobza_runtime::SubmitError;
use kobza_store::{StoreError, ViewError};
use schemars::JsonSchema;
use serde::Serialize;

/// One thing that is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// Dotted path of the field.
    pub path: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// What every answer with a status of 400 or more holds.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct ErrorDetail {
    /// A word for programs, such as `not_found` or `conflict`.
    code: &'static str,
    /// One sentence for people.
    message: String,
    /// What to do about it.
    hint: Option<String>,
    /// What is wrong, field by field.
    fields: Vec<Problem>,
}

/// An answer that is an error: `{"error": {"code", "message", "hint", "fields"}}`.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    pub hint: Option<String>,
    pub fields: Vec<Problem>,
}

impl ApiError {
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: None, fields: Vec::new() }
    }

    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    #[must_use]
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// The input was understood and is wrong: 422 with the fields.
    #[must_use]
    pub fn invalid(fields: Vec<Problem>) -> Self {
        let message = fields.first().map_or_else(
            || "the input is not valid".to_owned(),
            |f| {
                let place = match (&f.file, f.line, f.column) {
                    (Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}: "),
                    _ => String::new(),
                };
                let field = if f.path.is_empty() { String::new() } else { format!("{}: ", f.path) };
                format!("{place}{field}{}", f.message)
            },
        );
        let hint = fields.first().and_then(|f| f.hint.clone());
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, code: "invalid", message, hint, fields }
    }

    /// A field holds what cannot be a name.
    #[must_use]
    pub fn name(field: &str, error: &kobza_model::NameError) -> Self {
        Self::invalid(vec![Problem {
            path: field.to_owned(),
            message: error.to_string(),
            hint: Some("letters, digits, `-`, `_` and spaces within are fine".to_owned()),
            file: None,
            line: None,
            column: None,
        }])
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: ErrorDetail {
                code: self.code,
                message: self.message,
                hint: self.hint,
                fields: self.fields,
            },
        };
        (self.status, Json(body)).into_response()
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let text = error.to_string();
        match error {
            SubmitError::Refused(refusal) => match refusal {
                Refusal::NoRun(_) | Refusal::NoTask(_) | Refusal::NoLimit(_) => {
                    Self::not_found(text)
                }
                Refusal::Invalid(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", text),
                _ => Self::new(StatusCode::CONFLICT, "conflict", text),
            },
            SubmitError::KeyTaken { .. } => Self::new(StatusCode::CONFLICT, "conflict", text),
            SubmitError::Store(_) | SubmitError::Stopped | SubmitError::Unknown(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", text)
                    .hint("try again; if it stays, look at the server's log and its disk")
            }
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", error.to_string())
    }
}

impl From<ViewError> for ApiError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Cursor => Self::bad("the cursor does not belong to this list"),
            ViewError::Store(error) => error.into(),
        }
    }
}
