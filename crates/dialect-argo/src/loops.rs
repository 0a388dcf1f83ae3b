//! Loops: the items of `withItems`, `withParam` and `withSequence`.

use kobza_engine::Decision;
use kobza_expr::argo_template::{substitute, substitute_json};
use kobza_model::{Cause, Json, NodeNo, ScopeNo};
use kobza_runtime::Facts;

use crate::decide::{Answer, call_of, condition, skipped};
use crate::values::Values;

/// Longest loop. A longer `withSequence` is a mistake, and would make as many tasks.
pub const LOOP_MAX: u64 = 1_000_000;

/// The items of a loop.
pub(crate) fn expand(scope: ScopeNo, node: Option<NodeNo>, facts: &dyn Facts) -> Answer {
    let arguments = call_of(facts, scope, node).unwrap_or(&Json::Null);
    let call = &arguments["call"];
    let values = Values::new(facts, Some(scope));
    // A condition that does not look at the item holds or fails for the loop as a whole.
    if let Some(when) = call["when"].as_str().filter(|w| !w.trim().is_empty())
        && !when.contains("item")
        && let Some(text) = condition(when, &values)?
    {
        return Ok(skipped(&text));
    }
    let items = if let Some(items) = call["withItems"].as_array() {
        let items: Result<Vec<Json>, _> =
            items.iter().map(|item| substitute_json(item, &values)).collect();
        items.map_err(|e| e.to_string())?
    } else if let Some(text) = call["withParam"].as_str() {
        let text = substitute(text, &values).map_err(|e| e.to_string())?;
        match serde_json::from_str(text.trim()) {
            Ok(Json::Array(items)) => items,
            _ => {
                let shown: String = text.chars().take(200).collect();
                return Err(format!("withParam value could not be parsed as a JSON list: {shown}"));
            }
        }
    } else {
        sequence(&call["withSequence"], &values)?
    };
    if items.len() as u64 > LOOP_MAX {
        return Err(format!("a loop has at most {LOOP_MAX} items; this one has {}", items.len()));
    }
    if items.is_empty() {
        return Ok(Decision::Skip {
            cause: Cause::Empty,
            message: Some("Skipped, empty params".to_owned()),
        });
    }
    let length = u32::try_from(items.len()).unwrap_or(u32::MAX);
    Ok(Decision::Expand { length, items: Some(Json::Array(items)), inputs: Json::Null })
}

fn sequence(spec: &Json, values: &Values<'_>) -> Result<Vec<Json>, String> {
    let number = |key: &str| -> Result<Option<i64>, String> {
        let Some(text) = spec[key].as_str() else { return Ok(None) };
        let text = substitute(text, values).map_err(|e| e.to_string())?;
        text.trim()
            .parse()
            .map(Some)
            .map_err(|_| format!("withSequence.{key} {text:?} is not a whole number"))
    };
    let start = number("start")?.unwrap_or(0);
    let (end, count) = (number("end")?, number("count")?);
    let (end, empty) = match (end, count) {
        (Some(_), Some(_)) => {
            return Err("only one of withSequence.count and .end may be used".to_owned());
        }
        (Some(end), None) => (end, false),
        (None, Some(count)) => (start.saturating_add(count - 1), count <= 0),
        (None, None) => return Err("withSequence needs count or end".to_owned()),
    };
    if empty {
        return Ok(Vec::new());
    }
    let length = start.abs_diff(end).saturating_add(1);
    if length > LOOP_MAX {
        return Err(format!("a loop has at most {LOOP_MAX} items; this one has {length}"));
    }
    let format = spec["format"].as_str().unwrap_or("%d");
    let step: i64 = if end < start { -1 } else { 1 };
    (0..length)
        .map(|at| {
            let n = start + step * i64::try_from(at).unwrap_or(0);
            print_number(format, n).map(Json::String)
        })
        .collect()
}

/// `printf` with one whole number.
fn print_number(format: &str, n: i64) -> Result<String, String> {
    let bad = || format!("withSequence.format {format:?} cannot print a number");
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let (mut zero, mut left, mut plus) = (false, false, false);
        while let Some(flag) = chars.next_if(|c| matches!(c, '0' | '-' | '+' | '#' | ' ')) {
            zero |= flag == '0';
            left |= flag == '-';
            plus |= flag == '+';
        }
        let mut width = 0usize;
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            width = (width * 10 + digit.to_digit(10).unwrap_or(0) as usize).min(1000);
        }
        let digits = match chars.next().ok_or_else(bad)? {
            'd' | 'v' => n.unsigned_abs().to_string(),
            'x' => format!("{:x}", n.unsigned_abs()),
            'X' => format!("{:X}", n.unsigned_abs()),
            'o' => format!("{:o}", n.unsigned_abs()),
            'b' => format!("{:b}", n.unsigned_abs()),
            _ => return Err(bad()),
        };
        let sign = if n < 0 {
            "-"
        } else if plus {
            "+"
        } else {
            ""
        };
        let fill = width.saturating_sub(digits.len() + sign.len());
        match (left, zero) {
            (true, _) => out.push_str(&format!("{sign}{digits}{}", " ".repeat(fill))),
            (false, true) => out.push_str(&format!("{sign}{}{digits}", "0".repeat(fill))),
            (false, false) => out.push_str(&format!("{}{sign}{digits}", " ".repeat(fill))),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed() {
        for (format, n, wanted) in [
            ("%d", 5, "5"),
            ("testuser%02X", 10, "testuser0A"),
            ("%05d", -42, "-0042"),
            ("%-4d|", 7, "7   |"),
            ("%+d%%", 3, "+3%"),
        ] {
            assert_eq!(print_number(format, n).as_deref(), Ok(wanted), "{format}");
        }
        assert!(print_number("%s", 1).is_err());
        assert!(print_number("%", 1).is_err());
    }
}
