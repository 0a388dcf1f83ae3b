//! Runs by their logical dates: what became of a DAG's earlier runs, for tasks that depend on the
//! past, and whether a date has a run already.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use kobza_model::{Json, RunId, RunRow, Timestamp};
use kobza_store::{RunFilter, TaskFilter, ViewError, Views};
use serde_json::json;

/// DAGs whose runs are remembered.
const DAGS_MAX: usize = 10_000;

/// Runs of a DAG by logical date: read once, then only what is new.
#[derive(Debug, Default)]
struct Runs {
    /// By date, and whether the run was started by hand.
    by_date: BTreeMap<(i64, bool), RunId>,
    /// By the date of their partition; the newest.
    by_partition: BTreeMap<i64, RunId>,
    /// Creation of the newest run that was read.
    seen: Option<Timestamp>,
}

/// Answers [`crate::PAST`], and finds runs by date.
#[derive(Debug, Default)]
pub struct Dated(Mutex<HashMap<(String, String), Runs>>);

impl Dated {
    /// The answer to a question of kind [`crate::PAST`].
    pub fn lookup(&self, views: &dyn Views, namespace: &str, query: &str) -> Option<Json> {
        let query: Json = serde_json::from_str(query).ok()?;
        match self.past(views, namespace, &query) {
            Ok(found) => found,
            Err(error) => {
                // The task is asked about again when something ends, or after a restart.
                tracing::error!(%error, "earlier runs could not be read");
                None
            }
        }
    }

    /// The run of a logical date.
    pub fn run_at(
        &self,
        views: &dyn Views,
        (namespace, dag_id): (&str, &str),
        date: Timestamp,
    ) -> Result<Option<RunRow>, ViewError> {
        self.with(views, (namespace, dag_id), |runs| {
            for by_hand in [false, true] {
                let Some(run) = runs.by_date.get(&(date.0, by_hand)).copied() else { continue };
                match views.get_run(run)? {
                    Some(row) => return Ok(Some(row)),
                    // Runs that were deleted are nobody's past.
                    None => _ = runs.by_date.remove(&(date.0, by_hand)),
                }
            }
            Ok(None)
        })
    }

    /// The newest run of a partition's date.
    pub fn run_of_partition(
        &self,
        views: &dyn Views,
        (namespace, dag_id): (&str, &str),
        date: Timestamp,
    ) -> Result<Option<RunRow>, ViewError> {
        self.with(views, (namespace, dag_id), |runs| match runs.by_partition.get(&date.0) {
            Some(run) => views.get_run(*run),
            None => Ok(None),
        })
    }

    fn with<T>(
        &self,
        views: &dyn Views,
        (namespace, dag_id): (&str, &str),
        look: impl FnOnce(&mut Runs) -> Result<T, ViewError>,
    ) -> Result<T, ViewError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= DAGS_MAX {
            all.clear();
        }
        let runs = all.entry((namespace.to_owned(), dag_id.to_owned())).or_default();
        runs.read(views, namespace, dag_id)?;
        look(runs)
    }

    fn past(
        &self,
        views: &dyn Views,
        namespace: &str,
        query: &Json,
    ) -> Result<Option<Json>, ViewError> {
        let (Some(dag), Some(before)) = (query["workflow"].as_str(), query["before"].as_i64())
        else {
            return Ok(None);
        };
        let manual = query["manual"] == Json::Bool(true);
        self.with(views, (namespace, dag), |runs| {
            loop {
                let newest = runs.by_date.range(..(before, false)).rev();
                let Some((&key, &run)) =
                    newest.into_iter().find(|((_, by_hand), _)| manual || !by_hand)
                else {
                    return Ok(None);
                };
                if views.get_run(run)?.is_none() {
                    runs.by_date.remove(&key);
                    continue;
                }
                let mut tasks = serde_json::Map::new();
                let names = query["tasks"].as_array().into_iter().flatten();
                for name in names.filter_map(Json::as_str) {
                    tasks.insert(name.to_owned(), json!(states(views, run, name)?));
                }
                return Ok(Some(json!({"at": key.0, "tasks": tasks})));
            }
        })
    }
}

impl Runs {
    fn read(&mut self, views: &dyn Views, namespace: &str, dag: &str) -> Result<(), ViewError> {
        let filter = RunFilter {
            namespaces: vec![namespace.to_owned()],
            workflow: Some(dag.to_owned()),
            created_from: self.seen,
            ..RunFilter::default()
        };
        let (mut cursor, mut fresh): (Option<String>, Vec<RunRow>) = (None, Vec::new());
        loop {
            let page = views.list_runs(&filter, cursor.as_deref(), 1000)?;
            fresh.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        // The newest come first: of two for one date, the newer stays.
        for row in fresh.into_iter().rev() {
            self.seen = self.seen.max(Some(row.created_at));
            let own = &row.extra["airflow"];
            let date = |name: &str| own[name].as_str()?.parse::<Timestamp>().ok();
            if let Some(date) = date("logical_date") {
                self.by_date.insert((date.0, own["run_type"] == "manual"), row.run);
            }
            if let Some(date) = date("partition_date") {
                self.by_partition.insert(date.0, row.run);
            }
        }
        Ok(())
    }
}

fn states(views: &dyn Views, run: RunId, name: &str) -> Result<Vec<String>, ViewError> {
    let filter =
        TaskFilter { name: Some(name.to_owned()), hide_summaries: true, ..TaskFilter::default() };
    let mut states = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = views.list_tasks(run, &filter, cursor.as_deref(), 1000)?;
        states.extend(page.items.iter().map(|row| row.state.to_string()));
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(states),
        }
    }
}
