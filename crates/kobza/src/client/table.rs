//! Lists as aligned columns, things as lines of field and value.

use serde_json::Value;

/// A heading, and where its value is (a JSON pointer).
pub(super) type Column = (&'static str, &'static str);

/// A value on one line.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.replace(['\n', '\r', '\t'], " "),
        Value::Array(all) if all.iter().all(|v| !v.is_object() && !v.is_array()) => {
            let parts: Vec<String> = all.iter().map(cell).collect();
            if parts.is_empty() { "-".to_owned() } else { parts.join(",") }
        }
        Value::Object(all) if all.is_empty() => "-".to_owned(),
        Value::Object(all) if all.values().all(|v| !v.is_object() && !v.is_array()) => {
            let parts: Vec<String> = all.iter().map(|(k, v)| format!("{k}={}", cell(v))).collect();
            parts.join(",")
        }
        other => other.to_string(),
    }
}

pub(super) fn print(items: &[Value], columns: &[Column]) {
    if items.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| {
            columns.iter().map(|(_, at)| cell(item.pointer(at).unwrap_or(&Value::Null))).collect()
        })
        .collect();
    let width = |at: usize| {
        let longest = rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        longest.max(columns[at].0.len())
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let pad = width.saturating_sub(cell.chars().count());
            text += &format!("{cell}{}  ", " ".repeat(pad));
        }
        text.trim_end().to_owned()
    };
    crate::out::show!("{}", line(columns.iter().map(|c| c.0).collect()));
    for row in &rows {
        crate::out::show!("{}", line(row.iter().map(String::as_str).collect()));
    }
}

pub(super) fn print_one(value: &Value) {
    let Some(fields) = value.as_object() else {
        crate::out::show!("{}", cell(value));
        return;
    };
    let width = fields.keys().map(|key| key.chars().count()).max().unwrap_or(0);
    for (key, value) in fields {
        match value.as_str().filter(|text| text.contains('\n')) {
            Some(text) => crate::out::show!("{key}:\n  {}", text.trim_end().replace('\n', "\n  ")),
            None => crate::out::show!("{key:<width$}  {}", cell(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::cell;
    use serde_json::json;

    #[test]
    fn a_value_takes_one_line() {
        for (value, text) in [
            (json!(null), "-"),
            (json!("a\nb"), "a b"),
            (json!(["x", 1]), "x,1"),
            (json!([]), "-"),
            (json!({"a": 1, "b": null}), "a=1,b=-"),
            (json!({"a": {"b": 1}}), "{\"a\":{\"b\":1}}"),
        ] {
            assert_eq!(cell(&value), text);
        }
    }
}
