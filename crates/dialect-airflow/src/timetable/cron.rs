//! Cron patterns as croniter, and so Airflow, understands them.
//!
//! Five fields (minute, hour, day of month, month, day of week), a sixth for the second and a
//! seventh for the year *after* them. When both days are restricted, either suffices. Times are
//! civil: which instants they are is the business of [`super::calendar`].

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Weekday};

use super::error::{TimetableError, shown};
use super::field::{self, Field, Nth, Specials};

pub(super) const MINUTE: usize = 0;
pub(super) const HOUR: usize = 1;
pub(super) const DAY: usize = 2;
pub(super) const MONTH: usize = 3;
pub(super) const DOW: usize = 4;
pub(super) const SECOND: usize = 5;
pub(super) const YEAR: usize = 6;
const NAMES: [&str; 7] =
    ["minute", "hour", "day of month", "month", "day of week", "second", "year"];

/// Longest pattern accepted: a list of all minutes has 169 characters.
const MAX_CHARS: usize = 1000;
/// How far a match may be away.
const MAX_YEARS: i32 = 50;

const PRESETS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// A cron pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cron {
    text: String,
    fields: Vec<Field>,
    specials: Specials,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Next,
    Prev,
}

/// How the two day fields are taken together in one search.
#[derive(Clone, Copy)]
struct Days {
    of_month: bool,
    of_week: bool,
}

impl Cron {
    /// Reads a pattern or a preset. Errors name the field.
    pub fn parse(text: &str) -> Result<Self, TimetableError> {
        let invalid = |message: String| TimetableError::invalid("expression", message);
        if text.len() > MAX_CHARS {
            return Err(invalid(format!("a pattern has at most {MAX_CHARS} characters")));
        }
        let lower = text.to_lowercase();
        let expanded = match text {
            // Airflow's own, the others are croniter's too and may be written in capitals.
            "@quarterly" => "0 0 1 */3 *",
            _ => PRESETS.iter().find(|(name, _)| *name == lower).map_or(&*lower, |p| p.1),
        };
        let is_space = |c: char| c.is_ascii_whitespace() || c == '\x0b';
        let texts: Vec<&str> = expanded.split(is_space).filter(|t| !t.is_empty()).collect();
        if !(5..=7).contains(&texts.len()) {
            return Err(invalid(format!(
                "{} has {} fields: a pattern has minute, hour, day of month, month, day of week, \
                 and may have second and year after them",
                shown(text),
                texts.len()
            )));
        }
        let mut specials = Specials::default();
        let mut fields = Vec::with_capacity(texts.len());
        for (index, name) in NAMES.iter().enumerate().take(texts.len()) {
            let field = field::read(index, &texts, &mut specials)
                .map_err(|e| invalid(format!("{}, {name}: {e}", shown(text))))?;
            fields.push(field);
        }
        let all = fields[DOW].values.len() == 7;
        let mixed = fields[DOW].values.iter().any(|day| !specials.nth.contains_key(day));
        if !specials.nth.is_empty() && mixed && !all {
            return Err(invalid(format!(
                "{}, day of week: plain days and the nth day of a month do not mix",
                shown(text)
            )));
        }
        Ok(Self { text: text.to_owned(), fields, specials })
    }

    /// The pattern as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The hour field is `*`.
    pub(super) fn covers_every_hour(&self) -> bool {
        self.fields[HOUR].is_star()
    }

    /// The first time after `from`.
    pub fn next(&self, from: DateTime) -> Result<DateTime, TimetableError> {
        self.search(from, Direction::Next)
    }

    /// The last time before `from`.
    pub fn prev(&self, from: DateTime) -> Result<DateTime, TimetableError> {
        self.search(from, Direction::Prev)
    }

    fn search(&self, from: DateTime, direction: Direction) -> Result<DateTime, TimetableError> {
        let start = self.start(from, direction)?;
        let none = || {
            let which = if direction == Direction::Next { "next" } else { "previous" };
            TimetableError::failed(format!(
                "{} has no {which} time within {MAX_YEARS} years of {from}",
                shown(&self.text)
            ))
        };
        let both = !self.fields[DAY].any && !self.fields[DOW].any;
        if !both {
            let days = Days { of_month: true, of_week: true };
            return self.find(start, direction, days).ok_or_else(none);
        }
        let by_month = self.find(start, direction, Days { of_month: true, of_week: false });
        let by_week = self.find(start, direction, Days { of_month: false, of_week: true });
        // `#`, `L5` and `W` belong to both searches: one of them without a match is an error then.
        let split = self.specials.nth.is_empty() && self.specials.nearest_weekday.is_none();
        match (by_month, by_week) {
            (Some(a), Some(b)) => {
                Ok(if direction == Direction::Next { a.min(b) } else { a.max(b) })
            }
            (Some(one), None) | (None, Some(one)) if split => Ok(one),
            _ => Err(none()),
        }
    }

    /// The first candidate of a search.
    fn start(&self, from: DateTime, direction: Direction) -> Result<DateTime, TimetableError> {
        let seconds = self.fields.len() > SECOND;
        let moved = match (direction, seconds) {
            (Direction::Next, true) => from.checked_add(1.second()),
            (Direction::Next, false) => from.checked_add(1.minute()),
            (Direction::Prev, _) => from.checked_sub(1.microsecond()),
        };
        moved
            .and_then(|at| at.with().subsec_nanosecond(0).build())
            .and_then(|at| if seconds { Ok(at) } else { at.with().second(0).build() })
            .map_err(|_| TimetableError::failed(format!("{from} is at the end of time")))
    }

    /// The nearest match from `start` on, itself included.
    fn find(&self, start: DateTime, direction: Direction, days: Days) -> Option<DateTime> {
        let mut date = start.date();
        let mut whole_day = false;
        loop {
            if (i32::from(date.year()) - i32::from(start.year())).abs() > MAX_YEARS {
                return None;
            }
            if !self.is_month(date) {
                date = match direction {
                    Direction::Next => date.last_of_month().tomorrow().ok()?,
                    Direction::Prev => date.first_of_month().yesterday().ok()?,
                };
                whole_day = true;
                continue;
            }
            if self.is_day(date, days) {
                let bound = (!whole_day).then(|| {
                    let time = start.time();
                    [time.hour() as u32, time.minute() as u32, time.second() as u32]
                });
                if let Some([hour, minute, second]) = self.time(bound, direction) {
                    return Some(date.at(hour as i8, minute as i8, second as i8, 0));
                }
            }
            date = match direction {
                Direction::Next => date.tomorrow().ok()?,
                Direction::Prev => date.yesterday().ok()?,
            };
            whole_day = true;
        }
    }

    /// The nearest time of day at or beyond `bound`; of the whole day without one.
    fn time(&self, bound: Option<[u32; 3]>, direction: Direction) -> Option<[u32; 3]> {
        let lists = [
            self.values(HOUR, 23, direction),
            self.values(MINUTE, 59, direction),
            self.values(SECOND, 59, direction),
        ];
        let first = [*lists[0].first()?, *lists[1].first()?, *lists[2].first()?];
        let Some(bound) = bound else { return Some(first) };
        let beyond = |a: u32, b: u32| match direction {
            Direction::Next => a > b,
            Direction::Prev => a < b,
        };
        if lists.iter().zip(bound).all(|(list, value)| list.contains(&value)) {
            return Some(bound);
        }
        // The longest common beginning with the bound, then the next larger value, then the first.
        for place in (0..3).rev() {
            if !lists[..place].iter().zip(bound).all(|(list, value)| list.contains(&value)) {
                continue;
            }
            if let Some(value) = lists[place].iter().find(|v| beyond(**v, bound[place])) {
                let mut found = first;
                found[..place].copy_from_slice(&bound[..place]);
                found[place] = *value;
                return Some(found);
            }
        }
        None
    }

    /// A field's values in the order of the search. Patterns without seconds have second 0.
    fn values(&self, index: usize, max: u32, direction: Direction) -> Vec<u32> {
        let mut values: Vec<u32> = match self.fields.get(index) {
            None => vec![0],
            Some(field) => (0..=max).filter(|v| field.has(*v)).collect(),
        };
        if direction == Direction::Prev {
            values.reverse();
        }
        values
    }

    fn is_month(&self, date: Date) -> bool {
        let year =
            self.fields.get(YEAR).is_none_or(|f| f.has(u32::from(date.year().unsigned_abs())));
        year && self.fields[MONTH].has(date.month() as u32)
    }

    fn is_day(&self, date: Date, days: Days) -> bool {
        let of_month = &self.fields[DAY];
        let month_fits = match self.specials.nearest_weekday {
            Some(day) => nearest_weekday(date, day) == Some(date.day() as u32),
            None => {
                !days.of_month
                    || of_month.has(date.day() as u32)
                    || (of_month.last && date.day() == date.days_in_month())
            }
        };
        let weekday = u32::from(date.weekday().to_sunday_zero_offset().unsigned_abs());
        let week_fits = if self.specials.nth.is_empty() {
            !days.of_week || self.fields[DOW].has(weekday)
        } else {
            self.specials.nth.get(&weekday).is_some_and(|nths| {
                nths.iter().any(|nth| match nth {
                    Nth::Number(n) => (date.day() as u32 - 1) / 7 + 1 == *n,
                    Nth::Last => date.day() + 7 > date.days_in_month(),
                })
            })
        };
        month_fits && week_fits
    }
}

/// The working day nearest to a day of the month of `date`, within that month.
fn nearest_weekday(date: Date, day: u32) -> Option<u32> {
    let last = date.days_in_month() as u32;
    let day = day.min(last);
    let wanted = Date::new(date.year(), date.month(), day as i8).ok()?;
    Some(match wanted.weekday() {
        Weekday::Saturday if day > 1 => day - 1,
        Weekday::Saturday => day + 2,
        Weekday::Sunday if day < last => day + 1,
        Weekday::Sunday => day - 2,
        _ => day,
    })
}
