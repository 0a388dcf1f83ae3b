//! Backfills: many runs of one workflow as one thing.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use kobza_model::{RunId, RunState, Timestamp};
use kobza_store::{ObjectQuery, kinds};
use kobza_triggers::TriggerKind;
use kobza_triggers::backfill::{
    BackfillRow, BackfillSpec, BackfillState, ItemOutcome, ItemRow, Only, Order,
};
use kobza_triggers::service::{BackfillAction, PreviewItem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::Principal;
use crate::auth::Role::{Operator, Viewer};
use crate::error::ApiError;
use crate::extract::{Created, Either, Json, List, NewId, Path, Query};
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::workflows::Place;

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get("/backfills", (Viewer, Space::Query), "Backfills", list)
        .post("/backfills", (Operator, Space::Query), "Preview or begin a backfill", make)
        .get("/backfills/{id}", (Viewer, Space::Object), "A backfill", detail)
        .get("/backfills/{id}/slots", (Viewer, Space::Object), "Its runs", slots)
        .post("/backfills/{id}/pause", (Operator, Space::Object), "Start no more", pause)
        .post("/backfills/{id}/resume", (Operator, Space::Object), "Go on", resume)
        .post("/backfills/{id}/cancel", (Operator, Space::Object), "Cancel it", cancel)
        .post(
            "/backfills/{id}/retry_failed",
            (Operator, Space::Object),
            "Repeat what failed",
            retry_failed,
        )
}

/// Items that a preview tells of one by one.
const TOLD: u64 = 200;

/// Many runs of one workflow as one thing.
#[derive(Debug, Serialize, JsonSchema)]
struct Backfill {
    id: String,
    namespace: String,
    workflow: String,
    /// `running`, `paused`, `succeeded`, `failed` or `cancelled`.
    state: &'static str,
    /// As they were given.
    from: Option<String>,
    to: Option<String>,
    /// How many, if it goes over partitions.
    partitions: Option<u64>,
    /// `ascending` or `descending`.
    order: &'static str,
    parallelism: u32,
    /// `all`, `missing` or `failed`.
    only: &'static str,
    params: Value,
    total: u64,
    counts: BackfillCounts,
    created_at: Timestamp,
    created_by: String,
    ended_at: Option<Timestamp>,
    message: Option<&'static str>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct BackfillCounts {
    pending: u64,
    running: u64,
    succeeded: u64,
    failed: u64,
    skipped: u64,
    cancelled: u64,
}

fn view(namespace: &str, row: &BackfillRow) -> Backfill {
    let state = match row.state {
        BackfillState::Running | BackfillState::Cancelling => "running",
        BackfillState::Paused => "paused",
        BackfillState::Cancelled => "cancelled",
        BackfillState::Succeeded => "succeeded",
        BackfillState::Failed => "failed",
    };
    let only = match row.spec.only {
        Only::All => "all",
        Only::Missing => "missing",
        Only::Failed => "failed",
        Only::New => "new",
        Only::Ended => "ended",
    };
    let order = if row.spec.order == Order::NewestFirst { "descending" } else { "ascending" };
    let counts = BackfillCounts {
        pending: row.total.saturating_sub(row.next) + row.again.len() as u64,
        running: row.active.len() as u64,
        succeeded: row.succeeded,
        failed: row.failed,
        skipped: row.skipped,
        cancelled: row.cancelled,
    };
    let cancelling = row.state == BackfillState::Cancelling;
    Backfill {
        id: row.id.clone(),
        namespace: namespace.to_owned(),
        workflow: row.spec.workflow.clone(),
        state,
        from: row.spec.from.clone(),
        to: row.spec.to.clone(),
        partitions: row.spec.partitions.as_ref().map(|_| row.total),
        order,
        parallelism: row.spec.parallelism,
        only,
        params: row.spec.params.clone(),
        total: row.total,
        counts,
        created_at: row.created_at,
        created_by: row.created_by.clone(),
        ended_at: row.ended_at,
        message: cancelling.then_some("its runs are being cancelled"),
    }
}

/// The namespace of a backfill by its id.
pub(crate) async fn namespace_of(state: &ApiState, id: &str) -> Result<String, ApiError> {
    let wanted = id.to_owned();
    let page = state
        .read(move |views| {
            views.list_objects(&ObjectQuery {
                kind: kinds::BACKFILL,
                prefix: &wanted,
                limit: 1,
                ..Default::default()
            })
        })
        .await?;
    let found = page.items.into_iter().find(|o| o.key == id);
    found.map(|o| o.namespace).ok_or_else(|| ApiError::not_found("there is no such backfill"))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Asked {
    workflow: Option<String>,
    state: Option<String>,
    cursor: Option<usize>,
    limit: Option<usize>,
}

async fn list(
    State(state): State<ApiState>,
    Query(place): Query<Place>,
    Query(asked): Query<Asked>,
) -> Result<Json<List<Backfill>>, ApiError> {
    let namespace = place.namespace();
    let all: Vec<Backfill> = state
        .triggers()?
        .backfills(&namespace)
        .await?
        .iter()
        .filter(|r| asked.workflow.as_ref().is_none_or(|w| r.spec.workflow == *w))
        .map(|r| view(&namespace, r))
        .filter(|v| asked.state.as_deref().is_none_or(|s| s.split(',').any(|s| v.state == s)))
        .collect();
    let (from, limit) = (asked.cursor.unwrap_or(0), asked.limit.unwrap_or(50).clamp(1, 500));
    let next = (from + limit < all.len()).then(|| (from + limit).to_string());
    let total = Some(all.len() as u64);
    let items = all.into_iter().skip(from).take(limit).collect();
    Ok(Json(List { items, next, total }))
}

async fn load(state: &ApiState, id: &str) -> Result<(String, BackfillRow), ApiError> {
    let namespace = namespace_of(state, id).await?;
    let row = state.triggers()?.backfill(&namespace, id).await?;
    row.map(|r| (namespace, r)).ok_or_else(|| ApiError::not_found("there is no such backfill"))
}

async fn detail(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Backfill>, ApiError> {
    let (namespace, row) = load(&state, &id).await?;
    Ok(Json(view(&namespace, &row)))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct SlotsAsked {
    state: Option<String>,
    cursor: Option<u64>,
    limit: Option<u64>,
}

/// One piece of a backfill.
#[derive(Debug, Serialize, JsonSchema)]
struct BackfillSlot {
    slot: Option<Timestamp>,
    interval_start: Option<Timestamp>,
    interval_end: Option<Timestamp>,
    partition: Option<String>,
    run: Option<RunId>,
    /// `pending`, `running`, `succeeded`, `failed`, `cancelled` or `skipped`.
    state: &'static str,
    reason: Option<String>,
}

async fn slots(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(asked): Query<SlotsAsked>,
) -> Result<Json<List<BackfillSlot>>, ApiError> {
    let (namespace, row) = load(&state, &id).await?;
    let items = state.triggers()?.backfill_items(&namespace, &id).await?;
    let items = items.ok_or_else(|| ApiError::not_found("there is no such backfill"))?;
    let limit = asked.limit.unwrap_or(100).clamp(1, 500);
    let list = state
        .read(move |views| {
            let newest_first = row.spec.order == Order::NewestFirst;
            let mut position = asked.cursor.unwrap_or(0);
            let mut shown = Vec::new();
            while position < row.total && (shown.len() as u64) < limit {
                let Some(item) = items.get(position, newest_first) else { break };
                let key = format!("{}/{position:010}", row.id);
                let known: Option<ItemRow> = views
                    .get_object(kinds::BACKFILL, &namespace, &key)?
                    .and_then(|o| serde_json::from_value(o.value).ok());
                let word = match known.as_ref().map(|k| k.outcome) {
                    None => "pending",
                    Some(ItemOutcome::Running) => "running",
                    Some(ItemOutcome::Succeeded) => "succeeded",
                    Some(ItemOutcome::Failed) => "failed",
                    Some(ItemOutcome::Cancelled) => "cancelled",
                    Some(ItemOutcome::Skipped) => "skipped",
                };
                position += 1;
                if asked.state.as_deref().is_none_or(|s| s.split(',').any(|s| s == word)) {
                    let (start, end) = item.interval.unzip();
                    shown.push(BackfillSlot {
                        slot: end,
                        interval_start: start,
                        interval_end: end,
                        partition: item.partition,
                        run: known.as_ref().and_then(|k| k.run),
                        state: word,
                        reason: known.map(|k| k.reason),
                    });
                }
            }
            let next = (position < row.total).then(|| position.to_string());
            Ok(List { items: shown, next, total: Some(row.total) })
        })
        .await?;
    Ok(Json(list))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "NewBackfill")]
struct Body {
    workflow: String,
    from: Option<String>,
    to: Option<String>,
    /// Keys of partitions.
    partitions: Option<Vec<String>>,
    /// Partitions as people write them, in place of keys: `2013-03-01..2013-03-14|eu,us`, `*`.
    set: Option<String>,
    order: Option<String>,
    parallelism: Option<u32>,
    only: Option<String>,
    #[serde(default)]
    params: Value,
    schedule: Option<Value>,
    #[serde(default)]
    dry_run: bool,
}

impl Body {
    /// The partitions that are asked for, among those of the workflow. A workflow without a
    /// definition takes any keys.
    fn choice(&self, definition: Option<&Value>) -> Option<Value> {
        let keys = self.partitions.as_ref();
        match (definition, &self.set, keys) {
            (Some(definition), Some(set), _) => Some(json!({"definition": definition, "set": set})),
            // Boxes of one partition each.
            (Some(definition), None, Some(keys)) => {
                Some(json!({"definition": definition, "set": keys.join(";")}))
            }
            (None, _, Some(keys)) => {
                Some(json!({"definition": {"type": "static", "keys": keys}, "set": "*"}))
            }
            (None, Some(set), None) => {
                let keys: Vec<&str> = set.split(',').map(str::trim).collect();
                Some(json!({"definition": {"type": "static", "keys": keys}, "set": "*"}))
            }
            (_, None, None) => None,
        }
    }

    /// The service's spec. Without a schedule of its own it goes by the workflow's.
    async fn spec(&self, state: &ApiState, namespace: &str) -> Result<BackfillSpec, ApiError> {
        let order = match self.order.as_deref() {
            None | Some("ascending") => "oldest_first",
            Some("descending") => "newest_first",
            Some(other) => {
                return Err(ApiError::bad(format!("{other:?} is not an order"))
                    .hint("use ascending or descending"));
            }
        };
        let mut spec = json!({
            "workflow": self.workflow, "order": order, "parallelism": self.parallelism.unwrap_or(10),
            "only": self.only.as_deref().unwrap_or("all"), "params": self.params,
        });
        let definition = partitions_of(state, namespace, &self.workflow).await?;
        if let Some(choice) = self.choice(definition.as_ref()) {
            spec["partitions"] = choice;
        } else {
            let schedule = match &self.schedule {
                Some(schedule) => schedule.clone(),
                None => state
                    .triggers()?
                    .list(Some(namespace))
                    .await?
                    .into_iter()
                    .filter(|t| t.key.workflow == self.workflow)
                    .find_map(|t| match &t.spec.kind {
                        TriggerKind::Schedule(_) => Some(only_schedule(&t.row.spec)),
                        TriggerKind::Timetable { definition, .. } => {
                            Some(json!({"timetable": definition}))
                        }
                        _ => None,
                    })
                    .ok_or_else(|| {
                        ApiError::new(
                            StatusCode::UNPROCESSABLE_ENTITY,
                            "invalid",
                            format!("{:?} has no schedule to go by", self.workflow),
                        )
                        .hint(match definition {
                            Some(_) => "its runs are for partitions: give a set, such as *",
                            None => {
                                "give partitions, or a schedule such as {\"cron\": \"0 0 * * *\"}"
                            }
                        })
                    })?,
            };
            spec["schedule"] = schedule;
            spec["from"] = json!(self.from);
            spec["to"] = json!(self.to);
        }
        BackfillSpec::parse(&spec)
            .map_err(|e| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", e.to_string()))
    }
}

/// The pieces that runs of a workflow stand for, where its definition says so.
async fn partitions_of(
    state: &ApiState,
    namespace: &str,
    workflow: &str,
) -> Result<Option<Value>, ApiError> {
    let (namespace, workflow) = (namespace.to_owned(), workflow.to_owned());
    let stored = state.read(move |views| views.get_workflow(&namespace, &workflow, None)).await?;
    Ok(stored.and_then(|s| s.workflow.source.get("partitions").cloned()).filter(|p| !p.is_null()))
}

/// A trigger's definition without what is not about time.
fn only_schedule(spec: &Value) -> Value {
    match spec.as_object() {
        Some(fields) => fields
            .iter()
            .filter(|(key, _)| kobza_schedule::Schedule::FIELDS.contains(&key.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        None => spec.clone(),
    }
}

/// What a backfill would do.
#[derive(Debug, Serialize, JsonSchema)]
struct BackfillPreview {
    count: u64,
    /// The first of them.
    items: Vec<PreviewedSlot>,
    truncated: bool,
    counts: PreviewCounts,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct PreviewedSlot {
    interval_start: Option<Timestamp>,
    interval_end: Option<Timestamp>,
    partition: Option<String>,
    /// The newest run that there is for it.
    existing: Option<ExistingRun>,
    /// `create`, `rerun` or `skip`.
    action: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ExistingRun {
    run: RunId,
    state: RunState,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
struct PreviewCounts {
    create: u64,
    skip: u64,
    rerun: u64,
}

async fn make(
    State(state): State<ApiState>,
    new: NewId,
    Extension(principal): Extension<Principal>,
    Query(place): Query<Place>,
    Json(body): Json<Body>,
) -> Result<Either<Json<BackfillPreview>, Created<Backfill>>, ApiError> {
    let namespace = place.namespace();
    let spec = body.spec(&state, &namespace).await?;
    if !body.dry_run {
        let id = new.id.to_string();
        if new.again
            && let Some(row) = state.triggers()?.backfill(&namespace, &id).await?
        {
            return Ok(Either::B(Created(view(&namespace, &row))));
        }
        let row = state.triggers()?.create_backfill(&namespace, &id, spec, &principal.name).await?;
        return Ok(Either::B(Created(view(&namespace, &row))));
    }
    let triggers = state.triggers()?;
    let (preview, items) = triggers.preview_backfill(&namespace, spec, TOLD).await?;
    let mut counts = PreviewCounts::default();
    let told: Vec<PreviewedSlot> = items
        .into_iter()
        .map(|PreviewItem { item, newest, runs }| {
            let (action, count) = match (runs, &newest) {
                (false, _) => ("skip", &mut counts.skip),
                (true, None) => ("create", &mut counts.create),
                (true, Some(_)) => ("rerun", &mut counts.rerun),
            };
            *count += 1;
            let (interval_start, interval_end) = item.interval.unzip();
            PreviewedSlot {
                interval_start,
                interval_end,
                partition: item.partition,
                existing: newest.map(|(run, state)| ExistingRun { run, state }),
                action,
            }
        })
        .collect();
    let beyond = preview.total.saturating_sub(told.len() as u64);
    let mut warnings = Vec::new();
    if beyond > 0 {
        // What lies beyond is counted by the service, not looked at one by one.
        let more = preview.runs.saturating_sub(counts.create + counts.rerun);
        counts.create += more;
        counts.skip += beyond.saturating_sub(more);
        if !preview.exact {
            let warning = "there are too many to look at each: the counts are a lower bound";
            warnings.push(warning.to_owned());
        }
    }
    let (count, truncated) = (preview.total, beyond > 0);
    Ok(Either::A(Json(BackfillPreview { count, items: told, truncated, counts, warnings })))
}

async fn act(
    state: &ApiState,
    id: &str,
    action: BackfillAction,
) -> Result<Json<Backfill>, ApiError> {
    let namespace = namespace_of(state, id).await?;
    let row = state.triggers()?.change_backfill(&namespace, id, action).await?;
    Ok(Json(view(&namespace, &row)))
}

async fn pause(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Backfill>, ApiError> {
    act(&state, &id, BackfillAction::Pause).await
}

async fn resume(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Backfill>, ApiError> {
    act(&state, &id, BackfillAction::Resume).await
}

async fn cancel(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Backfill>, ApiError> {
    act(&state, &id, BackfillAction::Cancel).await
}

async fn retry_failed(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Backfill>, ApiError> {
    act(&state, &id, BackfillAction::RerunFailed).await
}
