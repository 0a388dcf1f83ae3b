//! Asks again what waited for an earlier run: `depends_on_past` and `wait_for_downstream`.
//!
//! The questions stay open in the engine. That a task ended is only a hint to ask those of later
//! runs again; their answers come from what is true then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use kobza_engine::{Command, Engine};
use kobza_model::{
    Event, EventKind, NodeNo, RunId, ScopeNo, TaskId, TaskState, TemplateBody, Workflow,
};
use kobza_runtime::{Handle, Submission};
use kobza_store::Views;
use tokio::sync::broadcast::error::RecvError;

/// DAGs with tasks that look at earlier runs: for each task's name the names of those that may wait
/// for it.
#[derive(Debug, Default)]
pub struct Guarded(RwLock<BTreeMap<(String, String), Arc<Readers>>>);

type Readers = BTreeMap<String, BTreeSet<String>>;

/// Runs whose DAG is remembered.
const RUNS_MAX: usize = 10_000;

impl Guarded {
    /// A DAG was read.
    pub fn set(&self, namespace: &str, dag_id: &str, workflow: &Workflow) {
        let mut readers = Readers::new();
        if let Some(TemplateBody::Graph(graph)) =
            workflow.templates.get(workflow.entry.index()).map(|t| &t.body)
        {
            for node in graph.nodes.iter().filter(|node| node.guard) {
                readers.entry(node.name.clone()).or_default().insert(node.name.clone());
            }
            for below in &graph.nodes {
                for edge in &below.edges {
                    let above = &graph.nodes[edge.upstream.index()];
                    if above.guard {
                        readers.entry(below.name.clone()).or_default().insert(above.name.clone());
                    }
                }
            }
        }
        let key = (namespace.to_owned(), dag_id.to_owned());
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if readers.is_empty() {
            all.remove(&key);
        } else {
            all.insert(key, Arc::new(readers));
        }
    }

    fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn readers(&self, namespace: &str, dag_id: &str) -> Option<Arc<Readers>> {
        let key = (namespace.to_owned(), dag_id.to_owned());
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }
}

/// Follows the events until the loop ends.
pub fn start(handle: Handle, views: Arc<dyn Views>, guarded: Arc<Guarded>) -> std::io::Result<()> {
    let mut events = handle.follow();
    std::thread::Builder::new().name("kobza-airflow-past".to_owned()).spawn(move || {
        let mut dags: HashMap<RunId, Option<(String, String)>> = HashMap::new();
        loop {
            match events.blocking_recv() {
                Ok(_) if guarded.is_empty() => {}
                Ok(committed) => {
                    for event in committed.events.iter() {
                        follow(&handle, views.as_ref(), &guarded, &mut dags, event);
                    }
                }
                Err(RecvError::Lagged(_)) => ask_all(&handle),
                Err(RecvError::Closed) => return,
            }
        }
    })?;
    Ok(())
}

fn follow(
    handle: &Handle,
    views: &dyn Views,
    guarded: &Guarded,
    dags: &mut HashMap<RunId, Option<(String, String)>>,
    event: &Event,
) {
    let (Some(run), Some(task)) = (event.run, event.task) else { return };
    let state = match &event.kind {
        EventKind::Task { state, .. } | EventKind::Marked { state, .. } => *state,
        _ => return,
    };
    if !state.is_finished() {
        return;
    }
    if dags.len() >= RUNS_MAX {
        dags.clear();
    }
    let dag = dags.entry(run).or_insert_with(|| match views.get_run(run) {
        Ok(Some(row)) if row.dialect == "airflow" => Some((row.namespace, row.workflow)),
        _ => None,
    });
    let Some((namespace, dag_id)) = dag.clone() else { return };
    let Some(readers) = guarded.readers(&namespace, &dag_id) else { return };
    let Ok(Some(row)) = views.get_task(TaskId { run, task }) else { return };
    let Some(names) = readers.get(&row.name).cloned() else { return };
    ask(handle, move |engine, other| {
        let row = engine.run_row(other)?;
        if other == run || row.workflow != dag_id || row.namespace != namespace {
            return None;
        }
        let workflow = engine.workflow(other)?;
        Some(names.iter().filter_map(|name| workflow.node_named(name)).collect())
    });
}

/// After events were missed: everything that waits.
fn ask_all(handle: &Handle) {
    ask(handle, |engine, other| {
        if engine.run_row(other)?.dialect != "airflow" {
            return None;
        }
        let workflow = engine.workflow(other)?;
        let TemplateBody::Graph(graph) = &workflow.templates[workflow.entry.index()].body else {
            return None;
        };
        let guards = graph.nodes.iter().enumerate().filter(|(_, node)| node.guard);
        Some(guards.filter_map(|(n, _)| u32::try_from(n).ok().map(NodeNo)).collect())
    });
}

/// Asks the open questions of these nodes of all live runs again.
fn ask(handle: &Handle, which: impl Fn(&Engine, RunId) -> Option<Vec<NodeNo>> + Send + 'static) {
    let found = handle.query_blocking(move |engine| {
        let mut found = Vec::new();
        for run in engine.run_ids() {
            for node in which(engine, run).unwrap_or_default() {
                let length = engine.expansion(run, ScopeNo(0), node).unwrap_or(0);
                let heads = std::iter::once(None).chain((0..length).map(Some));
                for task in heads.filter_map(|i| engine.task_of(run, ScopeNo(0), node, i)) {
                    let id = TaskId { run, task };
                    if engine.task_row(id).is_some_and(|row| row.state == TaskState::Pending) {
                        found.push(id);
                    }
                }
            }
        }
        found
    });
    let Ok(found) = found else { return };
    if found.is_empty() {
        return;
    }
    let commands = found.into_iter().map(|task| Command::Ask { task }).collect();
    // A task that is gone meanwhile waits for nothing; a loop that stopped asks anew at its start.
    let _asked = handle.submit_blocking(Submission { commands, writes: Vec::new() });
}
