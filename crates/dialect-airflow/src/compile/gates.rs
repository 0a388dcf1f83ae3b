//! A task's edges and gate: its rule, and what setups, teardowns and mapping add to it.

use kobza_model::{EdgeClass, Gate, GateRow, GateVerdict, Outcome};

use crate::rules::{self, Sum};

/// What a gate has to heed beside its rule.
#[derive(Clone, Copy, Default)]
pub(super) struct Constraints {
    /// Edges of class order lead to setups that are relevant but not direct upstream.
    pub(super) indirect_setups: bool,
    /// It is a teardown, and edges of class teardown lead to tasks between its setups and itself.
    pub(super) scope: bool,
    /// Edges of class teardown lead to tasks, not mapped ones, whose XCom it is mapped over.
    pub(super) mapped_over: bool,
    /// It has an index of its own.
    pub(super) instances: bool,
}

const SETUPS: &[EdgeClass] = &[EdgeClass::Order];
const OTHERS: &[EdgeClass] = &[EdgeClass::Teardown];

pub(super) fn gate(rule: &str, constraints: Constraints) -> Option<Gate> {
    let Some(Gate::Counting(mut rows)) = rules::gate(rule) else { return None };
    if rule == "always" {
        // Airflow does not look at anything then.
        return Some(Gate::Counting(rows));
    }
    if constraints.scope {
        let done = (Sum::done(OTHERS) - Sum::total(OTHERS)).least(0);
        for row in rows.iter_mut().filter(|row| row.then == GateVerdict::Run) {
            let rule = std::mem::replace(&mut row.when, kobza_model::Condition::Always);
            row.when = kobza_model::Condition::All(vec![rule, done.clone()]);
        }
    }
    let mut before = Vec::new();
    if constraints.mapped_over && !constraints.scope {
        before.extend(states(OTHERS));
        before.push(GateRow {
            when: (Sum::total(OTHERS) - Sum::done(OTHERS)).some(),
            then: GateVerdict::Wait,
        });
    }
    if constraints.indirect_setups {
        before.extend(states(SETUPS));
        let mut missing = Sum::total(SETUPS) - Sum::of(SETUPS, Outcome::Succeeded);
        if constraints.instances {
            missing = missing - Sum::of(SETUPS, Outcome::Removed);
        }
        before.push(GateRow { when: missing.some(), then: GateVerdict::Wait });
    }
    before.append(&mut rows);
    Some(Gate::Counting(before))
}

/// A failure fails, a skip skips, without waiting for the others.
fn states(classes: &[EdgeClass]) -> [GateRow; 2] {
    let failed = Sum::of(classes, Outcome::Failed)
        + Sum::of(classes, Outcome::UpstreamFailed)
        + Sum::of(classes, Outcome::Cancelled);
    [
        GateRow { when: failed.some(), then: GateVerdict::UpstreamFail },
        GateRow { when: Sum::of(classes, Outcome::Skipped).some(), then: GateVerdict::Skip },
    ]
}
