//! Partition sets against naive sets, keys and ranges against the calendar.

#![allow(clippy::unwrap_used)] // A test: a failed unwrap is its message.

use std::collections::BTreeSet;

use kobza_model::{Json, Timestamp};
use kobza_schedule::partition::{PartitionDefinition, PartitionMapping, PartitionSet};
use proptest::prelude::*;
use serde_json::json;

fn definition(value: Json) -> PartitionDefinition {
    PartitionDefinition::parse(&value).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const LATER: &str = "2026-01-01T00:00:00Z";

#[test]
fn fourteen_days_across_the_clock_change() {
    let days =
        definition(json!({"type": "daily", "timezone": "America/New_York", "start": "2013-01-01"}));
    let set = days.parse_set("2013-03-01..2013-03-14", at(LATER)).unwrap();
    assert_eq!(set.count(), 14);
    let keys: Vec<_> = set.page(8, 3).map(|place| days.key(&place).unwrap()).collect();
    assert_eq!(keys, ["2013-03-09", "2013-03-10", "2013-03-11"]);
    let change = days.window(&days.parse_key("2013-03-10").unwrap()).unwrap();
    assert_eq!(change.end.0 - change.start.0, 23 * 3_600_000_000);
    assert_eq!(days.format_set(&set), "2013-03-01..2013-03-14");
    assert_eq!(days.key(&set.last().unwrap()).as_deref(), Some("2013-03-14"));
    // The day that has begun is not complete.
    let half = at("2013-01-03T12:00:00Z");
    assert_eq!(days.all_at(half).count(), 2);
    assert_eq!(days.parse_set("2013-01-02..", half).unwrap().count(), 1);
}

#[test]
fn keys_of_every_grid() {
    let key_of = |value: Json, index: u64| definition(value).key(&[index]).unwrap();
    let hourly = json!({"type": "hourly", "timezone": "America/New_York", "start": "2013-11-03"});
    assert_eq!(key_of(hourly.clone(), 1), "2013-11-03T01:00-04:00");
    assert_eq!(key_of(hourly.clone(), 2), "2013-11-03T01:00-05:00");
    let hours = definition(hourly);
    assert_eq!(hours.parse_key("2013-11-03T01:00-05:00").unwrap(), [2]);
    assert_eq!(key_of(json!({"type": "weekly", "start": "2013-03-04"}), 2), "2013-03-18");
    assert_eq!(key_of(json!({"type": "monthly", "start": "2013-01-01"}), 14), "2014-03");
    let cron = json!({"type": "cron", "cron": "0 6 * * MON", "start": "2026-01-01"});
    assert_eq!(key_of(cron.clone(), 1), "2026-01-12T06:00Z");
    assert_eq!(definition(cron.clone()).all_at(at("2026-02-01T00:00:00Z")).count(), 3);
    assert_eq!(definition(cron).parse_key("2026-01-12T06:00Z").unwrap(), [1]);
    let months = definition(json!({"type": "monthly", "start": "2013-01-01", "end": "2014-01-01"}));
    assert_eq!(months.all_at(at(LATER)).count(), 12);
    assert_eq!(months.parse_key("2013-12").unwrap(), [11]);
    assert!(months.parse_key("2014-01").is_err());
}

#[test]
fn every_key_reads_back() {
    for value in [
        json!({"type": "hourly", "timezone": "Australia/Lord_Howe", "start": "2026-04-01"}),
        json!({"type": "daily", "timezone": "Asia/Beirut", "start": "2026-01-01"}),
        json!({"type": "daily", "timezone": "America/Havana", "start": "2026-01-01"}),
        json!({"type": "weekly", "timezone": "Europe/Kyiv", "start": "2026-01-05"}),
        json!({"type": "monthly", "timezone": "America/Sao_Paulo", "start": "2010-01-01"}),
        json!({"type": "cron", "cron": "30 1 * * *", "timezone": "Europe/London", "start": "2026-01-01"}),
    ] {
        let definition = definition(value);
        let mut end = None;
        for index in 0..500 {
            let key = definition.key(&[index]).unwrap();
            assert_eq!(definition.parse_key(&key).unwrap(), [index], "{key}");
            let window = definition.window(&[index]).unwrap();
            assert!(window.start < window.end);
            assert!(end.is_none_or(|end| end == window.start), "no hole before {key}");
            end = Some(window.end);
        }
    }
}

#[test]
fn ten_million_are_counted_not_listed() {
    let product = definition(json!({"type": "product", "dimensions": {
        "hour": {"type": "hourly", "start": "2000-01-01", "end": "2020-01-01"},
        "region": {"type": "static", "keys": (0..100).map(|n| format!("r{n}")).collect::<Vec<_>>()},
    }}));
    let all = product.all_at(at(LATER));
    assert_eq!(all.count(), 7305 * 24 * 100);
    assert_eq!(all.boxes().len(), 1);
    let hole = product.parse_set("2010-01-01T00:00Z..2010-12-31T23:00Z|r7", at(LATER)).unwrap();
    let rest = all.difference(&hole);
    assert_eq!(rest.count(), all.count() - 365 * 24);
    assert_eq!(product.key(&rest.last().unwrap()).as_deref(), Some("2019-12-31T23:00Z|r99"));
    let text = product.format_set(&rest);
    assert_eq!(product.parse_set(&text, at(LATER)).unwrap(), rest, "{text}");
}

#[test]
fn bad_definitions_and_keys() {
    let refused = [
        (json!({"type": "daily"}), "start"),
        (json!({"type": "daily", "start": "2013-02-30"}), "start"),
        (json!({"type": "daily", "start": "2013-01-01T05:00:00Z"}), "start"),
        (json!({"type": "monthly", "start": "2013-01-02"}), "start"),
        (json!({"type": "daily", "start": "2013-01-02", "end": "2013-01-01"}), "end"),
        (json!({"type": "daily", "start": "2013-01-02", "zone": "UTC"}), "zone"),
        (json!({"type": "daily", "start": "2013-01-02", "timezone": "X"}), "timezone"),
        (json!({"type": "static", "keys": ["a", "a"]}), "keys"),
        (json!({"type": "static", "keys": ["a|b"]}), "keys"),
        (json!({"type": "static", "keys": ["a..b"]}), "keys"),
        (json!({"type": "static", "keys": [1]}), "keys"),
        (json!({"type": "cron", "start": "2013-01-01", "cron": "0 0 30 2 *"}), "cron"),
        (
            json!({"type": "product", "dimensions": {"a": {"type": "dynamic", "name": "x"}}}),
            "dimensions",
        ),
        (json!({"type": "sometimes"}), "type"),
        (json!([]), "partitions"),
    ];
    for (value, field) in refused {
        let error = PartitionDefinition::parse(&value).expect_err(&value.to_string());
        assert_eq!(error.field, field, "{error}");
    }
    let days = definition(json!({"type": "daily", "start": "2013-01-01"}));
    for bad in
        ["2012-12-31", "yesterday", "2013-01-01T05:00:00Z", "2013-03-14..2013-03-01", "a|b", ""]
    {
        if bad.is_empty() {
            assert!(days.parse_set(bad, at(LATER)).unwrap().is_empty());
        } else {
            assert!(days.parse_set(bad, at(LATER)).is_err(), "{bad}");
        }
    }
}

#[test]
fn mappings() {
    let days = definition(json!({"type": "daily", "start": "2026-01-01"}));
    let hours = definition(json!({"type": "hourly", "start": "2026-01-01"}));
    let now = at("2026-02-01T00:00:00Z");
    let set = |d: &PartitionDefinition, text: &str| d.parse_set(text, now).unwrap();
    let day = set(&days, "2026-01-05");
    let up = PartitionMapping::Identity.upstream_of(&days, &hours, &day, now);
    assert_eq!(hours.format_set(&up), "2026-01-05T00:00Z..2026-01-05T23:00Z");
    let hour = set(&hours, "2026-01-05T07:00Z");
    let down = PartitionMapping::Identity.downstream_of(&hours, &days, &hour, now);
    assert_eq!(days.format_set(&down), "2026-01-05");
    let week = PartitionMapping::TimeWindow { start: -6, end: 0 };
    let up = week.upstream_of(&days, &days, &set(&days, "2026-01-10,2026-01-20"), now);
    assert_eq!(days.format_set(&up), "2026-01-04..2026-01-10,2026-01-14..2026-01-20");
    let up = week.upstream_of(&days, &days, &set(&days, "2026-01-02"), now);
    assert_eq!(days.format_set(&up), "2026-01-01..2026-01-02");
    let down = week.downstream_of(&days, &days, &set(&days, "2026-01-10"), now);
    assert_eq!(days.format_set(&down), "2026-01-10..2026-01-16");
    let last = PartitionMapping::Last.upstream_of(&days, &hours, &day, now);
    assert_eq!(hours.format_set(&last), "2026-01-31T23:00Z");
    assert_eq!(PartitionMapping::All.upstream_of(&days, &hours, &day, now).count(), 31 * 24);
    let regions = definition(json!({"type": "static", "keys": ["eu", "us"]}));
    let countries = definition(json!({"type": "static", "keys": ["fr", "ua", "ca"]}));
    let pairs = [("eu".to_owned(), vec!["fr".to_owned(), "ua".to_owned()])].into();
    let by_key = PartitionMapping::Static(pairs);
    let up = by_key.upstream_of(&regions, &countries, &set(&regions, "eu"), now);
    assert_eq!(countries.format_set(&up), "fr..ua");
    let down = by_key.downstream_of(&countries, &regions, &set(&countries, "ua"), now);
    assert_eq!(regions.format_set(&down), "eu");
    let both = definition(json!({"type": "product", "dimensions": {
        "day": {"type": "daily", "start": "2026-01-01"},
        "region": {"type": "static", "keys": ["eu", "us"]},
    }}));
    let down = PartitionMapping::Identity.downstream_of(&days, &both, &day, now);
    assert_eq!(both.format_set(&down), "2026-01-05|eu..us");
    let up =
        PartitionMapping::Identity.upstream_of(&both, &days, &set(&both, "2026-01-05|us"), now);
    assert_eq!(days.format_set(&up), "2026-01-05");
}

type Points = BTreeSet<Vec<u64>>;

/// A set made of a few boxes, with the same points as a plain set.
fn any_set(dimensions: usize) -> impl Strategy<Value = (PartitionSet, Points)> {
    let range = (0..9u64, 0..5u64).prop_map(|(from, length)| (from, from + length));
    let one_box = prop::collection::vec(prop::collection::vec(range, 1..3), dimensions);
    prop::collection::vec(one_box, 0..5).prop_map(move |boxes| {
        let mut set = PartitionSet::empty(dimensions);
        let mut points = Points::new();
        for ranges in &boxes {
            set = set.union(&PartitionSet::product(ranges));
            let mut partial = vec![Vec::new()];
            for dimension in ranges {
                let indexes: BTreeSet<u64> = dimension.iter().flat_map(|(a, b)| *a..*b).collect();
                partial = partial
                    .iter()
                    .flat_map(|head: &Vec<u64>| {
                        indexes.iter().map(move |index| [head.as_slice(), &[*index]].concat())
                    })
                    .collect();
            }
            points.extend(partial);
        }
        (set, points)
    })
}

fn points_of(set: &PartitionSet) -> Points {
    set.page(0, usize::MAX).collect()
}

fn check_algebra(
    a: &(PartitionSet, Points),
    b: &(PartitionSet, Points),
) -> Result<(), TestCaseError> {
    prop_assert_eq!(points_of(&a.0), a.1.clone());
    prop_assert_eq!(a.0.count(), a.1.len() as u64);
    let union: Points = a.1.union(&b.1).cloned().collect();
    let both: Points = a.1.intersection(&b.1).cloned().collect();
    let less: Points = a.1.difference(&b.1).cloned().collect();
    prop_assert_eq!(points_of(&a.0.union(&b.0)), union);
    prop_assert_eq!(points_of(&a.0.intersection(&b.0)), both.clone());
    prop_assert_eq!(points_of(&a.0.difference(&b.0)), less);
    prop_assert_eq!(a.0 == b.0, a.1 == b.1, "one form per set");
    // The same set made point by point has the same form.
    let mut again = PartitionSet::empty(a.0.dimensions());
    for place in a.1.iter().rev() {
        again.insert(place);
    }
    prop_assert_eq!(&again, &a.0);
    for place in &b.1 {
        prop_assert_eq!(a.0.contains(place), a.1.contains(place));
    }
    let listed: Vec<_> = a.0.page(0, usize::MAX).collect();
    prop_assert!(listed.is_sorted());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_dimension_is_a_set(a in any_set(1), b in any_set(1)) {
        check_algebra(&a, &b)?;
    }

    #[test]
    fn two_dimensions_are_a_set(a in any_set(2), b in any_set(2)) {
        check_algebra(&a, &b)?;
    }

    #[test]
    fn three_dimensions_are_a_set(a in any_set(3), b in any_set(3)) {
        check_algebra(&a, &b)?;
    }

    #[test]
    fn texts_read_back((set, _) in any_set(2)) {
        let product = definition(json!({"type": "product", "dimensions": {
            "day": {"type": "daily", "start": "2026-01-01"},
            "key": {"type": "static", "keys": (0..20).map(|n| format!("k{n}")).collect::<Vec<_>>()},
        }}));
        let text = product.format_set(&set);
        prop_assert_eq!(product.parse_set(&text, at(LATER)).unwrap(), set);
    }

    #[test]
    fn hostile_set_texts_never_panic(text in "[0-9a-z|,;.*: -]{0,40}") {
        let days = definition(json!({"type": "daily", "start": "2013-01-01"}));
        let _ = days.parse_set(&text, at(LATER));
        let _ = days.parse_set(&format!("2013-01-01..{text}"), at(LATER));
    }
}
