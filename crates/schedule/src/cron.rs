//! Cron patterns in a time zone.

use std::fmt;

use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use kobza_model::Timestamp;

use crate::error::shown;
use crate::zone::{CivilTimes, Recurrence};
use crate::{ScheduleError, Zone};

/// Longest pattern accepted: a list of all minutes has 169 characters.
const MAX_CHARS: usize = 400;

const PRESETS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron pattern of five fields (minute, hour, day of month, month, day of week), six (with
/// seconds before) or seven (with the year after), or a preset such as `@daily`; with names
/// (`MON`, `JAN`), `L`, `W`, `#`, ranges and steps. When both days are given, either suffices,
/// unless the day of week begins with `+`.
#[derive(Clone)]
pub struct Cron {
    text: String,
    pattern: Box<croner::Cron>,
    zone: Zone,
    recurrence: Recurrence,
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?} {})", self.text, self.zone)
    }
}

impl Cron {
    /// Reads a pattern. One that no calendar day fulfils (30 February) is an error here, not
    /// silence later. Errors name the field: `cron.hour`.
    pub fn parse(text: &str, zone: Zone) -> Result<Self, ScheduleError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ScheduleError::new("cron", "the pattern is empty")
                .hint("write for example `0 2 * * *` for 02:00 each day"));
        }
        if text.len() > MAX_CHARS {
            let message = format!("a pattern has at most {MAX_CHARS} characters");
            return Err(ScheduleError::new("cron", message));
        }
        let expanded = if text.starts_with('@') { preset(text)? } else { text };
        let fields: Vec<&str> = expanded.split_whitespace().collect();
        let names = field_names(&fields, text)?;
        for (at, name) in names.iter().enumerate() {
            check_field(&fields, at, name)?;
        }
        let pattern = parser().parse(expanded).map_err(|e| {
            ScheduleError::new("cron", format!("{} is not a cron pattern: {e}", shown(text)))
        })?;
        // Five fields have no seconds: minute and hour then are the first two, else the first three.
        let clock_fields = if fields.len() == 5 { 2 } else { 3 };
        let periodic = fields[..clock_fields].iter().any(|field| field.contains('*'));
        let recurrence = if periodic { Recurrence::Periodic } else { Recurrence::Fixed };
        let cron = Self { text: text.to_owned(), pattern: Box::new(pattern), zone, recurrence };
        let long_ago = DateTime::constant(1969, 12, 31, 23, 59, 59, 0);
        if cron.after(long_ago).is_none() {
            let message = format!("{} never happens: no day fulfils it", shown(text));
            return Err(ScheduleError::new("cron", message)
                .hint("use L for the last day of a month, such as `0 0 L 2 *`"));
        }
        Ok(cron)
    }

    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The pattern as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first slot strictly after `at`.
    #[must_use]
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        self.zone.next_after(self, self.recurrence, at)
    }

    /// The last slot strictly before `at`.
    #[must_use]
    pub fn prev_before(&self, at: Timestamp) -> Option<Timestamp> {
        self.zone.prev_before(self, self.recurrence, at)
    }

    /// An English sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} ({})", self.pattern.describe().trim_end_matches('.'), self.zone)
    }
}

impl CivilTimes for Cron {
    fn after(&self, from: DateTime) -> Option<DateTime> {
        self.pattern.find_next_occurrence(&whole_second(from)?, false).ok()
    }

    fn before(&self, from: DateTime) -> Option<DateTime> {
        let second = whole_second(from)?;
        self.pattern.find_previous_occurrence(&second, second < from).ok()
    }
}

/// `from` without its fraction; `None` for years in which nothing is searched.
pub(crate) fn whole_second(from: DateTime) -> Option<DateTime> {
    if !(1..5000).contains(&from.year()) {
        return None;
    }
    from.with().subsec_nanosecond(0).build().ok()
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Optional).year(Year::Optional).build()
}

fn preset(text: &str) -> Result<&'static str, ScheduleError> {
    PRESETS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, p)| *p).ok_or_else(
        || {
            let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
            ScheduleError::new("cron", format!("{} is not a known preset", shown(text)))
                .hint(format!("presets are {}", names.join(", ")))
        },
    )
}

fn field_names(fields: &[&str], text: &str) -> Result<&'static [&'static str], ScheduleError> {
    const ALL: [&str; 7] =
        ["second", "minute", "hour", "day_of_month", "month", "day_of_week", "year"];
    match fields.len() {
        5 => Ok(&ALL[1..6]),
        6 => Ok(&ALL[..6]),
        7 => Ok(&ALL),
        n => Err(ScheduleError::new("cron", format!("{} has {n} fields", shown(text))).hint(
            "five fields are minute, hour, day of month, month, day of week; \
             a sixth before them is the second, a seventh after them the year",
        )),
    }
}

/// Parses the field alone, so that an error can say which one it is in.
fn check_field(fields: &[&str], at: usize, name: &str) -> Result<(), ScheduleError> {
    let field = fields[at];
    let error = |message: String| ScheduleError::new(format!("cron.{name}"), message);
    if let Some(c) = field.chars().find(|c| !c.is_ascii_alphanumeric() && !"*/,-#?+".contains(*c)) {
        return Err(error(format!(
            "{} has a character that means nothing here: {c:?}",
            shown(field)
        )));
    }
    let hashed = field.starts_with('H') || field.contains(",H");
    if hashed {
        return Err(error(format!("{} asks for a hashed value", shown(field)))
            .hint("write a number, and spread starts with the trigger's `jitter`"));
    }
    let mut alone = vec!["*"; fields.len()];
    alone[at] = field;
    parser().parse(&alone.join(" ")).map(|_| ()).map_err(|e| {
        let range = match name {
            "second" | "minute" => "0 to 59",
            "hour" => "0 to 23",
            "day_of_month" => "1 to 31, L for the last",
            "month" => "1 to 12 or JAN to DEC",
            "day_of_week" => "0 to 7 (0 and 7 are Sunday) or SUN to SAT",
            _ => "1 to 5000",
        };
        error(format!("{} is not valid: {e}", shown(field))).hint(format!("values are {range}"))
    })
}
