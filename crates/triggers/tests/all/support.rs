//! A store for tests: rows by kind and key, changed by writes only.

use std::collections::BTreeMap;

use kobza_model::{Json, RunId, Timestamp};
use kobza_store::Write;
use kobza_triggers::{SlotRow, StartSpec, Step, TriggerKey, TriggerRow, Triggers};
use serde::Deserialize;

#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) objects: BTreeMap<(String, String, String), Json>,
    /// Runs by (workflow, key): a second start of one key is refused.
    pub(crate) runs: BTreeMap<(String, String), StartSpec>,
    pub(crate) stopped: Vec<RunId>,
}

impl Rows {
    pub(crate) fn write(&mut self, writes: Vec<Write>) {
        for write in writes {
            let Write::PutObject { kind, namespace, key, value } = write else {
                panic!("triggers write objects only");
            };
            let place = (kind.to_owned(), namespace, key);
            match value {
                Some(value) => self.objects.insert(place, value),
                None => self.objects.remove(&place),
            };
        }
    }

    /// Commits a step as the driver would; the run that it started.
    pub(crate) fn commit(&mut self, step: &mut Step) -> Option<RunId> {
        self.stopped.extend(step.stop.iter().map(|(run, _)| *run));
        let mut started = None;
        if let Some(start) = step.start.clone() {
            let place = (step.trigger.workflow.clone(), start.key.clone());
            if let Some(existing) = self.runs.get(&place) {
                let existing = existing.run;
                step.start_exists(existing);
            } else {
                started = Some(start.run);
                self.runs.insert(place, start);
            }
        }
        self.write(step.writes());
        started
    }

    pub(crate) fn commit_all(&mut self, steps: Vec<Step>) -> Vec<RunId> {
        steps.into_iter().filter_map(|mut step| self.commit(&mut step)).collect()
    }

    pub(crate) fn of_kind(
        &self,
        kind: &str,
    ) -> impl Iterator<Item = (&(String, String, String), &Json)> {
        let from = (kind.to_owned(), String::new(), String::new());
        let kind = kind.to_owned();
        self.objects.range(from..).take_while(move |((own, _, _), _)| *own == kind)
    }

    pub(crate) fn slots(&self) -> Vec<(String, SlotRow)> {
        self.of_kind("slot")
            .map(|((_, _, key), value)| (key.clone(), Deserialize::deserialize(value).unwrap()))
            .collect()
    }

    pub(crate) fn trigger_rows(&self) -> Vec<(String, TriggerRow)> {
        self.of_kind("trigger")
            .map(|((_, namespace, _), value)| {
                (namespace.clone(), Deserialize::deserialize(value).unwrap())
            })
            .collect()
    }

    /// What a server does after a crash.
    pub(crate) fn restart(&self) -> Triggers {
        let mut triggers = Triggers::new();
        for (namespace, row) in self.trigger_rows() {
            triggers.restore(&namespace, row).unwrap();
        }
        triggers
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn key(name: &str) -> TriggerKey {
    TriggerKey::new("default", "w", name)
}

pub(crate) fn setup(rows: &mut Rows, source: &Json, now: &str) -> Triggers {
    let mut triggers = Triggers::new();
    let specs = kobza_triggers::parse_triggers(source).unwrap();
    let steps = triggers.set_workflow("default", "w", specs, 0, at(now));
    rows.commit_all(steps);
    triggers
}
