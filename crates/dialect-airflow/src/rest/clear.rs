//! Clearing: task instances begin anew.

use std::collections::{BTreeMap, BTreeSet};

use kobza_engine::{ClearOptions, Command};
use kobza_model::{Json, RunRow, TaskNo, TaskRow, TaskState, Timestamp};
use kobza_runtime::Submission;
use kobza_store::{Write, kinds};
use serde::Deserialize;
use serde_json::json;

use super::Rest;
use super::answer::{Call, Reply, RestError};
use super::lens::Lens;
use super::listing::instant;
use super::table::{Route, operate};
use crate::desk::{logical_date, map_index};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        operate("POST", "/api/v2/dags/{dag_id}/clearTaskInstances", instances),
        operate("POST", "/api/v2/dags/{dag_id}/clearDagRuns", super::bulk::clear_runs),
    ]
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Marker {
    Task(String),
    Instance(String, i64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Instances {
    dry_run: bool,
    start_date: Option<String>,
    end_date: Option<String>,
    only_failed: bool,
    only_running: bool,
    reset_dag_runs: bool,
    task_ids: Option<Vec<Marker>>,
    dag_run_id: Option<String>,
    include_upstream: bool,
    include_downstream: bool,
    include_future: bool,
    include_past: bool,
    run_on_latest_version: Option<bool>,
    prevent_running_task: bool,
    note: Option<String>,
}

impl Default for Instances {
    fn default() -> Self {
        Self {
            dry_run: true,
            start_date: None,
            end_date: None,
            only_failed: true,
            only_running: false,
            reset_dag_runs: true,
            task_ids: None,
            dag_run_id: None,
            include_upstream: false,
            include_downstream: false,
            include_future: false,
            include_past: false,
            run_on_latest_version: None,
            prevent_running_task: false,
            note: None,
        }
    }
}

/// Task instances of a run, by name: all, or those with these map indexes.
type Chosen = BTreeMap<String, Option<BTreeSet<i64>>>;

/// Runs of the DAG on the side of one where time points.
pub(crate) fn around(
    rest: &Rest,
    run: &RunRow,
    past: bool,
    future: bool,
) -> Result<Vec<RunRow>, RestError> {
    if !past && !future {
        return Ok(vec![run.clone()]);
    }
    let Some(date) = logical_date(run) else {
        return Err(RestError::bad(
            "Cannot use include_past or include_future with no logical_date(e.g. manually or \
             asset-triggered).",
        ));
    };
    let mut runs = rest.runs_of(&run.workflow)?;
    runs.retain(|other| {
        logical_date(other).is_some_and(|at| {
            at == date && other.run == run.run || (past && at < date) || (future && at > date)
        })
    });
    Ok(runs)
}

fn instances(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let body: Instances = call.body()?;
    let dag_id = call.param("dag_id");
    let digest = rest.dag(dag_id)?;
    let at = |name: &str, text: &Option<String>| -> Result<Option<Timestamp>, RestError> {
        text.as_ref().map(|text| instant(&["body", name], text)).transpose()
    };
    let (from, to) = (at("start_date", &body.start_date)?, at("end_date", &body.end_date)?);
    let runs = match &body.dag_run_id {
        Some(id) => {
            let run = rest.run(dag_id, id).map_err(|_| {
                RestError::not_found(format!("Dag Run id {id} not found in dag {dag_id}"))
            })?;
            around(rest, &run, body.include_past, body.include_future)?
        }
        None => {
            let from = from.filter(|_| !body.include_past);
            let to = to.filter(|_| !body.include_future);
            let mut runs = rest.runs_of(dag_id)?;
            runs.retain(|run| {
                let date = logical_date(run);
                let after = from.is_none_or(|from| date.is_some_and(|at| at >= from));
                after && to.is_none_or(|to| date.is_some_and(|at| at <= to))
            });
            runs
        }
    };
    let mut chosen = Chosen::new();
    for marker in body.task_ids.iter().flatten() {
        match marker {
            Marker::Task(name) => {
                chosen.insert(name.clone(), None);
            }
            Marker::Instance(name, index) => {
                if let Some(list) =
                    chosen.entry(name.clone()).or_insert_with(|| Some(BTreeSet::new()))
                {
                    list.insert(*index);
                }
            }
        }
    }
    let named: BTreeSet<String> = chosen.keys().cloned().collect();
    for (wanted, below) in [(body.include_upstream, false), (body.include_downstream, true)] {
        if wanted {
            for name in digest.relatives(&named, below) {
                chosen.entry(name).or_insert(None);
            }
        }
    }
    let wanted = |row: &TaskRow| {
        let listed = body.task_ids.is_none()
            || chosen.get(&row.name).is_some_and(|indexes| {
                indexes.as_ref().is_none_or(|all| all.contains(&map_index(row)))
            });
        listed
            && (!body.only_failed || has_failed(row.state))
            && (!body.only_running || row.state == TaskState::Running)
    };
    let mut found = Vec::new();
    for run in runs {
        let rows: Vec<TaskRow> =
            rest.desk.instances_of(&run, None)?.into_iter().filter(|row| wanted(row)).collect();
        if !rows.is_empty() {
            found.push((run, rows));
        }
    }
    if !body.dry_run {
        let options = Options {
            latest: body.run_on_latest_version == Some(true),
            keep_run: !body.reset_dag_runs,
            spare_running: body.prevent_running_task,
        };
        for (run, rows) in &found {
            rest.check_clear(run, rows, options)?;
        }
        for (run, rows) in &found {
            rest.clear(run, rows)?;
            if let Some(note) = &body.note {
                rest.note_tasks(rows, run, Some(note), &call.caller)?;
            }
        }
    }
    // As they are now.
    let lens = Lens::new(rest);
    let mut shown = Vec::new();
    for (run, rows) in found {
        let run = rest.desk.views.get_run(run.run)?.unwrap_or(run);
        for row in rows {
            let now = rest.desk.instance(&run, &row.name, map_index(&row))?;
            shown.push(lens.instance(&run, now.as_ref().unwrap_or(&row))?);
        }
    }
    Reply::ok(json!({"total_entries": shown.len(), "task_instances": shown}))
}

pub(crate) fn has_failed(state: TaskState) -> bool {
    matches!(state, TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled)
}

/// What a clear asks for beside the instances.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    pub(crate) latest: bool,
    pub(crate) keep_run: bool,
    pub(crate) spare_running: bool,
}

impl Rest {
    pub(crate) fn check_clear(
        &self,
        run: &RunRow,
        rows: &[TaskRow],
        options: Options,
    ) -> Result<(), RestError> {
        if options.latest {
            let current = self.digest(&run.workflow, None)?;
            if current.is_none_or(|current| current.version != run.version) {
                return Err(RestError::unserved(
                    "run_on_latest_version is not served by Kobza for a run of an older version: \
                     clear it on its own version, or start a new run",
                ));
            }
        }
        if options.keep_run && run.state.is_finished() {
            return Err(RestError::unserved(
                "reset_dag_runs=false is not served by Kobza for a run that has ended: tasks run in \
                 runs that go on",
            ));
        }
        if options.spare_running && rows.iter().any(|row| row.state == TaskState::Running) {
            return Err(RestError::conflict(
                "AirflowClearRunningTaskException: Task is running, stopping attempt to clear.",
            ));
        }
        Ok(())
    }

    /// Lets instances of a run begin anew. A mapped task of which all instances are chosen is mapped
    /// anew.
    pub(crate) fn clear(&self, run: &RunRow, rows: &[TaskRow]) -> Result<(), RestError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut chosen: BTreeSet<TaskNo> = rows.iter().map(|row| row.task).collect();
        if rows.iter().any(|row| row.index.is_some()) {
            let all = self.rows(run)?;
            for head in all.iter().filter(|row| row.summary && row.index.is_none()) {
                let own: Vec<TaskNo> = all
                    .iter()
                    .filter(|row| row.parent == Some(head.task) && row.index.is_some())
                    .map(|row| row.task)
                    .collect();
                if !own.is_empty() && own.iter().all(|task| chosen.contains(task)) {
                    chosen.retain(|task| !own.contains(task));
                    chosen.insert(head.task);
                }
            }
        }
        let tasks = chosen.into_iter().collect();
        self.submit(Command::Clear { run: run.run, tasks, options: ClearOptions::default() })
    }

    /// Puts a note on task instances; none takes it off.
    pub(crate) fn note_tasks(
        &self,
        rows: &[TaskRow],
        run: &RunRow,
        note: Option<&str>,
        by: &str,
    ) -> Result<(), RestError> {
        let note = note.filter(|note| !note.is_empty());
        if note.is_some_and(|note| note.chars().count() > 1000) {
            let message = "String should have at most 1000 characters";
            return Err(RestError::field(&["body", "note"], message));
        }
        let write = |row: &TaskRow| Write::PutObject {
            kind: kinds::NOTE,
            namespace: run.namespace.clone(),
            key: kobza_model::TaskId { run: row.run, task: row.task }.to_string(),
            value: note.map(|note| json!({"text": note, "by": by})),
        };
        let writes = rows.iter().map(write).collect();
        self.submit(Submission { commands: Vec::new(), writes })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClearRun {
    dry_run: bool,
    only_failed: bool,
    only_new: bool,
    run_on_latest_version: Option<bool>,
    note: Option<String>,
}

impl Default for ClearRun {
    fn default() -> Self {
        Self {
            dry_run: true,
            only_failed: false,
            only_new: false,
            run_on_latest_version: None,
            note: None,
        }
    }
}

/// Clears a run as a whole.
pub(crate) fn run(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let body: ClearRun = call.body()?;
    let run = rest.run_of(call)?;
    if body.only_new && body.only_failed {
        return Err(RestError::field(&["body"], "only_new and only_failed are mutually exclusive"));
    }
    if body.only_new {
        return Err(RestError::unserved(
            "only_new is not served by Kobza: a run keeps the tasks of its version",
        ));
    }
    let mut rows = rest.desk.instances_of(&run, None)?;
    rows.retain(|row| !body.only_failed || has_failed(row.state));
    let lens = Lens::new(rest);
    if body.dry_run {
        let shown: Vec<Json> =
            rows.iter().map(|row| lens.instance(&run, row)).collect::<Result<_, _>>()?;
        return Reply::ok(json!({"total_entries": shown.len(), "task_instances": shown}));
    }
    let latest = body.run_on_latest_version == Some(true);
    rest.check_clear(&run, &rows, Options { latest, ..Options::default() })?;
    rest.clear(&run, &rows)?;
    if body.note.is_some() {
        let now = rest.desk.views.get_run(run.run)?.unwrap_or_else(|| run.clone());
        rest.note_run(&now, body.note)?;
    }
    Reply::ok(lens.run(&rest.run_of(call)?)?)
}
