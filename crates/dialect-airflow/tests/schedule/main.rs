//! The trigger service's machine with DAGs' timetables, over years of simulated time: with pauses,
//! servers that were off, steps that were lost, and runs that take their time.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kobza_dialect_airflow::schedule::{CustomTimetables, DagTimetables};
use kobza_dialect_airflow::timetable::*;
use kobza_model::{RunId, Timestamp};
use kobza_triggers::backfill::Only;
use kobza_triggers::{
    SlotRow, StartSpec, Step, TickRange, TimetableDialects, Timetables, TriggerKey, TriggerRow,
    Triggers, parse_triggers,
};
use serde_json::{Value as Json, json};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A generator of a fixed sequence: a life can be lived again by its seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

fn dialects(custom: Option<Arc<dyn CustomTimetables>>) -> TimetableDialects {
    let dag_timetables: Arc<dyn Timetables> = Arc::new(DagTimetables::new(custom));
    BTreeMap::from([("airflow".to_owned(), dag_timetables)])
}

fn definition(timetable: &Json, restriction: &Restriction, max_active_runs: u32) -> Json {
    json!([{"name": "timetable", "timetable": {
        "dialect": "airflow",
        "dag_id": "d",
        "text": "for people",
        "timetable": timetable,
        "catchup": restriction.catchup,
        "earliest": restriction.earliest,
        "latest": restriction.latest,
        "max_active_runs": max_active_runs,
    }}])
}

/// What is durable.
#[derive(Default)]
struct Store {
    row: Option<TriggerRow>,
    slots: BTreeMap<String, SlotRow>,
    /// Runs in the order of their start, and when.
    runs: Vec<(StartSpec, Timestamp)>,
    keys: BTreeSet<String>,
    active: BTreeSet<RunId>,
}

impl Store {
    fn commit(&mut self, steps: Vec<Step>, now: Timestamp) {
        for step in steps {
            if let Some(start) = &step.start {
                assert!(self.keys.insert(start.key.clone()), "{} started twice", start.key);
                self.active.insert(start.run);
                self.runs.push((start.clone(), now));
            }
            for (key, slot) in step.slots.clone() {
                assert!(self.slots.insert(key.clone(), slot).is_none(), "slot {key} twice");
            }
            self.row = step.row;
        }
    }
}

/// A server's life: what it did, and when it looked.
struct Life {
    store: Store,
    triggers: Triggers,
    dialects: TimetableDialects,
    most_active: usize,
}

fn key() -> TriggerKey {
    TriggerKey::new("default", "d", "timetable")
}

impl Life {
    fn begin(triggers: &Json, dialects: TimetableDialects, now: Timestamp) -> Self {
        let mut machine = Triggers::with_timetables(dialects.clone());
        let specs = parse_triggers(triggers).unwrap();
        let mut store = Store::default();
        store.commit(machine.set_workflow("default", "d", specs, 0, now), now);
        Self { store, triggers: machine, dialects, most_active: 0 }
    }

    /// A server begins anew with what is stored.
    fn restart(&mut self) {
        self.triggers = Triggers::with_timetables(self.dialects.clone());
        self.triggers.restore("default", self.store.row.clone().unwrap()).unwrap();
    }

    fn tick(&mut self, now: Timestamp) {
        // A long catch-up takes several looks.
        while self.triggers.next_due().is_some_and(|due| due <= now) {
            let steps = self.triggers.tick(now);
            self.store.commit(steps, now);
        }
        self.most_active = self.most_active.max(self.store.active.len());
    }

    fn end_run(&mut self, run: RunId, now: Timestamp) {
        self.store.active.remove(&run);
        let steps = self.triggers.run_ended(run, now);
        self.store.commit(steps, now);
    }

    fn end_all(&mut self, now: Timestamp) {
        for run in self.store.active.clone() {
            self.end_run(run, now);
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.store.runs.iter().map(|(start, _)| start.key.as_str()).collect()
    }
}

/// The ids of all runs of a timetable up to a time, made without a service.
fn walk(timetable: &Json, restriction: Restriction, now: Timestamp) -> Vec<String> {
    let timetable = Timetable::parse(timetable).unwrap();
    let mut last: Option<RunInfo> = None;
    let mut ids = Vec::new();
    loop {
        last = timetable.next(last.as_ref(), &Asked { restriction, now }).unwrap();
        match &last {
            Some(info) if info.run_after <= now => {
                ids.push(format!("scheduled__{}", isoformat(info.run_after)));
            }
            _ => return ids,
        }
    }
}

fn cron_trigger(expression: &str, zone: &str) -> Json {
    json!({"__type": "airflow.timetables.trigger.CronTriggerTimetable", "__var": {
        "expression": expression, "timezone": zone, "interval": 0.0, "run_immediately": false,
    }})
}

fn cron_data(expression: &str, zone: &str) -> Json {
    json!({"__type": "airflow.timetables.interval.CronDataIntervalTimetable", "__var": {
        "expression": expression, "timezone": zone,
    }})
}

fn kinds() -> Vec<Json> {
    vec![
        cron_trigger("30 3 * * *", "Europe/Kyiv"),
        cron_trigger("0 */3 * * *", "America/New_York"),
        cron_data("15 * * * *", "Europe/London"),
        cron_data("0 0 1 * *", "UTC"),
        json!({"__type": "airflow.timetables.interval.DeltaDataIntervalTimetable",
            "__var": {"delta": {"months": 1}}}),
        json!({"__type": "airflow.timetables.interval.DeltaDataIntervalTimetable",
            "__var": {"delta": 21_600.0}}),
        json!({"__type": "airflow.timetables.trigger.MultipleCronTriggerTimetable", "__var": {
            "expressions": ["0 1 * * *", "0 13 * * MON-FRI"], "timezone": "Europe/Kyiv",
            "interval": 0.0, "run_immediately": false,
        }}),
    ]
}

/// With catch-up, three years of trouble make just the runs that there are, in order.
#[test]
fn catching_up_misses_nothing_and_doubles_nothing() {
    let (from, until) = (at("2023-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"));
    let restriction = Restriction { earliest: Some(from), latest: None, catchup: true };
    for (seed, timetable) in kinds().into_iter().enumerate() {
        let mut chance = Chance(seed as u64 + 1);
        let dialects = dialects(None);
        let mut life = Life::begin(&definition(&timetable, &restriction, 16), dialects, from);
        let mut now = from;
        while now < until {
            // Mostly in time; now and then the server is off for long, or its last steps are lost.
            match chance.below(200) {
                0 => {
                    now.0 += i64::try_from(chance.below(40)).unwrap() * DAY;
                    life.restart();
                }
                1 => {
                    drop(life.triggers.tick(now));
                    life.restart();
                }
                2..=4 => {
                    let paused = life.store.row.as_ref().unwrap().paused;
                    let steps = life.triggers.set_paused(&key(), !paused, now);
                    life.store.commit(steps, now);
                }
                _ => {}
            }
            life.tick(now);
            for run in life.store.active.clone() {
                if chance.one_in(2) {
                    life.end_run(run, now);
                }
            }
            now.0 += i64::try_from(chance.below(300)).unwrap() * MINUTE;
        }
        if life.store.row.as_ref().unwrap().paused {
            let steps = life.triggers.set_paused(&key(), false, until);
            life.store.commit(steps, until);
        }
        while life.triggers.next_due().is_some_and(|due| due <= until)
            || !life.store.active.is_empty()
        {
            life.end_all(until);
            life.tick(until);
        }
        assert_eq!(life.keys(), walk(&timetable, restriction, until), "{timetable}");
        assert!(life.most_active <= 16);
        assert_eq!(life.store.slots.len(), life.store.runs.len());
    }
}

/// Without catch-up, what was missed is left out but for the newest; nothing that is due while the
/// server looks is.
#[test]
fn without_catching_up_only_the_newest_missed_run_is_made() {
    let (from, until) = (at("2023-01-01T00:07:00Z"), at("2026-01-01T00:00:00Z"));
    let restriction = Restriction { earliest: Some(from), latest: None, catchup: false };
    for (seed, timetable) in kinds().into_iter().enumerate() {
        let mut chance = Chance(seed as u64 + 100);
        let dialects = dialects(None);
        let mut life = Life::begin(&definition(&timetable, &restriction, 1000), dialects, from);
        let mut now = from;
        let mut offs = 0;
        let parsed = Timetable::parse(&timetable).unwrap();
        while now < until {
            if chance.one_in(100) {
                // Off for long: what comes first then is what Airflow would make at that time.
                now.0 += i64::try_from(chance.below(100)).unwrap() * DAY + 7 * SECOND;
                life.restart();
                offs += 1;
                let last = life.store.runs.last().map(|(start, _)| RunInfo {
                    run_after: start.extra["airflow"]["run_after"]
                        .as_str()
                        .unwrap()
                        .parse()
                        .unwrap(),
                    data_interval: start.interval.map(|(start, end)| DataInterval { start, end }),
                    partition_date: None,
                    partition_key: None,
                });
                let expected = parsed.next(last.as_ref(), &Asked { restriction, now }).unwrap();
                let before = life.store.runs.len();
                life.tick(now);
                let expected = expected.unwrap();
                let made = life.store.runs.get(before).map(|(start, _)| start.key.clone());
                let due = (expected.run_after <= now)
                    .then(|| format!("scheduled__{}", isoformat(expected.run_after)));
                assert_eq!(made, due, "{timetable} at {now}");
            } else if let Some(due) = life.triggers.next_due() {
                // The service wakes when something is due.
                now = now.max(due);
                life.tick(now);
            }
            life.end_all(now);
            now.0 += SECOND;
        }
        assert!(offs > 3 || life.store.runs.len() < 200, "{timetable} was never off");
        let ids = life.keys();
        assert!(ids.is_sorted(), "{timetable} went back");
        for pair in life.store.runs.windows(2) {
            let ends = |run: &(StartSpec, Timestamp)| run.0.interval.unwrap().1;
            assert!(ends(&pair[0]) < ends(&pair[1]));
            assert!(pair[1].1 >= ends(&pair[1]), "made before it was due");
        }
    }
}

#[test]
fn max_active_runs_holds_ticks_back_until_runs_end() {
    let from = at("2024-01-01T00:00:00Z");
    let restriction = Restriction { earliest: Some(from), latest: None, catchup: true };
    let timetable = cron_data("0 0 * * *", "UTC");
    let mut life = Life::begin(&definition(&timetable, &restriction, 2), dialects(None), from);
    let now = at("2024-01-11T00:00:00Z");
    life.tick(now);
    assert_eq!(life.store.runs.len(), 2);
    assert_eq!(life.triggers.next_due(), None, "a full trigger wakes nobody");
    for made in 3..=10 {
        let oldest = life.store.runs[made - 3].0.run;
        life.end_run(oldest, now);
        life.tick(now);
        assert_eq!(life.store.runs.len(), made);
        if made == 5 {
            life.restart();
        }
    }
    assert_eq!(life.most_active, 2);
    let first = &life.store.runs[0].0;
    assert_eq!(first.key, "scheduled__2024-01-02T00:00:00+00:00");
    assert_eq!(first.interval, Some((from, at("2024-01-02T00:00:00Z"))));
    assert_eq!(first.extra["airflow"]["logical_date"], json!(from));
    assert_eq!(first.extra["airflow"]["run_type"], "scheduled");
}

#[test]
fn a_continuous_dag_begins_again_as_a_run_ends() {
    let from = at("2024-01-01T00:00:00Z");
    let restriction = Restriction { earliest: Some(from), latest: None, catchup: false };
    let timetable = json!({"__type": "airflow.timetables.simple.ContinuousTimetable", "__var": {}});
    let mut life = Life::begin(&definition(&timetable, &restriction, 1), dialects(None), from);
    let mut now = Timestamp(from.0 + SECOND);
    for _ in 0..50 {
        life.tick(now);
        assert_eq!(life.store.active.len(), 1);
        now.0 += 7 * MINUTE;
        life.tick(now);
        life.end_all(now);
    }
    assert_eq!(life.store.runs.len(), 50);
    for pair in life.store.runs.windows(2) {
        assert_eq!(pair[0].0.interval.unwrap().1, pair[1].0.interval.unwrap().0);
    }
}

#[test]
fn once_is_once_whatever_happens() {
    let from = at("2024-01-01T00:00:00Z");
    let restriction = Restriction { earliest: Some(from), latest: None, catchup: false };
    let timetable = json!({"__type": "airflow.timetables.simple.OnceTimetable", "__var": {}});
    let mut life = Life::begin(&definition(&timetable, &restriction, 16), dialects(None), from);
    for day in 0..100 {
        let now = Timestamp(from.0 + day * DAY);
        life.tick(now);
        life.end_all(now);
        life.restart();
    }
    assert_eq!(life.keys(), ["scheduled__2024-01-01T00:00:00+00:00"]);
}

/// A user's own timetable: each second day, known only outside; it fails at first.
struct SecondDays {
    asked: AtomicUsize,
}

impl CustomTimetables for SecondDays {
    fn next(
        &self,
        timetable: &Json,
        last: Option<&RunInfo>,
        asked: &Asked,
    ) -> Result<Option<(RunInfo, String)>, String> {
        assert_eq!(timetable, &json!({"__type": "plugins.Own", "__var": {"step": 2}}));
        if self.asked.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err("the helper is not up yet".to_owned());
        }
        let start =
            last.map_or(asked.restriction.earliest, |last| last.data_interval.map(|d| d.end));
        let start = start.unwrap();
        let end = Timestamp(start.0 + 2 * DAY);
        let info = RunInfo {
            run_after: end,
            data_interval: Some(DataInterval { start, end }),
            partition_date: None,
            partition_key: None,
        };
        Ok(Some((info, format!("own-{end}"))))
    }

    fn manual(&self, _: &Json, at: Timestamp) -> Result<DataInterval, String> {
        Ok(DataInterval { start: at, end: at })
    }

    fn between(
        &self,
        _: &Json,
        _: Timestamp,
        _: Timestamp,
    ) -> Result<Option<Vec<RunInfo>>, String> {
        Ok(None)
    }

    fn partition(&self, _: Json) -> Result<Result<Json, String>, String> {
        Err("it has no partitions".to_owned())
    }
}

#[test]
fn a_custom_timetable_is_asked_outside_and_again_when_that_fails() {
    let from = at("2024-01-01T00:00:00Z");
    let restriction = Restriction { earliest: Some(from), latest: None, catchup: true };
    let timetable = json!({"__type": "plugins.Own", "__var": {"step": 2}});
    let custom = Arc::new(SecondDays { asked: AtomicUsize::new(0) });
    let dialects = dialects(Some(custom.clone()));
    let mut life = Life::begin(&definition(&timetable, &restriction, 16), dialects, from);
    let mut now = from;
    let mut problems = 0;
    while now < at("2024-03-01T00:00:00Z") {
        life.tick(now);
        for question in life.triggers.take_questions() {
            let answer = question.timetable.ask(question.last.as_ref(), now);
            let steps = life.triggers.answered(&question, answer.clone(), now);
            life.store.commit(steps, now);
            // The same answer once more is too late to mean anything.
            assert!(life.triggers.answered(&question, answer, now).is_empty());
        }
        problems += usize::from(life.triggers.problem(&key()).is_some());
        life.end_all(now);
        now.0 += HOUR / 2;
    }
    assert_eq!(problems, 1);
    assert_eq!(life.store.runs.len(), 29, "January 3 to February 28");
    assert_eq!(life.keys()[0], "own-2024-01-03T00:00:00.000000Z");
    let asked = custom.asked.load(Ordering::Relaxed);
    assert!(asked <= 32, "asked {asked} times for 29 runs");
}

#[test]
fn what_cannot_go_on_says_why_and_waits() {
    let from = at("2024-01-01T00:00:00Z");
    let restriction = Restriction { earliest: Some(from), latest: None, catchup: true };
    let problem = |triggers: &Json, dialects: TimetableDialects| {
        let mut life = Life::begin(triggers, dialects, from);
        life.tick(at("2025-01-01T00:00:00Z"));
        for question in life.triggers.take_questions() {
            let answer = question.timetable.ask(question.last.as_ref(), from);
            life.triggers.answered(&question, answer, from);
        }
        assert!(life.store.runs.is_empty());
        life.triggers.problem(&key()).unwrap().to_owned()
    };
    let cron = definition(&cron_trigger("0 0 30 2 *", "UTC"), &restriction, 1);
    assert!(problem(&cron, dialects(None)).contains("has no next time"));
    assert!(problem(&cron, TimetableDialects::new()).contains("no timetables of airflow"));
    let bad = definition(&cron_trigger("0 0 * * nonday", "UTC"), &restriction, 1);
    assert!(problem(&bad, dialects(None)).contains("timetable.expression"));
    let own = definition(&json!({"__type": "plugins.Own", "__var": {}}), &restriction, 1);
    assert!(problem(&own, dialects(None)).contains("plugins.Own is a custom timetable"));
}

#[test]
fn a_backfill_goes_over_what_a_timetable_makes_of_a_range() {
    let now = at("2024-06-01T00:00:00Z");
    let range = |from: &str, to: &str, newest_first, only| TickRange {
        from: at(from),
        to: at(to),
        newest_first,
        only,
    };
    let restriction = Restriction::default();
    let open = |timetable: &Json, change: &dyn Fn(&mut Json)| {
        let mut definition = definition(timetable, &restriction, 1)[0]["timetable"].clone();
        change(&mut definition);
        DagTimetables::new(None).open(&definition).unwrap()
    };
    let daily = cron_trigger("0 0 * * *", "Europe/Kyiv");
    let days = range("2024-03-30T00:00:00Z", "2024-04-01T23:59:59Z", false, Only::New);
    let ticks = open(&daily, &|_| {}).between(&days, now).unwrap();
    let found: Vec<String> = ticks.iter().map(|tick| tick.slot.to_string()).collect();
    // The clock changes on the 31st.
    let expected = ["2024-03-30T22:00:00", "2024-03-31T21:00:00", "2024-04-01T21:00:00"];
    assert_eq!(found, expected.map(|text| format!("{text}.000000Z")));
    // What has not come is left out; what lies ahead altogether is refused.
    let ahead = range("2024-05-31T00:00:00Z", "2025-01-01T00:00:00Z", false, Only::New);
    assert_eq!(open(&daily, &|_| {}).between(&ahead, now).unwrap().len(), 1);
    let later = range("2024-06-02T00:00:00Z", "2025-01-01T00:00:00Z", false, Only::New);
    let refused = |timetable: &Json, change: &dyn Fn(&mut Json), range: &TickRange| {
        open(timetable, change).between(range, now).unwrap_err()
    };
    assert!(refused(&daily, &|_| {}, &later).contains("future"));
    let past = |definition: &mut Json| definition["depends_on_past"] = json!(true);
    let newest = TickRange { newest_first: true, only: Only::Ended, ..days };
    assert!(refused(&daily, &past, &newest).contains("newest first"));
    assert!(refused(&daily, &past, &days).contains("depends_on_past"));
    let none = |definition: &mut Json| definition["no_backfill"] = json!(true);
    assert!(refused(&daily, &none, &days).contains("does not allow"));
    let once = json!({"__type": "airflow.timetables.simple.OnceTimetable", "__var": {}});
    assert!(refused(&once, &|_| {}, &days).contains("non-periodic"));
}
