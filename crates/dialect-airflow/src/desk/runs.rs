//! DAG runs: one, some, earlier ones, and new ones.

use std::collections::BTreeSet;

use kobza_model::{Json, RunRow, Timestamp};
use serde_json::json;

use super::{Asker, Desk};
use crate::start::{Start, StartError};
use crate::states::run_word;
use crate::task::{Refused, TriggerDagRun};

/// Of a run of this dialect; runs that assets started have none.
pub(crate) fn logical_date(run: &RunRow) -> Option<Timestamp> {
    run.extra["airflow"]["logical_date"].as_str()?.parse().ok()
}

impl From<StartError> for Refused {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Submit(error) => error.into(),
            error => Self::api(error.status(), error.to_string()),
        }
    }
}

fn instants(texts: &[String]) -> Result<BTreeSet<Timestamp>, Refused> {
    texts
        .iter()
        .map(|text| text.parse().map_err(|_| Refused::api(422, format!("{text:?} is no instant"))))
        .collect()
}

impl Desk {
    /// Runs of a DAG by their ids and logical dates; all of them if neither is given.
    pub(super) fn runs_by(
        &self,
        namespace: &str,
        dag_id: &str,
        dates: Option<&[String]>,
        run_ids: Option<&[String]>,
    ) -> Result<Vec<RunRow>, Refused> {
        let dates = dates.filter(|dates| !dates.is_empty()).map(instants).transpose()?;
        let mut runs = match run_ids.filter(|ids| !ids.is_empty()) {
            Some(ids) => {
                let mut found = Vec::new();
                for id in ids.iter().collect::<BTreeSet<_>>() {
                    found.extend(self.find_run(namespace, dag_id, id)?);
                }
                found
            }
            None => self.runs(namespace, dag_id)?,
        };
        if let Some(dates) = dates {
            runs.retain(|run| logical_date(run).is_some_and(|date| dates.contains(&date)));
        }
        Ok(runs)
    }

    fn known_run(&self, namespace: &str, dag_id: &str, run_id: &str) -> Result<RunRow, Refused> {
        self.find_run(namespace, dag_id, run_id)?.ok_or_else(|| {
            Refused::api(
                404,
                format!("Dag run with dag_id: {dag_id} and run_id: {run_id} not found"),
            )
        })
    }

    pub(super) fn dag_run(
        &self,
        namespace: &str,
        dag_id: &str,
        run_id: &str,
    ) -> Result<Json, Refused> {
        let mut body = crate::dag_run(&self.known_run(namespace, dag_id, run_id)?);
        body["type"] = json!("DagRunResult");
        Ok(body)
    }

    pub(super) fn dag_run_state(
        &self,
        namespace: &str,
        dag_id: &str,
        run_id: &str,
    ) -> Result<Json, Refused> {
        let run = self.known_run(namespace, dag_id, run_id)?;
        Ok(json!({"type": "DagRunStateResult", "state": run_word(run.state)}))
    }

    pub(super) fn run_count(
        &self,
        namespace: &str,
        dag_id: &str,
        dates: Option<&[String]>,
        run_ids: Option<&[String]>,
        states: Option<&[String]>,
    ) -> Result<Json, Refused> {
        let mut runs = self.runs_by(namespace, dag_id, dates, run_ids)?;
        if let Some(states) = states.filter(|states| !states.is_empty()) {
            runs.retain(|run| states.iter().any(|state| state == run_word(run.state)));
        }
        Ok(json!({"type": "DRCount", "count": runs.len()}))
    }

    /// The run with the newest logical date before one.
    fn before(
        &self,
        namespace: &str,
        dag_id: &str,
        date: Timestamp,
        state: Option<&str>,
    ) -> Result<Option<RunRow>, Refused> {
        let runs = self.runs(namespace, dag_id)?;
        let earlier = runs
            .into_iter()
            .filter_map(|run| Some((logical_date(&run)?, run)))
            .filter(|(at, _)| *at < date)
            .filter(|(_, run)| state.is_none_or(|state| run_word(run.state) == state));
        Ok(earlier.max_by_key(|(at, _)| *at).map(|(_, run)| run))
    }

    pub(super) fn previous_run(
        &self,
        namespace: &str,
        dag_id: &str,
        date: &str,
        state: Option<&str>,
    ) -> Result<Json, Refused> {
        let date = date.parse().map_err(|_| Refused::api(422, "the logical date is no instant"))?;
        let run = self.before(namespace, dag_id, date, state)?;
        let run = run.as_ref().map(crate::dag_run);
        Ok(json!({"type": "PreviousDagRunResult", "dag_run": run}))
    }

    pub(super) fn previous_success(&self, own: &RunRow) -> Result<Json, Refused> {
        let run = match logical_date(own) {
            Some(date) => self.before(&own.namespace, &own.workflow, date, Some("success"))?,
            None => None,
        };
        let run = run.as_ref();
        Ok(json!({
            "type": "PrevSuccessfulDagRunResult",
            "data_interval_start": run.and_then(|run| run.interval_start),
            "data_interval_end": run.and_then(|run| run.interval_end),
            "start_date": run.and_then(|run| run.started_at),
            "end_date": run.and_then(|run| run.ended_at),
        }))
    }

    pub(super) fn dag(&self, namespace: &str, dag_id: &str) -> Result<Json, Refused> {
        let stored = self.store.workflow(namespace, dag_id, None)?;
        let stored = stored.ok_or_else(|| {
            Refused::api(404, format!("The Dag with dag_id: `{dag_id}` was not found"))
        })?;
        let source = &stored.workflow.source["airflow"];
        let owners: BTreeSet<&str> = source["dag"]["tasks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|task| task["__var"]["owner"].as_str())
            .collect();
        let owners: Vec<&str> = owners.into_iter().collect();
        Ok(json!({
            "type": "DagResult",
            "dag_id": dag_id,
            "is_paused": stored.paused,
            "bundle_name": source["bundle"]["name"],
            "bundle_version": source["bundle"]["version"],
            "relative_fileloc": source["rel_path"],
            "owners": if owners.is_empty() { Json::Null } else { json!(owners.join(", ")) },
            "tags": stored.workflow.tags,
            "next_dagrun": null,
        }))
    }

    /// Starts a run for a task.
    pub(super) fn trigger(
        &self,
        asker: Asker,
        own: &RunRow,
        asked: TriggerDagRun,
    ) -> Result<Json, Refused> {
        let instant = |text: Option<String>| {
            text.map(|text| {
                text.parse::<Timestamp>()
                    .map_err(|_| Refused::api(422, format!("{text:?} is no instant")))
            })
            .transpose()
        };
        let mark = format!("{}.{}", asker.launch, asker.number);
        let start = Start {
            namespace: own.namespace.clone(),
            dag_id: asked.dag_id.clone(),
            run_id: Some(asked.run_id.clone()),
            logical_date: instant(asked.logical_date)?,
            interval: None,
            run_after: instant(asked.run_after)?,
            conf: asked.conf.map_or_else(|| json!({}), Json::Object),
            note: asked.note,
            run_type: "operator_triggered",
            triggered_by: "operator",
            triggering_user: None,
            partition_key: asked.partition_key,
            parent: Some(asker.launch.task_id()),
            mark: Some(mark.clone()),
        };
        let reset = asked.reset_dag_run.unwrap_or(false);
        match self.start(start) {
            Ok(_) => {}
            Err(StartError::Exists(run)) => {
                let known = self.views.get_run(run)?;
                let repeated =
                    known.is_some_and(|row| row.extra["airflow"]["mark"] == mark.as_str());
                if !repeated && reset {
                    self.clear_run(run)?;
                } else if !repeated {
                    return Err(Refused::not_found("DAGRUN_ALREADY_EXISTS", Json::Null));
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(json!({"type": "OKResponse", "ok": true}))
    }
}
