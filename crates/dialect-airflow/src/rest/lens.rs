//! Rows as Airflow's answers have them. What one call needs of definitions is read once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use kobza_model::{Json, RunRow, TaskId, TaskRow, TaskState, Timestamp};
use kobza_store::{RunFilter, VersionSummary, kinds};
use serde_json::{Map, json};

use super::answer::{Call, RestError};
use super::definitions::Digest;
use super::{NAMESPACE, Rest};
use crate::desk::map_index;
use crate::ids;
use crate::states::{run_word, task_word};
use crate::task::Carry;

/// Most runs that a list looks through, from the newest on.
pub(crate) const RUNS_MAX: usize = 5_000;

/// What was read, by DAG and version.
type Digests = HashMap<(String, String), Option<Arc<Digest>>>;

/// A call's view.
pub(crate) struct Lens<'a> {
    pub(crate) rest: &'a Rest,
    versions: RefCell<HashMap<String, Arc<Vec<VersionSummary>>>>,
    digests: RefCell<Digests>,
}

#[expect(clippy::cast_precision_loss, reason = "durations are far from 2^53 microseconds")]
pub(crate) fn seconds(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<f64> {
    Some((to?.0 - from?.0) as f64 / 1_000_000.0)
}

impl<'a> Lens<'a> {
    pub(crate) fn new(rest: &'a Rest) -> Self {
        Self { rest, versions: RefCell::default(), digests: RefCell::default() }
    }

    pub(crate) fn digest(
        &self,
        dag_id: &str,
        version: &str,
    ) -> Result<Option<Arc<Digest>>, RestError> {
        let key = (dag_id.to_owned(), version.to_owned());
        if let Some(known) = self.digests.borrow().get(&key) {
            return Ok(known.clone());
        }
        let found = self.rest.digest(dag_id, Some(version))?;
        self.digests.borrow_mut().insert(key, found.clone());
        Ok(found)
    }

    fn versions(&self, dag_id: &str) -> Result<Arc<Vec<VersionSummary>>, RestError> {
        if let Some(known) = self.versions.borrow().get(dag_id) {
            return Ok(known.clone());
        }
        let found = Arc::new(self.rest.desk.views.workflow_versions(NAMESPACE, dag_id)?);
        self.versions.borrow_mut().insert(dag_id.to_owned(), found.clone());
        Ok(found)
    }

    /// A version of a DAG; the oldest has number 1.
    pub(crate) fn version(&self, dag_id: &str, version: &str) -> Result<Json, RestError> {
        let all = self.versions(dag_id)?;
        let Some(place) = all.iter().position(|one| one.version == version) else {
            return Ok(Json::Null);
        };
        let digest = self.digest(dag_id, version)?;
        let bundle = digest.as_ref().map(|digest| digest.bundle().clone()).unwrap_or_default();
        Ok(json!({
            "id": ids::dag_version(version),
            "version_number": all.len() - place,
            "dag_id": dag_id,
            "bundle_name": bundle["name"],
            "bundle_version": bundle["version"],
            "created_at": all[place].created_at,
            "dag_display_name": digest.map_or_else(|| dag_id.to_owned(), |d| d.display_name.clone()),
            "bundle_url": null,
        }))
    }

    /// All versions, the oldest first.
    pub(crate) fn all_versions(&self, dag_id: &str) -> Result<Vec<(String, Json)>, RestError> {
        let all = self.versions(dag_id)?;
        all.iter()
            .rev()
            .map(|one| Ok((one.version.clone(), self.version(dag_id, &one.version)?)))
            .collect()
    }

    fn display_name(&self, run: &RunRow) -> Result<String, RestError> {
        let digest = self.digest(&run.workflow, &run.version)?;
        Ok(digest.map_or_else(|| run.workflow.clone(), |digest| digest.display_name.clone()))
    }

    /// What a list of runs is filtered and ordered by: everything but the version.
    pub(crate) fn run_light(&self, run: &RunRow) -> Json {
        let told = crate::dag_run(run);
        let own = &run.extra["airflow"];
        let run_type = match own["run_type"].as_str() {
            Some(kind) => kind,
            None => match run.trigger.as_str() {
                "backfill" => "backfill",
                "schedule" | "timetable" => "scheduled",
                "asset" => "asset_triggered",
                _ => "manual",
            },
        };
        let changed = run.ended_at.or(run.started_at).unwrap_or(run.created_at);
        json!({
            "dag_run_id": told["run_id"],
            "dag_id": run.workflow,
            "logical_date": told["logical_date"],
            "queued_at": run.created_at,
            "start_date": run.started_at,
            "end_date": run.ended_at,
            "duration": seconds(run.started_at, run.ended_at),
            "data_interval_start": run.interval_start,
            "data_interval_end": run.interval_end,
            "run_after": told["run_after"],
            "last_scheduling_decision": null,
            "run_type": run_type,
            "state": run_word(run.state),
            "triggered_by": own["triggered_by"],
            "triggering_user_name": own["triggering_user"],
            "conf": told["conf"],
            "note": told["note"],
            "dag_versions": [],
            "bundle_version": null,
            "dag_display_name": run.workflow,
            "partition_key": told["partition_key"],
            "partition_date": told["partition_date"],
            "_id": format!("{:020}{}", run.created_at.0, run.run),
            "_updated_at": changed,
        })
    }

    pub(crate) fn run(&self, run: &RunRow) -> Result<Json, RestError> {
        let mut told = super::listing::visible(self.run_light(run));
        let version = self.version(&run.workflow, &run.version)?;
        told["bundle_version"] = version["bundle_version"].clone();
        told["dag_versions"] = if version.is_null() { json!([]) } else { json!([version]) };
        told["dag_display_name"] = json!(self.display_name(run)?);
        Ok(told)
    }

    /// What a list of task instances is filtered and ordered by.
    pub(crate) fn instance_light(&self, run: &RunRow, row: &TaskRow) -> Result<Json, RestError> {
        let digest = self.digest(&run.workflow, &run.version)?;
        let task = digest.as_ref().and_then(|digest| digest.tasks.get(&row.name));
        let end = row.ended_at;
        let started = row.started_at.or(end.filter(|_| row.attempt > 0));
        let running = matches!(row.state, TaskState::Running | TaskState::Cancelling);
        let until = if running { Some(kobza_runtime::wall_now()) } else { end };
        let index = map_index(row);
        let changed = end.or(row.started_at).or(row.ready_at).unwrap_or(row.created_at);
        Ok(json!({
            "id": ids::task_instance(row.run, row.task, row.attempt),
            "task_id": row.name,
            "dag_id": run.workflow,
            "dag_run_id": crate::run_id(run),
            "map_index": index,
            "logical_date": run.extra["airflow"]["logical_date"],
            "run_after": crate::dag_run(run)["run_after"],
            "start_date": started,
            "end_date": end,
            "duration": seconds(started, until),
            "state": task_word(row.state, row.cause),
            "try_number": row.attempt,
            "max_tries": row.attempts_before + task.map_or(0, |task| task.retries),
            "task_display_name": task.map_or(row.name.as_str(), |task| &task.display_name),
            "dag_display_name": digest.as_ref().map_or(run.workflow.as_str(), |d| &d.display_name),
            "hostname": null,
            "unixname": null,
            "pool": task.map_or("default_pool", |task| &task.pool),
            "pool_slots": task.map_or(1, |task| task.pool_slots),
            "queue": task.map(|task| &task.queue),
            "priority_weight": task.map(|task| task.priority),
            "operator": task.and_then(|task| task.operator.as_ref()),
            "operator_name": task.and_then(|task| task.operator_name.as_ref()),
            "queued_when": row.ready_at,
            "scheduled_when": row.ready_at,
            "pid": null,
            "executor": task.map(|task| &task.executor),
            "executor_config": "{}",
            "note": null,
            "rendered_map_index": (index >= 0).then(|| index.to_string()),
            "rendered_fields": {},
            "trigger": null,
            "triggerer_job": null,
            "dag_version": null,
            "_id": format!("{:020}{}/{:010}", run.created_at.0, run.run, row.task.0),
            "_updated_at": changed,
        }))
    }

    /// A task instance with what has to be read for it alone.
    pub(crate) fn complete(
        &self,
        mut told: Json,
        run: &RunRow,
        row: &TaskRow,
    ) -> Result<Json, RestError> {
        let id = TaskId { run: row.run, task: row.task };
        let views = &self.rest.desk.views;
        if let Some(name @ Json::String(_)) = views.task_output(id, "$map_index")? {
            told["rendered_map_index"] = name;
        }
        if let Some(fields @ Json::Object(_)) = views.task_output(id, "$rendered")? {
            told["rendered_fields"] = fields;
        }
        let note = views.get_object(kinds::NOTE, &run.namespace, &id.to_string())?;
        told["note"] = note.map(|note| note.value["text"].clone()).unwrap_or_default();
        told["dag_version"] = self.version(&run.workflow, &run.version)?;
        if row.state == TaskState::Deferred
            && let Some(waits) = Carry::of(&row.carry).trigger
        {
            told["trigger"] = json!({
                "id": ids::number("trigger", &told["id"].to_string()),
                "classpath": waits.classpath,
                "kwargs": waits.kwargs.to_string(),
                "created_date": row.started_at.unwrap_or(row.created_at),
                "queue": waits.queue,
                "triggerer_id": null,
            });
        }
        Ok(super::listing::visible(told))
    }

    pub(crate) fn instance(&self, run: &RunRow, row: &TaskRow) -> Result<Json, RestError> {
        self.complete(self.instance_light(run, row)?, run, row)
    }

    /// A try of a task instance, as its history has it.
    pub(crate) fn history(&self, run: &RunRow, row: &TaskRow) -> Result<Json, RestError> {
        const FIELDS: [&str; 24] = [
            "task_id",
            "dag_id",
            "dag_run_id",
            "map_index",
            "start_date",
            "end_date",
            "duration",
            "state",
            "try_number",
            "max_tries",
            "task_display_name",
            "dag_display_name",
            "hostname",
            "unixname",
            "pool",
            "pool_slots",
            "queue",
            "priority_weight",
            "operator",
            "operator_name",
            "queued_when",
            "scheduled_when",
            "pid",
            "executor",
        ];
        let told = self.instance_light(run, row)?;
        let mut shown: Map<String, Json> =
            FIELDS.iter().map(|name| ((*name).to_owned(), told[*name].clone())).collect();
        shown.insert("executor_config".to_owned(), told["executor_config"].clone());
        shown.insert("dag_version".to_owned(), self.version(&run.workflow, &run.version)?);
        Ok(Json::Object(shown))
    }
}

impl Rest {
    /// A run by the ids in the path.
    pub(crate) fn run_of(&self, call: &Call) -> Result<RunRow, RestError> {
        self.run(call.param("dag_id"), call.param("dag_run_id"))
    }

    pub(crate) fn run(&self, dag_id: &str, run_id: &str) -> Result<RunRow, RestError> {
        let found = self.desk.find_run(NAMESPACE, dag_id, run_id)?;
        found.filter(|run| run.dialect == "airflow").ok_or_else(|| {
            RestError::not_found(format!(
                "The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found"
            ))
        })
    }

    /// The newest runs of a DAG, or of all of them (`~`).
    pub(crate) fn runs_of(&self, dag_id: &str) -> Result<Vec<RunRow>, RestError> {
        let filter = RunFilter {
            namespaces: vec![NAMESPACE.to_owned()],
            workflow: (dag_id != "~").then(|| dag_id.to_owned()),
            ..RunFilter::default()
        };
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        while all.len() < RUNS_MAX {
            let page = self.desk.views.list_runs(&filter, cursor.as_deref(), 1000)?;
            all.extend(page.items.into_iter().filter(|run| run.dialect == "airflow"));
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        Ok(all)
    }

    /// The runs that a path with `~` means.
    pub(crate) fn runs_in(&self, call: &Call) -> Result<Vec<RunRow>, RestError> {
        let (dag_id, run_id) = (call.param("dag_id"), call.param("dag_run_id"));
        if run_id != "~" && dag_id != "~" {
            return Ok(vec![self.run(dag_id, run_id)?]);
        }
        if dag_id != "~" {
            self.dag(dag_id)?;
        }
        let mut runs = self.runs_of(dag_id)?;
        if run_id != "~" {
            runs.retain(|run| crate::run_id(run) == run_id);
        }
        Ok(runs)
    }

    /// A task instance by the ids in the path.
    pub(crate) fn instance_of(&self, call: &Call) -> Result<(RunRow, TaskRow), RestError> {
        let run = self.run_of(call)?;
        let task_id = call.param("task_id");
        let index = call.map_index()?;
        let row = self.desk.instance(&run, task_id, index)?;
        let missing = || {
            RestError::not_found(format!(
                "The Task Instance with dag_id: `{}`, run_id: `{}`, task_id: `{task_id}` and \
                 map_index: `{index}` was not found",
                run.workflow,
                crate::run_id(&run),
            ))
        };
        let row = row.ok_or_else(missing)?;
        // What stands for instances is none itself.
        if row.summary
            && row.index.is_none()
            && self
                .desk
                .views
                .run_expansions(run.run)?
                .iter()
                .any(|one| Some(one.node) == row.node && one.length > 0)
        {
            return Err(RestError::not_found(
                "Task instance is mapped, add the map_index value to the URL",
            ));
        }
        Ok((run, row))
    }
}
