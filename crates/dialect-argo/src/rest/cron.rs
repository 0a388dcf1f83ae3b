//! Cron workflows: their routes, their triggers, and the workflows that their slots start.

use std::future::Future;
use std::pin::Pin;

use axum::extract::{Path, State};
use axum::routing::put;
use axum::{Json as Body, Router};
use kobza_engine::{Command, StartRun};
use kobza_model::{Json, RunId, RunState, Timestamp};
use kobza_runtime::Submission;
use kobza_store::{RunFilter, Write};
use serde_json::{Map, json};

use super::runs::Stored;
use super::start::Origin;
use super::{Answer, ArgoError, ArgoState, OBJECT, blocking};
use crate::cron::{CRON_LABEL, CronRecord, SCHEDULED_ANNOTATION, Slot, decide, definition_name};
use crate::{CompileOptions, Kind, Object, compile};

pub(super) fn routes() -> Router<ArgoState> {
    Router::new().route("/api/v1/cron-workflows/{namespace}/{name}/{action}", put(act))
}

/// What keeps schedules: told of each change of a cron workflow.
pub trait Schedules: Send + Sync {
    /// The triggers of a definition; null: it is gone. `paused` is set for all of them.
    fn set(
        &self,
        namespace: String,
        definition: String,
        triggers: Json,
        paused: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
}

/// A start of a cron workflow's slot, for the transaction that records the slot.
#[derive(Debug)]
pub struct SlotStart {
    pub commands: Vec<Command>,
    pub start: Box<StartRun>,
    pub writes: Vec<Write>,
}

/// Why a slot starts nothing.
#[derive(Debug)]
pub enum NoSlot {
    /// By the cron workflow's own conditions.
    Skipped(String),
    Refused(String),
}

fn record_key(name: &str) -> String {
    format!("CronRecord/{name}")
}

pub(super) fn record_write(namespace: &str, name: &str, record: Option<&CronRecord>) -> Write {
    Write::PutObject {
        kind: OBJECT,
        namespace: namespace.to_owned(),
        key: record_key(name),
        value: record.and_then(|record| serde_json::to_value(record).ok()),
    }
}

impl ArgoState {
    pub(super) fn cron_record(&self, namespace: &str, name: &str) -> Result<CronRecord, ArgoError> {
        let found = self.store.object(OBJECT, namespace, &record_key(name))?;
        Ok(found.and_then(|json| serde_json::from_value(json).ok()).unwrap_or_default())
    }

    /// The workflow that a slot of a cron workflow's starts, if it starts one.
    pub fn slot_start(
        &self,
        namespace: &str,
        definition: &str,
        run: RunId,
        slot: Timestamp,
        now: Timestamp,
    ) -> Result<SlotStart, NoSlot> {
        let refused = |error: ArgoError| NoSlot::Refused(error.message);
        let name = definition.strip_suffix(":cron").unwrap_or(definition);
        let key = format!("{}/{name}", Kind::CronWorkflow.as_str());
        let json = self
            .store
            .object(OBJECT, namespace, &key)
            .map_err(|e| refused(e.into()))?
            .ok_or_else(|| NoSlot::Refused(format!("cron workflow {name:?} not found")))?;
        let mut record = self.cron_record(namespace, name).map_err(refused)?;
        match decide(&json, &record, now).map_err(NoSlot::Refused)? {
            Slot::Start => {}
            Slot::Skip(reason) | Slot::Stop(reason) => return Err(NoSlot::Skipped(reason)),
        }
        let object = Object::from_json(json).map_err(|d| refused(d.into()))?;
        let mut labels = Map::new();
        labels.insert(CRON_LABEL.to_owned(), Json::from(name));
        let mut annotations = Map::new();
        let scheduled = Json::from(crate::values::seconds(slot));
        annotations.insert(SCHEDULED_ANNOTATION.to_owned(), scheduled);
        let origin = Origin {
            labels,
            annotations,
            trigger: Some("schedule"),
            owners: json!([{
                "apiVersion": "argoproj.io/v1alpha1", "kind": "CronWorkflow", "name": name,
                "uid": object.json["metadata"]["uid"], "controller": true,
                "blockOwnerDeletion": true,
            }]),
            ..Origin::default()
        };
        let own = format!("{name}-{}", slot.0.div_euclid(1_000_000));
        let built = self.build(namespace, &object, &origin, run, &own).map_err(refused)?;
        record.last = Some(slot);
        let mut writes = built.writes;
        writes.push(record_write(namespace, name, Some(&record)));
        let start = Box::new(StartRun { interval: None, ..*built.start });
        Ok(SlotStart { commands: built.commands, start, writes })
    }

    /// The write that keeps a cron workflow's definition, and its triggers.
    pub(super) fn cron_definition(
        &self,
        namespace: &str,
        object: &Object,
    ) -> Result<(Write, Json), ArgoError> {
        let options =
            CompileOptions { namespace: namespace.to_owned(), ..CompileOptions::default() };
        let workflow = compile(object, &Stored { state: self, namespace }, &options)?;
        let triggers = workflow.triggers.clone();
        let version = workflow.content_hash().map_err(|e| ArgoError::internal(e.to_string()))?;
        let write = Write::PutWorkflow {
            namespace: namespace.to_owned(),
            version,
            workflow: std::sync::Arc::new(workflow),
            source: Some(object.json.to_string()),
        };
        Ok((write, triggers))
    }

    /// Tells the schedules of a changed cron workflow.
    pub(super) async fn reschedule(
        &self,
        namespace: &str,
        name: &str,
        triggers: Json,
        paused: bool,
    ) -> Result<(), ArgoError> {
        let Some(schedules) = &self.schedules else { return Ok(()) };
        schedules
            .set(namespace.to_owned(), definition_name(name), triggers, paused)
            .await
            .map_err(ArgoError::internal)
    }

    /// The object with its status as it is now.
    pub(super) fn cron_shown(&self, mut object: Json) -> Result<Json, ArgoError> {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        let namespace = metadata["namespace"].as_str().unwrap_or_default().to_owned();
        let record = self.cron_record(&namespace, &name)?;
        let filter = RunFilter {
            states: vec![
                RunState::Queued,
                RunState::Running,
                RunState::Paused,
                RunState::Cancelling,
            ],
            ..self.of_cron(&namespace, &name)
        };
        let active: Vec<Json> = self
            .views
            .list_runs(&filter, None, 100)?
            .items
            .iter()
            .map(|run| {
                json!({
                    "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
                    "name": crate::names::workflow_name(run), "namespace": run.namespace,
                    "uid": run.run.to_string(), "resourceVersion": run.created_at.0.to_string(),
                })
            })
            .collect();
        object["status"] = json!({
            "active": active,
            "lastScheduledTime": record.last.map(crate::values::seconds),
            "conditions": object["status"]["conditions"].as_array().cloned().unwrap_or_default(),
            "succeeded": record.succeeded, "failed": record.failed,
            "phase": if record.stopped { "Stopped" } else { "Active" },
        });
        if record.stopped {
            object["metadata"]["labels"]["workflows.argoproj.io/cron-workflow-completed"] =
                Json::from("true");
        }
        Ok(object)
    }

    pub(super) fn of_cron(&self, namespace: &str, name: &str) -> RunFilter {
        RunFilter {
            namespaces: vec![namespace.to_owned()],
            labels: vec![(CRON_LABEL.to_owned(), name.to_owned())],
            ..RunFilter::default()
        }
    }
}

async fn act(
    State(state): State<ArgoState>,
    Path((namespace, name, action)): Path<(String, String, String)>,
) -> Answer {
    let suspend = match action.as_str() {
        "suspend" => true,
        "resume" => false,
        other => return Err(ArgoError::not_found(format!("action {other:?}"))),
    };
    let (reading, space) = (state.clone(), namespace.clone());
    let mut json = blocking(move || reading.object_of(Kind::CronWorkflow, &space, &name)).await?;
    json["spec"]["suspend"] = Json::Bool(suspend);
    let object = Object::from_json(json)?;
    state.keep(&namespace, object, false).await.map(Body)
}

/// Removes a cron workflow's definition and what is kept of it, beside its object.
pub(super) async fn removed(
    state: &ArgoState,
    namespace: &str,
    name: &str,
) -> Result<(), ArgoError> {
    let writes = vec![
        Write::DeleteWorkflow { namespace: namespace.to_owned(), name: definition_name(name) },
        record_write(namespace, name, None),
    ];
    state.reschedule(namespace, name, Json::Null, false).await?;
    state.handle.submit(Submission { commands: Vec::new(), writes }).await?;
    Ok(())
}
