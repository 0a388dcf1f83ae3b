//! The pieces of a backfill, by position.

use kobza_model::{Json, Timestamp};
use kobza_schedule::partition::{PartitionDefinition, PartitionSet};
use kobza_schedule::{At, Schedule, ScheduleError, Zone};

use super::MAX_RUNS;
use crate::Tick;

/// Slots are counted one by one; beyond this the count is only said to be larger.
const MAX_COUNTED: usize = 1_000_000;

/// What a backfill goes over, oldest first.
#[derive(Clone, Debug)]
pub enum Items {
    Slots {
        schedule: Box<Schedule>,
        slots: Vec<Timestamp>,
        more: bool,
    },
    Partitions {
        definition: PartitionDefinition,
        set: PartitionSet,
    },
    /// What a dialect's timetable makes of a range.
    Ticks(Vec<Tick>),
}

/// One piece: one run.
#[derive(Clone, PartialEq, Debug)]
pub struct BackfillItem {
    /// Place in the order of execution, from 0.
    pub position: u64,
    /// The slot's time or the partition's key.
    pub key: String,
    pub interval: Option<(Timestamp, Timestamp)>,
    pub partition: Option<String>,
    /// As a dialect's timetable has it.
    pub tick: Option<Box<Tick>>,
}

impl Items {
    /// The slots of a schedule in a range, both ends included; a date as the end means its whole
    /// day in the schedule's zone.
    pub(crate) fn slots(schedule: Schedule, from: &str, to: &str) -> Result<Self, ScheduleError> {
        let zone = schedule.zone().cloned().unwrap_or_else(Zone::utc);
        let from_at = At::parse_time(from, &zone).map_err(|e| e.inside("from"))?;
        let date_only = to.len() == 10;
        let to_at = if date_only {
            At::parse_time(&format!("{to}T23:59:59.999999"), &zone)
        } else {
            At::parse_time(to, &zone)
        };
        let to_at = to_at.map_err(|e| e.inside("to"))?;
        if to_at < from_at {
            return Err(ScheduleError::new("to", "must not be earlier than from"));
        }
        let end = Timestamp(to_at.0.saturating_add(1));
        let mut slots: Vec<_> =
            schedule.slots_between(from_at, end).take(MAX_COUNTED + 1).collect();
        let more = slots.len() > MAX_COUNTED;
        slots.truncate(MAX_COUNTED);
        Ok(Self::Slots { schedule: Box::new(schedule), slots, more })
    }

    /// A set of partitions. `at` says what `*` and open ranges mean.
    pub(crate) fn partitions(
        definition: &Json,
        set: &str,
        at: Timestamp,
    ) -> Result<Self, ScheduleError> {
        let definition = PartitionDefinition::parse(definition)?;
        let set = definition.parse_set(set, at)?;
        Ok(Self::Partitions { definition, set })
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Slots { slots, .. } => slots.len() as u64,
            Self::Partitions { set, .. } => set.count(),
            Self::Ticks(ticks) => ticks.len() as u64,
        }
    }

    /// The count for people: exact, or what it is more than.
    #[must_use]
    pub fn count_text(&self) -> String {
        match self {
            Self::Slots { more: true, .. } => format!("more than {MAX_COUNTED}"),
            _ => self.count().to_string(),
        }
    }

    pub(crate) fn too_many(&self) -> bool {
        self.count() > MAX_RUNS
    }

    /// The text that reads back as the same set, whatever the time; `None` for slots.
    pub(crate) fn set_text(&self) -> Option<String> {
        match self {
            Self::Slots { .. } | Self::Ticks(_) => None,
            Self::Partitions { definition, set } => Some(definition.format_set(set)),
        }
    }

    /// The piece at a position of the order.
    #[must_use]
    pub fn get(&self, position: u64, newest_first: bool) -> Option<BackfillItem> {
        let count = self.count();
        if position >= count {
            return None;
        }
        let index = if newest_first { count - 1 - position } else { position };
        match self {
            Self::Slots { schedule, slots, .. } => {
                let slot = *slots.get(usize::try_from(index).ok()?)?;
                let interval = schedule.interval_of(slot);
                Some(BackfillItem {
                    position,
                    key: slot.to_jiff().to_string(),
                    interval: Some((interval.start, interval.end)),
                    partition: None,
                    tick: None,
                })
            }
            Self::Partitions { definition, set } => {
                let place = set.nth(index)?;
                let key = definition.key(&place)?;
                let interval = definition.window(&place).map(|window| (window.start, window.end));
                let partition = Some(key.clone());
                Some(BackfillItem { position, partition, key, interval, tick: None })
            }
            Self::Ticks(ticks) => {
                let tick = ticks.get(usize::try_from(index).ok()?)?;
                let slot = || tick.slot.to_jiff().to_string();
                Some(BackfillItem {
                    position,
                    key: tick.partition.clone().unwrap_or_else(slot),
                    interval: tick.interval,
                    partition: tick.partition.clone(),
                    tick: Some(Box::new(tick.clone())),
                })
            }
        }
    }
}
