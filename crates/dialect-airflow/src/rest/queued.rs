//! Updates of assets that have come to DAGs and have not started a run yet.

use kobza_model::{Json, Timestamp};
use serde_json::json;

use super::answer::{Call, Reply, RestError};
use super::assets::asset_id;
use super::table::{Route, get};
use super::{NAMESPACE, Rest};
use crate::ids::asset_name;
use crate::timetable::{AssetCondition, Timetable};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        get("/api/v2/assets/{asset_id}/queuedEvents", queued),
        get("/api/v2/dags/{dag_id}/assets/queuedEvents", queued),
        get("/api/v2/dags/{dag_id}/assets/{asset_id}/queuedEvents", queued_one),
    ]
}

/// Of a DAG, or of all.
fn waiting(rest: &Rest, dag_id: Option<&str>) -> Result<Vec<Json>, RestError> {
    let views = rest.block_on(rest.triggers.list(Some(NAMESPACE)));
    let views = views.map_err(|error| RestError::internal(error.to_string()))?;
    let mut shown = Vec::new();
    for view in views.iter().filter(|view| dag_id.is_none_or(|id| view.key.workflow == id)) {
        if view.row.updated.is_empty() {
            continue;
        }
        let Some(digest) = rest.digest(&view.key.workflow, None)? else { continue };
        let timetable = Timetable::parse(&digest.dag()["timetable"]).ok();
        let leaves = timetable.as_ref().and_then(Timetable::assets).map(AssetCondition::leaves);
        for leaf in leaves.into_iter().flatten() {
            let AssetCondition::Asset(asset) = leaf else { continue };
            let updates = view.row.updated.get(&asset_name(&asset.uri));
            let Some(first) = updates.and_then(|all| all.values().map(|one| one.at).min()) else {
                continue;
            };
            shown.push(json!({
                "dag_id": digest.dag_id, "asset_id": asset_id(&asset.name, &asset.uri),
                "created_at": first, "dag_display_name": digest.display_name,
            }));
        }
    }
    Ok(shown)
}

fn before(call: &Call, mut shown: Vec<Json>) -> Result<Vec<Json>, RestError> {
    if let Some(before) = call.query.instant("before")? {
        shown.retain(|one| {
            let at = one["created_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
            at.is_some_and(|at| at < before)
        });
    }
    Ok(shown)
}

fn queued(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let dag_id = Some(call.param("dag_id")).filter(|id| !id.is_empty());
    let mut shown = before(call, waiting(rest, dag_id)?)?;
    if dag_id.is_none() {
        let id = call.number("asset_id")?;
        shown.retain(|one| one["asset_id"] == id);
    }
    if shown.is_empty() {
        let what = match dag_id {
            Some(id) => format!("dag_id: `{id}`"),
            None => format!("asset_id: `{}`", call.param("asset_id")),
        };
        return Err(RestError::not_found(format!("Queue event with {what} was not found")));
    }
    Reply::ok(json!({"total_entries": shown.len(), "queued_events": shown}))
}

fn queued_one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (dag_id, id) = (call.param("dag_id"), call.number("asset_id")?);
    let shown = before(call, waiting(rest, Some(dag_id))?)?;
    Reply::ok(shown.into_iter().find(|one| one["asset_id"] == id).ok_or_else(|| {
        RestError::not_found(format!(
            "Queued event with dag_id: `{dag_id}` and asset_id: `{id}` was not found"
        ))
    })?)
}
