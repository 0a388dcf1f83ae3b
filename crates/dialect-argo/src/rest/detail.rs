//! What a workflow's status says beyond its own rows: who holds its mutexes and semaphores, and how
//! long it may take, judged by the last one like it that went well.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_engine::Engine;
use kobza_model::{Json, RunRow, RunState, ScopeNo, ScopeRow, TaskId, TaskNo, TaskRow, Workflow};
use kobza_store::{RunFilter, Store};
use serde_json::json;

use super::ArgoState;
use crate::RunData;
use crate::cron::CRON_LABEL;
use crate::names::{self, Rows, node_id, node_name, workflow_name};
use crate::repository::Repository;

/// Labels by which workflows are like each other.
const KINSHIP: &[&str] = &[
    CRON_LABEL,
    "workflows.argoproj.io/workflow-template",
    "workflows.argoproj.io/cluster-workflow-template",
];

/// A limit of a workflow: its name, and the keys of those that hold it and that wait for it.
struct Held {
    limit: String,
    holders: Vec<Holder>,
    waiters: Vec<Holder>,
}

struct Holder {
    task: TaskId,
    /// As Argo writes it: namespace, workflow, and the node if it is not the workflow's own.
    key: String,
}

impl ArgoState {
    /// The object as clients see it. Blocks.
    pub(crate) fn shown(&self, data: &RunData) -> Json {
        let mut object = crate::workflow_object(data);
        if !data.run.state.is_finished() && !crate::limits(&data.workflow).is_empty() {
            self.add_limits(data, &mut object);
        }
        self.add_estimates(data, &mut object);
        self.show_gone(data, &mut object);
        let namespace = data.run.namespace.as_str();
        let maps = |name: &str| (self.lookup)("configmap", namespace, name).map(Arc::new);
        // One that cannot be read is told by the tasks that need it.
        if let Ok(repository) = Repository::of(&data.workflow.source["spec"], &maps) {
            object["status"]["artifactRepositoryRef"] = repository.shown;
        }
        object
    }

    fn add_limits(&self, data: &RunData, object: &mut Json) {
        let run = data.run.run;
        let store: Arc<dyn Store> = self.store.clone();
        // A server that stops has no limits to show.
        let Ok(held) = self.handle.query_blocking(move |engine| held(engine, store.as_ref(), run))
        else {
            return;
        };
        let mut sync = json!({});
        let mut waits: BTreeMap<String, String> = BTreeMap::new();
        for held in &held {
            let kind =
                if held.limit.split('/').nth(1) == Some("Mutex") { "mutex" } else { "semaphore" };
            let keys = |all: &[Holder], own: bool| -> Vec<String> {
                let wanted = all.iter().filter(|h| !own || h.task.run == run);
                wanted.map(|h| h.key.clone()).collect()
            };
            let entry = |keys: Vec<String>| match kind {
                "mutex" => json!({ "mutex": held.limit, "holder": keys.first() }),
                _ => json!({ "semaphore": held.limit, "holders": keys }),
            };
            let mut put = |side: &str, entry: Json| match &mut sync[kind][side] {
                Json::Array(list) => list.push(entry),
                list => *list = json!([entry]),
            };
            let own = keys(&held.holders, true);
            if !own.is_empty() {
                put("holding", entry(own));
            }
            let waiting: Vec<&Holder> = held.waiters.iter().filter(|w| w.task.run == run).collect();
            if !waiting.is_empty() {
                put("waiting", entry(keys(&held.holders, false)));
            }
            for waiter in waiting {
                if let Some(task) = data.tasks.get(waiter.task.task.index()) {
                    let id = node_id(workflow_name(&data.run), &node_name(data, task));
                    waits.insert(id, held.limit.clone());
                }
            }
        }
        let status = &mut object["status"];
        for (id, limit) in waits {
            if status["nodes"][&id].is_object() {
                status["nodes"][&id]["synchronizationStatus"] = json!({ "waiting": limit });
            }
        }
        if sync.as_object().is_some_and(|sync| !sync.is_empty()) {
            status["synchronization"] = sync;
        }
    }

    fn add_estimates(&self, data: &RunData, object: &mut Json) {
        let label = KINSHIP.iter().find_map(|key| Some((*key, data.run.labels[*key].as_str()?)));
        let Some((key, value)) = label else { return };
        let filter = RunFilter {
            namespaces: vec![data.run.namespace.clone()],
            states: vec![RunState::Succeeded],
            labels: vec![(key.to_owned(), value.to_owned())],
            created_until: Some(data.run.created_at),
            ..RunFilter::default()
        };
        let Ok(page) = self.views.list_runs(&filter, None, 1) else { return };
        let Some(last) = page.items.into_iter().next() else { return };
        let Some(took) = took(last.started_at, last.ended_at) else { return };
        object["status"]["estimatedDuration"] = Json::from(took);
        let Ok(last) = self.load(last.run) else { return };
        let name = workflow_name(&data.run);
        for task in last.tasks.iter().filter(|task| task.task.0 != 0) {
            let Some(took) = self::took(task.started_at, task.ended_at) else { continue };
            let full = node_name(&last, task);
            let Some(below) = full.strip_prefix(workflow_name(&last.run)) else { continue };
            let id = node_id(name, &format!("{name}{below}"));
            if let Some(node) = object["status"]["nodes"].get_mut(&id) {
                node["estimatedDuration"] = Json::from(took);
            }
        }
    }
}

/// Whole seconds, at least one.
fn took(start: Option<kobza_model::Timestamp>, end: Option<kobza_model::Timestamp>) -> Option<i64> {
    Some(((end?.0 - start?.0) / 1_000_000).max(1))
}

/// The limits that tasks of a run hold or wait for.
fn held(engine: &Engine, store: &dyn Store, run: kobza_model::RunId) -> Vec<Held> {
    let mut found = Vec::new();
    for limit in engine.limits() {
        let ours = |task: &TaskId| task.run == run;
        if !limit.holders.iter().any(|(task, _)| ours(task)) && !limit.waiters.iter().any(ours) {
            continue;
        }
        if limit.name.starts_with('$') {
            continue;
        }
        let holder = |task: &TaskId| Some(Holder { task: *task, key: key(engine, store, *task)? });
        found.push(Held {
            holders: limit.holders.iter().filter_map(|(task, _)| holder(task)).collect(),
            waiters: limit.waiters.iter().filter_map(holder).collect(),
            limit: limit.name,
        });
    }
    found
}

fn key(engine: &Engine, store: &dyn Store, task: TaskId) -> Option<String> {
    let run = engine.run_row(task.run)?;
    let rows = InEngine { engine, store, run, workflow: engine.workflow(task.run)? };
    let row = engine.task_row(task)?;
    let name = workflow_name(run);
    let mut key = format!("{}/{name}", run.namespace);
    if row.scope.0 != 0 || row.hook.is_some() {
        key = format!("{key}/{}", node_id(name, &names::node_name(&rows, &row)));
    }
    Some(key)
}

/// A run's rows as the engine has them.
struct InEngine<'a> {
    engine: &'a Engine,
    store: &'a dyn Store,
    run: &'a RunRow,
    workflow: &'a Workflow,
}

impl Rows for InEngine<'_> {
    fn run(&self) -> &RunRow {
        self.run
    }

    fn workflow(&self) -> &Workflow {
        self.workflow
    }

    fn scope(&self, scope: ScopeNo) -> Option<ScopeRow> {
        self.engine.scope_row(self.run.run, scope)
    }

    fn task(&self, task: TaskNo) -> Option<TaskRow> {
        self.engine.task_row(TaskId { run: self.run.run, task })
    }

    fn output(&self, task: TaskNo, key: &str) -> Option<Arc<Json>> {
        let outputs = self.store.outputs(self.run.run, task).ok()?;
        outputs.into_iter().find(|(k, _)| k == key).map(|(_, value)| Arc::new(value))
    }
}
