//! Sprig's functions over dictionaries. Values are immutable here: `set`, `unset` and `merge`
//! answer the changed dictionary, which is all that an expression can see of Go's.

use std::sync::Arc;

use indexmap::IndexMap;

use super::eval::Evaluator;
use super::sprig::{arg, to_text};
use super::{Error, Value};

type Entries = IndexMap<String, Value>;

fn entries(name: &str, values: &[Value], at: usize) -> Result<Entries, Error> {
    match arg(name, values, at)? {
        Value::Map(entries) => Ok((**entries).clone()),
        Value::Nil => Ok(Entries::new()),
        other => Err(Error::eval(format!("sprig.{name}: cannot use {} as a dict", other.kind()))),
    }
}

fn merge(into: &mut Entries, from: &Entries, overwrite: bool) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Map(inner)), Value::Map(other)) => {
                merge(Arc::make_mut(inner), other, overwrite);
            }
            (Some(there), _) if !overwrite && !super::sprig::is_empty(there) => {}
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

pub(super) fn call(
    _: &Evaluator<'_>,
    name: &str,
    values: &[Value],
) -> Result<Option<Value>, Error> {
    let dict = |at| entries(name, values, at);
    let text = |at| arg(name, values, at).map(to_text);
    let map = |entries: Entries| Value::Map(Arc::new(entries));
    Ok(Some(match name {
        "dict" => {
            let mut out = Entries::new();
            for pair in values.chunks(2) {
                let value = pair.get(1).cloned().unwrap_or_else(|| Value::str(""));
                out.insert(to_text(&pair[0]), value);
            }
            map(out)
        }
        "get" => dict(0)?.get(&text(1)?).cloned().unwrap_or_else(|| Value::str("")),
        "set" => {
            let mut out = dict(0)?;
            out.insert(text(1)?, arg(name, values, 2)?.clone());
            map(out)
        }
        "unset" => {
            let mut out = dict(0)?;
            out.shift_remove(&text(1)?);
            map(out)
        }
        "hasKey" => Value::Bool(dict(0)?.contains_key(&text(1)?)),
        "pluck" => {
            let key = text(0)?;
            let mut out = Vec::new();
            for at in 1..values.len() {
                out.extend(dict(at)?.get(&key).cloned());
            }
            Value::list(out)
        }
        "dig" => {
            let (Some(default), Some(Value::Map(root))) =
                (values.len().checked_sub(2).map(|at| &values[at]), values.last())
            else {
                return Err(Error::eval("sprig.dig needs keys, a default and a dict"));
            };
            let mut at = Value::Map(root.clone());
            for key in &values[..values.len() - 2] {
                let next = match &at {
                    Value::Map(entries) => entries.get(&to_text(key)).cloned(),
                    _ => None,
                };
                match next {
                    Some(next) => at = next,
                    None => return Ok(Some(default.clone())),
                }
            }
            at
        }
        "merge" | "mergeOverwrite" => {
            let mut out = dict(0)?;
            for at in 1..values.len() {
                merge(&mut out, &dict(at)?, name == "mergeOverwrite");
            }
            map(out)
        }
        "keys" => {
            let mut out = Vec::new();
            for at in 0..values.len() {
                out.extend(dict(at)?.keys().map(Value::str));
            }
            Value::list(out)
        }
        "values" => Value::list(dict(0)?.values().cloned().collect()),
        "pick" | "omit" => {
            let keys: Vec<String> = values[1..].iter().map(to_text).collect();
            let mut out = dict(0)?;
            out.retain(|key, _| keys.contains(key) == (name == "pick"));
            map(out)
        }
        _ => return Ok(None),
    }))
}
