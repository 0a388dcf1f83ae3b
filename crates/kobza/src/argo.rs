//! Argo Workflows: its YAML among the definitions, its API at `/argo`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use kobza_api::{Definition, Problem};
use kobza_dialect_argo::rest::{ArgoState, OBJECT};
use kobza_dialect_argo::{
    ArgoDialect, ArgoSettings, CompileOptions, Diagnostic, Kind, Library, NeededLimit, Object,
    compile, limits, parse,
};
use kobza_model::{Json, LimitRow, Workflow};
use kobza_store::{Write, kinds};

use crate::compose::Host;

/// The dialect, its artifacts and volumes in the data folder.
pub(crate) fn dialect(exe: String, data: &Path) -> ArgoDialect {
    ArgoDialect::new(ArgoSettings {
        program: exe,
        artifacts: data.join("argo/artifacts"),
        volumes: data.join("argo/volumes"),
        images: BTreeMap::new(),
        isolate: true,
        output_bytes: None,
    })
}

pub(crate) fn router(host: &Host) -> Router {
    kobza_dialect_argo::rest::router(ArgoState {
        handle: host.handle.clone(),
        store: host.store.clone(),
        views: host.store.clone(),
        logs: host.logs.clone(),
        check_token: None,
    })
}

/// Whether a text is a definition of Argo's.
pub(crate) fn is_argo(source: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(source) else { return false };
    text.lines().any(|line| {
        let line = line.trim_start_matches(['{', ' ', '\t', '"', '\'']);
        line.strip_prefix("apiVersion").is_some_and(|rest| {
            rest.trim_start_matches(['"', '\'', ' ', ':']).starts_with("argoproj.io/")
        })
    })
}

fn problem(diagnostic: Diagnostic, file: &str) -> Problem {
    Problem {
        path: diagnostic.path,
        message: diagnostic.message,
        hint: diagnostic.hint,
        file: Some(file.to_owned()),
        line: diagnostic.at.map(|at| at.0),
        column: diagnostic.at.map(|at| at.1),
    }
}

/// The other objects of a workflow's file.
struct Beside<'a>(&'a [Object]);

impl Beside<'_> {
    fn find(&self, kind: Kind, name: &str) -> Option<Arc<Json>> {
        let found = self.0.iter().find(|o| o.kind == kind && o.name() == Some(name))?;
        Some(Arc::new(found.json.clone()))
    }
}

impl Library for Beside<'_> {
    fn workflow_template(&self, name: &str) -> Option<Arc<Json>> {
        self.find(Kind::WorkflowTemplate, name)
    }

    fn cluster_workflow_template(&self, name: &str) -> Option<Arc<Json>> {
        self.find(Kind::ClusterWorkflowTemplate, name)
    }
}

/// Reads a file's first workflow, or its first template that has an entrypoint.
pub(crate) fn definition(source: &[u8], file: &str) -> Result<Definition, Vec<Problem>> {
    let text = std::str::from_utf8(source)
        .map_err(|_| vec![problem(Diagnostic::new("", "the file is not UTF-8"), file)])?;
    let objects =
        parse(text).map_err(|all| all.into_iter().map(|d| problem(d, file)).collect::<Vec<_>>())?;
    let runs = |o: &&Object| {
        matches!(
            o.kind,
            Kind::Workflow
                | Kind::WorkflowTemplate
                | Kind::ClusterWorkflowTemplate
                | Kind::CronWorkflow
        )
    };
    let first = objects
        .iter()
        .find(|o| o.kind == Kind::Workflow)
        .or_else(|| objects.iter().find(runs))
        .ok_or_else(|| vec![problem(Diagnostic::new("", "the file has no workflow"), file)])?;
    let library = Beside(&objects);
    let namespace = first.namespace().map(str::to_owned);
    let options = CompileOptions {
        namespace: namespace.clone().unwrap_or_else(|| "default".to_owned()),
        parameters: BTreeMap::new(),
    };
    let workflow = compile(first, &library, &options).map_err(|diagnostic| {
        let field = field_of(&first.json, &diagnostic.path);
        vec![problem(first.located(diagnostic, &field), file)]
    })?;
    let mut rows = Vec::new();
    for needed in limits(&workflow) {
        let row = |name: String, capacity: u32| LimitRow {
            name,
            capacity,
            strict: true,
            description: None,
        };
        match needed {
            NeededLimit::Mutex(limit) => rows.push(row(limit, 1)),
            NeededLimit::ConfigMap { limit, map, key, .. } => {
                let found =
                    objects.iter().find(|o| o.kind == Kind::ConfigMap && o.name() == Some(&map));
                if let Some(capacity) =
                    found.and_then(|o| o.json["data"][&key].as_str()?.trim().parse().ok())
                {
                    rows.push(row(limit, capacity));
                }
            }
            NeededLimit::Stored { .. } => {}
        }
    }
    Ok(Definition { workflow, namespace, limits: rows, warnings: Vec::new() })
}

/// The path in the file of a path in a message: templates and tasks are named there by name.
fn field_of(json: &Json, path: &str) -> String {
    let mut parts = path.split('.');
    if parts.next() != Some("templates") {
        return path.to_owned();
    }
    let base = if json["spec"]["workflowSpec"].is_object() { "spec.workflowSpec" } else { "spec" };
    let spec = if base == "spec" { &json["spec"] } else { &json["spec"]["workflowSpec"] };
    let wanted = parts.next().unwrap_or_default();
    let place = spec["templates"]
        .as_array()
        .and_then(|all| all.iter().position(|t| t["name"].as_str() == Some(wanted)));
    match (place, parts.next()) {
        (Some(place), Some(rest)) if rest.starts_with("steps[") => {
            format!("{base}.templates[{place}].{rest}")
        }
        (Some(place), Some("tasks")) => {
            let task = parts.next().unwrap_or_default();
            let tasks = &spec["templates"][place]["dag"]["tasks"];
            let number = tasks
                .as_array()
                .and_then(|all| all.iter().position(|t| t["name"].as_str() == Some(task)));
            match number {
                Some(number) => format!("{base}.templates[{place}].dag.tasks[{number}]"),
                None => format!("{base}.templates[{place}]"),
            }
        }
        (Some(place), _) => format!("{base}.templates[{place}]"),
        (None, _) => base.to_owned(),
    }
}

/// Parameters as Argo has them: strings, with the workflow's own values where none is given.
pub(crate) fn params(workflow: &Workflow, given: Json) -> Json {
    let mut out = serde_json::Map::new();
    for (name, schema) in workflow.params["properties"].as_object().into_iter().flatten() {
        if let Some(default) = schema.get("default") {
            out.insert(name.clone(), default.clone());
        }
    }
    for (name, value) in given.as_object().into_iter().flatten() {
        let text = match value {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        out.insert(name.clone(), Json::from(text));
    }
    Json::Object(out)
}

/// Whether a file holds something to run by itself, not only templates and the like.
pub(crate) fn has_workflow(source: &str) -> bool {
    parse(source).is_ok_and(|all| all.iter().any(|o| o.kind == Kind::Workflow))
}

/// What a file holds beside workflows, as writes: templates and the like, and ConfigMaps.
pub(crate) fn writes(source: &str, namespace: &str) -> Result<Vec<Write>, String> {
    if !is_argo(source.as_bytes()) {
        return Ok(Vec::new());
    }
    let objects = parse(source)
        .map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let mut writes = Vec::new();
    for object in objects {
        let Some(name) = object.name().map(str::to_owned) else { continue };
        let own = object.namespace().unwrap_or(namespace).to_owned();
        let (kind, namespace, key) = match object.kind {
            Kind::Workflow => continue,
            Kind::ConfigMap => (kinds::CONFIG_MAP, own, name),
            // Secrets are kept encrypted; a file with plain ones is read at each run instead.
            Kind::Secret => continue,
            Kind::ClusterWorkflowTemplate => {
                (OBJECT, String::new(), format!("{}/{name}", object.kind.as_str()))
            }
            kind => (OBJECT, own, format!("{}/{name}", kind.as_str())),
        };
        writes.push(Write::PutObject { kind, namespace, key, value: Some(object.json) });
    }
    Ok(writes)
}
