//! Native workflows: YAML or JSON in, the engine's general forms out, and the pure half that
//! answers the engine's questions about them.
//!
//! [`parse`] turns a definition into a [`kobza_model::Workflow`] or into diagnostics with line,
//! column, field and hint. [`NativeDialect`] decides and launches. [`json_schema`] publishes the
//! format; it comes from the same tables that the parser checks against.

mod compile;
mod context;
mod diagnostic;
mod dialect;
mod document;
mod grammar;
mod launch;
mod params;
mod quantity;
mod rendered;
mod shape;
pub mod spec;
mod trigger_grammar;

use kobza_model::{Json, Workflow};
use serde_json::{Map, json};

pub use diagnostic::Diagnostic;
pub use dialect::{LaunchToken, NativeDialect, Options};
pub use document::{MAX_SOURCE_BYTES, read_file};
pub use params::{MAX_PARAMS_BYTES, ParamError, validate_params};
pub use rendered::{Rendered, rendered};
pub use spec::Pool;

/// The word in `Workflow::dialect`.
pub const DIALECT: &str = "native";

/// Most errors reported at once: beyond that a file is better repaired step by step.
const MAX_DIAGNOSTICS: usize = 50;

/// A definition that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    pub workflow: Workflow,
    /// Things that may be mistakes.
    pub warnings: Vec<Diagnostic>,
    /// Limits that it declares, to be set when it is deployed.
    pub pools: Vec<Pool>,
    /// Where it belongs, if it says so.
    pub namespace: Option<String>,
}

/// Parses a definition in YAML or JSON. `file` is its name in messages.
///
/// Errors are in order of their place; as many as possible are found at once.
pub fn parse(source: &[u8], file: &str) -> Result<Parsed, Vec<Diagnostic>> {
    let text = document::decode(source, file)?;
    // A byte order mark says nothing that is not known.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root = document::parse_tree(text, file).map_err(|error| vec![error])?;
    let mut findings = Vec::new();
    if root.is_map() {
        shape::Shape::Object(&grammar::WORKFLOW).check(&root, "", &mut findings);
    } else {
        let message = format!("a workflow is a mapping, not {}", root.describe());
        findings
            .push(shape::Finding::at(&root, "", message).hint("begin with `name: …` and `tasks:`"));
    }
    if !findings.is_empty() {
        return Err(limited(compile::located_in(file, findings)));
    }
    let (workflow, errors, warnings, pools) = compile::compile(file, text, &root);
    match workflow {
        Some(workflow) => {
            let namespace =
                workflow.source.get("namespace").and_then(Json::as_str).map(str::to_owned);
            Ok(Parsed { workflow, warnings: limited(warnings), pools, namespace })
        }
        None => Err(limited(errors)),
    }
}

/// Where a trigger's field is in a definition: its path there, and line and column of the nearest
/// thing that is written. `field` counts triggers as in `Workflow::triggers`, where `schedule`
/// comes first: `triggers[0].cron`.
#[must_use]
pub fn trigger_place(source: &[u8], file: &str, field: &str) -> (String, Option<(u32, u32)>) {
    let unknown = || (field.to_owned(), None);
    let Some((number, rest)) =
        field.strip_prefix("triggers[").and_then(|rest| rest.split_once(']'))
    else {
        return unknown();
    };
    let Ok(number) = number.parse::<usize>() else { return unknown() };
    let Ok(text) = document::decode(source, file) else { return unknown() };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Ok(root) = document::parse_tree(text, file) else { return unknown() };
    let before = usize::from(root.get("schedule").is_some());
    let (mut at, path) = match root.get("schedule") {
        Some(schedule) if number == 0 => (schedule, format!("schedule{rest}")),
        _ => {
            let number = number.saturating_sub(before);
            let listed = root.get("triggers").and_then(|list| list.items().get(number));
            let Some(trigger) = listed else { return unknown() };
            (trigger, format!("triggers[{number}]{rest}"))
        }
    };
    for key in rest.split('.').filter(|key| !key.is_empty()) {
        let Some(next) = at.get(key) else { break };
        at = next;
    }
    (path, Some((at.line, at.column)))
}

fn limited(mut all: Vec<Diagnostic>) -> Vec<Diagnostic> {
    all.truncate(MAX_DIAGNOSTICS);
    all
}

/// The JSON Schema (draft 2020-12) of a definition.
#[must_use]
pub fn json_schema() -> Json {
    let mut defs = Map::new();
    let root = shape::Shape::Object(&grammar::WORKFLOW).schema(&mut defs);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Kobza workflow",
        "$ref": root["$ref"],
        "$defs": defs,
    })
}
