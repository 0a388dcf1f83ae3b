//! Workflows and their versions; starting runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use kobza_engine::Command;
use kobza_model::{Timestamp, Workflow as Definition};
use kobza_runtime::Submission;
use kobza_store::{StoredWorkflow, Views, WorkflowFilter, Write, kinds};
use kobza_triggers::service::TriggerView;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::assets::partitions::{Dimension, of_definition};
use crate::auth::Role::{Editor, Operator, Viewer};
use crate::error::{ApiError, Problem};
use crate::extract::{Created, Json, List, NoContent, Paging, Path, Query, Source};
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::triggers::Trigger;
use crate::versions::language;
use crate::view::{RunBar, bar};

pub(crate) const DEFAULT_NAMESPACE: &str = "default";

pub(crate) fn routes() -> Routes {
    let space = Space::Query;
    Routes::new()
        .get("/workflows", (Viewer, space), "Workflows", list)
        .post("/workflows", (Editor, space), "Store a definition", put)
        .get("/workflows/{name}", (Viewer, space), "A workflow", detail)
        .patch("/workflows/{name}", (Operator, space), "Pause or resume a workflow", change)
        .delete("/workflows/{name}", (Editor, space), "Delete a workflow", remove)
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct Place {
    /// `default` when absent.
    pub(crate) namespace: Option<String>,
}

impl Place {
    pub(crate) fn namespace(&self) -> String {
        self.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
    }
}

/// How a workflow's file could not be read; its last good version stays in force.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct WorkflowError {
    pub(crate) message: String,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
    pub(crate) at: Timestamp,
}

/// A workflow.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Workflow {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `native`, `argo`, `luigi`, ...
    pub(crate) dialect: String,
    /// Content hash of the current version.
    pub(crate) version: String,
    pub(crate) description: Option<String>,
    pub(crate) tags: Vec<String>,
    /// Its triggers start nothing.
    pub(crate) paused: bool,
    pub(crate) task_count: u64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) error: Option<WorkflowError>,
    /// Its triggers in short.
    pub(crate) schedule: Option<String>,
    pub(crate) next_run_at: Option<Timestamp>,
    /// Runs that have not ended.
    pub(crate) active_runs: u64,
    /// The newest, oldest first.
    pub(crate) last_runs: Vec<RunBar>,
}

/// A value and how many have it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Facet {
    value: String,
    count: u64,
}

/// What there is in the whole namespace.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Facets {
    tags: Vec<Facet>,
    dialects: Vec<Facet>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Workflows {
    #[serde(flatten)]
    list: List<Workflow>,
    /// On the first page only.
    #[serde(skip_serializing_if = "Option::is_none")]
    facets: Option<Facets>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Asked {
    /// `default` when absent.
    namespace: Option<String>,
    /// Part of the name.
    q: Option<String>,
    /// Has all of these tags, separated by commas.
    tag: Option<String>,
    dialect: Option<String>,
    paused: Option<bool>,
    /// States of the last run, separated by commas.
    state: Option<String>,
    /// Whether its file could not be read.
    error: Option<bool>,
    /// `name`, `-updated_at`, `next_run_at` or `-last_run_at`: the order within a page.
    sort: Option<String>,
}

impl Workflow {
    /// A workflow of which no version ever parsed.
    fn never_parsed(namespace: &str, name: &str, error: WorkflowError) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            dialect: "native".to_owned(),
            version: String::new(),
            description: None,
            tags: Vec::new(),
            paused: false,
            task_count: 0,
            created_at: error.at,
            updated_at: error.at,
            error: Some(error),
            schedule: None,
            next_run_at: None,
            active_runs: 0,
            last_runs: Vec::new(),
        }
    }
}

/// Files that could not be read, by the name of the workflow.
fn import_errors(
    views: &dyn Views,
    namespace: &str,
) -> Result<BTreeMap<String, WorkflowError>, kobza_store::ViewError> {
    let mut all = BTreeMap::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = views.list_objects(&kobza_store::ObjectQuery {
            kind: kinds::IMPORT_ERROR,
            namespace: Some(namespace),
            cursor: cursor.as_deref(),
            limit: 1000,
            ..Default::default()
        })?;
        for object in page.items {
            let number = |field: &str| {
                object.value.get(field).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok())
            };
            let text = |field: &str| object.value.get(field).and_then(Value::as_str);
            let error = WorkflowError {
                message: text("message").unwrap_or_default().to_owned(),
                line: number("line"),
                column: number("column"),
                at: object.updated_at,
            };
            let name = text("workflow").unwrap_or(&object.key).to_owned();
            all.insert(name, error);
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(all),
        }
    }
}

async fn list(
    State(state): State<ApiState>,
    Query(asked): Query<Asked>,
    Query(paging): Query<Paging>,
) -> Result<Json<Workflows>, ApiError> {
    let filter = WorkflowFilter {
        namespaces: vec![asked.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())],
        search: asked.q,
        tags: asked.tag.map(|t| t.split(',').map(str::to_owned).collect()).unwrap_or_default(),
        dialect: asked.dialect,
        paused: asked.paused,
        last_runs: 20,
    };
    let limit = paging.limit(50, 500);
    let triggers = match &state.triggers {
        Some(service) => service.list(filter.namespaces.first().map(String::as_str)).await?,
        None => Vec::new(),
    };
    let (shapes, first) = (state.shapes.clone(), paging.cursor.is_none());
    let value = state
        .read(move |views| {
            let page = views.list_workflows(&filter, paging.cursor.as_deref(), limit)?;
            let mut errors = match filter.namespaces.first() {
                Some(namespace) => import_errors(views, namespace)?,
                None => BTreeMap::new(),
            };
            let mut items = Vec::new();
            for w in page.items {
                let last = w.last_runs.first().map(|r| r.state.as_str());
                if asked.state.as_deref().is_some_and(|s| !s.split(',').any(|s| Some(s) == last)) {
                    continue;
                }
                let error = errors.remove(&w.name);
                if asked.error.is_some_and(|wanted| wanted != error.is_some()) {
                    continue;
                }
                let shape = shapes.get(views, &w.namespace, &w.name, &w.version)?;
                let own: Vec<&TriggerView> =
                    triggers.iter().filter(|t| t.key.workflow == w.name).collect();
                items.push(Workflow {
                    task_count: shape.map_or(0, |s| s.task_count() as u64),
                    created_at: w.updated_at,
                    updated_at: w.updated_at,
                    error,
                    schedule: schedule(&own),
                    next_run_at: next_run(&own),
                    active_runs: w
                        .totals
                        .iter()
                        .filter(|(s, _)| !s.is_finished())
                        .map(|(_, n)| *n)
                        .sum(),
                    last_runs: w.last_runs.iter().rev().map(bar).collect(),
                    namespace: w.namespace,
                    name: w.name,
                    dialect: w.dialect,
                    version: w.version,
                    description: w.description,
                    tags: w.tags,
                    paused: w.paused,
                });
            }
            // Those of which no version ever parsed are in no table of workflows.
            let unfiltered = filter.tags.is_empty()
                && asked.state.is_none()
                && filter.dialect.is_none()
                && filter.paused.is_none()
                && asked.error != Some(false);
            if let Some(namespace) = filter.namespaces.first().filter(|_| first && unfiltered) {
                let needle = filter.search.as_deref().unwrap_or_default().to_lowercase();
                for (name, error) in errors {
                    if name.to_lowercase().contains(&needle)
                        && views.get_workflow(namespace, &name, None)?.is_none()
                    {
                        items.push(Workflow::never_parsed(namespace, &name, error));
                    }
                }
            }
            match asked.sort.as_deref() {
                Some("-updated_at") => items.sort_by_key(|w| std::cmp::Reverse(w.updated_at)),
                Some("next_run_at") => {
                    items.sort_by_key(|w| (w.next_run_at.is_none(), w.next_run_at));
                }
                Some("-last_run_at") => items
                    .sort_by_key(|w| std::cmp::Reverse(w.last_runs.last().map(|r| r.created_at))),
                _ => {}
            }
            let facets = if first { Some(facets(views, &filter.namespaces)?) } else { None };
            Ok(Workflows { list: List::new(items, page.next), facets })
        })
        .await?;
    Ok(Json(value))
}

fn schedule(triggers: &[&TriggerView]) -> Option<String> {
    let texts: Vec<String> = triggers
        .iter()
        .map(|t| match crate::triggers::zone(t) {
            Some(zone) if zone != "UTC" => format!("{} {zone}", crate::triggers::text(t)),
            _ => crate::triggers::text(t),
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn next_run(triggers: &[&TriggerView]) -> Option<Timestamp> {
    triggers.iter().filter_map(|t| t.next).filter(|at| at.0 > 0).min()
}

/// Tags and dialects of a namespace with how many workflows have them.
fn facets(views: &dyn Views, namespaces: &[String]) -> Result<Facets, kobza_store::ViewError> {
    let (mut tags, mut dialects): (BTreeMap<String, u64>, BTreeMap<String, u64>) =
        Default::default();
    let filter = WorkflowFilter { namespaces: namespaces.to_vec(), ..Default::default() };
    let mut cursor = None;
    loop {
        let page = views.list_workflows(&filter, cursor.as_deref(), 1000)?;
        for w in page.items {
            for tag in w.tags {
                *tags.entry(tag).or_default() += 1;
            }
            *dialects.entry(w.dialect).or_default() += 1;
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let list = |map: BTreeMap<String, u64>| -> Vec<Facet> {
        map.into_iter().map(|(value, count)| Facet { value, count }).collect()
    };
    Ok(Facets { tags: list(tags), dialects: list(dialects) })
}

#[derive(Debug, Deserialize, JsonSchema)]
struct PutAsked {
    /// Stands above the definition's own; `default` when neither says one.
    namespace: Option<String>,
    /// Only check.
    dry_run: Option<bool>,
}

/// A definition that was stored, or could be.
#[derive(Debug, Serialize, JsonSchema)]
struct StoredDefinition {
    name: String,
    namespace: String,
    version: String,
    /// It is not the version that was current before.
    created: bool,
    /// Things that may be mistakes.
    warnings: Vec<Problem>,
}

/// Stores a definition (YAML or JSON body) as a new version, unless it is the current one.
async fn put(
    State(state): State<ApiState>,
    Query(asked): Query<PutAsked>,
    Source { json, text: body }: Source,
) -> Result<Created<StoredDefinition>, ApiError> {
    let file = Source::file(json);
    let catalog = state.catalog.clone();
    let source = body.clone();
    let parsed = tokio::task::spawn_blocking(move || catalog.parse(&source, file))
        .await
        .map_err(|e| ApiError::bad(format!("the definition could not be read: {e}")))?;
    let definition = parsed.map_err(ApiError::invalid)?;
    let namespace = asked
        .namespace
        .or_else(|| definition.namespace.clone())
        .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    kobza_model::validate_name(&namespace).map_err(|e| ApiError::name("namespace", &e))?;
    let version = version_of(&definition.workflow)?;
    let name = definition.workflow.name.clone();
    let current = state.store.workflow(&namespace, &name, None)?;
    let created = current.is_none_or(|c| c.version != version);
    kobza_triggers::parse_triggers(&definition.workflow.triggers).map_err(|errors| {
        let problem = |e: kobza_schedule::ScheduleError| Problem {
            path: e.field,
            message: e.message,
            hint: e.hint,
            file: None,
            line: None,
            column: None,
        };
        ApiError::invalid(errors.into_iter().map(problem).collect())
    })?;
    let warnings = definition.warnings.clone();
    if !asked.dry_run.unwrap_or(false) {
        let triggers = definition.workflow.triggers.clone();
        let submission = put_submission(
            definition,
            &namespace,
            &version,
            Some(String::from_utf8_lossy(&body).into_owned()),
        );
        state.handle.submit(submission).await?;
        if let Some(service) = &state.triggers {
            service.set_workflow(&namespace, &name, &triggers).await?;
        }
    }
    Ok(Created(StoredDefinition { name, namespace, version, created, warnings }))
}

/// Content hash of a definition: its version.
pub(crate) fn version_of(workflow: &Definition) -> Result<String, ApiError> {
    workflow
        .content_hash()
        .map_err(|e| ApiError::bad(format!("the definition cannot be stored: {e}")))
}

fn put_submission(
    definition: crate::Definition,
    namespace: &str,
    version: &str,
    source: Option<String>,
) -> Submission {
    let commands = definition
        .limits
        .into_iter()
        .map(|l| Command::SetLimit {
            name: l.name,
            capacity: l.capacity,
            strict: l.strict,
            description: l.description,
        })
        .collect();
    let name = definition.workflow.name.clone();
    let write = Write::PutWorkflow {
        namespace: namespace.to_owned(),
        version: version.to_owned(),
        workflow: Arc::new(definition.workflow),
        source,
    };
    let mended = crate::faults::mended(namespace, &name);
    Submission { commands, writes: vec![write, mended] }
}

/// A workflow with its definition.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WorkflowDetail {
    #[serde(flatten)]
    workflow: Workflow,
    /// JSON Schema of its parameters.
    params: Value,
    /// Parameters of its last run.
    last_params: Value,
    source: Option<String>,
    /// `yaml`, `json` or `python`.
    language: &'static str,
    timezone: Option<String>,
    triggers: Vec<Trigger>,
    /// Assets that its tasks publish.
    produces: Vec<String>,
    /// Assets that its tasks read.
    consumes: Vec<String>,
    max_active_runs: Option<u32>,
    timeout_ms: Option<u64>,
    /// What each of its runs stands for a piece of; empty where runs are for no piece.
    partitions: Vec<Dimension>,
}

async fn detail(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<Json<WorkflowDetail>, ApiError> {
    let namespace = place.namespace();
    let (space, wanted) = (namespace.clone(), name.clone());
    let broken = state.read(move |v| crate::faults::source(v, &space, &wanted)).await?;
    let Some(stored) = state.store.workflow(&namespace, &name, None)? else {
        let (space, wanted) = (namespace.clone(), name.clone());
        let error = state.read(move |v| Ok(import_errors(v, &space)?.remove(&wanted))).await?;
        let error = error.ok_or_else(|| no_workflow(&name))?;
        return Ok(Json(WorkflowDetail {
            workflow: Workflow::never_parsed(&namespace, &name, error),
            params: Value::Null,
            last_params: Value::Null,
            language: language(broken.as_deref()),
            source: broken,
            timezone: None,
            triggers: Vec::new(),
            produces: Vec::new(),
            consumes: Vec::new(),
            max_active_runs: None,
            timeout_ms: None,
            partitions: Vec::new(),
        }));
    };
    let filter = kobza_store::RunFilter {
        namespaces: vec![namespace.clone()],
        workflow: Some(name.clone()),
        ..Default::default()
    };
    let space = namespace.clone();
    let (runs, mut errors) = state
        .read(move |v| Ok((v.list_runs(&filter, None, 20)?.items, import_errors(v, &space)?)))
        .await?;
    let triggers = crate::triggers::of_workflow(&state, &namespace, &name).await?;
    let shape = crate::shape::Shape::new(stored.workflow.clone());
    let (produces, consumes) = shape.assets();
    let schedules: Vec<String> = triggers.iter().map(|t| t.text.clone()).collect();
    let StoredWorkflow { version, workflow, source, created_at, paused } = stored;
    // The error's line is one of the text that does not parse.
    let source = broken.or(source);
    Ok(Json(WorkflowDetail {
        params: workflow.params.clone(),
        last_params: runs.first().map_or(Value::Null, |r| r.params.clone()),
        language: language(source.as_deref()),
        source,
        timezone: triggers.iter().find_map(|t| t.timezone.clone()),
        produces: produces.into_iter().collect(),
        consumes: consumes.into_iter().collect(),
        max_active_runs: workflow.max_active_runs,
        timeout_ms: workflow.timeout_ms,
        partitions: shape
            .partitions()
            .map(|p| of_definition(p, kobza_runtime::wall_now()))
            .unwrap_or_default(),
        workflow: Workflow {
            task_count: shape.task_count() as u64,
            error: errors.remove(&name),
            schedule: (!schedules.is_empty()).then(|| schedules.join(", ")),
            next_run_at: triggers.iter().filter_map(|t| t.next_at).min(),
            active_runs: runs.iter().filter(|r| !r.state.is_finished()).count() as u64,
            last_runs: runs.iter().rev().map(bar).collect(),
            namespace,
            name,
            dialect: workflow.dialect.clone(),
            version,
            description: workflow.description.clone(),
            tags: workflow.tags.clone(),
            paused,
            created_at,
            updated_at: created_at,
        },
        triggers,
    }))
}

pub(crate) fn no_workflow(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no workflow {name:?}"))
        .hint("names are exact; `GET /api/v1/workflows` lists them")
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Pausing")]
pub(crate) struct Change {
    pub(crate) paused: bool,
}

async fn change(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    Json(change): Json<Change>,
) -> Result<Json<WorkflowDetail>, ApiError> {
    let namespace = place.namespace();
    state.store.workflow(&namespace, &name, None)?.ok_or_else(|| no_workflow(&name))?;
    let write = Write::PauseWorkflow {
        namespace: namespace.clone(),
        name: name.clone(),
        paused: change.paused,
    };
    state.write(vec![write]).await?;
    if let Some(service) = &state.triggers {
        service.set_workflow_paused(&namespace, &name, change.paused).await?;
    }
    detail(State(state), Path(name), Query(place)).await
}

async fn remove(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<NoContent, ApiError> {
    let namespace = place.namespace();
    state.store.workflow(&namespace, &name, None)?.ok_or_else(|| no_workflow(&name))?;
    let write = Write::DeleteWorkflow { namespace: namespace.clone(), name: name.clone() };
    state.write(vec![write, crate::faults::mended(&namespace, &name)]).await?;
    if let Some(service) = &state.triggers {
        service.set_workflow(&namespace, &name, &Value::Null).await?;
    }
    Ok(NoContent)
}
