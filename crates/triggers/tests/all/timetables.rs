//! Triggers that follow a dialect's timetable, in the service with the real loop and store.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_model::{Json, Timestamp};
use kobza_triggers::{Next, Tick, Timetable, TimetableDialects, Timetables};
use serde_json::json;

use crate::service::{World, workflow};
use crate::support::at;

const HOUR: i64 = 3_600_000_000;

/// Each full hour, by a dialect that is asked at once or outside, as the definition says.
#[derive(Debug)]
struct Hours {
    outside: bool,
    most: u32,
}

struct Dialect;

impl Timetables for Dialect {
    fn open(&self, definition: &Json) -> Result<Arc<dyn Timetable>, String> {
        let outside = definition["outside"].as_bool().ok_or("outside is missing")?;
        Ok(Arc::new(Hours { outside, most: 2 }))
    }
}

impl Hours {
    fn after(&self, last: Option<&Tick>, now: Timestamp) -> Next {
        let hour = match last {
            Some(last) => last.at.0 + HOUR,
            None => now.0 - now.0 % HOUR + HOUR,
        };
        let slot = Timestamp(hour - HOUR);
        Next::Tick(Tick {
            key: format!("hourly__{}", Timestamp(hour)),
            at: Timestamp(hour),
            slot,
            interval: Some((slot, Timestamp(hour))),
            partition: None,
            extra: json!({"test": {"hour": hour / HOUR % 24}}),
        })
    }
}

impl Timetable for Hours {
    fn next(&self, last: Option<&Tick>, now: Timestamp) -> Next {
        if self.outside { Next::Ask } else { self.after(last, now) }
    }

    fn ask(&self, last: Option<&Tick>, now: Timestamp) -> Result<Next, String> {
        Ok(self.after(last, now))
    }

    fn max_active(&self) -> Option<u32> {
        Some(self.most)
    }
}

pub(crate) fn dialects() -> TimetableDialects {
    let dialect: Arc<dyn Timetables> = Arc::new(Dialect);
    BTreeMap::from([("test".to_owned(), dialect)])
}

async fn hours(outside: bool) {
    let world = World::new("2026-01-01T00:30:00Z");
    let triggers = json!({"name": "own", "timetable": {"dialect": "test", "outside": outside}});
    world.put(workflow("w", "suspend", triggers)).await;
    // A question outside is asked before the next request is taken: at this time still.
    world.set("2026-01-01T00:30:00Z").await;
    world.set("2026-01-01T01:00:01Z").await;
    world.until("the first run", |w| (w.runs("w").len() == 1).then_some(())).await;
    let world = world.restart().await;
    world.set("2026-01-01T06:00:00Z").await;
    // Two are open: the others wait, however often the service looks.
    let runs = world.until("the second", |w| Some(w.runs("w")).filter(|r| r.len() == 2)).await;
    for _ in 0..20 {
        world.set("2026-01-01T06:00:00Z").await;
    }
    assert_eq!(world.runs("w").len(), 2);
    world.succeed(&runs[0]).await;
    let runs = world.until("the third", |w| Some(w.runs("w")).filter(|r| r.len() == 3)).await;
    assert_eq!(runs[2].key.as_deref(), Some("hourly__2026-01-01T03:00:00.000000Z"));
    assert_eq!(runs[2].interval_start, Some(at("2026-01-01T02:00:00Z")));
    assert_eq!(runs[2].extra, json!({"test": {"hour": 3}}));
    assert_eq!(runs[2].trigger, "schedule");
    let world = world.restart().await;
    world.succeed(&runs[1]).await;
    world.until("the fourth", |w| (w.runs("w").len() == 4).then_some(())).await;
}

#[tokio::test]
async fn a_timetable_makes_runs_over_restarts_within_its_limit() {
    hours(false).await;
}

#[tokio::test]
async fn a_timetable_may_be_answered_outside() {
    hours(true).await;
}

#[test]
fn a_timetable_has_no_fields_that_it_would_ignore() {
    let parse = |more: Json| {
        let mut trigger = json!({"timetable": {"dialect": "test"}});
        trigger.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        kobza_triggers::parse_triggers(&trigger).map_err(|errors| errors[0].field.clone())
    };
    assert!(parse(json!({"name": "own", "paused": true})).is_ok());
    for field in ["catchup", "jitter", "overlap", "filter", "start", "end", "batch"] {
        let error = parse(json!({field: "1h"})).unwrap_err();
        assert_eq!(error, format!("triggers.{field}"));
    }
    let nameless = kobza_triggers::parse_triggers(&json!({"timetable": {}})).unwrap_err();
    assert_eq!(nameless[0].field, "triggers.timetable.dialect");
}
