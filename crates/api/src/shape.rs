//! A workflow's nodes by path: `group/task`. What graphs, grids and lists name tasks by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use kobza_model::{
    Gate, NodeNo, RunId, RunRow, ScopeNo, TaskId, TaskRow, TemplateBody, TemplateNo, Workflow,
};
use kobza_store::{ViewError, Views};

/// Nodes that are shown of one workflow: templates that call each other can be endless.
const MAX_NODES: usize = 5000;
const MAX_DEPTH: usize = 20;
/// Versions kept.
const KEPT: usize = 64;

/// A node with its place.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) parent: Option<usize>,
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
        for number in order(body) {
            if self.places.len() >= MAX_NODES {
                break;
            }
            let node = &body.nodes[number];
            let called = workflow.templates.get(node.call.index());
            let (kind, group) = match called.map(|t| &t.body) {
                Some(TemplateBody::Leaf(leaf)) => (leaf.kind.clone(), false),
                Some(TemplateBody::Graph(_)) => ("group".to_owned(), true),
                None => ("unknown".to_owned(), false),
            };
            let prefix = parent.map(|p| &self.places[p]);
            self.places.push(Place {
                path: prefix
                    .map_or_else(|| node.name.clone(), |p| format!("{}/{}", p.path, node.name)),
                name: node.name.clone(),
                depth: prefix.map_or(0, |p| p.depth + 1),
                parent,
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

    /// Leaf places: what people call tasks.
    pub(crate) fn task_count(&self) -> usize {
        self.places.iter().filter(|p| !p.group).count()
    }
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
