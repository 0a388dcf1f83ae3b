//! The slow, obvious interpreter: how a run must end, given how each body ends.
//!
//! Recursive and without any increment: it computes each node's outcome from its upstream nodes'
//! final outcomes. It has no notion of time, limits or crashes, none of which may change a result.

use std::collections::BTreeMap;

use kobza_model::*;

/// How bodies and questions come out. Paths look like `/t1[2]/o0`.
pub trait Script {
    /// Whether a body succeeds in an attempt.
    fn succeeds(&self, path: &str, attempt: u32) -> bool;
    /// Whether a guard says run.
    fn guard(&self, path: &str) -> bool;
    /// The answer to the length of an expansion.
    fn length(&self, path: &str) -> u32;
    /// Whether a retry that is asked about is granted.
    fn retry(&self, path: &str, attempt: u32) -> bool;
}

/// Final states by path, and the run's outcome.
pub fn interpret(
    workflow: &Workflow,
    script: &dyn Script,
) -> (Outcome, BTreeMap<String, TaskState>) {
    let mut states = BTreeMap::new();
    let outcome = scope(workflow, script, workflow.entry, "", &mut states);
    (outcome, states)
}

#[derive(Clone)]
struct Ended {
    outcome: Outcome,
    cause: Cause,
    /// Outcomes of the instances of an expanded node.
    instances: Option<Vec<Outcome>>,
}

fn scope(
    workflow: &Workflow,
    script: &dyn Script,
    template: TemplateNo,
    path: &str,
    states: &mut BTreeMap<String, TaskState>,
) -> Outcome {
    let TemplateBody::Graph(graph) = &workflow.templates[template.index()].body else {
        return Outcome::Succeeded;
    };
    let mut ended: Vec<Ended> = Vec::new();
    for node in &graph.nodes {
        // Generated graphs only point back, so one pass in order is enough.
        let end = node_end(workflow, script, graph, node, path, &ended, states);
        let state = end.outcome.state();
        states.insert(format!("{path}/{}", node.name), state);
        ended.push(end);
    }
    let in_set = |number: usize| {
        !graph.nodes[number].ignorable
            && match &graph.verdict.set {
                VerdictSet::All => true,
                VerdictSet::Nodes(nodes) => nodes.iter().any(|n| n.index() == number),
                VerdictSet::Leaves => !graph.nodes.iter().any(|reader| {
                    !reader.ignorable && (reader.edges.iter().any(|e| e.upstream.index() == number))
                }),
            }
    };
    let failed = (0..graph.nodes.len()).filter(|&n| in_set(n)).any(|n| {
        let outcome = ended[n].outcome;
        !graph.nodes[n].continue_on.contains(&outcome)
            && matches!(outcome, Outcome::Failed | Outcome::UpstreamFailed)
    });
    if failed { Outcome::Failed } else { Outcome::Succeeded }
}

fn node_end(
    workflow: &Workflow,
    script: &dyn Script,
    graph: &Graph,
    node: &Node,
    path: &str,
    ended: &[Ended],
    states: &mut BTreeMap<String, TaskState>,
) -> Ended {
    let plain = |outcome, cause| Ended { outcome, cause, instances: None };
    let own = format!("{path}/{}", node.name);
    if let Some(Expansion { at: ExpansionAt::Upstream(_), by: ExpansionBy::Like(leader), .. }) =
        &node.expansion
    {
        let Some(lead) = ended[leader.index()].instances.clone() else {
            // The leader was never expanded: the gate decides, and nothing runs.
            return match says(graph, node, ended, None) {
                Says::UpstreamFail => plain(Outcome::UpstreamFailed, Cause::Gate),
                Says::Run | Says::Skip | Says::Fail => plain(Outcome::Skipped, Cause::Gate),
            };
        };
        let outcomes: Vec<Outcome> = (0..lead.len())
            .map(|i| {
                let at = format!("{own}[{i}]");
                let outcome = match says(graph, node, ended, Some(i)) {
                    Says::Run => guarded(workflow, script, node, &at, states),
                    Says::Skip => Outcome::Skipped,
                    Says::UpstreamFail => Outcome::UpstreamFailed,
                    Says::Fail => Outcome::Failed,
                };
                states.insert(at, outcome.state());
                outcome
            })
            .collect();
        if outcomes.is_empty() {
            return plain(zero(node), Cause::Empty);
        }
        return Ended {
            outcome: summary(&outcomes),
            cause: Cause::Code,
            instances: Some(outcomes),
        };
    }
    match says(graph, node, ended, None) {
        Says::Skip => return plain(Outcome::Skipped, Cause::Gate),
        Says::UpstreamFail => return plain(Outcome::UpstreamFailed, Cause::Gate),
        Says::Fail => return plain(Outcome::Failed, Cause::Deadlock),
        Says::Run => {}
    }
    let Some(expansion) = &node.expansion else {
        return plain(guarded(workflow, script, node, &own, states), Cause::None);
    };
    let length = match expansion.by {
        ExpansionBy::Static(length) => length,
        ExpansionBy::Ask | ExpansionBy::Like(_) => script.length(&own),
    };
    if length == 0 {
        return Ended { outcome: zero(node), cause: Cause::Empty, instances: Some(Vec::new()) };
    }
    let outcomes: Vec<Outcome> = (0..length)
        .map(|i| {
            let at = format!("{own}[{i}]");
            let outcome = guarded(workflow, script, node, &at, states);
            states.insert(at, outcome.state());
            outcome
        })
        .collect();
    Ended { outcome: summary(&outcomes), cause: Cause::Code, instances: Some(outcomes) }
}

fn zero(node: &Node) -> Outcome {
    match node.expansion.as_ref().map(|e| e.zero) {
        Some(ZeroLength::Succeeded) => Outcome::Succeeded,
        _ => Outcome::Skipped,
    }
}

fn summary(outcomes: &[Outcome]) -> Outcome {
    if outcomes.contains(&Outcome::Failed) {
        Outcome::Failed
    } else if outcomes.contains(&Outcome::UpstreamFailed) {
        Outcome::UpstreamFailed
    } else if outcomes.contains(&Outcome::Succeeded) {
        Outcome::Succeeded
    } else {
        Outcome::Skipped
    }
}

fn guarded(
    workflow: &Workflow,
    script: &dyn Script,
    node: &Node,
    path: &str,
    states: &mut BTreeMap<String, TaskState>,
) -> Outcome {
    if node.guard && !script.guard(path) {
        return Outcome::Skipped;
    }
    let mut attempt = 1;
    loop {
        let succeeded = match &workflow.templates[node.call.index()].body {
            TemplateBody::Leaf(leaf) => leaf.kind == "noop" || script.succeeds(path, attempt),
            TemplateBody::Graph(_) => {
                states.retain(|p, _| !p.starts_with(&format!("{path}/")));
                scope(workflow, script, node.call, path, states) == Outcome::Succeeded
            }
        };
        if succeeded {
            return Outcome::Succeeded;
        }
        let again = node
            .retry
            .as_ref()
            .is_some_and(|r| attempt <= r.limit && (!r.ask || script.retry(path, attempt)));
        if !again {
            return Outcome::Failed;
        }
        attempt += 1;
    }
}

enum Says {
    Run,
    Skip,
    UpstreamFail,
    Fail,
}

/// A gate over final outcomes. Rules that may fire early are monotone in what they look at first,
/// so the end tells the same as any moment in between would have.
fn says(graph: &Graph, node: &Node, ended: &[Ended], index: Option<usize>) -> Says {
    match &node.gate {
        Gate::Logical(tree) => {
            if tree_holds(tree, ended) {
                Says::Run
            } else {
                Says::Skip
            }
        }
        Gate::Counting(rows) => {
            let mut counts = BTreeMap::new();
            let mut total = 0;
            for edge in &node.edges {
                let up = &ended[edge.upstream.index()];
                let outcomes: Vec<Outcome> = match (&up.instances, edge.instances, index) {
                    (Some(all), Instances::Aligned, Some(i))
                        if graph.nodes[edge.upstream.index()].expansion.is_some() =>
                    {
                        all.get(i).copied().into_iter().collect()
                    }
                    (Some(all), Instances::All, _) if !all.is_empty() => all.clone(),
                    _ => vec![up.outcome],
                };
                total += outcomes.len() as i64;
                for outcome in outcomes {
                    *counts.entry(outcome).or_insert(0i64) += 1;
                }
            }
            for row in rows {
                if holds(&row.when, &counts, total) {
                    return match row.then {
                        GateVerdict::Run => Says::Run,
                        GateVerdict::Skip => Says::Skip,
                        GateVerdict::UpstreamFail => Says::UpstreamFail,
                        GateVerdict::Wait | GateVerdict::Remove => Says::Fail,
                    };
                }
            }
            Says::Fail
        }
    }
}

fn holds(condition: &Condition, counts: &BTreeMap<Outcome, i64>, total: i64) -> bool {
    match condition {
        Condition::Always => true,
        Condition::All(parts) => parts.iter().all(|p| holds(p, counts, total)),
        Condition::Any(parts) => parts.iter().any(|p| holds(p, counts, total)),
        Condition::Not(part) => !holds(part, counts, total),
        Condition::Check(check) => {
            let value = |counter: Counter| match counter {
                Counter::Outcome(EdgeClass::Data, outcome) => {
                    counts.get(&outcome).copied().unwrap_or(0)
                }
                Counter::Total(EdgeClass::Data) => total,
                _ => 0,
            };
            check.terms.iter().map(|t| value(t.counter) * t.factor).sum::<i64>() >= check.at_least
        }
    }
}

fn tree_holds(tree: &Tree, ended: &[Ended]) -> bool {
    match tree {
        Tree::All(parts) => parts.iter().all(|p| tree_holds(p, ended)),
        Tree::Any(parts) => parts.iter().any(|p| tree_holds(p, ended)),
        Tree::Not(part) => !tree_holds(part, ended),
        Tree::Is(predicate) => {
            let up = &ended[predicate.node.index()];
            predicate.outcomes.contains(&up.outcome)
                && (predicate.causes.is_empty() || predicate.causes.contains(&up.cause))
        }
    }
}
