//! Every list and detail finds its rows by an index: none goes through a table that grows.

use std::sync::Mutex;

use kobza_model::{Event, EventKind, RunState, TaskId, TaskNo, TaskState, Timestamp};

use super::queries::On;
use super::{FILE, SqliteOptions, SqliteStore, connect_reader};
use crate::read::{EachRow, Queries, Reads, Value};
use crate::suite::{commit, full_batch, run_event, run_id};
use crate::{
    ObjectQuery, RunFilter, Store as _, StoreError, TaskFilter, Views as _, WorkflowFilter, kinds,
};

/// Tables that grow with what is done, not with what is defined.
const GROWING: &[&str] = &[
    "run",
    "run_label",
    "task",
    "attempt",
    "scope",
    "expansion",
    "output",
    "event_batch",
    "event_of_run",
    "object",
    "materialization",
    "asset_partition",
    "asset_check",
];

/// Reads, and keeps how each statement is carried out.
struct Planned {
    connection: Mutex<rusqlite::Connection>,
    plans: Mutex<Vec<(String, String)>>,
}

struct Planning<'a> {
    on: On<'a>,
    connection: &'a rusqlite::Connection,
    plans: &'a Mutex<Vec<(String, String)>>,
}

impl Planning<'_> {
    fn plan(&self, sql: &str, values: &[Value]) {
        let mut statement = self.connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let lines = statement
            .query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3))
            .unwrap();
        let lines: Vec<String> = lines.map(Result::unwrap).collect();
        self.plans.lock().unwrap().extend(lines.into_iter().map(|line| (sql.to_owned(), line)));
    }
}

impl Queries for Planning<'_> {
    fn each(&mut self, sql: &str, values: &[Value], row: EachRow<'_>) -> Result<(), StoreError> {
        self.plan(sql, values);
        self.on.each(sql, values, row)
    }

    fn each_once(
        &mut self,
        sql: &str,
        values: &[Value],
        row: EachRow<'_>,
    ) -> Result<(), StoreError> {
        self.plan(sql, values);
        self.on.each_once(sql, values, row)
    }
}

impl Reads for Planned {
    fn read(
        &self,
        read: &mut dyn FnMut(&mut dyn Queries) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let connection = self.connection.lock().unwrap();
        read(&mut Planning { on: On(&connection), connection: &connection, plans: &self.plans })
    }
}

/// Whether a step of a plan goes through a whole table that grows.
fn walks(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    // Names of tables, or the letters that stand for them.
    let table = match words.get(1) {
        Some(&"r") => "run",
        Some(&"l") => "run_label",
        Some(name) => name,
        None => return false,
    };
    words[0] == "SCAN" && GROWING.contains(&table) && !line.contains("USING")
}

#[test]
fn no_list_goes_through_a_table_that_grows() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap();
    let fence = store.acquire("plans").unwrap();
    let mut batch = full_batch(1);
    let (namespace, name) = (batch.runs[0].namespace.clone(), batch.runs[0].workflow.clone());
    let word = batch.runs[0].trigger.clone();
    batch.events.push(Event {
        kind: EventKind::Materialized {
            asset: "a".to_owned(),
            partition: Some("p".to_owned()),
            metadata: "{}".to_owned(),
        },
        ..run_event(1)
    });
    store.commit(fence, &commit(1, batch)).unwrap();
    drop(store);
    let path = folder.path().join(FILE);
    let connection = connect_reader(&path, &SqliteOptions::default()).unwrap();
    let views = Planned { connection: Mutex::new(connection), plans: Mutex::default() };
    let run = run_id(1);
    let task = TaskId { run, task: TaskNo(1) };
    let usual = RunFilter::default;
    let named = || RunFilter {
        namespaces: vec![namespace.clone()],
        workflow: Some(name.clone()),
        ..usual()
    };
    let label = || vec![("team".to_owned(), "ops".to_owned())];
    let time = Some(Timestamp(5));
    for filter in [
        usual(),
        named(),
        RunFilter { states: vec![RunState::Failed], ..usual() },
        RunFilter { states: RunState::ALL.to_vec(), search: Some(name.clone()), ..usual() },
        RunFilter { labels: label(), ..usual() },
        RunFilter { labels: label(), ..named() },
        RunFilter { created_from: time, created_until: time, ..usual() },
        RunFilter { parent: Some(run), ..usual() },
        RunFilter { parent: Some(run), parent_task: Some(TaskNo(1)), ..usual() },
        RunFilter { partition: Some("p".to_owned()), ..named() },
        RunFilter { trigger: Some(word), ..named() },
    ] {
        views.list_runs(&filter, None, 50).unwrap();
    }
    for filter in [
        TaskFilter::default(),
        TaskFilter { states: vec![TaskState::Failed], ..TaskFilter::default() },
        TaskFilter { name: Some("t".to_owned()), hide_summaries: true, ..TaskFilter::default() },
        TaskFilter { parent: Some(TaskNo(1)), ..TaskFilter::default() },
    ] {
        views.list_tasks(run, &filter, None, 50).unwrap();
    }
    views.get_run(run).unwrap();
    views.get_task(task).unwrap();
    views.list_attempts(task).unwrap();
    views.task_outputs(task).unwrap();
    views.task_counts(run).unwrap();
    views.run_scopes(run).unwrap();
    views.run_expansions(run).unwrap();
    views.grid(&namespace, &name, 20).unwrap();
    views.run_totals(&[]).unwrap();
    views
        .list_workflows(&WorkflowFilter { last_runs: 10, ..WorkflowFilter::default() }, None, 50)
        .unwrap();
    views.events_since(3, 100, None).unwrap();
    views.events_since(3, 100, Some(run)).unwrap();
    for namespace in [None, Some("default")] {
        for descending in [false, true] {
            let query = ObjectQuery {
                kind: kinds::SLOT,
                namespace,
                prefix: "w/t/",
                descending,
                limit: 50,
                cursor: None,
            };
            views.list_objects(&query).unwrap();
        }
    }
    views.list_assets(std::slice::from_ref(&namespace), None, None, 50).unwrap();
    views.asset_history(&namespace, "a", Some("p"), None, 50).unwrap();
    views.asset_partitions(&namespace, "a", None, 50).unwrap();
    views.asset_checks(&namespace, "a").unwrap();
    let plans = views.plans.into_inner().unwrap();
    assert!(plans.len() > 40, "{}", plans.len());
    let walked: Vec<_> = plans.iter().filter(|(_, line)| walks(line)).collect();
    assert!(walked.is_empty(), "{walked:#?}");
}
