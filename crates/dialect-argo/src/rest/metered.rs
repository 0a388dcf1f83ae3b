//! Follows the events of workflows with custom metrics, and takes them in.
//!
//! Series live as long as the server, as a scraper expects; what happened while it was down is not
//! counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use kobza_model::{
    Event, EventKind, Json, RunId, RunRow, RunState, TaskId, TaskRow, TemplateBody, Workflow,
};
use kobza_store::RunFilter;
use tokio::sync::broadcast::error::RecvError;

use super::{ArgoError, ArgoState};
use crate::metrics::{Custom, Moment, Plain, Span};
use crate::names::{phase, template_json, workflow_name};
use crate::values::seconds;

/// Definitions of which it is remembered whether they have metrics.
const KNOWN_MAX: usize = 1000;

struct Meter {
    state: ArgoState,
    custom: Arc<Mutex<Custom>>,
    /// Live runs with metrics.
    runs: HashMap<RunId, Arc<Workflow>>,
    /// Definitions by version; none: without metrics.
    known: HashMap<String, Option<Arc<Workflow>>>,
}

impl ArgoState {
    /// Starts to follow, on a thread of its own that ends with the loop.
    pub fn start_metrics(&self) -> std::io::Result<()> {
        let custom = Arc::new(Mutex::new(Custom::default()));
        let shown = custom.clone();
        self.handle.metrics().add(move |out| {
            let custom = shown.lock().unwrap_or_else(PoisonError::into_inner);
            custom.write(out, kobza_runtime::wall_now().0);
        });
        let mut events = self.handle.follow();
        let mut meter =
            Meter { state: self.clone(), custom, runs: HashMap::new(), known: HashMap::new() };
        std::thread::Builder::new().name("argo-metrics".to_owned()).spawn(move || {
            meter.look_at_live();
            loop {
                match events.blocking_recv() {
                    Ok(committed) => {
                        for event in committed.events.iter() {
                            if let Err(error) = meter.take(event) {
                                tracing::warn!(error = error.message, "a metric was missed");
                            }
                        }
                    }
                    Err(RecvError::Lagged(_)) => meter.look_at_live(),
                    Err(RecvError::Closed) => return,
                }
            }
        })?;
        Ok(())
    }
}

/// Whether a definition has metrics at all.
fn has_metrics(workflow: &Workflow) -> bool {
    let of = |json: &Json| json["metrics"]["prometheus"].is_array();
    of(&workflow.source["spec"])
        || workflow.templates.iter().any(|template| match &template.body {
            TemplateBody::Leaf(leaf) => of(&leaf.spec["template"]),
            TemplateBody::Graph(graph) => of(&graph.spec["template"]),
        })
}

impl Meter {
    fn look_at_live(&mut self) {
        let filter = RunFilter { states: vec![RunState::Running], ..RunFilter::default() };
        let mut cursor: Option<String> = None;
        loop {
            let Ok(page) = self.state.views.list_runs(&filter, cursor.as_deref(), 500) else {
                return;
            };
            for run in &page.items {
                let _unknown = self.note(run);
            }
            cursor = page.next;
            if cursor.is_none() {
                return;
            }
        }
    }

    /// The definition of a run with metrics.
    fn note(&mut self, run: &RunRow) -> Result<Option<Arc<Workflow>>, ArgoError> {
        if run.dialect != "argo" {
            return Ok(None);
        }
        if let Some(workflow) = self.runs.get(&run.run) {
            return Ok(Some(workflow.clone()));
        }
        if !self.known.contains_key(&run.version) {
            let stored =
                self.state.store.workflow(&run.namespace, &run.workflow, Some(&run.version))?;
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            let workflow = stored.map(|stored| stored.workflow).filter(|w| has_metrics(w));
            self.known.insert(run.version.clone(), workflow);
        }
        let workflow = self.known.get(&run.version).cloned().flatten();
        if let Some(workflow) = &workflow {
            self.runs.insert(run.run, workflow.clone());
        }
        Ok(workflow)
    }

    fn take(&mut self, event: &Event) -> Result<(), ArgoError> {
        let Some(id) = event.run else { return Ok(()) };
        match &event.kind {
            EventKind::Run { state, .. } if *state == RunState::Running || state.is_finished() => {
                let Some(run) = self.state.views.get_run(id)? else { return Ok(()) };
                let Some(workflow) = self.note(&run)? else { return Ok(()) };
                self.of_run(&run, &workflow, *state);
                if state.is_finished() {
                    self.runs.remove(&id);
                }
            }
            EventKind::Task { state, .. } => {
                let Some(workflow) = self.runs.get(&id).cloned() else { return Ok(()) };
                let started = *state == kobza_model::TaskState::Running;
                if !started && !state.is_finished() {
                    return Ok(());
                }
                let Some(task) = event.task else { return Ok(()) };
                let Some(row) = self.state.views.get_task(TaskId { run: id, task })? else {
                    return Ok(());
                };
                let definitions = &template_json(&workflow, row.template)["metrics"];
                if row.summary || !definitions.is_object() {
                    return Ok(());
                }
                let Some(run) = self.state.views.get_run(id)? else { return Ok(()) };
                self.of_task(&run, &workflow, &row, definitions, !started)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn of_run(&mut self, run: &RunRow, workflow: &Workflow, state: RunState) {
        let mut values = of_workflow(run);
        let status = match state {
            RunState::Running => "Running",
            RunState::Succeeded => "Succeeded",
            _ => "Failed",
        };
        let from = run.started_at.unwrap_or(run.created_at).0;
        let until = state.is_finished().then(|| run.ended_at.map_or(from, |at| at.0));
        let now = until.unwrap_or_else(|| kobza_runtime::wall_now().0);
        let duration = format!("{:.6}", (now - from).max(0) as f64 / 1e6);
        for (name, value) in [("status", status), ("duration", duration.as_str())] {
            values.insert(name.to_owned(), value.to_owned());
            values.insert(format!("workflow.{name}"), value.to_owned());
        }
        self.observe(&workflow.source["spec"]["metrics"], values, Span { from, until });
    }

    fn of_task(
        &mut self,
        run: &RunRow,
        workflow: &Workflow,
        task: &TaskRow,
        definitions: &Json,
        ended: bool,
    ) -> Result<(), ArgoError> {
        let mut values = of_workflow(run);
        let from = task.started_at.or(task.ended_at).unwrap_or(task.created_at).0;
        let until = ended.then(|| task.ended_at.map_or(from, |at| at.0));
        let mut put = |name: String, value: String| values.insert(name, value);
        let word = if ended { phase(workflow, task) } else { "Running" };
        put("status".to_owned(), word.to_owned());
        let now = until.unwrap_or_else(|| kobza_runtime::wall_now().0);
        put("duration".to_owned(), format!("{:.6}", (now - from).max(0) as f64 / 1e6));
        let code = task.exit_code.or((word == "Succeeded").then_some(0));
        put("exitCode".to_owned(), code.map_or(String::new(), |code| code.to_string()));
        put("retries".to_owned(), task.attempt.saturating_sub(1).to_string());
        let used = crate::status::used(workflow, task).unwrap_or((0, 0));
        put("resourcesDuration.cpu".to_owned(), used.0.to_string());
        put("resourcesDuration.memory".to_owned(), used.1.to_string());
        let text = |value: &Json| match value {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        for (name, value) in task.inputs["parameters"].as_object().into_iter().flatten() {
            put(format!("inputs.parameters.{name}"), text(value));
        }
        if ended {
            for (key, value) in self.state.store.outputs(task.run, task.task)? {
                match key.as_str() {
                    "result" => {
                        put("outputs.result".to_owned(), text(&value));
                    }
                    "parameters" => {
                        for (name, value) in value.as_object().into_iter().flatten() {
                            put(format!("outputs.parameters.{name}"), text(value));
                        }
                    }
                    _ => {}
                }
            }
        }
        self.observe(definitions, values, Span { from, until });
        Ok(())
    }

    fn observe(&mut self, definitions: &Json, values: BTreeMap<String, String>, span: Span) {
        let variables = Plain(values);
        let mut custom = self.custom.lock().unwrap_or_else(PoisonError::into_inner);
        for error in custom.observe(definitions, Moment { variables: &variables, span }) {
            tracing::warn!(error, "a custom metric cannot be taken");
        }
    }
}

/// What texts of metrics may say of the workflow.
fn of_workflow(run: &RunRow) -> BTreeMap<String, String> {
    let mut values = BTreeMap::from([
        ("workflow.name".to_owned(), workflow_name(run).to_owned()),
        ("workflow.namespace".to_owned(), run.namespace.clone()),
        ("workflow.uid".to_owned(), run.run.to_string()),
        ("workflow.creationTimestamp".to_owned(), seconds(run.created_at)),
        ("workflow.priority".to_owned(), run.priority.to_string()),
    ]);
    let sides = [("parameters", &run.params), ("labels", &run.labels)];
    for (side, map) in sides {
        for (name, value) in map.as_object().into_iter().flatten() {
            if let Some(value) = value.as_str() {
                values.insert(format!("workflow.{side}.{name}"), value.to_owned());
            }
        }
    }
    values
}
