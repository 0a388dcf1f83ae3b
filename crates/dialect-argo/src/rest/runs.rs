//! Workflows as runs: found and loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_model::{Json, RunId, RunImage, RunRow, TaskId};
use kobza_store::RunFilter;

use super::{ArgoError, ArgoState, OBJECT, blocking};
use crate::{Library, RunData};

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

/// The object of a definition's source; null where the source is no object of its own.
fn written(source: Option<&str>) -> Json {
    let json: Json = source.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Json::Null);
    if json["spec"].is_object() { json } else { Json::Null }
}

pub(super) fn start_key(name: &str) -> String {
    format!("Run/{name}")
}

impl ArgoState {
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
        let mut outputs: BTreeMap<_, BTreeMap<String, Arc<Json>>> = BTreeMap::new();
        for task in &image.tasks {
            let id = TaskId { run, task: task.task };
            if task.attempt > 1 {
                let all = self.views.list_attempts(id)?;
                attempts.extend(all.into_iter().filter(|a| a.attempt < task.attempt));
            }
        }
        for (task, key, value) in self.views.run_outputs(run)? {
            outputs.entry(task).or_default().insert(key, Arc::new(value));
        }
        Ok(RunData {
            written: written(stored.source.as_deref()),
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
            written: written(stored.source.as_deref()),
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
            Ok(state.shown(&state.load(run)?))
        })
        .await
    }
}
