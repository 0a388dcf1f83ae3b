//! Calendars, partitions, triggers.

use kobza_dialect_airflow::timetable::Timetable;
use kobza_model::Timestamp;
use kobza_schedule::partition::PartitionDefinition;
use kobza_schedule::{Cron, RRule, Zone, format_duration, parse_duration};

use crate::text;

/// 2026-01-01.
const NOW: Timestamp = Timestamp(1_767_225_600_000_000);

/// The zone's name stands before the first line's end, the schedule after it.
fn zoned(bytes: &[u8]) -> Option<(Zone, &str)> {
    let source = text(bytes)?;
    match source.split_once('\n') {
        Some((zone, rest)) if !zone.is_empty() => Some((Zone::parse(zone).ok()?, rest)),
        _ => Some((Zone::utc(), source)),
    }
}

/// Slots come in order, each after the one before.
fn in_order(next: impl Fn(Timestamp) -> Option<Timestamp>) {
    let mut at = NOW;
    for _ in 0..5 {
        let Some(slot) = next(at) else { return };
        assert!(slot > at, "the next slot is not later");
        at = slot;
    }
}

pub(crate) fn cron(bytes: &[u8]) {
    let Some((zone, source)) = zoned(bytes) else { return };
    if let Ok(cron) = Cron::parse(source, zone) {
        in_order(|at| cron.next_after(at));
        assert!(cron.prev_before(NOW).is_none_or(|slot| slot < NOW));
        let _words = cron.describe();
    }
}

pub(crate) fn rrule(bytes: &[u8]) {
    let Some((zone, source)) = zoned(bytes) else { return };
    if let Ok(rule) = RRule::parse(source, zone, Some(NOW)) {
        in_order(|at| rule.next_after(at));
        assert!(rule.prev_before(NOW).is_none_or(|slot| slot < NOW));
    }
}

pub(crate) fn duration(bytes: &[u8]) {
    let Some(source) = text(bytes) else { return };
    if let Ok(micros) = parse_duration(source) {
        let again = parse_duration(&format_duration(micros));
        assert_eq!(again.ok(), Some(micros), "a duration reads back");
    }
}

/// A definition as JSON on the first line; after it a set, and a key.
pub(crate) fn partitions(bytes: &[u8]) {
    let Some(source) = text(bytes) else { return };
    let mut lines = source.splitn(3, '\n');
    let Some(Ok(value)) = lines.next().map(serde_json::from_str) else { return };
    let Ok(definition) = PartitionDefinition::parse(&value) else { return };
    if let Some(Ok(set)) = lines.next().map(|set| definition.parse_set(set, NOW)) {
        let shown = definition.format_set(&set);
        let again = definition.parse_set(&shown, NOW);
        assert_eq!(again.map(|set| set.count()).ok(), Some(set.count()), "{shown} reads back");
    }
    if let Some(Ok(place)) = lines.next().map(|key| definition.parse_key(key)) {
        let _window = definition.window(&place);
    }
}

pub(crate) fn triggers(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    let _specs = kobza_triggers::parse_triggers(&value);
}

pub(crate) fn airflow_timetable(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    let _timetable = Timetable::parse(&value);
}
