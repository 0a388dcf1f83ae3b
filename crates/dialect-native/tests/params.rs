//! Parameters are checked before a run exists.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use kobza_dialect_native::{MAX_PARAMS_BYTES, parse, validate_params};
use serde_json::{Value as Json, json};

const SOURCE: &str = r#"
name: p
params:
  day: {type: date, description: the day to load}
  region: {type: string, enum: [eu, us], default: eu}
  n: {type: integer, minimum: 1, default: 2}
  names: {type: array, items: {type: string, pattern: "^(a+)+$"}, maxItems: 3, default: []}
  password: {type: string, minLength: 8, writeOnly: true, default: "12345678"}
tasks:
  a: {noop: true}
"#;

fn check(given: Json) -> Result<Json, Vec<String>> {
    let workflow = parse(SOURCE.as_bytes(), "f").unwrap().workflow;
    validate_params(&workflow, given)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn defaults_are_filled_in() {
    assert_eq!(
        check(json!({"day": "2024-02-29", "n": 5})).unwrap(),
        json!({"day": "2024-02-29", "n": 5, "region": "eu", "names": [], "password": "12345678"})
    );
}

#[test]
fn each_refusal_says_which_and_why() {
    let table = [
        (json!({}), "params.day: is required and was not given\n  hint: the day to load"),
        (json!({"day": "29.2.2024"}), "params.day: \"29.2.2024\" is not a \"date\""),
        (json!({"day": "2024-02-29", "n": "5"}), "params.n: \"5\" is not of type \"integer\""),
        (json!({"day": "2024-02-29", "n": 0}), "params.n: 0 is less than the minimum of 1"),
        (
            json!({"day": "2024-02-29", "region": "$(id)"}),
            "params.region: \"$(id)\" is not one of \"eu\" or \"us\"",
        ),
        (
            json!({"day": "2024-02-29", "regoin": "eu"}),
            "params.regoin: the workflow has no such parameter\n  hint: did you mean `region`?",
        ),
        (json!([1]), "params: must be an object, not a list\n  hint: pass {\"name\": value, …}"),
    ];
    for (given, expected) in table {
        assert_eq!(check(given).unwrap_err(), [expected]);
    }
    let errors = check(json!({"day": 1, "n": 0, "x": 1})).unwrap_err();
    assert_eq!(errors.len(), 3, "{errors:?}");
}

#[test]
fn what_is_secret_is_not_shown() {
    let errors = check(json!({"day": "2024-02-29", "password": "hunter2"})).unwrap_err();
    assert!(
        errors[0].starts_with("params.password") && !errors[0].contains("hunter2"),
        "{errors:?}"
    );
}

#[test]
fn hostile_values_end_quickly() {
    // A pattern that ruins engines which go back.
    let names = json!([format!("{}b", "a".repeat(50_000))]);
    assert!(check(json!({"day": "2024-02-29", "names": names})).is_err());
    let large = json!({"day": "x".repeat(MAX_PARAMS_BYTES)});
    let errors = check(large).unwrap_err();
    assert!(errors[0].contains("at most 1048576"), "{errors:?}");
    let errors = check(json!({"day": "x".repeat(10_000)})).unwrap_err();
    assert!(errors[0].len() < 400, "{}", errors[0].len());
}

#[test]
fn a_workflow_without_parameters_takes_none() {
    let workflow = parse(b"name: p\ntasks: {a: {noop: true}}\n", "f").unwrap().workflow;
    assert_eq!(validate_params(&workflow, Json::Null), Ok(json!({})));
    assert!(validate_params(&workflow, json!({"a": 1})).is_err());
}
