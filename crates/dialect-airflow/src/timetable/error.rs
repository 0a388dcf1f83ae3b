//! Why a timetable was refused or could not answer.

/// An error of a timetable.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TimetableError {
    /// The serialised form is not one that this version reads.
    #[error("{field}: {message}")]
    Invalid {
        /// Path of the field within the serialised timetable, such as `timetable.delta.months`.
        field: String,
        message: String,
    },
    /// A class of the user's own: only Python can answer for it.
    #[error("{0} is a custom timetable: only its Python code can say when it is due")]
    Custom(String),
    /// It cannot answer, where Airflow logs an error and schedules nothing.
    #[error("{0}")]
    Failed(String),
}

impl TimetableError {
    pub(super) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// The same error, seen from a level further out.
    pub(super) fn inside(self, outer: &str) -> Self {
        match self {
            Self::Invalid { field, message } => {
                Self::Invalid { field: format!("{outer}.{field}"), message }
            }
            other => other,
        }
    }
}

/// A hostile text can be megabytes: an error shows only its beginning.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
