//! The description of the API, made from the table of routes.

use axum::{Json, Router, routing::get};
use serde_json::{Map, Value, json};

use crate::gate::BASE;
use crate::state::ApiState;
use crate::table::{ROUTES, Space};

pub(crate) fn routes() -> Router<ApiState> {
    Router::new().route("/openapi.json", get(|| async { Json(document()) }))
}

/// An OpenAPI 3.1 document with every route.
#[must_use]
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let mut parameters: Vec<Value> = route
            .path
            .split('/')
            .filter_map(|p| p.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        if route.space == Space::Query {
            parameters.push(json!({"name": "namespace", "in": "query", "schema": {"type": "string", "default": "default"}}));
        }
        let mut operation = json!({
            "summary": route.summary,
            "operationId": operation_id(route.method, route.path),
            "parameters": parameters,
            "responses": {
                "2XX": {"description": "Done", "content": {"application/json": {"schema": {"type": "object"}}}},
                "default": {"description": "An error", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}},
            },
        });
        match route.role {
            Some(role) => {
                operation["x-role"] = role.as_str().into();
                operation["security"] = json!([{"bearer": []}, {"basic": []}, {"session": []}]);
            }
            None => operation["security"] = json!([]),
        }
        let path = format!("{BASE}{}", route.path);
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[route.method.to_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Kobza", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
                "session": {"type": "apiKey", "in": "cookie", "name": crate::auth::COOKIE},
            },
            "schemas": {"Error": {
                "type": "object", "required": ["error"],
                "properties": {"error": {
                    "type": "object", "required": ["code", "message"],
                    "properties": {
                        "code": {"type": "string"}, "message": {"type": "string"},
                        "hint": {"type": ["string", "null"]},
                        "fields": {"type": "array", "items": {"type": "object"}},
                    },
                }},
            }},
        },
    })
}

fn operation_id(method: &str, path: &str) -> String {
    let parts = path.split(['/', '-', '.']).filter(|p| !p.is_empty());
    parts.fold(method.to_lowercase(), |id, part| {
        format!("{id}_{}", part.trim_start_matches('{').trim_end_matches('}'))
    })
}
