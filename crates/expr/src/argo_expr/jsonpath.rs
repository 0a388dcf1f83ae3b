//! JSONPath: members, indexes, slices, wildcards, descent and simple filters.

use serde_json::Value as Json;

/// The value at a path. A path that can mean only one place answers that value, any other a list.
pub fn query(document: &Json, path: &str) -> Result<Json, String> {
    let steps = parse(path)?;
    let definite = steps.iter().all(|s| matches!(s, Step::Key(_) | Step::Index(_)));
    let mut found = vec![document];
    for step in &steps {
        let mut next = Vec::new();
        for value in found {
            step.apply(value, &mut next);
        }
        if next.len() > 1_000_000 {
            return Err("the path finds too much".to_owned());
        }
        found = next;
    }
    if definite {
        return found
            .first()
            .map(|v| (*v).clone())
            .ok_or_else(|| format!("key not found: {path} finds nothing"));
    }
    Ok(found.into_iter().cloned().collect())
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(i64),
    Keys(Vec<String>),
    Indexes(Vec<i64>),
    Slice(Option<i64>, Option<i64>, i64),
    All,
    /// `..`: the value and everything below; the next step applies to each.
    Descend,
    Filter(Filter),
}

#[derive(Debug)]
struct Filter {
    path: Vec<Step>,
    /// None: existence.
    compare: Option<(String, Json)>,
}

fn place(index: i64, length: usize) -> Option<usize> {
    let at = if index < 0 { length as i64 + index } else { index };
    usize::try_from(at).ok().filter(|at| *at < length)
}

impl Step {
    fn apply<'a>(&self, value: &'a Json, out: &mut Vec<&'a Json>) {
        match (self, value) {
            (Self::Key(key), Json::Object(map)) => out.extend(map.get(key)),
            (Self::Key(key), Json::Array(items)) if key == "length" => {
                let _ = items;
            }
            (Self::Index(index), Json::Array(items)) => {
                out.extend(place(*index, items.len()).map(|at| &items[at]));
            }
            (Self::Keys(keys), Json::Object(map)) => {
                out.extend(keys.iter().filter_map(|key| map.get(key)));
            }
            (Self::Indexes(indexes), Json::Array(items)) => {
                out.extend(
                    indexes.iter().filter_map(|i| place(*i, items.len())).map(|i| &items[i]),
                );
            }
            (Self::Slice(from, to, step), Json::Array(items)) => {
                let length = items.len() as i64;
                let clamp = |n: i64| (if n < 0 { length + n } else { n }).clamp(0, length);
                let (mut at, end) = (clamp(from.unwrap_or(0)), clamp(to.unwrap_or(length)));
                while at < end {
                    out.push(&items[at as usize]);
                    at += step.max(&1);
                }
            }
            (Self::All, Json::Array(items)) => out.extend(items),
            (Self::All, Json::Object(map)) => out.extend(map.values()),
            (Self::Descend, value) => descend(value, out),
            (Self::Filter(filter), Json::Array(items)) => {
                out.extend(items.iter().filter(|item| filter.holds(item)));
            }
            (Self::Filter(filter), Json::Object(map)) => {
                out.extend(map.values().filter(|item| filter.holds(item)));
            }
            _ => {}
        }
    }
}

fn descend<'a>(value: &'a Json, out: &mut Vec<&'a Json>) {
    out.push(value);
    match value {
        Json::Array(items) => items.iter().for_each(|v| descend(v, out)),
        Json::Object(map) => map.values().for_each(|v| descend(v, out)),
        _ => {}
    }
}

impl Filter {
    fn holds(&self, item: &Json) -> bool {
        let mut found = vec![item];
        for step in &self.path {
            let mut next = Vec::new();
            found.iter().for_each(|value| step.apply(value, &mut next));
            found = next;
        }
        let Some((op, right)) = &self.compare else { return !found.is_empty() };
        let Some(left) = found.first() else { return false };
        let order = match (left, right) {
            (Json::Number(a), Json::Number(b)) => {
                a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b))
            }
            (Json::String(a), Json::String(b)) => Some(a.cmp(b)),
            _ => None,
        };
        match op.as_str() {
            "==" => *left == right || order.is_some_and(std::cmp::Ordering::is_eq),
            "!=" => *left != right && !order.is_some_and(std::cmp::Ordering::is_eq),
            "<" => order.is_some_and(std::cmp::Ordering::is_lt),
            "<=" => order.is_some_and(std::cmp::Ordering::is_le),
            ">" => order.is_some_and(std::cmp::Ordering::is_gt),
            _ => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }
}

fn parse(path: &str) -> Result<Vec<Step>, String> {
    let path = path.trim();
    let mut rest = path.strip_prefix(['$', '@']).unwrap_or(path);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if steps.len() > 256 {
            return Err("the path has too many steps".to_owned());
        }
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Descend);
            rest = after;
            if rest.starts_with('[') {
                continue;
            }
            rest = key(rest, &mut steps)?;
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = key(after, &mut steps)?;
        } else if rest.starts_with('[') {
            let end = closing(rest).ok_or_else(|| format!("{path:?}: unclosed ["))?;
            steps.push(bracket(rest[1..end].trim())?);
            rest = &rest[end + 1..];
        } else if steps.is_empty() {
            rest = key(rest, &mut steps)?;
        } else {
            return Err(format!("{path:?}: unexpected {rest:?}"));
        }
    }
    Ok(steps)
}

fn key<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, String> {
    let end = text.find(['.', '[']).unwrap_or(text.len());
    match &text[..end] {
        "" => return Err("a path has an empty name".to_owned()),
        "*" => steps.push(Step::All),
        name => steps.push(Step::Key(name.to_owned())),
    }
    Ok(&text[end..])
}

/// The place of the bracket that closes the first one, quotes respected.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<String> {
    let text = text.trim();
    let inner = text
        .strip_prefix('\'')
        .and_then(|t| t.strip_suffix('\''))
        .or_else(|| text.strip_prefix('"').and_then(|t| t.strip_suffix('"')))?;
    Some(inner.to_owned())
}

fn bracket(text: &str) -> Result<Step, String> {
    let bad = || format!("cannot read [{text}] in a path");
    if text == "*" {
        return Ok(Step::All);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return filter_of(filter.trim()).map(Step::Filter);
    }
    if let Some(key) = quoted(text).filter(|k| !k.contains('\'')) {
        return Ok(Step::Key(key));
    }
    if text.contains(',') {
        let parts: Vec<&str> = text.split(',').collect();
        if let Some(keys) = parts.iter().map(|p| quoted(p)).collect::<Option<Vec<_>>>() {
            return Ok(Step::Keys(keys));
        }
        let indexes = parts.iter().map(|p| p.trim().parse()).collect::<Result<_, _>>();
        return indexes.map(Step::Indexes).map_err(|_| bad());
    }
    if text.contains(':') {
        let mut numbers = text.split(':').map(|part| match part.trim() {
            "" => Ok(None),
            number => number.parse().map(Some).map_err(|_| bad()),
        });
        let mut next = || numbers.next().unwrap_or(Ok(None));
        return Ok(Step::Slice(next()?, next()?, next()?.unwrap_or(1)));
    }
    text.parse().map(Step::Index).map_err(|_| bad())
}

fn filter_of(text: &str) -> Result<Filter, String> {
    for op in ["==", "!=", "<=", ">=", "<", ">"] {
        if let Some((left, right)) = text.split_once(op) {
            let right = match quoted(right) {
                Some(text) => Json::String(text),
                None => serde_json::from_str(right.trim())
                    .map_err(|_| format!("cannot read {right:?} in a filter"))?,
            };
            return Ok(Filter { path: parse(left)?, compare: Some((op.to_owned(), right)) });
        }
    }
    Ok(Filter { path: parse(text)?, compare: None })
}
