//! Variables and connections.

use kobza_model::Json;
use kobza_runtime::Submission;
use kobza_store::{ObjectQuery, Write, kinds};
use serde_json::{Map, json};

use super::{Desk, Found};
use crate::task::{Refused, is_sensitive, secrets_of};

/// Fields of a connection that are its own in Airflow; all others become its extra.
const OWN: [&str; 14] = [
    "kind",
    "conn_type",
    "url",
    "description",
    "host",
    "login",
    "user",
    "username",
    "password",
    "schema",
    "database",
    "port",
    "extra",
    "path",
];

impl Desk {
    pub(super) fn variable(&self, namespace: &str, key: &str) -> Found {
        let Some(value) = self.values.lookup(kinds::VARIABLE, namespace, key) else {
            let refused = Refused::not_found("VARIABLE_NOT_FOUND", json!({"key": key}));
            return refused.body().into();
        };
        // Airflow's variables are texts; what is none here is JSON there.
        let text = match value {
            Json::Null => None,
            Json::String(text) => Some(text),
            other => Some(other.to_string()),
        };
        let mut secrets = Vec::new();
        secrets_of(&json!(text), Some(key), &mut secrets);
        Found { body: json!({"type": "VariableResult", "key": key, "value": text}), secrets }
    }

    pub(super) fn variable_keys(
        &self,
        namespace: &str,
        prefix: &str,
        limit: usize,
        offset: usize,
    ) -> Result<Json, Refused> {
        let (mut keys, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = self.views.list_objects(&ObjectQuery {
                kind: kinds::VARIABLE,
                namespace: Some(namespace),
                prefix,
                descending: false,
                cursor: cursor.as_deref(),
                limit: 1000,
            })?;
            keys.extend(page.items.into_iter().map(|object| object.key));
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let total = keys.len();
        let keys: Vec<String> = keys.into_iter().skip(offset).take(limit).collect();
        Ok(json!({"type": "VariableKeysResult", "keys": keys, "total_entries": total}))
    }

    pub(crate) fn put_variable(
        &self,
        namespace: &str,
        key: &str,
        value: Option<String>,
        description: Option<String>,
    ) -> Result<Json, Refused> {
        if key.is_empty() || key.chars().count() > 250 || key.chars().any(char::is_control) {
            return Err(Refused::api(422, "a variable's key has 1 to 250 characters"));
        }
        let old = self.store.object(kinds::VARIABLE, namespace, key)?;
        let was_secret =
            old.as_ref().and_then(|old| old.get("sealed")).is_some_and(|sealed| !sealed.is_null());
        let kept = old.as_ref().and_then(|old| old.get("description")).cloned();
        let description = description.map_or(kept.unwrap_or_default(), Json::from);
        let value = json!(value);
        let object = if was_secret || is_sensitive(key) {
            let sealed = self.values.seal(kinds::VARIABLE, namespace, key, &value);
            let sealed = sealed.map_err(|error| Refused::api(500, error))?;
            json!({"sealed": sealed, "description": description})
        } else {
            json!({"value": value, "description": description})
        };
        self.put(kinds::VARIABLE, namespace, key, Some(object))?;
        Ok(json!({"type": "OKResponse", "ok": true}))
    }

    pub(crate) fn delete_variable(&self, namespace: &str, key: &str) -> Result<Json, Refused> {
        self.put(kinds::VARIABLE, namespace, key, None)?;
        Ok(json!({"type": "OKResponse", "ok": true}))
    }

    pub(crate) fn put(
        &self,
        kind: &'static str,
        namespace: &str,
        key: &str,
        value: Option<Json>,
    ) -> Result<(), Refused> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        let writes = vec![Write::PutObject { kind, namespace, key, value }];
        self.handle.submit_blocking(Submission { commands: Vec::new(), writes })?;
        Ok(())
    }

    pub(super) fn connection(&self, namespace: &str, id: &str) -> Found {
        let found = self.values.lookup(kinds::CONNECTION, namespace, id);
        let Some(Json::Object(fields)) = found else {
            let refused = Refused::not_found("CONNECTION_NOT_FOUND", json!({"conn_id": id}));
            return refused.body().into();
        };
        let (body, secrets) = connection(id, &fields);
        Found { body, secrets }
    }
}

/// A connection in Airflow's words, and what of it is secret.
pub(crate) fn connection(id: &str, fields: &Map<String, Json>) -> (Json, Vec<String>) {
    let text = |names: &[&str]| -> Option<String> {
        names.iter().find_map(|name| match fields.get(*name)? {
            Json::Null => None,
            Json::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        })
    };
    let kind = text(&["conn_type", "kind"]).unwrap_or_default();
    let host = match text(&["host", "path"]) {
        // An address is what an HTTP hook takes for a host.
        None if kind == "http" => text(&["url"]),
        host => host,
    };
    let port = fields.get("port").and_then(|port| match port {
        Json::Number(port) => port.as_i64(),
        Json::String(port) => port.parse().ok(),
        _ => None,
    });
    let mut extra = match fields.get("extra") {
        Some(Json::Object(extra)) => extra.clone(),
        Some(Json::String(text)) => match serde_json::from_str(text) {
            Ok(Json::Object(extra)) => extra,
            _ => Map::from_iter([("extra".to_owned(), json!(text))]),
        },
        _ => Map::new(),
    };
    for (name, value) in fields {
        if !OWN.contains(&name.as_str()) && !value.is_null() {
            extra.insert(name.clone(), value.clone());
        }
    }
    let password = text(&["password"]);
    let mut secrets = Vec::new();
    secrets_of(&json!(password), None, &mut secrets);
    secrets_of(&Json::Object(extra.clone()), None, &mut secrets);
    let extra = (!extra.is_empty()).then(|| Json::Object(extra).to_string());
    secrets_of(&json!(extra), None, &mut secrets);
    let body = json!({
        "type": "ConnectionResult",
        "conn_id": id,
        "conn_type": kind,
        "host": host,
        "schema": text(&["schema", "database"]),
        "login": text(&["login", "user", "username"]),
        "password": password,
        "port": port,
        "extra": extra,
    });
    (body, secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_in_airflows_words() {
        let fields = json!({
            "kind": "postgres", "host": "db", "user": "maria", "password": "hunter2", "port": "5432",
            "database": "sales", "sslmode": "require", "url": "postgres://made", "token": "swordfish",
        });
        let (body, secrets) = connection("c", fields.as_object().unwrap());
        assert_eq!(body["conn_type"], "postgres");
        assert_eq!(
            (&body["login"], &body["schema"], &body["port"]),
            (&json!("maria"), &json!("sales"), &json!(5432))
        );
        assert_eq!(body["extra"], "{\"sslmode\":\"require\",\"token\":\"swordfish\"}");
        assert_eq!(secrets[..2], ["hunter2".to_owned(), "swordfish".to_owned()]);
        let (body, _) =
            connection("h", json!({"kind": "http", "url": "http://x"}).as_object().unwrap());
        assert_eq!((&body["host"], &body["extra"]), (&json!("http://x"), &Json::Null));
    }
}
