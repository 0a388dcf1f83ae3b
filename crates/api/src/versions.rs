//! Versions of a workflow, and what each changed.

use axum::extract::State;
use kobza_model::Timestamp;
use kobza_store::{StoredWorkflow, Views};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, List, Path, Query};
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::workflows::{DEFAULT_NAMESPACE, Place, no_workflow};

pub(crate) fn routes() -> Routes {
    let access = (Viewer, Space::Query);
    Routes::new()
        .get("/workflows/{name}/versions", access, "Versions", versions)
        .get("/workflows/{name}/versions/{version}", access, "A version", version)
        .get("/workflows/{name}/diff", access, "What a version changed", diff)
}

/// A version in a list.
#[derive(Debug, Serialize, JsonSchema)]
struct Version {
    version: String,
    created_at: Timestamp,
    current: bool,
    /// How many runs it has had, where that is known.
    runs: Option<u64>,
}

async fn versions(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<Json<List<Version>>, ApiError> {
    let namespace = place.namespace();
    let asked = name.clone();
    let versions = state.read(move |v| v.workflow_versions(&namespace, &asked)).await?;
    if versions.is_empty() {
        return Err(no_workflow(&name));
    }
    let items = versions
        .into_iter()
        .map(|v| Version {
            version: v.version,
            created_at: v.created_at,
            current: v.current,
            runs: None,
        })
        .collect();
    Ok(Json(List::whole(items)))
}

pub(crate) fn language(source: Option<&str>) -> &'static str {
    match source.map(str::trim_start) {
        Some(text) if text.starts_with('{') => "json",
        _ => "yaml",
    }
}

/// A version with its text.
#[derive(Debug, Serialize, JsonSchema)]
struct VersionDetail {
    version: String,
    created_at: Timestamp,
    current: bool,
    source: Option<String>,
    /// `yaml`, `json` or `python`.
    language: &'static str,
    /// JSON Schema of its parameters.
    params: Value,
}

/// A version by its hash or the beginning of it that is unambiguous.
fn stored_version(
    views: &dyn Views,
    namespace: &str,
    name: &str,
    version: &str,
) -> Result<Option<StoredWorkflow>, kobza_store::ViewError> {
    if let Some(found) = views.get_workflow(namespace, name, Some(version))? {
        return Ok(Some(found));
    }
    let all = views.workflow_versions(namespace, name)?;
    let mut fits = all.iter().filter(|v| version.len() >= 7 && v.version.starts_with(version));
    match (fits.next(), fits.next()) {
        (Some(one), None) => views.get_workflow(namespace, name, Some(&one.version)),
        _ => Ok(None),
    }
}

async fn version(
    State(state): State<ApiState>,
    Path((name, version)): Path<(String, String)>,
    Query(place): Query<Place>,
) -> Result<Json<VersionDetail>, ApiError> {
    let namespace = place.namespace();
    let wanted = name.clone();
    let found = state
        .read(move |v| {
            let current = v.get_workflow(&namespace, &wanted, None)?;
            Ok(stored_version(v, &namespace, &wanted, &version)?.zip(current))
        })
        .await?;
    let (stored, current) = found.ok_or_else(|| no_workflow(&name))?;
    Ok(Json(VersionDetail {
        current: stored.version == current.version,
        version: stored.version,
        created_at: stored.created_at,
        language: language(stored.source.as_deref()),
        source: stored.source,
        params: stored.workflow.params.clone(),
    }))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct DiffAsked {
    /// `default` when absent.
    namespace: Option<String>,
    /// A version; the one before `to` when absent.
    from: Option<String>,
    /// A version; the current one when absent.
    to: Option<String>,
}

/// Two versions and what differs between their texts.
#[derive(Debug, Serialize, JsonSchema)]
struct VersionDiff {
    /// Null: there is none before.
    from: Option<String>,
    to: String,
    lines: Vec<DiffLine>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct DiffLine {
    kind: DiffKind,
    text: String,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DiffKind {
    Same,
    Removed,
    Added,
}

async fn diff(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(asked): Query<DiffAsked>,
) -> Result<Json<VersionDiff>, ApiError> {
    let namespace = asked.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let wanted = name.clone();
    let found = state
        .read(move |v| {
            let to = match &asked.to {
                Some(to) => stored_version(v, &namespace, &wanted, to)?,
                None => v.get_workflow(&namespace, &wanted, None)?,
            };
            let Some(to) = to else { return Ok(None) };
            let from = match &asked.from {
                Some(from) => match stored_version(v, &namespace, &wanted, from)? {
                    Some(from) => Some(from),
                    None => return Ok(None),
                },
                None => {
                    let all = v.workflow_versions(&namespace, &wanted)?;
                    let before = all.iter().filter(|o| o.version != to.version);
                    match before
                        .filter(|o| o.created_at <= to.created_at)
                        .max_by_key(|o| o.created_at)
                    {
                        Some(older) => v.get_workflow(&namespace, &wanted, Some(&older.version))?,
                        None => None,
                    }
                }
            };
            Ok(Some((from, to)))
        })
        .await?;
    let (from, to) =
        found.ok_or_else(|| ApiError::not_found(format!("{name:?} has no such version")))?;
    let text = |stored: &StoredWorkflow| match &stored.source {
        Some(source) => source.clone(),
        None => serde_json::to_string_pretty(stored.workflow.as_ref()).unwrap_or_default(),
    };
    let old = from.as_ref().map(text).unwrap_or_default();
    let new = text(&to);
    let lines = similar::TextDiff::from_lines(&old, &new)
        .iter_all_changes()
        .map(|change| DiffLine {
            kind: match change.tag() {
                similar::ChangeTag::Equal => DiffKind::Same,
                similar::ChangeTag::Delete => DiffKind::Removed,
                similar::ChangeTag::Insert => DiffKind::Added,
            },
            text: change.value().trim_end_matches('\n').to_owned(),
        })
        .collect();
    Ok(Json(VersionDiff { from: from.map(|f| f.version), to: to.version, lines }))
}
