//! Starting workflows: their names, parameters, labels, definition and limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_engine::{Command, StartRun};
use kobza_model::{Json, RunId};
use kobza_runtime::Submission;
use kobza_store::Write;
use serde_json::{Map, json};

use super::runs::{Stored, start_key};
use super::{ArgoError, ArgoState, OBJECT, blocking};
use crate::limits::{NeededLimit, limits};
use crate::{CompileOptions, Kind, Object, compile, effective_spec};

/// Letters of a generated name: none that make words, none that look alike.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Generated names tried before it is an error, as many as upstream's server of objects tries.
const NAMES_TRIED: u32 = 8;

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
    /// Objects that it belongs to.
    pub(crate) owners: Json,
    /// Where results of an earlier workflow's nodes are kept, for the nodes of the same names.
    pub(crate) memoized: Option<String>,
}

/// The name of a new workflow. A generated one that is taken is made again: of some thousand workflows
/// of one prefix, two meet.
fn free_name(
    object: &Object,
    mut suffix: impl FnMut() -> String,
    taken: impl Fn(&str) -> Result<bool, ArgoError>,
) -> Result<String, ArgoError> {
    let given = object.json["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty());
    let mut tries = if given { 1 } else { NAMES_TRIED };
    loop {
        let name = name_of(object, &mut suffix)?;
        if !taken(&name)? {
            return Ok(name);
        }
        tries -= 1;
        if tries == 0 {
            return Err(ArgoError::exists(format!("workflows.argoproj.io \"{name}\"")));
        }
    }
}

/// The name given, or that of the prefix and `suffix`.
fn name_of(object: &Object, suffix: impl FnOnce() -> String) -> Result<String, ArgoError> {
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

/// A workflow that is ready to start.
pub(crate) struct Built {
    /// Commands before the start: limits.
    pub(crate) commands: Vec<Command>,
    pub(crate) start: Box<StartRun>,
    pub(crate) writes: Vec<Write>,
    /// The object before it was started.
    pub(crate) shown: Json,
    pub(crate) suspended: bool,
}

impl ArgoState {
    /// Compiles without starting: the object is good, or why not.
    pub(crate) fn lint(&self, namespace: &str, object: &Object) -> Result<(), ArgoError> {
        let options =
            CompileOptions { namespace: namespace.to_owned(), parameters: BTreeMap::new() };
        Ok(crate::lint(object, &Stored { state: self, namespace }, &options)?)
    }

    /// Starts a workflow; the object that clients see.
    pub(crate) async fn create(
        &self,
        namespace: &str,
        object: Object,
        origin: Origin,
    ) -> Result<Json, ArgoError> {
        let (state, space) = (self.clone(), namespace.to_owned());
        let dry = origin.dry;
        let (name, built) = blocking(move || {
            let taken =
                |name: &str| Ok(state.store.object(OBJECT, &space, &start_key(name))?.is_some());
            let name = free_name(&object, suffix, taken)?;
            let run = RunId(uuid::Uuid::now_v7());
            let built = state.build(&space, &object, &origin, run, &name)?;
            Ok((name, built))
        })
        .await?;
        if dry {
            return Ok(built.shown);
        }
        let (mut commands, run) = (built.commands, built.start.run);
        commands.push(Command::StartRun(built.start));
        if built.suspended {
            commands.push(Command::PauseRun { run });
        }
        self.handle.submit(Submission { commands, writes: built.writes }).await?;
        self.get(namespace, &name).await
    }

    /// Everything that starting a workflow (or a cron workflow's next one) needs.
    pub(crate) fn build(
        &self,
        namespace: &str,
        object: &Object,
        origin: &Origin,
        run: RunId,
        name: &str,
    ) -> Result<Built, ArgoError> {
        let library = Stored { state: self, namespace };
        let spec = effective_spec(object, &library)?;
        let parameters = parameters(&spec, &origin.parameters)?;
        let options = CompileOptions {
            namespace: namespace.to_owned(),
            parameters: parameters
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                .collect(),
        };
        // A definition is shared by all workflows of one generated name.
        let workflow = compile(object, &library, &options)?;
        let (metadata, mut written) = match object.kind {
            Kind::CronWorkflow => (
                object.json["spec"]["workflowMetadata"].clone(),
                object.json["spec"]["workflowSpec"].clone(),
            ),
            _ => (object.json["metadata"].clone(), object.json["spec"].clone()),
        };
        let mut labels = metadata["labels"].as_object().cloned().unwrap_or_default();
        for (key, value) in spec["workflowMetadata"]["labels"].as_object().into_iter().flatten() {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        labels_from(&spec, &parameters, name, &mut labels)?;
        labels.extend(origin.labels.clone());
        if let Some(reference) = spec["workflowTemplateRef"]["name"].as_str() {
            let cluster = spec["workflowTemplateRef"]["clusterScope"].as_bool().unwrap_or(false);
            let key = if cluster { "cluster-workflow-template" } else { "workflow-template" };
            labels.insert(format!("workflows.argoproj.io/{key}"), Json::from(reference));
        }
        let mut annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
        annotations.extend(origin.annotations.clone());
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
            "name": name, "labels": labels, "annotations": annotations,
            "generateName": metadata["generateName"], "ownerReferences": origin.owners,
            "scheduledTime": annotations.get(crate::cron::SCHEDULED_ANNOTATION),
            "artifacts": written["arguments"]["artifacts"],
            "memoized": origin.memoized,
            "retention": super::collect::retention(&spec),
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
        let version = workflow.content_hash().map_err(|e| ArgoError::internal(e.to_string()))?;
        let workflow = Arc::new(workflow);
        let commands = self.limit_commands(&workflow)?;
        let start = Box::new(StartRun {
            run,
            namespace: namespace.to_owned(),
            workflow: workflow.clone(),
            version: version.clone(),
            params: parameters,
            key: Some(name.to_owned()),
            trigger: origin.trigger.unwrap_or("api").to_owned(),
            interval: None,
            partition: None,
            labels: Json::Object(labels),
            parent: None,
            priority: spec["priority"].as_i64().and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
            extra,
        });
        let mut source = object.json.clone();
        if object.kind == Kind::Workflow {
            source["metadata"]["name"] = Json::from(name);
        }
        let writes = vec![
            Write::PutWorkflow {
                namespace: namespace.to_owned(),
                version,
                workflow,
                source: Some(source.to_string()),
            },
            Write::PutObject {
                kind: OBJECT,
                namespace: namespace.to_owned(),
                key: start_key(name),
                value: Some(json!({ "run": run.to_string() })),
            },
        ];
        let suspended = spec["suspend"].as_bool().unwrap_or(false);
        Ok(Built { commands, start, writes, shown, suspended })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn object(metadata: Json) -> Object {
        let spec = json!({"entrypoint": "a", "templates": [{"name": "a", "suspend": {}}]});
        Object::from_json(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": metadata, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn a_generated_name_that_is_taken_is_made_again_and_a_given_one_is_not() {
        let mut number = 0;
        let mut suffix = || {
            number += 1;
            number.to_string()
        };
        let generated = object(json!({"generateName": "w-"}));
        let name = free_name(&generated, &mut suffix, |name| Ok(name != "w-3"));
        assert_eq!(name.unwrap_or_default(), "w-3");
        assert!(free_name(&generated, &mut suffix, |_| Ok(true)).is_err());
        assert_eq!(number, 3 + NAMES_TRIED);
        let given = object(json!({"name": "w"}));
        assert!(free_name(&given, || unreachable!(), |_| Ok(true)).is_err());
    }
}
