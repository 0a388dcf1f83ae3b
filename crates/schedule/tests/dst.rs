//! What schedules do where clocks jump: golden cases and properties.

#![allow(clippy::unwrap_used)] // A test: a failed unwrap is its message.

use kobza_model::Timestamp;
use kobza_schedule::{Schedule, Zone};
use proptest::prelude::*;
use serde_json::json;

fn cron(pattern: &str, zone: &str) -> Schedule {
    Schedule::parse(&json!({"cron": pattern, "timezone": zone})).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The slots of one range, as civil time with offset.
fn slots(schedule: &Schedule, zone: &str, from: &str, to: &str) -> Vec<String> {
    let tz = jiff::tz::TimeZone::get(zone).unwrap();
    let forward: Vec<Timestamp> = schedule.slots_between(at(from), at(to)).collect();
    let mut backward: Vec<Timestamp> = schedule.slots_between(at(from), at(to)).rev().collect();
    backward.reverse();
    assert_eq!(forward, backward, "the two directions differ");
    forward
        .iter()
        .map(|slot| slot.to_jiff().to_zoned(tz.clone()).strftime("%d %H:%M:%S%:z").to_string())
        .collect()
}

#[test]
fn fixed_times_in_a_gap_move_to_its_end() {
    let zone = "America/New_York";
    let (from, to) = ("2013-03-09T12:00:00Z", "2013-03-12T00:00:00Z");
    let found = slots(&cron("30 2 * * *", zone), zone, from, to);
    assert_eq!(found, ["10 03:00:00-04:00", "11 02:30:00-04:00"]);
    // Two civil times in the gap, and one at its end, are one slot.
    let found = slots(&cron("0,30 2,3 * * *", zone), zone, from, "2013-03-11T00:00:00Z");
    assert_eq!(found, ["10 03:00:00-04:00", "10 03:30:00-04:00"]);
    let zone = "Europe/London";
    let found =
        slots(&cron("30 1 * * *", zone), zone, "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
    assert_eq!(found, ["29 02:00:00+01:00", "30 01:30:00+01:00"]);
    let zone = "Europe/Kyiv";
    let found =
        slots(&cron("15 3 * * *", zone), zone, "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
    assert_eq!(found, ["29 04:00:00+03:00", "30 03:15:00+03:00"]);
    // Half an hour is left out here.
    let zone = "Australia/Lord_Howe";
    let found =
        slots(&cron("10 2 * * *", zone), zone, "2026-10-02T00:00:00Z", "2026-10-05T00:00:00Z");
    assert_eq!(found, ["03 02:10:00+10:30", "04 02:30:00+11:00", "05 02:10:00+11:00"]);
}

#[test]
fn fixed_times_that_happen_twice_run_in_the_first_pass() {
    let zone = "America/New_York";
    let found =
        slots(&cron("30 1 * * *", zone), zone, "2013-11-03T00:00:00Z", "2013-11-05T00:00:00Z");
    assert_eq!(found, ["03 01:30:00-04:00", "04 01:30:00-05:00"]);
    let zone = "Europe/London";
    let found =
        slots(&cron("30 1 * * *", zone), zone, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
    assert_eq!(found, ["25 01:30:00+01:00", "26 01:30:00+00:00"]);
    let zone = "Europe/Kyiv";
    let found =
        slots(&cron("30 3 * * *", zone), zone, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
    assert_eq!(found, ["25 03:30:00+03:00", "26 03:30:00+02:00"]);
    let zone = "Australia/Lord_Howe";
    let found =
        slots(&cron("45 1 * * *", zone), zone, "2026-04-04T00:00:00Z", "2026-04-06T00:00:00Z");
    assert_eq!(found, ["05 01:45:00+11:00", "06 01:45:00+10:30"]);
}

#[test]
fn periodic_times_follow_real_time() {
    let zone = "Europe/London";
    let half_hours = cron("*/30 * * * *", zone);
    let found = slots(&half_hours, zone, "2026-03-29T00:30:00Z", "2026-03-29T01:45:00Z");
    assert_eq!(found, ["29 00:30:00+00:00", "29 02:00:00+01:00", "29 02:30:00+01:00"]);
    let found = slots(&half_hours, zone, "2026-10-25T00:00:00Z", "2026-10-25T02:15:00Z");
    let expected = [
        "25 01:00:00+01:00",
        "25 01:30:00+01:00",
        "25 01:00:00+00:00",
        "25 01:30:00+00:00",
        "25 02:00:00+00:00",
    ];
    assert_eq!(found, expected);
    let zone = "Australia/Lord_Howe";
    let found =
        slots(&cron("*/20 * * * *", zone), zone, "2026-04-04T14:20:00Z", "2026-04-04T15:45:00Z");
    let expected =
        ["05 01:20:00+11:00", "05 01:40:00+11:00", "05 01:40:00+10:30", "05 02:00:00+10:30"];
    assert_eq!(found, expected);
}

#[test]
fn a_skipped_day_is_not_lost() {
    // Samoa left out 30 December 2011 whole.
    let zone = "Pacific/Apia";
    let found =
        slots(&cron("0 12 * * *", zone), zone, "2011-12-29T12:00:00Z", "2011-12-31T12:00:00Z");
    assert_eq!(found, ["29 12:00:00-10:00", "31 00:00:00+14:00", "31 12:00:00+14:00"]);
}

#[test]
fn recurrence_rules_share_the_rules_of_cron() {
    let zone = "America/New_York";
    let rule = |text: &str| Schedule::parse(&json!({"rrule": text, "timezone": zone})).unwrap();
    let daily = rule("DTSTART:20130301T023000\nRRULE:FREQ=DAILY");
    let found = slots(&daily, zone, "2013-03-10T00:00:00Z", "2013-03-12T00:00:00Z");
    assert_eq!(found, ["10 03:00:00-04:00", "11 02:30:00-04:00"]);
    let hourly = rule("DTSTART:20130301T003000\nRRULE:FREQ=HOURLY");
    let found = slots(&hourly, zone, "2013-11-03T05:00:00Z", "2013-11-03T08:00:00Z");
    assert_eq!(found, ["03 01:30:00-04:00", "03 01:30:00-05:00", "03 02:30:00-05:00"]);
    let weekly = rule(
        "DTSTART:20260105T090000\nRRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR;UNTIL=20260206\nEXDATE:20260119T090000\nRDATE:20260107T090000",
    );
    let found = slots(&weekly, zone, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
    assert_eq!(
        found,
        [
            "05 09:00:00-05:00",
            "07 09:00:00-05:00",
            "09 09:00:00-05:00",
            "23 09:00:00-05:00",
            "02 09:00:00-05:00",
            "06 09:00:00-05:00"
        ]
    );
    let counted = rule("DTSTART:20260131T000000\nRRULE:FREQ=MONTHLY;COUNT=3");
    assert_eq!(slots(&counted, zone, "2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z").len(), 3);
    let office =
        rule("DTSTART:20260105T000000\nRRULE:FREQ=MINUTELY;INTERVAL=45;BYHOUR=9,10;BYDAY=MO,TU");
    let found = slots(&office, zone, "2026-01-05T00:00:00Z", "2026-01-10T00:00:00Z");
    assert_eq!(
        found,
        [
            "05 09:00:00-05:00",
            "05 09:45:00-05:00",
            "05 10:30:00-05:00",
            "06 09:00:00-05:00",
            "06 09:45:00-05:00",
            "06 10:30:00-05:00"
        ]
    );
    let counted =
        rule("DTSTART:20260105T001000\nRRULE:FREQ=HOURLY;INTERVAL=5;BYMINUTE=0,30;COUNT=3");
    let found = slots(&counted, zone, "2026-01-01T00:00:00Z", "2027-01-10T00:00:00Z");
    assert_eq!(found, ["05 00:30:00-05:00", "05 05:00:00-05:00", "05 05:30:00-05:00"]);
    let leap = rule(
        "DTSTART:20260101T000000\nRRULE:FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=29;BYHOUR=3;BYMINUTE=7",
    );
    assert_eq!(leap.next_after(at("2026-01-01T00:00:00Z")), Some(at("2028-02-29T08:07:00Z")));
    assert_eq!(leap.prev_before(at("2031-01-01T00:00:00Z")), Some(at("2028-02-29T08:07:00Z")));
}

#[test]
fn extended_patterns() {
    let after = |pattern: &str, from: &str| cron(pattern, "UTC").next_after(at(from)).unwrap();
    let from = "2026-02-01T00:00:00Z";
    assert_eq!(after("0 0 L * *", from), at("2026-02-28T00:00:00Z"));
    assert_eq!(after("0 12 * * 5#2", from), at("2026-02-13T12:00:00Z"));
    assert_eq!(after("*/10 * * * * *", from), at("2026-02-01T00:00:10Z"));
    assert_eq!(after("0 0 0 29 2 * 2028", from), at("2028-02-29T00:00:00Z"));
    assert_eq!(after("@weekly", from), at("2026-02-08T00:00:00Z"));
    assert_eq!(after("0 9 * JAN MON-FRI", from), at("2027-01-01T09:00:00Z"));
    assert_eq!(after("0 9 15W * *", from), at("2026-02-16T09:00:00Z"));
    assert_eq!(cron("0 0 0 1 1 * 2020", "UTC").next_after(at(from)), None, "the past is past");
}

#[test]
fn what_cannot_be_is_refused_with_the_field() {
    let refused = [
        (json!("0 0 30 2 *"), "cron", "never happens"),
        (json!("0 0 31 4,6,9,11 *"), "cron", "never happens"),
        (json!("60 * * * *"), "cron.minute", "0 to 59"),
        (json!("* 24 * * *"), "cron.hour", "0 to 23"),
        (json!("0 0 * 13 *"), "cron.month", "1 to 12"),
        (json!("0 0 * * FUNDAY"), "cron.day_of_week", "SUN"),
        (json!("H 2 * * *"), "cron.minute", "jitter"),
        (json!("* * * *"), "cron", "4 fields"),
        (json!("@reboot"), "cron", "presets"),
        (json!(""), "cron", "empty"),
        (json!("0 2 * * *;"), "cron.day_of_week", "means nothing"),
        (json!("0 2 * * ☃"), "cron.day_of_week", "means nothing"),
        (json!({"cron": "0 2 * * *", "timezone": "Kyiv"}), "timezone", "Europe/Kyiv"),
        (json!({"cron": "0 2 * * *", "timezone": "Mars/Olympus"}), "timezone", "IANA"),
        (json!({"cron": "0 2 * * *", "timezone": "../../etc/passwd"}), "timezone", "IANA"),
        (json!({"cron": "0 2 * * *", "interval": "1h"}), "schedule", "both"),
        (json!({"timezone": "UTC"}), "schedule", "when"),
        (json!({"interval": "0s"}), "interval", "longer than zero"),
        (json!({"interval": "10ms"}), "interval", "one second"),
        (json!({"interval": "1mo"}), "interval", "duration"),
        (json!({"at": "tomorrow"}), "at", "2026-01-31"),
        (json!({"at": []}), "at", "between"),
        (json!({"rrule": "FREQ=DAILY"}), "rrule", "DTSTART"),
        (json!({"rrule": "DTSTART:20260101T000000\nRRULE:FREQ=SECONDLY"}), "rrule", "interval"),
        (json!({"rrule": "DTSTART:20260101T000000\nRRULE:FREQ=SOMETIMES"}), "rrule", "not a valid"),
        (
            json!({"rrule": "DTSTART:20260101T000000\nRRULE:FREQ=DAILY;COUNT=4000000000"}),
            "rrule",
            "COUNT",
        ),
        (
            json!({"rrule": "DTSTART:20260101T000000\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"}),
            "rrule",
            "never",
        ),
        (json!({"rrule": "DTSTART:2026\nRRULE:FREQ=DAILY"}), "rrule", "20260131"),
        (json!(7), "schedule", "text or an object"),
    ];
    for (value, field, part) in refused {
        let error = Schedule::parse(&value).expect_err(&value.to_string());
        assert_eq!(error.field, field, "{error}");
        assert!(error.to_string().contains(part), "{error} should say {part}");
    }
    let long = "1,".repeat(1_000_000);
    assert!(Schedule::parse(&json!(format!("{long}1 * * * *"))).is_err());
}

/// What the documented rule for fixed times says, one civil day after the other.
fn naive_daily(zone: &str, hour: i8, minute: i8, year: i16) -> Vec<Timestamp> {
    let zone = Zone::parse(zone).unwrap();
    let mut date = jiff::civil::date(year, 1, 1);
    let mut found = Vec::new();
    while date.year() == year {
        found.extend(zone.instant(date.at(hour, minute, 0, 0)));
        date = date.tomorrow().unwrap();
    }
    found.dedup();
    found
}

#[test]
fn no_day_is_lost_from_2000_to_2037() {
    for zone in ["America/New_York", "Europe/London", "Europe/Kyiv", "Australia/Lord_Howe"] {
        for (hour, minute) in [(0, 0), (1, 30), (2, 0), (2, 15), (2, 30), (3, 0), (3, 30)] {
            let schedule = cron(&format!("{minute} {hour} * * *"), zone);
            for year in 2000..=2037 {
                let expected = naive_daily(zone, hour, minute, year);
                let to = Timestamp(expected[expected.len() - 1].0 + 1);
                let found: Vec<_> = schedule.slots_between(expected[0], to).collect();
                assert_eq!(found, expected, "{zone} {hour}:{minute} {year}");
            }
        }
    }
}

#[test]
fn each_real_hour_is_a_slot_of_an_hourly_pattern() {
    for zone in ["America/New_York", "Europe/Kyiv", "UTC"] {
        let schedule = cron("0 * * * *", zone);
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
        let found: Vec<_> = schedule.slots_between(from, to).collect();
        assert_eq!(found.len(), 365 * 24, "{zone}");
        assert!(found.windows(2).all(|w| w[1].0 - w[0].0 == 3_600_000_000), "{zone}");
    }
}

fn any_pattern() -> impl Strategy<Value = String> {
    let minute = prop_oneof![
        Just("*".to_owned()),
        Just("*/7".to_owned()),
        Just("*/30".to_owned()),
        (0..60u8).prop_map(|m| m.to_string()),
        (0..30u8, 30..60u8).prop_map(|(a, b)| format!("{a},{b}")),
    ];
    let hour = prop_oneof![
        Just("*".to_owned()),
        Just("*/2".to_owned()),
        (0..5u8).prop_map(|h| h.to_string()),
        Just("0-4".to_owned()),
        Just("1,2,3".to_owned()),
    ];
    let day = prop_oneof![Just("* * *"), Just("L * *"), Just("* * SUN"), Just("1-7 3,4,10,11 *")];
    (minute, hour, day).prop_map(|(m, h, d)| format!("{m} {h} {d}"))
}

const ZONES: [&str; 9] = [
    "America/New_York",
    "Europe/London",
    "Europe/Kyiv",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Africa/Casablanca",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "UTC",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn directions_are_inverse_near_clock_changes(
        pattern in any_pattern(),
        zone in prop::sample::select(&ZONES[..]),
        year in 2000..2038i64,
        jump in 0..4usize,
        offset in -10_800_000_000..10_800_000_000i64,
    ) {
        let schedule = cron(&pattern, zone);
        let new_year = at(&format!("{year}-01-01T00:00:00Z"));
        let tz = jiff::tz::TimeZone::get(zone).unwrap();
        let change = tz.following(new_year.to_jiff()).nth(jump).map(|t| Timestamp::from_jiff(t.timestamp()));
        let from = change.unwrap_or(new_year).saturating_add_micros(offset);
        let mut slot = from;
        for _ in 0..40 {
            let next = schedule.next_after(slot).unwrap();
            prop_assert!(next > slot, "strictly increasing");
            prop_assert_eq!(schedule.next_after(Timestamp(next.0 - 1)), Some(next));
            let back = schedule.prev_before(next);
            if slot == from {
                prop_assert!(back.unwrap() <= from, "{:?} {:?} {:?}", back, from, next);
            } else {
                prop_assert_eq!(back, Some(slot), "prev of {:?}", next);
            }
            prop_assert_eq!(schedule.prev_before(Timestamp(next.0 + 1)), Some(next));
            slot = next;
        }
    }

    #[test]
    fn intervals_are_exact(every in 1..1_000_000i64, anchor in any::<i32>(), from in any::<i32>()) {
        let every = every * 1_000_000;
        let interval = kobza_schedule::Interval::new(every, Timestamp(i64::from(anchor) * 1_000_000)).unwrap();
        let from = Timestamp(i64::from(from) * 1_000_003);
        let next = interval.next_after(from).unwrap();
        prop_assert!(next > from && next.0 - from.0 <= every);
        prop_assert_eq!((next.0 - i64::from(anchor) * 1_000_000).rem_euclid(every), 0);
        prop_assert_eq!(interval.prev_before(next), Some(Timestamp(next.0 - every)));
    }

    #[test]
    fn hostile_text_never_panics(text in "\\PC{0,40}", rule in "[A-Z=;,0-9:+T-]{0,60}") {
        let _ = Schedule::parse(&json!(text));
        let _ = Schedule::parse(&json!({"rrule": text, "start": "2026-01-01"}));
        let _ = Schedule::parse(&json!({"rrule": format!("FREQ=DAILY;{rule}"), "start": "2026-01-01"}));
        let _ = Schedule::parse(&json!({"interval": text}));
        let _ = Schedule::parse(&json!({"at": text}));
        let _ = Zone::parse(&text);
    }
}
