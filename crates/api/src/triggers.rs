//! Triggers: what starts runs, when next, and why it did or did not.

use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kobza_engine::StartRun;
use kobza_model::{RunId, Timestamp};
use kobza_store::{ObjectQuery, StoredObject, kinds};
use kobza_triggers::service::{TriggerError, TriggerView};
use kobza_triggers::{CatchUp, Overlap, SlotOutcome, SlotRow, TriggerKey, TriggerKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::Role::{Operator, Viewer};
use crate::error::ApiError;
use crate::extract::{Created, Json, List, NewId, Paging, Path, Query};
use crate::start::Started;
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::workflows::{Change, Place};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get("/triggers", (Viewer, Space::Query), "Triggers", list)
        .get("/triggers/{id}", (Viewer, Space::Object), "A trigger", detail)
        .patch("/triggers/{id}", (Operator, Space::Object), "Pause or resume a trigger", change)
        .post("/triggers/{id}/fire", (Operator, Space::Object), "Start its run now", fire)
        .get(
            "/triggers/{id}/decisions",
            (Viewer, Space::Object),
            "What it decided, and why",
            decisions,
        )
        .get("/triggers/{id}/upcoming", (Viewer, Space::Object), "When it acts next", upcoming)
}

impl From<TriggerError> for ApiError {
    fn from(error: TriggerError) -> Self {
        let text = error.to_string();
        match error {
            TriggerError::Invalid(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", text)
            }
            TriggerError::Missing(_) => Self::not_found(text),
            TriggerError::Submit(error) => error.into(),
            TriggerError::Read(_) | TriggerError::Stopped => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", text)
            }
        }
    }
}

/// Names hold no slash, so three of them make one text.
pub(crate) fn id(key: &TriggerKey) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}/{}/{}", key.namespace, key.workflow, key.name))
}

pub(crate) fn key(id: &str) -> Result<TriggerKey, ApiError> {
    let text = URL_SAFE_NO_PAD.decode(id).ok().and_then(|b| String::from_utf8(b).ok());
    let parts: Vec<String> = text.unwrap_or_default().split('/').map(str::to_owned).collect();
    match parts.as_slice() {
        [namespace, workflow, name] => Ok(TriggerKey::new(namespace, workflow, name)),
        _ => Err(ApiError::not_found("there is no such trigger")),
    }
}

fn kind(view: &TriggerView) -> &'static str {
    match &view.spec.kind {
        TriggerKind::Schedule(
            kobza_schedule::Schedule::Cron(_) | kobza_schedule::Schedule::Crons(_),
        ) => "cron",
        TriggerKind::Schedule(kobza_schedule::Schedule::Interval(_)) => "interval",
        TriggerKind::Schedule(kobza_schedule::Schedule::At(_)) => "once",
        TriggerKind::Schedule(kobza_schedule::Schedule::RRule(_)) => "rrule",
        other => other.word(),
    }
}

pub(crate) fn text(view: &TriggerView) -> String {
    let source = &view.row.spec;
    let plain = |field: &str| {
        source.get(field).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
    };
    source
        .as_str()
        .map(str::to_owned)
        .or_else(|| {
            [
                "cron", "interval", "every", "at", "rrule", "assets", "webhook", "after", "run",
                "files", "event",
            ]
            .iter()
            .find_map(|f| plain(f))
        })
        .or_else(|| source["timetable"]["text"].as_str().map(str::to_owned))
        .unwrap_or_else(|| view.kind.to_owned())
}

pub(crate) fn zone(view: &TriggerView) -> Option<String> {
    match &view.spec.kind {
        TriggerKind::Schedule(schedule) => schedule.zone().map(|z| z.name().to_owned()),
        _ => None,
    }
}

/// When a trigger acts next.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Upcoming {
    workflow: String,
    trigger: String,
    at: Timestamp,
    /// In short, such as `0 2 * * *`.
    text: String,
}

pub(crate) fn upcoming_view(view: &TriggerView, at: Timestamp) -> Upcoming {
    Upcoming { workflow: view.key.workflow.clone(), trigger: id(&view.key), at, text: text(view) }
}

/// What a trigger decided about a slot.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Decision {
    at: Timestamp,
    slot: Option<Timestamp>,
    /// The last of the slots that it stands for.
    through: Option<Timestamp>,
    decision: DecisionWord,
    reason: String,
    run: Option<RunId>,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DecisionWord {
    Started,
    Skipped,
    Queued,
    Missed,
    Failed,
}

/// What starts runs.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Trigger {
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    pub(crate) name: String,
    /// `cron`, `interval`, `rrule`, `once`, `asset`, `webhook`, `run`, `file`, ...
    pub(crate) kind: &'static str,
    /// In short, such as `0 2 * * *`.
    pub(crate) text: String,
    pub(crate) timezone: Option<String>,
    pub(crate) paused: bool,
    /// Slots that were missed are made up for.
    pub(crate) catchup: bool,
    /// What happens while a run of it is active: `allow`, `skip`, `queue` or `cancel`.
    pub(crate) overlap: &'static str,
    pub(crate) next_at: Option<Timestamp>,
    pub(crate) last: Option<Decision>,
    /// As it was written.
    pub(crate) spec: Value,
}

pub(crate) fn shown(view: &TriggerView, last: Option<Decision>) -> Trigger {
    let overlap = match view.spec.overlap {
        Overlap::Allow => "allow",
        Overlap::Skip => "skip",
        Overlap::QueueOne | Overlap::QueueAll => "queue",
        Overlap::CancelRunning => "cancel",
    };
    Trigger {
        id: id(&view.key),
        namespace: view.key.namespace.clone(),
        workflow: view.key.workflow.clone(),
        name: view.key.name.clone(),
        kind: kind(view),
        text: text(view),
        timezone: zone(view),
        paused: view.row.paused,
        catchup: !matches!(view.spec.catch_up, CatchUp::None { .. }),
        overlap,
        next_at: view.next.filter(|at| at.0 > 0),
        last,
        spec: view.row.spec.clone(),
    }
}

fn decision(object: &StoredObject) -> Option<Decision> {
    let row: SlotRow = serde_json::from_value(object.value.clone()).ok()?;
    let decision = match row.outcome {
        SlotOutcome::Started => DecisionWord::Started,
        SlotOutcome::Skipped if row.reason.starts_with("missed") => DecisionWord::Missed,
        SlotOutcome::Skipped => DecisionWord::Skipped,
        SlotOutcome::Queued => DecisionWord::Queued,
        SlotOutcome::Failed => DecisionWord::Failed,
    };
    Some(Decision {
        at: row.decided_at,
        slot: Some(row.at),
        through: row.through,
        decision,
        reason: row.reason,
        run: row.run,
    })
}

async fn last_decision(state: &ApiState, key: &TriggerKey) -> Result<Option<Decision>, ApiError> {
    let (namespace, prefix) = (key.namespace.clone(), key.slot_key(""));
    let page = state
        .read(move |views| {
            views.list_objects(&ObjectQuery {
                kind: kinds::SLOT,
                namespace: Some(&namespace),
                prefix: &prefix,
                descending: true,
                cursor: None,
                limit: 1,
            })
        })
        .await?;
    Ok(page.items.first().and_then(decision))
}

/// All triggers of a workflow as clients see them.
pub(crate) async fn of_workflow(
    state: &ApiState,
    namespace: &str,
    workflow: &str,
) -> Result<Vec<Trigger>, ApiError> {
    let Some(triggers) = &state.triggers else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for view in triggers.list(Some(namespace)).await? {
        if view.key.workflow == workflow {
            all.push(shown(&view, last_decision(state, &view.key).await?));
        }
    }
    Ok(all)
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Asked {
    workflow: Option<String>,
    kind: Option<String>,
    paused: Option<bool>,
    q: Option<String>,
    cursor: Option<usize>,
    limit: Option<usize>,
}

async fn list(
    State(state): State<ApiState>,
    Query(place): Query<Place>,
    Query(asked): Query<Asked>,
) -> Result<Json<List<Trigger>>, ApiError> {
    let namespace = place.namespace();
    let needle = asked.q.unwrap_or_default().to_lowercase();
    let fits: Vec<TriggerView> = state
        .triggers()?
        .list(Some(&namespace))
        .await?
        .into_iter()
        .filter(|v| asked.workflow.as_ref().is_none_or(|w| v.key.workflow == *w))
        .filter(|v| asked.kind.as_deref().is_none_or(|k| k.split(',').any(|k| k == kind(v))))
        .filter(|v| asked.paused.is_none_or(|p| v.row.paused == p))
        .filter(|v| v.key.object_key().to_lowercase().contains(&needle))
        .collect();
    let (from, limit) = (asked.cursor.unwrap_or(0), asked.limit.unwrap_or(50).clamp(1, 500));
    let mut items = Vec::new();
    for view in fits.iter().skip(from).take(limit) {
        items.push(shown(view, last_decision(&state, &view.key).await?));
    }
    let next = (from + limit < fits.len()).then(|| (from + limit).to_string());
    Ok(Json(List { items, next, total: Some(fits.len() as u64) }))
}

async fn load(state: &ApiState, id: &str) -> Result<TriggerView, ApiError> {
    let key = key(id)?;
    let all = state.triggers()?.list(Some(&key.namespace)).await?;
    all.into_iter()
        .find(|v| v.key == key)
        .ok_or_else(|| ApiError::not_found("there is no such trigger"))
}

async fn detail(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Trigger>, ApiError> {
    let view = load(&state, &id).await?;
    Ok(Json(shown(&view, last_decision(&state, &view.key).await?)))
}

async fn change(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Json(change): Json<Change>,
) -> Result<Json<Trigger>, ApiError> {
    state.triggers()?.set_paused(&key(&id)?, change.paused).await?;
    detail(State(state), Path(id)).await
}

/// Starts a run of the trigger's workflow with its parameters, now; its slots stay as they are.
async fn fire(
    State(state): State<ApiState>,
    new: NewId,
    Path(id): Path<String>,
) -> Result<Created<Started>, ApiError> {
    let view = load(&state, &id).await?;
    let (namespace, name) = (view.key.namespace.clone(), view.key.workflow.clone());
    let stored = state
        .read(move |v| v.get_workflow(&namespace, &name, None))
        .await?
        .ok_or_else(|| crate::workflows::no_workflow(&view.key.workflow))?;
    let now = kobza_runtime::wall_now();
    let interval = match &view.spec.kind {
        TriggerKind::Schedule(schedule) => schedule.prev_before(Timestamp(now.0 + 1)).map(|slot| {
            let interval = schedule.interval_of(slot);
            (interval.start, interval.end)
        }),
        _ => None,
    };
    let params = match &view.spec.params {
        Value::Null => json!({}),
        params => {
            let (start, end) = interval.unzip();
            let values = json!({"slot": now, "interval": {"start": start, "end": end}, "trigger": {"name": view.key.name}});
            let values = values.as_object().cloned().unwrap_or_default();
            kobza_expr::native::render_json(params, &kobza_expr::native::Context::new(&values))
                .map_err(|e| ApiError::bad(format!("the trigger's parameters: {e}")))?
        }
    };
    let params = crate::start::checked(&state, &stored.workflow, params)?;
    let start = Box::new(StartRun {
        run: RunId(new.id),
        namespace: view.key.namespace.clone(),
        workflow: stored.workflow,
        version: stored.version,
        params,
        key: None,
        trigger: view.spec.kind.word().to_owned(),
        interval,
        partition: None,
        labels: json!({"trigger": view.key.name}),
        parent: None,
        priority: 0,
        extra: Value::Null,
    });
    crate::start::submit(&state, new, start).await
}

async fn decisions(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<Decision>>, ApiError> {
    let key = key(&id)?;
    let prefix = key.slot_key("");
    let page = state
        .read(move |views| {
            views.list_objects(&ObjectQuery {
                kind: kinds::SLOT,
                namespace: Some(&key.namespace),
                prefix: &prefix,
                descending: true,
                cursor: paging.cursor.as_deref(),
                limit: paging.limit(50, 500),
            })
        })
        .await?;
    Ok(Json(List::new(page.items.iter().filter_map(decision).collect(), page.next)))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct UpcomingAsked {
    limit: Option<usize>,
}

/// A slot that comes.
#[derive(Debug, Serialize, JsonSchema)]
struct Slot {
    at: Timestamp,
    interval_start: Timestamp,
    interval_end: Timestamp,
}

async fn upcoming(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(asked): Query<UpcomingAsked>,
) -> Result<Json<List<Slot>>, ApiError> {
    let view = load(&state, &id).await?;
    let limit = asked.limit.unwrap_or(20).clamp(1, 500);
    let now = kobza_runtime::wall_now();
    // A slot at the start itself is due.
    let from = view.spec.start.map_or(now, |start| now.max(Timestamp(start.0 - 1)));
    let items: Vec<Slot> = match &view.spec.kind {
        TriggerKind::Schedule(schedule) => {
            std::iter::successors(schedule.next_after(from), |at| schedule.next_after(*at))
                .take_while(|at| view.spec.end.is_none_or(|end| *at < end))
                .take(limit)
                .map(|at| {
                    let interval = schedule.interval_of(at);
                    Slot { at, interval_start: interval.start, interval_end: interval.end }
                })
                .collect()
        }
        _ => Vec::new(),
    };
    Ok(Json(List::whole(items)))
}
