//! The one place that reads clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kobza_model::{EngineTime, Now, Timestamp};

/// Wall time, and engine time that goes on from where the store left it.
#[derive(Debug)]
pub struct Clock {
    base: EngineTime,
    started: Instant,
}

impl Clock {
    #[must_use]
    pub fn new(base: EngineTime) -> Self {
        Self { base, started: Instant::now() }
    }

    #[must_use]
    pub fn now(&self) -> Now {
        let elapsed = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        Now { wall: wall_now(), engine: EngineTime(self.base.0.saturating_add(elapsed)) }
    }

    /// How long until an engine time.
    #[must_use]
    pub fn until(&self, at: EngineTime) -> Duration {
        let left = at.0.saturating_sub(self.now().engine.0);
        Duration::from_micros(u64::try_from(left).unwrap_or(0))
    }
}

/// Wall time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock that everything else must ask")]
pub fn wall_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
