//! What became of a DAG's earlier runs, for tasks that depend on the past.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use kobza_model::{Json, RunId, Timestamp};
use kobza_store::{RunFilter, TaskFilter, ViewError, Views};
use serde_json::json;

/// DAGs whose runs are remembered.
const DAGS_MAX: usize = 10_000;

/// Runs of a DAG by logical date: read once, then only what is new.
#[derive(Debug, Default)]
struct Runs {
    /// By date, and whether the run was started by hand.
    by_date: BTreeMap<(i64, bool), RunId>,
    /// Creation of the newest run that was read.
    seen: Option<Timestamp>,
}

/// Answers [`kobza_dialect_airflow::PAST`].
#[derive(Debug, Default)]
pub(crate) struct Past(Mutex<HashMap<(String, String), Runs>>);

impl Past {
    pub(crate) fn lookup(&self, views: &dyn Views, namespace: &str, query: &str) -> Option<Json> {
        let query: Json = serde_json::from_str(query).ok()?;
        match self.find(views, namespace, &query) {
            Ok(found) => found,
            Err(error) => {
                // The task is asked about again when something ends, or after a restart.
                tracing::error!(%error, "earlier runs could not be read");
                None
            }
        }
    }

    fn find(
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
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= DAGS_MAX {
            all.clear();
        }
        let runs = all.entry((namespace.to_owned(), dag.to_owned())).or_default();
        runs.read(views, namespace, dag)?;
        loop {
            let newest = runs.by_date.range(..(before, false)).rev();
            let Some((&key, &run)) =
                newest.into_iter().find(|((_, by_hand), _)| manual || !by_hand)
            else {
                return Ok(None);
            };
            // Runs that were deleted are nobody's past.
            if views.get_run(run)?.is_none() {
                runs.by_date.remove(&key);
                continue;
            }
            let mut tasks = serde_json::Map::new();
            for name in query["tasks"].as_array().into_iter().flatten().filter_map(Json::as_str) {
                tasks.insert(name.to_owned(), json!(states(views, run, name)?));
            }
            return Ok(Some(json!({"at": key.0, "tasks": tasks})));
        }
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
        let mut cursor: Option<String> = None;
        loop {
            let page = views.list_runs(&filter, cursor.as_deref(), 1000)?;
            for row in page.items {
                self.seen = self.seen.max(Some(row.created_at));
                let own = &row.extra["airflow"];
                let date = own["logical_date"].as_str().and_then(|d| d.parse::<Timestamp>().ok());
                if let Some(date) = date {
                    self.by_date.insert((date.0, own["run_type"] == "manual"), row.run);
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
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
