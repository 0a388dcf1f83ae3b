//! The language's own functions, and methods of times and durations.

use std::sync::Arc;

use super::eval::{Evaluator, member};
use super::{Error, Value, collections, go_time, jsonpath};

/// A regular expression whose compiled size is bounded.
pub(super) fn regex(pattern: &str) -> Result<regex::Regex, Error> {
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map_err(|error| Error::eval(format!("bad regular expression: {error}")))
}

pub(super) fn text<'a>(name: &str, values: &'a [Value], at: usize) -> Result<&'a str, Error> {
    match values.get(at) {
        Some(Value::Str(text)) => Ok(text),
        Some(other) => Err(Error::eval(format!(
            "cannot use {} as argument (type string) to call {name}",
            other.kind()
        ))),
        None => Err(Error::eval(format!("not enough arguments to call {name}"))),
    }
}

pub(super) fn int(name: &str, values: &[Value], at: usize) -> Result<i64, Error> {
    match values.get(at) {
        Some(Value::Int(n)) => Ok(*n),
        Some(Value::Float(n)) if n.fract() == 0.0 => Ok(*n as i64),
        Some(other) => Err(Error::eval(format!(
            "cannot use {} as argument (type int) to call {name}",
            other.kind()
        ))),
        None => Err(Error::eval(format!("not enough arguments to call {name}"))),
    }
}

pub(super) fn list<'a>(
    name: &str,
    values: &'a [Value],
    at: usize,
) -> Result<&'a Arc<Vec<Value>>, Error> {
    match values.get(at) {
        Some(Value::List(items)) => Ok(items),
        Some(other) => Err(Error::eval(format!("cannot {name} {}", other.kind()))),
        None => Err(Error::eval(format!("not enough arguments to call {name}"))),
    }
}

fn one<'a>(name: &str, values: &'a [Value]) -> Result<&'a Value, Error> {
    match values {
        [value] => Ok(value),
        [] => Err(Error::eval(format!("not enough arguments to call {name}"))),
        _ => Err(Error::eval(format!("too many arguments to call {name}"))),
    }
}

pub(super) fn call(ev: &Evaluator<'_>, name: &str, values: &[Value]) -> Result<Value, Error> {
    Ok(match name {
        // Argo's own.
        "asInt" => as_int(one(name, values)?)?,
        "asFloat" => as_float(one(name, values)?)?,
        "toJson" => Value::str(one(name, values)?.to_json_text(None)),
        "jsonpath" => {
            let document: serde_json::Value = serde_json::from_str(text(name, values, 0)?)
                .map_err(|error| Error::eval(format!("jsonpath: not JSON: {error}")))?;
            let found = jsonpath::query(&document, text(name, values, 1)?).map_err(Error::eval)?;
            Value::from(&found)
        }
        // Of any type.
        "len" => Value::Int(match one(name, values)? {
            Value::Str(text) => text.chars().count() as i64,
            Value::List(items) => items.len() as i64,
            Value::Map(entries) => entries.len() as i64,
            other => {
                return Err(Error::eval(format!("invalid argument for len ({})", other.kind())));
            }
        }),
        "type" => Value::str(one(name, values)?.kind()),
        "int" => match one(name, values)? {
            Value::Float(n) => Value::Int(*n as i64),
            other => as_int(other)?,
        },
        "float" => as_float(one(name, values)?)?,
        "string" => Value::str(one(name, values)?.to_text()),
        "toJSON" => Value::str(one(name, values)?.to_json_text(Some("  "))),
        "fromJSON" => {
            let json: serde_json::Value = serde_json::from_str(text(name, values, 0)?)
                .map_err(|error| Error::eval(format!("fromJSON: {error}")))?;
            Value::from(&json)
        }
        "toBase64" => {
            use base64::Engine as _;
            Value::str(base64::engine::general_purpose::STANDARD.encode(text(name, values, 0)?))
        }
        "fromBase64" => Value::str(decode_base64(text(name, values, 0)?)?),
        "get" => match (values.first(), values.get(1)) {
            (Some(Value::Nil), Some(_)) => Value::Nil,
            (Some(of), Some(key)) => member(of, key).unwrap_or_default(),
            _ => return Err(Error::eval("not enough arguments to call get")),
        },
        "abs" | "ceil" | "floor" | "round" => number(name, one(name, values)?)?,
        "max" | "min" | "mean" | "median" => aggregate(name, values)?,
        "bitand" => Value::Int(int(name, values, 0)? & int(name, values, 1)?),
        "bitor" => Value::Int(int(name, values, 0)? | int(name, values, 1)?),
        "bitxor" => Value::Int(int(name, values, 0)? ^ int(name, values, 1)?),
        "now" | "date" | "duration" | "timezone" => return time(ev, name, values),
        _ => {
            if let Some(value) = strings(ev, name, values)? {
                return Ok(value);
            }
            return match lists(name, values)? {
                Some(value) => {
                    ev.spend(value.weight())?;
                    Ok(value)
                }
                None => Err(Error::UnknownName(name.to_owned())),
            };
        }
    })
}

fn as_int(value: &Value) -> Result<Value, Error> {
    match value {
        Value::Int(n) => Ok(Value::Int(*n)),
        Value::Float(n) => Ok(Value::Int(*n as i64)),
        Value::Str(text) => text
            .trim()
            .parse()
            .map(Value::Int)
            .map_err(|_| Error::eval(format!("{:?} is not an integer", shorten(text)))),
        other => Err(Error::eval(format!("cannot make an int of {}", other.kind()))),
    }
}

fn as_float(value: &Value) -> Result<Value, Error> {
    match value {
        Value::Int(n) => Ok(Value::Float(*n as f64)),
        Value::Float(n) => Ok(Value::Float(*n)),
        Value::Str(text) => text
            .trim()
            .parse()
            .map(Value::Float)
            .map_err(|_| Error::eval(format!("{:?} is not a number", shorten(text)))),
        other => Err(Error::eval(format!("cannot make a float of {}", other.kind()))),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

pub(super) fn decode_base64(text: &str) -> Result<String, Error> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|error| Error::eval(format!("not base64: {error}")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn number(name: &str, value: &Value) -> Result<Value, Error> {
    let n = match value {
        Value::Int(n) if name == "abs" => return Ok(Value::Int(n.wrapping_abs())),
        other => other.as_f64().ok_or_else(|| {
            Error::eval(format!("invalid argument for {name} ({})", other.kind()))
        })?,
    };
    Ok(Value::Float(match name {
        "abs" => n.abs(),
        "ceil" => n.ceil(),
        "floor" => n.floor(),
        _ => n.round(),
    }))
}

fn aggregate(name: &str, values: &[Value]) -> Result<Value, Error> {
    let mut flat: Vec<&Value> = Vec::new();
    for value in values {
        match value {
            Value::List(items) => flat.extend(items.iter()),
            other => flat.push(other),
        }
    }
    let mut numbers = Vec::with_capacity(flat.len());
    for value in &flat {
        numbers.push(value.as_f64().ok_or_else(|| {
            Error::eval(format!("invalid argument for {name} ({})", value.kind()))
        })?);
    }
    if numbers.is_empty() {
        return Ok(if name.starts_with("me") { Value::Int(0) } else { Value::Nil });
    }
    let pick = |better: fn(f64, f64) -> bool| {
        let mut best = 0;
        for at in 1..numbers.len() {
            if better(numbers[at], numbers[best]) {
                best = at;
            }
        }
        flat[best].clone()
    };
    Ok(match name {
        "max" => pick(|a, b| a > b),
        "min" => pick(|a, b| a < b),
        "mean" => Value::Float(numbers.iter().sum::<f64>() / numbers.len() as f64),
        _ => {
            numbers.sort_by(f64::total_cmp);
            let middle = numbers.len() / 2;
            Value::Float(if numbers.len() % 2 == 1 {
                numbers[middle]
            } else {
                f64::midpoint(numbers[middle - 1], numbers[middle])
            })
        }
    })
}

fn strings(ev: &Evaluator<'_>, name: &str, values: &[Value]) -> Result<Option<Value>, Error> {
    let arg = |at| text(name, values, at);
    let cut = |at: usize| -> Result<Option<&str>, Error> {
        if values.len() > at { arg(at).map(Some) } else { Ok(None) }
    };
    Ok(Some(match name {
        "trim" => Value::str(match cut(1)? {
            Some(set) => arg(0)?.trim_matches(|c| set.contains(c)),
            None => arg(0)?.trim(),
        }),
        "trimPrefix" => {
            let what = cut(1)?.unwrap_or(" ");
            Value::str(arg(0)?.strip_prefix(what).unwrap_or(arg(0)?))
        }
        "trimSuffix" => {
            let what = cut(1)?.unwrap_or(" ");
            Value::str(arg(0)?.strip_suffix(what).unwrap_or(arg(0)?))
        }
        "upper" => Value::str(arg(0)?.to_uppercase()),
        "lower" => Value::str(arg(0)?.to_lowercase()),
        "split" | "splitAfter" => {
            let limit = if values.len() > 2 { int(name, values, 2)? } else { -1 };
            let (whole, by) = (arg(0)?, arg(1)?);
            let pieces: Vec<String> = match (name, limit) {
                (_, 0) => Vec::new(),
                ("split", n) if n > 0 => whole.splitn(n as usize, by).map(str::to_owned).collect(),
                ("split", _) if by.is_empty() => whole.chars().map(String::from).collect(),
                ("split", _) => whole.split(by).map(str::to_owned).collect(),
                _ => whole.split_inclusive(by).map(str::to_owned).collect(),
            };
            ev.spend(pieces.len() * 32)?;
            Value::list(pieces.into_iter().map(Value::str).collect())
        }
        "replace" => {
            let (whole, from, to) = (arg(0)?, arg(1)?, arg(2)?);
            let count = whole.matches(from).count();
            ev.spend(whole.len() + count.saturating_mul(to.len()))?;
            Value::str(if values.len() > 3 {
                match int(name, values, 3)? {
                    n if n < 0 => whole.replace(from, to),
                    n => whole.replacen(from, to, n as usize),
                }
            } else {
                whole.replace(from, to)
            })
        }
        "repeat" => {
            let n = int(name, values, 1)?.max(0) as usize;
            ev.spend(n.saturating_mul(arg(0)?.len().max(1)))?;
            Value::str(arg(0)?.repeat(n))
        }
        "join" => {
            let by = cut(1)?.unwrap_or("");
            let mut out = String::new();
            for (at, item) in list(name, values, 0)?.iter().enumerate() {
                if at > 0 {
                    out.push_str(by);
                }
                match item {
                    Value::Str(item) => out.push_str(item),
                    other => {
                        return Err(Error::eval(format!("cannot join {}", other.kind())));
                    }
                }
                ev.spend(by.len())?;
            }
            ev.spend(out.len())?;
            Value::str(out)
        }
        "indexOf" => Value::Int(arg(0)?.find(arg(1)?).map_or(-1, |at| at as i64)),
        "lastIndexOf" => Value::Int(arg(0)?.rfind(arg(1)?).map_or(-1, |at| at as i64)),
        "hasPrefix" => Value::Bool(arg(0)?.starts_with(arg(1)?)),
        "hasSuffix" => Value::Bool(arg(0)?.ends_with(arg(1)?)),
        _ => return Ok(None),
    }))
}

fn lists(name: &str, values: &[Value]) -> Result<Option<Value>, Error> {
    let arg = |at| list(name, values, at);
    Ok(Some(match name {
        "first" => arg(0)?.first().cloned().unwrap_or_default(),
        "last" => arg(0)?.last().cloned().unwrap_or_default(),
        "take" => {
            let n = int(name, values, 1)?.max(0) as usize;
            Value::list(arg(0)?.iter().take(n).cloned().collect())
        }
        "reverse" => Value::list(arg(0)?.iter().rev().cloned().collect()),
        "uniq" => {
            let mut kept: Vec<Value> = Vec::new();
            let mut seen = std::collections::BTreeSet::new();
            for item in arg(0)?.iter() {
                // The text of a value of one type tells values apart.
                if seen.insert((item.kind(), item.to_json_text(None))) {
                    kept.push(item.clone());
                }
            }
            Value::list(kept)
        }
        "concat" => {
            let mut all = Vec::new();
            for at in 0..values.len() {
                all.extend(arg(at)?.iter().cloned());
            }
            Value::list(all)
        }
        "flatten" => {
            fn flat(items: &[Value], out: &mut Vec<Value>) {
                for item in items {
                    match item {
                        Value::List(inner) => flat(inner, out),
                        other => out.push(other.clone()),
                    }
                }
            }
            let mut out = Vec::new();
            flat(arg(0)?, &mut out);
            Value::list(out)
        }
        "sort" => {
            let descending = values.get(1).and_then(Value::as_text) == Some("desc");
            collections::sort(arg(0)?, descending)?
        }
        "keys" | "values" | "toPairs" => {
            let Some(Value::Map(entries)) = values.first() else {
                return Err(Error::eval(format!("{name} needs a map")));
            };
            Value::list(
                entries
                    .iter()
                    .map(|(key, value)| match name {
                        "keys" => Value::str(key),
                        "values" => value.clone(),
                        _ => Value::list(vec![Value::str(key), value.clone()]),
                    })
                    .collect(),
            )
        }
        "fromPairs" => {
            let mut map = indexmap::IndexMap::new();
            for pair in arg(0)?.iter() {
                match pair {
                    Value::List(pair) if pair.len() == 2 => {
                        map.insert(pair[0].to_text(), pair[1].clone());
                    }
                    _ => return Err(Error::eval("fromPairs needs pairs")),
                }
            }
            Value::Map(Arc::new(map))
        }
        _ => return Ok(None),
    }))
}

pub(super) fn now(ev: &Evaluator<'_>) -> Result<jiff::Zoned, Error> {
    ev.env
        .now
        .map(|now| now.to_zoned(jiff::tz::TimeZone::UTC))
        .ok_or_else(|| Error::eval("the time is not known here"))
}

fn time(ev: &Evaluator<'_>, name: &str, values: &[Value]) -> Result<Value, Error> {
    match name {
        "now" => Ok(Value::Time(Box::new(now(ev)?))),
        "duration" => go_time::parse_duration(text(name, values, 0)?)
            .map(Value::Duration)
            .ok_or_else(|| Error::eval("invalid duration")),
        "timezone" => {
            let zone = text(name, values, 0)?;
            go_time::zone(zone).ok_or_else(|| Error::eval(format!("unknown time zone {zone}")))?;
            Ok(Value::str(zone))
        }
        _ => {
            let what = text(name, values, 0)?;
            let layouts: &[&str] = &[
                "2006-01-02",
                "15:04:05",
                "2006-01-02 15:04:05",
                "2006-01-02T15:04:05Z07:00",
                "Mon, 02 Jan 2006 15:04:05 MST",
                "Mon, 02 Jan 2006 15:04:05 -0700",
            ];
            let zone = match values.get(2) {
                Some(_) => go_time::zone(text(name, values, 2)?)
                    .ok_or_else(|| Error::eval("unknown time zone"))?,
                None => jiff::tz::TimeZone::UTC,
            };
            let found = match values.get(1) {
                Some(_) => go_time::parse(text(name, values, 1)?, what, &zone),
                None => layouts.iter().find_map(|layout| go_time::parse(layout, what, &zone)),
            };
            found
                .map(|time| Value::Time(Box::new(time)))
                .ok_or_else(|| Error::eval(format!("invalid date {:?}", shorten(what))))
        }
    }
}

/// Methods that Go's times and durations have.
pub(super) fn method(object: &Value, name: &str, values: &[Value]) -> Result<Value, Error> {
    match object {
        Value::Time(time) => Ok(match name {
            "Year" => Value::Int(i64::from(time.year())),
            "Month" => Value::Int(i64::from(time.month())),
            "Day" => Value::Int(i64::from(time.day())),
            "Hour" => Value::Int(i64::from(time.hour())),
            "Minute" => Value::Int(i64::from(time.minute())),
            "Second" => Value::Int(i64::from(time.second())),
            "Nanosecond" => Value::Int(i64::from(time.subsec_nanosecond())),
            "YearDay" => Value::Int(i64::from(time.day_of_year())),
            "Weekday" => Value::Int(i64::from(time.weekday().to_sunday_zero_offset())),
            "Unix" => Value::Int(time.timestamp().as_second()),
            "UnixMilli" => Value::Int(time.timestamp().as_millisecond()),
            "UnixMicro" => Value::Int(time.timestamp().as_microsecond()),
            "UTC" => Value::Time(Box::new(time.with_time_zone(jiff::tz::TimeZone::UTC))),
            "Format" => Value::str(go_time::format(time, text(name, values, 0)?)),
            "String" => {
                Value::str(go_time::format(time, "2006-01-02 15:04:05.999999999 -0700 MST"))
            }
            "Add" | "Sub" | "Before" | "After" | "Equal" => match (name, values.first()) {
                ("Add", Some(Value::Duration(nanos))) => go_time::shift(time, *nanos)?,
                ("Sub", Some(Value::Time(other))) => Value::Duration(go_time::between(time, other)),
                ("Before", Some(Value::Time(other))) => {
                    Value::Bool(time.timestamp() < other.timestamp())
                }
                ("After", Some(Value::Time(other))) => {
                    Value::Bool(time.timestamp() > other.timestamp())
                }
                ("Equal", Some(Value::Time(other))) => {
                    Value::Bool(time.timestamp() == other.timestamp())
                }
                _ => return Err(Error::eval(format!("wrong argument to call {name}"))),
            },
            _ => return Err(Error::eval(format!("type time.Time has no method {name}"))),
        }),
        Value::Duration(nanos) => Ok(match name {
            "Hours" => Value::Float(*nanos as f64 / 3600e9),
            "Minutes" => Value::Float(*nanos as f64 / 60e9),
            "Seconds" => Value::Float(*nanos as f64 / 1e9),
            "Milliseconds" => Value::Int(nanos / 1_000_000),
            "Microseconds" => Value::Int(nanos / 1_000),
            "Nanoseconds" => Value::Int(*nanos),
            "String" => Value::str(go_time::duration_text(*nanos)),
            _ => return Err(Error::eval(format!("type time.Duration has no method {name}"))),
        }),
        other => Err(Error::eval(format!("{} has no method {name}", other.kind()))),
    }
}
