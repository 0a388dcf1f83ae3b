//! What goes after a workflow's end while the workflow itself stays: logs by `podGC`, artifacts by
//! `artifactGC`.

use std::time::Duration;

use kobza_model::{Json, RunRow, RunState, TaskId, TaskState, Timestamp};
use kobza_store::Write;
use serde_json::json;

use super::{ArgoError, ArgoState, OBJECT};
use crate::RunData;
use crate::compile::duration_ms;
use crate::names::{template_json, workflow_name};

/// How long logs stay after the end when `podGC` does not say.
const POD_DELAY: Duration = Duration::from_secs(5);

/// When artifacts go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum When {
    Completion,
    Deletion,
}

impl When {
    fn word(self) -> &'static str {
        match self {
            Self::Completion => "OnWorkflowCompletion",
            Self::Deletion => "OnWorkflowDeletion",
        }
    }
}

/// What a spec says of how long a workflow and what it made are kept: noted with its run.
pub(super) fn retention(spec: &Json) -> Json {
    let named = |gc: &Json| gc["strategy"].as_str().is_some_and(|s| !s.is_empty() && s != "Never");
    let templates = || spec["templates"].as_array().into_iter().flatten();
    let outputs =
        templates().flat_map(|t| t["outputs"]["artifacts"].as_array().into_iter().flatten());
    let artifacts = named(&spec["artifactGC"]) || outputs.clone().any(|a| named(&a["artifactGC"]));
    let pods = spec["podGC"]["strategy"].as_str().is_some_and(|s| !s.is_empty());
    json!({
        "ttlStrategy": spec.get("ttlStrategy"),
        "podGC": spec.get("podGC").filter(|_| pods),
        "artifactGC": artifacts.then(|| spec["artifactGC"]["strategy"].clone()),
        "hasArtifactGC": artifacts,
    })
}

fn noted(run: &RunRow) -> &Json {
    &run.extra["argo"]["retention"]
}

/// When a finished workflow's logs go.
pub(super) fn logs_due(run: &RunRow) -> Option<Timestamp> {
    let gc = noted(run).get("podGC").filter(|gc| gc.is_object())?;
    if gc["strategy"] == "OnWorkflowSuccess" && run.state != RunState::Succeeded {
        return None;
    }
    let delay = gc["deleteDelayDuration"].as_str().and_then(duration_ms);
    let delay = delay.map_or(POD_DELAY, Duration::from_millis);
    let micros = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
    Some(run.ended_at?.saturating_add_micros(micros))
}

/// Whether some of its artifacts go by themselves.
pub(super) fn has_artifacts_to_go(run: &RunRow) -> bool {
    noted(run)["hasArtifactGC"] == true
}

/// The key of the note that artifacts are gone, and what went wrong.
pub(super) fn gone_key(name: &str) -> String {
    format!("Collected/{name}")
}

impl ArgoState {
    /// Removes the logs that `podGC` means.
    pub(super) fn collect_logs(&self, run: &RunRow) -> Result<(), ArgoError> {
        let gc = &noted(run)["podGC"];
        let removed = |result: std::io::Result<()>| {
            result.map_err(|error| ArgoError::internal(format!("logs of {}: {error}", run.run)))
        };
        let chosen = gc["labelSelector"]["matchLabels"].as_object().filter(|l| !l.is_empty());
        if gc["strategy"] != "OnPodSuccess" && chosen.is_none() {
            return removed(self.logs.remove_run(run.run));
        }
        let data = self.load(run.run)?;
        for task in &data.tasks {
            if gc["strategy"] == "OnPodSuccess" && task.state != TaskState::Succeeded {
                continue;
            }
            let labels = |source: &Json, key: &str| source["metadata"]["labels"][key].clone();
            let template = template_json(&data.workflow, task.template);
            let pods = json!({ "metadata": data.workflow.source["spec"]["podMetadata"] });
            let fits = chosen.is_none_or(|wanted| {
                wanted.iter().all(|(key, value)| {
                    labels(template, key) == *value || labels(&pods, key) == *value
                })
            });
            if fits {
                removed(self.logs.remove_task(TaskId { run: run.run, task: task.task }))?;
            }
        }
        Ok(())
    }

    /// Removes the artifacts that go at this time; the note of it.
    pub(super) fn collect_artifacts(&self, data: &RunData, when: When) -> Write {
        let default = &noted(&data.run)["artifactGC"];
        let mut wrong: Option<String> = None;
        let mut gone: Vec<String> = Vec::new();
        for outputs in data.outputs.values() {
            let artifacts = outputs.get("artifacts").and_then(|a| a.as_object());
            for artifact in artifacts.into_iter().flat_map(serde_json::Map::values) {
                let own = &artifact["artifactGC"]["strategy"];
                let strategy = if own.is_null() { default } else { own };
                let Some(key) = artifact["s3"]["key"].as_str() else { continue };
                if strategy != when.word() || gone.iter().any(|k| k == key) {
                    continue;
                }
                match self.places(data, |places| places.of(&artifact["s3"])?.remove(key)) {
                    Ok(()) => gone.push(key.to_owned()),
                    Err(error) => wrong = wrong.or(Some(format!("{key}: {error}"))),
                }
            }
        }
        if let Some(error) = &wrong {
            tracing::warn!(run = %data.run.run, error, "artifacts could not be removed");
        }
        Write::PutObject {
            kind: OBJECT,
            namespace: data.run.namespace.clone(),
            key: gone_key(workflow_name(&data.run)),
            value: Some(json!({ "gone": gone, "error": wrong })),
        }
    }

    /// Marks what is gone in a workflow's status.
    pub(super) fn show_gone(&self, data: &RunData, object: &mut Json) {
        if !has_artifacts_to_go(&data.run) || !data.run.state.is_finished() {
            return;
        }
        let key = gone_key(workflow_name(&data.run));
        let Ok(Some(note)) = self.store.object(OBJECT, &data.run.namespace, &key) else { return };
        let status = &mut object["status"];
        status["artifactGCStatus"] =
            json!({ "strategiesProcessed": { When::Completion.word(): true } });
        if let (Some(error), Some(conditions)) =
            (note["error"].as_str(), status["conditions"].as_array_mut())
        {
            conditions
                .push(json!({ "type": "ArtifactGCError", "status": "True", "message": error }));
        }
        let gone = note["gone"].as_array().map_or(&[][..], Vec::as_slice);
        for (_, node) in status["nodes"].as_object_mut().into_iter().flatten() {
            let artifacts = node.pointer_mut("/outputs/artifacts").and_then(Json::as_array_mut);
            for artifact in artifacts.into_iter().flatten() {
                if gone.contains(&artifact["s3"]["key"]) {
                    artifact["deleted"] = Json::Bool(true);
                }
            }
        }
    }
}
