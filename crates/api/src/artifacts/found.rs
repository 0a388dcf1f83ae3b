//! What a task's outputs hold of artifacts and notes, in a fixed order.

use std::str::FromStr as _;

use kobza_blobs::Digest;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

/// Most that is shown of one task: a task makes at most a thousand notes.
const MOST: usize = 2000;
/// How deep references are looked for.
const DEPTH: usize = 32;
/// The output that holds a task's notes.
const NOTES: &str = "$notes";

/// How something can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "PreviewKind")]
pub(crate) enum Kind {
    Table,
    Image,
    Markdown,
    Text,
    Json,
    /// In a sandboxed frame only: no script runs, nothing is loaded from elsewhere.
    Html,
    Plot,
}

/// What it is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    /// A file of the store, with what its reference says of it.
    File { digest: Digest, about: Value },
    /// A note: its value is all there is.
    Note(Value),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// The output that it is part of.
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) media_type: String,
    /// Bytes, where it is a file.
    pub(crate) size: Option<u64>,
    pub(crate) kind: Option<Kind>,
    pub(crate) body: Body,
}

/// Everything in one output, in its order.
pub(crate) fn found(key: &str, value: &Value) -> Vec<Found> {
    let mut all = Vec::new();
    if key == NOTES {
        notes(value, &mut all);
    } else {
        walk(key, key.to_owned(), value, DEPTH, &mut all);
    }
    all.truncate(MOST);
    all
}

fn walk(key: &str, name: String, value: &Value, depth: usize, all: &mut Vec<Found>) {
    if depth == 0 || all.len() >= MOST {
        return;
    }
    match value {
        Value::Object(fields) => {
            if let Some(about) = fields.get("$artifact") {
                all.extend(file(key, &name, about));
                return;
            }
            for (field, inner) in fields {
                walk(key, format!("{name}.{field}"), inner, depth - 1, all);
            }
        }
        Value::Array(items) => {
            for (place, inner) in items.iter().enumerate() {
                walk(key, format!("{name}[{place}]"), inner, depth - 1, all);
            }
        }
        _ => {}
    }
}

/// A reference, where it is a whole one.
fn file(key: &str, name: &str, about: &Value) -> Option<Found> {
    let digest = Digest::from_str(about["digest"].as_str()?).ok()?;
    let media_type = media_type(about["media_type"].as_str().unwrap_or_default());
    let kind = if about["preview"]["columns"].is_array() {
        Some(Kind::Table)
    } else if about["shape"].is_array() {
        Some(Kind::Json)
    } else {
        kind_of(&media_type)
    };
    Some(Found {
        key: key.to_owned(),
        name: about["name"].as_str().unwrap_or(name).to_owned(),
        media_type,
        size: about["bytes"].as_u64(),
        kind,
        body: Body::File { digest, about: about.clone() },
    })
}

/// A media type as a header may carry it; what is none is bytes.
fn media_type(text: &str) -> String {
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let token = |t: &str| {
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    match essence.split_once('/') {
        Some((a, b)) if token(a) && token(b) && essence.len() <= 100 => essence,
        _ => "application/octet-stream".to_owned(),
    }
}

fn kind_of(media_type: &str) -> Option<Kind> {
    match media_type {
        "text/csv" | "text/tab-separated-values" => Some(Kind::Table),
        "image/svg+xml" | "text/html" | "application/xhtml+xml" => Some(Kind::Html),
        "image/png" | "image/jpeg" | "image/gif" | "image/webp" | "image/avif" | "image/bmp" => {
            Some(Kind::Image)
        }
        "text/markdown" => Some(Kind::Markdown),
        "application/json" => Some(Kind::Json),
        "application/yaml" | "application/xml" | "application/toml" => Some(Kind::Text),
        other if other.ends_with("+json") => Some(Kind::Json),
        other if other.starts_with("text/") => Some(Kind::Text),
        _ => None,
    }
}

fn notes(value: &Value, all: &mut Vec<Found>) {
    // Metrics are told together: numbers in a table, those with steps each as a curve.
    let mut numbers = Vec::new();
    let mut curves: Vec<(String, Vec<Value>, Vec<Value>)> = Vec::new();
    for (place, note) in value.as_array().into_iter().flatten().enumerate() {
        let name = note["name"].as_str().map(str::to_owned);
        let kind = note["kind"].as_str().unwrap_or_default();
        let shown = match kind {
            "markdown" => ("text/markdown", Kind::Markdown),
            "table" => ("application/json", Kind::Table),
            "plot" => ("application/json", Kind::Plot),
            "image" => {
                let name = name.unwrap_or_else(|| format!("image {}", place + 1));
                let mut image = file(NOTES, &name, &note["artifact"]["$artifact"]);
                if let (Some(image), Some(own)) = (&mut image, note["name"].as_str()) {
                    own.clone_into(&mut image.name);
                }
                all.extend(image);
                continue;
            }
            "metric" => {
                let name = name.unwrap_or_default();
                if note["step"].is_null() {
                    numbers.push(json!([name, note["value"]]));
                } else if let Some(curve) = curves.iter_mut().find(|c| c.0 == name) {
                    curve.1.push(note["step"].clone());
                    curve.2.push(note["value"].clone());
                } else {
                    curves.push((name, vec![note["step"].clone()], vec![note["value"].clone()]));
                }
                continue;
            }
            _ => continue,
        };
        let name = name.unwrap_or_else(|| format!("{kind} {}", place + 1));
        all.push(note_of(name, shown, note.clone()));
    }
    for (name, x, y) in curves {
        let mut series = serde_json::Map::new();
        series.insert(name.clone(), Value::Array(y));
        let note = json!({"kind": "plot", "plot": "line", "x": x, "series": series});
        all.push(note_of(name, ("application/json", Kind::Plot), note));
    }
    if !numbers.is_empty() {
        let note = json!({"kind": "table", "columns": ["metric", "value"], "rows": numbers});
        all.push(note_of("metrics".to_owned(), ("application/json", Kind::Table), note));
    }
}

fn note_of(name: String, (media_type, kind): (&str, Kind), note: Value) -> Found {
    Found {
        key: NOTES.to_owned(),
        name,
        media_type: media_type.to_owned(),
        size: None,
        kind: Some(kind),
        body: Body::Note(note),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(more: &Value) -> Value {
        let mut about = json!({"digest": "ab".repeat(32), "type": "file", "bytes": 5});
        for (key, value) in more.as_object().unwrap() {
            about[key] = value.clone();
        }
        json!({"$artifact": about})
    }

    #[test]
    fn references_are_found_wherever_they_are() {
        let value = json!({
            "rows": reference(&json!({"preview": {"columns": ["a"], "rows": [[1]]}, "rows": 1})),
            "files": [1, reference(&json!({"media_type": "Image/PNG; q=1", "name": "p.png"}))],
        });
        let all = found("result", &value);
        let told: Vec<_> = all.iter().map(|f| (f.name.as_str(), f.kind)).collect();
        assert_eq!(told, [("result.rows", Some(Kind::Table)), ("p.png", Some(Kind::Image))]);
        assert_eq!(all[1].media_type, "image/png");
        assert_eq!(all[1].size, Some(5));
    }

    #[test]
    fn what_is_no_reference_is_passed_over() {
        for bad in [
            json!({"$artifact": {}}),
            json!({"$artifact": {"digest": "../../etc/passwd", "bytes": 1}}),
            json!({"$artifact": 5}),
            json!("$artifact"),
        ] {
            assert_eq!(found("result", &bad), [], "{bad}");
        }
        let mut deep = reference(&json!({}));
        for _ in 0..100 {
            deep = json!([deep]);
        }
        assert_eq!(found("result", &deep), []);
    }

    #[test]
    fn a_media_type_cannot_add_headers() {
        for bad in ["text/html\r\nset-cookie: a=b", "x", "", "a/b/c", "ä/ö"] {
            let all = found("r", &reference(&json!({"media_type": bad})));
            assert_eq!(all[0].media_type, "application/octet-stream", "{bad}");
        }
    }

    #[test]
    fn metrics_are_told_together() {
        let all = found(
            NOTES,
            &json!([
                {"kind": "metric", "name": "loss", "value": 0.5, "step": 1},
                {"kind": "metric", "name": "auc", "value": 0.9},
                {"kind": "metric", "name": "loss", "value": 0.4, "step": 2},
                {"kind": "markdown", "name": null, "text": "# hello"},
                {"kind": "unheard of"},
            ]),
        );
        let told: Vec<_> = all.iter().map(|f| (f.name.as_str(), f.kind.unwrap())).collect();
        assert_eq!(
            told,
            [("markdown 4", Kind::Markdown), ("loss", Kind::Plot), ("metrics", Kind::Table)]
        );
        let Body::Note(curve) = &all[1].body else { panic!("{all:?}") };
        assert_eq!((&curve["x"], &curve["series"]), (&json!([1, 2]), &json!({"loss": [0.5, 0.4]})));
    }
}
