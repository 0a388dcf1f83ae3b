//! One-off times.

use jiff::civil::DateTime;
use kobza_model::Timestamp;

use crate::error::shown;
use crate::{ScheduleError, Zone};

/// Most times in one list: more is a schedule of another kind.
const MAX_TIMES: usize = 10_000;

/// At these instants, once each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct At {
    times: Vec<Timestamp>,
}

impl At {
    pub fn new(mut times: Vec<Timestamp>) -> Result<Self, ScheduleError> {
        if times.is_empty() || times.len() > MAX_TIMES {
            let message = format!("needs between 1 and {MAX_TIMES} times");
            return Err(ScheduleError::new("at", message));
        }
        times.sort_unstable();
        times.dedup();
        Ok(Self { times })
    }

    /// Reads an instant (`2026-01-31T02:00:00Z`), or a civil time of the zone
    /// (`2026-01-31 02:00`, `2026-01-31`).
    pub fn parse_time(text: &str, zone: &Zone) -> Result<Timestamp, ScheduleError> {
        let bad = || {
            ScheduleError::new("", format!("{} is not a time", shown(text)))
                .hint("write 2026-01-31T02:00:00Z, or 2026-01-31 02:00 in the trigger's time zone")
        };
        if let Ok(instant) = text.parse::<Timestamp>() {
            return Ok(instant);
        }
        let civil: DateTime = text.parse().map_err(|_| bad())?;
        zone.instant(civil).ok_or_else(bad)
    }

    #[must_use]
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.times.get(self.times.partition_point(|t| *t <= at)).copied()
    }

    #[must_use]
    pub fn prev_before(&self, at: Timestamp) -> Option<Timestamp> {
        self.times[..self.times.partition_point(|t| *t < at)].last().copied()
    }
}
