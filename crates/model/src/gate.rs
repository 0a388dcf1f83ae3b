//! Gates: when a task may run, decided from what became of its upstream tasks.
//!
//! A *counting* gate is an ordered table over counters; a *logical* gate is a boolean tree,
//! evaluated once, when all that it refers to is settled. Every trigger rule of every system that
//! compiles to the engine is one of these two, as data.

use serde::{Deserialize, Serialize};

use crate::{Cause, NodeNo, Outcome};

/// What an edge is for. Counting gates count each class apart.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum EdgeClass {
    #[default]
    Data = 0,
    Setup = 1,
    Teardown = 2,
    Order = 3,
}

impl EdgeClass {
    pub const COUNT: usize = 4;
}

/// Which instances of an expanded upstream an edge means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Instances {
    /// All of them.
    #[default]
    All,
    /// Those that share this instance's place in a common expansion. With `u` upstream and `n` own
    /// instances, instance `i` means upstream `i*u/n .. max((i+1)*u/n, i*u/n + 1)`: the same index
    /// when equally long, an ancestor's index when the own one is longer, a range when the upstream
    /// was expanded further.
    Aligned,
    /// The expansion as one: its aggregated outcome, counted once.
    Summary,
}

/// When a task may run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// The first row whose condition holds decides; none means wait.
    ///
    /// A row may rely on counters being complete only in two situations, which are when gates are
    /// looked at: the first time an outcome appears at an upstream node, and when an upstream node
    /// is complete. All known rules are of that kind (`any failed`, `all done`).
    Counting(Vec<GateRow>),
    /// Evaluated once, when every upstream is settled. True runs the task; false ends it as skipped
    /// with cause [`Cause::Gate`].
    Logical(Tree),
}

/// A row of a counting gate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GateRow {
    pub when: Condition,
    pub then: GateVerdict,
}

/// What a row decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateVerdict {
    Wait,
    Run,
    Skip,
    UpstreamFail,
    Remove,
}

/// A condition over counters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    Always,
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Check(Check),
}

/// `sum of terms >= at_least`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    pub terms: Vec<Term>,
    pub at_least: i64,
}

/// A counter times a factor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Term {
    pub counter: Counter,
    pub factor: i64,
}

/// What can be counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counter {
    /// Upstream instances of an edge class with an outcome.
    Outcome(EdgeClass, Outcome),
    /// Upstream instances of an edge class, finished or not.
    Total(EdgeClass),
    /// The instance's own index in its expansion; 0 where there is none.
    OwnIndex,
}

/// A boolean tree over upstream predicates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tree {
    All(Vec<Tree>),
    Any(Vec<Tree>),
    Not(Box<Tree>),
    Is(Predicate),
}

/// A statement about one upstream node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Predicate {
    pub node: NodeNo,
    pub quantifier: Quantifier,
    /// The outcomes for which it holds.
    pub outcomes: Vec<Outcome>,
    /// If not empty, the cause must be one of these as well.
    pub causes: Vec<Cause>,
    /// If not empty, the cause must be none of these.
    #[serde(default)]
    pub except_causes: Vec<Cause>,
    /// Also holds while the upstream is a daemon that is up.
    #[serde(default)]
    pub or_daemon: bool,
}

/// What of an expanded upstream a predicate speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantifier {
    /// The node as a whole.
    Summary,
    AnyInstance,
    AllInstances,
}

impl Gate {
    /// Runs when everything upstream succeeded; failures travel down at once, skips once all has
    /// ended, so that the result does not depend on which came first. The gate of `needs`.
    #[must_use]
    pub fn all_succeeded() -> Self {
        use Outcome::{Cancelled, Failed, Removed, Skipped, Succeeded, UpstreamFailed};
        Self::Counting(vec![
            GateRow {
                when: Condition::any_of(&[Failed, UpstreamFailed, Cancelled]),
                then: GateVerdict::UpstreamFail,
            },
            GateRow { when: Condition::all_of(&[Succeeded, Removed]), then: GateVerdict::Run },
            GateRow {
                when: Condition::All(vec![Condition::any_of(&[Skipped]), Condition::all_done()]),
                then: GateVerdict::Skip,
            },
        ])
    }

    /// Runs when everything upstream has finished, however.
    #[must_use]
    pub fn all_done() -> Self {
        Self::Counting(vec![GateRow { when: Condition::all_done(), then: GateVerdict::Run }])
    }

    /// Runs at once.
    #[must_use]
    pub fn always() -> Self {
        Self::Counting(vec![GateRow { when: Condition::Always, then: GateVerdict::Run }])
    }
}

impl Condition {
    /// `sum of counter * factor >= at_least`.
    #[must_use]
    pub fn at_least(terms: impl IntoIterator<Item = (Counter, i64)>, at_least: i64) -> Self {
        Self::Check(Check {
            terms: terms.into_iter().map(|(counter, factor)| Term { counter, factor }).collect(),
            at_least,
        })
    }

    /// At least one upstream of any class ended in one of `outcomes`.
    #[must_use]
    pub fn any_of(outcomes: &[Outcome]) -> Self {
        Self::at_least(
            ALL_CLASSES
                .iter()
                .flat_map(|&c| outcomes.iter().map(move |&o| (Counter::Outcome(c, o), 1))),
            1,
        )
    }

    /// Every upstream of every class ended, in one of `outcomes`.
    #[must_use]
    pub fn all_of(outcomes: &[Outcome]) -> Self {
        let counted = ALL_CLASSES
            .iter()
            .flat_map(|&c| outcomes.iter().map(move |&o| (Counter::Outcome(c, o), 1)));
        let totals = ALL_CLASSES.iter().map(|&c| (Counter::Total(c), -1));
        Self::at_least(counted.chain(totals).collect::<Vec<_>>(), 0)
    }

    /// Every upstream has finished.
    #[must_use]
    pub fn all_done() -> Self {
        Self::all_of(Outcome::ALL)
    }
}

const ALL_CLASSES: [EdgeClass; EdgeClass::COUNT] =
    [EdgeClass::Data, EdgeClass::Setup, EdgeClass::Teardown, EdgeClass::Order];
