//! Each policy of a trigger, by its rows and its runs.

use crate::support::{Rows, at, key, setup};
use kobza_model::{RunId, RunState, Timestamp};
use kobza_triggers::{EventBody, EventWindow, SlotOutcome, TriggerEvent, Triggers, parse_triggers};
use serde_json::json;

fn outcomes(rows: &Rows) -> Vec<(String, SlotOutcome)> {
    rows.slots()
        .into_iter()
        .map(|(key, row)| {
            let slot = key.rsplit('/').next().unwrap().to_owned();
            let through = row.through.map(|t| format!("..{}", t.to_jiff())).unwrap_or_default();
            (slot + &through, row.outcome)
        })
        .collect()
}

fn tick(rows: &mut Rows, triggers: &mut Triggers, now: &str) -> Vec<RunId> {
    rows.commit_all(triggers.tick(at(now)))
}

fn custom(id: &str, now: &str, payload: serde_json::Value) -> TriggerEvent {
    let body = EventBody::Custom { name: "sale".into(), payload };
    TriggerEvent { id: id.into(), sequence: 0, at: at(now), body }
}

fn asset(sequence: u64, name: &str, partition: Option<&str>) -> TriggerEvent {
    TriggerEvent {
        id: sequence.to_string(),
        sequence,
        at: Timestamp(i64::try_from(sequence).unwrap()),
        body: EventBody::Asset {
            asset: name.into(),
            partition: partition.map(str::to_owned),
            run: None,
            metadata: json!(null),
        },
    }
}

#[test]
fn a_slot_starts_one_run_with_its_interval_and_parameters() {
    let mut rows = Rows::default();
    let source = json!({"schedule": {
        "cron": "0 2 * * *", "timezone": "Europe/Kyiv",
        "params": {"day": "{{ interval.start }}", "by": "{{ trigger.name }}"},
    }});
    let mut triggers = setup(&mut rows, &source, "2026-03-28T12:00:00Z");
    assert_eq!(triggers.next_due(), Some(at("2026-03-29T00:00:00Z")));
    assert!(tick(&mut rows, &mut triggers, "2026-03-28T23:59:59Z").is_empty());
    let started = tick(&mut rows, &mut triggers, "2026-03-29T00:00:00.2Z");
    assert_eq!(started.len(), 1);
    assert!(tick(&mut rows, &mut triggers, "2026-03-29T00:00:01Z").is_empty());
    let run = rows.runs.values().next().unwrap();
    assert_eq!(run.key, "trigger:schedule@2026-03-29T00:00:00Z");
    assert_eq!(run.interval, Some((at("2026-03-28T00:00:00Z"), at("2026-03-29T00:00:00Z"))));
    assert_eq!(run.params, json!({"day": "2026-03-28T00:00:00.000000Z", "by": "schedule"}));
    assert_eq!(run.trigger, "schedule");
    let slots = rows.slots();
    assert_eq!(slots[0].1.run, Some(started[0]));
    assert_eq!(slots[0].1.reason, "the slot is due");
}

#[test]
fn catch_up_none_last_all_and_limited() {
    let cases = [
        (json!("none"), vec![("T01:00:00Z..2026-01-01T05:00:00Z", SlotOutcome::Skipped)]),
        (
            json!("last"),
            vec![
                ("T01:00:00Z..2026-01-01T04:00:00Z", SlotOutcome::Skipped),
                ("T05:00:00Z", SlotOutcome::Started),
            ],
        ),
        (
            json!({"limit": 2}),
            vec![
                ("T01:00:00Z..2026-01-01T03:00:00Z", SlotOutcome::Skipped),
                ("T04:00:00Z", SlotOutcome::Started),
                ("T05:00:00Z", SlotOutcome::Started),
            ],
        ),
        (
            json!({"grace": "100m"}),
            vec![
                ("T01:00:00Z..2026-01-01T03:00:00Z", SlotOutcome::Skipped),
                ("T04:00:00Z", SlotOutcome::Started),
                ("T05:00:00Z", SlotOutcome::Started),
            ],
        ),
    ];
    for (catchup, expected) in cases {
        let mut rows = Rows::default();
        let source = json!({"cron": "@hourly", "catchup": catchup, "name": "h"});
        setup(&mut rows, &source, "2026-01-01T00:30:00Z");
        // Down until half past five.
        let mut triggers = rows.restart();
        tick(&mut rows, &mut triggers, "2026-01-01T05:30:00Z");
        let expected: Vec<_> =
            expected.iter().map(|(slot, o)| (format!("2026-01-01{slot}"), *o)).collect();
        assert_eq!(outcomes(&rows), expected, "{catchup}");
        assert_eq!(triggers.next_due(), Some(at("2026-01-01T06:00:00Z")));
    }
    let mut rows = Rows::default();
    let source = json!({"cron": "0 0 * * *", "catchup": true, "start": "2025-12-20"});
    let mut triggers = setup(&mut rows, &source, "2026-01-01T12:00:00Z");
    assert_eq!(tick(&mut rows, &mut triggers, "2026-01-01T12:00:00Z").len(), 13);
}

#[test]
fn a_pause_leaves_slots_out_and_says_so() {
    let mut rows = Rows::default();
    let mut triggers = setup(&mut rows, &json!("0 * * * *"), "2026-01-01T00:30:00Z");
    rows.commit_all(triggers.set_paused(&key("schedule"), true, at("2026-01-01T00:40:00Z")));
    assert_eq!(triggers.next_due(), None);
    let mut triggers = rows.restart();
    assert!(tick(&mut rows, &mut triggers, "2026-01-01T03:10:00Z").is_empty());
    rows.commit_all(triggers.set_paused(&key("schedule"), false, at("2026-01-01T03:10:00Z")));
    let slot = "2026-01-01T01:00:00Z..2026-01-01T03:00:00Z".to_owned();
    assert_eq!(outcomes(&rows), [(slot, SlotOutcome::Skipped)]);
    assert_eq!(triggers.next_due(), Some(at("2026-01-01T04:00:00Z")));
    // The workflow as a whole.
    rows.commit_all(triggers.set_workflow_paused("default", "w", true, at("2026-01-01T03:20:00Z")));
    assert_eq!(triggers.next_due(), None);
    rows.commit_all(triggers.set_workflow_paused(
        "default",
        "w",
        false,
        at("2026-01-01T04:20:00Z"),
    ));
    assert_eq!(triggers.next_due(), Some(at("2026-01-01T05:00:00Z")));
    assert_eq!(outcomes(&rows).len(), 2);
}

#[test]
fn overlap_policies() {
    let run_of = |policy: &str| {
        let mut rows = Rows::default();
        let source = json!({"cron": "0 * * * *", "overlap": policy, "catchup": true});
        let mut triggers = setup(&mut rows, &source, "2026-01-01T00:30:00Z");
        let first = tick(&mut rows, &mut triggers, "2026-01-01T01:00:00Z");
        for hour in 2..=4 {
            tick(&mut rows, &mut triggers, &format!("2026-01-01T0{hour}:00:00Z"));
        }
        // What is active and waiting outlives a crash.
        let mut triggers = rows.restart();
        let now = at("2026-01-01T04:30:00Z");
        let after_end = rows.commit_all(triggers.run_ended(first[0], now));
        let words: Vec<_> = outcomes(&rows).into_iter().map(|(_, outcome)| outcome).collect();
        (words, after_end.len(), rows.stopped.len(), rows, triggers)
    };
    use SlotOutcome::{Queued, Skipped, Started};
    let (words, _, _, _, _) = run_of("allow");
    assert_eq!(words, [Started; 4]);
    let (words, after, _, rows, _) = run_of("skip");
    assert_eq!((words.as_slice(), after), (&[Started, Skipped, Skipped, Skipped][..], 0));
    assert!(rows.slots()[1].1.reason.contains("has not ended"));
    let (words, after, _, rows, _) = run_of("queue");
    assert_eq!((words.as_slice(), after), (&[Started, Skipped, Skipped, Started][..], 1));
    assert!(rows.slots()[1].1.reason.contains("replaced by the newer slot 2026-01-01T03"));
    let (words, after, _, mut rows, mut triggers) = run_of("queue_all");
    assert_eq!((words.as_slice(), after), (&[Started, Started, Queued, Queued][..], 1));
    for _ in 0..2 {
        let active = triggers.active_runs();
        assert_eq!(active.len(), 1);
        rows.commit_all(triggers.run_ended(active[0], at("2026-01-01T04:40:00Z")));
    }
    assert_eq!(rows.runs.len(), 4);
    let (words, _, stopped, _, triggers) = run_of("cancel");
    assert_eq!(words, [Started; 4]);
    assert_eq!(stopped, 1 + 2 + 3, "each new slot cancels all that have not ended");
    assert_eq!(triggers.active_runs().len(), 3);
}

#[test]
fn jitter_is_bounded_and_always_the_same() {
    let mut rows = Rows::default();
    let source = json!({"cron": "0 * * * *", "jitter": "10m"});
    let mut triggers = setup(&mut rows, &source, "2026-01-01T00:30:00Z");
    let due = triggers.next_due().unwrap();
    let slot = at("2026-01-01T01:00:00Z");
    assert!(due > slot && due.0 < slot.0 + 600_000_000, "{due}");
    assert_eq!(rows.restart().next_due(), Some(due));
    assert!(tick(&mut rows, &mut triggers, "2026-01-01T01:00:00Z").is_empty());
    assert_eq!(tick(&mut rows, &mut triggers, "2026-01-01T01:10:00Z").len(), 1);
    assert_eq!(rows.runs.values().next().unwrap().key, "trigger:schedule@2026-01-01T01:00:00Z");
}

#[test]
fn bounds_and_redefinition() {
    let mut rows = Rows::default();
    let source = json!({"cron": "0 * * * *", "start": "2026-01-01T02:00:00Z", "end": "2026-01-01T04:00:00Z"});
    let mut triggers = setup(&mut rows, &source, "2026-01-01T00:30:00Z");
    for hour in 1..9 {
        tick(&mut rows, &mut triggers, &format!("2026-01-01T0{hour}:00:00Z"));
    }
    let slots: Vec<_> = outcomes(&rows).into_iter().map(|(slot, _)| slot).collect();
    assert_eq!(slots, ["2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"]);
    assert_eq!(triggers.next_due(), None);
    // A new pattern counts from now; a removed trigger is gone with its row.
    let specs = parse_triggers(&json!({"cron": "30 * * * *"})).unwrap();
    rows.commit_all(triggers.set_workflow("default", "w", specs, 0, at("2026-01-01T10:00:00Z")));
    assert_eq!(triggers.next_due(), Some(at("2026-01-01T10:30:00Z")));
    rows.commit_all(triggers.set_workflow("default", "w", vec![], 0, at("2026-01-01T10:00:00Z")));
    assert!(rows.trigger_rows().is_empty());
    assert_eq!(triggers.next_due(), None);
}

#[test]
fn assets_all_any_and_by_partition() {
    let mut rows = Rows::default();
    let source = json!([
        {"name": "all", "assets": ["a", "b/c"]},
        {"name": "any", "assets": {"any": ["a", {"all": ["b/c", "d"]}]}},
        {"name": "each", "assets": {"all": ["a", "b/c"], "per_partition": true},
         "params": {"n": "{{ events | length }}", "day": "{{ partition }}"}},
    ]);
    let mut triggers = setup(&mut rows, &source, "2026-01-01T00:00:00Z");
    let now = at("2026-01-02T00:00:00Z");
    let mut send = |rows: &mut Rows, event: TriggerEvent| -> Vec<String> {
        // The state of half fulfilled conditions outlives a crash at any event.
        triggers = rows.restart();
        let before: Vec<_> = rows.runs.keys().cloned().collect();
        rows.commit_all(triggers.on_event("default", &event, now));
        // The same event again, as after a lost cursor, changes nothing.
        triggers = rows.restart();
        assert!(rows.commit_all(triggers.on_event("default", &event, now)).is_empty());
        let new = rows.runs.keys().filter(|key| !before.contains(key));
        new.map(|(_, key)| key.split('@').next().unwrap().replace("trigger:", "")).collect()
    };
    assert_eq!(send(&mut rows, asset(1, "a", Some("mon"))), ["any"]);
    assert_eq!(send(&mut rows, asset(2, "a", Some("tue"))), ["any"]);
    assert_eq!(send(&mut rows, asset(3, "b/c", Some("tue"))), ["all", "each"]);
    assert!(send(&mut rows, asset(4, "b/c", Some("wed"))).is_empty());
    assert_eq!(send(&mut rows, asset(5, "d", None)), ["any"]);
    assert_eq!(send(&mut rows, asset(6, "a", Some("wed"))), ["all", "any", "each"]);
    let each: Vec<_> = rows.runs.values().filter(|run| run.key.contains("each")).collect();
    assert_eq!(each[0].partition.as_deref(), Some("tue"));
    assert_eq!(each[0].params, json!({"n": 2, "day": "tue"}));
    assert!(rows.slots().iter().all(|(_, row)| !row.reason.is_empty()));
}

#[test]
fn updates_are_gathered_while_its_runs_are_unfinished() {
    let mut rows = Rows::default();
    let source = json!({"name": "assets", "assets": {
        "any": ["a", {"all": ["b", "c"]}], "max_active": 1, "updates": "whole",
    }});
    let mut triggers = setup(&mut rows, &source, "2026-01-01T00:00:00Z");
    let now = at("2026-01-02T00:00:00Z");
    let mut send = |rows: &mut Rows, event: TriggerEvent| {
        triggers = rows.restart();
        rows.commit_all(triggers.on_event("default", &event, now))
    };
    assert!(send(&mut rows, asset(3, "a", Some("mon"))).is_empty(), "of a partition");
    let first = send(&mut rows, asset(5, "a", None));
    assert_eq!(first.len(), 1);
    // One runs: these wait, across restarts, for its end, and then are one run.
    assert!(send(&mut rows, asset(6, "b", None)).is_empty());
    assert!(send(&mut rows, asset(7, "a", None)).is_empty());
    assert!(send(&mut rows, asset(9, "a", None)).is_empty());
    let mut triggers = rows.restart();
    assert_eq!(triggers.next_due(), None);
    let second = rows.commit_all(triggers.run_ended(first[0], now));
    assert_eq!(second.len(), 1);
    assert!(rows.commit_all(triggers.run_ended(second[0], now)).is_empty());
    let windows: Vec<_> = rows.runs.values().map(|run| run.window.clone().unwrap()).collect();
    let window =
        |after, through, first| EventWindow { after, through, first, picked: None, date: None };
    assert_eq!(windows, [window(0, 5, true), window(5, 9, false)]);
    // The other half of the condition begins anew.
    assert!(send_all(&mut rows, &mut triggers, &[asset(10, "c", None)], now).is_empty());
    assert_eq!(send_all(&mut rows, &mut triggers, &[asset(11, "b", None)], now).len(), 1);
}

fn send_all(
    rows: &mut Rows,
    triggers: &mut Triggers,
    events: &[TriggerEvent],
    now: Timestamp,
) -> Vec<RunId> {
    let steps = events.iter().flat_map(|event| triggers.on_event("default", event, now)).collect();
    rows.commit_all(steps)
}

#[test]
fn runs_of_other_workflows_by_state() {
    let mut rows = Rows::default();
    let source = json!({"run": {"workflow": "extract", "states": ["failed"]}});
    let mut triggers = setup(&mut rows, &source, "2026-01-01T00:00:00Z");
    let interval = Some((at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z")));
    let mut end = |rows: &mut Rows, sequence: u64, state| {
        let body = EventBody::RunEnded {
            workflow: "extract".into(),
            run: RunId(Default::default()),
            state,
            params: json!({}),
            interval,
            partition: Some("p".into()),
        };
        let event = TriggerEvent {
            id: sequence.to_string(),
            sequence,
            at: at("2026-01-02T00:00:00Z"),
            body,
        };
        rows.commit_all(triggers.on_event("default", &event, at("2026-01-02T00:00:00Z"))).len()
    };
    assert_eq!(end(&mut rows, 1, RunState::Succeeded), 0);
    assert_eq!(end(&mut rows, 2, RunState::Failed), 1);
    let run = rows.runs.values().next().unwrap();
    assert_eq!((run.interval, run.partition.as_deref()), (interval, Some("p")));
    let reasons: Vec<_> = rows.slots().into_iter().map(|(_, row)| row.reason).collect();
    assert_eq!(reasons[0], "the run ended as succeeded");
}

#[test]
fn filter_debounce_and_batch() {
    let mut rows = Rows::default();
    let source = json!([
        {"name": "filtered", "event": "sale", "filter": "event.payload.amount > 10",
         "params": {"amount": "{{ event.payload.amount }}"}},
        {"name": "quiet", "event": "sale", "debounce": {"quiet": "10s", "max": "25s"}},
        {"name": "batched", "event": "sale", "batch": {"size": 3, "within": "1m"},
         "params": {"n": "{{ events | length }}"}},
    ]);
    let mut triggers = setup(&mut rows, &source, "2026-01-01T00:00:00Z");
    let now = |second: usize| format!("2026-01-01T00:00:{second:02}Z");
    for (number, second) in [(1, 0), (2, 8), (3, 16), (4, 24)] {
        let event = custom(&format!("e{number}"), &now(second), json!({"amount": number * 4}));
        tick(&mut rows, &mut triggers, &now(second));
        rows.commit_all(triggers.on_event("default", &event, at(&now(second))));
        triggers = rows.restart();
    }
    let keys =
        |rows: &Rows| -> Vec<String> { rows.runs.keys().map(|(_, key)| key.clone()).collect() };
    assert_eq!(keys(&rows), ["trigger:batched@e3", "trigger:filtered@e3", "trigger:filtered@e4"]);
    assert_eq!(rows.runs.values().next().unwrap().params, json!({"n": 3}));
    assert_eq!(rows.runs.values().nth(1).unwrap().params, json!({"amount": 12}));
    // It never was quiet for 10 s, but 25 s is the most.
    assert_eq!(triggers.next_due(), Some(at(&now(25))));
    tick(&mut rows, &mut triggers, &now(25));
    assert!(keys(&rows).contains(&"trigger:quiet@e4".to_owned()));
    tick(&mut rows, &mut triggers, "2026-01-01T00:01:24Z");
    assert!(keys(&rows).contains(&"trigger:batched@e4".to_owned()));
    let skipped = rows.slots().into_iter().filter(|(_, row)| row.outcome == SlotOutcome::Skipped);
    assert_eq!(skipped.count(), 2, "the two small sales are recorded");
    // The same event, delivered again.
    let again = custom("e4", &now(24), json!({"amount": 16}));
    rows.commit_all(triggers.on_event("default", &again, at("2026-01-01T00:02:00Z")));
    assert_eq!(keys(&rows).iter().filter(|key| key.contains("filtered@e4")).count(), 1);
    // Wrong parameters: a record with the error, no run.
    let bad = custom("e5", &now(30), json!("text"));
    rows.commit_all(triggers.on_event("default", &bad, at("2026-01-01T00:02:00Z")));
    let failed: Vec<_> =
        rows.slots().into_iter().filter(|(_, row)| row.outcome == SlotOutcome::Failed).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].1.reason.contains("filter"), "{}", failed[0].1.reason);
}

#[test]
fn a_refused_start_is_recorded_and_does_not_block() {
    let mut rows = Rows::default();
    let source = json!({"cron": "0 * * * *", "overlap": "skip"});
    let mut triggers = setup(&mut rows, &source, "2026-01-01T00:30:00Z");
    let mut steps = triggers.tick(at("2026-01-01T01:00:00Z"));
    steps[0].refuse_start(SlotOutcome::Failed, "the parameter region is missing");
    rows.commit(&mut steps[0]);
    triggers.restore("default", steps[0].row.clone().unwrap()).unwrap();
    assert_eq!(rows.slots()[0].1.outcome, SlotOutcome::Failed);
    assert!(triggers.active_runs().is_empty());
    assert_eq!(tick(&mut rows, &mut triggers, "2026-01-01T02:00:00Z").len(), 1);
}

#[test]
fn errors_name_the_field() {
    let refused = [
        (json!({"schedule": {"cron": "0 0 30 2 *"}}), "schedule.cron"),
        (json!({"schedule": {"cron": "0 0 * * *", "timezone": "Kiev/Kyiv"}}), "schedule.timezone"),
        (json!({"triggers": [{"cron": "0 0 * * *"}, {"cron": "x"}]}), "triggers[1].cron"),
        (json!({"cron": "0 0 * * *", "overlap": "maybe"}), "triggers.overlap"),
        (json!({"cron": "0 0 * * *", "catchup": {"limit": 0}}), "triggers.catchup.limit"),
        (json!({"cron": "0 0 * * *", "catchup": [7]}), "triggers.catchup"),
        (json!({"cron": "0 0 * * *", "jitter": "2d"}), "triggers.jitter"),
        (json!({"cron": "0 0 * * *", "debounce": "2s"}), "triggers.debounce"),
        (json!({"cron": "0 0 * * *", "crno": 1}), "triggers.crno"),
        (json!({"cron": "0 0 * * *", "filter": "1 +"}), "triggers.filter"),
        (json!({"cron": "0 0 * * *", "params": {"a": "{{ x "}}), "triggers.params"),
        (json!({"cron": "0 0 * * *", "params": [1]}), "triggers.params"),
        (json!({"cron": "0 0 * * *", "start": "2026-02-01", "end": "2026-01-01"}), "triggers.end"),
        (json!({"event": "e", "jitter": "1s"}), "triggers.jitter"),
        (json!({"event": "../e"}), "triggers.event"),
        (json!({"assets": []}), "triggers.assets"),
        (json!({"assets": {"all": ["a"], "any": ["b"]}}), "triggers.assets"),
        (json!({"webhook": {"path": "p", "scheme": "github"}}), "triggers.webhook.secret"),
        (
            json!({"webhook": {"path": "p", "scheme": "none", "secret": "s"}}),
            "triggers.webhook.scheme",
        ),
        (json!({"file": "data/*.csv"}), "triggers.file.path"),
        (json!({"file": "/data/*/x.csv"}), "triggers.file.path"),
        (json!({"file": "/data/../etc/*"}), "triggers.file.path"),
        (json!({"run": {"workflow": "w", "states": ["done"]}}), "triggers.run.states"),
        (json!({"batch": {"size": 0}, "event": "e"}), "triggers.batch.size"),
        (json!({}), "triggers"),
        (json!(7), "triggers"),
        (json!([{"name": "x", "event": "e"}, {"name": "x", "event": "e"}]), "triggers[1].name"),
    ];
    for (source, field) in refused {
        let errors = parse_triggers(&source).expect_err(&source.to_string());
        assert_eq!(errors[0].field, field, "{}", errors[0]);
    }
    let names: Vec<_> =
        parse_triggers(&json!({"schedule": ["@daily", "@hourly"], "triggers": {"event": "e"}}))
            .unwrap()
            .into_iter()
            .map(|spec| spec.name)
            .collect();
    assert_eq!(names, ["schedule", "schedule-2", "event"]);
}
