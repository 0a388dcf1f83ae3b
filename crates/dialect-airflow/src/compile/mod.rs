//! From a serialised DAG to the engine's forms.

pub mod gates;
mod params;
mod relatives;

use std::collections::BTreeMap;

use kobza_model::{
    Backoff, Edge, EdgeClass, Expansion, ExpansionAt, ExpansionBy, Graph, Instances, Json, Leaf,
    LimitRow, LimitUse, Node, NodeNo, Outcome, Retry, Template, TemplateBody, TemplateNo, Verdict,
    VerdictRow, VerdictSet, Workflow, ZeroLength,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::dag::{Dag, DagError, ExpandInput, TaskGroup};
use crate::rules::Sum;
use relatives::Relatives;

pub use params::conf;

/// Where a DAG's file is, and what runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    pub name: String,
    /// The folder that `rel_path` counts from.
    pub path: String,
    /// The interpreter of the environment with Airflow.
    pub python: String,
    pub version: Option<String>,
}

/// A DAG as the engine takes it.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub workflow: Workflow,
    /// Limits that are the DAG's own.
    pub limits: Vec<LimitRow>,
    /// What is kept but not acted upon.
    pub warnings: Vec<String>,
    /// Names of assets that it is scheduled by, and that nobody describes.
    pub unnamed: Vec<String>,
}

/// The limit that holds back tasks of one id over all runs (`max_active_tis_per_dag`).
#[must_use]
pub fn task_limit(dag_id: &str, task_id: &str) -> String {
    format!("airflow {dag_id}.{task_id}")
}

/// Addresses of assets by their names.
pub type AssetNames = BTreeMap<String, String>;

/// Takes down the assets that a serialised DAG describes.
pub fn asset_names(serialised: &Json, names: &mut AssetNames) {
    match serialised {
        Json::Object(map) => {
            if map.get("__type").and_then(Json::as_str) == Some("asset") {
                // With its fields beside its type, or under it.
                let own = map.get("__var").and_then(Json::as_object).unwrap_or(map);
                let text = |field: &str| own.get(field).and_then(Json::as_str);
                if let (Some(name), Some(uri)) = (text("name"), text("uri")) {
                    names.insert(name.to_owned(), uri.to_owned());
                }
            }
            map.values().for_each(|item| asset_names(item, names));
        }
        Json::Array(items) => items.iter().for_each(|item| asset_names(item, names)),
        _ => {}
    }
}

/// What tasks with weight rules of their own weigh.
pub type Weights = BTreeMap<String, i64>;

/// Tasks whose weight rule is a class of the user's own.
#[must_use]
pub fn own_weights(serialised: &Json) -> Vec<&str> {
    let tasks = serialised["dag"]["tasks"].as_array().into_iter().flatten();
    tasks
        .map(|task| &task["__var"])
        .filter(|task| {
            let rule =
                task.get("weight_rule").or_else(|| task["partial_kwargs"].get("weight_rule"));
            let rule = rule.and_then(|rule| rule.as_str().or_else(|| rule["__type"].as_str()));
            rule.is_some_and(|rule| !WEIGHT_RULES.contains(&rule))
        })
        .filter_map(|task| task["task_id"].as_str())
        .collect()
}

const WEIGHT_RULES: [&str; 3] = ["absolute", "upstream", "downstream"];

/// Compiles `{"__version", "dag", "client_defaults"}`.
pub fn compile(
    serialised: &Json,
    bundle: &Bundle,
    weights: &Weights,
    assets: &AssetNames,
) -> Result<Compiled, DagError> {
    let dag = Dag::read(serialised)?;
    let layout = Layout::new(&dag, weights)?;
    let mut warnings: Vec<String> = dag
        .unknown
        .iter()
        .map(|field| format!("dag.{field} is not known to this version: kept, not acted upon"))
        .collect();
    let mut nodes = Vec::with_capacity(dag.tasks.len());
    let mut templates = vec![Template {
        name: dag.dag_id.clone(),
        body: TemplateBody::Graph(Graph {
            nodes: Vec::new(),
            verdict: verdict(&dag),
            parallelism: Some(dag.max_active_tasks.max(1)),
            outputs: false,
            spec: Json::Null,
        }),
    }];
    let mut limits = Vec::new();
    for place in 0..dag.tasks.len() {
        let task = &dag.tasks[place];
        let kind = if task.is_noop() { "noop" } else { "airflow" };
        templates.push(Template {
            name: task.task_id.clone(),
            body: TemplateBody::Leaf(Leaf {
                kind: kind.to_owned(),
                spec: json!({"task_id": task.task_id}),
            }),
        });
        if let Some(capacity) = task.max_active_tis_per_dag {
            limits.push(LimitRow {
                name: task_limit(&dag.dag_id, &task.task_id),
                capacity,
                strict: false,
                description: Some(format!(
                    "max_active_tis_per_dag of {}.{}",
                    dag.dag_id, task.task_id
                )),
            });
        }
        nodes.push(layout.node(place, &mut warnings)?);
    }
    if let TemplateBody::Graph(graph) = &mut templates[0].body {
        graph.nodes = nodes;
    }
    let mut source = json!({
        "dag": serialised["dag"],
        "bundle": bundle,
        "rel_path": dag.relative_fileloc,
    });
    if let Some(defaults) = serialised.get("client_defaults") {
        source["client_defaults"] = defaults.clone();
    }
    let (triggers, unnamed) = crate::schedule::triggers(&dag, assets)
        .map_err(|error| DagError::new("dag.timetable", error.to_string()))?;
    let workflow = Workflow {
        name: dag.dag_id.clone(),
        dialect: "airflow".to_owned(),
        templates,
        entry: TemplateNo(0),
        description: dag.description.clone(),
        tags: dag.tags.clone(),
        params: params::schema(&dag),
        timeout_ms: dag.dagrun_timeout.map(millis),
        max_active_runs: Some(dag.max_active_runs.max(1)),
        hooks: Vec::new(),
        open: false,
        backfills_apart: true,
        triggers,
        source: json!({"airflow": source}),
    };
    Ok(Compiled { workflow, limits, warnings, unnamed })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds are few")]
fn millis(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1000.0).round() as u64
}

/// Failed if a leaf failed or could not run. What was removed does not count.
fn verdict(dag: &Dag) -> Verdict {
    let data = &[EdgeClass::Data];
    let failed = Sum::of(data, Outcome::Failed)
        + Sum::of(data, Outcome::UpstreamFailed)
        + Sum::of(data, Outcome::Cancelled);
    Verdict {
        set: VerdictSet::Leaves,
        rows: vec![
            VerdictRow { when: failed.some(), then: Outcome::Failed },
            VerdictRow { when: kobza_model::Condition::Always, then: Outcome::Succeeded },
        ],
        fail_fast: dag.fail_fast,
        inherit_omitted: false,
    }
}

/// The tasks' places, their relatives and the mapped groups around them.
struct Layout<'a> {
    dag: &'a Dag,
    weights: &'a Weights,
    places: BTreeMap<&'a str, usize>,
    upstream: Vec<Vec<usize>>,
    relatives: Relatives,
    /// For each task the mapped groups around it, outermost first.
    around: Vec<Vec<&'a TaskGroup>>,
}

impl<'a> Layout<'a> {
    fn new(dag: &'a Dag, weights: &'a Weights) -> Result<Self, DagError> {
        let places = dag.places();
        if places.len() < dag.tasks.len() {
            return Err(DagError::new("dag.tasks", "two tasks have the same id"));
        }
        let mut upstream = vec![Vec::new(); dag.tasks.len()];
        let mut downstream = vec![Vec::new(); dag.tasks.len()];
        for (place, task) in dag.tasks.iter().enumerate() {
            for below in &task.downstream {
                let Some(&one) = places.get(below.as_str()) else {
                    return Err(DagError::new(
                        format!("dag.tasks[{:?}].downstream_task_ids", task.task_id),
                        format!("there is no task {below:?}"),
                    ));
                };
                downstream[place].push(one);
                upstream[one].push(place);
            }
        }
        let relatives = Relatives::new(&downstream, |place| dag.tasks[place].task_id.clone())?;
        let mut around = vec![Vec::new(); dag.tasks.len()];
        dag.group.walk(&mut |task, groups| {
            if let Some(&place) = places.get(task) {
                around[place] = groups.to_vec();
            }
        });
        Ok(Self { dag, weights, places, upstream, relatives, around })
    }

    fn node(&self, place: usize, warnings: &mut Vec<String>) -> Result<Node, DagError> {
        let task = &self.dag.tasks[place];
        let field = |name: &str| format!("dag.tasks[{:?}].{name}", task.task_id);
        let expansion = self.expansion(place)?;
        let mut edges: Vec<Edge> = self.upstream[place]
            .iter()
            .map(|&up| {
                let setup = self.dag.tasks[up].is_setup;
                self.edge(up, place, if setup { EdgeClass::Setup } else { EdgeClass::Data })
            })
            .collect();
        let mut constraints =
            gates::Constraints { instances: expansion.is_some(), ..gates::Constraints::default() };
        if task.is_teardown {
            for between in self.between(place) {
                constraints.scope = true;
                edges.push(self.edge(between, place, EdgeClass::Teardown));
            }
        } else {
            for setup in self.indirect_setups(place) {
                constraints.indirect_setups = true;
                edges.push(self.edge(setup, place, EdgeClass::Order));
            }
            for over in self.mapped_over(place)? {
                if !self.is_expanded(over) {
                    constraints.mapped_over = true;
                    edges.push(self.edge(over, place, EdgeClass::Teardown));
                }
            }
        }
        let gate = gates::gate(&task.trigger_rule, constraints).ok_or_else(|| {
            DagError::new(
                field("trigger_rule"),
                format!("{:?} is no rule that is known", task.trigger_rule),
            )
        })?;
        let mut limits = vec![LimitUse {
            limit: task.pool.clone(),
            weight: task.pool_slots,
            while_waiting: false,
        }];
        if task.max_active_tis_per_dag.is_some() {
            limits.push(LimitUse {
                limit: task_limit(&self.dag.dag_id, &task.task_id),
                weight: 1,
                while_waiting: true,
            });
        }
        let noop = task.is_noop();
        let mut arguments = json!({"task": task.raw});
        if matches!(&expansion, Some(e) if e.by == ExpansionBy::Ask) {
            arguments["expand"] = serde_json::to_value(self.inputs(place))
                .map_err(|e| DagError::new(field("expand"), e.to_string()))?;
        }
        Ok(Node {
            name: task.task_id.clone(),
            call: TemplateNo(u32::try_from(place + 1).unwrap_or(u32::MAX)),
            gate,
            edges,
            guard: task.depends_on_past || task.wait_for_downstream,
            expansion,
            limits: if noop { Vec::new() } else { limits },
            priority: self.priority(place, warnings),
            retry: (task.retries > 0).then(|| Retry {
                limit: task.retries,
                backoff: Backoff::default(),
                causes: Vec::new(),
                exit_codes: Vec::new(),
                ask: true,
            }),
            attempt_timeout_ms: None,
            timeout_ms: None,
            hooks: Vec::new(),
            continue_on: Vec::new(),
            daemon: false,
            ignorable: task.is_ignorable(),
            arguments,
            // What it publishes it says itself, with what there is to say of it.
            produces: Vec::new(),
            consumes: assets(&task.inlets),
        })
    }

    fn edge(&self, up: usize, place: usize, class: EdgeClass) -> Edge {
        let common = self.around[up]
            .iter()
            .any(|group| self.around[place].iter().any(|own| own.id == group.id));
        Edge {
            upstream: number(up),
            class,
            instances: if common { Instances::Aligned } else { Instances::All },
        }
    }

    fn is_expanded(&self, place: usize) -> bool {
        self.dag.tasks[place].expand.is_some() || !self.around[place].is_empty()
    }

    /// Everything that a task's number of instances depends on: of the groups, then its own.
    fn inputs(&self, place: usize) -> Vec<&ExpandInput> {
        let groups = self.around[place].iter().filter_map(|group| group.expand.as_ref());
        groups.chain(self.dag.tasks[place].expand.as_ref()).collect()
    }

    /// Tasks whose XComs it is mapped over.
    fn mapped_over(&self, place: usize) -> Result<Vec<usize>, DagError> {
        let mut found = Vec::new();
        for input in self.inputs(place) {
            for (task_id, _) in input.references() {
                let Some(&up) = self.places.get(task_id) else {
                    return Err(DagError::new(
                        format!("dag.tasks[{:?}]", self.dag.tasks[place].task_id),
                        format!("it is mapped over {task_id:?}, which does not exist"),
                    ));
                };
                if !found.contains(&up) {
                    found.push(up);
                }
            }
        }
        Ok(found)
    }

    fn expansion(&self, place: usize) -> Result<Option<Expansion>, DagError> {
        if !self.is_expanded(place) {
            return Ok(None);
        }
        let task = &self.dag.tasks[place];
        let inputs = self.inputs(place);
        let known = inputs
            .iter()
            .map(|input| input.static_length())
            .try_fold(1u64, |all, one| one.map(|length| all.saturating_mul(length)));
        let leader = self.leader(place);
        let by = match (known, leader) {
            (Some(length), _) => ExpansionBy::Static(u32::try_from(length).map_err(|_| {
                DagError::new(
                    format!("dag.tasks[{:?}]", task.task_id),
                    format!("it is mapped over {length} items, which are too many"),
                )
            })?),
            (None, Some(leader)) => ExpansionBy::Like(number(leader)),
            (None, None) => ExpansionBy::Ask,
        };
        // A mapped task outside of mapped groups is looked at once, before it is mapped. With the
        // rules that do not wait for everything, each instance is looked at.
        let early = matches!(
            task.trigger_rule.as_str(),
            "one_success" | "one_failed" | "one_done" | "always"
        );
        let at = if self.around[place].is_empty() && !early {
            ExpansionAt::Gate
        } else {
            ExpansionAt::Upstream(self.mapped_over(place)?.into_iter().map(number).collect())
        };
        Ok(Some(Expansion {
            at,
            by,
            zero: ZeroLength::Skipped,
            window: task.max_active_tis_per_dagrun,
            fail_fast: false,
        }))
    }

    /// The first task of the same mapped groups that is not mapped itself, if that is another one.
    fn leader(&self, place: usize) -> Option<usize> {
        if self.dag.tasks[place].expand.is_some() || self.around[place].is_empty() {
            return None;
        }
        let same = |other: usize| {
            self.dag.tasks[other].expand.is_none()
                && self.around[other].len() == self.around[place].len()
                && self.around[other].iter().zip(&self.around[place]).all(|(a, b)| a.id == b.id)
        };
        (0..self.dag.tasks.len()).find(|&other| same(other)).filter(|&first| first != place)
    }

    /// Setups upstream, but not directly, that have no teardown or one below this task.
    fn indirect_setups(&self, place: usize) -> Vec<usize> {
        let tasks = &self.dag.tasks;
        self.relatives
            .upstream(place)
            .filter(|&up| tasks[up].is_setup && !self.upstream[place].contains(&up))
            .filter(|&up| {
                let below = |id: &String| self.places.get(id.as_str()).copied();
                let mut teardowns =
                    tasks[up].downstream.iter().filter_map(below).filter(|&t| tasks[t].is_teardown);
                let mut any = false;
                let relevant = teardowns.any(|teardown| {
                    any = true;
                    self.relatives.is_downstream(place, teardown)
                });
                relevant || !any
            })
            .collect()
    }

    /// Tasks between a teardown's setups and itself that are not its direct upstream.
    fn between(&self, place: usize) -> Vec<usize> {
        let setups: Vec<usize> = self.upstream[place]
            .iter()
            .copied()
            .filter(|&up| self.dag.tasks[up].is_setup)
            .collect();
        self.relatives
            .upstream(place)
            .filter(|up| !self.upstream[place].contains(up))
            .filter(|&up| setups.iter().any(|&setup| self.relatives.is_downstream(setup, up)))
            .collect()
    }

    fn priority(&self, place: usize, warnings: &mut Vec<String>) -> i32 {
        let task = &self.dag.tasks[place];
        let weight = |place: usize| self.dag.tasks[place].priority_weight;
        let sum = match task.weight_rule.as_str() {
            "absolute" => 0,
            "upstream" => self.relatives.upstream(place).map(weight).sum(),
            "downstream" => self.relatives.downstream(place).map(weight).sum::<i64>(),
            rule => match self.weights.get(&task.task_id) {
                // What the rule answered is all of it.
                Some(weight) => weight.saturating_sub(task.priority_weight),
                None => {
                    warnings.push(format!(
                        "dag.tasks[{:?}].weight_rule: {rule} was not answered: the task's own \
                         weight stands",
                        task.task_id
                    ));
                    0
                }
            },
        };
        let total = task.priority_weight.saturating_add(sum);
        i32::try_from(total).unwrap_or(if total < 0 { i32::MIN } else { i32::MAX })
    }
}

fn number(place: usize) -> NodeNo {
    NodeNo(u32::try_from(place).unwrap_or(u32::MAX))
}

/// The URIs, or else the names, of assets among inlets or outlets.
fn assets(entries: &[Json]) -> Vec<String> {
    let mut found: Vec<String> = entries
        .iter()
        .filter(|entry| {
            matches!(entry["__type"].as_str(), Some("asset" | "asset_uri_ref" | "asset_name_ref"))
        })
        .filter_map(|entry| {
            let asset = if entry["__var"].is_object() { &entry["__var"] } else { entry };
            asset["uri"].as_str().or_else(|| asset["name"].as_str()).map(crate::ids::asset_name)
        })
        .collect();
    found.sort();
    found.dedup();
    found
}
