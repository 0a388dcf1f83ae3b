//! Sprig's functions over strings.

use super::builtins::regex;
use super::eval::Evaluator;
use super::sprig::{arg, to_int, to_text};
use super::{Error, Value};

pub(super) fn call(
    ev: &Evaluator<'_>,
    name: &str,
    values: &[Value],
) -> Result<Option<Value>, Error> {
    let text = |at| arg(name, values, at).map(to_text);
    let int = |at| arg(name, values, at).map(to_int);
    let size = |n: i64| n.clamp(0, 1 << 26) as usize;
    if let Some(value) = expressions(name, values)? {
        return Ok(Some(value));
    }
    Ok(Some(Value::str(match name {
        "toString" => text(0)?,
        "trim" => text(0)?.trim().to_owned(),
        "trimAll" => {
            let set = text(0)?;
            text(1)?.trim_matches(|c| set.contains(c)).to_owned()
        }
        "trimSuffix" => {
            let whole = text(1)?;
            whole.strip_suffix(&text(0)?).unwrap_or(&whole).to_owned()
        }
        "trimPrefix" => {
            let whole = text(1)?;
            whole.strip_prefix(&text(0)?).unwrap_or(&whole).to_owned()
        }
        "upper" => text(0)?.to_uppercase(),
        "lower" => text(0)?.to_lowercase(),
        "title" => words_mapped(&text(0)?, |c| c.to_uppercase().collect()),
        "untitle" => words_mapped(&text(0)?, |c| c.to_lowercase().collect()),
        "repeat" => {
            let (count, what) = (size(int(0)?), text(1)?);
            ev.spend(count.saturating_mul(what.len().max(1)))?;
            what.repeat(count)
        }
        "substr" => {
            let whole: Vec<char> = text(2)?.chars().collect();
            let (from, to) = (int(0)?, int(1)?);
            let from = size(from).min(whole.len());
            let to = if to < 0 { whole.len() } else { size(to).min(whole.len()) };
            whole[from..to.max(from)].iter().collect()
        }
        "nospace" => text(0)?.chars().filter(|c| !c.is_whitespace()).collect(),
        "trunc" => {
            let (n, whole) = (int(0)?, text(1)?);
            let length = whole.chars().count();
            if n < 0 {
                whole.chars().skip(length.saturating_sub(n.unsigned_abs() as usize)).collect()
            } else {
                whole.chars().take(n as usize).collect()
            }
        }
        "abbrev" => abbreviate(size(int(0)?), &text(1)?),
        "initials" => text(0)?.split_whitespace().filter_map(|w| w.chars().next()).collect(),
        "wrap" => wrap(size(int(0)?), "\n", &text(1)?),
        "wrapWith" => wrap(size(int(0)?), &text(1)?, &text(2)?),
        "quote" => join(values, |t| Value::str(t).to_json_text(None)),
        "squote" => join(values, |t| format!("'{t}'")),
        "cat" => join(values, str::to_owned),
        "indent" | "nindent" => {
            let pad = " ".repeat(size(int(0)?).min(10_000));
            let whole = text(1)?;
            ev.spend(pad.len().saturating_mul(whole.lines().count() + 1))?;
            let start = if name == "nindent" { "\n" } else { "" };
            format!("{start}{pad}{}", whole.replace('\n', &format!("\n{pad}")))
        }
        "replace" => {
            let (from, to, whole) = (text(0)?, text(1)?, text(2)?);
            let count = whole.matches(&from).count();
            ev.spend(whole.len() + count.saturating_mul(to.len()))?;
            whole.replace(&from, &to)
        }
        "plural" => {
            if int(2)? == 1 {
                text(0)?
            } else {
                text(1)?
            }
        }
        "snakecase" => cased(&text(0)?, '_'),
        "kebabcase" => cased(&text(0)?, '-'),
        "camelcase" => camel(&text(0)?),
        "swapcase" => text(0)?
            .chars()
            .flat_map(|c| -> Vec<char> {
                if c.is_uppercase() {
                    c.to_lowercase().collect()
                } else {
                    c.to_uppercase().collect()
                }
            })
            .collect(),
        "shuffle" => {
            let mut chars: Vec<char> = text(0)?.chars().collect();
            for at in (1..chars.len()).rev() {
                chars.swap(at, (ev.draw() % (at as u64 + 1)) as usize);
            }
            chars.into_iter().collect()
        }
        "randAlphaNum" | "randAlpha" | "randNumeric" | "randAscii" => {
            let alphabet: Vec<char> = match name {
                "randNumeric" => ('0'..='9').collect(),
                "randAlpha" => ('a'..='z').chain('A'..='Z').collect(),
                "randAscii" => (' '..='~').collect(),
                _ => ('a'..='z').chain('A'..='Z').chain('0'..='9').collect(),
            };
            let count = size(int(0)?);
            ev.spend(count.saturating_mul(8))?;
            (0..count).map(|_| alphabet[(ev.draw() % alphabet.len() as u64) as usize]).collect()
        }
        "contains" => return Ok(Some(Value::Bool(text(1)?.contains(&text(0)?)))),
        "hasPrefix" => return Ok(Some(Value::Bool(text(1)?.starts_with(&text(0)?)))),
        "hasSuffix" => return Ok(Some(Value::Bool(text(1)?.ends_with(&text(0)?)))),
        _ => return Ok(None),
    })))
}

fn expressions(name: &str, values: &[Value]) -> Result<Option<Value>, Error> {
    if !name.starts_with("regex") {
        return Ok(None);
    }
    let text = |at| arg(name, values, at).map(to_text);
    let pattern = regex(&text(0)?)?;
    let whole = text(1)?;
    let limit = |at: usize| -> Result<usize, Error> {
        let n = arg(name, values, at).map(to_int)?;
        Ok(if n < 0 { usize::MAX } else { n as usize })
    };
    Ok(Some(match name {
        "regexMatch" => Value::Bool(pattern.is_match(&whole)),
        "regexFind" => Value::str(pattern.find(&whole).map_or("", |m| m.as_str())),
        "regexFindAll" => Value::list(
            pattern.find_iter(&whole).take(limit(2)?).map(|m| Value::str(m.as_str())).collect(),
        ),
        // Rust's and Go's replacement texts agree on `$1`, `${name}` and `$$`.
        "regexReplaceAll" => Value::str(pattern.replace_all(&whole, text(2)?.as_str())),
        "regexReplaceAllLiteral" => {
            Value::str(pattern.replace_all(&whole, regex::NoExpand(&text(2)?)))
        }
        "regexSplit" => {
            let n = limit(2)?;
            let pieces: Vec<Value> = if n == usize::MAX {
                pattern.split(&whole).map(Value::str).collect()
            } else {
                pattern.splitn(&whole, n).map(Value::str).collect()
            };
            Value::list(pieces)
        }
        "regexQuoteMeta" => Value::str(regex::escape(&text(0)?)),
        _ => return Ok(None),
    }))
}

fn join(values: &[Value], f: impl Fn(&str) -> String) -> String {
    values
        .iter()
        .filter(|v| !matches!(v, Value::Nil))
        .map(|v| f(&to_text(v)))
        .collect::<Vec<_>>()
        .join(" ")
}

fn words_mapped(text: &str, first: impl Fn(char) -> String) -> String {
    let mut out = String::new();
    let mut start = true;
    for c in text.chars() {
        if start {
            out.push_str(&first(c))
        } else {
            out.push(c)
        }
        start = c.is_whitespace();
    }
    out
}

fn abbreviate(width: usize, text: &str) -> String {
    if width < 4 || text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - 3).collect();
    format!("{kept}...")
}

fn wrap(width: usize, by: &str, text: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            out.push_str(by);
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}

fn cased(text: &str, by: char) -> String {
    let mut out = String::new();
    let mut previous_lower = false;
    for c in text.chars() {
        if c.is_whitespace() || matches!(c, '_' | '-' | '.') {
            if !out.is_empty() && !out.ends_with(by) {
                out.push(by);
            }
            previous_lower = false;
        } else {
            if c.is_uppercase() && previous_lower {
                out.push(by);
            }
            previous_lower = c.is_lowercase() || c.is_ascii_digit();
            out.extend(c.to_lowercase());
        }
    }
    out
}

fn camel(text: &str) -> String {
    text.split(|c: char| c == '_' || c == '-' || c.is_whitespace())
        .map(|word| {
            let mut chars = word.chars();
            chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
        })
        .collect()
}

/// Major, minor, patch; pre-release.
pub(super) fn semver(text: &str) -> Option<([i64; 3], String)> {
    let text = text.trim().trim_start_matches('v');
    let text = text.split_once('+').map_or(text, |(version, _)| version);
    let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
    let mut parts = [0; 3];
    for (at, part) in numbers.split('.').enumerate() {
        *parts.get_mut(at)? = part.parse().ok()?;
    }
    Some((parts, pre.to_owned()))
}

/// Whether a version fulfils a constraint such as `>=1.2, <2`, `^1.2` or `~1.2.3`.
pub(super) fn semver_compare(constraint: &str, version: &str) -> Result<bool, String> {
    let version = semver(version).ok_or("invalid semantic version")?;
    let rank = |v: &([i64; 3], String)| (v.0, v.1.is_empty(), v.1.clone());
    let holds = |part: &str| -> Result<bool, String> {
        let part = part.trim();
        let split = part.find(|c: char| c.is_ascii_digit() || c == 'v').unwrap_or(part.len());
        let (op, wanted_text) = (part[..split].trim(), &part[split..]);
        if matches!(part, "*" | "") {
            return Ok(true);
        }
        let wanted = semver(wanted_text).ok_or("invalid version constraint")?;
        let (have, want) = (rank(&version), rank(&wanted));
        Ok(match op {
            "" | "=" | "==" => have == want,
            "!=" => have != want,
            ">" => have > want,
            ">=" | "=>" => have >= want,
            "<" => have < want,
            "<=" | "=<" => have <= want,
            "~" => have >= want && version.0[..2] == wanted.0[..2],
            "^" => {
                let fixed = wanted.0.iter().position(|n| *n != 0).unwrap_or(2);
                have >= want && version.0[..=fixed] == wanted.0[..=fixed]
            }
            other => return Err(format!("unknown operator {other:?} in a version constraint")),
        })
    };
    for alternative in constraint.split("||") {
        let mut all = true;
        for part in alternative.split(',') {
            all &= holds(part)?;
        }
        if all {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn url_parse(text: &str) -> Value {
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let hostname = host.rsplit_once(':').map_or(host, |(name, _)| name);
    Value::map(
        [
            ("scheme", scheme),
            ("userinfo", user),
            ("host", host),
            ("hostname", hostname),
            ("path", path),
            ("query", query),
            ("opaque", ""),
            ("fragment", fragment),
        ]
        .map(|(key, value)| (key.to_owned(), Value::str(value))),
    )
}
