//! Recurrence rules of RFC 5545 in a time zone.
//!
//! Rules are evaluated over civil times (as if in UTC) and placed in the zone by the same code as
//! cron patterns, so that both kinds of schedule treat clock changes alike.

use std::collections::BTreeSet;
use std::fmt;

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;
use kobza_model::Timestamp;
use rrule::{Frequency, RRuleSet, Tz};

use crate::cron::whole_second;
use crate::error::shown;
use crate::rrule_subdaily::SubDaily;
use crate::zone::{CivilTimes, Recurrence};
use crate::{ScheduleError, Zone};

/// Longest text accepted.
const MAX_CHARS: usize = 4_000;
/// A rule that ends by COUNT is kept as a list, so the count is bounded.
const MAX_COUNT: u32 = 10_000;
/// Days into which the past is searched at once; grows to what one answer of the evaluator holds.
const WINDOW_DAYS: std::ops::RangeInclusive<i64> = 64..=60_000;

/// One or more `RRULE`s with their `RDATE`s and `EXDATE`s.
#[derive(Clone)]
pub struct RRule {
    text: String,
    zone: Zone,
    start: DateTime,
    /// Rules without COUNT, daily and coarser.
    rules: Vec<rrule::RRule>,
    /// Rules without COUNT, hourly and minutely.
    subdaily: Vec<SubDaily>,
    /// RDATEs, and all times of the rules with COUNT.
    listed: BTreeSet<DateTime>,
    excluded: BTreeSet<DateTime>,
    recurrence: Recurrence,
}

impl fmt::Debug for RRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RRule({:?} {})", self.text, self.zone)
    }
}

impl RRule {
    /// Reads `FREQ=…`, or lines `DTSTART…`, `RRULE:…`, `RDATE…`, `EXDATE…`. The first occurrence
    /// counts from DTSTART, or else from `start`; one of them is needed.
    pub fn parse(
        text: &str,
        mut zone: Zone,
        start: Option<Timestamp>,
    ) -> Result<Self, ScheduleError> {
        let error = |message: String| ScheduleError::new("rrule", message);
        if text.len() > MAX_CHARS {
            return Err(error(format!("a rule has at most {MAX_CHARS} characters")));
        }
        let mut lines = Vec::new();
        let mut dtstart = None;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, tzid, value) = split_line(line)?;
            match name.as_str() {
                // The zone of DTSTART is the zone of the whole rule.
                "DTSTART" => {
                    zone = tzid.unwrap_or(zone);
                    dtstart = Some(civil(value, &zone)?);
                }
                "RRULE" | "RDATE" | "EXDATE" => lines.push((name, tzid, value)),
                _ => {
                    return Err(error(format!("{} is not known here", shown(&name)))
                        .hint("lines are DTSTART, RRULE, RDATE and EXDATE"));
                }
            }
        }
        let start = match (dtstart, start) {
            (Some(civil), _) => civil,
            (None, Some(at)) => whole_second(zone.civil(at))
                .ok_or_else(|| error("the start is out of range".to_owned()))?,
            (None, None) => {
                return Err(error("the rule has nothing to count from".to_owned())
                    .hint("add a line `DTSTART:20260101T020000`, or set `start`"));
            }
        };
        let mut this = Self {
            text: text.to_owned(),
            start,
            rules: Vec::new(),
            subdaily: Vec::new(),
            listed: BTreeSet::new(),
            excluded: BTreeSet::new(),
            recurrence: Recurrence::Fixed,
            zone,
        };
        for (name, tzid, value) in lines {
            match name.as_str() {
                "RRULE" => this.add_rule(value)?,
                "RDATE" => this.listed.extend(civil_list(value, tzid.as_ref(), &this.zone)?),
                _ => this.excluded.extend(civil_list(value, tzid.as_ref(), &this.zone)?),
            }
        }
        let before_start = start.checked_sub(SignedDuration::from_secs(1)).unwrap_or(start);
        if this.after(before_start).is_none() {
            return Err(error(format!("{} never happens", shown(text)))
                .hint("check UNTIL, COUNT, EXDATE and days that no month has"));
        }
        Ok(this)
    }

    fn add_rule(&mut self, value: &str) -> Result<(), ScheduleError> {
        let invalid = |why: &dyn fmt::Display| {
            ScheduleError::new("rrule", format!("{} is not a valid rule: {why}", shown(value)))
        };
        let value = with_civil_until(value, &self.zone)?;
        let rule: rrule::RRule<rrule::Unvalidated> =
            value.parse().map_err(|e: rrule::RRuleError| invalid(&e))?;
        if rule.get_interval() == 0 {
            return Err(invalid(&"INTERVAL must be at least 1"));
        }
        if rule.get_freq() == Frequency::Secondly {
            return Err(invalid(&"FREQ=SECONDLY is not supported")
                .hint("use `interval: 1s`, or a cron pattern of six fields"));
        }
        let count = rule.get_count();
        if count.is_some_and(|count| count > MAX_COUNT) {
            return Err(invalid(&format!("COUNT is at most {MAX_COUNT}")).hint("use UNTIL instead"));
        }
        let start = to_chrono(self.start).ok_or_else(|| invalid(&"DTSTART is out of range"))?;
        if matches!(rule.get_freq(), Frequency::Hourly | Frequency::Minutely) {
            self.recurrence = Recurrence::Periodic;
            let until = rule.get_until().and_then(from_chrono);
            let own = SubDaily::new(&rule, self.start, until).map_err(|e| invalid(&e))?;
            rule.validate(start).map_err(|e| invalid(&e))?;
            let Some(count) = count else {
                self.subdaily.push(own);
                return Ok(());
            };
            let before_start = self.start.checked_sub(SignedDuration::from_secs(1)).ok();
            let times = std::iter::successors(before_start.and_then(|t| own.after(t)), |time| {
                own.after(*time)
            });
            self.listed.extend(times.take(count as usize));
            return Ok(());
        }
        let rule = rule.validate(start).map_err(|e| invalid(&e))?;
        if let Some(count) = count {
            let set = RRuleSet::new(start).rrule(rule);
            let found = set.all(u16::try_from(count).unwrap_or(u16::MAX));
            self.listed.extend(found.dates.iter().filter_map(from_chrono));
        } else {
            self.rules.push(rule);
        }
        Ok(())
    }

    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The rule as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.zone.next_after(self, self.recurrence, at)
    }

    #[must_use]
    pub fn prev_before(&self, at: Timestamp) -> Option<Timestamp> {
        self.zone.prev_before(self, self.recurrence, at)
    }

    /// A start for evaluating `rule` that is at most `near` and gives the same times from there on.
    /// Days and weeks step by equal lengths, so whole steps can be left out; months and years
    /// have few steps anyway.
    fn start_near(&self, rule: &rrule::RRule, near: DateTime) -> DateTime {
        let days = match rule.get_freq() {
            Frequency::Daily => 1,
            Frequency::Weekly => 7,
            _ => return self.start,
        };
        let period = days * 86_400 * i64::from(rule.get_interval());
        let elapsed = self.start.duration_until(near).as_secs();
        let steps = (elapsed / period - 1).max(0);
        self.start.checked_add(SignedDuration::from_secs(steps * period)).unwrap_or(self.start)
    }

    fn rule_after(&self, rule: &rrule::RRule, from: DateTime) -> Option<DateTime> {
        let from = from.checked_add(SignedDuration::from_secs(1)).ok()?.max(self.start);
        let set = set_from(rule, self.start_near(rule, from))?;
        set.after(to_chrono(from)?).all(1).dates.first().and_then(from_chrono)
    }

    fn rule_before(&self, rule: &rrule::RRule, from: DateTime) -> Option<DateTime> {
        let mut until = from.checked_sub(SignedDuration::from_secs(1)).ok()?;
        let mut days = *WINDOW_DAYS.start();
        while until >= self.start {
            let window = SignedDuration::from_secs(days * 86_400);
            let begin = until.checked_sub(window).map_or(self.start, |b| b.max(self.start));
            let set = set_from(rule, self.start_near(rule, begin))?;
            let found = set.after(to_chrono(begin)?).before(to_chrono(until)?).all(u16::MAX);
            if let Some(date) = found.dates.last() {
                return from_chrono(date);
            }
            if begin == self.start {
                return None;
            }
            until = begin.checked_sub(SignedDuration::from_secs(1)).ok()?;
            days = (days * 8).min(*WINDOW_DAYS.end());
        }
        None
    }
}

impl CivilTimes for RRule {
    fn after(&self, from: DateTime) -> Option<DateTime> {
        let mut from = whole_second(from)?;
        loop {
            let listed = self.listed.range(from..).find(|time| **time > from).copied();
            let daily = self.rules.iter().filter_map(|rule| self.rule_after(rule, from));
            let finer = self.subdaily.iter().filter_map(|rule| rule.after(from));
            from = daily.chain(finer).chain(listed).min()?;
            if !self.excluded.contains(&from) {
                return Some(from);
            }
        }
    }

    fn before(&self, from: DateTime) -> Option<DateTime> {
        let mut from = if from.subsec_nanosecond() == 0 {
            from
        } else {
            whole_second(from)?.checked_add(SignedDuration::from_secs(1)).ok()?
        };
        loop {
            let listed = self.listed.range(..from).next_back().copied();
            let daily = self.rules.iter().filter_map(|rule| self.rule_before(rule, from));
            let finer = self.subdaily.iter().filter_map(|rule| rule.before(from));
            from = daily.chain(finer).chain(listed).max()?;
            if !self.excluded.contains(&from) {
                return Some(from);
            }
        }
    }
}

fn set_from(rule: &rrule::RRule, start: DateTime) -> Option<RRuleSet> {
    Some(RRuleSet::new(to_chrono(start)?).rrule(rule.clone()))
}

fn to_chrono(civil: DateTime) -> Option<chrono::DateTime<Tz>> {
    let seconds = Offset::UTC.to_timestamp(civil).ok()?.as_second();
    Some(chrono::DateTime::from_timestamp(seconds, 0)?.with_timezone(&Tz::UTC))
}

fn from_chrono(time: &chrono::DateTime<Tz>) -> Option<DateTime> {
    Some(Offset::UTC.to_datetime(jiff::Timestamp::from_second(time.timestamp()).ok()?))
}

/// `NAME;TZID=zone:value`; a bare value is an RRULE.
fn split_line(line: &str) -> Result<(String, Option<Zone>, &str), ScheduleError> {
    let Some((head, value)) = line.split_once(':') else {
        return Ok(("RRULE".to_owned(), None, line));
    };
    let mut parts = head.split(';');
    let name = parts.next().unwrap_or_default().to_ascii_uppercase();
    let mut zone = None;
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key.to_ascii_uppercase().as_str() {
            "TZID" => zone = Some(Zone::parse(value)?),
            "VALUE" => {}
            _ => {
                let message = format!("the parameter {} is not known", shown(key));
                return Err(ScheduleError::new("rrule", message));
            }
        }
    }
    Ok((name, zone, value))
}

/// Reads `20260131T020000` (civil), `20260131T020000Z` (an instant) or `20260131` (midnight).
fn civil(value: &str, zone: &Zone) -> Result<DateTime, ScheduleError> {
    let bad = || {
        ScheduleError::new("rrule", format!("{} is not a date or time", shown(value)))
            .hint("write 20260131T020000, 20260131T020000Z or 20260131")
    };
    let (text, utc) = match value.strip_suffix(['Z', 'z']) {
        Some(text) => (text, true),
        None => (value, false),
    };
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range).filter(|part| part.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<i16>().ok()).ok_or_else(bad)
    };
    let small = |range| number(range).and_then(|n| i8::try_from(n).map_err(|_| bad()));
    let date = Date::new(number(0..4)?, small(4..6)?, small(6..8)?).map_err(|_| bad())?;
    let time = match (text.len(), text.as_bytes().get(8)) {
        (8, None) if !utc => Time::midnight(),
        (15, Some(b'T' | b't')) => {
            Time::new(small(9..11)?, small(11..13)?, small(13..15)?, 0).map_err(|_| bad())?
        }
        _ => return Err(bad()),
    };
    let civil = DateTime::from_parts(date, time);
    if !utc {
        return Ok(civil);
    }
    let instant = Offset::UTC.to_timestamp(civil).map_err(|_| bad())?;
    Ok(zone.civil(Timestamp::from_jiff(instant)))
}

fn civil_list(
    value: &str,
    tzid: Option<&Zone>,
    zone: &Zone,
) -> Result<Vec<DateTime>, ScheduleError> {
    let read = |text: &str| {
        let Some(own) = tzid else { return civil(text, zone) };
        let there = civil(text, own)?;
        let instant = own.instant(there);
        instant
            .map(|at| zone.civil(at))
            .ok_or_else(|| ScheduleError::new("rrule", format!("{} is out of range", shown(text))))
    };
    value.split(',').map(read).collect()
}

/// Rules are evaluated as if civil time were UTC, so an UNTIL given in UTC must become civil.
fn with_civil_until(value: &str, zone: &Zone) -> Result<String, ScheduleError> {
    let mut parts = Vec::new();
    for part in value.split(';').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| {
            ScheduleError::new("rrule", format!("{} is not KEY=VALUE", shown(part)))
                .hint("write for example FREQ=WEEKLY;BYDAY=MO,WE")
        })?;
        let key = key.trim().to_ascii_uppercase();
        if key != "UNTIL" {
            parts.push(format!("{key}={}", value.trim().to_ascii_uppercase()));
            continue;
        }
        let until = civil(value, zone)?;
        // A date alone means through the end of that day.
        let until = if value.len() == 8 { until.date().at(23, 59, 59, 0) } else { until };
        parts.push(format!("UNTIL={}", until.strftime("%Y%m%dT%H%M%SZ")));
    }
    Ok(parts.join(";"))
}
