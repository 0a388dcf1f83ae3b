//! Backfills.

use kobza_model::Json;
use kobza_triggers::backfill::{BackfillRow, BackfillSpec, BackfillState, Only, Order};
use kobza_triggers::service::{BackfillAction, TriggerError};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Call, Reply, RestError};
use super::listing::{Listing, instant};
use super::table::{Route, get, look, operate};
use super::{NAMESPACE, Rest};
use crate::ids;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        get("/api/v2/backfills", list),
        operate("POST", "/api/v2/backfills", create),
        look("POST", "/api/v2/backfills/dry_run", dry_run),
        get("/api/v2/backfills/{backfill_id}", one),
        operate("PUT", "/api/v2/backfills/{backfill_id}/pause", pause),
        operate("PUT", "/api/v2/backfills/{backfill_id}/unpause", unpause),
        operate("PUT", "/api/v2/backfills/{backfill_id}/cancel", cancel),
    ]
}

/// Runs that a dry run tells of.
const TOLD: u64 = 10_000;

fn told(rest: &Rest, row: &BackfillRow) -> Result<Json, RestError> {
    let spec = &row.spec;
    let behaviour = match spec.only {
        Only::Missing | Only::Failed => "failed",
        Only::New => "none",
        Only::All | Only::Ended => "completed",
    };
    let at = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default();
        instant(&["body"], text).map(|at| json!(at)).unwrap_or_else(|_| json!(row.created_at))
    };
    let digest = rest.digest(&spec.workflow, None)?;
    let paused = matches!(row.state, BackfillState::Paused | BackfillState::Cancelled);
    Ok(json!({
        "id": ids::number("backfill", &row.id),
        "dag_id": spec.workflow,
        "from_date": at(&spec.from),
        "to_date": at(&spec.to),
        "dag_run_conf": spec.params.as_object(),
        "is_paused": paused,
        "reprocess_behavior": behaviour,
        "max_active_runs": spec.parallelism,
        "created_at": row.created_at,
        "completed_at": row.ended_at,
        "updated_at": row.ended_at.unwrap_or(row.created_at),
        "dag_display_name": digest.map_or_else(|| spec.workflow.clone(), |d| d.display_name.clone()),
    }))
}

/// How the trigger service's refusals read here.
fn refused(error: TriggerError) -> RestError {
    match error {
        TriggerError::Missing(what) => RestError::not_found(format!("{what} was not found")),
        TriggerError::Invalid(words) => RestError::field(&["body"], words),
        other => RestError::internal(other.to_string()),
    }
}

fn all(rest: &Rest) -> Result<Vec<BackfillRow>, RestError> {
    let rows = rest.block_on(rest.triggers.backfills(NAMESPACE)).map_err(refused)?;
    // Those of other dialects are none of Airflow's.
    let mut own = Vec::new();
    for row in rows {
        if rest.digest(&row.spec.workflow, None)?.is_some() {
            own.push(row);
        }
    }
    Ok(own)
}

fn find(rest: &Rest, call: &Call) -> Result<BackfillRow, RestError> {
    let id = call.number("backfill_id")?;
    let found = all(rest)?
        .into_iter()
        .find(|row| i64::try_from(ids::number("backfill", &row.id)) == Ok(id));
    found.ok_or_else(|| RestError::not_found("Backfill not found"))
}

fn list(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    const BACKFILLS: Listing =
        Listing { key: "backfills", filters: &[], order: &[("id", "created_at")] };
    let missing = || RestError::field(&["query", "dag_id"], "Field required");
    let dag_id = call.query.one("dag_id").ok_or_else(missing)?;
    let mut items = Vec::new();
    for row in all(rest)?.iter().filter(|row| dag_id == "~" || row.spec.workflow == dag_id) {
        items.push(told(rest, row)?);
    }
    BACKFILLS.simple(call, items)
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    Reply::ok(told(rest, &find(rest, call)?)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    dag_id: String,
    from_date: String,
    to_date: String,
    #[serde(default)]
    run_backwards: bool,
    #[serde(default)]
    dag_run_conf: Option<serde_json::Map<String, Json>>,
    #[serde(default)]
    reprocess_behavior: Reprocess,
    #[serde(default = "ten")]
    max_active_runs: u32,
    #[serde(default)]
    run_on_latest_version: Option<bool>,
}

fn ten() -> u32 {
    10
}

/// Which dates that have a run get another.
#[derive(Clone, Copy, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Reprocess {
    #[default]
    None,
    Failed,
    Completed,
}

impl Body {
    fn spec(self, rest: &Rest) -> Result<BackfillSpec, RestError> {
        let digest = rest
            .digest(&self.dag_id, None)?
            .ok_or_else(|| RestError::not_found(format!("Could not find dag {}", self.dag_id)))?;
        let allowed = digest.fixed["allowed_run_types"].as_array();
        if allowed.is_some_and(|all| !all.iter().any(|kind| kind == "backfill")) {
            return Err(RestError::bad(format!(
                "Dag with dag_id: '{}' does not allow backfill runs",
                self.dag_id
            )));
        }
        let from = instant(&["body", "from_date"], &self.from_date)?;
        let to = instant(&["body", "to_date"], &self.to_date)?;
        let triggers = digest.workflow.triggers.as_array();
        let timetable = triggers.into_iter().flatten().find_map(|one| one.get("timetable"));
        let timetable = timetable.ok_or_else(|| {
            let words = format!(
                "{} has a non-periodic schedule that does not support backfills",
                self.dag_id
            );
            RestError::field(&["body"], words)
        })?;
        let conf = self.dag_run_conf.filter(|conf| !conf.is_empty());
        let spec = BackfillSpec {
            workflow: self.dag_id,
            partitions: None,
            schedule: Some(json!({"timetable": timetable})),
            from: Some(from.to_string()),
            to: Some(to.to_string()),
            order: if self.run_backwards { Order::NewestFirst } else { Order::OldestFirst },
            parallelism: self.max_active_runs,
            only: match self.reprocess_behavior {
                Reprocess::None => Only::New,
                Reprocess::Failed => Only::Missing,
                Reprocess::Completed => Only::Ended,
            },
            params: conf.map_or(Json::Null, Json::Object),
            latest: self.run_on_latest_version.unwrap_or(true),
        };
        let value = serde_json::to_value(&spec).map_err(|e| RestError::internal(e.to_string()))?;
        BackfillSpec::parse(&value).map_err(|error| RestError::field(&["body"], error.to_string()))
    }
}

fn create(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let spec = call.body::<Body>()?.spec(rest)?;
    let rival = |row: &BackfillRow| row.spec.workflow == spec.workflow && !row.state.is_finished();
    if all(rest)?.iter().any(rival) {
        return Err(RestError::conflict(format!(
            "There is already a running backfill for dag {}",
            spec.workflow
        )));
    }
    let id = uuid::Uuid::now_v7().to_string();
    let made = rest.triggers.create_backfill(NAMESPACE, &id, spec, &call.caller);
    Reply::ok(told(rest, &rest.block_on(made).map_err(refused)?)?)
}

fn dry_run(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let spec = call.body::<Body>()?.spec(rest)?;
    let preview = rest.triggers.preview_backfill(NAMESPACE, spec, TOLD);
    let (_, items) = rest.block_on(preview).map_err(refused)?;
    let shown: Vec<Json> = items
        .iter()
        .filter(|one| one.runs)
        .map(|one| {
            let own = one.item.tick.as_ref().map(|tick| tick.extra["airflow"].clone());
            let own = own.unwrap_or_default();
            json!({
                "logical_date": own["logical_date"], "partition_key": own["partition_key"],
                "partition_date": own["partition_date"],
            })
        })
        .collect();
    Reply::ok(json!({"total_entries": shown.len(), "backfills": shown}))
}

fn act(rest: &Rest, call: &Call, action: BackfillAction) -> Result<Reply, RestError> {
    let row = find(rest, call)?;
    if row.state.is_finished() || row.state == BackfillState::Cancelling {
        return Err(RestError::conflict("Backfill is already completed."));
    }
    // What is so already stays so.
    let is_so = match action {
        BackfillAction::Pause => row.state == BackfillState::Paused,
        BackfillAction::Resume => row.state == BackfillState::Running,
        _ => false,
    };
    if is_so {
        return Reply::ok(told(rest, &row)?);
    }
    let changed = rest.triggers.change_backfill(NAMESPACE, &row.id, action);
    Reply::ok(told(rest, &rest.block_on(changed).map_err(refused)?)?)
}

fn pause(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    act(rest, call, BackfillAction::Pause)
}

fn unpause(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    act(rest, call, BackfillAction::Resume)
}

fn cancel(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    act(rest, call, BackfillAction::Cancel)
}
