//! Hourly and minutely recurrence rules: equal steps of civil time, filtered.

use jiff::SignedDuration;
use jiff::civil::DateTime;
use rrule::{Frequency, NWeekday};

/// How far to search for the next time: a leap day is at most eight years away.
const HORIZON_DAYS: i64 = 9 * 366;

/// `FREQ=HOURLY` or `FREQ=MINUTELY`.
#[derive(Clone, Debug)]
pub(crate) struct SubDaily {
    /// The first step: the start without its minutes (hourly) and seconds.
    first: DateTime,
    start: DateTime,
    until: Option<DateTime>,
    step_seconds: i64,
    months: Vec<i8>,
    month_days: Vec<i8>,
    year_days: Vec<i16>,
    weekdays: Vec<u8>,
    hours: Vec<u8>,
    /// Of a minutely rule; an hourly one has them in `offsets`.
    minutes: Vec<u8>,
    /// Seconds into a step at which the rule happens, ascending.
    offsets: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

impl SubDaily {
    /// Takes over a parsed rule; an error says which part has no meaning here.
    pub(crate) fn new(
        rule: &rrule::RRule<rrule::Unvalidated>,
        start: DateTime,
        until: Option<DateTime>,
    ) -> Result<Self, &'static str> {
        if !rule.get_by_set_pos().is_empty() || !rule.get_by_week_no().is_empty() {
            return Err("BYSETPOS and BYWEEKNO mean nothing for this frequency");
        }
        let weekdays = rule.get_by_weekday().iter().map(|day| match day {
            NWeekday::Every(day) => {
                u8::try_from(day.num_days_from_monday()).map_err(|_| "BYDAY is not valid")
            }
            NWeekday::Nth(..) => Err("a numbered BYDAY means nothing for this frequency"),
        });
        let or_of_start = |values: &[u8], own: i8| -> Vec<i64> {
            if values.is_empty() {
                vec![i64::from(own)]
            } else {
                values.iter().map(|v| i64::from(*v)).collect()
            }
        };
        let hourly = rule.get_freq() == Frequency::Hourly;
        let seconds = or_of_start(rule.get_by_second(), start.second());
        let minutes = or_of_start(rule.get_by_minute(), start.minute());
        let minutes = if hourly { minutes } else { vec![0] };
        let mut offsets: Vec<i64> =
            minutes.iter().flat_map(|m| seconds.iter().map(move |s| m * 60 + s)).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let unit = if hourly { 3_600 } else { 60 };
        let into_unit = (i64::from(start.minute()) * 60 + i64::from(start.second())) % unit;
        let first = start
            .checked_sub(SignedDuration::from_secs(into_unit))
            .map_err(|_| "DTSTART is out of range")?;
        let months = rule.get_by_month().iter().filter_map(|m| i8::try_from(*m).ok()).collect();
        Ok(Self {
            first,
            start,
            until,
            step_seconds: unit * i64::from(rule.get_interval()),
            months,
            month_days: rule.get_by_month_day().to_vec(),
            year_days: rule.get_by_year_day().to_vec(),
            weekdays: weekdays.collect::<Result<_, _>>()?,
            hours: rule.get_by_hour().to_vec(),
            minutes: if hourly { Vec::new() } else { rule.get_by_minute().to_vec() },
            offsets,
        })
    }

    pub(crate) fn after(&self, from: DateTime) -> Option<DateTime> {
        let second = SignedDuration::from_secs(1);
        let from = from.max(self.start.checked_sub(second).ok()?);
        let limit = from.checked_add(SignedDuration::from_secs(HORIZON_DAYS * 86_400)).ok()?;
        let mut step = self.step_at(from);
        while step <= limit && self.until.is_none_or(|until| step <= until) {
            if let Some(skip) = self.mismatch(step, Direction::Forward)? {
                step = self.step_at_or_after(skip)?;
                continue;
            }
            let times = self.offsets.iter().filter_map(|o| shift(step, *o));
            if let Some(found) = times.into_iter().find(|time| *time > from) {
                return self.until.is_none_or(|until| found <= until).then_some(found);
            }
            step = shift(step, self.step_seconds)?;
        }
        None
    }

    pub(crate) fn before(&self, from: DateTime) -> Option<DateTime> {
        let after_until = self.until.and_then(|until| shift(until, 1));
        let from = after_until.map_or(from, |end| from.min(end));
        let limit = from.checked_sub(SignedDuration::from_secs(HORIZON_DAYS * 86_400)).ok();
        let mut step = self.step_at(from);
        while step >= self.first && limit.is_none_or(|limit| step >= limit) {
            if let Some(skip) = self.mismatch(step, Direction::Backward)? {
                step = self.step_at(skip);
                continue;
            }
            let times = self.offsets.iter().rev().filter_map(|o| shift(step, *o));
            if let Some(found) = times.into_iter().find(|time| *time < from) {
                return (found >= self.start).then_some(found);
            }
            step = shift(step, -self.step_seconds)?;
        }
        None
    }

    /// The last step at or before a time; may lie before the first.
    fn step_at(&self, time: DateTime) -> DateTime {
        let elapsed = self.first.duration_until(time).as_secs();
        let steps = elapsed.div_euclid(self.step_seconds);
        shift(self.first, steps * self.step_seconds).unwrap_or(self.first)
    }

    fn step_at_or_after(&self, time: DateTime) -> Option<DateTime> {
        let step = self.step_at(time);
        if step == time { Some(step) } else { shift(step, self.step_seconds) }
    }

    /// `Some(None)` if the filters let the step pass, else the nearest time in the direction that
    /// they may let pass. `None` at the end of the calendar.
    #[allow(clippy::option_option)]
    fn mismatch(&self, step: DateTime, direction: Direction) -> Option<Option<DateTime>> {
        let beyond = |begin: DateTime, seconds: i64| match direction {
            Direction::Forward => shift(begin, seconds),
            Direction::Backward => shift(begin, -1),
        };
        if !self.day_matches(step) {
            return beyond(step.start_of_day(), 86_400).map(Some);
        }
        let hour = step.start_of_day().with().hour(step.hour()).build().ok()?;
        if !has(&self.hours, step.hour()) {
            return beyond(hour, 3_600).map(Some);
        }
        if !has(&self.minutes, step.minute()) {
            return beyond(step.with().second(0).build().ok()?, 60).map(Some);
        }
        Some(None)
    }

    fn day_matches(&self, time: DateTime) -> bool {
        let from_end = |value: i16, length: i16| value - length - 1;
        let (day, year_day) = (i16::from(time.day()), time.day_of_year());
        let day_from_end = from_end(day, i16::from(time.days_in_month()));
        let year_day_from_end = from_end(year_day, time.days_in_year());
        let weekday = u8::try_from(time.weekday().to_monday_zero_offset()).unwrap_or(0);
        (self.months.is_empty() || self.months.contains(&time.month()))
            && (self.weekdays.is_empty() || self.weekdays.contains(&weekday))
            && (self.month_days.is_empty()
                || self.month_days.iter().any(|d| [day, day_from_end].contains(&i16::from(*d))))
            && (self.year_days.is_empty()
                || self.year_days.iter().any(|d| [year_day, year_day_from_end].contains(d)))
    }
}

fn has(allowed: &[u8], value: i8) -> bool {
    allowed.is_empty() || allowed.iter().any(|a| i16::from(*a) == i16::from(value))
}

fn shift(time: DateTime, seconds: i64) -> Option<DateTime> {
    time.checked_add(SignedDuration::from_secs(seconds)).ok()
}
