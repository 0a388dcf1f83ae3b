//! Partitions of time.

use std::sync::Mutex;

use jiff::ToSpan;
use jiff::civil::Date;
use kobza_model::Timestamp;

use crate::error::shown;
use crate::{At, Cron, DataInterval, ScheduleError, Zone};

/// Most partitions that a cron grid may have: their starts are listed in memory as needed.
const MAX_CRON_PARTITIONS: usize = 1_000_000;
const HOUR: i64 = 3_600_000_000;

/// How long the partitions are.
#[derive(Clone, Debug)]
pub enum TimeGrid {
    /// Hours of real time, so a day of a clock change has 23 or 25.
    Hourly,
    /// Days of the zone's calendar.
    Daily,
    /// Seven calendar days, counted from the start's date.
    Weekly,
    /// Calendar months.
    Monthly,
    /// From each slot of a cron pattern to the next.
    Cron(Box<Cron>),
}

/// Consecutive partitions of time in a zone, from a start, and to an end if there is one.
#[derive(Debug)]
pub struct TimePartitions {
    grid: TimeGrid,
    zone: Zone,
    start: Timestamp,
    /// Exclusive.
    end: Option<Timestamp>,
    first_date: Date,
    /// The starts of a cron grid's partitions, as far as anybody has asked.
    cron_starts: Mutex<Vec<Timestamp>>,
}

impl TimePartitions {
    /// `start` and `end` (exclusive) are times or dates in the zone. The start must lie on the grid.
    pub fn new(
        grid: TimeGrid,
        zone: Zone,
        start: &str,
        end: Option<&str>,
    ) -> Result<Self, ScheduleError> {
        let start_at = At::parse_time(start, &zone).map_err(|e| e.inside("start"))?;
        let end = end.map(|end| At::parse_time(end, &zone).map_err(|e| e.inside("end")));
        let end = end.transpose()?;
        if end.is_some_and(|end| end <= start_at) {
            return Err(ScheduleError::new("end", "the end must be later than the start"));
        }
        let civil = zone.civil(start_at);
        if !(1..=4000).contains(&civil.year()) {
            return Err(ScheduleError::new("start", "the year must lie between 1 and 4000"));
        }
        let off_grid = |hint: &str| {
            let message = format!("{} does not begin a partition", shown(start));
            Err(ScheduleError::new("start", message).hint(hint))
        };
        let midnight = zone.instant(civil.date().at(0, 0, 0, 0)) == Some(start_at);
        match &grid {
            TimeGrid::Hourly if civil.minute() != 0 || civil.second() != 0 => {
                return off_grid("begin at a full hour");
            }
            TimeGrid::Daily | TimeGrid::Weekly if !midnight => {
                return off_grid("give a date, such as 2013-01-01");
            }
            TimeGrid::Monthly if !midnight || civil.day() != 1 => {
                return off_grid("give the first day of a month, such as 2013-01-01");
            }
            _ => {}
        }
        let first_date = civil.date();
        Ok(Self { grid, zone, start: start_at, end, first_date, cron_starts: Mutex::default() })
    }

    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    #[must_use]
    pub fn grid(&self) -> &TimeGrid {
        &self.grid
    }

    /// When a partition begins.
    #[must_use]
    pub fn start_of(&self, index: u64) -> Option<Timestamp> {
        let number = i64::try_from(index).ok()?;
        let date = match &self.grid {
            TimeGrid::Hourly => {
                let start = self.start.0.checked_add(number.checked_mul(HOUR)?)?;
                return Some(Timestamp(start));
            }
            TimeGrid::Cron(cron) => {
                return self.cron_starts(
                    cron,
                    |starts| starts.len() > index as usize,
                    |starts| starts.get(usize::try_from(index).ok()?).copied(),
                );
            }
            TimeGrid::Daily => self.first_date.checked_add(days(number)?).ok()?,
            TimeGrid::Weekly => self.first_date.checked_add(days(number.checked_mul(7)?)?).ok()?,
            TimeGrid::Monthly => {
                let months = i32::try_from(number).ok().filter(|n| *n < 100_000)?;
                self.first_date.checked_add(months.months()).ok()?
            }
        };
        self.zone.instant(date.at(0, 0, 0, 0))
    }

    /// The time a partition covers.
    #[must_use]
    pub fn window(&self, index: u64) -> Option<DataInterval> {
        Some(DataInterval { start: self.start_of(index)?, end: self.start_of(index + 1)? })
    }

    /// The partition that an instant lies in, if any.
    #[must_use]
    pub fn index_at(&self, at: Timestamp) -> Option<u64> {
        if at < self.start || self.end.is_some_and(|end| at >= end) {
            return None;
        }
        let elapsed_days = || {
            let span = self.first_date.until(self.zone.civil(at).date()).ok()?;
            u64::try_from(span.get_days()).ok()
        };
        match &self.grid {
            TimeGrid::Hourly => u64::try_from((at.0 - self.start.0) / HOUR).ok(),
            TimeGrid::Daily => elapsed_days(),
            TimeGrid::Weekly => elapsed_days().map(|days| days / 7),
            TimeGrid::Monthly => {
                let (first, date) = (self.first_date, self.zone.civil(at).date());
                let years = i64::from(date.year()) - i64::from(first.year());
                u64::try_from(years * 12 + i64::from(date.month()) - i64::from(first.month())).ok()
            }
            TimeGrid::Cron(cron) => self.cron_starts(
                cron,
                |starts| starts.last().is_some_and(|last| *last > at),
                |starts| (starts.partition_point(|s| *s <= at) as u64).checked_sub(1),
            ),
        }
    }

    /// How many partitions there are in all; `None` without an end.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        let last = Timestamp(self.end?.0 - 1);
        Some(self.index_at(last).map_or(0, |index| index + 1))
    }

    /// How many partitions are complete at an instant, that is, lie wholly before it.
    #[must_use]
    pub fn complete_at(&self, at: Timestamp) -> u64 {
        if self.end.is_some_and(|end| at >= end) {
            // The last one may reach beyond the end.
            let total = self.total().unwrap_or(0);
            let last = total.checked_sub(1).and_then(|last| self.window(last));
            return total.saturating_sub(u64::from(last.is_some_and(|window| window.end > at)));
        }
        self.index_at(at).unwrap_or(0)
    }

    /// Indexes of the partitions that overlap `[from, to)`.
    #[must_use]
    pub fn overlapping(&self, from: Timestamp, to: Timestamp) -> (u64, u64) {
        let from = from.max(self.start);
        let last = Timestamp(self.end.map_or(to, |end| end.min(to)).0.saturating_sub(1));
        match (self.index_at(from), self.index_at(last)) {
            (Some(first), Some(last)) if first <= last => (first, last + 1),
            // A cron grid begins with its first slot, which may be later than the start.
            (None, Some(last)) if matches!(self.grid, TimeGrid::Cron(_)) => (0, last + 1),
            _ => (0, 0),
        }
    }

    /// The key of a partition: its start's date, month, or time with offset.
    #[must_use]
    pub fn key(&self, index: u64) -> Option<String> {
        let start = self.start_of(index)?;
        if self.end.is_some_and(|end| start >= end) {
            return None;
        }
        let civil = self.zone.civil(start);
        Some(match &self.grid {
            // The nominal date: in a zone where midnight does not exist the start is later.
            TimeGrid::Daily | TimeGrid::Weekly => civil.strftime("%Y-%m-%d").to_string(),
            TimeGrid::Monthly => civil.strftime("%Y-%m").to_string(),
            TimeGrid::Hourly | TimeGrid::Cron(_) => {
                let offset = match self.zone.name() {
                    "UTC" => "Z".to_owned(),
                    _ => self.zone.offset_text(start),
                };
                let seconds = if civil.second() == 0 { "" } else { ":%S" };
                civil.strftime(&format!("%Y-%m-%dT%H:%M{seconds}")).to_string() + &offset
            }
        })
    }

    /// The partition with a key. Of daily and coarser grids any date inside is accepted only if it
    /// is the partition's own key.
    pub fn parse_key(&self, key: &str) -> Result<u64, ScheduleError> {
        let unknown = |hint: Option<String>| {
            let error = ScheduleError::new("partition", format!("{} does not exist", shown(key)));
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        };
        let example = || self.key(0).map(|key| format!("keys look like {key}"));
        let text = if matches!(self.grid, TimeGrid::Monthly) && key.len() == 7 {
            format!("{key}-01")
        } else {
            key.to_owned()
        };
        let at = At::parse_time(&text, &self.zone).map_err(|_| unknown(example()))?;
        let index = self.index_at(at).ok_or_else(|| {
            let range = self.key(0).map(|first| match self.end {
                Some(end) => format!("partitions begin with {first} and end before {end}"),
                None => format!("partitions begin with {first}"),
            });
            unknown(range)
        })?;
        if self.start_of(index) != Some(at) {
            let inside = self.key(index).map(|own| format!("that time lies in partition {own}"));
            return Err(unknown(inside));
        }
        Ok(index)
    }

    /// Lists starts until `enough` says so, then reads the list.
    fn cron_starts<T>(
        &self,
        cron: &Cron,
        enough: impl Fn(&[Timestamp]) -> bool,
        read: impl FnOnce(&[Timestamp]) -> Option<T>,
    ) -> Option<T> {
        let mut starts = self.cron_starts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while !enough(&starts) && starts.len() < MAX_CRON_PARTITIONS {
            let from = starts.last().copied().unwrap_or(Timestamp(self.start.0 - 1));
            match cron.next_after(from) {
                Some(next) => starts.push(next),
                None => break,
            }
        }
        read(&starts)
    }
}

fn days(number: i64) -> Option<jiff::Span> {
    // More than the calendar has is out of range, not a panic.
    jiff::Span::new().try_days(number).ok()
}
