//! Secrets that are kept elsewhere: in the server's environment, or in a file. Only where they are is
//! stored; they are read when a task needs them.

use kobza_model::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// The largest file that is read as a secret, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// Variables with this in front are the server's own, and no task's.
const OWN: &str = "KOBZA_";

/// Where a secret is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Reference {
    /// A variable of the server's environment.
    Env(String),
    /// A file that the server can read, by its absolute path. A line's end at its end is no part
    /// of the secret.
    File(String),
}

impl Reference {
    /// Refuses what can never be read, and what is the server's own.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        match self {
            Self::Env(name) if name.starts_with(OWN) => {
                Err(ApiError::bad(format!("the variable {name} is the server's own")))
            }
            Self::Env(name) if name.is_empty() || name.contains(['=', '\0']) => {
                Err(ApiError::bad(format!("{name:?} is no variable's name")))
            }
            Self::File(path) if !path.starts_with('/') || path.contains('\0') => {
                Err(ApiError::bad(format!("{path:?} is not an absolute path")))
            }
            _ => Ok(()),
        }
    }

    /// The secret as it is now. The error says where it was looked for, and nothing of its content.
    fn read(&self) -> Result<String, String> {
        match self {
            Self::Env(name) => {
                std::env::var(name).map_err(|_| format!("the environment has no variable {name}"))
            }
            Self::File(path) => {
                let told = |error: std::io::Error| format!("{path}: {error}");
                let size = std::fs::metadata(path).map_err(told)?.len();
                if size > MAX_FILE {
                    return Err(format!("{path}: {size} bytes are too many for a secret"));
                }
                let text = std::fs::read_to_string(path).map_err(told)?;
                Ok(text.trim_end_matches(['\n', '\r']).to_owned())
            }
        }
    }
}

/// The secret that a stored reference stands for.
pub(crate) fn resolve(stored: &Json) -> Option<Json> {
    let reference = Reference::deserialize(stored).ok()?;
    // Somebody may have put it into the store without the check.
    if reference.check().is_err() {
        return None;
    }
    match reference.read() {
        Ok(text) => Some(text.into()),
        Err(error) => {
            tracing::error!(error, "a secret by reference is not usable");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_read_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        assert_eq!(resolve(&json!({"file": file})), Some(json!("hunter2")));
        std::fs::write(&file, "changed").unwrap();
        assert_eq!(resolve(&json!({"file": file})), Some(json!("changed")));
        assert_eq!(resolve(&json!({"env": "HOME"})), std::env::var("HOME").ok().map(Json::from));
        for nothing in [
            json!({"file": folder.path().join("absent")}),
            json!({"env": "NO_SUCH_VARIABLE_HERE"}),
            json!({"env": "KOBZA_SECRET_KEY"}),
            json!({"file": "relative"}),
            json!("text"),
            json!({"vault": "x"}),
        ] {
            assert_eq!(resolve(&nothing), None, "{nothing}");
        }
    }
}
