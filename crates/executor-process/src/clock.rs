//! The wall clock.

use std::time::SystemTime;

use kobza_model::Timestamp;

/// Now, by the wall clock.
#[expect(clippy::disallowed_methods, reason = "executors state when things happened")]
pub(crate) fn wall_now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
