//! What tasks ask, answered from the store, the engine and the vault. Nothing here knows by which
//! door a question came.

mod assets;
mod instances;
mod people;
mod runs;
mod skips;
mod states;
mod values;
mod xcoms;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use kobza_model::{Json, LaunchId, RunRow, TaskNo, TaskRow};
use kobza_runtime::{Answer, Handle, SubmitError};
use kobza_store::{RunFilter, Store, StoreError, ViewError, Views};
use serde_json::json;

pub(crate) use assets::event_extra;
pub(crate) use instances::{map_index, tasks_of_group};
pub(crate) use runs::logical_date;
pub(crate) use values::connection;

use crate::dated::Dated;
use crate::schedule::CustomTimetables;
pub use crate::start::StartRuns;
use crate::task::{Refused, Request};

/// Values that may be secret at rest.
pub trait Values: Send + Sync {
    /// A variable or connection of a namespace by name, in the clear.
    fn lookup(&self, kind: &str, namespace: &str, name: &str) -> Option<Json>;

    /// A value of a variable or a connection, encrypted for its place.
    fn seal(&self, kind: &str, namespace: &str, name: &str, value: &Json) -> Result<Json, String>;

    /// What is sealed of a connection, in the clear; nothing of nothing.
    fn secrets(
        &self,
        namespace: &str,
        name: &str,
        sealed: &Json,
    ) -> Result<serde_json::Map<String, Json>, String>;
}

/// Most runs of a DAG that a question looks through, from the newest on.
const RUNS_MAX: usize = 5_000;
/// Lists of instances remembered for questions that come one by one.
const LISTS_MAX: usize = 64;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub launch: LaunchId,
    /// Of the question, unique within the launch: a repeated question has the same.
    pub number: u64,
}

pub struct Desk {
    pub(crate) handle: Handle,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) views: Arc<dyn Views>,
    pub(crate) values: Arc<dyn Values>,
    pub(crate) starts: StartRuns,
    /// Runs by their logical dates.
    pub(crate) dated: Arc<Dated>,
    lists: Mutex<VecDeque<(ListKey, Arc<Vec<TaskNo>>)>>,
}

/// The instances of a task that have left an XCom, as one asker saw them.
type ListKey = (LaunchId, kobza_model::RunId, String, String);

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desk")
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::api(500, error.to_string())
    }
}

impl From<ViewError> for Refused {
    fn from(error: ViewError) -> Self {
        Self::api(500, error.to_string())
    }
}

/// Why there is no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// The server stops: another will answer.
    Stopped,
    /// The store is in trouble: ask again.
    Again,
}

/// Kinds of refusals that never reach a task.
const STOPPED: &str = "STOPPED";
const UNCERTAIN: &str = "UNCERTAIN";

impl From<SubmitError> for Refused {
    fn from(error: SubmitError) -> Self {
        let detail = json!(error.to_string());
        match error {
            SubmitError::Stopped => Self { kind: STOPPED, detail },
            SubmitError::Unknown(_) | SubmitError::Store(_) => Self { kind: UNCERTAIN, detail },
            SubmitError::Refused(_) | SubmitError::KeyTaken { .. } => {
                Self::api(409, error.to_string())
            }
        }
    }
}

/// An answer's body, and the secrets in it.
pub(crate) struct Found {
    body: Json,
    secrets: Vec<String>,
}

impl From<Json> for Found {
    fn from(body: Json) -> Self {
        Self { body, secrets: Vec::new() }
    }
}

impl Desk {
    #[must_use]
    pub fn new(
        handle: Handle,
        store: Arc<dyn Store>,
        views: Arc<dyn Views>,
        values: Arc<dyn Values>,
        starts: StartRuns,
        dated: Arc<Dated>,
    ) -> Self {
        let lists = Mutex::new(VecDeque::new());
        Self { handle, store, views, values, starts, dated, lists }
    }

    /// Says who knows timetables of the user's own; false if somebody was set up before.
    pub fn set_custom(&self, custom: Arc<dyn CustomTimetables>) -> bool {
        self.starts.custom.set(custom).is_ok()
    }

    /// Answers a request's body. Blocks; what it changes is durable when it returns.
    pub fn answer(&self, asker: Asker, body: &Json) -> Result<Answer, Later> {
        match self.found(asker, body) {
            Ok(Found { body, secrets }) => Ok(Answer { result: Ok(body), secrets }),
            Err(Refused { kind: STOPPED, .. }) => Err(Later::Stopped),
            Err(Refused { kind: UNCERTAIN, .. }) => Err(Later::Again),
            Err(refused) => Ok(Answer::value(refused.body())),
        }
    }

    /// Answers what a DAG file asks while it is read: variables and connections. Blocks.
    #[must_use]
    pub fn answer_definition(&self, namespace: &str, body: &Json) -> Json {
        let found = Request::parse(body).and_then(|request| match request {
            Request::GetConnection { conn_id } => Ok(self.connection(namespace, &conn_id)),
            Request::GetVariable { key } => Ok(self.variable(namespace, &key)),
            Request::GetVariableKeys { prefix, limit, offset } => {
                let prefix = prefix.unwrap_or_default();
                Ok(self.variable_keys(namespace, &prefix, limit, offset)?.into())
            }
            Request::PutVariable { key, value, description } => {
                Ok(self.put_variable(namespace, &key, value, description)?.into())
            }
            Request::DeleteVariable { key } => Ok(self.delete_variable(namespace, &key)?.into()),
            _ => {
                let name = body["type"].as_str().unwrap_or_default();
                Err(Refused::api(400, format!("{name} is not answered while a DAG file is read")))
            }
        });
        match found {
            Ok(found) => found.body,
            Err(refused) => refused.body(),
        }
    }

    fn found(&self, asker: Asker, body: &Json) -> Result<Found, Refused> {
        let run = self.run_of(asker)?;
        if body["type"] == "Skips" {
            return Ok(self.skips(asker, &run, body)?.into());
        }
        let request = Request::parse(body)?;
        let namespace = run.namespace.as_str();
        let found = match request {
            Request::GetXCom { place, include_prior_dates } => {
                self.get_xcom(asker, &run, &place, include_prior_dates)?.into()
            }
            Request::SetXCom { place, value, .. } => self.set_xcom(&run, place, value)?.into(),
            Request::DeleteXCom(place) => self.delete_xcom(&run, &place)?.into(),
            Request::GetXComCount(place) => self.xcom_count(asker, &run, &place)?.into(),
            Request::GetXComSequenceItem { place, offset } => {
                self.xcom_item(asker, &run, &place, offset)?.into()
            }
            Request::GetXComSequenceSlice { place, start, stop, step, include_prior_dates } => {
                let slice = (start, stop, step);
                self.xcom_slice(asker, &run, &place, slice, include_prior_dates)?.into()
            }
            Request::GetConnection { conn_id } => self.connection(namespace, &conn_id),
            Request::GetVariable { key } => self.variable(namespace, &key),
            Request::GetVariableKeys { prefix, limit, offset } => {
                let prefix = prefix.unwrap_or_default();
                self.variable_keys(namespace, &prefix, limit, offset)?.into()
            }
            Request::PutVariable { key, value, description } => {
                self.put_variable(namespace, &key, value, description)?.into()
            }
            Request::DeleteVariable { key } => self.delete_variable(namespace, &key)?.into(),
            Request::TriggerDagRun(asked) => self.trigger(asker, &run, asked)?.into(),
            Request::GetDagRun { dag_id, run_id } => {
                self.dag_run(namespace, &dag_id, &run_id)?.into()
            }
            Request::GetDagRunState { dag_id, run_id } => {
                self.dag_run_state(namespace, &dag_id, &run_id)?.into()
            }
            Request::GetDRCount { dag_id, logical_dates, run_ids, states } => {
                let dates = logical_dates.as_deref();
                self.run_count(namespace, &dag_id, dates, run_ids.as_deref(), states.as_deref())?
                    .into()
            }
            Request::GetPreviousDagRun { dag_id, logical_date, state } => {
                self.previous_run(namespace, &dag_id, &logical_date, state.as_deref())?.into()
            }
            Request::GetPrevSuccessfulDagRun {} => self.previous_success(&run)?.into(),
            Request::GetTICount(which) => self.instance_count(namespace, &which)?.into(),
            Request::GetTaskStates(which) => self.instance_states(namespace, &which)?.into(),
            Request::GetPreviousTI { dag_id, task_id, logical_date, map_index, state } => self
                .previous_instance(
                    namespace,
                    (&dag_id, &task_id, map_index),
                    logical_date.as_deref(),
                    state.as_deref(),
                )?
                .into(),
            Request::GetTaskBreadcrumbs { dag_id, run_id } => {
                self.breadcrumbs(namespace, &dag_id, &run_id)?.into()
            }
            Request::GetDag { dag_id } => self.dag(namespace, &dag_id)?.into(),
            Request::GetAssetByName { name } => self.asset(namespace, Some(&name), None)?.into(),
            Request::GetAssetByUri { uri } => self.asset(namespace, None, Some(&uri))?.into(),
            Request::GetAssetsByAlias { alias_name } => {
                self.assets_by_alias(namespace, &alias_name)?.into()
            }
            Request::GetAssetEventByAsset(which) | Request::GetAssetEventByAssetAlias(which) => {
                self.asset_events(namespace, &which)?.into()
            }
            // An asset is active as long as a DAG names it, and the asker's own does.
            Request::ValidateInletsAndOutlets {} => {
                json!({"type": "InactiveAssetsResult", "inactive_assets": []}).into()
            }
            Request::CreateHITLDetailPayload {
                options,
                subject,
                body,
                defaults,
                multiple,
                params,
                assigned_users,
            } => {
                let detail = json!({
                    "options": options, "subject": subject, "body": body, "defaults": defaults,
                    "multiple": multiple.unwrap_or(false), "params": params.unwrap_or(json!({})),
                    "assigned_users": assigned_users.unwrap_or_default(),
                });
                self.ask_people(asker, namespace, detail)?.into()
            }
            Request::GetHITLDetailResponse { ti_id } => self.people_said(namespace, &ti_id)?.into(),
            Request::UpdateHITLDetail { ti_id, chosen_options, params_input } => {
                self.say_for_people(namespace, &ti_id, chosen_options, params_input)?.into()
            }
            Request::GetTaskStateStore(_)
            | Request::SetTaskStateStore(_)
            | Request::DeleteTaskStateStore(_)
            | Request::ClearTaskStateStore {}
            | Request::GetAssetStateStoreByName(_)
            | Request::GetAssetStateStoreByUri(_)
            | Request::SetAssetStateStoreByName(_)
            | Request::SetAssetStateStoreByUri(_)
            | Request::DeleteAssetStateStoreByName(_)
            | Request::DeleteAssetStateStoreByUri(_)
            | Request::ClearAssetStateStoreByName(_)
            | Request::ClearAssetStateStoreByUri(_) => {
                self.state_store(asker, namespace, request)?.into()
            }
            // What a supervisor answers by itself.
            Request::SucceedTask { .. }
            | Request::TaskState { .. }
            | Request::DeferTask(_)
            | Request::RescheduleTask { .. }
            | Request::RetryTask { .. }
            | Request::AwaitInputTask { .. }
            | Request::SkipDownstreamTasks { .. }
            | Request::SetRenderedFields { .. }
            | Request::SetRenderedMapIndex { .. }
            | Request::MaskSecret { .. }
            | Request::ResendLoggingFD
            | Request::GetTaskRescheduleStartDate { .. } => {
                let name = body["type"].as_str().unwrap_or_default();
                return Err(Refused::api(400, format!("{name} is for the task's supervisor")));
            }
        };
        Ok(found)
    }

    fn run_of(&self, asker: Asker) -> Result<RunRow, Refused> {
        let run = self.views.get_run(asker.launch.run)?;
        run.ok_or_else(|| Refused::api(404, "the run of this task is gone"))
    }

    fn task_of(&self, asker: Asker) -> Result<TaskRow, Refused> {
        let task = self.views.get_task(asker.launch.task_id())?;
        task.ok_or_else(|| Refused::api(404, "this task is gone"))
    }

    /// Waits until all that the executor has reported so far is in the store.
    fn settle(&self) -> Result<(), Refused> {
        self.handle.submit_blocking(kobza_runtime::Submission::default())?;
        Ok(())
    }

    /// A run by Airflow's ids.
    pub(crate) fn find_run(
        &self,
        namespace: &str,
        dag_id: &str,
        run_id: &str,
    ) -> Result<Option<RunRow>, Refused> {
        let run = match self.store.run_by_key(namespace, dag_id, run_id)? {
            Some(run) => run,
            // A run that was started without an id has its own.
            None => match run_id.parse() {
                Ok(run) => run,
                Err(_) => return Ok(None),
            },
        };
        Ok(self.views.get_run(run)?.filter(|row| row.workflow == dag_id))
    }

    /// The newest runs of a DAG, by creation.
    pub(crate) fn runs(&self, namespace: &str, dag_id: &str) -> Result<Vec<RunRow>, Refused> {
        let filter = RunFilter {
            namespaces: vec![namespace.to_owned()],
            workflow: Some(dag_id.to_owned()),
            ..RunFilter::default()
        };
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        while all.len() < RUNS_MAX {
            let page = self.views.list_runs(&filter, cursor.as_deref(), 1000)?;
            all.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        Ok(all)
    }

    fn remembered(&self, key: &ListKey) -> Option<Arc<Vec<TaskNo>>> {
        let lists = self.lists.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lists.iter().find(|(known, _)| known == key).map(|(_, list)| list.clone())
    }

    fn remember(&self, key: ListKey, list: &Arc<Vec<TaskNo>>) {
        let mut lists = self.lists.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lists.len() >= LISTS_MAX {
            lists.pop_front();
        }
        lists.push_back((key, list.clone()));
    }
}
