//! Python's `timedelta` and dateutil's `relativedelta`, added to instants in UTC.

use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use kobza_model::{Json, Timestamp};

use super::calendar::checked;
use super::error::{TimetableError, shown};

/// A step between runs, or the length of an interval.
#[derive(Clone, PartialEq, Debug)]
pub enum Delta {
    /// Microseconds.
    Fixed(i64),
    Relative(Box<RelativeDelta>),
}

/// What dateutil adds to a time: first the fields in the singular are set, then those in the plural
/// are added, then it goes on to a weekday.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RelativeDelta {
    years: i64,
    months: i64,
    /// Days, hours and below, as microseconds.
    micros: i128,
    /// What of [`Self::micros`] is left of a field of microseconds, whole seconds taken out.
    below_second: i128,
    leapdays: i64,
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    hour: Option<i64>,
    minute: Option<i64>,
    second: Option<i64>,
    microsecond: Option<i64>,
    /// Monday is 0; and which one, 1 is the next or the same day, -1 the one before or the same.
    weekday: Option<(i64, i64)>,
}

const SECOND: i64 = 1_000_000;

/// Seconds as Python's `timedelta(seconds=...)` takes them: to the nearest microsecond, ties to
/// the even one.
pub(super) fn micros_of_seconds(seconds: f64) -> Option<i64> {
    // What an instant can be away from another, and less than timedelta can hold.
    if !seconds.is_finite() || seconds.abs() > 1e12 {
        return None;
    }
    let whole = seconds.trunc();
    let fraction = ((seconds - whole) * 1e6).round_ties_even();
    Some(whole as i64 * SECOND + fraction as i64)
}

impl Delta {
    /// As serialised: seconds, or an object of a `relativedelta`'s fields.
    pub fn parse(value: &Json, field: &str) -> Result<Self, TimetableError> {
        match value {
            Json::Number(number) => number
                .as_f64()
                .and_then(micros_of_seconds)
                .map(Self::Fixed)
                .ok_or_else(|| TimetableError::invalid(field, "is out of range")),
            Json::Object(fields) => {
                let mut delta = RelativeDelta::default();
                for (name, value) in fields {
                    delta.set(name, value).map_err(|message| {
                        TimetableError::invalid(format!("{field}.{name:.40}"), message)
                    })?;
                }
                delta.carry_months();
                Ok(Self::Relative(Box::new(delta)))
            }
            _ => Err(TimetableError::invalid(
                field,
                "must be a number of seconds or the fields of a relativedelta",
            )),
        }
    }

    /// In a few words, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Fixed(micros) => {
                format!("every {}", jiff::SignedDuration::from_micros(*micros))
            }
            Self::Relative(delta) if delta.months != 0 || delta.years != 0 => {
                format!("every {} months", delta.years * 12 + delta.months)
            }
            Self::Relative(_) => format!("every {} seconds", self.in_seconds()),
        }
    }

    pub(super) fn after(&self, at: Timestamp) -> Result<Timestamp, TimetableError> {
        match self {
            Self::Fixed(micros) => checked(i128::from(at.0) + i128::from(*micros)),
            Self::Relative(delta) => delta.apply(at, 1),
        }
    }

    pub(super) fn before(&self, at: Timestamp) -> Result<Timestamp, TimetableError> {
        match self {
            Self::Fixed(micros) => checked(i128::from(at.0) - i128::from(*micros)),
            Self::Relative(delta) => delta.apply(at, -1),
        }
    }

    /// Months and years are not of one length.
    pub(super) fn varies(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Relative(delta) => delta.months != 0 || delta.years != 0,
        }
    }

    /// The length as Airflow counts it for rounding, in seconds.
    pub(super) fn in_seconds(&self) -> f64 {
        match self {
            Self::Fixed(micros) => *micros as f64 / 1e6,
            Self::Relative(delta) => delta.in_seconds(),
        }
    }
}

impl RelativeDelta {
    fn set(&mut self, name: &str, value: &Json) -> Result<(), String> {
        match name {
            "years" => self.years = whole(value)?,
            "months" => self.months = whole(value)?,
            "leapdays" => self.leapdays = whole(value)?,
            "days" => self.micros += count(value, 86_400 * SECOND)?,
            "hours" => self.micros += count(value, 3600 * SECOND)?,
            "minutes" => self.micros += count(value, 60 * SECOND)?,
            "seconds" => self.micros += count(value, SECOND)?,
            "microseconds" => {
                let micros = count(value, 1)?;
                self.micros += micros;
                self.below_second = micros % i128::from(SECOND);
            }
            "year" => self.year = absolute(value, 1, 9999)?,
            "month" => self.month = absolute(value, 1, 12)?,
            "day" => self.day = absolute(value, 1, 31)?,
            "hour" => self.hour = absolute(value, 0, 23)?,
            "minute" => self.minute = absolute(value, 0, 59)?,
            "second" => self.second = absolute(value, 0, 59)?,
            "microsecond" => self.microsecond = absolute(value, 0, 999_999)?,
            "weekday" => {
                let parts = value.as_array().ok_or("must be [weekday] or [weekday, n]")?;
                let part = |at: usize| parts.get(at).map(whole).transpose();
                let day = part(0)?.filter(|day| (0..=6).contains(day));
                let day = day.ok_or("the weekday is 0 (Monday) to 6")?;
                let nth = part(1)?.unwrap_or(1);
                if parts.len() > 2 || nth == 0 || nth.abs() > 1_000_000 {
                    return Err("must be [weekday] or [weekday, n]".to_owned());
                }
                self.weekday = Some((day, nth));
            }
            _ => return Err("is not a field of a relativedelta that this version knows".to_owned()),
        }
        Ok(())
    }

    /// Whole years out of the months, as dateutil does.
    fn carry_months(&mut self) {
        if self.months.abs() > 11 {
            self.years += self.months / 12;
            self.months %= 12;
        }
    }

    fn apply(&self, at: Timestamp, sign: i64) -> Result<Timestamp, TimetableError> {
        let out = || TimetableError::failed("the time is not within the years 1 to 9999");
        let from = Offset::UTC.to_datetime(at.to_jiff());
        let mut year = self.year.unwrap_or_else(|| i64::from(from.year())) + sign * self.years;
        let mut month = self.month.unwrap_or_else(|| i64::from(from.month())) + sign * self.months;
        if month > 12 {
            (year, month) = (year + 1, month - 12);
        } else if month < 1 {
            (year, month) = (year - 1, month + 12);
        }
        if !(1..=9999).contains(&year) {
            return Err(out());
        }
        let first = Date::new(year as i16, month as i8, 1).map_err(|_| out())?;
        let day = self.day.unwrap_or_else(|| i64::from(from.day()));
        let day = day.min(i64::from(first.days_in_month()));
        let date = first.with().day(day as i8).build().map_err(|_| out())?;
        let part = |set: Option<i64>, own: i64| set.unwrap_or(own);
        let set = DateTime::from_parts(
            date,
            jiff::civil::Time::new(
                part(self.hour, i64::from(from.hour())) as i8,
                part(self.minute, i64::from(from.minute())) as i8,
                part(self.second, i64::from(from.second())) as i8,
                part(self.microsecond, i64::from(from.subsec_nanosecond() / 1000)) as i32 * 1000,
            )
            .map_err(|_| out())?,
        );
        let mut micros =
            i128::from(Offset::UTC.to_timestamp(set).map_err(|_| out())?.as_microsecond())
                + i128::from(sign) * self.micros;
        // Added even where the rest is taken away, as dateutil does.
        if self.leapdays != 0 && month > 2 && first.in_leap_year() {
            micros += i128::from(self.leapdays) * i128::from(86_400 * SECOND);
        }
        let mut at = checked(micros)?;
        if let Some((weekday, nth)) = self.weekday {
            let own = Offset::UTC.to_datetime(at.to_jiff()).weekday().to_monday_zero_offset();
            let own = i64::from(own);
            let jump = (nth.abs() - 1) * 7
                + if nth > 0 { (7 - own + weekday) % 7 } else { (own - weekday).rem_euclid(7) };
            let jump = if nth > 0 { jump } else { -jump };
            at = checked(i128::from(at.0) + i128::from(jump * 86_400 * SECOND))?;
        }
        Ok(at)
    }

    fn in_seconds(&self) -> f64 {
        self.years as f64 * 31_536_000.0
            + self.months as f64 * 2_592_000.0
            + (self.micros - self.below_second) as f64 / 1e6
    }
}

/// So many of a unit, in microseconds.
fn count(value: &Json, unit: i64) -> Result<i128, String> {
    let limit = |n: f64| n.is_finite() && n.abs() <= 1e15;
    let count = value.as_f64().filter(|n| limit(*n)).ok_or("must be a number")?;
    Ok(match value.as_i64() {
        Some(whole) => i128::from(whole) * i128::from(unit),
        None => (count * unit as f64).round_ties_even() as i128,
    })
}

fn whole(value: &Json) -> Result<i64, String> {
    let float = || value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as i64);
    value.as_i64().or_else(float).filter(|n| n.abs() <= 1_000_000).ok_or_else(|| {
        format!("{} is not a whole number that a calendar needs", shown(&value.to_string()))
    })
}

fn absolute(value: &Json, low: i64, high: i64) -> Result<Option<i64>, String> {
    let value = whole(value)?;
    if !(low..=high).contains(&value) {
        return Err(format!("{value} is not within {low} to {high}"));
    }
    Ok(Some(value))
}
