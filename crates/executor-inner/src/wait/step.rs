//! What a wait does next. Pure: the world comes in.

use std::io;
use std::path::PathBuf;

use kobza_model::{EngineTime, Json, Now, Timestamp};
use serde::{Deserialize, Serialize};

/// Longest wait for a wall time in one piece: engine time stands still while no server runs, so
/// the wall clock is looked at again at least so often.
const PIECE_MS: u64 = 10 * 60 * 1000;
/// Shortest pause between two looks at a file.
const MIN_POLL_MS: u64 = 100;
/// Pause after a store that could not be read.
const AWAY_MS: u64 = 5_000;

/// For what, as the launch says it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    for_ms: Option<u64>,
    /// RFC 3339.
    until: Option<String>,
    file: Option<PathBuf>,
    every_ms: u64,
    event: Option<String>,
    /// An expression over `event`.
    filter: Option<String>,
    asset: Option<String>,
    partition: Option<String>,
    /// Data of an asset counts from here on; RFC 3339.
    since: Option<String>,
    /// Of events and assets.
    namespace: String,
    carry: Option<Carry>,
}

/// What a wait remembers between its launches.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Carry {
    /// A wait for a duration ends here.
    pub(super) over: Option<EngineTime>,
    /// The attempt's time-out.
    pub(super) deadline: Option<EngineTime>,
    /// For what, in words for people who ask why it waits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) waits_for: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) on: Option<On>,
    /// What it waited for: an event, as its readers see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) came: Option<Json>,
    /// Why it cannot tell whether that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
}

/// What of the event log ends a wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct On {
    pub(super) namespace: String,
    pub(super) topic: Topic,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) filter: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) partition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Timestamp>,
    /// Events count from the one after this.
    pub(super) after: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Topic {
    Event(String),
    Asset(String),
}

/// What a wait may look at.
pub(super) struct World<'a> {
    pub(super) now: Now,
    /// Number of the newest event.
    pub(super) newest: u64,
    pub(super) there: &'a dyn Fn(&PathBuf) -> io::Result<bool>,
    /// The newest data of an asset that counts.
    pub(super) made: &'a dyn Fn(&On) -> Result<Option<Json>, String>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// With these outputs.
    Over(Vec<(String, Json)>),
    TimedOut,
    Failed(String),
    Sleep {
        until: Option<EngineTime>,
        poll: bool,
    },
}

fn time(text: &str, field: &str) -> Result<Timestamp, Step> {
    text.parse::<Timestamp>().map_err(|_| {
        let shown: String = text.chars().take(60).collect();
        Step::Failed(format!("wait.{field}: {shown:?} is not a time such as 2026-01-31T02:00:00Z"))
    })
}

/// What to do now, and what to remember.
pub(super) fn step(mut asked: Asked, timeout_ms: Option<u64>, world: &World<'_>) -> (Step, Carry) {
    let now = world.now;
    let woken = asked.carry.is_some();
    let mut carry = asked.carry.take().unwrap_or_default();
    if let Some(message) = carry.failed.take() {
        return (Step::Failed(message), carry);
    }
    if let Some(event) = carry.came.take() {
        return (Step::Over(vec![("event".to_owned(), event)]), carry);
    }
    if !woken {
        carry.deadline = timeout_ms.map(|ms| now.engine.after_millis(ms));
        carry.over = asked.for_ms.map(|ms| now.engine.after_millis(ms));
    }
    let (until, poll) = match next(&asked, woken, &mut carry, world) {
        Ok(next) => next,
        Err(step) => return (step, carry),
    };
    let until = match (until, carry.deadline) {
        (_, Some(deadline)) if deadline <= now.engine => return (Step::TimedOut, carry),
        (Some(until), Some(deadline)) => Some(until.min(deadline)),
        (until, deadline) => until.or(deadline),
    };
    (Step::Sleep { until, poll }, carry)
}

/// When to look again and whether that is a poll, or the end.
fn next(
    asked: &Asked,
    woken: bool,
    carry: &mut Carry,
    world: &World<'_>,
) -> Result<(Option<EngineTime>, bool), Step> {
    let now = world.now;
    let over = |outputs| Err(Step::Over(outputs));
    if let Some(path) = &asked.file {
        carry.waits_for = format!("the file {}", path.display());
        match (world.there)(path) {
            Ok(true) => return over(Vec::new()),
            Ok(false) => {}
            // A folder that cannot be read may be readable at the next look.
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot look for a file"),
        }
        return Ok((Some(now.engine.after_millis(asked.every_ms.max(MIN_POLL_MS))), true));
    }
    if let Some(text) = &asked.until {
        carry.waits_for.clone_from(text);
        let left = time(text, "until")?.0.saturating_sub(now.wall.0);
        return match u64::try_from(left) {
            Ok(micros) if micros > 0 => {
                Ok((Some(now.engine.after_millis(micros.div_ceil(1000).min(PIECE_MS))), false))
            }
            _ => over(Vec::new()),
        };
    }
    if let Some(end) = carry.over {
        return if end <= now.engine { over(Vec::new()) } else { Ok((Some(end), false)) };
    }
    if let Some(name) = &asked.event {
        carry.waits_for = format!("the event {name}");
        // Whoever wakes it before its deadline says that the event is there.
        if woken && carry.deadline.is_none_or(|deadline| now.engine < deadline) {
            return over(Vec::new());
        }
        carry.on.get_or_insert_with(|| On {
            namespace: asked.namespace.clone(),
            topic: Topic::Event(name.clone()),
            filter: asked.filter.clone(),
            partition: None,
            since: None,
            after: world.newest,
        });
        return Ok((None, false));
    }
    let Some(name) = &asked.asset else {
        return Err(Step::Failed("the wait does not say for what".to_owned()));
    };
    carry.waits_for = match &asked.partition {
        Some(partition) => format!("data of {name}, partition {partition}"),
        None => format!("data of {name}"),
    };
    let on = On {
        namespace: asked.namespace.clone(),
        topic: Topic::Asset(name.clone()),
        filter: None,
        partition: asked.partition.clone(),
        since: asked.since.as_ref().map(|text| time(text, "since")).transpose()?,
        after: world.newest,
    };
    match (world.made)(&on) {
        Ok(Some(event)) => over(vec![("event".to_owned(), event)]),
        Ok(None) => {
            carry.on = Some(on);
            Ok((None, false))
        }
        Err(error) => {
            tracing::warn!(asset = name, error, "an asset cannot be looked at");
            Ok((Some(now.engine.after_millis(AWAY_MS)), true))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(ms: i64) -> Now {
        Now { wall: Timestamp(1_000_000_000 + ms * 1000), engine: EngineTime(ms * 1000) }
    }

    fn look(extra: Json, timeout: Option<u64>, now: Now, there: bool) -> (Step, Json) {
        let made = || there.then(|| json!({"asset": "a"}));
        let world =
            World { now, newest: 7, there: &|_| Ok(there), made: &|_| Ok::<_, String>(made()) };
        let (step, carry) = step(Asked::deserialize(&extra).unwrap(), timeout, &world);
        (step, json!(carry))
    }

    fn sleep(ms: i64, poll: bool) -> Step {
        Step::Sleep { until: Some(EngineTime(ms * 1000)), poll }
    }

    #[test]
    fn for_a_time() {
        let (first, carry) = look(json!({"for_ms": 300}), None, at(10), false);
        assert_eq!(first, sleep(310, false));
        let early = json!({"for_ms": 300, "carry": carry});
        assert_eq!(look(early.clone(), None, at(200), false).0, sleep(310, false));
        assert_eq!(look(early, None, at(310), false).0, Step::Over(Vec::new()));
    }

    #[test]
    fn until_a_time_in_pieces() {
        let until = Timestamp(1_000_000_000 + 3_600_000_000).to_string();
        let asked = json!({"until": until});
        assert_eq!(look(asked.clone(), None, at(0), false).0, sleep(600_000, false));
        assert_eq!(look(asked.clone(), None, at(3_599_000), false).0, sleep(3_600_000, false));
        assert_eq!(look(asked, None, at(3_600_000), false).0, Step::Over(Vec::new()));
        let wrong = look(json!({"until": "soon"}), None, at(0), false).0;
        assert!(matches!(wrong, Step::Failed(text) if text.contains("soon")));
    }

    #[test]
    fn files_until_the_deadline() {
        let asked = json!({"file": "/x", "every_ms": 1000});
        let (first, carry) = look(asked.clone(), Some(1500), at(0), false);
        assert_eq!(first, sleep(1000, true));
        let again = json!({"file": "/x", "every_ms": 1000, "carry": carry});
        assert_eq!(look(again.clone(), Some(1500), at(1000), false).0, sleep(1500, true));
        assert_eq!(look(again.clone(), Some(1500), at(1500), false).0, Step::TimedOut);
        assert_eq!(look(again, Some(1500), at(1500), true).0, Step::Over(Vec::new()));
    }

    #[test]
    fn events_wake_by_a_call() {
        let (first, carry) = look(json!({"event": "e"}), None, at(0), false);
        assert_eq!(first, Step::Sleep { until: None, poll: false });
        let woken = json!({"event": "e", "carry": carry});
        assert_eq!(look(woken, None, at(5), false).0, Step::Over(Vec::new()));
    }

    #[test]
    fn events_count_from_where_the_wait_began() {
        let asked = json!({"event": "e", "filter": "event.payload", "namespace": "n"});
        let (first, carry) = look(asked.clone(), Some(1000), at(0), false);
        assert_eq!(first, sleep(1000, false));
        let on = json!({
            "namespace": "n", "topic": {"event": "e"}, "filter": "event.payload", "after": 7,
        });
        assert_eq!(carry["on"], on);
        let with = |field: &str, value: Json| {
            let mut asked = asked.clone();
            asked["carry"] = carry.clone();
            asked["carry"][field] = value;
            asked
        };
        let came = look(with("came", json!({"name": "e"})), Some(1000), at(2000), false).0;
        assert_eq!(came, Step::Over(vec![("event".to_owned(), json!({"name": "e"}))]));
        let failed = look(with("failed", json!("no")), Some(1000), at(5), false).0;
        assert_eq!(failed, Step::Failed("no".to_owned()));
        assert_eq!(look(with("x", Json::Null), Some(1000), at(1000), false).0, Step::TimedOut);
    }

    #[test]
    fn assets() {
        let asked = json!({"asset": "a", "partition": "p", "since": "2026-01-01T00:00:00Z"});
        let (first, carry) = look(asked.clone(), None, at(0), false);
        assert_eq!(first, Step::Sleep { until: None, poll: false });
        assert_eq!(carry["on"]["since"], "2026-01-01T00:00:00.000000Z");
        assert_eq!(carry["waits_for"], "data of a, partition p");
        let there = look(asked, None, at(0), true).0;
        assert_eq!(there, Step::Over(vec![("event".to_owned(), json!({"asset": "a"}))]));
        let wrong = look(json!({"asset": "a", "since": "once"}), None, at(0), true).0;
        assert!(matches!(wrong, Step::Failed(text) if text.contains("wait.since")));
    }
}
