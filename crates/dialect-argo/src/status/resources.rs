//! `resourcesDuration`: seconds of a task times what its containers request, in units of one CPU and
//! of 100 MiB, as Argo counts them.

use kobza_model::{Json, TaskRow};
use serde_json::{Map, json};

/// What a container counts that requests nothing.
const MEMORY_UNIT: f64 = 100.0 * 1024.0 * 1024.0;

/// Seconds of CPU and of memory; none before the end.
pub(super) fn of(template: &Json, task: &TaskRow) -> Option<(i64, i64)> {
    let (start, end) = (task.started_at?, task.ended_at?);
    let seconds = ((end.0 - start.0).max(0) / 1_000_000) as f64;
    let (mut cpu, mut memory) = (0i64, 0i64);
    for container in containers(template) {
        let asked = |what: &str| {
            let resources = &container["resources"];
            let text = &resources["requests"][what];
            let text = if text.is_null() { &resources["limits"][what] } else { text };
            match text {
                Json::String(text) => quantity(text),
                other => other.as_f64(),
            }
        };
        // Less than one CPU counts as one.
        cpu += (asked("cpu").unwrap_or(1.0).ceil().max(0.0) * seconds) as i64;
        memory += (asked("memory").unwrap_or(MEMORY_UNIT).max(0.0) * seconds / MEMORY_UNIT) as i64;
    }
    Some((cpu, memory))
}

fn containers(template: &Json) -> Vec<&Json> {
    let mut found = Vec::new();
    for body in ["container", "script"] {
        found.extend(template.get(body));
    }
    let lists = [&template["containerSet"]["containers"], &template["sidecars"]];
    found.extend(lists.into_iter().filter_map(Json::as_array).flatten());
    if found.is_empty() {
        // Requests, and whatever else has no container of its own.
        found.push(&Json::Null);
    }
    found
}

/// A Kubernetes quantity, such as `500m`, `1.5`, `64Mi` or `2e3`.
fn quantity(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits = text.find(|c: char| c.is_ascii_alphabetic() && c != 'e').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    (number.is_finite()).then_some(number * factor)
}

/// As it is shown.
pub(super) fn shown((cpu, memory): (i64, i64)) -> Json {
    let mut shown = Map::new();
    shown.insert("cpu".to_owned(), json!(cpu));
    shown.insert("memory".to_owned(), json!(memory));
    Json::Object(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, wanted) in [
            ("500m", Some(0.5)),
            ("2", Some(2.0)),
            ("64Mi", Some(67_108_864.0)),
            ("1e3", Some(1000.0)),
            ("1.5k", Some(1500.0)),
            ("x", None),
            ("1Zi", None),
        ] {
            assert_eq!(quantity(text), wanted, "{text}");
        }
    }
}
