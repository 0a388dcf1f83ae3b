//! Rules as counting gates.
//!
//! Edges to setup tasks have a class of their own: a setup that failed or was skipped decides
//! before any rule, since what a task stands on is not there.

use kobza_model::{Condition, Counter, EdgeClass, Gate, GateRow, GateVerdict, Outcome};

use GateVerdict::{Run, Skip, UpstreamFail};

const BAD: &[Outcome] = &[Outcome::Failed, Outcome::UpstreamFailed, Outcome::Cancelled];

/// Classes that rules speak of; setups are judged apart.
const JUDGED: &[EdgeClass] = &[EdgeClass::Data, EdgeClass::Order];

fn row(when: Condition, then: GateVerdict) -> GateRow {
    GateRow { when, then }
}

/// At least one upstream task of these classes ended so.
fn some(classes: &[EdgeClass], outcomes: &[Outcome]) -> Condition {
    Condition::at_least(
        classes.iter().flat_map(|&c| outcomes.iter().map(move |&o| (Counter::Outcome(c, o), 1))),
        1,
    )
}

/// Every judged upstream task ended, in one of these ways.
fn all(outcomes: &[Outcome]) -> Condition {
    let counted =
        JUDGED.iter().flat_map(|&c| outcomes.iter().map(move |&o| (Counter::Outcome(c, o), 1)));
    let totals = JUDGED.iter().map(|&c| (Counter::Total(c), -1));
    Condition::at_least(counted.chain(totals).collect::<Vec<_>>(), 0)
}

fn done() -> Condition {
    Condition::all_done()
}

fn done_and(other: Condition) -> Condition {
    Condition::All(vec![done(), other])
}

/// The gate of a rule. `None` for a word that is none.
pub(crate) fn of_rule(rule: &str) -> Option<Gate> {
    let good = &[Outcome::Succeeded][..];
    let skipped = &[Outcome::Skipped][..];
    let neutral = &[Outcome::Skipped, Outcome::Removed][..];
    let rows = match rule {
        "all_succeeded" => return Some(Gate::all_succeeded()),
        "always" => return Some(Gate::always()),
        "all_done" => vec![row(done(), Run)],
        "all_failed" => vec![
            row(some(JUDGED, &[Outcome::Succeeded, Outcome::Skipped]), Skip),
            row(done_and(some(JUDGED, BAD)), Run),
            row(done(), Skip),
        ],
        "one_succeeded" => vec![
            row(some(JUDGED, good), Run),
            row(done_and(all(neutral)), Skip),
            row(done(), UpstreamFail),
        ],
        "one_failed" => vec![row(some(JUDGED, BAD), Run), row(done(), Skip)],
        "one_done" => vec![
            row(some(JUDGED, &[Outcome::Succeeded, Outcome::Failed]), Run),
            row(done_and(all(neutral)), Skip),
            row(done(), UpstreamFail),
        ],
        "none_failed" => vec![row(some(JUDGED, BAD), UpstreamFail), row(done(), Run)],
        "none_failed_min_one_success" => vec![
            row(some(JUDGED, BAD), UpstreamFail),
            row(done_and(some(JUDGED, good)), Run),
            row(done(), Skip),
        ],
        "none_skipped" => vec![row(some(JUDGED, skipped), Skip), row(done(), Run)],
        "all_skipped" => vec![
            row(some(JUDGED, &[Outcome::Succeeded]), Skip),
            row(some(JUDGED, BAD), Skip),
            row(done(), Run),
        ],
        _ => return None,
    };
    let mut guarded = setup_rows();
    guarded.extend(rows);
    Some(Gate::Counting(guarded))
}

fn setup_rows() -> Vec<GateRow> {
    vec![
        row(some(&[EdgeClass::Setup], BAD), UpstreamFail),
        row(some(&[EdgeClass::Setup], &[Outcome::Skipped]), Skip),
    ]
}

/// A teardown runs when its setups succeeded, after everything else it waits for has ended.
pub(crate) fn teardown() -> Gate {
    let mut rows = setup_rows();
    rows.push(row(done(), Run));
    Gate::Counting(rows)
}
