//! Between instants and the wall clock of a zone, as Airflow's pendulum does it; and cron patterns
//! on that clock.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use kobza_model::{Json, Timestamp};

use super::cron::Cron;
use super::error::{TimetableError, shown};

/// The first and the last microsecond that Python's `datetime` can hold.
const FIRST: i64 = -62_135_596_800_000_000;
const LAST: i64 = 253_402_300_799_999_999;

/// An instant within Python's range.
pub(super) fn checked(micros: i128) -> Result<Timestamp, TimetableError> {
    i64::try_from(micros)
        .ok()
        .filter(|at| (FIRST..=LAST).contains(at))
        .map(Timestamp)
        .ok_or_else(|| TimetableError::failed("the time is not within the years 1 to 9999"))
}

/// A time zone: an IANA name, or a fixed offset.
#[derive(Clone, Debug)]
pub struct Zone {
    name: String,
    tz: TimeZone,
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Zone {
    #[must_use]
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), tz: TimeZone::UTC }
    }

    /// As serialised: a name, or seconds east of UTC.
    pub fn parse(value: &Json) -> Result<Self, TimetableError> {
        let invalid = |message: String| TimetableError::invalid("timezone", message);
        match value {
            Json::String(name) if name.eq_ignore_ascii_case("utc") => Ok(Self::utc()),
            Json::String(name) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
                let known = (!name.is_empty() && name.len() <= 64 && name.chars().all(plain))
                    .then(|| TimeZone::get(name).ok())
                    .flatten()
                    .filter(|tz| !tz.is_unknown());
                let tz = known
                    .ok_or_else(|| invalid(format!("{} is not an IANA time zone", shown(name))))?;
                Ok(Self { name: name.clone(), tz })
            }
            Json::Number(seconds) => {
                let offset = seconds
                    .as_i64()
                    .and_then(|s| i32::try_from(s).ok())
                    .filter(|s| s.abs() < 86_400)
                    .and_then(|s| Offset::from_seconds(s).ok())
                    .ok_or_else(|| invalid(format!("{seconds} is not an offset in seconds")))?;
                // As pendulum names it: whole minutes, cut towards zero.
                let minutes = offset.seconds() / 60;
                let sign = if offset.seconds() < 0 { '-' } else { '+' };
                let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
                let name = format!("{sign}{hours:02}:{minutes:02}");
                Ok(Self { name, tz: TimeZone::fixed(offset) })
            }
            _ => Err(invalid("must be a name or an offset in seconds".to_owned())),
        }
    }

    /// `Europe/Paris`, `UTC`, or `+05:30`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The wall clock at an instant.
    pub(super) fn civil(&self, at: Timestamp) -> DateTime {
        self.tz.to_datetime(at.to_jiff())
    }

    pub(super) fn zoned(&self, at: Timestamp) -> jiff::Zoned {
        at.to_jiff().to_zoned(self.tz.clone())
    }

    /// Whether the zone is an offset without a name of its own.
    pub(super) fn is_fixed(&self) -> bool {
        self.tz.iana_name().is_none()
    }

    /// The instant of a wall clock's time: one that exists twice is the second, one that does not
    /// exist is read with the offset before the gap, and so lies as far behind it.
    pub(super) fn instant(&self, civil: DateTime) -> Result<Timestamp, TimetableError> {
        let offset = match self.tz.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset,
            AmbiguousOffset::Gap { before, .. } => before,
            AmbiguousOffset::Fold { after, .. } => after,
        };
        let at = offset
            .to_timestamp(civil)
            .map_err(|_| TimetableError::failed("the time is not within the years 1 to 9999"))?;
        checked(i128::from(at.as_microsecond()))
    }
}

/// A cron pattern in a zone.
#[derive(Clone, PartialEq, Debug)]
pub struct CronInZone {
    pub cron: Cron,
    pub zone: Zone,
}

impl CronInZone {
    /// The first time after `at`.
    pub(super) fn next(&self, at: Timestamp) -> Result<Timestamp, TimetableError> {
        let clock = self.zone.civil(at);
        self.place(at, clock, self.cron.next(clock)?)
    }

    /// The last time before `at`.
    pub(super) fn prev(&self, at: Timestamp) -> Result<Timestamp, TimetableError> {
        let clock = self.zone.civil(at);
        self.place(at, clock, self.cron.prev(clock)?)
    }

    /// A pattern of every hour follows real time through the hour that exists twice: what the wall
    /// clock says between the two times is what passes. Others mean the wall clock.
    fn place(
        &self,
        at: Timestamp,
        clock: DateTime,
        found: DateTime,
    ) -> Result<Timestamp, TimetableError> {
        if !self.cron.covers_every_hour() {
            return self.zone.instant(found);
        }
        let between = found.duration_since(clock).as_micros();
        checked(i128::from(at.0) + between)
    }

    /// `at` if the pattern meets it, else the first time after it.
    pub(super) fn align_to_next(&self, at: Timestamp) -> Result<Timestamp, TimetableError> {
        let next = self.next(at)?;
        Ok(if self.prev(next)? == at { at } else { next })
    }

    /// `at` if the pattern meets it, else the last time before it.
    pub(super) fn align_to_prev(&self, at: Timestamp) -> Result<Timestamp, TimetableError> {
        let prev = self.prev(at)?;
        Ok(if self.next(prev)? == at { at } else { prev })
    }
}
