//! Backfills from preview to the last rerun.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::{Rows, at};
use kobza_model::{Json, RunId, RunState};
use kobza_triggers::backfill::{
    Backfill, BackfillItem, BackfillRow, BackfillSpec, BackfillState, BackfillStep, ItemOutcome,
    ItemRow, ItemStatus, Items, RefusedBackfill,
};
use kobza_triggers::{SlotOutcome, TimetableDialects};
use serde_json::json;

const NOW: &str = "2026-01-01T00:00:00Z";

fn days(extra: Json) -> BackfillSpec {
    let mut spec = json!({
        "workflow": "w",
        "partitions": {
            "definition": {"type": "daily", "timezone": "America/New_York", "start": "2013-01-01"},
            "set": "2013-03-01..2013-03-14",
        },
        "parallelism": 4,
    });
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    BackfillSpec::parse(&spec).unwrap()
}

/// Rows, and the runs that are not finished.
#[derive(Default)]
struct World {
    rows: Rows,
    active: BTreeMap<RunId, String>,
    started: Vec<String>,
}

impl World {
    fn commit(&mut self, steps: impl IntoIterator<Item = BackfillStep>) {
        for step in steps {
            if let Some(start) = &step.start {
                let place = (step.workflow.clone(), start.key.clone());
                assert!(
                    self.rows.runs.insert(place, start.clone()).is_none(),
                    "twice: {}",
                    start.key
                );
                self.active.insert(start.run, start.key.clone());
                self.started.push(start.key.clone());
            }
            self.rows.stopped.extend(step.stop.iter().map(|(run, _)| *run));
            self.rows.write(step.writes());
        }
    }

    fn advance(&mut self, backfill: &mut Backfill) {
        loop {
            let steps = backfill.advance(at(NOW), |_| ItemStatus::Missing);
            if steps.is_empty() {
                return;
            }
            self.commit(steps);
        }
    }

    fn end(&mut self, backfill: &mut Backfill, run: RunId, state: RunState) {
        self.active.remove(&run);
        let step = backfill.run_ended(run, state, at(NOW));
        self.commit(step);
    }

    fn items(&self) -> Vec<ItemRow> {
        self.rows
            .objects
            .iter()
            .filter(|((kind, _, key), _)| kind == "backfill" && key.contains('/'))
            .map(|(_, value)| serde_json::from_value(value.clone()).unwrap())
            .collect()
    }

    fn restart(&self) -> Backfill {
        let row = self.rows.objects.iter().find(|((_, _, key), _)| !key.contains('/')).unwrap().1;
        let row: BackfillRow = serde_json::from_value(row.clone()).unwrap();
        let items = items(&row.spec);
        Backfill::restore("default", row, &self.items(), items)
    }
}

fn items(spec: &BackfillSpec) -> Arc<Items> {
    Arc::new(spec.items(at(NOW), &TimetableDialects::new()).unwrap())
}

fn create(world: &mut World, spec: BackfillSpec) -> Backfill {
    let items = items(&spec);
    let (backfill, step) = Backfill::create("b1", "default", spec, items, "v1", "olena", at(NOW));
    world.commit([step]);
    backfill
}

#[test]
fn preview_counts_and_refuses_too_many() {
    let all = days(json!({}));
    let preview = all.preview(&items(&all), |_| ItemStatus::Missing);
    assert_eq!((preview.total, preview.runs, preview.exact), (14, 14, true));
    assert_eq!(preview.first.as_deref(), Some("2013-03-01"));
    assert_eq!(preview.last.as_deref(), Some("2013-03-14"));
    let newest = days(json!({"order": "newest_first", "only": "missing"}));
    let status = |item: &BackfillItem| match item.key.as_str() {
        "2013-03-14" => ItemStatus::Missing,
        "2013-03-13" => ItemStatus::Active,
        key if key < "2013-03-05" => ItemStatus::Succeeded,
        _ => ItemStatus::Failed,
    };
    let preview = newest.preview(&items(&newest), status);
    assert_eq!((preview.total, preview.runs), (14, 9));
    for (only, runs) in [("new", 1), ("failed", 8), ("ended", 13), ("all", 14)] {
        let spec = days(json!({"only": only}));
        assert_eq!(spec.preview(&items(&spec), status).runs, runs, "{only}");
    }
    assert_eq!(preview.first.as_deref(), Some("2013-03-14"));
    let huge = json!({
        "workflow": "w",
        "partitions": {"set": "*|*", "definition": {"type": "product", "dimensions": {
            "hour": {"type": "hourly", "start": "2010-01-01", "end": "2022-01-01"},
            "shop": {"type": "static", "keys": (0..100).map(|n| n.to_string()).collect::<Vec<_>>()},
        }}},
    });
    let refused = |spec: &BackfillSpec| spec.items(at(NOW), &TimetableDialects::new()).unwrap_err();
    let too_many = refused(&BackfillSpec::parse(&huge).unwrap());
    assert_eq!(too_many, RefusedBackfill::TooMany { count: "10519200".into() });
    assert!(too_many.to_string().contains("10519200 runs"));
    let empty =
        days(json!({"partitions": {"definition": {"type": "static", "keys": ["a"]}, "set": ""}}));
    assert_eq!(refused(&empty), RefusedBackfill::Nothing);
}

#[test]
fn slots_of_a_schedule_across_the_clock_change() {
    let spec = BackfillSpec::parse(&json!({
        "workflow": "w",
        "schedule": {"cron": "30 2 * * *", "timezone": "America/New_York"},
        "from": "2013-03-01", "to": "2013-03-14",
        "params": {"day": "{{ interval.end }}"},
    }))
    .unwrap();
    let items = items(&spec);
    assert_eq!(items.count(), 14);
    assert_eq!(items.get(9, false).unwrap().key, "2013-03-10T07:00:00Z", "moved to the gap's end");
    let mut world = World::default();
    let mut backfill = create(&mut world, spec);
    world.advance(&mut backfill);
    let first = &world.rows.runs[&("w".to_owned(), "backfill:b1@2013-03-01T07:30:00Z".to_owned())];
    assert_eq!(first.params, json!({"day": "2013-03-01T07:30:00.000000Z"}));
}

#[test]
fn never_more_than_its_parallelism_and_through_a_crash() {
    let mut world = World::default();
    let mut backfill = create(&mut world, days(json!({})));
    world.advance(&mut backfill);
    assert_eq!(world.active.len(), 4);
    let mut ended = 0;
    while let Some(run) = world.active.keys().next().copied() {
        // Crash: only rows remain.
        let mut backfill = world.restart();
        let state = if ended == 5 { RunState::Failed } else { RunState::Succeeded };
        world.end(&mut backfill, run, state);
        world.advance(&mut backfill);
        assert!(world.active.len() <= 4);
        ended += 1;
    }
    assert_eq!(world.started.len(), 14);
    let backfill = world.restart();
    assert_eq!(backfill.row().state, BackfillState::Failed);
    assert_eq!((backfill.row().succeeded, backfill.row().failed), (13, 1));
    assert_eq!(world.items().len(), 14);
    // Again what failed, and only that.
    let mut backfill = world.restart();
    let step = backfill.rerun_failed();
    world.commit(step);
    let mut backfill = world.restart();
    world.advance(&mut backfill);
    assert_eq!(world.active.len(), 1);
    let (run, key) = world.active.clone().into_iter().next().unwrap();
    assert!(key.ends_with("#2"), "{key}");
    world.end(&mut backfill, run, RunState::Succeeded);
    assert_eq!(backfill.row().state, BackfillState::Succeeded);
    assert_eq!(backfill.row().succeeded, 14);
    assert!(world.items().iter().all(|item| item.outcome == ItemOutcome::Succeeded));
    assert_eq!(backfill.rerun_failed(), None);
}

#[test]
fn pause_resume_cancel() {
    let mut world = World::default();
    let mut backfill = create(&mut world, days(json!({"order": "newest_first"})));
    world.advance(&mut backfill);
    assert_eq!(world.started[0], "backfill:b1@2013-03-14");
    let step = backfill.pause();
    world.commit(step);
    let run = *world.active.keys().next().unwrap();
    world.end(&mut backfill, run, RunState::Succeeded);
    world.advance(&mut backfill);
    assert_eq!((world.active.len(), world.started.len()), (3, 4));
    let mut backfill = world.restart();
    let step = backfill.resume();
    world.commit(step);
    world.advance(&mut backfill);
    assert_eq!(world.active.len(), 4);
    let step = backfill.cancel(at(NOW));
    world.commit(step);
    assert_eq!(world.rows.stopped.len(), 4);
    assert_eq!(backfill.row().state, BackfillState::Cancelling);
    for run in world.active.clone().into_keys() {
        world.end(&mut backfill, run, RunState::Cancelled);
        world.advance(&mut backfill);
    }
    assert_eq!(backfill.row().state, BackfillState::Cancelled);
    assert_eq!(world.started.len(), 5);
    assert_eq!(backfill.cancel(at(NOW)), None);
    assert_eq!(backfill.pause(), None);
}

#[test]
fn only_missing_leaves_out_what_succeeded_with_a_record() {
    let mut world = World::default();
    let mut backfill = create(&mut world, days(json!({"only": "missing", "parallelism": 100})));
    let steps = backfill.advance(at(NOW), |item| match item.key.as_str() {
        "2013-03-02" => ItemStatus::Succeeded,
        "2013-03-03" => ItemStatus::Active,
        "2013-03-04" => ItemStatus::Failed,
        _ => ItemStatus::Missing,
    });
    world.commit(steps);
    assert_eq!(world.started.len(), 12);
    let skipped: Vec<_> =
        world.items().into_iter().filter(|i| i.outcome == ItemOutcome::Skipped).collect();
    assert_eq!(skipped.len(), 2);
    assert_eq!(skipped[0].reason, "it has succeeded before");
    assert_eq!(backfill.row().skipped, 2);
}

#[test]
fn a_refused_start_counts_as_failed() {
    let mut world = World::default();
    let mut backfill = create(&mut world, days(json!({"parallelism": 1})));
    let mut steps = backfill.advance(at(NOW), |_| ItemStatus::Missing);
    steps[0].refuse_start(SlotOutcome::Failed, "unknown parameter");
    world.commit(steps);
    let mut backfill = world.restart();
    assert_eq!(world.items()[0].reason, "not started: unknown parameter");
    assert_eq!(backfill.row().failed, 1);
    world.advance(&mut backfill);
    assert_eq!(world.active.len(), 1, "the next one goes on");
}

#[test]
fn bad_specs() {
    for (spec, part) in [
        (json!({"workflow": "w"}), "what to go over"),
        (json!({"workflow": "../w", "schedule": "@daily"}), "workflow"),
        (json!({"workflow": "w", "parallelism": 0}), "parallelism"),
        (json!({"workflow": "w", "paralelism": 1}), "unknown field"),
        (
            json!({"workflow": "w", "schedule": "0 0 30 2 *", "from": "2013-01-01", "to": "2013-01-02"}),
            "never happens",
        ),
        (
            json!({"workflow": "w", "schedule": "@daily", "from": "2013-01-02", "to": "2013-01-01"}),
            "to: ",
        ),
        (json!({"workflow": "w", "schedule": "@daily", "from": "x", "to": "2013-01-01"}), "from: "),
    ] {
        let error = match BackfillSpec::parse(&spec) {
            Ok(spec) => spec.items(at(NOW), &TimetableDialects::new()).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(part), "{spec}: {error}");
    }
}

#[test]
fn a_run_that_is_there_already_is_taken_up_as_the_piece_s_own() {
    let mut world = World::default();
    let mut backfill = create(&mut world, days(json!({"parallelism": 2})));
    let mut steps = backfill.advance(at(NOW), |_| ItemStatus::Missing);
    // The first begins anew what there is, the second shall not be.
    let known = RunId(uuid::Uuid::from_u128(7));
    steps[0].start_exists(known);
    backfill.take_up(&steps[0]);
    world.commit([steps.remove(0)]);
    let mut steps = backfill.advance(at(NOW), |_| ItemStatus::Missing);
    steps[0].refuse_start(SlotOutcome::Skipped, "a run of it is active");
    backfill.take_up(&steps[0]);
    world.commit([steps.remove(0)]);
    assert_eq!((backfill.row().skipped, backfill.row().failed), (1, 0));
    assert_eq!(backfill.row().active.get(&known), Some(&0));
    let step = backfill.run_ended(known, RunState::Succeeded, at(NOW));
    world.commit(step);
    let outcomes: Vec<_> = world.items().into_iter().map(|item| (item.outcome, item.run)).collect();
    assert_eq!(outcomes[0], (ItemOutcome::Succeeded, Some(known)));
    assert_eq!(outcomes[1], (ItemOutcome::Skipped, None));
}
