//! Variables.

use kobza_model::Json;
use kobza_store::{ObjectQuery, StoredObject, kinds};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Call, Reply, RestError};
use super::bulk::Things;
use super::listing::{Filter, Listing};
use super::table::{Route, edit, get};
use super::{NAMESPACE, Rest};
use crate::task::is_sensitive;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        get("/api/v2/variables", list),
        edit("POST", "/api/v2/variables", create),
        edit("PATCH", "/api/v2/variables", |rest, call| super::bulk::apply(call, &Variables(rest))),
        get("/api/v2/variables/{*variable_key}", one),
        edit("PATCH", "/api/v2/variables/{*variable_key}", patch),
        edit("DELETE", "/api/v2/variables/{*variable_key}", delete),
    ]
}

/// What stands where something must not be read.
pub(crate) const HIDDEN: &str = "***";

/// A value without what its names say is secret.
pub(crate) fn redacted(value: &Json, name: &str) -> Json {
    match value {
        Json::Null | Json::Bool(_) => value.clone(),
        _ if is_sensitive(name) => json!(HIDDEN),
        Json::Object(fields) => Json::Object(
            fields.iter().map(|(key, value)| (key.clone(), redacted(value, key))).collect(),
        ),
        Json::Array(items) => items.iter().map(|item| redacted(item, "")).collect(),
        other => other.clone(),
    }
}

impl Rest {
    /// All objects of a kind whose keys begin so.
    pub(crate) fn objects(
        &self,
        kind: &'static str,
        prefix: &str,
    ) -> Result<Vec<StoredObject>, RestError> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = self.desk.views.list_objects(&ObjectQuery {
                kind,
                namespace: Some(NAMESPACE),
                prefix,
                descending: false,
                cursor: cursor.as_deref(),
                limit: 1000,
            })?;
            all.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(all),
            }
        }
    }
}

fn told(object: &StoredObject) -> Json {
    let there = |field: &str| object.value.get(field).is_some_and(|value| !value.is_null());
    let hidden = there("sealed") || there("from");
    let value = if hidden {
        json!(HIDDEN)
    } else {
        match object.value.get("value").unwrap_or(&Json::Null) {
            Json::Null => Json::Null,
            Json::String(text) => match serde_json::from_str::<Json>(text) {
                Ok(value @ (Json::Object(_) | Json::Array(_))) => {
                    let shown = redacted(&value, &object.key);
                    if shown == value { json!(text) } else { json!(shown.to_string()) }
                }
                _ if is_sensitive(&object.key) => json!(HIDDEN),
                _ => json!(text),
            },
            value => json!(redacted(value, &object.key).to_string()),
        }
    };
    json!({
        "key": object.key, "value": value, "description": object.value["description"],
        "is_encrypted": hidden, "team_name": null,
    })
}

fn list(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    const VARIABLES: Listing = Listing {
        key: "variables",
        filters: &[Filter::Text("variable_key", "key")],
        order: &[
            ("key", "key"),
            ("id", "key"),
            ("_val", "value"),
            ("description", "description"),
            ("is_encrypted", "is_encrypted"),
        ],
    };
    let items = rest.objects(kinds::VARIABLE, "")?.iter().map(told).collect();
    VARIABLES.simple(call, items)
}

fn find(rest: &Rest, key: &str) -> Result<StoredObject, RestError> {
    rest.desk.views.get_object(kinds::VARIABLE, NAMESPACE, key)?.ok_or_else(|| {
        RestError::not_found(format!("The Variable with key: `{key}` was not found"))
    })
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    Reply::ok(told(&find(rest, call.param("variable_key"))?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    key: String,
    #[serde(default, deserialize_with = "there")]
    value: Option<Json>,
    #[serde(default, deserialize_with = "super::runs::given")]
    description: Option<Option<String>>,
    #[serde(default)]
    team_name: Option<String>,
}

/// A value that may be null, but not absent.
pub(crate) fn there<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

pub(crate) fn no_team(team: Option<&String>) -> Result<(), RestError> {
    if team.is_some() {
        let message = "team_name cannot be set when multi_team mode is disabled. Please contact your \
                       administrator.";
        return Err(RestError::field(&["body", "team_name"], message));
    }
    Ok(())
}

/// Variables are texts: what is none is JSON.
fn text(value: Json) -> String {
    match value {
        Json::String(text) => text,
        other => serde_json::to_string_pretty(&other).unwrap_or_else(|_| other.to_string()),
    }
}

struct Variables<'a>(&'a Rest);

impl Variables<'_> {
    fn put(&self, key: &str, value: Json, description: Option<String>) -> Result<(), RestError> {
        self.0.desk.put_variable(NAMESPACE, key, Some(text(value)), description)?;
        Ok(())
    }
}

impl Things for Variables<'_> {
    const WHAT: &'static str = "variables with these keys";

    fn key(&self, entity: &Json) -> Result<String, RestError> {
        let key = entity.as_str().or_else(|| entity["key"].as_str());
        key.map(str::to_owned).ok_or_else(|| RestError::field(&["body", "key"], "Field required"))
    }

    fn exists(&self, key: &str) -> Result<bool, RestError> {
        Ok(self.0.desk.views.get_object(kinds::VARIABLE, NAMESPACE, key)?.is_some())
    }

    fn create(&self, entity: Json) -> Result<(), RestError> {
        let body: Body = read(entity)?;
        no_team(body.team_name.as_ref())?;
        let value = body.value.ok_or_else(required)?;
        self.put(&body.key, value, body.description.flatten())
    }

    fn update(&self, key: &str, entity: Json, mask: Option<&[String]>) -> Result<(), RestError> {
        let body: Body = read(entity)?;
        no_team(body.team_name.as_ref())?;
        if body.key != key {
            return Err(RestError::bad(
                "Invalid body, key from request body doesn't match uri parameter",
            ));
        }
        let has = |name: &str| mask.is_none_or(|mask| mask.iter().any(|one| one == name));
        if mask.is_none() && body.value.is_none() {
            return Err(required());
        }
        let value = body.value.filter(|_| has("value") || has("val"));
        let description = body.description.filter(|_| has("description")).flatten();
        match value {
            Some(value) => self.put(key, value, description),
            None => {
                let mut object = find(self.0, key)?.value;
                object["description"] = json!(description);
                self.0.desk.put(kinds::VARIABLE, NAMESPACE, key, Some(object))?;
                Ok(())
            }
        }
    }

    fn delete(&self, key: &str, _: &Json) -> Result<(), RestError> {
        self.0.desk.delete_variable(NAMESPACE, key)?;
        Ok(())
    }
}

fn required() -> RestError {
    RestError::field(&["body", "value"], "Field required")
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(entity: Json) -> Result<T, RestError> {
    serde_json::from_value(entity).map_err(|e| RestError::field(&["body"], e.to_string()))
}

fn create(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let entity: Json = call.body()?;
    let things = Variables(rest);
    let key = things.key(&entity)?;
    if things.exists(&key)? {
        return Err(RestError::conflict(format!("The Variable with key: `{key}` already exists")));
    }
    things.create(entity)?;
    Reply::created(told(&find(rest, &key)?))
}

fn patch(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let key = call.param("variable_key");
    let mut entity: Json = call.body()?;
    // With a mask, what it does not name need not be there.
    if entity.is_object() && entity.get("key").is_none() && call.mask().is_some() {
        entity["key"] = json!(key);
    }
    find(rest, key)?;
    Variables(rest).update(key, entity, call.mask().as_deref())?;
    one(rest, call)
}

fn delete(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let key = call.param("variable_key");
    find(rest, key)?;
    Variables(rest).delete(key, &Json::Null)?;
    Ok(Reply::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_told() {
        let at = kobza_model::Timestamp(0);
        let of = |key: &str, value: Json| {
            let object = StoredObject {
                namespace: "default".to_owned(),
                key: key.to_owned(),
                value,
                updated_at: at,
            };
            told(&object)["value"].clone()
        };
        assert_eq!(of("region", json!({"value": "eu"})), "eu");
        assert_eq!(of("n", json!({"value": 3})), "3");
        assert_eq!(of("db_password", json!({"value": "hunter2"})), HIDDEN);
        assert_eq!(of("x", json!({"sealed": {"v": 1}})), HIDDEN);
        assert_eq!(of("x", json!({"from": {"env": "X"}})), HIDDEN);
        assert_eq!(of("x", json!({"value": "{\"a\": 1}"})), "{\"a\": 1}");
        assert_eq!(
            of("x", json!({"value": "{\"a\": 1, \"token\": \"swordfish\"}"})),
            "{\"a\":1,\"token\":\"***\"}"
        );
    }
}
