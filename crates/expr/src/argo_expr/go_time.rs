//! Times as Go writes and reads them: layouts such as `2006-01-02`, durations such as `1h30m`.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::{Error, Value};

/// Parts of a layout, longer ones first where one begins another.
const PARTS: &[&str] = &[
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "2006",
    "-07:00:00",
    "-07:00",
    "-0700",
    "-07",
    "Z07:00",
    "Z0700",
    "Z07",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "002",
    "__2",
    "_2",
    "15",
    "PM",
    "pm",
    "1",
    "2",
    "3",
    "4",
    "5",
];

/// The layout cut into (literal text, part).
fn cut(layout: &str) -> Vec<(&str, &str)> {
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < layout.len() {
        let rest = &layout[at..];
        let fraction = (rest.starts_with('.') || rest.starts_with(','))
            .then(|| {
                let digits = rest[1..]
                    .find(|c| c != '0')
                    .filter(|n| *n > 0)
                    .or_else(|| rest[1..].find(|c| c != '9').filter(|n| *n > 0));
                let all = !rest[1..].is_empty()
                    && (rest[1..].bytes().all(|b| b == b'0')
                        || rest[1..].bytes().all(|b| b == b'9'));
                digits.or(all.then_some(rest.len() - 1)).map(|n| &rest[..=n])
            })
            .flatten()
            .filter(|part| !layout[at + part.len()..].starts_with(|c: char| c.is_ascii_digit()));
        let part = fraction.or_else(|| PARTS.iter().copied().find(|p| rest.starts_with(p)));
        match part {
            Some(part) => {
                pieces.push((&layout[start..at], &layout[at..at + part.len()]));
                at += part.len();
                start = at;
            }
            None => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
    pieces.push((&layout[start..], ""));
    pieces
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn weekday(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}

fn offset(seconds: i32, form: &str) -> String {
    if form.starts_with('Z') && seconds == 0 {
        return "Z".to_owned();
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
    let second = seconds.abs() % 60;
    match &form[1..] {
        "07:00:00" => format!("{sign}{hours:02}:{minutes:02}:{second:02}"),
        "07:00" => format!("{sign}{hours:02}:{minutes:02}"),
        "0700" => format!("{sign}{hours:02}{minutes:02}"),
        _ => format!("{sign}{hours:02}"),
    }
}

/// Formats by a Go layout.
pub(super) fn format(time: &Zoned, layout: &str) -> String {
    let mut out = String::new();
    let hour12 = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    let month = MONTHS[(time.month() as usize).clamp(1, 12) - 1];
    let day = weekday(time.weekday());
    for (literal, part) in cut(layout) {
        out.push_str(literal);
        out.push_str(&match part {
            "" => String::new(),
            "2006" => format!("{:04}", time.year()),
            "06" => format!("{:02}", time.year().rem_euclid(100)),
            "01" => format!("{:02}", time.month()),
            "1" => time.month().to_string(),
            "January" => month.to_owned(),
            "Jan" => month[..3].to_owned(),
            "02" => format!("{:02}", time.day()),
            "_2" => format!("{:2}", time.day()),
            "2" => time.day().to_string(),
            "002" => format!("{:03}", time.day_of_year()),
            "__2" => format!("{:3}", time.day_of_year()),
            "Monday" => day.to_owned(),
            "Mon" => day[..3].to_owned(),
            "15" => format!("{:02}", time.hour()),
            "03" => format!("{hour12:02}"),
            "3" => hour12.to_string(),
            "04" => format!("{:02}", time.minute()),
            "4" => time.minute().to_string(),
            "05" => format!("{:02}", time.second()),
            "5" => time.second().to_string(),
            "PM" => if time.hour() >= 12 { "PM" } else { "AM" }.to_owned(),
            "pm" => if time.hour() >= 12 { "pm" } else { "am" }.to_owned(),
            "MST" => time.strftime("%Z").to_string(),
            fraction if fraction.starts_with(['.', ',']) => {
                let digits = fraction.len() - 1;
                let nanos = format!("{:09}", time.subsec_nanosecond());
                let mut kept: String = nanos.chars().take(digits).collect();
                if fraction.ends_with('9') {
                    kept.truncate(kept.trim_end_matches('0').len());
                    if kept.is_empty() { kept } else { format!("{}{kept}", &fraction[..1]) }
                } else {
                    format!("{}{kept}", &fraction[..1])
                }
            }
            zone => offset(time.offset().seconds(), zone),
        });
    }
    out
}

pub(super) fn rfc3339(time: &Zoned) -> String {
    format(time, "2006-01-02T15:04:05.999999999Z07:00")
}

/// Reads a text by a Go layout.
pub(super) fn parse(layout: &str, text: &str, zone: &TimeZone) -> Option<Zoned> {
    let mut rest = text;
    let (mut year, mut month, mut day, mut hour, mut minute, mut second, mut nanos) =
        (0i16, 1i8, 1i8, 0i8, 0i8, 0i8, 0i32);
    let mut afternoon = None;
    let mut shift: Option<i32> = None;
    let number = |rest: &mut &str, least: usize, most: usize| -> Option<i64> {
        let trimmed = rest.trim_start_matches(' ');
        let digits = trimmed.bytes().take(most).take_while(u8::is_ascii_digit).count();
        if digits < least {
            return None;
        }
        let value = trimmed[..digits].parse().ok()?;
        *rest = &trimmed[digits..];
        Some(value)
    };
    for (literal, part) in cut(layout) {
        rest = rest.strip_prefix(literal)?;
        match part {
            "" => {}
            "2006" => year = number(&mut rest, 4, 4)? as i16,
            "06" => {
                let short = number(&mut rest, 2, 2)? as i16;
                year = if short >= 69 { 1900 + short } else { 2000 + short };
            }
            "01" => month = number(&mut rest, 2, 2)? as i8,
            "1" => month = number(&mut rest, 1, 2)? as i8,
            "January" | "Jan" => {
                let cut_name = |name: &'static str| if part == "Jan" { &name[..3] } else { name };
                let at = MONTHS.iter().position(|name| rest.starts_with(cut_name(name)))?;
                rest = &rest[cut_name(MONTHS[at]).len()..];
                month = at as i8 + 1;
            }
            "Monday" | "Mon" => {
                let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
                rest = &rest[letters..];
            }
            "02" => day = number(&mut rest, 2, 2)? as i8,
            "2" | "_2" => day = number(&mut rest, 1, 2)? as i8,
            "15" => hour = number(&mut rest, 2, 2)? as i8,
            "03" | "3" => hour = number(&mut rest, 1, 2)? as i8,
            "04" | "4" => minute = number(&mut rest, 1, 2)? as i8,
            "05" | "5" => {
                second = number(&mut rest, 1, 2)? as i8;
                // Go accepts a fraction after the seconds even when the layout has none.
                if let Some(fraction) = rest.strip_prefix('.') {
                    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
                    if digits > 0 {
                        let text: String = fraction[..digits].chars().take(9).collect();
                        nanos = format!("{text:0<9}").parse().ok()?;
                        rest = &fraction[digits..];
                    }
                }
            }
            "PM" | "pm" => {
                afternoon = Some(rest.get(..2)?.eq_ignore_ascii_case("pm"));
                rest = &rest[2..];
            }
            "MST" => {
                let letters = rest.find(|c: char| !c.is_ascii_uppercase()).unwrap_or(rest.len());
                if letters == 0 {
                    return None;
                }
                rest = &rest[letters..];
            }
            fraction if fraction.starts_with(['.', ',']) => {}
            form => {
                if form.starts_with('Z') && rest.starts_with('Z') {
                    rest = &rest[1..];
                    shift = Some(0);
                    continue;
                }
                let sign = if rest.starts_with('-') { -1 } else { 1 };
                rest = rest.strip_prefix(['+', '-'])?;
                let hours = number(&mut rest, 2, 2)? as i32;
                let mut minutes = 0;
                if form.len() > 3 {
                    rest = rest.strip_prefix(':').unwrap_or(rest);
                    minutes = number(&mut rest, 2, 2)? as i32;
                }
                shift = Some(sign * (hours * 3600 + minutes * 60));
            }
        }
    }
    if !rest.is_empty() {
        return None;
    }
    match afternoon {
        Some(true) if hour < 12 => hour += 12,
        Some(false) if hour == 12 => hour = 0,
        _ => {}
    }
    let civil = jiff::civil::DateTime::new(year, month, day, hour, minute, second, nanos).ok()?;
    let zone = match shift {
        Some(0) => TimeZone::UTC,
        Some(seconds) => TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).ok()?),
        None => zone.clone(),
    };
    civil.to_zoned(zone).ok()
}

pub(super) fn parse_rfc3339(text: &str) -> Option<Zoned> {
    parse("2006-01-02T15:04:05Z07:00", text, &TimeZone::UTC)
}

pub(super) fn zone(name: &str) -> Option<TimeZone> {
    match name {
        "" | "UTC" => Some(TimeZone::UTC),
        // The server's own zone is not a fact that a definition may depend on.
        "Local" => Some(TimeZone::UTC),
        name => TimeZone::get(name).ok(),
    }
}

pub(super) fn from_unix(seconds: i64) -> Option<Value> {
    let time = Timestamp::from_second(seconds).ok()?;
    Some(Value::Time(Box::new(time.to_zoned(TimeZone::UTC))))
}

pub(super) fn shift(time: &Zoned, nanos: i64) -> Result<Value, Error> {
    time.checked_add(jiff::SignedDuration::from_nanos(nanos))
        .map(|time| Value::Time(Box::new(time)))
        .map_err(|_| Error::eval("the time is out of range"))
}

pub(super) fn between(later: &Zoned, earlier: &Zoned) -> i64 {
    let nanos = later.timestamp().as_nanosecond() - earlier.timestamp().as_nanosecond();
    nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Reads a duration such as `-1.5h` or `2m30s`, in nanoseconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, scale) = [
            ("ns", 1.0),
            ("us", 1e3),
            ("µs", 1e3),
            ("μs", 1e3),
            ("ms", 1e6),
            ("s", 1e9),
            ("m", 60e9),
            ("h", 3600e9),
        ]
        .into_iter()
        .find(|(unit, _)| rest.starts_with(unit))?;
        total += number * scale;
        rest = &rest[unit.len()..];
    }
    if total > i64::MAX as f64 {
        return None;
    }
    Some(if negative { -(total as i64) } else { total as i64 })
}

/// `1h2m3.5s`, as Go writes durations.
pub(super) fn duration_text(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    let decimal = |value: u64, unit: u64| {
        let text = format!(
            "{}.{:0width$}",
            value / unit,
            value % unit,
            width = {
                let mut digits = 0;
                let mut at = unit;
                while at > 1 {
                    at /= 10;
                    digits += 1;
                }
                digits
            }
        );
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if size < 1_000 {
        return format!("{sign}{size}ns");
    }
    if size < 1_000_000 {
        return format!("{sign}{}µs", decimal(size, 1_000));
    }
    if size < 1_000_000_000 {
        return format!("{sign}{}ms", decimal(size, 1_000_000));
    }
    let (hours, minutes) = (size / 3_600_000_000_000, size / 60_000_000_000 % 60);
    let seconds = decimal(size % 60_000_000_000, 1_000_000_000);
    if hours > 0 {
        format!("{sign}{hours}h{minutes}m{seconds}s")
    } else if minutes > 0 {
        format!("{sign}{minutes}m{seconds}s")
    } else {
        format!("{sign}{seconds}s")
    }
}
