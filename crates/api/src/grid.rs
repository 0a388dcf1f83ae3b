//! The grid of a workflow's runs, its calendar and its durations.

use std::collections::BTreeMap;

use axum::extract::State;
use kobza_model::{RunRow, RunState, TaskRow, TaskState, Timestamp};
use kobza_store::{RunFilter, TaskFilter, ViewError, Views};
use kobza_triggers::TriggerKind;
use kobza_triggers::service::TriggerView;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, Path, Query};
use crate::graph::fold;
use crate::runs::words;
use crate::shape::{Paths, Shape, Shapes};
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::view::{RunBar, bar, millis};
use crate::workflows::{DEFAULT_NAMESPACE, no_workflow};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .get("/workflows/{name}/grid", (Viewer, Space::Query), "Runs by tasks", grid)
        .get("/workflows/{name}/calendar", (Viewer, Space::Query), "Runs by day", calendar)
        .get(
            "/workflows/{name}/durations",
            (Viewer, Space::Query),
            "How long tasks take",
            durations,
        )
}

/// A run with more tasks than this shows counts only.
const DETAILED: u64 = 1000;
const MAX_COLUMNS: u32 = 365;

#[derive(Debug, Deserialize, JsonSchema)]
struct Asked {
    namespace: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
    state: Option<String>,
    trigger: Option<String>,
}

impl Asked {
    fn namespace(&self) -> String {
        self.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
    }

    fn filter(&self, workflow: &str) -> Result<RunFilter, ApiError> {
        Ok(RunFilter {
            namespaces: vec![self.namespace()],
            workflow: Some(workflow.to_owned()),
            states: words(self.state.as_deref(), "run state", RunState::from_word)?,
            trigger: self.trigger.clone(),
            ..RunFilter::default()
        })
    }
}

#[derive(Clone, Default)]
struct Row {
    name: String,
    depth: usize,
    group: bool,
    mapped: bool,
    kind: String,
}

/// Of one run: what there is by path.
type Column = BTreeMap<String, [i64; 6]>;

fn rows_of(shape: &Shape, into: &mut Vec<(String, Row)>) {
    for place in &shape.places {
        if !into.iter().any(|(path, _)| *path == place.path) {
            into.push((
                place.path.clone(),
                Row {
                    name: place.label.clone(),
                    depth: place.depth,
                    group: place.group,
                    mapped: place.mapped,
                    kind: place.kind.clone(),
                },
            ));
        }
    }
}

fn state_index(state: TaskState) -> i64 {
    TaskState::ALL
        .iter()
        .position(|s| *s == state)
        .and_then(|i| i64::try_from(i).ok())
        .unwrap_or(-1)
}

fn column(
    views: &dyn Views,
    paths: &Paths,
    run: &RunRow,
    rows: &mut Vec<(String, Row)>,
) -> Result<Column, ViewError> {
    let total: u64 = run.counts.iter().map(|c| u64::from(*c)).sum();
    let counts = views.task_counts(run.run)?;
    let list: Vec<_> =
        counts.iter().map(|c| (c.scope, c.node, c.name.as_str(), c.state, c.tasks)).collect();
    let folded = fold(paths, &list);
    let mut column = Column::new();
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    for (at, place) in paths.shape.places.iter().enumerate() {
        let shown = if place.group && folded.counts[at].total() == 0 {
            &folded.own[at]
        } else {
            &folded.counts[at]
        };
        let Some(worst) =
            (if place.group { folded.own[at].worst() } else { None }).or_else(|| shown.worst())
        else {
            continue;
        };
        column.insert(
            place.path.clone(),
            [
                state_index(worst),
                -1,
                0,
                -1,
                number(shown.total()),
                number(shown.of(TaskState::Failed)),
            ],
        );
    }
    for (name, counts) in &folded.loose {
        let Some(worst) = counts.worst() else { continue };
        if !rows.iter().any(|(path, _)| path == name) {
            rows.push((
                name.clone(),
                Row { name: name.clone(), kind: "task".to_owned(), ..Row::default() },
            ));
        }
        column.insert(
            name.clone(),
            [
                state_index(worst),
                -1,
                0,
                -1,
                number(counts.total()),
                number(counts.of(TaskState::Failed)),
            ],
        );
    }
    if total <= DETAILED {
        let filter = TaskFilter { hide_instances: true, ..TaskFilter::default() };
        for task in views.list_tasks(run.run, &filter, None, 1000)?.items {
            if task.task.0 == 0 {
                continue;
            }
            let path = paths.path(&task);
            if let Some(cell) = column.get_mut(&path) {
                let group = paths.of(&task).is_some_and(|p| p.group && !p.mapped);
                if cell[4] == 1 || group {
                    cell[1] = i64::from(task.task.0);
                    cell[2] = i64::from(task.attempt);
                }
                cell[3] = cell[3].max(millis(task.started_at, task.ended_at).unwrap_or(-1));
            }
        }
    }
    Ok(column)
}

/// Runs by tasks.
#[derive(Debug, Serialize, JsonSchema)]
struct Grid {
    rows: Vec<GridRow>,
    runs: Vec<RunBar>,
    /// By run, then by row: the state's place among `states`, the number of a single task or -1, its
    /// attempt, milliseconds or -1, tasks, failed tasks.
    cells: Vec<Vec<Option<[i64; 6]>>>,
    states: Vec<TaskState>,
    next: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct GridRow {
    path: String,
    name: String,
    depth: usize,
    group: bool,
    mapped: bool,
    kind: String,
}

async fn grid(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Grid>, ApiError> {
    let filter = asked.filter(&name)?;
    let namespace = asked.namespace();
    let shapes: Shapes = state.shapes.clone();
    let limit = asked.limit.unwrap_or(50).clamp(1, MAX_COLUMNS);
    let wanted = name.clone();
    let value = state
        .read(move |views| {
            let Some(current) = views.get_workflow(&namespace, &wanted, None)? else {
                return Ok(None);
            };
            let mut page = views.list_runs(&filter, asked.cursor.as_deref(), limit)?;
            page.items.reverse();
            let mut rows: Vec<(String, Row)> = Vec::new();
            if let Some(shape) = shapes.get(views, &namespace, &wanted, &current.version)? {
                rows_of(&shape, &mut rows);
            }
            let mut columns = Vec::new();
            // Newest first, so that rows of older versions come last.
            for run in page.items.iter().rev() {
                let paths = Paths::read(views, &shapes, run)?;
                rows_of(&paths.shape, &mut rows);
                columns.push(column(views, &paths, run, &mut rows)?);
            }
            columns.reverse();
            let of_column =
                |column: &Column| rows.iter().map(|(path, _)| column.get(path).copied()).collect();
            let cells = columns.iter().map(of_column).collect();
            let rows = rows.into_iter().map(|(path, row)| {
                let Row { name, depth, group, mapped, kind } = row;
                GridRow { path, name, depth, group, mapped, kind }
            });
            Ok(Some(Grid {
                rows: rows.collect(),
                runs: page.items.iter().map(bar).collect(),
                cells,
                states: TaskState::ALL.to_vec(),
                next: page.next,
            }))
        })
        .await?;
    value.map(Json).ok_or_else(|| no_workflow(&name))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct CalendarAsked {
    namespace: Option<String>,
    from: Option<String>,
    to: Option<String>,
    timezone: Option<String>,
}

/// Runs that one calendar counts.
const CALENDAR_RUNS: usize = 20_000;

/// Slots to come that one calendar counts, of each trigger.
const CALENDAR_SLOTS: usize = 20_000;

/// How many slots of the triggers' schedules are to come on each day of the window.
fn planned<'a>(
    triggers: impl Iterator<Item = &'a TriggerView>,
    from: Option<Timestamp>,
    to: Timestamp,
    zone: &kobza_schedule::Zone,
) -> BTreeMap<String, u64> {
    let now = kobza_runtime::wall_now();
    let begin = from.map_or(now, |from| from.max(now));
    let mut days = BTreeMap::new();
    for trigger in triggers {
        let TriggerKind::Schedule(schedule) = &trigger.spec.kind else { continue };
        let slots =
            std::iter::successors(schedule.next_after(begin), |at| schedule.next_after(*at))
                .take_while(|at| *at < to && trigger.spec.end.is_none_or(|end| *at < end))
                .take(CALENDAR_SLOTS);
        for at in slots {
            *days.entry(zone.civil(at).date().to_string()).or_default() += 1;
        }
    }
    days
}

/// Runs by day.
#[derive(Debug, Serialize, JsonSchema)]
struct Calendar {
    days: Vec<Day>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Day {
    date: String,
    /// Runs by state.
    counts: BTreeMap<&'static str, u64>,
    /// Slots to come.
    planned: u64,
}

async fn calendar(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(asked): Query<CalendarAsked>,
) -> Result<Json<Calendar>, ApiError> {
    let zone = kobza_schedule::Zone::parse(asked.timezone.as_deref().unwrap_or("UTC"))
        .map_err(|e| ApiError::bad(e.to_string()))?;
    let day = |text: Option<&str>| -> Result<Option<Timestamp>, ApiError> {
        text.map(|t| {
            kobza_schedule::At::parse_time(t, &zone).map_err(|e| ApiError::bad(e.to_string()))
        })
        .transpose()
    };
    let from = day(asked.from.as_deref())?;
    let to = day(asked.to.as_deref())?.map(|t| t.saturating_add_micros(86_400_000_000));
    let namespace = asked.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let planned = match (&state.triggers, to) {
        (Some(triggers), Some(to)) => {
            let all = triggers.list(Some(&namespace)).await?;
            let own = all.iter().filter(|t| t.key.workflow == name && !t.row.paused);
            planned(own, from, to, &zone)
        }
        _ => BTreeMap::new(),
    };
    let filter = RunFilter {
        namespaces: vec![namespace],
        workflow: Some(name),
        created_from: from,
        created_until: to,
        ..RunFilter::default()
    };
    let days = state
        .read(move |views| {
            let mut days: BTreeMap<String, BTreeMap<&'static str, u64>> = BTreeMap::new();
            let (mut cursor, mut seen) = (None, 0);
            loop {
                let page = views.list_runs(&filter, cursor.as_deref(), 1000)?;
                seen += page.items.len();
                for run in &page.items {
                    let at =
                        run.interval_start.filter(|s| Some(*s) >= from).unwrap_or(run.created_at);
                    let date = zone.civil(at).date().to_string();
                    *days.entry(date).or_default().entry(run.state.as_str()).or_default() += 1;
                }
                match page.next {
                    Some(next) if seen < CALENDAR_RUNS => cursor = Some(next),
                    _ => break,
                }
            }
            Ok(days)
        })
        .await?;
    let mut days: BTreeMap<String, (BTreeMap<&'static str, u64>, u64)> =
        days.into_iter().map(|(date, counts)| (date, (counts, 0))).collect();
    for (date, slots) in planned {
        days.entry(date).or_default().1 = slots;
    }
    let days = days.into_iter().map(|(date, (counts, planned))| Day { date, counts, planned });
    Ok(Json(Calendar { days: days.collect() }))
}

/// How long runs and their tasks took.
#[derive(Debug, Serialize, JsonSchema)]
struct Durations {
    runs: Vec<RunBar>,
    tasks: Vec<TaskDurations>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TaskDurations {
    /// Its path.
    name: String,
    count: usize,
    failed: u64,
    p50_ms: i64,
    p95_ms: i64,
    max_ms: Option<i64>,
}

async fn durations(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Durations>, ApiError> {
    let filter = asked.filter(&name)?;
    let limit = asked.limit.unwrap_or(50).clamp(1, 200);
    let shapes = state.shapes.clone();
    let value = state
        .read(move |views| {
            let mut page = views.list_runs(&filter, None, limit)?;
            page.items.reverse();
            let mut tasks: BTreeMap<String, (Vec<i64>, u64)> = BTreeMap::new();
            for run in &page.items {
                let paths = Paths::read(views, &shapes, run)?;
                let filter = TaskFilter { hide_summaries: true, ..TaskFilter::default() };
                for task in views.list_tasks(run.run, &filter, None, 1000)?.items {
                    note(&mut tasks, &paths, &task);
                }
            }
            let at = |sorted: &[i64], share: usize| {
                sorted.get((sorted.len().saturating_sub(1)) * share / 100).copied().unwrap_or(0)
            };
            let tasks = tasks
                .into_iter()
                .map(|(name, (mut times, failed))| {
                    times.sort_unstable();
                    TaskDurations {
                        name,
                        count: times.len(),
                        failed,
                        p50_ms: at(&times, 50),
                        p95_ms: at(&times, 95),
                        max_ms: times.last().copied(),
                    }
                })
                .collect();
            Ok(Durations { runs: page.items.iter().map(bar).collect(), tasks })
        })
        .await?;
    Ok(Json(value))
}

fn note(tasks: &mut BTreeMap<String, (Vec<i64>, u64)>, paths: &Paths, task: &TaskRow) {
    let Some(took) = millis(task.started_at, task.ended_at) else { return };
    let entry = tasks.entry(paths.path(task)).or_default();
    entry.0.push(took);
    entry.1 += u64::from(task.state == TaskState::Failed);
}
