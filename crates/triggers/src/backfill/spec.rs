//! What a backfill is asked to do.

use kobza_expr::native;
use kobza_model::{Json, Timestamp, validate_name};
use kobza_schedule::{At, Schedule, ScheduleError, Zone};
use serde::{Deserialize, Serialize};

use super::{BackfillItem, ItemStatus, Items};
use crate::timetable::{TickRange, TimetableDialects};

/// Most runs of one backfill: its outcome is looked through by people, and its list lives in memory.
pub const MAX_RUNS: u64 = 100_000;
/// Most runs of one backfill at once.
const MAX_PARALLELISM: u32 = 1_000;
/// A preview looks at the state of so many pieces, to say how many will run.
const PREVIEW_LOOKS: u64 = 10_000;

/// A backfill as asked for. In JSON: `workflow`; `partitions: {definition, set}`, or `schedule`
/// with `from` and `to`; and the options.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackfillSpec {
    pub workflow: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<PartitionChoice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(default)]
    pub order: Order,
    /// Runs at once.
    #[serde(default = "ten")]
    pub parallelism: u32,
    #[serde(default)]
    pub only: Only,
    /// Parameters of the runs; texts are templates over `interval`, `partition` and `backfill`.
    #[serde(default)]
    pub params: Json,
    /// Each run takes the workflow's version of its own start; else all take that of the
    /// backfill's.
    #[serde(default)]
    pub latest: bool,
}

/// Partitions of a definition, in set notation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionChoice {
    /// Dynamic dimensions must have been made static by the caller.
    pub definition: Json,
    pub set: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    #[default]
    OldestFirst,
    NewestFirst,
}

/// Which pieces to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Only {
    #[default]
    All,
    /// Those that have not succeeded and do not run.
    Missing,
    /// Those whose last run failed.
    Failed,
    /// Those that have no run at all.
    New,
    /// All but those that run now.
    Ended,
}

/// What a backfill would do.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Preview {
    /// Pieces in the range or set.
    pub total: u64,
    /// Of these, how many would run, as things are now; a lower bound if not `exact`.
    pub runs: u64,
    /// Whether all pieces were looked at.
    pub exact: bool,
    /// Keys of the first and the last piece, in the order of execution.
    pub first: Option<String>,
    pub last: Option<String>,
}

/// Why a backfill is not made.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum RefusedBackfill {
    #[error(
        "the backfill would have {count} runs; at most {MAX_RUNS} are allowed (hint: choose a smaller range, or several backfills)"
    )]
    TooMany { count: String },
    #[error("there is nothing in this range")]
    Nothing,
    #[error(transparent)]
    Invalid(#[from] ScheduleError),
    /// By the dialect whose timetable it goes over.
    #[error("{0}")]
    Refused(String),
}

fn ten() -> u32 {
    10
}

impl BackfillSpec {
    pub fn parse(value: &Json) -> Result<Self, ScheduleError> {
        let spec: Self = serde_json::from_value(value.clone())
            .map_err(|e| ScheduleError::new("backfill", e.to_string()))?;
        validate_name(&spec.workflow).map_err(|e| ScheduleError::new("workflow", e.to_string()))?;
        if !(1..=MAX_PARALLELISM).contains(&spec.parallelism) {
            let message = format!("must lie between 1 and {MAX_PARALLELISM}");
            return Err(ScheduleError::new("parallelism", message));
        }
        if !matches!(spec.params, Json::Null | Json::Object(_)) {
            return Err(ScheduleError::new("params", "must be an object"));
        }
        Ok(spec)
    }

    /// The dialect and the definition of the timetable that it goes over.
    #[must_use]
    pub fn timetable(&self) -> Option<(&str, &Json)> {
        let definition = self.schedule.as_ref()?.get("timetable")?;
        Some((definition["dialect"].as_str()?, definition))
    }

    /// The pieces, neither none nor too many. `at` says what open ranges of partitions mean, and
    /// what has not come yet. Blocks where a dialect has to ask somebody.
    pub fn items(
        &self,
        at: Timestamp,
        dialects: &TimetableDialects,
    ) -> Result<Items, RefusedBackfill> {
        let items = match (&self.partitions, &self.schedule, &self.from, &self.to) {
            (Some(choice), None, None, None) => {
                Items::partitions(&choice.definition, &choice.set, at)?
            }
            (None, Some(schedule), Some(from), Some(to)) => match self.timetable() {
                Some((dialect, definition)) => {
                    let (from, to) = range(from, to)?;
                    let dialect = dialects.get(dialect).ok_or_else(|| {
                        RefusedBackfill::Refused(format!(
                            "this server has no timetables of {dialect:.60}"
                        ))
                    })?;
                    let timetable = dialect.open(definition).map_err(RefusedBackfill::Refused)?;
                    let asked =
                        TickRange { from, to, newest_first: self.newest_first(), only: self.only };
                    Items::Ticks(timetable.between(&asked, at).map_err(RefusedBackfill::Refused)?)
                }
                None => Items::slots(Schedule::parse(schedule)?, from, to)?,
            },
            _ => Err(ScheduleError::new("backfill", "does not say what to go over")
                .hint("give partitions, or schedule with from and to"))?,
        };
        if items.too_many() {
            return Err(RefusedBackfill::TooMany { count: items.count_text() });
        }
        if items.count() == 0 {
            return Err(RefusedBackfill::Nothing);
        }
        Ok(items)
    }

    pub(crate) fn newest_first(&self) -> bool {
        self.order == Order::NewestFirst
    }

    pub(crate) fn wants(&self, status: ItemStatus) -> bool {
        match self.only {
            Only::All => true,
            Only::Missing => matches!(status, ItemStatus::Missing | ItemStatus::Failed),
            Only::Failed => status == ItemStatus::Failed,
            Only::New => status == ItemStatus::Missing,
            Only::Ended => status != ItemStatus::Active,
        }
    }

    /// What would happen. `status` tells what became of a piece so far.
    pub fn preview(
        &self,
        items: &Items,
        mut status: impl FnMut(&BackfillItem) -> ItemStatus,
    ) -> Preview {
        let total = items.count();
        let newest_first = self.newest_first();
        let looks = if self.only == Only::All { 0 } else { total.min(PREVIEW_LOOKS) };
        let runs = if self.only == Only::All {
            total
        } else {
            (0..looks)
                .filter_map(|position| items.get(position, newest_first))
                .filter(|item| self.wants(status(item)))
                .count() as u64
        };
        let key = |position| items.get(position, newest_first).map(|item| item.key);
        Preview {
            total,
            runs,
            exact: self.only == Only::All || looks == total,
            first: key(0),
            last: key(total.saturating_sub(1)),
        }
    }

    /// The run's parameters for one piece.
    pub(crate) fn render_params(&self, id: &str, item: &BackfillItem) -> Result<Json, String> {
        if item.tick.is_some() && !self.params.is_null() {
            // Its dialect knows no templates there.
            return Ok(self.params.clone());
        }
        if self.params.is_null() {
            return Ok(serde_json::json!({}));
        }
        let (start, end) = item.interval.unzip();
        let values = serde_json::json!({
            "interval": {"start": start, "end": end},
            "partition": item.partition,
            "backfill": {"id": id, "key": item.key},
        });
        let context = match values {
            Json::Object(values) => native::Context::new(&values),
            _ => return Err("no context".to_owned()),
        };
        native::render_json(&self.params, &context).map_err(|e| e.to_string())
    }
}

/// Both ends of a range; a date as the last means its whole day. Without an offset they are in UTC.
fn range(from: &str, to: &str) -> Result<(Timestamp, Timestamp), ScheduleError> {
    let zone = Zone::utc();
    let from = At::parse_time(from, &zone).map_err(|e| e.inside("from"))?;
    let last = if to.len() == 10 { &format!("{to}T23:59:59.999999") } else { to };
    let to = At::parse_time(last, &zone).map_err(|e| e.inside("to"))?;
    if to < from {
        return Err(ScheduleError::new("to", "must not be earlier than from"));
    }
    Ok((from, to))
}
