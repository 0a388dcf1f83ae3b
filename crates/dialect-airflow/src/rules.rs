//! The thirteen trigger rules as counting gates.
//!
//! A gate counts upstream instances of the classes data and setup together, as Airflow does; the
//! states that a rule sets come before its condition for running.

use std::ops::{Add, Sub};

use kobza_model::{Condition, Counter, EdgeClass, Gate, GateRow, GateVerdict, Outcome};

/// Every rule, by its name in a DAG.
pub const RULES: [&str; 13] = [
    "all_success",
    "all_failed",
    "all_done",
    "all_done_min_one_success",
    "all_done_setup_success",
    "one_success",
    "one_failed",
    "one_done",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "all_skipped",
    "always",
];

/// Direct upstream tasks, setups among them.
const CLASSES: [EdgeClass; 2] = [EdgeClass::Data, EdgeClass::Setup];

/// A linear form over counters.
#[derive(Clone)]
pub(crate) struct Sum(Vec<(Counter, i64)>);

impl Sum {
    /// Instances of these classes with this outcome.
    pub(crate) fn of(classes: &[EdgeClass], outcome: Outcome) -> Self {
        Self(classes.iter().map(|&class| (Counter::Outcome(class, outcome), 1)).collect())
    }

    /// Instances of these classes, finished or not.
    pub(crate) fn total(classes: &[EdgeClass]) -> Self {
        Self(classes.iter().map(|&class| (Counter::Total(class), 1)).collect())
    }

    /// Finished instances of these classes.
    pub(crate) fn done(classes: &[EdgeClass]) -> Self {
        Outcome::ALL.iter().fold(Self(Vec::new()), |sum, &o| sum + Self::of(classes, o))
    }

    pub(crate) fn own_index() -> Self {
        Self(vec![(Counter::OwnIndex, 1)])
    }

    pub(crate) fn least(self, at_least: i64) -> Condition {
        Condition::at_least(self.0, at_least)
    }

    pub(crate) fn most(self, most: i64) -> Condition {
        (Self(Vec::new()) - self).least(-most)
    }

    pub(crate) fn some(self) -> Condition {
        self.least(1)
    }

    pub(crate) fn zero(self) -> Condition {
        self.most(0)
    }
}

impl Add for Sum {
    type Output = Self;
    fn add(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl Sub for Sum {
    type Output = Self;
    fn sub(mut self, other: Self) -> Self {
        self.0.extend(other.0.into_iter().map(|(counter, by)| (counter, -by)));
        self
    }
}

/// The gate of a rule; none if there is no such rule.
#[must_use]
pub fn gate(rule: &str) -> Option<Gate> {
    use GateVerdict::{Remove, Run, Skip, UpstreamFail};
    let count = |outcome| Sum::of(&CLASSES, outcome);
    let s = || count(Outcome::Succeeded);
    let k = || count(Outcome::Skipped);
    // A task that somebody stopped counts as failed.
    let f = || count(Outcome::Failed) + count(Outcome::Cancelled);
    let u = || count(Outcome::UpstreamFailed);
    let r = || count(Outcome::Removed);
    let n = || Sum::total(&CLASSES);
    let d = || Sum::done(&CLASSES);
    let setup = |outcome| Sum::of(&[EdgeClass::Setup], outcome);
    let setups = || Sum::total(&[EdgeClass::Setup]);
    let done = || (d() - n()).least(0);
    let all = Condition::All;
    let rows: Vec<(Condition, GateVerdict)> = match rule {
        "all_success" => vec![
            ((u() + f()).some(), UpstreamFail),
            (k().some(), Skip),
            (all(vec![r().some(), s().some(), (Sum::own_index() - s()).least(0)]), Remove),
            ((n() - s() - r()).most(0), Run),
        ],
        "all_failed" => vec![((s() + k()).some(), Skip), ((n() - f() - u() - r()).most(0), Run)],
        "all_done" => vec![(done(), Run)],
        "all_done_min_one_success" => vec![
            (k().some(), Skip),
            (all(vec![(s() + f() + u() + r() + k() - n()).least(0), s().zero()]), UpstreamFail),
            (all(vec![k().zero(), (s() + f() + u() - n() + k() + r()).least(0), s().some()]), Run),
        ],
        "all_done_setup_success" => vec![
            (
                all(vec![done(), setups().some(), (setup(Outcome::Skipped) - setups()).least(0)]),
                Skip,
            ),
            (all(vec![done(), setups().some(), setup(Outcome::Succeeded).zero()]), UpstreamFail),
            (
                all(vec![
                    done(),
                    Condition::Any(vec![setups().zero(), setup(Outcome::Succeeded).some()]),
                ]),
                Run,
            ),
        ],
        "one_success" => vec![
            (all(vec![done(), (k() - d()).least(0)]), Skip),
            (all(vec![done(), s().zero()]), UpstreamFail),
            (s().some(), Run),
        ],
        "one_failed" => {
            vec![(all(vec![done(), (f() + u()).zero()]), Skip), ((f() + u()).some(), Run)]
        }
        "one_done" => {
            vec![(all(vec![done(), (f() + s()).zero()]), Skip), ((s() + f()).some(), Run)]
        }
        "none_failed" => {
            vec![((u() + f()).some(), UpstreamFail), ((n() - s() - k() - r()).most(0), Run)]
        }
        "none_failed_min_one_success" => vec![
            ((u() + f()).some(), UpstreamFail),
            ((k() - n()).least(0), Skip),
            (all(vec![done(), s().zero()]), UpstreamFail),
            (all(vec![(n() - s() - k() - r()).most(0), s().some()]), Run),
        ],
        "none_skipped" => vec![(k().some(), Skip), (all(vec![done(), k().zero()]), Run)],
        "all_skipped" => vec![((s() + f() + u()).some(), Skip), ((n() - k()).most(0), Run)],
        "always" => vec![(Condition::Always, Run)],
        _ => return None,
    };
    let nothing_upstream = GateRow { when: n().zero(), then: Run };
    let rest = rows.into_iter().map(|(when, then)| GateRow { when, then });
    Some(Gate::Counting(std::iter::once(nothing_upstream).chain(rest).collect()))
}
