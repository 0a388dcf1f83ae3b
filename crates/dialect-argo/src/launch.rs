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
use crate::pod::{PodFields, credentials, environment, mounts};
use crate::repository::Repository;
use crate::values::{Live, Values, enclosing_inputs};

/// Where the dialect's tasks run, and with what.
#[derive(Clone, Debug, Default)]
pub struct ArgoSettings {
    /// The program whose `exec argo` runs one leaf.
    pub program: String,
    /// The default artifact repository: a folder.
    pub artifacts: PathBuf,
    /// The store of artifacts by content, for looks into them; none: no looks.
    pub looks: Option<PathBuf>,
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
    /// The store of artifacts by content, where people may look into them.
    #[serde(default)]
    pub looks: Option<PathBuf>,
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

pub(crate) fn fail<T>(message: impl Into<String>) -> Result<T, String> {
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
        looks: settings.looks.clone(),
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
