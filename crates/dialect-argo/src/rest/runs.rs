//! Workflows as runs: created, loaded, listed, acted on.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_engine::{Command, StartRun};
use kobza_model::{Json, RunId, RunImage, RunRow, TaskId};
use kobza_runtime::Submission;
use kobza_store::{RunFilter, Write};
use serde_json::{Map, json};

use super::{ArgoError, ArgoState, OBJECT, blocking};
use crate::limits::{NeededLimit, limits};
use crate::{CompileOptions, Kind, Library, Object, RunData, compile, effective_spec};

/// Objects of a namespace, as compilation finds them.
pub(crate) struct Stored<'a> {
    pub(crate) state: &'a ArgoState,
    pub(crate) namespace: &'a str,
}

impl Library for Stored<'_> {
    fn workflow_template(&self, name: &str) -> Option<Arc<Json>> {
        let key = format!("WorkflowTemplate/{name}");
        self.state.store.object(OBJECT, self.namespace, &key).ok().flatten().map(Arc::new)
    }

    fn cluster_workflow_template(&self, name: &str) -> Option<Arc<Json>> {
        let key = format!("ClusterWorkflowTemplate/{name}");
        self.state.store.object(OBJECT, "", &key).ok().flatten().map(Arc::new)
    }
}

/// Letters of a generated name: none that make words, none that look alike.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

fn suffix() -> String {
    let bytes = *uuid::Uuid::new_v4().as_bytes();
    bytes[..5].iter().map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()])).collect()
}

/// How a workflow came to be, beside its object.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) labels: Map<String, Json>,
    pub(crate) annotations: Map<String, Json>,
    pub(crate) trigger: Option<&'static str>,
    pub(crate) dry: bool,
}

fn start_key(name: &str) -> String {
    format!("Run/{name}")
}

/// The name of a new workflow.
fn name_of(object: &Object) -> Result<String, ArgoError> {
    let metadata = &object.json["metadata"];
    let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) if !name.is_empty() => name.to_owned(),
        (_, Some(prefix)) if !prefix.is_empty() => format!("{prefix}{}", suffix()),
        _ => return Err(ArgoError::invalid("name or generateName is required")),
    };
    let good = name.len() <= 253
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    if good {
        Ok(name)
    } else {
        Err(ArgoError::invalid(format!(
            "workflow name {name:?} is invalid: lower case letters, digits, '-' and '.', at most 253"
        )))
    }
}

/// Values of the workflow's parameters, checked.
fn parameters(spec: &Json, given: &BTreeMap<String, String>) -> Result<Json, ArgoError> {
    let mut out = Map::new();
    for declared in spec["arguments"]["parameters"].as_array().into_iter().flatten() {
        let Some(name) = declared["name"].as_str() else { continue };
        let value = given
            .get(name)
            .map(String::as_str)
            .or(declared["value"].as_str())
            .or(declared["default"].as_str());
        match value {
            Some(value) => {
                if let Some(choices) = declared["enum"].as_array()
                    && !choices.iter().any(|c| c == value)
                {
                    return Err(ArgoError::invalid(format!(
                        "spec.arguments.{name}.value should be present in \
                         spec.arguments.{name}.enum list"
                    )));
                }
                out.insert(name.to_owned(), Json::from(value));
            }
            None if declared.get("valueFrom").is_some() => {}
            None => {
                return Err(ArgoError::invalid(format!(
                    "spec.arguments.{name}.value or spec.arguments.{name}.valueFrom is required"
                )));
            }
        }
    }
    for (name, value) in given {
        out.entry(name.clone()).or_insert_with(|| Json::from(value.as_str()));
    }
    Ok(Json::Object(out))
}

impl ArgoState {
    /// Compiles without starting: the object is good, or why not.
    pub(crate) fn lint(&self, namespace: &str, object: &Object) -> Result<(), ArgoError> {
        if matches!(object.kind, Kind::WorkflowEventBinding | Kind::ConfigMap | Kind::Secret) {
            return Ok(());
        }
        let options =
            CompileOptions { namespace: namespace.to_owned(), parameters: BTreeMap::new() };
        let library = Stored { state: self, namespace };
        let spec = effective_spec(object, &library)?;
        let template =
            matches!(object.kind, Kind::WorkflowTemplate | Kind::ClusterWorkflowTemplate);
        if template && spec["entrypoint"].as_str().is_none() {
            // A template without an entrypoint is a shelf of templates: each must be good.
            for template in spec["templates"].as_array().into_iter().flatten() {
                let mut one = object.clone();
                one.json["spec"]["entrypoint"] = template["name"].clone();
                compile(&one, &library, &options)?;
            }
            return Ok(());
        }
        compile(object, &library, &options)?;
        Ok(())
    }

    /// Starts a workflow; the object that clients see.
    pub(crate) async fn create(
        &self,
        namespace: &str,
        mut object: Object,
        origin: Origin,
    ) -> Result<Json, ArgoError> {
        let name = name_of(&object)?;
        let state = self.clone();
        let space = namespace.to_owned();
        let wanted = name.clone();
        let metadata = object.json["metadata"].clone();
        let (workflow, spec, parameters, object) = blocking(move || {
            let library = Stored { state: &state, namespace: &space };
            let spec = effective_spec(&object, &library)?;
            let parameters = parameters(&spec, &origin.parameters)?;
            let options = CompileOptions {
                namespace: space.clone(),
                parameters: parameters
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                    .collect(),
            };
            // A definition is shared by all workflows of one generated name.
            let workflow = compile(&object, &library, &options)?;
            if state.store.object(OBJECT, &space, &start_key(&wanted))?.is_some() {
                return Err(ArgoError::exists(format!("workflows.argoproj.io \"{wanted}\"")));
            }
            object.json["metadata"]["name"] = Json::from(wanted);
            Ok((workflow, spec, (parameters, origin), object))
        })
        .await?;
        let (parameters, origin) = parameters;
        let mut labels = metadata["labels"].as_object().cloned().unwrap_or_default();
        for (key, value) in spec["workflowMetadata"]["labels"].as_object().into_iter().flatten() {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        labels_from(&spec, &parameters, &name, &mut labels)?;
        labels.extend(origin.labels);
        if let Some(reference) = spec["workflowTemplateRef"]["name"].as_str() {
            let cluster = spec["workflowTemplateRef"]["clusterScope"].as_bool().unwrap_or(false);
            let key = if cluster { "cluster-workflow-template" } else { "workflow-template" };
            labels.insert(format!("workflows.argoproj.io/{key}"), Json::from(reference));
        }
        let mut annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
        annotations.extend(origin.annotations);
        let run = RunId(uuid::Uuid::now_v7());
        let mut written = object.json["spec"].clone();
        if written["arguments"].is_object() || parameters.as_object().is_some_and(|p| !p.is_empty())
        {
            let list: Vec<Json> = parameters
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| json!({ "name": name, "value": value }))
                .collect();
            written["arguments"]["parameters"] = Json::Array(list);
        }
        let extra = json!({ "argo": {
            "name": name, "labels": labels, "annotations": annotations, "spec": written,
            "generateName": metadata["generateName"],
            "artifacts": object.json["spec"]["arguments"]["artifacts"],
        }});
        let shown = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": {
                "name": name, "namespace": namespace, "uid": run.to_string(),
                "generateName": metadata["generateName"], "labels": labels,
                "annotations": annotations, "creationTimestamp": null, "resourceVersion": "0",
            },
            "spec": written, "status": { "phase": "", "startedAt": null, "finishedAt": null },
        });
        if origin.dry {
            return Ok(shown);
        }
        let version = workflow.content_hash().map_err(|e| ArgoError::internal(e.to_string()))?;
        let workflow = Arc::new(workflow);
        let mut commands = self.limit_commands(&workflow)?;
        let suspended = spec["suspend"].as_bool().unwrap_or(false);
        commands.push(Command::StartRun(Box::new(StartRun {
            run,
            namespace: namespace.to_owned(),
            workflow: workflow.clone(),
            version: version.clone(),
            params: parameters,
            key: Some(name.clone()),
            trigger: origin.trigger.unwrap_or("api").to_owned(),
            interval: None,
            partition: None,
            labels: Json::Object(labels),
            parent: None,
            priority: spec["priority"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
            extra,
        })));
        if suspended {
            commands.push(Command::PauseRun { run });
        }
        let writes = vec![
            Write::PutWorkflow {
                namespace: namespace.to_owned(),
                version,
                workflow,
                source: Some(object.json.to_string()),
            },
            Write::PutObject {
                kind: OBJECT,
                namespace: namespace.to_owned(),
                key: start_key(&name),
                value: Some(json!({ "run": run.to_string() })),
            },
        ];
        self.handle.submit(Submission { commands, writes }).await?;
        self.get(namespace, &name).await
    }

    /// Makes the limits of a workflow's synchronization exist.
    fn limit_commands(&self, workflow: &kobza_model::Workflow) -> Result<Vec<Command>, ArgoError> {
        let mut commands = Vec::new();
        for needed in limits(workflow) {
            let (limit, capacity) = match needed {
                NeededLimit::Mutex(limit) => (limit, 1),
                NeededLimit::ConfigMap { limit, namespace, map, key } => {
                    let kind = kobza_store::kinds::CONFIG_MAP;
                    let object = self.store.object(kind, &namespace, &map)?;
                    let data = object.as_ref().map(|o| o.get("data").unwrap_or(o));
                    let capacity = data
                        .and_then(|d| d[&key].as_str()?.trim().parse().ok())
                        .ok_or_else(|| {
                            ArgoError::invalid(format!(
                                "semaphore: ConfigMap {map:?} has no number under {key:?}"
                            ))
                        })?;
                    (limit, capacity)
                }
                NeededLimit::Stored { limit, namespace, key } => {
                    let object =
                        self.store.object(OBJECT, &namespace, &format!("SyncLimit/{key}"))?;
                    let capacity =
                        object.and_then(|o| u32::try_from(o["limit"].as_u64()?).ok()).ok_or_else(
                            || ArgoError::invalid(format!("sync limit {key:?} not found")),
                        )?;
                    (limit, capacity)
                }
            };
            commands.push(Command::SetLimit {
                name: limit,
                capacity,
                strict: true,
                description: None,
            });
        }
        Ok(commands)
    }

    /// The run of a workflow's name; `@latest` is the newest.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Result<RunId, ArgoError> {
        if name == "@latest" {
            let filter =
                RunFilter { namespaces: vec![namespace.to_owned()], ..RunFilter::default() };
            let page = self.views.list_runs(&filter, None, 100)?;
            return page
                .items
                .into_iter()
                .find(|r| r.dialect == "argo")
                .map(|r| r.run)
                .ok_or_else(|| ArgoError::not_found("no workflow: @latest"));
        }
        let object = self.store.object(OBJECT, namespace, &start_key(name))?;
        object
            .and_then(|o| o["run"].as_str()?.parse().ok())
            .ok_or_else(|| ArgoError::not_found(format!("workflows.argoproj.io \"{name}\"")))
    }

    pub(crate) fn image(&self, run: RunId) -> Result<RunImage, ArgoError> {
        self.store.run_image(run)?.ok_or_else(|| ArgoError::not_found(format!("run {run}")))
    }

    /// Everything of one run.
    pub(crate) fn load(&self, run: RunId) -> Result<RunData, ArgoError> {
        let image = self.image(run)?;
        let row = &image.run;
        let stored = self
            .store
            .workflow(&row.namespace, &row.workflow, Some(&row.version))?
            .ok_or_else(|| ArgoError::not_found(format!("definition of {run}")))?;
        let mut attempts = Vec::new();
        let mut outputs = BTreeMap::new();
        for task in &image.tasks {
            let id = TaskId { run, task: task.task };
            if task.attempt > 1 {
                let all = self.views.list_attempts(id)?;
                attempts.extend(all.into_iter().filter(|a| a.attempt < task.attempt));
            }
            if task.attempt > 0 || task.summary || task.state.is_finished() {
                let own: BTreeMap<String, Arc<Json>> = self
                    .store
                    .outputs(run, task.task)?
                    .into_iter()
                    .map(|(k, v)| (k, Arc::new(v)))
                    .collect();
                if !own.is_empty() {
                    outputs.insert(task.task, own);
                }
            }
        }
        Ok(RunData {
            workflow: stored.workflow,
            run: image.run,
            tasks: image.tasks,
            scopes: image.scopes,
            attempts,
            outputs,
        })
    }

    /// A run without its tasks, for lists.
    pub(crate) fn light(&self, run: RunRow) -> Result<Option<RunData>, ArgoError> {
        let stored = self.store.workflow(&run.namespace, &run.workflow, Some(&run.version))?;
        Ok(stored.map(|stored| RunData {
            workflow: stored.workflow,
            run,
            tasks: Vec::new(),
            scopes: Vec::new(),
            attempts: Vec::new(),
            outputs: BTreeMap::new(),
        }))
    }

    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<Json, ArgoError> {
        let (state, namespace, name) = (self.clone(), namespace.to_owned(), name.to_owned());
        blocking(move || {
            let run = state.find(&namespace, &name)?;
            Ok(crate::workflow_object(&state.load(run)?))
        })
        .await
    }
}

/// Labels whose values are expressions.
fn labels_from(
    spec: &Json,
    parameters: &Json,
    name: &str,
    labels: &mut Map<String, Json>,
) -> Result<(), ArgoError> {
    use kobza_expr::argo_expr::{Env, Value, eval};
    for (key, from) in spec["workflowMetadata"]["labelsFrom"].as_object().into_iter().flatten() {
        let Some(text) = from["expression"].as_str() else { continue };
        let mut env = Env::default();
        let workflow = json!({ "name": name, "parameters": parameters });
        env.variables.insert("workflow".to_owned(), Value::from(&workflow));
        let value = eval(text, &env).map_err(|e| {
            ArgoError::invalid(format!("failed to evaluate label {key} expression {text:?}: {e}"))
        })?;
        labels.insert(key.clone(), Json::from(value.to_text()));
    }
    Ok(())
}
