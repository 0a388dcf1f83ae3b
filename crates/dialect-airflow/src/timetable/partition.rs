//! A cron pattern whose ticks stand for partitions.

use kobza_model::Timestamp;

use super::error::{TimetableError, shown};
use super::trigger::{Ticks, TriggerTimetable};
use super::{Asked, RunInfo};

/// Runs at ticks, each for a partition some ticks away.
#[derive(Clone, PartialEq, Debug)]
pub struct CronPartition {
    pub trigger: TriggerTimetable,
    /// How many ticks after the run's own the partition lies; negative: before.
    pub run_offset: i64,
    /// Python's `strftime` format of the partition's key, in the timetable's zone.
    pub key_format: String,
}

impl CronPartition {
    pub(super) fn next(
        &self,
        last: Option<&RunInfo>,
        asked: &Asked,
    ) -> Result<Option<RunInfo>, TimetableError> {
        let Some(start) = self.trigger.next_start(last.map(|last| last.run_after), asked)? else {
            return Ok(None);
        };
        let Ticks::Cron(cron) = &self.trigger.ticks else {
            return Err(TimetableError::failed("partitions follow a cron pattern"));
        };
        let mut partition = start;
        for _ in 0..self.run_offset.unsigned_abs() {
            partition =
                if self.run_offset > 0 { cron.next(partition)? } else { cron.prev(partition)? };
        }
        Ok(Some(self.run(start, partition)?))
    }

    /// The runs of a backfill: one for each partition from the wall clock's `earliest` through
    /// `latest`, as read in UTC and meant in the timetable's zone.
    pub fn between(
        &self,
        earliest: Timestamp,
        latest: Timestamp,
    ) -> Result<Partitions<'_>, TimetableError> {
        let Ticks::Cron(cron) = &self.trigger.ticks else {
            return Err(TimetableError::failed("partitions follow a cron pattern"));
        };
        let utc = super::calendar::Zone::utc();
        let earliest = cron.zone.instant(utc.civil(earliest))?;
        let latest = cron.zone.instant(utc.civil(latest))?;
        Ok(Partitions { timetable: self, next: Some(cron.align_to_next(earliest)), latest })
    }

    fn run(&self, run_after: Timestamp, partition: Timestamp) -> Result<RunInfo, TimetableError> {
        Ok(RunInfo {
            run_after,
            data_interval: None,
            partition_date: Some(partition),
            partition_key: Some(self.key(partition)?),
        })
    }

    /// The key of the partition of an instant.
    pub fn key(&self, at: Timestamp) -> Result<String, TimetableError> {
        let Ticks::Cron(cron) = &self.trigger.ticks else {
            return Err(TimetableError::failed("partitions follow a cron pattern"));
        };
        let zoned = cron.zone.zoned(at);
        let mut key = String::new();
        let mut rest = self.key_format.chars().peekable();
        while let Some(c) = rest.next() {
            if c != '%' {
                key.push(c);
                continue;
            }
            match rest.next() {
                Some('f') => key.push_str(&format!("{:06}", zoned.subsec_nanosecond() / 1000)),
                Some('Z') if cron.zone.is_fixed() => key.push_str(cron.zone.name()),
                Some('%') => key.push('%'),
                Some(directive) if "aAbBcCdDeFgGhHIjklmMnprRStTuUVwWxXyYzZ".contains(directive) => {
                    let format = written_out(directive);
                    key.push_str(&jiff::fmt::strtime::format(format, &zoned).map_err(|e| {
                        TimetableError::failed(format!("{}: {e}", shown(&self.key_format)))
                    })?);
                }
                other => {
                    let other = other.map(String::from).unwrap_or_default();
                    return Err(TimetableError::failed(format!(
                        "{}: %{other} is not a directive that this version knows",
                        shown(&self.key_format)
                    )));
                }
            }
        }
        Ok(key)
    }

    /// The instant that a key stands for.
    pub fn date(&self, key: &str) -> Result<Timestamp, TimetableError> {
        let Ticks::Cron(cron) = &self.trigger.ticks else {
            return Err(TimetableError::failed("partitions follow a cron pattern"));
        };
        let error = || {
            TimetableError::failed(format!(
                "the partition key {} is not of the form {}",
                shown(key),
                shown(&self.key_format)
            ))
        };
        let mut format = String::new();
        let mut rest = self.key_format.chars();
        while let Some(c) = rest.next() {
            match (c, rest.as_str().chars().next()) {
                // A key with its own offset is not one of the timetable's zone, and some
                // directives cannot be read back.
                ('%', Some(directive)) if "aAbBcdfGHIjmMpSuUVwWxXyY%".contains(directive) => {
                    format.push_str(&written_out(directive));
                    rest.next();
                }
                ('%', _) => return Err(error()),
                (c, _) => format.push(c),
            }
        }
        let parsed = jiff::fmt::strtime::parse(&format, key).map_err(|_| error())?;
        let civil =
            parsed.to_datetime().or_else(|_| parsed.to_date().map(|date| date.at(0, 0, 0, 0)));
        cron.zone.instant(civil.map_err(|_| error())?)
    }
}

/// A directive whose meaning depends on the locale, as the C locale has it.
fn written_out(directive: char) -> String {
    match directive {
        'c' => "%a %b %e %H:%M:%S %Y".to_owned(),
        'x' => "%m/%d/%y".to_owned(),
        'X' => "%H:%M:%S".to_owned(),
        'r' => "%I:%M:%S %p".to_owned(),
        other => format!("%{other}"),
    }
}

/// See [`CronPartition::between`].
#[derive(Debug)]
pub struct Partitions<'a> {
    timetable: &'a CronPartition,
    next: Option<Result<Timestamp, TimetableError>>,
    latest: Timestamp,
}

impl Iterator for Partitions<'_> {
    type Item = Result<RunInfo, TimetableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = match self.next.take()? {
            Ok(at) if at <= self.latest => at,
            Ok(_) => return None,
            Err(error) => return Some(Err(error)),
        };
        let Ticks::Cron(cron) = &self.timetable.trigger.ticks else { return None };
        self.next = Some(cron.next(at));
        Some(self.timetable.run(at, at))
    }
}
