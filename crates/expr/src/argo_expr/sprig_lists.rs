//! Sprig's functions over lists.

use super::eval::Evaluator;
use super::sprig::{arg, is_empty, to_int, to_text};
use super::{Error, Value};

fn items(name: &str, values: &[Value], at: usize) -> Result<Vec<Value>, Error> {
    match arg(name, values, at)? {
        Value::List(items) => Ok(items.to_vec()),
        Value::Nil => Ok(Vec::new()),
        other => Err(Error::eval(format!("sprig.{name}: cannot use {} as a list", other.kind()))),
    }
}

fn steps(ev: &Evaluator<'_>, from: i64, to: i64, step: i64) -> Result<Value, Error> {
    let mut out = Vec::new();
    let mut at = from;
    while (step > 0 && at < to) || (step < 0 && at > to) {
        ev.spend(32)?;
        out.push(Value::Int(at));
        at = at.saturating_add(step);
    }
    Ok(Value::list(out))
}

pub(super) fn call(
    ev: &Evaluator<'_>,
    name: &str,
    values: &[Value],
) -> Result<Option<Value>, Error> {
    let list = |at| items(name, values, at);
    let text = |at| arg(name, values, at).map(to_text);
    let int = |at| arg(name, values, at).map(to_int);
    Ok(Some(match name {
        "list" | "tuple" => Value::list(values.to_vec()),
        "first" => list(0)?.into_iter().next().unwrap_or_default(),
        "last" => list(0)?.pop().unwrap_or_default(),
        "rest" => Value::list(list(0)?.into_iter().skip(1).collect()),
        "initial" => {
            let mut all = list(0)?;
            all.pop();
            Value::list(all)
        }
        "append" | "push" => {
            let mut all = list(0)?;
            all.push(arg(name, values, 1)?.clone());
            Value::list(all)
        }
        "prepend" => {
            let mut all = list(0)?;
            all.insert(0, arg(name, values, 1)?.clone());
            Value::list(all)
        }
        "concat" => {
            let mut all = Vec::new();
            for at in 0..values.len() {
                all.extend(list(at)?);
            }
            Value::list(all)
        }
        "reverse" => Value::list(list(0)?.into_iter().rev().collect()),
        "uniq" => {
            let mut seen = std::collections::BTreeSet::new();
            let mut all = list(0)?;
            all.retain(|v| seen.insert((v.kind(), v.to_json_text(None))));
            Value::list(all)
        }
        "without" => {
            let mut all = list(0)?;
            all.retain(|v| !values[1..].contains(v));
            Value::list(all)
        }
        "has" => Value::Bool(list(1)?.contains(arg(name, values, 0)?)),
        "compact" => {
            let mut all = list(0)?;
            all.retain(|v| !is_empty(v));
            Value::list(all)
        }
        "slice" => {
            let all = list(0)?;
            let length = all.len() as i64;
            let from = values.get(1).map_or(0, to_int).clamp(0, length);
            let to = values.get(2).map_or(length, to_int).clamp(from, length);
            Value::list(all[from as usize..to as usize].to_vec())
        }
        "chunk" => {
            let size = usize::try_from(int(0)?).ok().filter(|n| *n > 0);
            let size = size.ok_or_else(|| Error::eval("sprig.chunk needs a positive size"))?;
            let all = list(1)?;
            Value::list(all.chunks(size).map(|c| Value::list(c.to_vec())).collect())
        }
        "until" => {
            let to = int(0)?;
            steps(ev, 0, to, if to < 0 { -1 } else { 1 })?
        }
        "untilStep" => steps(ev, int(0)?, int(1)?, int(2)?)?,
        "seq" => {
            let numbers: Vec<i64> = values.iter().map(to_int).collect();
            let (from, step, to) = match numbers[..] {
                [to] => (1, if to < 1 { -1 } else { 1 }, to),
                [from, to] => (from, if to < from { -1 } else { 1 }, to),
                [from, step, to] => (from, step, to),
                _ => return Ok(Some(Value::str(""))),
            };
            let end = to.saturating_add(step.signum());
            let Value::List(all) = steps(ev, from, end, step)? else { return Ok(None) };
            Value::str(all.iter().map(to_text).collect::<Vec<_>>().join(" "))
        }
        "join" => {
            let parts: Vec<String> = match arg(name, values, 1)? {
                Value::List(all) => {
                    all.iter().filter(|v| !matches!(v, Value::Nil)).map(to_text).collect()
                }
                other => vec![to_text(other)],
            };
            let by = text(0)?;
            ev.spend(by.len().saturating_mul(parts.len()))?;
            Value::str(parts.join(&by))
        }
        "toStrings" => Value::list(list(0)?.iter().map(|v| Value::str(to_text(v))).collect()),
        "sortAlpha" => {
            let mut all: Vec<String> = list(0)?.iter().map(to_text).collect();
            all.sort();
            Value::list(all.into_iter().map(Value::str).collect())
        }
        "splitList" => {
            let (by, whole) = (text(0)?, text(1)?);
            let parts: Vec<Value> = if by.is_empty() {
                whole.chars().map(|c| Value::str(c.to_string())).collect()
            } else {
                whole.split(&by).map(Value::str).collect()
            };
            Value::list(parts)
        }
        "split" | "splitn" => {
            let by = text(0)?;
            let parts: Vec<String> = if name == "split" {
                text(1)?.split(&by).map(str::to_owned).collect()
            } else {
                let n = int(1)?.max(0) as usize;
                text(2)?.splitn(n, &by).map(str::to_owned).collect()
            };
            Value::map(
                parts
                    .into_iter()
                    .enumerate()
                    .map(|(at, part)| (format!("_{at}"), Value::str(part))),
            )
        }
        _ => return Ok(None),
    }))
}
