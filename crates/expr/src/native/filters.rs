//! Filters beside Jinja's own: dates, JSON, quoting.

use std::fmt;
use std::sync::Arc;

use jiff::Span;
use minijinja::value::{Object, ObjectRepr, Serde};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::Mode;
use super::time::Moment;

/// Text that its author wants inserted as it is. Any further filter makes it an ordinary value.
#[derive(Debug)]
pub(super) struct Raw(pub(super) Arc<str>);

impl Object for Raw {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn add_to(env: &mut Environment<'static>, mode: Mode) {
    env.add_filter("date", date);
    env.add_filter("ds", |v: &Value| with(v, |m| Ok(m.local().date().to_string())));
    env.add_filter("ds_nodash", |v: &Value| with(v, |m| m.format("%Y%m%d")));
    env.add_filter("ts", |v: &Value| with(v, |m| Ok(m.iso())));
    env.add_filter("ts_nodash", |v: &Value| with(v, |m| m.format("%Y%m%dT%H%M%S")));
    env.add_filter("iso", |v: &Value| with(v, |m| Ok(m.iso())));
    env.add_filter("strftime", |v: &Value, format: &str| with(v, |m| m.format(format)));
    env.add_filter("timezone", |v: &Value, zone: &str| with(v, |m| Ok(m.in_zone(zone)?.iso())));
    env.add_filter("epoch", |v: &Value| {
        moment(v)?.instant().map(|t| t.as_second()).map_err(invalid)
    });
    env.add_filter("seconds", |v: &Value, n: i64| shift(v, || Span::new().try_seconds(n)));
    env.add_filter("minutes", |v: &Value, n: i64| shift(v, || Span::new().try_minutes(n)));
    env.add_filter("hours", |v: &Value, n: i64| shift(v, || Span::new().try_hours(n)));
    env.add_filter("days", |v: &Value, n: i64| shift(v, || Span::new().try_days(n)));
    env.add_filter("weeks", |v: &Value, n: i64| shift(v, || Span::new().try_weeks(n)));
    env.add_filter("months", |v: &Value, n: i64| shift(v, || Span::new().try_months(n)));
    env.add_filter("first_of_month", |v: &Value| {
        with(v, |m| Ok(m.local().date().first_of_month().to_string()))
    });
    env.add_filter("last_of_month", |v: &Value| {
        with(v, |m| Ok(m.local().date().last_of_month().to_string()))
    });

    // Jinja's own `tojson`, `safe` and `escape` mark text as needing no quoting, which here would
    // let a value into a script unseen.
    env.add_filter("tojson", to_json);
    env.add_filter("fromjson", from_json);
    env.remove_filter("escape");
    env.remove_filter("e");
    match mode {
        Mode::Text => {
            env.add_filter("raw", |v: Value| v);
            env.add_filter("safe", |v: Value| v);
            env.add_filter("quote", |v: &Value| super::shell_quote(&text(v)));
        }
        Mode::Shell => {
            env.add_filter("raw", |v: &Value| raw(v));
            env.add_filter("safe", |v: &Value| raw(v));
            // Quoting happens by itself.
            env.add_filter("quote", |v: Value| v);
        }
        Mode::Sql => {
            env.add_filter("raw", |v: &Value| raw(v));
            env.add_filter("safe", |v: &Value| raw(v));
            env.add_filter("ident", identifier);
        }
    }
}

fn raw(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    Ok(Raw::value(&text(value)))
}

/// A name of a table or column, quoted.
fn identifier(value: &Value) -> Result<Value, Error> {
    let name = text(value);
    if name.is_empty() || name.contains('\0') {
        return Err(invalid("an identifier must not be empty nor contain NUL".to_owned()));
    }
    Ok(Raw::value(&format!("\"{}\"", name.replace('"', "\"\""))))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn to_json(value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    serde_json::to_string(value).map_err(|e| invalid(format!("cannot be written as JSON: {e}")))
}

fn from_json(text: &str) -> Result<Value, Error> {
    serde_json::from_str::<kobza_model::Json>(text)
        .map(|json| Value::from(Serde(json)))
        .map_err(|e| invalid(format!("not JSON: {e}")))
}

fn date(value: &Value, format: Option<&str>) -> Result<String, Error> {
    with(value, |m| match format {
        Some(format) => m.format(format),
        None => Ok(m.local().date().to_string()),
    })
}

fn shift(value: &Value, span: impl FnOnce() -> Result<Span, jiff::Error>) -> Result<String, Error> {
    let span = span().map_err(|_| invalid("the result is out of range".to_owned()))?;
    with(value, |m| Ok(m.plus(span)?.iso()))
}

fn with<T>(value: &Value, f: impl FnOnce(&Moment) -> Result<T, String>) -> Result<T, Error> {
    f(&moment(value)?).map_err(invalid)
}

fn moment(value: &Value) -> Result<Moment, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let Some(text) = value.as_str() else {
        return Err(invalid(format!("a date or a time is a text, not a {}", value.kind())));
    };
    Moment::parse(text).map_err(invalid)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
