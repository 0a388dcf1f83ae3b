//! Argo Workflows: its YAML among the definitions, its API at `/argo`.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use kobza_api::{Definition, Problem, Vault};
use kobza_dialect_argo::rest::{
    ArgoState, NoSlot, OBJECT, Schedules, Seal, SlotStart, plain_write,
};
use kobza_dialect_argo::{
    ArgoDialect, ArgoSettings, CompileOptions, Diagnostic, Image, Kind, Library, NeededLimit,
    Object, compile, limits, lint, parse,
};
use kobza_engine::StopMode;
use kobza_model::{Json, LimitRow, Timestamp, Workflow};
use kobza_store::{StoredWorkflow, Write, kinds};
use kobza_triggers::service::{
    DialectStart, NoStart, StartAs, Starter, TriggerError, TriggerHandle,
};
use kobza_triggers::{StartSpec, TriggerKey};

use crate::compose::Host;
use crate::failure::Failure;

/// The dialect, its artifacts and volumes in the data folder.
pub(crate) fn dialect(exe: String, data: &Path, images: BTreeMap<String, Image>) -> ArgoDialect {
    ArgoDialect::new(ArgoSettings {
        program: exe,
        artifacts: artifacts(data),
        looks: Some(data.join("artifacts")),
        volumes: data.join("argo/volumes"),
        unpacked: data.join("argo/images"),
        images,
        isolate: true,
        output_bytes: None,
    })
}

/// The default artifact repository.
fn artifacts(data: &Path) -> PathBuf {
    data.join("argo/artifacts")
}

/// Where container engines listen: what the environment says, else the usual places.
fn engine_socket() -> PathBuf {
    let told = std::env::var("DOCKER_HOST").ok();
    if let Some(path) = told.as_deref().and_then(|host| host.strip_prefix("unix://")) {
        return path.into();
    }
    let usual = ["/var/run/docker.sock", "/run/podman/podman.sock"].map(PathBuf::from);
    usual.iter().find(|path| path.exists()).unwrap_or(&usual[0]).clone()
}

/// What images stand for, as `NAME=` and a folder, `host`, `engine`, `engine:SOCKET` or `nothing`.
pub(crate) fn images(given: &[String]) -> Result<BTreeMap<String, Image>, Failure> {
    let mut images = BTreeMap::new();
    for text in given {
        let (name, stands_for) = text.split_once('=').ok_or_else(|| {
            Failure::hint(
                format!("argo.images: {text:?} has no `=`"),
                "NAME=FOLDER, NAME=host, NAME=engine or NAME=nothing",
            )
        })?;
        let image = match stands_for.trim() {
            "host" => Image::Host,
            "nothing" => Image::Nothing,
            "engine" => Image::Engine(engine_socket()),
            word if word.starts_with("engine:") => Image::Engine(word["engine:".len()..].into()),
            folder => {
                let named = |e| Failure::new(format!("argo.images: {folder}: {e}"));
                Image::Root(std::fs::canonicalize(folder).map_err(named)?)
            }
        };
        images.insert(name.trim().to_owned(), image);
    }
    Ok(images)
}

/// Refusals before a route is reached, as Argo's clients read them.
pub(crate) fn with_errors(routes: axum::Router) -> axum::Router {
    use axum::http::StatusCode;
    use axum::response::{IntoResponse as _, Response};
    routes.layer(axum::middleware::map_response(async |response: Response| {
        let (code, message) = match response.status() {
            StatusCode::UNAUTHORIZED => (16, "token not valid. see the Authorization header"),
            StatusCode::FORBIDDEN => (7, "permission denied"),
            _ => return response,
        };
        let body = serde_json::json!({ "code": code, "message": message, "error": message });
        (response.status(), axum::Json(body)).into_response()
    }))
}

/// Encrypts Secrets as the vault's other secrets are.
pub(crate) fn sealing(vault: Arc<Vault>) -> Arc<Seal> {
    Arc::new(move |namespace, name, value| {
        vault.seal((kinds::VARIABLE, namespace, name), value).map_err(|e| e.to_string())
    })
}

/// The dialect's outer half, without triggers.
pub(crate) fn state(host: &Host, data: &Path) -> ArgoState {
    ArgoState {
        handle: host.handle.clone(),
        store: host.store.clone(),
        views: host.store.clone(),
        logs: host.logs.clone(),
        artifacts: artifacts(data),
        lookup: {
            let (vault, store) = (host.vault.clone(), host.store.clone());
            Arc::new(move |kind, namespace, name| {
                vault.lookup(store.as_ref(), kind, namespace, name)
            })
        },
        check_token: None,
        schedules: None,
        seal: Some(sealing(host.vault.clone())),
    }
}

/// Starts workflows of cron workflows' slots.
pub(crate) struct CronStarter(pub(crate) ArgoState);

impl Starter for CronStarter {
    fn start(
        &self,
        namespace: &str,
        workflow: &StoredWorkflow,
        start: StartSpec,
        now: Timestamp,
    ) -> Result<DialectStart, NoStart> {
        let slot = start.interval.map_or(now, |(_, end)| end);
        let name = &workflow.workflow.name;
        match self.0.slot_start(namespace, name, start.run, slot, now) {
            Ok(SlotStart { commands, start, writes }) => {
                Ok(DialectStart { commands, run: StartAs::New(start), writes })
            }
            Err(NoSlot::Skipped(reason)) => Err(NoStart::Skipped(reason)),
            Err(NoSlot::Refused(reason)) => Err(NoStart::Refused(reason)),
        }
    }

    fn stop_mode(&self) -> StopMode {
        StopMode::Terminate
    }
}

/// Cron workflows' triggers, kept by the trigger service.
pub(crate) struct CronSchedules(pub(crate) TriggerHandle);

impl Schedules for CronSchedules {
    fn set(
        &self,
        namespace: String,
        definition: String,
        triggers: Json,
        paused: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        let handle = self.0.clone();
        Box::pin(async move {
            let text = |error: TriggerError| error.to_string();
            handle.set_workflow(&namespace, &definition, &triggers).await.map_err(text)?;
            for trigger in triggers.as_array().into_iter().flatten() {
                let name = trigger["name"].as_str().unwrap_or_default();
                let key = TriggerKey::new(&namespace, &definition, name);
                handle.set_paused(&key, paused).await.map_err(text)?;
            }
            Ok(())
        })
    }
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

/// Argo's objects of several files, to which the workflows of each may refer.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Vec<Object>);

impl Shelf {
    /// What can be read of these files; mistakes are told when each is read for itself.
    pub(crate) fn of(files: &[PathBuf]) -> Self {
        let mut all = Vec::new();
        for file in files {
            let Ok(text) = std::fs::read_to_string(file) else { continue };
            if is_argo(text.as_bytes()) {
                all.extend(parse(&text).unwrap_or_default());
            }
        }
        Self(all)
    }
}

/// The other objects of a workflow's file, and those of other files.
struct Beside<'a>(&'a [Object], &'a Shelf);

impl Beside<'_> {
    fn object(&self, kind: Kind, name: &str) -> Option<&Object> {
        let mut all = self.0.iter().chain(&self.1.0);
        all.find(|o| o.kind == kind && o.name() == Some(name))
    }

    fn find(&self, kind: Kind, name: &str) -> Option<Arc<Json>> {
        Some(Arc::new(self.object(kind, name)?.json.clone()))
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

fn objects_of(source: &[u8], file: &str) -> Result<Vec<Object>, Vec<Problem>> {
    let text = std::str::from_utf8(source)
        .map_err(|_| vec![problem(Diagnostic::new("", "the file is not UTF-8"), file)])?;
    parse(text).map_err(|all| all.into_iter().map(|d| problem(d, file)).collect::<Vec<_>>())
}

/// Checks every object of a file; their names.
pub(crate) fn check(source: &[u8], file: &str, shelf: &Shelf) -> Result<Vec<String>, Vec<Problem>> {
    let objects = objects_of(source, file)?;
    let library = Beside(&objects, shelf);
    let mut names = Vec::new();
    let mut wrong = Vec::new();
    for object in &objects {
        let namespace = object.namespace().unwrap_or("default").to_owned();
        let options = CompileOptions { namespace, parameters: BTreeMap::new() };
        match lint(object, &library, &options) {
            Ok(()) => {
                let prefix = object.json["metadata"]["generateName"].as_str();
                names.push(object.name().or(prefix).unwrap_or_default().to_owned());
            }
            Err(diagnostic) => {
                let field = field_of(&object.json, &diagnostic.path);
                wrong.push(problem(object.located(diagnostic, &field), file));
            }
        }
    }
    if wrong.is_empty() { Ok(names) } else { Err(wrong) }
}

/// Reads a file's first workflow, or its first template that has an entrypoint.
pub(crate) fn definition(
    source: &[u8],
    file: &str,
    shelf: &Shelf,
) -> Result<Definition, Vec<Problem>> {
    let objects = objects_of(source, file)?;
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
    let library = Beside(&objects, shelf);
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
                let found = library.object(Kind::ConfigMap, &map);
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
    let runs = |o: &Object| matches!(o.kind, Kind::Workflow | Kind::CronWorkflow);
    parse(source).is_ok_and(|all| all.iter().any(runs))
}

/// What a file holds beside workflows, as writes: templates and the like, ConfigMaps and Secrets.
pub(crate) fn writes(source: &str, namespace: &str, seal: &Seal) -> Result<Vec<Write>, String> {
    if !is_argo(source.as_bytes()) {
        return Ok(Vec::new());
    }
    let objects = parse(source)
        .map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let mut writes = Vec::new();
    for mut object in objects {
        let Some(name) = object.name().map(str::to_owned) else { continue };
        let own = object.namespace().unwrap_or(namespace).to_owned();
        let (kind, namespace, key) = match object.kind {
            Kind::Workflow => continue,
            Kind::ConfigMap | Kind::Secret => {
                writes.extend(plain_write(&object, &own, Some(seal))?);
                continue;
            }
            Kind::ClusterWorkflowTemplate => {
                (OBJECT, String::new(), format!("{}/{name}", object.kind.as_str()))
            }
            kind => (OBJECT, own, format!("{}/{name}", kind.as_str())),
        };
        if !namespace.is_empty() {
            object.json["metadata"]["namespace"] = Json::from(namespace.as_str());
        }
        writes.push(Write::PutObject { kind, namespace, key, value: Some(object.json) });
    }
    Ok(writes)
}
