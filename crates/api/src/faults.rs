//! Definitions that do not parse: what is wrong with each, and where.

use kobza_model::Timestamp;
use kobza_store::{ObjectQuery, ViewError, Views, Write, kinds};
use serde_json::json;

use crate::error::Problem;

/// What is kept of a definition's source, in bytes.
const MAX_SOURCE: usize = 256 * 1024;

/// The name of a workflow whose definition is broken: its `name:` line, else what it is filed as.
fn top_level<'a>(source: &'a str, field: &str) -> Option<&'a str> {
    let value = source.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty() && kobza_model::validate_name(value).is_ok()).then_some(value)
}

/// Records that the definition filed as `stem` does not parse.
#[must_use]
pub fn fault_write(stem: &str, source: &str, problems: &[Problem], now: Timestamp) -> Write {
    let first = problems.first();
    let kept = source.get(..MAX_SOURCE).unwrap_or(source);
    Write::PutObject {
        kind: kinds::IMPORT_ERROR,
        namespace: top_level(source, "namespace").unwrap_or("default").to_owned(),
        key: top_level(source, "name").unwrap_or(stem).to_owned(),
        value: Some(json!({
            "message": first.map_or("it does not parse", |p| p.message.as_str()),
            "hint": first.and_then(|p| p.hint.as_deref()),
            "line": first.and_then(|p| p.line),
            "column": first.and_then(|p| p.column),
            "file": first.and_then(|p| p.file.as_deref()),
            "source": kept,
            "at": now,
        })),
    }
}

/// A workflow whose definition parses has no fault any more.
pub(crate) fn mended(namespace: &str, name: &str) -> Write {
    Write::PutObject {
        kind: kinds::IMPORT_ERROR,
        namespace: namespace.to_owned(),
        key: name.to_owned(),
        value: None,
    }
}

/// Deletes what is known: said before all definitions are read anew.
///
/// # Errors
/// When the store cannot be read.
pub fn forget_faults(views: &dyn Views) -> Result<Vec<Write>, ViewError> {
    let query = ObjectQuery { kind: kinds::IMPORT_ERROR, limit: 1000, ..ObjectQuery::default() };
    let known = views.list_objects(&query)?.items;
    Ok(known.into_iter().map(|o| mended(&o.namespace, &o.key)).collect())
}

/// The text of a definition that does not parse.
pub(crate) fn source(
    views: &dyn Views,
    namespace: &str,
    name: &str,
) -> Result<Option<String>, ViewError> {
    let query = ObjectQuery {
        kind: kinds::IMPORT_ERROR,
        namespace: Some(namespace),
        prefix: name,
        limit: 1000,
        ..ObjectQuery::default()
    };
    let found = views.list_objects(&query)?.items.into_iter().find(|o| o.key == name);
    Ok(found.and_then(|o| o.value["source"].as_str().map(str::to_owned)))
}
