//! A workflow made ready for the engine: reverse edges, leaves, order; checked once.

use std::sync::Arc;

use kobza_model::{
    EdgeClass, Expansion, ExpansionAt, ExpansionBy, Gate, Graph, Instances, Leaf, Node, NodeNo,
    Template, TemplateBody, TemplateNo, Tree, VerdictSet, Workflow,
};

/// A workflow whose references are known to be good.
#[derive(Debug)]
pub struct Plan {
    pub workflow: Arc<Workflow>,
    graphs: Vec<Option<GraphPlan>>,
}

/// What a graph's activation needs to know beyond the graph itself.
#[derive(Debug)]
pub(crate) struct GraphPlan {
    /// Who reads each node, with the place of the edge in the reader's list.
    pub(crate) readers: Vec<Vec<Reader>>,
    /// Nodes whose expansion follows another node's.
    pub(crate) followers: Vec<Vec<u32>>,
    /// Upstream before downstream.
    pub(crate) order: Vec<u32>,
    /// Nodes that decide the verdict.
    pub(crate) verdict: Vec<u32>,
    /// Nodes that a logical gate refers to, by node; empty for counting gates.
    pub(crate) logical: Vec<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    pub(crate) node: u32,
    pub(crate) class: EdgeClass,
    pub(crate) kind: EdgeKind,
}

/// How an edge reaches its reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EdgeKind {
    /// Counted in the reader's shared counters.
    Counted,
    /// As `Counted`, the whole expansion counting once.
    Summary,
    /// Looked up by each instance of the reader.
    Aligned,
    /// The node's expansion waits for it; not part of the gate.
    Expansion,
    /// A logical gate looks at it.
    Logical,
}

/// A definition that the engine cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("template {0} does not exist")]
    NoTemplate(u32),
    #[error("the entry must be a graph")]
    EntryNotGraph,
    #[error("template {template:?}: node {node:?} refers to node {upstream}, which does not exist")]
    NoNode { template: String, node: String, upstream: u32 },
    #[error("template {template:?}: nodes depend on each other in a circle: {circle}")]
    Cycle { template: String, circle: String },
    #[error("template {template:?} has {nodes} nodes; the most is {MAX_NODES}")]
    TooLarge { template: String, nodes: usize },
}

/// Most nodes of one graph. Beyond it a definition is certainly a mistake (use `map`), and numbers
/// of tasks in a run must stay far below 2^32.
pub const MAX_NODES: usize = 1_000_000;

impl Plan {
    /// Checks references and circles, and derives what the engine looks up.
    pub fn new(workflow: Arc<Workflow>) -> Result<Self, PlanError> {
        let templates = workflow.templates.len();
        let known = |t: TemplateNo| {
            if t.index() < templates { Ok(()) } else { Err(PlanError::NoTemplate(t.0)) }
        };
        known(workflow.entry)?;
        if matches!(workflow.templates[workflow.entry.index()].body, TemplateBody::Leaf(_)) {
            return Err(PlanError::EntryNotGraph);
        }
        for hook in &workflow.hooks {
            known(hook.call)?;
        }
        let mut graphs = Vec::with_capacity(templates);
        for template in &workflow.templates {
            graphs.push(match &template.body {
                TemplateBody::Leaf(_) => None,
                TemplateBody::Graph(graph) => {
                    for node in &graph.nodes {
                        known(node.call)?;
                        for hook in &node.hooks {
                            known(hook.call)?;
                        }
                    }
                    Some(plan_graph(&template.name, graph)?)
                }
            });
        }
        Ok(Self { workflow, graphs })
    }

    pub(crate) fn template(&self, no: u32) -> &Template {
        &self.workflow.templates[no as usize]
    }

    pub(crate) fn leaf(&self, no: u32) -> Option<&Leaf> {
        match &self.template(no).body {
            TemplateBody::Leaf(leaf) => Some(leaf),
            TemplateBody::Graph(_) => None,
        }
    }

    pub(crate) fn graph(&self, no: u32) -> Option<&Graph> {
        match &self.template(no).body {
            TemplateBody::Graph(graph) => Some(graph),
            TemplateBody::Leaf(_) => None,
        }
    }

    /// The plan of a template that is known to be a graph.
    pub(crate) fn graph_plan(&self, no: u32) -> &GraphPlan {
        match &self.graphs[no as usize] {
            Some(plan) => plan,
            None => unreachable!("a scope's template is a graph"),
        }
    }

    pub(crate) fn node(&self, template: u32, node: u32) -> &Node {
        match self.graph(template) {
            Some(graph) => &graph.nodes[node as usize],
            None => unreachable!("a scope's template is a graph"),
        }
    }
}

/// Whether an aligned edge between these two can be looked up by index.
pub(crate) fn aligned(own: &Node, upstream: &Node) -> bool {
    upstream.expansion.is_some()
        && matches!(&own.expansion, Some(Expansion { at: ExpansionAt::Upstream(_), .. }))
}

fn plan_graph(template: &str, graph: &Graph) -> Result<GraphPlan, PlanError> {
    let count = graph.nodes.len();
    if count > MAX_NODES {
        return Err(PlanError::TooLarge { template: template.to_owned(), nodes: count });
    }
    let check = |node: &Node, upstream: NodeNo| {
        if upstream.index() < count {
            Ok(())
        } else {
            Err(PlanError::NoNode {
                template: template.to_owned(),
                node: node.name.clone(),
                upstream: upstream.0,
            })
        }
    };
    let mut readers: Vec<Vec<Reader>> = vec![Vec::new(); count];
    let mut followers: Vec<Vec<u32>> = vec![Vec::new(); count];
    let mut logical: Vec<Vec<u32>> = vec![Vec::new(); count];
    let mut upstreams: Vec<Vec<u32>> = vec![Vec::new(); count];
    for (number, node) in graph.nodes.iter().enumerate() {
        let me = u32::try_from(number).unwrap_or(u32::MAX);
        for edge in &node.edges {
            check(node, edge.upstream)?;
            upstreams[number].push(edge.upstream.0);
            let kind = match (&node.gate, edge.instances) {
                (Gate::Logical(_), _) => continue,
                (_, Instances::Summary) => EdgeKind::Summary,
                (_, Instances::Aligned) if aligned(node, &graph.nodes[edge.upstream.index()]) => {
                    EdgeKind::Aligned
                }
                _ => EdgeKind::Counted,
            };
            readers[edge.upstream.index()].push(Reader { node: me, class: edge.class, kind });
        }
        if let Gate::Logical(tree) = &node.gate {
            let mut named: Vec<u32> = node.edges.iter().map(|e| e.upstream.0).collect();
            collect(tree, &mut named);
            named.sort_unstable();
            named.dedup();
            for &upstream in &named {
                check(node, NodeNo(upstream))?;
                upstreams[number].push(upstream);
                readers[upstream as usize].push(Reader {
                    node: me,
                    class: EdgeClass::Data,
                    kind: EdgeKind::Logical,
                });
            }
            logical[number] = named;
        }
        if let Some(expansion) = &node.expansion {
            if let ExpansionAt::Upstream(nodes) = &expansion.at {
                for &upstream in nodes {
                    check(node, upstream)?;
                    upstreams[number].push(upstream.0);
                    readers[upstream.index()].push(Reader {
                        node: me,
                        class: EdgeClass::Order,
                        kind: EdgeKind::Expansion,
                    });
                }
            }
            if let ExpansionBy::Like(leader) = expansion.by {
                check(node, leader)?;
                followers[leader.index()].push(me);
            }
        }
    }
    let order = order(template, graph, &upstreams)?;
    let verdict = match &graph.verdict.set {
        VerdictSet::All => {
            (0..count as u32).filter(|&n| !graph.nodes[n as usize].ignorable).collect()
        }
        VerdictSet::Nodes(nodes) => {
            for &node in nodes {
                if node.index() >= count {
                    return Err(PlanError::NoNode {
                        template: template.to_owned(),
                        node: "(verdict)".to_owned(),
                        upstream: node.0,
                    });
                }
            }
            nodes.iter().map(|n| n.0).collect()
        }
        VerdictSet::Leaves => (0..count as u32)
            .filter(|&n| {
                !graph.nodes[n as usize].ignorable
                    && readers[n as usize].iter().all(|r| graph.nodes[r.node as usize].ignorable)
            })
            .collect(),
    };
    Ok(GraphPlan { readers, followers, order, verdict, logical })
}

fn collect(tree: &Tree, into: &mut Vec<u32>) {
    match tree {
        Tree::All(parts) | Tree::Any(parts) => parts.iter().for_each(|p| collect(p, into)),
        Tree::Not(part) => collect(part, into),
        Tree::Is(predicate) => into.push(predicate.node.0),
    }
}

/// Kahn's algorithm; ties by number, so that the order is a pure function of the definition.
fn order(template: &str, graph: &Graph, upstreams: &[Vec<u32>]) -> Result<Vec<u32>, PlanError> {
    let count = graph.nodes.len();
    let mut missing: Vec<usize> = upstreams.iter().map(Vec::len).collect();
    let mut downstream: Vec<Vec<u32>> = vec![Vec::new(); count];
    for (node, ups) in upstreams.iter().enumerate() {
        for &up in ups {
            downstream[up as usize].push(node as u32);
        }
    }
    let mut order: Vec<u32> = (0..count as u32).filter(|&n| missing[n as usize] == 0).collect();
    let mut at = 0;
    while at < order.len() {
        let node = order[at];
        at += 1;
        for &next in &downstream[node as usize] {
            missing[next as usize] -= 1;
            if missing[next as usize] == 0 {
                order.push(next);
            }
        }
    }
    if order.len() == count {
        return Ok(order);
    }
    // Walk upstream among what is left: it must come back to itself.
    let first = (0..count).find(|&n| missing[n] > 0).unwrap_or(0);
    let mut path: Vec<usize> = vec![first];
    loop {
        let last = path[path.len() - 1];
        let Some(next) = upstreams[last].iter().map(|&u| u as usize).find(|&u| missing[u] > 0)
        else {
            break;
        };
        if let Some(start) = path.iter().position(|&n| n == next) {
            path.drain(..start);
            path.push(next);
            break;
        }
        path.push(next);
    }
    path.reverse();
    let circle: Vec<&str> = path.iter().take(20).map(|&n| graph.nodes[n].name.as_str()).collect();
    Err(PlanError::Cycle { template: template.to_owned(), circle: circle.join(" -> ") })
}
