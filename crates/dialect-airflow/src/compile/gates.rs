//! A task's edges and gate: its rule, and what setups, teardowns and mapping add to it.

use kobza_model::{Condition, EdgeClass, Gate, GateRow, GateVerdict, Outcome};

use crate::rules::{self, Sum};

/// What a gate has to heed beside its rule.
#[derive(Clone, Copy, Default, Debug)]
pub struct Constraints {
    /// Edges of class order lead to setups that are relevant but not direct upstream.
    pub indirect_setups: bool,
    /// It is a teardown, and edges of class teardown lead to tasks between its setups and itself.
    pub scope: bool,
    /// Edges of class teardown lead to tasks, not mapped ones, whose XCom it is mapped over.
    pub mapped_over: bool,
    /// It has an index of its own.
    pub instances: bool,
}

const SETUPS: &[EdgeClass] = &[EdgeClass::Order];
const OTHERS: &[EdgeClass] = &[EdgeClass::Teardown];

/// The gate of a task; none if there is no such rule.
#[must_use]
pub fn gate(rule: &str, constraints: Constraints) -> Option<Gate> {
    let Some(Gate::Counting(mut rows)) = rules::gate(rule) else { return None };
    if rule == "always" {
        // Airflow does not look at anything then.
        return Some(Gate::Counting(rows));
    }
    // What must hold before it runs, though the rule may set its state before that.
    let mut ready = Vec::new();
    if constraints.scope {
        ready.push((Sum::done(OTHERS) - Sum::total(OTHERS)).least(0));
    }
    if constraints.indirect_setups {
        let mut missing = Sum::total(SETUPS) - Sum::of(SETUPS, Outcome::Succeeded);
        if constraints.instances {
            missing = missing - Sum::of(SETUPS, Outcome::Removed);
        }
        ready.push(missing.zero());
    }
    if !ready.is_empty() {
        for row in rows.iter_mut().filter(|row| row.then == GateVerdict::Run) {
            let rule = std::mem::replace(&mut row.when, Condition::Always);
            row.when = Condition::All(std::iter::once(rule).chain(ready.clone()).collect());
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
        if constraints.instances {
            let succeeded = || Sum::of(SETUPS, Outcome::Succeeded);
            let beyond = (Sum::own_index() - succeeded()).least(0);
            let removed = Sum::of(SETUPS, Outcome::Removed).some();
            before.push(GateRow {
                when: Condition::All(vec![removed, succeeded().some(), beyond]),
                then: GateVerdict::Remove,
            });
        }
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
