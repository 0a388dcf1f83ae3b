//! Files that do not parse.

use kobza_model::Json;
use kobza_store::{StoredObject, kinds};
use serde_json::json;

use super::Rest;
use super::answer::{Call, Reply, RestError};
use super::listing::{Filter, Listing};
use super::table::{Route, get};
use crate::ids;

pub(crate) fn routes() -> Vec<Route> {
    vec![get("/api/v2/importErrors", list), get("/api/v2/importErrors/{import_error_id}", one)]
}

fn told(object: &StoredObject) -> Json {
    let value = &object.value;
    let trace = value["traceback"].as_str().map_or_else(
        || {
            let hint = value["hint"].as_str().map(|hint| format!("\nhint: {hint}"));
            format!("{}{}", value["message"].as_str().unwrap_or_default(), hint.unwrap_or_default())
        },
        str::to_owned,
    );
    let at = value["at"].as_str().and_then(|at| at.parse().ok()).unwrap_or(object.updated_at);
    json!({
        "import_error_id": ids::number("import error", &object.key),
        "timestamp": at,
        "filename": object.key,
        "bundle_name": value["bundle"],
        "stack_trace": trace,
    })
}

/// Faults of DAG files; other definitions have theirs elsewhere.
fn faults(rest: &Rest) -> Result<Vec<Json>, RestError> {
    let all = rest.objects(kinds::IMPORT_ERROR, "")?;
    Ok(all.iter().filter(|object| object.value["bundle"].is_string()).map(told).collect())
}

fn list(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    const FAULTS: Listing = Listing {
        key: "import_errors",
        filters: &[
            Filter::Text("filename", "filename"),
            Filter::Any("filename", "filename"),
            Filter::Any("bundle_name", "bundle_name"),
        ],
        order: &[
            ("id", "import_error_id"),
            ("import_error_id", "import_error_id"),
            ("timestamp", "timestamp"),
            ("filename", "filename"),
            ("bundle_name", "bundle_name"),
            ("stacktrace", "stack_trace"),
        ],
    };
    FAULTS.simple(call, faults(rest)?)
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let id = call.number("import_error_id")?;
    let found = faults(rest)?.into_iter().find(|fault| fault["import_error_id"] == id);
    Reply::ok(found.ok_or_else(|| {
        RestError::not_found(format!("The ImportError with import_error_id: `{id}` was not found"))
    })?)
}
