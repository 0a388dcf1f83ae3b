//! Airflow's `{"__type", "__var"}` encoding, taken off.

use kobza_model::Json;

/// The value without the encoding's wrappers: lists for tuples and sets, numbers for dates (seconds
/// since the epoch) and durations (seconds). What has no plain form keeps its wrapper.
#[must_use]
pub fn plain(value: &Json) -> Json {
    match value {
        Json::Array(items) => items.iter().map(plain).collect(),
        Json::Object(fields) => match (fields.get("__type"), fields.get("__var")) {
            (Some(Json::String(kind)), Some(inner)) => match kind.as_str() {
                "dict" | "tuple" | "set" | "frozenset" | "timedelta" | "datetime" | "timezone"
                | "param" => plain(inner),
                _ => value.clone(),
            },
            _ => fields.iter().map(|(name, inner)| (name.clone(), plain(inner))).collect(),
        },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::plain;

    #[test]
    fn wrappers_are_taken_off_where_a_plain_form_exists() {
        let written = json!({"__type": "dict", "__var": {
            "a": {"__type": "tuple", "__var": [1, {"__type": "timedelta", "__var": 300.0}]},
            "b": {"__type": "xcomref", "__var": {"task_id": "t", "key": "k"}},
        }});
        let read = json!({
            "a": [1, 300.0],
            "b": {"__type": "xcomref", "__var": {"task_id": "t", "key": "k"}},
        });
        assert_eq!(plain(&written), read);
    }
}
