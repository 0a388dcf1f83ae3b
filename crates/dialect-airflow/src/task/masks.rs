//! Which of the values that a task wants masked are masked, as the SDK's masker decides it.

use kobza_model::Json;

/// Shorter ones are not masked.
const CHARACTERS_MIN: usize = 5;
/// Never masked: the log would be unreadable.
const SKIPPED: &str = "airflow";
/// A named value is masked only if its name contains one of these.
const SENSITIVE: [&str; 22] = [
    "access_key",
    "access_token",
    "api_key",
    "apikey",
    "auth_header",
    "authorization",
    "bearer",
    "connection_string",
    "dsn",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "proxy",
    "proxy_password",
    "proxies",
    "secret",
    "service_account",
    "service_key",
    "token",
    "keyfile_dict",
    "webhook_url",
];

/// Adds the texts in a value that must be masked.
pub fn secrets_of(value: &Json, name: Option<&str>, out: &mut Vec<String>) {
    match value {
        Json::String(text) => {
            let hidden = name.is_none_or(|name| name.is_empty() || is_sensitive(name));
            let long = text.chars().count() >= CHARACTERS_MIN;
            if hidden && long && text.to_lowercase() != SKIPPED {
                out.push(text.clone());
            }
        }
        Json::Array(items) => items.iter().for_each(|item| secrets_of(item, name, out)),
        Json::Object(map) => map.iter().for_each(|(key, item)| secrets_of(item, Some(key), out)),
        _ => {}
    }
}

/// Whether what has this name is shown to nobody.
#[must_use]
pub fn is_sensitive(name: &str) -> bool {
    let name = name.trim().to_lowercase();
    SENSITIVE.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_lengths_decide() {
        let of = |value: Json, name| {
            let mut out = Vec::new();
            secrets_of(&value, name, &mut out);
            out
        };
        assert_eq!(of(json!("hunter2"), None), ["hunter2"]);
        assert_eq!(of(json!("abcd"), None), [""; 0]);
        assert_eq!(of(json!("Airflow"), None), [""; 0]);
        assert_eq!(of(json!("hunter2"), Some("region")), [""; 0]);
        assert_eq!(of(json!("hunter2"), Some("DB_Password ")), ["hunter2"]);
        assert_eq!(of(json!({"user": "maria", "token": ["swordfish", 1]}), None), ["swordfish"]);
    }
}
