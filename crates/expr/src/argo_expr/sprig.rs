//! The function set that Go templates know as Sprig: arithmetic, defaults, types, encodings; lists,
//! dictionaries, strings and dates are beside.

use sha2::Digest as _;

use super::eval::Evaluator;
use super::{Error, Value, sprig_dates, sprig_dicts, sprig_lists, sprig_strings};

pub(super) fn call(ev: &Evaluator<'_>, name: &str, values: &[Value]) -> Result<Value, Error> {
    // `mustX` differs from `X` only in how Go reports errors.
    let plain = match name.strip_prefix("must") {
        Some(rest) if !rest.is_empty() => {
            let mut chars = rest.chars();
            let first = chars.next().map(|c| c.to_ascii_lowercase());
            first.into_iter().chain(chars).collect::<String>()
        }
        _ => name.to_owned(),
    };
    for group in [
        numbers as fn(&Evaluator<'_>, &str, &[Value]) -> Result<Option<Value>, Error>,
        sprig_strings::call,
        sprig_lists::call,
        sprig_dicts::call,
        sprig_dates::call,
        general,
    ] {
        if let Some(value) = group(ev, &plain, values)? {
            ev.spend(value.weight())?;
            return Ok(value);
        }
    }
    Err(Error::UnknownName(format!("sprig.{name}")))
}

/// Whole number of anything, 0 where there is none, as Sprig's lenient casts do.
pub(super) fn to_int(value: &Value) -> i64 {
    match value {
        Value::Int(n) | Value::Duration(n) => *n,
        Value::Float(n) => *n as i64,
        Value::Bool(b) => i64::from(*b),
        Value::Str(text) => {
            let text = text.trim();
            text.parse().unwrap_or_else(|_| {
                text.split_once('.')
                    .filter(|(_, fraction)| fraction.bytes().all(|b| b == b'0'))
                    .and_then(|(whole, _)| whole.parse().ok())
                    .unwrap_or(0)
            })
        }
        _ => 0,
    }
}

fn to_float(value: &Value) -> f64 {
    match value {
        Value::Float(n) => *n,
        Value::Str(text) => text.trim().parse().unwrap_or(0.0),
        other => to_int(other) as f64,
    }
}

pub(super) fn arg<'a>(name: &str, values: &'a [Value], at: usize) -> Result<&'a Value, Error> {
    values.get(at).ok_or_else(|| Error::eval(format!("not enough arguments to call sprig.{name}")))
}

/// Text of anything, as Sprig's `toString`.
pub(super) fn to_text(value: &Value) -> String {
    value.to_text()
}

/// What Sprig takes for empty.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Nil => true,
        Value::Bool(b) => !b,
        Value::Int(n) | Value::Duration(n) => *n == 0,
        Value::Float(n) => *n == 0.0,
        Value::Str(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Time(_) => false,
    }
}

fn numbers(ev: &Evaluator<'_>, name: &str, values: &[Value]) -> Result<Option<Value>, Error> {
    let a = |at| arg(name, values, at);
    let ints = || values.iter().map(to_int);
    let floats = || values.iter().map(to_float);
    let nonzero = |n: i64| {
        if n == 0 { Err(Error::eval("integer divide by zero")) } else { Ok(n) }
    };
    Ok(Some(match name {
        "int" | "int64" => Value::Int(to_int(a(0)?)),
        "float64" => Value::Float(to_float(a(0)?)),
        "atoi" => Value::Int(to_text(a(0)?).parse().unwrap_or(0)),
        "toDecimal" => Value::Int(i64::from_str_radix(&to_text(a(0)?), 8).unwrap_or(0)),
        "add" => Value::Int(ints().fold(0, i64::wrapping_add)),
        "add1" => Value::Int(to_int(a(0)?).wrapping_add(1)),
        "sub" => Value::Int(to_int(a(0)?).wrapping_sub(to_int(a(1)?))),
        "mul" => Value::Int(ints().fold(1, i64::wrapping_mul)),
        "div" => Value::Int(to_int(a(0)?).wrapping_div(nonzero(to_int(a(1)?))?)),
        "mod" => Value::Int(to_int(a(0)?).wrapping_rem(nonzero(to_int(a(1)?))?)),
        "max" | "biggest" => Value::Int(ints().max().unwrap_or(0)),
        "min" => Value::Int(ints().min().unwrap_or(0)),
        "addf" => Value::Float(floats().sum()),
        "add1f" => Value::Float(to_float(a(0)?) + 1.0),
        "subf" => Value::Float(to_float(a(0)?) - values[1..].iter().map(to_float).sum::<f64>()),
        "mulf" => Value::Float(floats().product()),
        "divf" => {
            Value::Float(values[1..].iter().map(to_float).fold(to_float(a(0)?), |x, y| x / y))
        }
        "maxf" => Value::Float(floats().fold(f64::NEG_INFINITY, f64::max)),
        "minf" => Value::Float(floats().fold(f64::INFINITY, f64::min)),
        "floor" => Value::Float(to_float(a(0)?).floor()),
        "ceil" => Value::Float(to_float(a(0)?).ceil()),
        "round" => {
            let scale = 10f64.powi(values.get(1).map_or(0, to_int).clamp(-300, 300) as i32);
            Value::Float((to_float(a(0)?) * scale).round() / scale)
        }
        "randInt" => {
            let (low, high) = (to_int(a(0)?), to_int(a(1)?));
            let range = high.wrapping_sub(low);
            if range <= 0 {
                return Err(Error::eval("sprig.randInt needs a range"));
            }
            Value::Int(low + (ev.draw() % range as u64) as i64)
        }
        _ => return Ok(None),
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn general(ev: &Evaluator<'_>, name: &str, values: &[Value]) -> Result<Option<Value>, Error> {
    let a = |at| arg(name, values, at);
    let text = |at| a(at).map(to_text);
    Ok(Some(match name {
        "default" => {
            let given = values.get(1).unwrap_or(&Value::Nil);
            if is_empty(given) { a(0)?.clone() } else { given.clone() }
        }
        "empty" => Value::Bool(is_empty(a(0)?)),
        "coalesce" => values.iter().find(|v| !is_empty(v)).cloned().unwrap_or_default(),
        "all" => Value::Bool(!values.iter().any(is_empty)),
        "any" => Value::Bool(!values.iter().all(is_empty)),
        "ternary" => match a(2)? {
            Value::Bool(true) => a(0)?.clone(),
            _ => a(1)?.clone(),
        },
        "fail" => return Err(Error::eval(text(0)?)),
        "toJson" | "toRawJson" => {
            let json = a(0)?.to_json_text(None);
            Value::str(if name == "toJson" { json } else { unescape_html(&json) })
        }
        "toPrettyJson" => Value::str(a(0)?.to_json_text(Some("  "))),
        "fromJson" => serde_json::from_str::<serde_json::Value>(&text(0)?)
            .map(|json| Value::from(&json))
            .unwrap_or_default(),
        "kindOf" | "typeOf" => Value::str(kind(a(0)?)),
        "kindIs" | "typeIs" | "typeIsLike" => Value::Bool(kind(a(1)?) == text(0)?),
        "deepEqual" => Value::Bool(a(0)? == a(1)?),
        "deepCopy" => a(0)?.clone(),
        "b64enc" => {
            use base64::Engine as _;
            Value::str(base64::engine::general_purpose::STANDARD.encode(text(0)?))
        }
        "b64dec" => {
            Value::str(super::builtins::decode_base64(&text(0)?).unwrap_or_else(|e| e.to_string()))
        }
        "sha256sum" => Value::str(hex(&sha2::Sha256::digest(text(0)?))),
        "sha512sum" => Value::str(hex(&sha2::Sha512::digest(text(0)?))),
        "adler32sum" => {
            let (mut low, mut high) = (1u32, 0u32);
            for byte in text(0)?.bytes() {
                low = (low + u32::from(byte)) % 65521;
                high = (high + low) % 65521;
            }
            Value::str(((high << 16) | low).to_string())
        }
        "uuidv4" => {
            let (high, low) = (ev.draw(), ev.draw());
            let high = (high & !0xf000) | 0x4000;
            let low = (low & !(0b11 << 62)) | (0b10 << 62);
            Value::str(format!(
                "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                high >> 32,
                (high >> 16) & 0xffff,
                high & 0xffff,
                low >> 48,
                low & 0xffff_ffff_ffff
            ))
        }
        "base" => Value::str(path_base(&text(0)?)),
        "dir" => Value::str(path_dir(&text(0)?)),
        "ext" => {
            let path = text(0)?;
            let name = path.rsplit('/').next().unwrap_or("");
            Value::str(name.rfind('.').map_or("", |at| &name[at..]))
        }
        "clean" => Value::str(path_clean(&text(0)?)),
        "isAbs" => Value::Bool(text(0)?.starts_with('/')),
        "semver" => {
            let version = sprig_strings::semver(&text(0)?)
                .ok_or_else(|| Error::eval("invalid semantic version"))?;
            Value::map([
                ("Major".to_owned(), Value::Int(version.0[0])),
                ("Minor".to_owned(), Value::Int(version.0[1])),
                ("Patch".to_owned(), Value::Int(version.0[2])),
                ("Prerelease".to_owned(), Value::str(version.1)),
            ])
        }
        "semverCompare" => {
            Value::Bool(sprig_strings::semver_compare(&text(0)?, &text(1)?).map_err(Error::eval)?)
        }
        "urlParse" => sprig_strings::url_parse(&text(0)?),
        _ => return Ok(None),
    }))
}

fn unescape_html(json: &str) -> String {
    json.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Nil => "invalid",
        Value::Float(_) => "float64",
        Value::List(_) => "slice",
        Value::Time(_) => "struct",
        Value::Duration(_) => "int64",
        other => other.kind(),
    }
}

fn path_clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.last().is_some_and(|p| *p != "..") {
                    parts.pop();
                } else if !rooted {
                    parts.push("..");
                }
            }
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, joined) => format!("/{joined}"),
        (false, joined) if joined.is_empty() => ".".to_owned(),
        (false, joined) => joined,
    }
}

fn path_base(path: &str) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/".to_owned();
    }
    trimmed.rsplit('/').next().unwrap_or("").to_owned()
}

fn path_dir(path: &str) -> String {
    match path.rfind('/') {
        Some(at) => path_clean(&path[..=at]),
        None => ".".to_owned(),
    }
}
