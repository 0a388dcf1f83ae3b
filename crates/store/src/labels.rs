//! Labels of a run as filters see them.

use kobza_model::Json;

/// Longest label that can be searched for, in bytes: an index is not a place for documents.
const MAX_BYTES: usize = 500;

/// Pairs of key and text: strings as they are, other values as JSON text; of a list, each of its
/// items is a pair of its own, so that tags can be searched one by one.
pub(crate) fn pairs(labels: &Json) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        match value {
            Json::Array(items) => pairs.extend(items.iter().map(|i| (key.clone(), plain(i)))),
            Json::Null => {}
            value => pairs.push((key.clone(), plain(value))),
        }
    }
    pairs.retain(|(key, value)| key.len() + value.len() <= MAX_BYTES);
    pairs
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_many_labels() {
        let labels = serde_json::json!({"team": "ops", "n": 3, "tags": ["a", "b"], "none": null});
        let mut pairs = pairs(&labels);
        pairs.sort();
        let expected = [("n", "3"), ("tags", "a"), ("tags", "b"), ("team", "ops")];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
