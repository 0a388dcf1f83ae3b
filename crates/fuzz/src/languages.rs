//! Definitions and the expressions in them.

use kobza_dialect_airflow::Bundle;
use kobza_dialect_argo::CompileOptions;
use kobza_expr::argo_expr::{Env, Value};
use kobza_expr::argo_template::{Found, Variables};
use kobza_expr::native;
use serde_json::json;

use crate::text;

pub(crate) fn native_yaml(bytes: &[u8]) {
    match kobza_dialect_native::parse(bytes, "fuzz.yaml") {
        Ok(parsed) => {
            let version = serde_json::to_string(&parsed.workflow);
            assert!(version.is_ok(), "what was read can be stored");
        }
        Err(told) => assert!(!told.is_empty(), "an error says something"),
    }
}

pub(crate) fn native_template(bytes: &[u8]) {
    let Some(source) = text(bytes) else { return };
    let values = json!({
        "params": {"n": 3, "text": "a; rm -rf /", "list": [1, 2, 3]},
        "run": {"id": "1", "name": "r"},
        "item": {"key": "'\"`$(x)"}, "index": 0,
    });
    let values = values.as_object().cloned().unwrap_or_default();
    let context = native::Context::new(&values);
    let _checked = native::check_expression(source);
    let _value = native::render_value(source, &context);
    let _text = native::render_text(source, &context);
    if let Ok(shell) = native::render_shell(source, &context) {
        // What a parameter holds stays outside of the script, unless `raw` asks for it, or it stands in
        // a here-document that expands nothing.
        if !["raw", "rm", "<<"].iter().any(|word| source.contains(word)) {
            assert!(!shell.script.contains("rm -rf"), "a parameter became code: {}", shell.script);
        }
    }
    let _sql = native::render_sql(source, &context);
}

pub(crate) fn argo_yaml(bytes: &[u8]) {
    let Some(source) = text(bytes) else { return };
    let Ok(objects) = kobza_dialect_argo::parse(source) else { return };
    let options = CompileOptions { namespace: "argo".to_owned(), parameters: Default::default() };
    for object in &objects {
        let _told = kobza_dialect_argo::lint(object, &(), &options);
        let _workflow = kobza_dialect_argo::compile(object, &(), &options);
    }
}

struct Known;

impl Variables for Known {
    fn find(&self, name: &str) -> Found {
        match name {
            "inputs.parameters.a" => Found::Text("{{inputs.parameters.b}}".to_owned()),
            "inputs.parameters.b" => Found::Text("b".to_owned()),
            "steps.skipped.outputs.result" => Found::Absent,
            _ => Found::Unknown,
        }
    }

    fn env(&self, _: &[Vec<String>]) -> Option<Env> {
        Some(environment())
    }
}

fn environment() -> Env {
    Env::from_dotted([
        ("inputs.parameters.a", Value::from(&json!("text"))),
        ("item", Value::from(&json!("7"))),
        ("workflow.name", Value::from(&json!("w"))),
    ])
}

pub(crate) fn argo_substitution(bytes: &[u8]) {
    let Some(source) = text(bytes) else { return };
    let _text = kobza_expr::argo_template::substitute(source, &Known);
    let _tags = kobza_expr::argo_template::tags(source);
    let _pure = kobza_expr::argo_template::pure_reference(source);
}

pub(crate) fn expr_lang(bytes: &[u8]) {
    let Some(source) = text(bytes) else { return };
    let _value = kobza_expr::argo_expr::eval(source, &environment());
}

pub(crate) fn govaluate(bytes: &[u8]) {
    let Some(source) = text(bytes) else { return };
    let _value = kobza_expr::govaluate::evaluate(source);
}

pub(crate) fn airflow_dag(bytes: &[u8]) {
    let Ok(serialised) = serde_json::from_slice(bytes) else { return };
    let bundle = Bundle {
        name: "dags".to_owned(),
        path: "/dags".to_owned(),
        python: "python3".to_owned(),
        version: None,
    };
    let none = Default::default();
    let _compiled =
        kobza_dialect_airflow::compile(&serialised, &bundle, &none, &Default::default());
}
