//! What versions of DAGs say of themselves, read once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use kobza_model::{Graph, Json, Node, NodeNo, TemplateBody, Timestamp, Workflow};
use serde_json::json;

use super::answer::RestError;
use super::assets::DagAssets;
use super::{NAMESPACE, Rest};
use crate::dag::{Operator, plain};
use crate::timetable::Timetable;

/// Versions remembered; beyond it all are read anew.
const DIGESTS_MAX: usize = 1_000;

/// A version of a DAG.
pub(crate) struct Digest {
    pub(crate) dag_id: String,
    pub(crate) version: String,
    pub(crate) created_at: Timestamp,
    pub(crate) workflow: Arc<Workflow>,
    pub(crate) display_name: String,
    pub(crate) tasks: BTreeMap<String, TaskFacts>,
    pub(crate) assets: DagAssets,
    /// What an answer says of the DAG, but for what changes.
    pub(crate) fixed: Json,
}

/// What is said of each of a task's instances.
pub(crate) struct TaskFacts {
    pub(crate) display_name: String,
    pub(crate) operator: Option<String>,
    pub(crate) operator_name: Option<String>,
    pub(crate) pool: String,
    pub(crate) pool_slots: u32,
    pub(crate) queue: String,
    pub(crate) executor: Json,
    pub(crate) priority: i32,
    pub(crate) retries: u32,
    pub(crate) is_mapped: bool,
    pub(crate) downstream: Vec<String>,
}

/// Digests by DAG and version.
#[derive(Default)]
pub(crate) struct Digests(Mutex<HashMap<(String, String), Arc<Digest>>>);

impl Digests {
    fn known(&self, dag_id: &str, version: &str) -> Option<Arc<Digest>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(dag_id.to_owned(), version.to_owned())).cloned()
    }

    fn keep(&self, digest: &Arc<Digest>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= DIGESTS_MAX {
            all.clear();
        }
        all.insert((digest.dag_id.clone(), digest.version.clone()), digest.clone());
    }
}

impl Rest {
    /// A version of a DAG, or the current one.
    pub(crate) fn digest(
        &self,
        dag_id: &str,
        version: Option<&str>,
    ) -> Result<Option<Arc<Digest>>, RestError> {
        if let Some(version) = version
            && let Some(known) = self.digests.known(dag_id, version)
        {
            return Ok(Some(known));
        }
        let stored = self.desk.views.get_workflow(NAMESPACE, dag_id, version)?;
        let Some(stored) = stored.filter(|stored| stored.workflow.dialect == "airflow") else {
            return Ok(None);
        };
        if let Some(known) = self.digests.known(dag_id, &stored.version) {
            return Ok(Some(known));
        }
        let digest = Arc::new(Digest::read(stored.version, stored.created_at, stored.workflow));
        self.digests.keep(&digest);
        Ok(Some(digest))
    }

    /// The current version of a DAG that must exist.
    pub(crate) fn dag(&self, dag_id: &str) -> Result<Arc<Digest>, RestError> {
        self.digest(dag_id, None)?.ok_or_else(|| {
            RestError::not_found(format!("The Dag with ID: `{dag_id}` was not found"))
        })
    }
}

/// The graph of a DAG.
pub(crate) fn graph(workflow: &Workflow) -> Option<&Graph> {
    match &workflow.templates.get(workflow.entry.index())?.body {
        TemplateBody::Graph(graph) => Some(graph),
        TemplateBody::Leaf(_) => None,
    }
}

fn facts(node: &Node) -> Option<TaskFacts> {
    let raw = &node.arguments["task"];
    let operator = Operator::read_one(&json!({"__type": "operator", "__var": raw})).ok()?;
    // What instances of a mapped task share is apart.
    let shared = plain(&raw["partial_kwargs"]);
    let given =
        |name: &str| raw.get(name).or_else(|| shared.get(name)).cloned().unwrap_or_default();
    let text = |name: &str| given(name).as_str().map(str::to_owned);
    let kind = Some(operator.task_type.clone());
    Some(TaskFacts {
        display_name: text("_task_display_name")
            .or_else(|| text("task_display_name"))
            .unwrap_or_else(|| node.name.clone()),
        operator_name: text("_operator_name").or_else(|| kind.clone()),
        operator: kind,
        pool: operator.pool.clone(),
        pool_slots: operator.pool_slots,
        queue: text("queue").unwrap_or_else(|| "default".to_owned()),
        executor: given("executor"),
        priority: node.priority,
        retries: operator.retries,
        is_mapped: node.expansion.is_some(),
        downstream: operator.downstream,
    })
}

impl Digest {
    fn read(version: String, created_at: Timestamp, workflow: Arc<Workflow>) -> Self {
        let source = &workflow.source["airflow"];
        let dag = &source["dag"];
        let dag_id = workflow.name.clone();
        let display_name =
            dag["dag_display_name"].as_str().unwrap_or(workflow.name.as_str()).to_owned();
        let nodes = graph(&workflow).map(|graph| graph.nodes.as_slice()).unwrap_or_default();
        let mut tasks = BTreeMap::new();
        let mut owners = BTreeSet::new();
        let mut limited = false;
        for node in nodes {
            let raw = &node.arguments["task"];
            let shared = &raw["partial_kwargs"];
            let owner = raw["owner"].as_str().or_else(|| shared["owner"].as_str());
            owners.insert(owner.unwrap_or("airflow").to_owned());
            limited |= ["max_active_tis_per_dag", "max_active_tis_per_dagrun"]
                .iter()
                .any(|name| !raw[name].is_null() || !shared[name].is_null());
            if let Some(facts) = facts(node) {
                tasks.insert(node.name.clone(), facts);
            }
        }
        let timetable = Timetable::parse(&dag["timetable"]).ok();
        let periodic = timetable.as_ref().is_some_and(is_periodic);
        let allowed = &dag["allowed_run_types"];
        let backfills = allowed.as_array().is_none_or(|all| all.iter().any(|t| t == "backfill"));
        let partitioned = matches!(
            timetable,
            Some(Timetable::CronPartition(_) | Timetable::PartitionedAsset { .. })
        );
        let tags: Vec<Json> = workflow
            .tags
            .iter()
            .map(|tag| json!({"name": tag, "dag_id": dag_id, "dag_display_name": display_name}))
            .collect();
        let number = |name: &str, usual: u64| dag[name].as_u64().unwrap_or(usual);
        let kind = dag["timetable"]["__type"].as_str().unwrap_or_default();
        let fixed = json!({
            "dag_id": dag_id,
            "dag_display_name": display_name,
            "is_stale": false,
            "last_parsed_time": created_at,
            "last_parse_duration": null,
            "last_expired": null,
            "bundle_name": source["bundle"]["name"],
            "bundle_version": source["bundle"]["version"],
            "relative_fileloc": source["rel_path"],
            "fileloc": dag["fileloc"].as_str().unwrap_or_default(),
            "description": workflow.description,
            "timetable_summary": timetable.as_ref().map(Timetable::summary),
            "timetable_description": null,
            "timetable_partitioned": partitioned,
            "timetable_periodic": periodic,
            "tags": tags,
            "max_active_tasks": number("max_active_tasks", 16),
            "max_active_runs": number("max_active_runs", 16),
            "max_consecutive_failed_dag_runs": number("max_consecutive_failed_dag_runs", 0),
            "has_task_concurrency_limits": limited,
            "allowed_run_types": allowed,
            "owners": owners,
            "is_backfillable": periodic && backfills,
            "file_token": source["rel_path"].as_str().unwrap_or_default(),
            // For filters.
            "_timetable_type": kind,
            "_tags": workflow.tags,
            "_has_asset_schedule": timetable.as_ref().is_some_and(|t| t.assets().is_some()),
        });
        let assets = DagAssets::read(&workflow, timetable.as_ref());
        Self { dag_id, version, created_at, display_name, tasks, assets, fixed, workflow }
    }

    /// The DAG as it was serialised.
    pub(crate) fn dag(&self) -> &Json {
        &self.workflow.source["airflow"]["dag"]
    }

    pub(crate) fn bundle(&self) -> &Json {
        &self.workflow.source["airflow"]["bundle"]
    }

    pub(crate) fn node(&self, place: NodeNo) -> Option<&Node> {
        graph(&self.workflow)?.nodes.get(place.index())
    }

    /// Tasks above or below these, themselves left out.
    pub(crate) fn relatives(&self, of: &BTreeSet<String>, below: bool) -> BTreeSet<String> {
        let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, task) in &self.tasks {
            for down in &task.downstream {
                let (from, to) = if below { (name, down) } else { (down, name) };
                next.entry(from.as_str()).or_default().push(to.as_str());
            }
        }
        let mut seen: BTreeSet<&str> = of.iter().map(String::as_str).collect();
        let mut open: Vec<&str> = seen.iter().copied().collect();
        let mut found = BTreeSet::new();
        while let Some(name) = open.pop() {
            for other in next.get(name).into_iter().flatten() {
                if seen.insert(other) {
                    found.insert((*other).to_owned());
                    open.push(other);
                }
            }
        }
        found
    }
}

/// Whether its runs come by time, again and again: then they can be backfilled.
fn is_periodic(timetable: &Timetable) -> bool {
    match timetable {
        Timetable::Null
        | Timetable::Once
        | Timetable::Continuous
        | Timetable::AssetTriggered(_)
        | Timetable::PartitionedAsset { .. }
        | Timetable::PartitionedAtRuntime => false,
        Timetable::AssetOrTime { timetable, .. } => is_periodic(timetable),
        _ => true,
    }
}
