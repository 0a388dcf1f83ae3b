//! Functions that evaluate a predicate for each element.

use std::cmp::Ordering;

use indexmap::IndexMap;

use super::eval::{Evaluator, Locals, Stop, truth};
use super::parser::Expr;
use super::{Error, Value};

pub(super) fn predicate(
    ev: &Evaluator<'_>,
    name: &str,
    arguments: &[Expr],
    locals: &Locals<'_>,
) -> Result<Value, Stop> {
    let Some((first, rest)) = arguments.split_first() else {
        return Err(Error::eval(format!("not enough arguments to call {name}")).into());
    };
    let items = match ev.eval(first, locals)? {
        Value::List(items) => items,
        Value::Map(entries) if name != "reduce" => {
            std::sync::Arc::new(entries.values().cloned().collect())
        }
        other => {
            return Err(Error::eval(format!(
                "builtin {name} takes only array (got {})",
                other.kind()
            ))
            .into());
        }
    };
    let body = rest.first().map(|argument| match argument {
        Expr::Closure(body) => &**body,
        other => other,
    });
    let apply = |index: usize, item: &Value| -> Result<Value, Stop> {
        let Some(body) = body else { return Ok(item.clone()) };
        let with_index = locals.bind("#index", Value::Int(index as i64));
        ev.eval(body, &with_index.bind("#", item.clone()))
    };
    if body.is_none() && !matches!(name, "sum" | "count") {
        return Err(Error::eval(format!("not enough arguments to call {name}")).into());
    }
    if name == "reduce" {
        return reduce(ev, &items, rest, locals);
    }
    if name == "map" || name == "sum" || name == "groupBy" || name == "sortBy" {
        return keyed(ev, name, &items, rest, locals, &apply);
    }
    let mut kept = Vec::new();
    let mut count = 0i64;
    let places: Vec<usize> = if name.starts_with("findLast") {
        (0..items.len()).rev().collect()
    } else {
        (0..items.len()).collect()
    };
    for at in places {
        let holds = truth(&apply(at, &items[at])?)?;
        match (name, holds) {
            ("all", false) => return Ok(Value::Bool(false)),
            ("none", true) => return Ok(Value::Bool(false)),
            ("any", true) => return Ok(Value::Bool(true)),
            ("find" | "findLast", true) => return Ok(items[at].clone()),
            ("findIndex" | "findLastIndex", true) => return Ok(Value::Int(at as i64)),
            ("filter", true) => kept.push(items[at].clone()),
            (_, true) => count += 1,
            _ => {}
        }
    }
    Ok(match name {
        "all" | "none" => Value::Bool(true),
        "any" => Value::Bool(false),
        "one" => Value::Bool(count == 1),
        "count" => Value::Int(count),
        "filter" => Value::list(kept),
        _ => Value::Nil,
    })
}

fn keyed(
    ev: &Evaluator<'_>,
    name: &str,
    items: &[Value],
    rest: &[Expr],
    locals: &Locals<'_>,
    apply: &dyn Fn(usize, &Value) -> Result<Value, Stop>,
) -> Result<Value, Stop> {
    let keys = items
        .iter()
        .enumerate()
        .map(|(at, item)| apply(at, item))
        .collect::<Result<Vec<_>, _>>()?;
    match name {
        "map" => Ok(Value::list(keys)),
        "sum" => Ok(sum(&keys)?),
        "groupBy" => {
            let mut groups: IndexMap<String, Vec<Value>> = IndexMap::new();
            for (key, item) in keys.iter().zip(items) {
                groups.entry(key.to_text()).or_default().push(item.clone());
            }
            Ok(Value::map(groups.into_iter().map(|(key, items)| (key, Value::list(items)))))
        }
        _ => {
            let descending = match rest.get(1) {
                None => false,
                Some(Expr::Closure(order)) => ev.eval(order, locals)?.as_text() == Some("desc"),
                Some(order) => ev.eval(order, locals)?.as_text() == Some("desc"),
            };
            let mut places: Vec<usize> = (0..items.len()).collect();
            sort_places(&mut places, &keys, descending)?;
            Ok(Value::list(places.into_iter().map(|at| items[at].clone()).collect()))
        }
    }
}

fn sort_places(places: &mut [usize], keys: &[Value], descending: bool) -> Result<(), Error> {
    let mut unordered = None;
    places.sort_by(|&a, &b| {
        let order = keys[a].order(&keys[b]).unwrap_or_else(|| {
            unordered = Some((keys[a].kind(), keys[b].kind()));
            Ordering::Equal
        });
        if descending { order.reverse() } else { order }
    });
    match unordered {
        None => Ok(()),
        Some((a, b)) => Err(Error::eval(format!("cannot order {a} and {b}"))),
    }
}

pub(super) fn sort(items: &[Value], descending: bool) -> Result<Value, Error> {
    let mut places: Vec<usize> = (0..items.len()).collect();
    sort_places(&mut places, items, descending)?;
    Ok(Value::list(places.into_iter().map(|at| items[at].clone()).collect()))
}

pub(super) fn sum(items: &[Value]) -> Result<Value, Error> {
    let mut whole = Some(0i64);
    let mut float = 0.0;
    for item in items {
        let number = item
            .as_f64()
            .ok_or_else(|| Error::eval(format!("cannot add {} to a sum", item.kind())))?;
        float += number;
        whole = match (whole, item) {
            (Some(sum), Value::Int(n)) => Some(sum.wrapping_add(*n)),
            _ => None,
        };
    }
    Ok(whole.map_or(Value::Float(float), Value::Int))
}

fn reduce(
    ev: &Evaluator<'_>,
    items: &[Value],
    rest: &[Expr],
    locals: &Locals<'_>,
) -> Result<Value, Stop> {
    let Some(Expr::Closure(body)) = rest.first() else {
        return Err(Error::eval("reduce needs a predicate").into());
    };
    let mut items = items.iter().enumerate();
    let mut accumulator = match rest.get(1) {
        Some(Expr::Closure(start)) => ev.eval(start, locals)?,
        Some(start) => ev.eval(start, locals)?,
        None => match items.next() {
            Some((_, first)) => first.clone(),
            None => return Err(Error::eval("reduce of an empty array").into()),
        },
    };
    for (at, item) in items {
        let with_acc = locals.bind("#acc", accumulator);
        let with_index = with_acc.bind("#index", Value::Int(at as i64));
        accumulator = ev.eval(body, &with_index.bind("#", item.clone()))?;
    }
    Ok(accumulator)
}
