//! A leaf's template, substituted, as what the runner is told to do.

use std::path::PathBuf;

use kobza_engine::Launch;
use kobza_expr::argo_template::{substitute, substitute_json};
use kobza_model::{Json, TaskRow};
use kobza_runtime::{Facts, LaunchSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use crate::compile::duration_ms;
use crate::names::{
    attempt_name, has_retry, pod_name, template_json, template_spec, workflow_name,
};
use crate::repository::Repository;
use crate::values::{Live, Values, config_value, enclosing_inputs};

/// Where the dialect's tasks run, and with what.
#[derive(Clone, Debug, Default)]
pub struct ArgoSettings {
    /// The program whose `exec argo` runs one leaf.
    pub program: String,
    /// The default artifact repository: a folder.
    pub artifacts: PathBuf,
    /// Folders that stand for volumes, shared by the tasks of a run.
    pub volumes: PathBuf,
    /// What images stand for, by name with or without registry and tag; `*` is every other. The
    /// host's commands otherwise.
    pub images: std::collections::BTreeMap<String, Image>,
    /// Where images of container engines are unpacked.
    pub unpacked: PathBuf,
    /// Whether tasks may get a private view of the file system (needs the right to mount).
    pub isolate: bool,
    /// What one task may put out as parameters and result, in bytes.
    pub output_bytes: Option<u64>,
}

/// What an image stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Image {
    /// The host's own commands.
    Host,
    /// An unpacked root file system.
    Root(PathBuf),
    /// What the container engine at this socket has by the image's name.
    Engine(PathBuf),
    /// Nothing: containers are not run, and succeed at once.
    Nothing,
}

/// What an image stands for.
pub(crate) fn image_of(images: &std::collections::BTreeMap<String, Image>, image: &str) -> Image {
    let short = || {
        let image = image.split('@').next().unwrap_or_default();
        let last = image.rsplit('/').next().unwrap_or_default();
        images.get(last.split(':').next().unwrap_or_default())
    };
    images.get(image).or_else(short).or_else(|| images.get("*")).cloned().unwrap_or(Image::Host)
}

/// What the runner gets on its standard input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Name of the node, for messages.
    pub node: String,
    /// `container`, `script`, `containerSet`, `http`, `data`.
    pub body: String,
    /// The template after substitution.
    pub template: Json,
    /// Resolved artifacts by name; null for an optional one that nobody supplied.
    pub artifacts: Map<String, Json>,
    pub variables: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub store: PathBuf,
    /// Where artifacts lie whose keys say nothing else: an S3 location without a key; null: `store`.
    #[serde(default)]
    pub repository: Json,
    /// Beginning of the keys of this node's artifacts.
    pub key: String,
    pub images: std::collections::BTreeMap<String, Image>,
    #[serde(default)]
    pub unpacked: PathBuf,
    pub isolate: bool,
    pub result: bool,
    /// Credentials by `kind/name/key`, for artifacts and HTTP headers.
    pub credentials: Map<String, Json>,
    pub archive_logs: bool,
}

/// A volume of a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    pub volume: String,
    /// A folder that is shared; none: private to the task.
    pub folder: Option<PathBuf>,
    /// Files of a ConfigMap or Secret.
    pub files: Vec<(String, String)>,
}

fn fail<T>(message: impl Into<String>) -> Result<T, String> {
    Err(message.into())
}

pub(crate) fn launch(
    launch: &Launch,
    facts: &dyn Facts,
    settings: &ArgoSettings,
) -> Result<LaunchSpec, String> {
    let workflow = facts.workflow();
    let task = facts.task(launch.id.task).ok_or("the task is gone")?;
    let spec = template_spec(workflow, launch.template);
    let template = template_json(workflow, launch.template);
    let body = spec["body"].as_str().unwrap_or_default();
    match body {
        "resource" => {
            return fail(
                "resource templates act on a Kubernetes cluster, and this server has none; run the \
                 command in a container template instead",
            );
        }
        "plugin" => {
            return fail(
                "plugin templates need an executor plugin, and this server has none configured",
            );
        }
        _ => {}
    }
    let mut values = Values::new(facts, None);
    values.inputs = std::sync::Arc::new(task.inputs.clone());
    let inline = workflow.templates[launch.template.index()].name.starts_with("$inline");
    if inline {
        // An inline body stands in the text of its step, and sees what the step sees.
        values.scope = Some(launch.scope);
        values.item = crate::names::item_of(&Live(facts), &task);
        if template.get("inputs").is_none() {
            values.inputs = enclosing_inputs(facts, launch.scope);
        }
    }
    own_variables(&mut values, facts, &task, launch, template);
    let written = with_outer(template, &workflow.source["spec"]);
    let mut head = written.clone();
    let inputs = head.as_object_mut().and_then(|h| h.shift_remove("inputs"));
    let mut done = substitute_json(&head, &values).map_err(|e| e.to_string())?;
    if let Some(inputs) = inputs {
        done["inputs"] = inputs;
    }
    let mut secrets = Vec::new();
    let name = attempt_name(&Live(facts), &task);
    let run = workflow_name(facts.run());
    let pod = pod_name(run, &name, &workflow.templates[launch.template.index()].name);
    let fields = PodFields { name: &pod, facts };
    environment(&mut done, facts, &fields, &mut secrets)?;
    let mounts = mounts(&done, facts, settings, &mut secrets)?;
    let results = facts
        .scope(launch.scope)
        .is_some_and(|s| template_spec(workflow, s.template)["results"] == true);
    let variables = vec![
        ("ARGO_WORKFLOW_NAME".to_owned(), run.to_owned()),
        ("ARGO_NODE_ID".to_owned(), crate::names::node_id(run, &name)),
        ("ARGO_CONTAINER_NAME".to_owned(), "main".to_owned()),
        ("ARGO_INCLUDE_SCRIPT_OUTPUT".to_owned(), results.to_string()),
    ];
    let artifacts = task.inputs["artifacts"].as_object().cloned().unwrap_or_default();
    let repository =
        Repository::of(&workflow.source["spec"], &|name| facts.lookup("configmap", name))?
            .of_template(&done);
    let key = match &repository.key_format {
        Some(format) => substitute(format, &values).map_err(|e| format!("key format: {e}"))?,
        None => format!("{}/{run}/{pod}", facts.run().namespace),
    };
    let exec = ExecSpec {
        node: name,
        body: body.to_owned(),
        credentials: credentials(&done, &artifacts, &repository.s3, facts, &mut secrets),
        archive_logs: match &done["archiveLocation"]["archiveLogs"] {
            Json::Bool(logs) => *logs,
            _ => {
                workflow.source["spec"]["archiveLogs"].as_bool().unwrap_or(repository.archive_logs)
            }
        },
        template: done,
        artifacts,
        variables,
        mounts,
        store: settings.artifacts.clone(),
        repository: repository.s3,
        key,
        images: settings.images.clone(),
        unpacked: settings.unpacked.clone(),
        isolate: settings.isolate,
        result: results,
    };
    let grace = exec.template["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    let deadline = exec.template["activeDeadlineSeconds"].as_str().and_then(duration_ms);
    // A time-out that was known beforehand is the engine's; this one is what inputs made of it.
    let left = match (exec.template["timeout"].as_str(), template["timeout"].as_str()) {
        (Some(done), Some(written)) if done != written => {
            let limit =
                duration_ms(done).ok_or_else(|| format!("timeout {done:?} is not a duration"))?;
            let used = (facts.now().0 - task.created_at.0).max(0) / 1000;
            Some(limit.saturating_sub(u64::try_from(used).unwrap_or(0)).max(1))
        }
        _ => None,
    };
    let stdin = serde_json::to_string(&exec).map_err(|e| e.to_string())?;
    Ok(LaunchSpec {
        program: settings.program.clone(),
        args: vec!["exec".to_owned(), "argo".to_owned()],
        stdin: Some(stdin),
        timeout_ms: [deadline, left, launch.timeout_ms].into_iter().flatten().min(),
        grace_ms: Some(grace.saturating_mul(1000)),
        output_bytes: settings.output_bytes,
        secrets,
        ..LaunchSpec::default()
    })
}

/// Fields of the workflow that are defaults of each template's pod.
fn with_outer(template: &Json, spec: &Json) -> Json {
    let mut out = template.clone();
    let mut volumes: Vec<Json> = out["volumes"].as_array().cloned().unwrap_or_default();
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        if !volumes.iter().any(|v| v["name"] == volume["name"]) {
            volumes.push(volume.clone());
        }
    }
    for claim in spec["volumeClaimTemplates"].as_array().into_iter().flatten() {
        let name = &claim["metadata"]["name"];
        if !volumes.iter().any(|v| v["name"] == *name) {
            volumes.push(json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }));
        }
    }
    if !volumes.is_empty() {
        out["volumes"] = Json::Array(volumes);
    }
    out
}

fn own_variables(
    values: &mut Values<'_>,
    facts: &dyn Facts,
    task: &TaskRow,
    launch: &Launch,
    template: &Json,
) {
    let rows = Live(facts);
    let name = attempt_name(&rows, task);
    let run = workflow_name(facts.run());
    let template_name = &facts.workflow().templates[launch.template.index()].name;
    let mut put = |key: String, value: String| {
        values.own.insert(key, value);
    };
    put("pod.name".to_owned(), pod_name(run, &name, template_name));
    put("node.name".to_owned(), name);
    if has_retry(&rows, task) {
        put("retries".to_owned(), (launch.attempt.max(1) - 1).to_string());
        for (key, none) in [("exitCode", "0"), ("status", ""), ("duration", "0"), ("message", "")] {
            let value = launch.carry["lastRetry"][key].as_str().unwrap_or(none);
            put(format!("lastRetry.{key}"), value.to_owned());
        }
    }
    for (side, kinds) in [("inputs", &["artifacts"][..]), ("outputs", &["artifacts", "parameters"])]
    {
        for kind in kinds {
            for item in template[side][*kind].as_array().into_iter().flatten() {
                let path = item["path"].as_str().or(item["valueFrom"]["path"].as_str());
                if let (Some(item), Some(path)) = (item["name"].as_str(), path)
                    && let Ok(path) = substitute(path, values)
                {
                    values.own.insert(format!("{side}.{kind}.{item}.path"), path);
                }
            }
        }
    }
}

/// Each container of a template, for reading or changing.
fn containers(template: &mut Json) -> Vec<&mut Json> {
    let mut found = Vec::new();
    let Some(fields) = template.as_object_mut() else { return found };
    for (key, value) in fields {
        match key.as_str() {
            "container" | "script" => found.push(value),
            "sidecars" | "initContainers" => {
                found.extend(value.as_array_mut().into_iter().flatten());
            }
            "containerSet" => {
                let list = value.get_mut("containers").and_then(Json::as_array_mut);
                found.extend(list.into_iter().flatten());
            }
            _ => {}
        }
    }
    found
}

/// The pod that a task would be.
struct PodFields<'a> {
    name: &'a str,
    facts: &'a dyn Facts,
}

impl PodFields<'_> {
    /// A field by the path that a `fieldRef` names.
    fn field(&self, path: &str) -> Option<String> {
        let run = self.facts.run();
        Some(match path {
            "metadata.name" => self.name.to_owned(),
            "metadata.namespace" => run.namespace.clone(),
            "metadata.uid" => run.run.to_string(),
            "spec.nodeName" => "localhost".to_owned(),
            "spec.serviceAccountName" => "default".to_owned(),
            "status.podIP" | "status.hostIP" => "127.0.0.1".to_owned(),
            _ => return None,
        })
    }
}

/// Replaces references to ConfigMaps and Secrets in environments by their values.
fn environment(
    template: &mut Json,
    facts: &dyn Facts,
    pod: &PodFields<'_>,
    secrets: &mut Vec<String>,
) -> Result<(), String> {
    for container in containers(template) {
        let mut resolved = Vec::new();
        for source in container["envFrom"].as_array().into_iter().flatten() {
            for (field, kind) in [("configMapRef", "configmap"), ("secretRef", "secret")] {
                let Some(name) = source[field]["name"].as_str() else { continue };
                let prefix = source["prefix"].as_str().unwrap_or("");
                let Some(map) = facts.lookup(kind, name) else {
                    if source[field]["optional"].as_bool().unwrap_or(false) {
                        continue;
                    }
                    return fail(format!("{kind} {name:?} not found"));
                };
                let data = map.get("data").filter(|d| d.is_object()).unwrap_or(&map);
                for key in data.as_object().into_iter().flat_map(Map::keys) {
                    let reference = json!({ "name": name, "key": key });
                    if let Some(value) = config_value(facts, kind, &reference) {
                        if kind == "secret" {
                            secrets.push(value.clone());
                        }
                        resolved.push(json!({ "name": format!("{prefix}{key}"), "value": value }));
                    }
                }
            }
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            let from = &variable["valueFrom"];
            let (kind, reference) = match (&from["configMapKeyRef"], &from["secretKeyRef"]) {
                (r @ Json::Object(_), _) => ("configmap", r),
                (_, r @ Json::Object(_)) => ("secret", r),
                _ => {
                    let field = from["fieldRef"]["fieldPath"].as_str();
                    match field.and_then(|field| pod.field(field)) {
                        Some(value) => {
                            resolved.push(json!({ "name": variable["name"], "value": value }));
                        }
                        // Other fields of a pod have no meaning without one.
                        None if variable.get("value").is_some() => resolved.push(variable.clone()),
                        None => {}
                    }
                    continue;
                }
            };
            match config_value(facts, kind, reference) {
                Some(value) => {
                    if kind == "secret" {
                        secrets.push(value.clone());
                    }
                    resolved.push(json!({ "name": variable["name"], "value": value }));
                }
                None if reference["optional"].as_bool().unwrap_or(false) => {}
                None => {
                    return fail(format!(
                        "couldn't find key {} in {kind} {}",
                        reference["key"], reference["name"]
                    ));
                }
            }
        }
        if !resolved.is_empty() {
            container["env"] = Json::Array(resolved);
        }
    }
    Ok(())
}

/// The volumes that containers mount, as folders.
fn mounts(
    template: &Json,
    facts: &dyn Facts,
    settings: &ArgoSettings,
    secrets: &mut Vec<String>,
) -> Result<Vec<Mount>, String> {
    let mut wanted: Vec<String> = Vec::new();
    let mut copy = template.clone();
    for container in containers(&mut copy) {
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let name = mount["name"].as_str().unwrap_or_default();
            if !wanted.iter().any(|w| w == name) {
                wanted.push(name.to_owned());
            }
        }
    }
    let mut mounts = Vec::new();
    for name in wanted {
        let volumes = template["volumes"].as_array();
        let volume = volumes.into_iter().flatten().find(|v| v["name"] == *name);
        let Some(volume) = volume else {
            return fail(format!("volume '{name}' not found in workflow spec"));
        };
        if name.contains(['/', '\\', '\0']) || name.contains("..") {
            return fail(format!("volume name {name:?} is invalid"));
        }
        let mut mount = Mount { volume: name.clone(), folder: None, files: Vec::new() };
        let of_run = || settings.volumes.join(facts.run().run.to_string());
        if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            if claim.contains(['/', '\\', '\0']) || claim.contains("..") {
                return fail(format!("claim name {claim:?} is invalid"));
            }
            // A claim of the workflow's own lives with the run; any other with the namespace.
            let templates = &facts.workflow().source["spec"]["volumeClaimTemplates"];
            let own = templates
                .as_array()
                .is_some_and(|all| all.iter().any(|t| t["metadata"]["name"] == claim));
            mount.folder = Some(if own {
                of_run().join(claim)
            } else {
                settings.volumes.join("claims").join(&facts.run().namespace).join(claim)
            });
        } else if volume["configMap"].is_object() || volume["secret"].is_object() {
            let (kind, source) = if volume["secret"].is_object() {
                ("secret", &volume["secret"])
            } else {
                ("configmap", &volume["configMap"])
            };
            let object = source["secretName"].as_str().or(source["name"].as_str());
            let object = object.unwrap_or_default();
            let Some(map) = facts.lookup(kind, object) else {
                if source["optional"].as_bool().unwrap_or(false) {
                    mounts.push(mount);
                    continue;
                }
                return fail(format!("{kind} {object:?} not found"));
            };
            let data = map.get("data").filter(|d| d.is_object()).unwrap_or(&map);
            for key in data.as_object().into_iter().flat_map(Map::keys) {
                let reference = json!({ "name": object, "key": key });
                if let Some(value) = config_value(facts, kind, &reference) {
                    if kind == "secret" {
                        secrets.push(value.clone());
                    }
                    let item = source["items"].as_array().map(|items| {
                        items.iter().find(|i| i["key"] == **key).and_then(|i| i["path"].as_str())
                    });
                    match item {
                        Some(Some(path)) => mount.files.push((path.to_owned(), value)),
                        Some(None) => {}
                        None => mount.files.push((key.clone(), value)),
                    }
                }
            }
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

/// Values of the secrets that artifacts and headers refer to.
fn credentials(
    template: &Json,
    artifacts: &Map<String, Json>,
    repository: &Json,
    facts: &dyn Facts,
    secrets: &mut Vec<String>,
) -> Map<String, Json> {
    fn walk(
        json: &Json,
        facts: &dyn Facts,
        out: &mut Map<String, Json>,
        secrets: &mut Vec<String>,
    ) {
        match json {
            Json::Object(fields) => {
                if let (Some(Json::String(name)), Some(Json::String(key))) =
                    (fields.get("name"), fields.get("key"))
                    && let Some(value) = config_value(facts, "secret", json)
                {
                    secrets.push(value.clone());
                    out.insert(format!("{name}/{key}"), Json::String(value));
                }
                fields.values().for_each(|v| walk(v, facts, out, secrets));
            }
            Json::Array(items) => items.iter().for_each(|v| walk(v, facts, out, secrets)),
            _ => {}
        }
    }
    let mut out = Map::new();
    walk(&template["http"], facts, &mut out, secrets);
    walk(&template["inputs"]["artifacts"], facts, &mut out, secrets);
    walk(&template["outputs"]["artifacts"], facts, &mut out, secrets);
    walk(&template["data"]["source"], facts, &mut out, secrets);
    walk(repository, facts, &mut out, secrets);
    for artifact in artifacts.values() {
        walk(artifact, facts, &mut out, secrets);
    }
    out
}
