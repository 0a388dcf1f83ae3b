//! A workflow's nodes by path: `group/task`. What graphs, grids and lists name tasks by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use kobza_model::{
    Gate, NodeNo, RunId, RunRow, ScopeNo, TaskId, TaskRow, TemplateBody, TemplateNo, Workflow,
};
use kobza_schedule::partition::PartitionDefinition;
use kobza_store::{ViewError, Views};

/// Nodes that are shown of one workflow: templates that call each other can be endless.
const MAX_NODES: usize = 5000;
const MAX_DEPTH: usize = 20;
/// Versions kept.
const KEPT: usize = 1000;

/// A node with its place.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: String,
    /// Of the node, by which its tasks are found.
    pub(crate) name: String,
    /// What is shown where the group around it is seen.
    pub(crate) label: String,
    /// The place that called the graph it is in.
    pub(crate) parent: Option<usize>,
    /// The group that it is shown in: the parent, or one that exists in names only.
    pub(crate) within: Option<usize>,
    pub(crate) depth: usize,
    /// The graph that it is in, and its place there.
    pub(crate) template: TemplateNo,
    pub(crate) node: NodeNo,
    pub(crate) call: TemplateNo,
    pub(crate) kind: String,
    pub(crate) group: bool,
    pub(crate) mapped: bool,
}

/// All places of a workflow's version, groups before what is in them, in order of execution.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) workflow: Arc<Workflow>,
    pub(crate) places: Vec<Place>,
    by_name: HashMap<(NodeNo, String), Vec<usize>>,
    by_path: HashMap<String, usize>,
    /// Places that call a template.
    callers: HashMap<TemplateNo, Vec<usize>>,
    children: HashMap<(Option<usize>, NodeNo), usize>,
    /// What each run stands for a piece of, where the definition says so.
    partitions: Option<PartitionDefinition>,
}

impl Shape {
    pub(crate) fn new(workflow: Arc<Workflow>) -> Self {
        let mut shape = Self {
            workflow: workflow.clone(),
            places: Vec::new(),
            by_name: HashMap::new(),
            by_path: HashMap::new(),
            callers: HashMap::new(),
            children: HashMap::new(),
            partitions: workflow
                .source
                .get("partitions")
                .and_then(|p| PartitionDefinition::parse(p).ok()),
        };
        let mut stack = Vec::new();
        shape.unfold(workflow.entry, None, &mut stack);
        for (at, place) in shape.places.iter().enumerate() {
            shape.by_name.entry((place.node, place.name.clone())).or_default().push(at);
            shape.by_path.entry(place.path.clone()).or_insert(at);
            shape.callers.entry(place.call).or_default().push(at);
            shape.children.insert((place.parent, place.node), at);
        }
        shape
    }

    fn unfold(&mut self, graph: TemplateNo, parent: Option<usize>, stack: &mut Vec<TemplateNo>) {
        let workflow = self.workflow.clone();
        let Some(TemplateBody::Graph(body)) =
            workflow.templates.get(graph.index()).map(|t| &t.body)
        else {
            return;
        };
        stack.push(graph);
        let dotted = groups_by_names(&workflow.dialect);
        let mut named: HashMap<&str, usize> = HashMap::new();
        for number in together(body, order(body), dotted) {
            if self.places.len() >= MAX_NODES {
                break;
            }
            let node = &body.nodes[number];
            let mut within = parent;
            for (end, _) in node.name.match_indices('.').filter(|_| dotted) {
                let group = &node.name[..end];
                within = Some(match named.get(group) {
                    Some(at) => *at,
                    None => {
                        let at = self.named_group(group, graph, parent, within);
                        named.insert(group, at);
                        at
                    }
                });
            }
            let called = workflow.templates.get(node.call.index());
            let (kind, group) = match called.map(|t| &t.body) {
                Some(TemplateBody::Leaf(leaf)) => (leaf.kind.clone(), false),
                Some(TemplateBody::Graph(_)) => ("group".to_owned(), true),
                None => ("unknown".to_owned(), false),
            };
            let label = match node.name.rsplit_once('.') {
                Some((_, last)) if dotted => last,
                _ => &node.name,
            };
            self.places.push(Place {
                path: self.path_in(parent, &node.name),
                name: node.name.clone(),
                label: label.to_owned(),
                depth: within.map_or(0, |p| self.places[p].depth + 1),
                parent,
                within,
                template: graph,
                node: NodeNo(u32::try_from(number).unwrap_or(u32::MAX)),
                call: node.call,
                kind,
                group,
                mapped: node.expansion.is_some(),
            });
            if group && stack.len() < MAX_DEPTH && !stack.contains(&node.call) {
                self.unfold(node.call, Some(self.places.len() - 1), stack);
            }
        }
        stack.pop();
    }

    fn path_in(&self, parent: Option<usize>, name: &str) -> String {
        parent.map_or_else(|| name.to_owned(), |p| format!("{}/{name}", self.places[p].path))
    }

    /// A group that has no scope of its own: its tasks' names begin with its name.
    fn named_group(
        &mut self,
        name: &str,
        template: TemplateNo,
        parent: Option<usize>,
        within: Option<usize>,
    ) -> usize {
        self.places.push(Place {
            path: self.path_in(parent, name),
            name: name.to_owned(),
            label: name.rsplit('.').next().unwrap_or(name).to_owned(),
            depth: within.map_or(0, |p| self.places[p].depth + 1),
            parent,
            within,
            template,
            node: NO_NODE,
            call: TemplateNo(u32::MAX),
            kind: "group".to_owned(),
            group: true,
            mapped: false,
        });
        self.places.len() - 1
    }

    /// Whether a place is the other, or is shown somewhere inside of it.
    pub(crate) fn is_within(&self, at: usize, group: usize) -> bool {
        let mut here = Some(at);
        while let Some(place) = here {
            if place == group {
                return true;
            }
            here = self.places[place].within;
        }
        false
    }

    pub(crate) fn find(&self, path: &str) -> Option<usize> {
        self.by_path.get(path).copied()
    }

    pub(crate) fn node(&self, place: &Place) -> Option<&kobza_model::Node> {
        match &self.workflow.templates.get(place.template.index())?.body {
            TemplateBody::Graph(graph) => graph.nodes.get(place.node.index()),
            TemplateBody::Leaf(_) => None,
        }
    }

    pub(crate) fn child(&self, parent: Option<usize>, node: NodeNo) -> Option<usize> {
        self.children.get(&(parent, node)).copied()
    }

    /// Places that a place depends on.
    pub(crate) fn upstream(&self, at: usize) -> Vec<usize> {
        let place = &self.places[at];
        let Some(node) = self.node(place) else { return Vec::new() };
        node.edges.iter().filter_map(|e| self.child(place.parent, e.upstream)).collect()
    }

    pub(crate) fn downstream(&self, at: usize) -> Vec<usize> {
        let place = &self.places[at];
        (0..self.places.len())
            .filter(|&other| {
                self.places[other].parent == place.parent
                    && self
                        .node(&self.places[other])
                        .is_some_and(|n| n.edges.iter().any(|e| e.upstream == place.node))
            })
            .collect()
    }

    /// Assets that its nodes produce and consume, in order, each once.
    pub(crate) fn assets(&self) -> (Vec<String>, Vec<String>) {
        let (mut produced, mut consumed) = (Vec::new(), Vec::new());
        for template in &self.workflow.templates {
            let TemplateBody::Graph(graph) = &template.body else { continue };
            for node in &graph.nodes {
                for (from, to) in [(&node.produces, &mut produced), (&node.consumes, &mut consumed)]
                {
                    for name in from {
                        if !to.contains(name) {
                            to.push(name.clone());
                        }
                    }
                }
            }
        }
        (produced, consumed)
    }

    pub(crate) fn partitions(&self) -> Option<&PartitionDefinition> {
        self.partitions.as_ref()
    }

    /// Leaf places: what people call tasks.
    pub(crate) fn task_count(&self) -> usize {
        self.places.iter().filter(|p| !p.group).count()
    }
}

/// No node has this number: of groups that exist in names only.
const NO_NODE: NodeNo = NodeNo(u32::MAX);

/// Whether a dot in a node's name ends a group's name. Other dialects have dots of their own.
fn groups_by_names(dialect: &str) -> bool {
    matches!(dialect, "native" | "airflow")
}

/// The same order, with the members of each group by name behind its first one.
fn together(graph: &kobza_model::Graph, order: Vec<usize>, dotted: bool) -> Vec<usize> {
    if !dotted {
        return order;
    }
    fn gather(graph: &kobza_model::Graph, order: &[usize], from: usize, into: &mut Vec<usize>) {
        let mut done = vec![false; order.len()];
        for (at, &number) in order.iter().enumerate() {
            if done[at] {
                continue;
            }
            let name = &graph.nodes[number].name;
            match name[from..].find('.').map(|end| &name[..=from + end]) {
                None => into.push(number),
                Some(prefix) => {
                    let mut members = Vec::new();
                    for (other, &member) in order.iter().enumerate().skip(at) {
                        if graph.nodes[member].name.starts_with(prefix) {
                            done[other] = true;
                            members.push(member);
                        }
                    }
                    gather(graph, &members, prefix.len(), into);
                }
            }
        }
    }
    let mut sorted = Vec::with_capacity(order.len());
    gather(graph, &order, 0, &mut sorted);
    sorted
}

/// Node numbers with every node after those that it depends on; else as written.
fn order(graph: &kobza_model::Graph) -> Vec<usize> {
    let count = graph.nodes.len();
    let mut waits = vec![0usize; count];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (number, node) in graph.nodes.iter().enumerate() {
        for edge in &node.edges {
            if let Some(list) = readers.get_mut(edge.upstream.index()) {
                list.push(number);
                waits[number] += 1;
            }
        }
    }
    let mut ready: std::collections::BTreeSet<usize> =
        (0..count).filter(|&n| waits[n] == 0).collect();
    let mut sorted = Vec::with_capacity(count);
    while let Some(number) = ready.pop_first() {
        sorted.push(number);
        for &reader in &readers[number] {
            waits[reader] -= 1;
            if waits[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    sorted
}

/// The word for a gate.
pub(crate) fn gate_word(gate: &Gate) -> &'static str {
    if *gate == Gate::all_succeeded() {
        "all_success"
    } else if *gate == Gate::all_done() {
        "all_done"
    } else if *gate == Gate::always() {
        "always"
    } else {
        "custom"
    }
}

/// Shapes by version.
#[derive(Clone, Default)]
pub(crate) struct Shapes(Arc<Mutex<HashMap<String, Arc<Shape>>>>);

impl Shapes {
    /// The shape of a version; `None` when the version is gone.
    pub(crate) fn get(
        &self,
        views: &dyn Views,
        namespace: &str,
        workflow: &str,
        version: &str,
    ) -> Result<Option<Arc<Shape>>, ViewError> {
        let key = format!("{namespace}/{workflow}/{version}");
        if let Ok(kept) = self.0.lock()
            && let Some(shape) = kept.get(&key)
        {
            return Ok(Some(shape.clone()));
        }
        let Some(stored) = views.get_workflow(namespace, workflow, Some(version))? else {
            return Ok(None);
        };
        let shape = Arc::new(Shape::new(stored.workflow));
        if let Ok(mut kept) = self.0.lock() {
            if kept.len() >= KEPT {
                kept.clear();
            }
            kept.insert(key, shape.clone());
        }
        Ok(Some(shape))
    }
}

/// Where the tasks of one run are.
#[derive(Debug)]
pub(crate) struct Paths {
    pub(crate) shape: Arc<Shape>,
    /// The place that activated each scope; read only where names do not tell.
    scopes: HashMap<ScopeNo, Option<usize>>,
}

impl Paths {
    pub(crate) fn read(
        views: &dyn Views,
        shapes: &Shapes,
        run: &RunRow,
    ) -> Result<Self, ViewError> {
        let shape = match shapes.get(views, &run.namespace, &run.workflow, &run.version)? {
            Some(shape) => shape,
            None => Arc::new(Shape::new(Arc::new(Workflow {
                name: run.workflow.clone(),
                dialect: run.dialect.clone(),
                templates: Vec::new(),
                entry: TemplateNo(0),
                description: None,
                tags: Vec::new(),
                params: serde_json::Value::Null,
                timeout_ms: None,
                max_active_runs: None,
                hooks: Vec::new(),
                open: true,
                backfills_apart: false,
                triggers: serde_json::Value::Null,
                source: serde_json::Value::Null,
            }))),
        };
        let ambiguous = shape.by_name.values().any(|places| places.len() > 1);
        let scopes = if ambiguous { scopes(views, &shape, run.run)? } else { HashMap::new() };
        Ok(Self { shape, scopes })
    }

    /// The place of a node's tasks.
    pub(crate) fn at(&self, scope: ScopeNo, node: Option<NodeNo>, name: &str) -> Option<usize> {
        let node = node?;
        match self.shape.by_name.get(&(node, name.to_owned()))?.as_slice() {
            [only] => Some(*only),
            _ => self.shape.child(self.scopes.get(&scope).copied().flatten(), node),
        }
    }

    pub(crate) fn of(&self, task: &TaskRow) -> Option<&Place> {
        self.at(task.scope, task.node, &task.name).map(|at| &self.shape.places[at])
    }

    pub(crate) fn path(&self, task: &TaskRow) -> String {
        self.of(task).map_or_else(|| task.name.clone(), |p| p.path.clone())
    }
}

fn scopes(
    views: &dyn Views,
    shape: &Shape,
    run: RunId,
) -> Result<HashMap<ScopeNo, Option<usize>>, ViewError> {
    let mut known: HashMap<ScopeNo, Option<usize>> = HashMap::new();
    // In order of number: a scope is activated by a task of an older one.
    let mut rows = views.run_scopes(run)?;
    rows.sort_by_key(|r| r.scope);
    for row in rows {
        let callers = shape.callers.get(&row.template).map_or(&[][..], Vec::as_slice);
        let place = match (row.owner, callers) {
            (None, _) | (_, []) => None,
            (Some(_), [only]) => Some(*only),
            (Some(owner), _) => views.get_task(TaskId { run, task: owner })?.and_then(|task| {
                let parent = known.get(&task.scope).copied().flatten();
                shape.child(parent, task.node?)
            }),
        };
        known.insert(row.scope, place);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dialect: &str, names: &[&str]) -> Shape {
        let nodes: Vec<_> = names
            .iter()
            .map(|name| {
                serde_json::json!({
                    "name": name, "call": 1, "gate": Gate::all_succeeded(), "arguments": null
                })
            })
            .collect();
        let workflow = serde_json::json!({
            "name": "w", "dialect": dialect, "entry": 0,
            "templates": [
                {"name": "main", "body": {"graph": {
                    "nodes": nodes, "verdict": kobza_model::Verdict::default()
                }}},
                {"name": "leaf", "body": {"leaf": {"kind": "noop"}}},
            ],
        });
        Shape::new(Arc::new(serde_json::from_value(workflow).unwrap()))
    }

    fn lines(shape: &Shape) -> Vec<String> {
        shape
            .places
            .iter()
            .map(|p| format!("{}{} {}", "  ".repeat(p.depth), p.label, p.path))
            .collect()
    }

    #[test]
    fn groups_by_names_come_before_their_tasks() {
        let shape = shape("native", &["ingest.a", "check", "ingest.inner.b", "ingest.c"]);
        assert_eq!(
            lines(&shape),
            [
                "ingest ingest",
                "  a ingest.a",
                "  inner ingest.inner",
                "    b ingest.inner.b",
                "  c ingest.c",
                "check check",
            ]
        );
        let group = shape.find("ingest").unwrap();
        let inside: Vec<_> = (0..6)
            .filter(|&at| shape.is_within(at, group))
            .map(|at| &*shape.places[at].path)
            .collect();
        assert_eq!(inside, ["ingest", "ingest.a", "ingest.inner", "ingest.inner.b", "ingest.c"]);
        assert_eq!(shape.task_count(), 4);
    }

    #[test]
    fn dots_of_other_dialects_are_part_of_a_name() {
        assert_eq!(lines(&shape("argo", &["a.b", "a"])), ["a.b a.b", "a a"]);
    }
}
