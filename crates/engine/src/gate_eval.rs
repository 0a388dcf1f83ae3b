//! Gates evaluated over a scope's counters.

use kobza_model::{
    Condition, Counter, Edge, Gate, GateRow, GateVerdict, Instances, Outcome, Predicate,
    Quantifier, TaskState, Tree,
};

use crate::memory::{NONE, Run, UNKNOWN, flag};
use crate::plan::EdgeKind;

/// What a counting gate looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Finished upstream instances by edge class and outcome.
    pub outcomes: [[u32; 6]; 4],
    /// Upstream instances by edge class.
    pub totals: [u32; 4],
    /// The instance's own index in its expansion.
    pub index: u32,
}

impl Counts {
    fn value(&self, counter: Counter) -> i64 {
        i64::from(match counter {
            Counter::Outcome(class, outcome) => self.outcomes[class as usize][outcome as usize],
            Counter::Total(class) => self.totals[class as usize],
            Counter::OwnIndex => self.index,
        })
    }

    /// Whether everything that is counted has finished.
    pub(crate) fn complete(&self) -> bool {
        let done: u32 = self.outcomes.iter().flatten().sum();
        done >= self.totals.iter().sum()
    }
}

pub(crate) fn holds(condition: &Condition, counts: &Counts) -> bool {
    match condition {
        Condition::Always => true,
        Condition::All(parts) => parts.iter().all(|p| holds(p, counts)),
        Condition::Any(parts) => parts.iter().any(|p| holds(p, counts)),
        Condition::Not(part) => !holds(part, counts),
        Condition::Check(check) => {
            let sum: i64 = check
                .terms
                .iter()
                .map(|t| counts.value(t.counter).saturating_mul(t.factor))
                .fold(0, i64::saturating_add);
            sum >= check.at_least
        }
    }
}

/// What the first row of a counting gate that holds says; that it waits, if none does.
#[must_use]
pub fn decide_counting(rows: &[GateRow], counts: &Counts) -> GateVerdict {
    rows.iter().find(|row| holds(&row.when, counts)).map_or(GateVerdict::Wait, |row| row.then)
}

/// What a gate says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Says {
    Wait,
    /// It waits, and nothing is left that could change that.
    Deadlock,
    Run,
    Skip,
    UpstreamFail,
    Remove,
}

/// The range of upstream instances that an aligned edge means for instance `index` of `own`.
pub(crate) fn aligned_range(index: u32, own: u32, upstream: u32) -> std::ops::Range<u32> {
    if own == 0 || upstream == 0 {
        return 0..0;
    }
    let at = |i: u32| (u64::from(i) * u64::from(upstream) / u64::from(own)) as u32;
    let start = at(index);
    start..at(index + 1).max(start + 1).min(upstream)
}

/// Evaluates a node's gate, for the node as a whole (`index` none) or for one instance.
pub(crate) fn evaluate(run: &Run, scope_no: u32, node_no: u32, index: Option<u32>) -> Says {
    let scope = run.scope(scope_no);
    let node = run.plan.node(scope.template, node_no);
    let state = &scope.nodes[node_no as usize];
    match &node.gate {
        Gate::Logical(tree) => {
            let plan = run.plan.graph_plan(scope.template);
            let open = plan.logical[node_no as usize].iter().any(|&up| !settled(run, scope_no, up));
            if open {
                Says::Wait
            } else if tree_holds(run, scope_no, tree) {
                Says::Run
            } else {
                Says::Skip
            }
        }
        Gate::Counting(rows) => {
            let mut counts = Counts {
                outcomes: state.counters,
                totals: state.totals,
                index: index.unwrap_or(0),
            };
            for edge in &node.edges {
                if edge_kind(run, scope.template, node_no, edge) == EdgeKind::Aligned {
                    add_aligned(run, scope_no, node_no, edge, index, &mut counts);
                }
            }
            match decide_counting(rows, &counts) {
                GateVerdict::Wait if counts.complete() => Says::Deadlock,
                GateVerdict::Wait => Says::Wait,
                GateVerdict::Run => Says::Run,
                GateVerdict::Skip => Says::Skip,
                GateVerdict::UpstreamFail => Says::UpstreamFail,
                GateVerdict::Remove => Says::Remove,
            }
        }
    }
}

/// How an edge reaches this reader.
pub(crate) fn edge_kind(run: &Run, template: u32, node: u32, edge: &Edge) -> EdgeKind {
    let own = run.plan.node(template, node);
    let upstream = run.plan.node(template, edge.upstream.0);
    match edge.instances {
        Instances::Summary => EdgeKind::Summary,
        Instances::Aligned if crate::plan::aligned(own, upstream) => EdgeKind::Aligned,
        Instances::All | Instances::Aligned => EdgeKind::Counted,
    }
}

fn add_aligned(
    run: &Run,
    scope_no: u32,
    node_no: u32,
    edge: &Edge,
    index: Option<u32>,
    counts: &mut Counts,
) {
    let scope = run.scope(scope_no);
    let class = edge.class as usize;
    let upstream = &scope.nodes[edge.upstream.index()];
    let own = scope.nodes[node_no as usize].length;
    let head = run.task(scope.first + edge.upstream.0);
    let (Some(index), true) =
        (index, own != UNKNOWN && upstream.length != UNKNOWN && upstream.length > 0)
    else {
        // One of the two was never expanded: it counts as one.
        counts.totals[class] += 1;
        if head.has(flag::SETTLED)
            && let Some(outcome) = head.state.outcome()
        {
            counts.outcomes[class][outcome as usize] += 1;
        }
        return;
    };
    for i in aligned_range(index, own, upstream.length) {
        counts.totals[class] += 1;
        if let Some(task) = upstream.instance(i)
            && run.task(task).has(flag::SETTLED)
            && let Some(outcome) = run.task(task).state.outcome()
        {
            counts.outcomes[class][outcome as usize] += 1;
        }
    }
}

pub(crate) fn settled(run: &Run, scope: u32, node: u32) -> bool {
    let head = run.task(run.head(scope, node));
    head.has(flag::SETTLED) || head.has(flag::DAEMON_UP)
}

pub(crate) fn tree_holds(run: &Run, scope: u32, tree: &Tree) -> bool {
    match tree {
        Tree::All(parts) => parts.iter().all(|p| tree_holds(run, scope, p)),
        Tree::Any(parts) => parts.iter().any(|p| tree_holds(run, scope, p)),
        Tree::Not(part) => !tree_holds(run, scope, part),
        Tree::Is(predicate) => predicate_holds(run, scope, predicate),
    }
}

fn predicate_holds(run: &Run, scope: u32, predicate: &Predicate) -> bool {
    let head_no = run.head(scope, predicate.node.0);
    let matches = |no: u32| {
        let task = run.task(no);
        if predicate.or_daemon && task.has(flag::DAEMON_UP) {
            return true;
        }
        task.state.outcome().is_some_and(|outcome: Outcome| {
            predicate.outcomes.contains(&outcome)
                && (predicate.causes.is_empty() || predicate.causes.contains(&task.cause))
                && !predicate.except_causes.contains(&task.cause)
        })
    };
    let state = &run.scope(scope).nodes[predicate.node.index()];
    let instances = || (0..state.made).filter_map(|i| state.instance(i));
    let expanded = state.length != UNKNOWN;
    match predicate.quantifier {
        Quantifier::Summary => matches(head_no),
        Quantifier::AnyInstance if expanded => instances().any(matches),
        Quantifier::AllInstances if expanded => state.made > 0 && instances().all(matches),
        // On a node that was not expanded these are never true, as in the systems that have them.
        Quantifier::AnyInstance | Quantifier::AllInstances => false,
    }
}

/// Whether a deciding task upstream chose to skip this node.
pub(crate) fn branched_away(run: &Run, scope_no: u32, node_no: u32, index: u32) -> bool {
    let scope = run.scope(scope_no);
    let node = run.plan.node(scope.template, node_no);
    node.edges.iter().any(|edge| {
        let skips = |no: u32| {
            let task = run.task(no);
            task.state == TaskState::Succeeded
                && task.more.as_ref().is_some_and(|m| m.skips.iter().any(|n| n.0 == node_no))
        };
        let state = &scope.nodes[edge.upstream.index()];
        skips(scope.first + edge.upstream.0)
            || (index != NONE
                && state.length != UNKNOWN
                && state.instance(index).is_some_and(skips))
    })
}
