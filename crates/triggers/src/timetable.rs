//! Schedules that belong to a dialect: what is due follows from the run before, by rules of the
//! dialect's own.
//!
//! The dialect answers when the next run is due and what it is; pausing, limits, durability and that
//! each tick happens once are the trigger's business as for any other schedule.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kobza_model::{Json, Timestamp};
use serde::{Deserialize, Serialize};

use crate::backfill::Only;
use crate::mapping::PartitionMapping;

/// The dialects that have timetables, by name.
pub type TimetableDialects = BTreeMap<String, Arc<dyn Timetables>>;

/// Makes timetables from their definitions.
pub trait Timetables: Send + Sync {
    /// Reads a definition: the `timetable` of a trigger.
    fn open(&self, definition: &Json) -> Result<Arc<dyn Timetable>, String>;

    /// Reads a mapping of partitions: the `mapping` of a trigger's assets.
    fn open_mapping(&self, _definition: &Json) -> Result<Arc<dyn PartitionMapping>, String> {
        Err("this dialect maps no partitions".to_owned())
    }
}

/// A schedule. Its answers depend on nothing but what is given, except those of [`Self::ask`].
pub trait Timetable: Send + Sync + fmt::Debug {
    /// What comes after the last tick that was taken. Called with the present when a plan is needed,
    /// and again when its time has passed while nobody looked.
    fn next(&self, last: Option<&Tick>, now: Timestamp) -> Next;

    /// The same where [`Self::next`] says [`Next::Ask`]: may take its time, on a thread of its own.
    fn ask(&self, last: Option<&Tick>, now: Timestamp) -> Result<Next, String>;

    /// All ticks of a range, for a backfill; `now` says what has not come yet. May take its time.
    fn between(&self, _range: &TickRange, _now: Timestamp) -> Result<Vec<Tick>, String> {
        Err("its schedule does not support backfills".to_owned())
    }

    /// How many of its runs may be unfinished; the next tick waits, and is asked for anew, until
    /// fewer are.
    fn max_active(&self) -> Option<u32> {
        None
    }
}

/// What comes next.
#[derive(Clone, PartialEq, Debug)]
pub enum Next {
    Tick(Tick),
    /// Nothing, as far as is known: not asked again until the definition changes.
    Never,
    /// Nothing now, but ask again then.
    Later(Timestamp),
    /// Only somebody outside knows: see [`Timetable::ask`].
    Ask,
    /// It cannot say, in words for people.
    Failed(String),
}

/// What a backfill of a timetable asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TickRange {
    /// Both ends belong to it.
    pub from: Timestamp,
    pub to: Timestamp,
    pub newest_first: bool,
    pub only: Only,
}

/// One occasion to run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tick {
    /// The run's key, unique within the workflow.
    pub key: String,
    /// When the run is made.
    pub at: Timestamp,
    /// The time that the slot is known by.
    pub slot: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(Timestamp, Timestamp)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// What the dialect keeps with the run.
    #[serde(default)]
    pub extra: Json,
}
