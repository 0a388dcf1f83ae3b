//! A few facts that need no Airflow to be known, and what is refused.

use kobza_dialect_airflow::timetable::*;
use kobza_model::Timestamp;
use serde_json::{Value as Json, json};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(expression: &str, zone: &str) -> Timetable {
    Timetable::parse(&json!({
        "__type": "airflow.timetables.trigger.CronTriggerTimetable",
        "__var": {"expression": expression, "timezone": zone, "interval": 0.0, "run_immediately": false},
    }))
    .unwrap()
}

/// The runs of a day, with catch-up.
fn runs(timetable: &Timetable, from: &str, count: usize) -> Vec<String> {
    let restriction = Restriction { earliest: Some(at(from)), latest: None, catchup: true };
    let asked = Asked { restriction, now: at(from) };
    let mut last: Option<RunInfo> = None;
    let mut runs = Vec::new();
    for _ in 0..count {
        last = timetable.next(last.as_ref(), &asked).unwrap();
        runs.push(isoformat(last.as_ref().unwrap().run_after));
    }
    runs
}

#[test]
fn a_daily_time_in_the_repeated_hour_is_its_second_pass() {
    assert_eq!(
        runs(&cron("30 3 * * *", "Europe/Kyiv"), "2024-10-26T00:00:00Z", 3),
        ["2024-10-26T00:30:00+00:00", "2024-10-27T01:30:00+00:00", "2024-10-28T01:30:00+00:00"]
    );
}

#[test]
fn a_daily_time_that_does_not_exist_moves_by_the_gap() {
    assert_eq!(
        runs(&cron("30 3 * * *", "Europe/Kyiv"), "2024-03-30T00:00:00Z", 3),
        ["2024-03-30T01:30:00+00:00", "2024-03-31T01:30:00+00:00", "2024-04-01T00:30:00+00:00"]
    );
}

#[test]
fn an_hourly_pattern_follows_real_time_through_the_repeated_hour() {
    assert_eq!(
        runs(&cron("30 * * * *", "Europe/Kyiv"), "2024-10-27T00:00:00Z", 3),
        ["2024-10-27T00:30:00+00:00", "2024-10-27T01:30:00+00:00", "2024-10-27T02:30:00+00:00"]
    );
}

fn refused(class: &str, data: &Json, field: &str) {
    let value = json!({"__type": class, "__var": data});
    match Timetable::parse(&value) {
        Err(TimetableError::Invalid { field: at, .. }) => assert_eq!(at, field, "{value}"),
        other => panic!("{value}: {other:?}"),
    }
}

#[test]
fn what_is_not_known_is_refused_with_its_field() {
    let trigger = "airflow.timetables.trigger.CronTriggerTimetable";
    let with = |name: &str, value: Json| {
        let mut data = json!({"expression": "0 0 * * *", "timezone": "UTC", "interval": 0.0});
        data[name] = value;
        data
    };
    refused("airflow.timetables.other.NewTimetable", &json!({}), "timetable.__type");
    refused(trigger, &with("expression", json!("0 0 * *")), "timetable.expression");
    refused(trigger, &with("expression", json!(7)), "timetable.expression");
    refused(trigger, &with("expression", json!("9".repeat(100_000))), "timetable.expression");
    refused(trigger, &with("timezone", json!("Mars/Olympus")), "timetable.timezone");
    refused(trigger, &with("timezone", json!(1e9)), "timetable.timezone");
    refused(trigger, &with("interval", json!("1h")), "timetable.interval");
    refused(trigger, &with("interval", json!(1e300)), "timetable.interval");
    refused(trigger, &with("interval", json!({"fortnights": 1})), "timetable.interval.fortnights");
    refused(trigger, &with("interval", json!({"months": 1.5})), "timetable.interval.months");
    refused(trigger, &with("run_immediately", json!("yes")), "timetable.run_immediately");
    let mut deep = json!({"__type": "asset", "__var": {}});
    for _ in 0..100 {
        deep = json!({"__type": "asset_all", "objects": [deep]});
    }
    let value = json!({"__type": "airflow.timetables.simple.AssetTriggeredTimetable", "__var": {"asset_condition": deep}});
    assert!(matches!(Timetable::parse(&value), Err(TimetableError::Invalid { .. })));
}

#[test]
fn a_class_of_the_users_own_is_kept_and_asked_elsewhere() {
    let value = json!({"__type": "plugins.workday.Workdays", "__var": {"country": "UA"}});
    let timetable = Timetable::parse(&value).unwrap();
    let Timetable::Custom { class, data } = &timetable else { panic!("{timetable:?}") };
    assert_eq!((class.as_str(), data), ("plugins.workday.Workdays", &json!({"country": "UA"})));
    let asked = Asked { restriction: Restriction::default(), now: Timestamp(0) };
    assert!(matches!(timetable.next(None, &asked), Err(TimetableError::Custom(_))));
}
