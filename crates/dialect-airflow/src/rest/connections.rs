//! Connections. What they hold that is secret is kept sealed and never told.

use kobza_model::Json;
use kobza_store::{StoredObject, kinds};
use serde::Deserialize;
use serde_json::{Map, json};

use super::answer::{Call, Reply, RestError};
use super::bulk::Things;
use super::listing::{Filter, Listing};
use super::table::{Route, edit, get};
use super::variables::{HIDDEN, no_team, read, redacted};
use super::{NAMESPACE, Rest};
use crate::desk::connection;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        get("/api/v2/connections", list),
        edit("POST", "/api/v2/connections", create),
        edit("PATCH", "/api/v2/connections", |rest, call| {
            super::bulk::apply(call, &Connections(rest))
        }),
        get("/api/v2/connections/{connection_id}", one),
        edit("PATCH", "/api/v2/connections/{connection_id}", patch),
        edit("DELETE", "/api/v2/connections/{connection_id}", delete),
    ]
}

/// The fields of a connection, those that are secret with what stands for them.
fn told(object: &StoredObject) -> Json {
    let value = &object.value;
    let mut fields = value["fields"].as_object().cloned().unwrap_or_default();
    fields.insert("conn_type".to_owned(), value["kind"].clone());
    for name in value["secrets"].as_array().into_iter().flatten().filter_map(Json::as_str) {
        fields.insert(name.to_owned(), json!(HIDDEN));
    }
    for name in value["from"].as_object().into_iter().flatten().map(|(name, _)| name) {
        fields.insert(name.clone(), json!(HIDDEN));
    }
    let whole = fields.get("extra").is_some_and(|extra| extra == HIDDEN);
    if whole {
        fields.remove("extra");
    }
    let (mut told, _) = connection(&object.key, &fields);
    let extra = told["extra"].as_str().and_then(|extra| serde_json::from_str::<Json>(extra).ok());
    told["extra"] = match extra {
        _ if whole => json!("{\"***\": \"***\"}"),
        Some(extra) => json!(redacted(&extra, "").to_string()),
        None => Json::Null,
    };
    let password = !told["password"].is_null();
    json!({
        "connection_id": object.key, "conn_type": told["conn_type"],
        "description": value["description"], "host": told["host"], "login": told["login"],
        "schema": told["schema"], "port": told["port"],
        "password": password.then_some(HIDDEN), "extra": told["extra"], "team_name": null,
    })
}

fn list(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    const CONNECTIONS: Listing = Listing {
        key: "connections",
        filters: &[Filter::Text("connection_id", "connection_id")],
        order: &[
            ("connection_id", "connection_id"),
            ("id", "connection_id"),
            ("conn_id", "connection_id"),
            ("conn_type", "conn_type"),
            ("description", "description"),
            ("host", "host"),
            ("port", "port"),
        ],
    };
    let items = rest.objects(kinds::CONNECTION, "")?.iter().map(told).collect();
    CONNECTIONS.simple(call, items)
}

fn find(rest: &Rest, id: &str) -> Result<StoredObject, RestError> {
    rest.desk.views.get_object(kinds::CONNECTION, NAMESPACE, id)?.ok_or_else(|| {
        RestError::not_found(format!("The Connection with connection_id: `{id}` was not found"))
    })
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    Reply::ok(told(&find(rest, call.param("connection_id"))?))
}

const FIELDS: [&str; 8] =
    ["conn_type", "description", "host", "login", "schema", "port", "password", "extra"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    connection_id: String,
    #[serde(default)]
    conn_type: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    login: Option<String>,
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    extra: Option<String>,
    #[serde(default)]
    team_name: Option<String>,
}

struct Connections<'a>(&'a Rest);

impl Connections<'_> {
    /// Sets the fields that `has` names; the others stay as they are.
    fn put(
        &self,
        body: Body,
        old: Option<Json>,
        has: impl Fn(&str) -> bool,
    ) -> Result<(), RestError> {
        let id = body.connection_id;
        let good = |c: char| c.is_ascii_alphanumeric() || "#!()-_.:/\\".contains(c);
        if id.is_empty() || id.len() > 200 || !id.chars().all(good) {
            return Err(RestError::field(
                &["body", "connection_id"],
                "String should match pattern '^[\\w.-]+$' and have at most 200 characters",
            ));
        }
        no_team(body.team_name.as_ref())?;
        let extra = match body.extra.as_deref().map(str::trim) {
            None | Some("") => None,
            Some(text) => match serde_json::from_str(text) {
                Ok(Json::Object(fields)) => Some(fields),
                _ => {
                    return Err(RestError::field(
                        &["body", "extra"],
                        "The `extra` field must be a valid JSON object (e.g., {\"key\": \"value\"})",
                    ));
                }
            },
        };
        let old = old.unwrap_or_default();
        let mut fields = old["fields"].as_object().cloned().unwrap_or_default();
        let mut secrets = match self.0.desk.values.secrets(NAMESPACE, &id, &old["sealed"]) {
            Ok(secrets) => secrets,
            Err(error) => return Err(RestError::internal(error)),
        };
        let mut from = old["from"].as_object().cloned().unwrap_or_default();
        let mut set = |name: &str, value: Option<Json>, secret: bool| {
            // An older name of the same thing must not come back.
            let same: &[&str] = match name {
                "host" => &["host", "path"],
                "login" => &["login", "user", "username"],
                "schema" => &["schema", "database"],
                _ => &[],
            };
            for name in same.iter().copied().chain([name]) {
                fields.remove(name);
                secrets.remove(name);
                from.remove(name);
            }
            let Some(value) = value else { return };
            let place = if secret { &mut secrets } else { &mut fields };
            place.insert(name.to_owned(), value);
        };
        for (name, value) in [
            ("host", body.host.map(Json::from)),
            ("login", body.login.map(Json::from)),
            ("schema", body.schema.map(Json::from)),
            ("port", body.port.map(Json::from)),
        ] {
            if has(name) {
                set(name, value, false);
            }
        }
        // What is shown for a password is none.
        if has("password") && body.password.as_deref() != Some(HIDDEN) {
            set("password", body.password.map(Json::from), true);
        }
        if has("extra") {
            let secret = extra.as_ref().is_some_and(|extra| {
                let extra = Json::Object(extra.clone());
                redacted(&extra, "") != extra
            });
            set("extra", extra.map(Json::Object), secret);
        }
        let names: Vec<&String> = secrets.keys().collect();
        let names = json!(names);
        let sealed = if secrets.is_empty() {
            Json::Null
        } else {
            let secrets = Json::Object(secrets);
            let sealed = self.0.desk.values.seal(kinds::CONNECTION, NAMESPACE, &id, &secrets);
            sealed.map_err(RestError::internal)?
        };
        let pick = |name: &str, given: Option<String>, old: &Json| {
            if has(name) { json!(given) } else { old.clone() }
        };
        let value = json!({
            "kind": pick("conn_type", body.conn_type, &old["kind"]),
            "description": pick("description", body.description, &old["description"]),
            "fields": fields, "secrets": names, "sealed": sealed, "from": from,
        });
        self.0.desk.put(kinds::CONNECTION, NAMESPACE, &id, Some(value))?;
        Ok(())
    }
}

impl Things for Connections<'_> {
    const WHAT: &'static str = "connections with these connection_ids";

    fn key(&self, entity: &Json) -> Result<String, RestError> {
        let id = entity.as_str().or_else(|| entity["connection_id"].as_str());
        id.map(str::to_owned)
            .ok_or_else(|| RestError::field(&["body", "connection_id"], "Field required"))
    }

    fn exists(&self, key: &str) -> Result<bool, RestError> {
        Ok(self.0.desk.views.get_object(kinds::CONNECTION, NAMESPACE, key)?.is_some())
    }

    fn create(&self, entity: Json) -> Result<(), RestError> {
        let body: Body = read(entity)?;
        if body.conn_type.is_none() {
            return Err(RestError::field(&["body", "conn_type"], "Field required"));
        }
        self.put(body, None, |_| true)
    }

    fn update(&self, key: &str, entity: Json, mask: Option<&[String]>) -> Result<(), RestError> {
        let given: Map<String, Json> = entity.as_object().cloned().unwrap_or_default();
        let body: Body = read(entity)?;
        if body.connection_id != key {
            return Err(RestError::bad(
                "The connection_id in the request body does not match the URL parameter",
            ));
        }
        if mask.is_none() && body.conn_type.is_none() {
            return Err(RestError::field(&["body", "conn_type"], "Field required"));
        }
        let old = find(self.0, key)?.value;
        let named = |name: &str| mask.is_none_or(|mask| mask.iter().any(|one| one == name));
        let has = |name: &str| FIELDS.contains(&name) && given.contains_key(name) && named(name);
        self.put(body, Some(old), has)
    }

    fn delete(&self, key: &str, _: &Json) -> Result<(), RestError> {
        self.0.desk.put(kinds::CONNECTION, NAMESPACE, key, None)?;
        Ok(())
    }
}

fn create(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let entity: Json = call.body()?;
    let things = Connections(rest);
    let id = things.key(&entity)?;
    if things.exists(&id)? {
        return Err(RestError::conflict(format!(
            "The Connection with connection_id: `{id}` already exists"
        )));
    }
    things.create(entity)?;
    Reply::created(told(&find(rest, &id)?))
}

fn patch(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let id = call.param("connection_id");
    let mut entity: Json = call.body()?;
    if entity.is_object() && entity.get("connection_id").is_none() && call.mask().is_some() {
        entity["connection_id"] = json!(id);
    }
    find(rest, id)?;
    Connections(rest).update(id, entity, call.mask().as_deref())?;
    one(rest, call)
}

fn delete(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let id = call.param("connection_id");
    find(rest, id)?;
    Connections(rest).delete(id, &Json::Null)?;
    Ok(Reply::Nothing)
}
