//! New runs of DAGs: the one way for tasks and people.

use std::sync::{Arc, OnceLock};

use kobza_engine::{ClearOptions, Command, StartRun};
use kobza_model::{Json, RunId, TaskId, Timestamp, Workflow};
use kobza_runtime::{SubmitError, wall_now};
use serde_json::json;

use crate::desk::Desk;
use crate::schedule::{CustomTimetables, manual_interval};
use crate::timetable::{RunType, isoformat, random_suffix};

/// Checks a run's conf against the DAG's params; an error is for people.
pub type CheckConf = dyn Fn(&Workflow, Json) -> Result<Json, String> + Send + Sync;

/// What the start of a run needs to know of definitions.
#[derive(Clone)]
pub struct StartRuns {
    pub check: Arc<CheckConf>,
    /// Who knows timetables of the user's own, once it is set up.
    pub custom: Arc<OnceLock<Arc<dyn CustomTimetables>>>,
}

/// A run to be started.
#[derive(Clone, Debug)]
pub struct Start {
    pub namespace: String,
    pub dag_id: String,
    /// Airflow's id; one is made of the date if there is none.
    pub run_id: Option<String>,
    pub logical_date: Option<Timestamp>,
    /// The data that it is for; none: as the timetable says of the date.
    pub interval: Option<(Timestamp, Timestamp)>,
    pub run_after: Option<Timestamp>,
    pub conf: Json,
    pub note: Option<String>,
    pub run_type: &'static str,
    pub triggered_by: &'static str,
    pub triggering_user: Option<String>,
    pub partition_key: Option<String>,
    /// The task that starts it.
    pub parent: Option<TaskId>,
    /// Of the question that starts it: a repeated one finds its run.
    pub mark: Option<String>,
}

/// Why a run was not started.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    #[error("DAG with dag_id: '{0}' not found")]
    NoDag(String),
    #[error("{0}")]
    Conf(String),
    #[error("{0}")]
    Id(String),
    /// With the same id, or the same logical date.
    #[error("the DAG run exists already: {0}")]
    Exists(RunId),
    #[error("{0}")]
    Store(String),
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

impl StartError {
    /// As HTTP has it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::NoDag(_) => 404,
            Self::Conf(_) | Self::Id(_) => 400,
            Self::Exists(_) => 409,
            Self::Store(_) | Self::Submit(_) => 500,
        }
    }
}

impl Desk {
    /// Starts a run; it is durable when this returns.
    pub fn start(&self, start: Start) -> Result<RunId, StartError> {
        let outside = |error: &dyn std::fmt::Display| StartError::Store(error.to_string());
        let stored = self
            .store
            .workflow(&start.namespace, &start.dag_id, None)
            .map_err(|e| outside(&e))?
            .filter(|stored| stored.workflow.dialect == "airflow")
            .ok_or_else(|| StartError::NoDag(start.dag_id.clone()))?;
        let conf = if start.conf.is_null() { json!({}) } else { start.conf };
        // The defaults are the task's to fill in: a run keeps its conf as it was given.
        (self.starts.check)(&stored.workflow, conf.clone()).map_err(StartError::Conf)?;
        let now = wall_now();
        let run_after = start.run_after.or(start.logical_date).unwrap_or(now);
        let run_id = match start.run_id {
            Some(id) => id,
            None => {
                let kind = RunType::of_run_id(&format!("{}__", start.run_type));
                let at = isoformat(start.logical_date.unwrap_or(run_after));
                let random = uuid::Uuid::new_v4().into_bytes();
                let random = [0, 1, 2, 3, 4, 5, 10, 11].map(|at: usize| random[at]);
                kind.run_id(start.logical_date, &at, &random_suffix(random))
            }
        };
        if run_id.is_empty() || run_id.chars().count() > 250 || run_id.chars().any(char::is_control)
        {
            return Err(StartError::Id("a run id has 1 to 250 characters".to_owned()));
        }
        if let Some(date) = start.logical_date {
            let place = (start.namespace.as_str(), start.dag_id.as_str());
            let same = self.dated.run_at(self.views.as_ref(), place, date);
            let same = same.map_err(|e| StartError::Store(e.to_string()))?;
            if let Some(run) = same {
                return Err(StartError::Exists(run.run));
            }
        }
        let inferred = || {
            start.logical_date.map(|date| -> Result<_, String> {
                let timetable = &stored.workflow.source["airflow"]["dag"]["timetable"];
                let custom = self.starts.custom.get().map(AsRef::as_ref);
                let data = manual_interval(timetable, date, custom);
                data.map(|data| (data.start, data.end))
            })
        };
        let interval = match start.interval {
            Some(interval) => Some(interval),
            None => inferred().transpose().map_err(StartError::Conf)?,
        };
        let run = RunId(uuid::Uuid::now_v7());
        let extra = json!({"airflow": {
            "logical_date": start.logical_date,
            "run_after": run_after,
            "run_type": start.run_type,
            "triggered_by": start.triggered_by,
            "triggering_user": start.triggering_user,
            "note": start.note,
            "partition_key": start.partition_key,
            "mark": start.mark,
        }});
        let command = Command::StartRun(Box::new(StartRun {
            run,
            namespace: start.namespace,
            workflow: stored.workflow,
            version: stored.version,
            params: conf,
            key: Some(run_id),
            trigger: if start.parent.is_some() { "task" } else { "manual" }.to_owned(),
            interval,
            partition: start.partition_key,
            labels: Json::Null,
            parent: start.parent,
            priority: 0,
            extra,
        }));
        match self.handle.submit_blocking(command) {
            Ok(_) => Ok(run),
            Err(SubmitError::KeyTaken { run, .. }) => Err(StartError::Exists(run)),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets all tasks of a run begin anew.
    pub fn clear_run(&self, run: RunId) -> Result<(), StartError> {
        let outside = |error: &dyn std::fmt::Display| StartError::Store(error.to_string());
        let row = self.views.get_run(run).map_err(|e| outside(&e))?;
        let row = row.ok_or_else(|| StartError::Store(format!("the run {run} is gone")))?;
        let tasks = self.instances_of(&row, None).map_err(|e| outside(&e.detail))?;
        let tasks = tasks.into_iter().map(|task| task.task).collect();
        let clear = Command::Clear { run, tasks, options: ClearOptions::default() };
        self.handle.submit_blocking(clear)?;
        Ok(())
    }
}
