//! Years of simulated time with crashes, lost and unknown commits and clock steps. Afterwards each
//! slot that a schedule had must have exactly one run, or a record that says why not.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Rows, at};
use kobza_model::{Json, RunId, Timestamp};
use kobza_schedule::Schedule;
use kobza_triggers::{SlotOutcome, SlotRow, Triggers};
use proptest::prelude::*;
use serde_json::json;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// A small generator of its own: one seed gives one history.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: i64) -> i64 {
        i64::try_from(self.next() % limit.unsigned_abs()).unwrap()
    }
}

struct Simulation {
    chance: Chance,
    now: Timestamp,
    /// The furthest that the wall clock has been.
    furthest: Timestamp,
    rows: Rows,
    triggers: Triggers,
    running: BTreeMap<RunId, Timestamp>,
    crashes: u32,
}

impl Simulation {
    fn new(seed: u64, sources: &[Json], begin: Timestamp) -> Self {
        let mut rows = Rows::default();
        let mut triggers = Triggers::new();
        for (number, source) in sources.iter().enumerate() {
            let specs = kobza_triggers::parse_triggers(source).unwrap();
            let steps = triggers.set_workflow("default", &format!("w{number}"), specs, 0, begin);
            rows.commit_all(steps);
        }
        Self {
            chance: Chance(seed | 1),
            now: begin,
            furthest: begin,
            rows,
            triggers,
            running: BTreeMap::new(),
            crashes: 0,
        }
    }

    /// Rebuilds the machine from its rows, and tells it which runs ended meanwhile.
    fn crash(&mut self) {
        self.crashes += 1;
        self.triggers = self.rows.restart();
        for run in self.triggers.active_runs() {
            if self.running.get(&run).is_none_or(|end| *end <= self.now) {
                let steps = self.triggers.run_ended(run, self.now);
                self.running.remove(&run);
                self.commit(steps);
            }
        }
    }

    fn commit(&mut self, steps: Vec<kobza_triggers::Step>) {
        let mut dropped = BTreeSet::new();
        for mut step in steps {
            if dropped.contains(&step.trigger) {
                continue;
            }
            match self.chance.below(150) {
                // Died before the commit.
                0 => return self.crash(),
                // Died after it, before anybody was told.
                1 => {
                    self.note(&mut step);
                    return self.crash();
                }
                // The store refused: only this trigger is taken up again, its later steps dropped.
                2 => {
                    let stored = self.rows.trigger_rows().into_iter().find(|(_, row)| {
                        row.workflow == step.trigger.workflow && row.name == step.trigger.name
                    });
                    let (namespace, row) = stored.unwrap();
                    self.triggers.restore(&namespace, row).unwrap();
                    dropped.insert(step.trigger);
                }
                _ => self.note(&mut step),
            }
        }
    }

    fn note(&mut self, step: &mut kobza_triggers::Step) {
        if let Some(run) = self.rows.commit(step) {
            let length = self.chance.below(30 * HOUR);
            self.running.insert(run, Timestamp(self.now.0 + length));
        }
    }

    fn run_until(&mut self, end: Timestamp) {
        while self.now < end {
            let due = self.triggers.next_due().unwrap_or(end);
            let next_end = self.running.values().min().copied().unwrap_or(end);
            let jump = self.chance.below(5_000_000);
            let next = Timestamp(due.min(next_end).max(self.now).0 + jump);
            self.now = match self.chance.below(400) {
                // The server is down for up to three days, and starts again.
                0 => {
                    let wake = Timestamp(self.now.0 + self.chance.below(3 * DAY));
                    self.now = wake.max(next);
                    self.crash();
                    self.now
                }
                // The wall clock is set back, or forward.
                1 => Timestamp(self.now.0 - self.chance.below(2 * HOUR)),
                2 => Timestamp(next.0 + self.chance.below(6 * HOUR)),
                _ => next,
            };
            self.furthest = self.furthest.max(self.now);
            let ended: Vec<_> = self
                .running
                .iter()
                .filter(|(_, end)| **end <= self.now)
                .map(|(run, _)| *run)
                .collect();
            for run in ended {
                self.running.remove(&run);
                let steps = self.triggers.run_ended(run, self.now);
                self.commit(steps);
            }
            let steps = self.triggers.tick(self.now);
            self.commit(steps);
        }
        // Let it settle without faults.
        self.now = self.furthest;
        self.triggers = self.rows.restart();
        for _ in 0..10_000 {
            for run in self.triggers.active_runs() {
                let steps = self.triggers.run_ended(run, self.now);
                self.rows.commit_all(steps);
            }
            let steps = self.triggers.tick(self.now);
            if steps.is_empty() && self.triggers.active_runs().is_empty() {
                return;
            }
            self.rows.commit_all(steps);
        }
        panic!("it does not settle");
    }

    /// The checker: slots by the schedule alone, matched with what the rows and runs say.
    fn check(&self, slots: &[SlotRow], number: usize, source: &Json, begin: Timestamp) {
        let mut when = source.clone();
        when.as_object_mut().unwrap().remove("start");
        let schedule = Schedule::parse(&when).unwrap();
        let workflow = format!("w{number}");
        let jitter = source.get("jitter").map_or(0, |_| HOUR);
        let first = source.get("start").map_or(begin, |start| {
            let start = start.as_str().unwrap().parse::<Timestamp>().unwrap();
            // Without full catch-up a start in the past has no meaning.
            if source["catchup"] == json!(true) { Timestamp(start.0 - 1) } else { begin }
        });
        let due: BTreeSet<Timestamp> = schedule
            .slots_between(Timestamp(first.0 + 1), Timestamp(self.furthest.0 + 1))
            .collect();
        let mut decided: BTreeMap<Timestamp, (SlotOutcome, Option<RunId>)> = BTreeMap::new();
        for row in slots.iter().filter(|row| row.workflow == workflow) {
            assert!(!row.reason.is_empty());
            let through = row.through.unwrap_or(row.at);
            for slot in schedule.slots_between(row.at, Timestamp(through.0 + 1)) {
                let before = decided.insert(slot, (row.outcome, row.run));
                assert!(before.is_none(), "{source}: {slot} is decided twice");
            }
        }
        let runs: BTreeMap<RunId, String> = self
            .rows
            .runs
            .iter()
            .filter(|((w, _), _)| *w == workflow)
            .map(|((_, key), start)| (start.run, key.clone()))
            .collect();
        for slot in &due {
            let Some((outcome, run)) = decided.remove(slot) else {
                assert!(slot.0 + jitter > self.furthest.0, "{source}: {slot} has vanished");
                continue;
            };
            let expected = format!("trigger:schedule@{}", slot.to_jiff());
            match outcome {
                SlotOutcome::Started => {
                    let key = run.and_then(|run| runs.get(&run));
                    assert_eq!(key, Some(&expected), "{source}: the run of {slot}");
                }
                SlotOutcome::Skipped => assert_eq!(run, None),
                other => panic!("{source}: {slot} is left {other:?}"),
            }
        }
        assert!(decided.is_empty(), "{source}: decided, but never due: {decided:?}");
        let started = slots
            .iter()
            .filter(|row| row.workflow == workflow && row.outcome == SlotOutcome::Started);
        assert_eq!(started.count(), runs.len(), "{source}: each run has its slot");
    }
}

fn sources() -> Vec<Json> {
    vec![
        json!({"cron": "30 2 * * *", "timezone": "America/New_York", "catchup": true}),
        json!({"cron": "30 1 * * *", "timezone": "Europe/London", "overlap": "skip", "catchup": true}),
        json!({"cron": "0 */3 * * *", "timezone": "Europe/Kyiv", "overlap": "queue"}),
        json!({"cron": "15 0,12 * * *", "timezone": "Australia/Lord_Howe", "overlap": "queue_all", "catchup": {"limit": 3}}),
        json!({"interval": "7h", "overlap": "cancel", "catchup": "none"}),
        json!({"cron": "0 4 * * 1", "timezone": "America/New_York", "jitter": "1h", "catchup": true,
               "start": "2012-06-01T00:00:00Z"}),
        json!({"rrule": "DTSTART:20120101T023000\nRRULE:FREQ=DAILY;INTERVAL=2", "timezone": "America/New_York"}),
        json!({"at": ["2013-03-10T02:30:00-05:00", "2013-05-01T00:00:00Z"], "catchup": true}),
    ]
}

fn simulate(seed: u64, years: i64) {
    let begin = at("2013-01-01T00:00:00Z");
    let sources = sources();
    let mut simulation = Simulation::new(seed, &sources, begin);
    simulation.run_until(Timestamp(begin.0 + years * 366 * DAY));
    assert!(simulation.crashes > 10, "the history has crashes");
    let slots: Vec<_> = simulation.rows.slots().into_iter().map(|(_, row)| row).collect();
    for (number, source) in sources.iter().enumerate() {
        simulation.check(&slots, number, source, begin);
    }
}

#[test]
fn three_years_of_crashes_and_clock_steps() {
    simulate(0x1f2e_3d4c, 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_year_of_any_history(seed in any::<u64>()) {
        simulate(seed, 1);
    }
}
