//! Sprig's functions over times.

use super::eval::Evaluator;
use super::sprig::{arg, to_int, to_text};
use super::{Error, Value, builtins, go_time};

/// A time from a time, seconds since 1970, or an RFC 3339 text; anything else is now.
fn moment(ev: &Evaluator<'_>, value: Option<&Value>) -> Result<jiff::Zoned, Error> {
    let found = match value {
        Some(Value::Time(time)) => Some((**time).clone()),
        Some(Value::Int(seconds)) => match go_time::from_unix(*seconds) {
            Some(Value::Time(time)) => Some(*time),
            _ => None,
        },
        Some(Value::Str(text)) => go_time::parse_rfc3339(text),
        _ => None,
    };
    found.map_or_else(|| builtins::now(ev), Ok)
}

fn in_zone(time: &jiff::Zoned, zone: &str) -> jiff::Zoned {
    time.with_time_zone(go_time::zone(zone).unwrap_or(jiff::tz::TimeZone::UTC))
}

pub(super) fn call(
    ev: &Evaluator<'_>,
    name: &str,
    values: &[Value],
) -> Result<Option<Value>, Error> {
    let text = |at| arg(name, values, at).map(to_text);
    let time = |value: jiff::Zoned| Value::Time(Box::new(value));
    Ok(Some(match name {
        "now" => time(builtins::now(ev)?),
        "date" => {
            let moment = in_zone(&moment(ev, values.get(1))?, "Local");
            Value::str(go_time::format(&moment, &text(0)?))
        }
        "dateInZone" | "date_in_zone" => {
            let moment = in_zone(&moment(ev, values.get(1))?, &text(2)?);
            Value::str(go_time::format(&moment, &text(0)?))
        }
        "htmlDate" => Value::str(go_time::format(
            &in_zone(&moment(ev, values.first())?, "Local"),
            "2006-01-02",
        )),
        "htmlDateInZone" => {
            let moment = in_zone(&moment(ev, values.first())?, &text(1)?);
            Value::str(go_time::format(&moment, "2006-01-02"))
        }
        "dateModify" | "date_modify" => {
            let moment = moment(ev, values.get(1))?;
            match go_time::parse_duration(&text(0)?) {
                Some(nanos) => go_time::shift(&moment, nanos)?,
                None => time(moment),
            }
        }
        "toDate" => match go_time::parse(&text(0)?, &text(1)?, &jiff::tz::TimeZone::UTC) {
            Some(parsed) => time(parsed),
            None => return Err(Error::eval(format!("cannot read {:?} as a date", text(1)?))),
        },
        "unixEpoch" => Value::str(moment(ev, values.first())?.timestamp().as_second().to_string()),
        "ago" => {
            let nanos = go_time::between(&builtins::now(ev)?, &moment(ev, values.first())?);
            Value::str(go_time::duration_text(nanos / 1_000_000_000 * 1_000_000_000))
        }
        "duration" => {
            let seconds = to_int(arg(name, values, 0)?);
            Value::str(go_time::duration_text(seconds.saturating_mul(1_000_000_000)))
        }
        "durationRound" => {
            let nanos = match arg(name, values, 0)? {
                Value::Duration(nanos) => *nanos,
                other => go_time::parse_duration(&to_text(other)).unwrap_or(0),
            };
            let seconds = nanos.unsigned_abs() / 1_000_000_000;
            let units = [
                (31_536_000, "y"),
                (2_592_000, "mo"),
                (86_400, "d"),
                (3_600, "h"),
                (60, "m"),
                (1, "s"),
            ];
            let unit = units.into_iter().find(|(size, _)| seconds >= *size);
            Value::str(
                unit.map_or("0s".to_owned(), |(size, word)| format!("{}{word}", seconds / size)),
            )
        }
        _ => return Ok(None),
    }))
}
