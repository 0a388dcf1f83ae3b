//! Lengths of time as people write them.

use crate::ScheduleError;
use crate::error::shown;

const UNITS: [(&str, i64); 6] = [
    ("w", 7 * 86_400_000_000),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
];

/// Reads `90s`, `15m`, `1h30m`, `1d`, `2w`, `250ms`, a bare number of seconds, or ISO 8601 such as
/// `PT15M` and `P1D`. The result is in microseconds and positive. A day is 24 hours, a week seven
/// days, whatever the clocks do; months and years have no fixed length and are refused.
pub fn parse_duration(text: &str) -> Result<i64, ScheduleError> {
    let bad = || {
        ScheduleError::new("", format!("{} is not a duration", shown(text)))
            .hint("write for example 90s, 15m, 1h30m, 1d, 2w or PT15M")
    };
    let text = text.trim();
    if text.is_empty() || text.len() > 64 {
        return Err(bad());
    }
    let micros = if let Ok(seconds) = text.parse::<u64>() {
        i64::try_from(seconds).ok().and_then(|s| s.checked_mul(1_000_000)).ok_or_else(bad)?
    } else if text.starts_with(['P', 'p']) {
        parse_iso(text).ok_or_else(bad)?
    } else {
        parse_units(text).ok_or_else(bad)?
    };
    if micros <= 0 {
        return Err(ScheduleError::new("", "a duration must be longer than zero"));
    }
    Ok(micros)
}

fn parse_units(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let factor = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters])?.1;
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = rest[letters..].trim_start();
    }
    Some(total)
}

fn parse_iso(text: &str) -> Option<i64> {
    let span: jiff::Span = text.parse().ok()?;
    if span.get_years() != 0 || span.get_months() != 0 || span.is_negative() {
        return None;
    }
    let days = i64::from(span.get_weeks()) * 7 + i64::from(span.get_days());
    [
        days.checked_mul(86_400_000_000)?,
        i64::from(span.get_hours()).checked_mul(3_600_000_000)?,
        span.get_minutes().checked_mul(60_000_000)?,
        span.get_seconds().checked_mul(1_000_000)?,
        span.get_milliseconds().checked_mul(1_000)?,
        span.get_microseconds(),
    ]
    .into_iter()
    .try_fold(0i64, i64::checked_add)
}

/// The shortest form that [`parse_duration`] reads back, such as `1h30m`. Less than a millisecond
/// is not shown.
#[must_use]
pub fn format_duration(micros: i64) -> String {
    let mut rest = micros.max(0);
    let mut text = String::new();
    for (unit, factor) in UNITS {
        if rest >= factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let seconds = |n: i64| Ok(n * 1_000_000);
        assert_eq!(parse_duration("90"), seconds(90));
        assert_eq!(parse_duration("1h30m"), seconds(5400));
        assert_eq!(parse_duration("1h 30m"), seconds(5400));
        assert_eq!(parse_duration("PT15M"), seconds(900));
        assert_eq!(parse_duration("P1DT1H"), seconds(90_000));
        assert_eq!(parse_duration("2w"), seconds(14 * 86_400));
        assert_eq!(parse_duration("250ms"), Ok(250_000));
        let big = format!("{}d", u64::MAX);
        for bad in ["", "0s", "-5m", "1mo", "P1M", "P1Y", "soon", "m", "5x", &big, "99999999999w"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(format_duration(5_400_000_000), "1h30m");
        assert_eq!(parse_duration(&format_duration(788_645_001_000)), Ok(788_645_001_000));
    }
}
