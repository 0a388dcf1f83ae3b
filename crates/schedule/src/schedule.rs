//! Any kind of schedule, read from JSON.

use kobza_model::{Json, Timestamp};

use crate::{At, Cron, Interval, RRule, ScheduleError, Zone, format_duration, parse_duration};

/// Most patterns of one schedule: each is searched for each slot.
const MAX_PATTERNS: usize = 100;

/// When something is due. Slots are instants; each is one occasion to run.
#[derive(Clone, Debug)]
pub enum Schedule {
    Cron(Cron),
    /// Several patterns in one zone: a slot of any is a slot, one of several is one.
    Crons(Vec<Cron>),
    Interval(Interval),
    At(At),
    RRule(RRule),
}

/// The period of data that belongs to a slot: `[start, end)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DataInterval {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Schedule {
    /// The fields of a JSON object that [`Schedule::parse`] reads.
    pub const FIELDS: [&str; 7] =
        ["cron", "interval", "every", "anchor", "at", "rrule", "timezone"];

    /// Reads a cron pattern (a text), or an object with exactly one of `cron` (a pattern, or a list
    /// of them), `interval` (or
    /// `every`; with `anchor`), `at` (one time or a list) and `rrule`, and `timezone` (UTC when
    /// absent). An RRULE without DTSTART counts from `start`. Other fields are left to the caller.
    pub fn parse(value: &Json) -> Result<Self, ScheduleError> {
        if let Some(text) = value.as_str() {
            return Cron::parse(text, Zone::utc()).map(Self::Cron);
        }
        let Some(object) = value.as_object() else {
            return Err(ScheduleError::new("schedule", "must be a text or an object")
                .hint("write for example {cron: \"0 2 * * *\", timezone: Europe/Kyiv}"));
        };
        let zone = match object.get("timezone") {
            None | Some(Json::Null) => Zone::utc(),
            Some(Json::String(name)) => Zone::parse(name)?,
            Some(_) => return Err(ScheduleError::new("timezone", "must be a text")),
        };
        let kinds: Vec<(&str, &Json)> = ["cron", "interval", "every", "at", "rrule"]
            .into_iter()
            .filter_map(|kind| Some((kind, object.get(kind)?)))
            .filter(|(_, value)| !value.is_null())
            .collect();
        let (kind, value) = match kinds[..] {
            [one] => one,
            [] => {
                return Err(ScheduleError::new("schedule", "does not say when")
                    .hint("give one of cron, interval, at and rrule"));
            }
            [(first, _), (second, _), ..] => {
                let message = format!("has both {first} and {second}");
                return Err(ScheduleError::new("schedule", message)
                    .hint("write two triggers: a workflow may have several"));
            }
        };
        if kind != "interval"
            && kind != "every"
            && object.get("anchor").is_some_and(|a| !a.is_null())
        {
            return Err(ScheduleError::new("anchor", format!("means nothing for {kind}")));
        }
        match kind {
            "cron" => match value.as_array() {
                None => Cron::parse(text(kind, value)?, zone).map(Self::Cron),
                Some(all) if all.is_empty() || all.len() > MAX_PATTERNS => {
                    let message = format!("a list has between 1 and {MAX_PATTERNS} patterns");
                    Err(ScheduleError::new("cron", message))
                }
                Some(all) => {
                    let read = |(at, value)| {
                        Cron::parse(text(kind, value)?, zone.clone())
                            .map_err(|e: ScheduleError| e.inside(&format!("[{at}]")))
                    };
                    let all: Result<Vec<_>, _> = all.iter().enumerate().map(read).collect();
                    all.map(Self::Crons)
                }
            },
            "at" => {
                let one = std::slice::from_ref(value);
                let list = value.as_array().map_or(one, Vec::as_slice);
                let times = list.iter().map(|time| {
                    At::parse_time(text(kind, time)?, &zone).map_err(|e| e.inside(kind))
                });
                At::new(times.collect::<Result<_, _>>()?).map(Self::At)
            }
            "rrule" => {
                let start = optional_time(object.get("start"), "start", &zone)?;
                RRule::parse(text(kind, value)?, zone, start).map(Self::RRule)
            }
            _ => {
                let every = match value {
                    Json::Number(seconds) => parse_duration(&seconds.to_string()),
                    _ => parse_duration(text(kind, value)?),
                };
                let anchor = optional_time(object.get("anchor"), "anchor", &zone)?;
                let anchor = anchor.unwrap_or(Interval::DEFAULT_ANCHOR);
                Interval::new(every.map_err(|e| e.inside(kind))?, anchor).map(Self::Interval)
            }
        }
    }

    /// The first slot strictly after `at`; `None` when there is none.
    #[must_use]
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => cron.next_after(at),
            Self::Crons(all) => all.iter().filter_map(|cron| cron.next_after(at)).min(),
            Self::Interval(interval) => interval.next_after(at),
            Self::At(times) => times.next_after(at),
            Self::RRule(rule) => rule.next_after(at),
        }
    }

    /// The last slot strictly before `at`; `None` when there is none.
    #[must_use]
    pub fn prev_before(&self, at: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => cron.prev_before(at),
            Self::Crons(all) => all.iter().filter_map(|cron| cron.prev_before(at)).max(),
            Self::Interval(interval) => interval.prev_before(at),
            Self::At(times) => times.prev_before(at),
            Self::RRule(rule) => rule.prev_before(at),
        }
    }

    /// The slots in `[from, to)`, ascending; reversible. Lazy: a wide range costs nothing until it
    /// is walked.
    #[must_use]
    pub fn slots_between(&self, from: Timestamp, to: Timestamp) -> Slots<'_> {
        Slots { schedule: self, from, to }
    }

    /// Whether `at` is a slot.
    #[must_use]
    pub fn is_slot(&self, at: Timestamp) -> bool {
        self.next_after(Timestamp(at.0.saturating_sub(1))) == Some(at)
    }

    /// The data of a slot: from the slot before it to itself; empty for the first slot of all.
    #[must_use]
    pub fn interval_of(&self, slot: Timestamp) -> DataInterval {
        DataInterval { start: self.prev_before(slot).unwrap_or(slot), end: slot }
    }

    /// The zone in which its civil times are meant, where it has any.
    #[must_use]
    pub fn zone(&self) -> Option<&Zone> {
        match self {
            Self::Cron(cron) => Some(cron.zone()),
            Self::Crons(all) => all.first().map(Cron::zone),
            Self::RRule(rule) => Some(rule.zone()),
            Self::Interval(_) | Self::At(_) => None,
        }
    }

    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Cron(cron) => cron.describe(),
            Self::Crons(all) => {
                let texts: Vec<String> = all.iter().map(Cron::describe).collect();
                texts.join("; ")
            }
            Self::Interval(interval) => format!("every {}", format_duration(interval.every())),
            Self::At(_) => "at given times".to_owned(),
            Self::RRule(rule) => format!("{} ({})", rule.text().replace('\n', " "), rule.zone()),
        }
    }
}

/// The slots of a schedule in a range, from both ends.
#[derive(Clone, Debug)]
pub struct Slots<'a> {
    schedule: &'a Schedule,
    from: Timestamp,
    to: Timestamp,
}

impl Iterator for Slots<'_> {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        if self.from >= self.to {
            return None;
        }
        let before = self.from.0.checked_sub(1).map(Timestamp)?;
        match self.schedule.next_after(before).filter(|slot| *slot < self.to) {
            Some(slot) => {
                self.from = Timestamp(slot.0 + 1);
                Some(slot)
            }
            None => {
                self.from = self.to;
                None
            }
        }
    }
}

impl DoubleEndedIterator for Slots<'_> {
    fn next_back(&mut self) -> Option<Timestamp> {
        if self.from >= self.to {
            return None;
        }
        match self.schedule.prev_before(self.to).filter(|slot| *slot >= self.from) {
            Some(slot) => {
                self.to = slot;
                Some(slot)
            }
            None => {
                self.to = self.from;
                None
            }
        }
    }
}

fn text<'a>(field: &str, value: &'a Json) -> Result<&'a str, ScheduleError> {
    value.as_str().ok_or_else(|| ScheduleError::new(field, "must be a text"))
}

fn optional_time(
    value: Option<&Json>,
    field: &str,
    zone: &Zone,
) -> Result<Option<Timestamp>, ScheduleError> {
    match value {
        None | Some(Json::Null) => Ok(None),
        Some(value) => {
            At::parse_time(text(field, value)?, zone).map(Some).map_err(|e| e.inside(field))
        }
    }
}
