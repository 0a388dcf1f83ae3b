//! The description of the API that is checked in is the one that the handlers make.

use std::collections::BTreeSet;

use serde_json::Value;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn pretty() -> String {
    serde_json::to_string_pretty(&kobza_api::openapi_document()).unwrap() + "\n"
}

#[test]
fn the_description_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let made = pretty();
    if std::env::var_os("KOBZA_BLESS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/openapi.json is not what the handlers say: \
         write it anew with `kobza schema openapi > docs/openapi.json`"
    );
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = kobza_api::openapi_document();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            described.insert((method.to_uppercase(), path.clone()));
        }
    }
    let mounted: BTreeSet<(String, String)> =
        kobza_api::access().into_iter().map(|r| (r.method.to_owned(), r.path)).collect();
    assert_eq!(described, mounted);
}

/// All places of a document that refer to another.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

#[test]
fn the_description_holds_together() {
    let document = kobza_api::openapi_document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    // A generated name with a number is one that means two things.
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(!name.ends_with(|c: char| c.is_ascii_digit()), "{name} is a name of two types");
    }
    let mut ids = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()));
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{method} {path}");
            assert!(!operation["summary"].as_str().unwrap().is_empty());
            let named: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| p["name"].as_str().unwrap())
                .collect();
            assert_eq!(named.len(), operation["parameters"].as_array().unwrap().len(), "{path}");
        }
    }
}

/// Whether a schema says nothing.
fn says_nothing(schema: &Value) -> bool {
    schema == &Value::Bool(true) || schema.as_object().is_some_and(serde_json::Map::is_empty)
}

#[test]
fn every_answer_says_what_it_holds() {
    let document = kobza_api::openapi_document();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let schema = &answer["content"]["application/json"]["schema"];
                // The description describes everything but itself.
                if path.ends_with("/openapi.json") || !status.starts_with('2') || schema.is_null() {
                    continue;
                }
                let items = schema.get("items").is_some_and(says_nothing);
                assert!(!says_nothing(schema) && !items, "{method} {path} {status}");
            }
        }
    }
}
