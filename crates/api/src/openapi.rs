//! The description of the API, made from the routes and their handlers' types.

use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::describe::Schemas;
use crate::error::ErrorBody;
use crate::extract::Json;
use crate::gate::below;
use crate::state::ApiState;
use crate::table::{Routes, Space};

pub(crate) fn routes() -> Routes {
    Routes::new().get("/openapi.json", (None, Space::Global), "This description", serve)
}

async fn serve(State(_): State<ApiState>) -> Json<Value> {
    static DOCUMENT: std::sync::LazyLock<Value> = std::sync::LazyLock::new(document);
    Json(DOCUMENT.clone())
}

/// What every write takes beside its own parameters.
fn write_headers() -> [Value; 2] {
    [
        json!({
            "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 200},
            "description": "The same key with the same request gets the same answer for a day, and is done once.",
        }),
        json!({
            "name": "X-Kobza-Csrf", "in": "header", "schema": {"type": "string"},
            "description": "Any value. Needed with a session's cookie, not with a token.",
        }),
    ]
}

/// The statuses of errors that a route can answer with.
fn errors(public: bool, path: &str, writes: bool) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![("400", "The request cannot be understood")];
    if !public {
        all.push(("401", "No credentials, or wrong ones"));
        all.push(("403", "The role does not suffice"));
    }
    if path.contains('{') {
        all.push(("404", "There is no such thing"));
    }
    if writes {
        all.push(("409", "The state does not allow it"));
        all.push(("413", "The body is too large"));
        all.push(("422", "The input was understood and is wrong"));
    }
    all.push(("429", "Too many tries"));
    all.push(("503", "The store does not answer"));
    all
}

/// An OpenAPI 3.1 document with every route.
#[must_use]
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    let error = schemas.answer::<ErrorBody>();
    let mut paths: Map<String, Value> = Map::new();
    for route in crate::all_routes().table {
        let mut operation = schemas.operation();
        (route.describe)(&mut operation);
        let mut parameters: Vec<Value> = route
            .path
            .split('/')
            .filter_map(|p| p.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        parameters.append(&mut operation.parameters);
        if route.space == Space::Query && !parameters.iter().any(|p| p["name"] == "namespace") {
            parameters.push(json!({
                "name": "namespace", "in": "query", "schema": {"type": "string", "default": "default"},
            }));
        }
        let writes = route.method != "GET";
        if writes && route.role.is_some() {
            parameters.extend(write_headers());
        }
        let mut responses = operation.responses;
        for (status, about) in errors(route.role.is_none(), &route.path, writes) {
            responses.insert(
                status.to_owned(),
                json!({
                    "description": about, "content": {"application/json": {"schema": error}},
                }),
            );
        }
        let mut entry = json!({
            "summary": route.summary,
            "operationId": operation_id(route.method, &route.path),
            "tags": [tag(&route.path)],
            "parameters": parameters,
        });
        if let Some(body) = operation.body {
            entry["requestBody"] = body;
        }
        entry["responses"] = responses.into();
        match route.role {
            Some(role) => {
                entry["x-role"] = role.as_str().into();
                entry["security"] = json!([{"bearer": []}, {"basic": []}, {"session": []}]);
            }
            None => entry["security"] = json!([]),
        }
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method.to_lowercase()] = entry;
    }
    let (schemas, twice) = schemas.finish();
    debug_assert!(twice.is_empty(), "names that mean two things: {twice:?}");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Kobza", "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token"},
                "basic": {"type": "http", "scheme": "basic", "description": "A person's name and password, or any name and a token"},
                "session": {"type": "apiKey", "in": "cookie", "name": crate::auth::COOKIE, "description": "From POST /api/v1/session"},
            },
            "schemas": schemas,
        },
    })
}

fn tag(path: &str) -> &str {
    below(path).split('/').find(|p| !p.is_empty()).unwrap_or("server")
}

fn operation_id(method: &str, path: &str) -> String {
    let root = if path.starts_with(crate::gate::BASE) { "" } else { "_root" };
    let parts = below(path).split(['/', '-', '.']).filter(|p| !p.is_empty());
    parts.fold(format!("{}{root}", method.to_lowercase()), |id, part| {
        format!("{id}_{}", part.trim_start_matches('{').trim_end_matches('}'))
    })
}
