//! Label and field selectors, and the `fields` parameter.

use kobza_model::Json;
use serde_json::Map;

/// Whether labels fulfil a selector such as `a=b,c!=d,e in (f,g),!h,i`.
pub(crate) fn labels_match(selector: &str, labels: &Json) -> Result<bool, String> {
    for requirement in split(selector) {
        let requirement = requirement.trim();
        if requirement.is_empty() {
            continue;
        }
        if !holds(requirement, labels)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// At commas outside of parentheses.
fn split(selector: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0);
    for (at, c) in selector.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&selector[start..]);
    parts
}

fn holds(requirement: &str, labels: &Json) -> Result<bool, String> {
    let value = |key: &str| labels[key.trim()].as_str();
    for (word, wanted) in [(" notin ", false), (" in ", true)] {
        if let Some((key, rest)) = requirement.split_once(word) {
            let list = rest
                .trim()
                .strip_prefix('(')
                .and_then(|r| r.strip_suffix(')'))
                .ok_or_else(|| format!("selector {requirement:?}: expected a list in ()"))?;
            let found = value(key).is_some_and(|v| list.split(',').any(|item| item.trim() == v));
            return Ok(found == wanted);
        }
    }
    if let Some((key, wanted)) = requirement.split_once("!=") {
        return Ok(value(key) != Some(wanted.trim()));
    }
    if let Some((key, wanted)) = requirement.split_once("==").or(requirement.split_once('=')) {
        return Ok(value(key) == Some(wanted.trim()));
    }
    if let Some(key) = requirement.strip_prefix('!') {
        return Ok(value(key).is_none());
    }
    if requirement.contains(char::is_whitespace) {
        return Err(format!("cannot read selector {requirement:?}"));
    }
    Ok(value(requirement).is_some())
}

/// `metadata.name` and `metadata.namespace` of a field selector.
pub(crate) fn field<'a>(selector: &'a str, field: &str) -> Option<&'a str> {
    selector.split(',').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        (key.trim() == field).then(|| value.trim_start_matches('=').trim())
    })
}

/// Keeps (`a.b,c`) or drops (`-a.b,c`) fields. Lists are looked into.
pub(crate) fn fields(object: Json, wanted: &str) -> Json {
    if wanted.is_empty() {
        return object;
    }
    let (drop, list) = match wanted.strip_prefix('-') {
        Some(list) => (true, list),
        None => (false, wanted),
    };
    let paths: Vec<Vec<&str>> = list.split(',').map(|p| p.trim().split('.').collect()).collect();
    let paths: Vec<&[&str]> = paths.iter().map(Vec::as_slice).collect();
    if drop { without(object, &paths) } else { only(&object, &paths) }
}

fn below<'a>(key: &str, paths: &[&'a [&'a str]]) -> Vec<&'a [&'a str]> {
    paths.iter().filter(|p| p.first() == Some(&key)).map(|p| &p[1..]).collect()
}

fn only(json: &Json, paths: &[&[&str]]) -> Json {
    if paths.iter().any(|p| p.is_empty()) {
        return json.clone();
    }
    match json {
        Json::Object(fields) => {
            let mut out = Map::new();
            for (key, value) in fields {
                let inner = below(key, paths);
                if !inner.is_empty() {
                    out.insert(key.clone(), only(value, &inner));
                }
            }
            Json::Object(out)
        }
        Json::Array(items) => items.iter().map(|item| only(item, paths)).collect(),
        other => other.clone(),
    }
}

fn without(json: Json, paths: &[&[&str]]) -> Json {
    match json {
        Json::Object(fields) => {
            let mut out = Map::new();
            for (key, value) in fields {
                let inner = below(&key, paths);
                if inner.iter().any(|p| p.is_empty()) {
                    continue;
                }
                let value = if inner.is_empty() { value } else { without(value, &inner) };
                out.insert(key, value);
            }
            Json::Object(out)
        }
        Json::Array(items) => items.into_iter().map(|item| without(item, paths)).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors() {
        let labels = json!({ "a/phase": "Running", "b": "x" });
        for (selector, wanted) in [
            ("", true),
            ("a/phase=Running", true),
            ("a/phase == Running,b", true),
            ("a/phase in (Pending, Running)", true),
            ("a/phase notin (Pending),b!=y", true),
            ("!c", true),
            ("c", false),
            ("b=y", false),
            ("a/phase in (Failed)", false),
        ] {
            assert_eq!(labels_match(selector, &labels), Ok(wanted), "{selector}");
        }
        assert!(labels_match("a b", &labels).is_err());
        assert_eq!(field("metadata.name=x,metadata.namespace=n", "metadata.name"), Some("x"));
    }

    #[test]
    fn fields_are_kept_or_dropped() {
        let object = || json!({ "items": [{ "a": { "b": 1, "c": 2 }, "d": 3 }], "m": 4 });
        assert_eq!(
            fields(object(), "items.a.b,m"),
            json!({ "items": [{ "a": { "b": 1 } }], "m": 4 })
        );
        assert_eq!(
            fields(object(), "-items.a.b,m"),
            json!({ "items": [{ "a": { "c": 2 }, "d": 3 }] })
        );
    }
}
