//! Whether and when Airflow tries a task again. Pure.

use kobza_model::Timestamp;
use sha1::{Digest as _, Sha1};

use crate::dag::Operator;

/// The longest delay that backing off leads to, in seconds (`MAX_RETRY_DELAY`).
const DELAY_MAX: u64 = 24 * 60 * 60;

/// What a delay depends on beside the operator.
#[derive(Clone, Copy, Debug)]
pub struct Try<'a> {
    pub dag_id: &'a str,
    /// None for runs that assets started.
    pub logical_date: Option<Timestamp>,
    /// The try that failed, from 1.
    pub number: u32,
}

/// Seconds from the end of a failed try to the next one. With backing off, a part of it follows from
/// a hash of the task instance, so that many do not come back at once.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded by a day before"
)]
pub fn delay(task: &Operator, tried: Try<'_>) -> f64 {
    let factor = task.retry_exponential_backoff;
    // A factor of 1, and one below nothing, is none.
    if factor <= 0.0 || (factor - 1.0).abs() < f64::EPSILON {
        return task.retry_delay;
    }
    let exponent = i32::try_from(tried.number).unwrap_or(i32::MAX).saturating_sub(1);
    let grown = (task.retry_delay * factor.powi(exponent)).ceil();
    let least =
        if grown.is_finite() { grown.clamp(1.0, u64::MAX as f64 / 2.0) as u64 } else { DELAY_MAX };
    let date = tried.logical_date.map_or_else(|| "None".to_owned(), python_text);
    let words = format!("{}#{}#{date}#{}", tried.dag_id, task.task_id, tried.number);
    let digest = Sha1::digest(words.as_bytes());
    let rest = digest
        .iter()
        .fold(0u128, |rest, &byte| ((rest << 8) | u128::from(byte)) % u128::from(least));
    let seconds = (u128::from(least) + rest).min(u128::from(DELAY_MAX)) as f64;
    // A limit of nothing is none, as in Python.
    task.max_retry_delay.filter(|most| *most > 0.0).map_or(seconds, |most| seconds.min(most))
}

/// `str(datetime)` of an instant in UTC.
fn python_text(at: Timestamp) -> String {
    let Ok(instant) = jiff::Timestamp::from_microsecond(at.0) else { return at.0.to_string() };
    let zoned = instant.to_zoned(jiff::tz::TimeZone::UTC);
    let micros = at.0.rem_euclid(1_000_000);
    let part = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    format!("{}{part}+00:00", zoned.strftime("%Y-%m-%d %H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use kobza_model::Timestamp;
    use serde_json::json;

    use super::{Try, delay};
    use crate::dag::Operator;

    /// Figures of `TaskInstance.next_retry_datetime` in Airflow 3.3.2.
    #[test]
    fn delays_are_those_of_airflow() {
        let task = |more: serde_json::Value| {
            let mut fields = json!({"task_id": "t", "task_type": "X", "retry_delay": 10.0});
            fields
                .as_object_mut()
                .expect("an object")
                .extend(more.as_object().expect("an object").clone());
            Operator::read_one(&json!({"__type": "operator", "__var": fields})).expect("a task")
        };
        let at = |number| Try {
            dag_id: "d",
            logical_date: Some(Timestamp(1_704_067_200_000_000)),
            number,
        };
        assert_eq!(delay(&task(json!({})), at(3)), 10.0);
        let backing = task(json!({"retry_exponential_backoff": 2.0}));
        for (number, seconds) in [(1, 11.0), (2, 37.0), (3, 78.0)] {
            assert_eq!(delay(&backing, at(number)), seconds, "try {number}");
        }
        assert_eq!(delay(&backing, at(40)), 86400.0);
        let capped = task(json!({"retry_exponential_backoff": 2.0, "max_retry_delay": 12.0}));
        assert_eq!(delay(&capped, at(3)), 12.0);
    }
}
