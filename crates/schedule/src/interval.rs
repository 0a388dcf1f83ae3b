//! Fixed intervals of real time.

use kobza_model::Timestamp;

use crate::ScheduleError;

/// Shortest interval, in microseconds: below a second a schedule is a loop of its own.
const MIN_MICROS: i64 = 1_000_000;

/// Every so much real time, counted from an anchor in both directions. Clock changes do not matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interval {
    every: i64,
    anchor: Timestamp,
}

impl Interval {
    /// Monday 1970-01-05T00:00:00Z, so that intervals of days and weeks begin at midnight and on
    /// Mondays unless told otherwise.
    pub const DEFAULT_ANCHOR: Timestamp = Timestamp(4 * 86_400_000_000);

    /// `every` is in microseconds, at least a second.
    pub fn new(every: i64, anchor: Timestamp) -> Result<Self, ScheduleError> {
        if every < MIN_MICROS {
            return Err(ScheduleError::new("interval", "an interval is at least one second")
                .hint("for reactions faster than that use events"));
        }
        Ok(Self { every, anchor })
    }

    /// Length in microseconds.
    #[must_use]
    pub fn every(&self) -> i64 {
        self.every
    }

    #[must_use]
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let (at, anchor, every) =
            (i128::from(at.0), i128::from(self.anchor.0), i128::from(self.every));
        let index = (at - anchor).div_euclid(every) + 1;
        in_range(anchor + index * every)
    }

    #[must_use]
    pub fn prev_before(&self, at: Timestamp) -> Option<Timestamp> {
        let (at, anchor, every) =
            (i128::from(at.0), i128::from(self.anchor.0), i128::from(self.every));
        let index = (at - 1 - anchor).div_euclid(every);
        in_range(anchor + index * every)
    }
}

fn in_range(micros: i128) -> Option<Timestamp> {
    let slot = Timestamp(i64::try_from(micros).ok()?);
    let years =
        Timestamp::from_jiff(jiff::Timestamp::MIN)..Timestamp::from_jiff(jiff::Timestamp::MAX);
    years.contains(&slot).then_some(slot)
}
