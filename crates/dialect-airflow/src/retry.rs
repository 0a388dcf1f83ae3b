//! Whether and when Airflow tries a task again. Pure.

use kobza_model::Timestamp;
use sha1::{Digest as _, Sha1};

use crate::dag::Operator;
use crate::timetable::python_str;

/// The longest delay that backing off leads to, in seconds (`MAX_RETRY_DELAY`).
const MAX_DELAY: u128 = 24 * 60 * 60;

/// What a delay depends on beside the operator.
#[derive(Clone, Copy, Debug)]
pub struct Try<'a> {
    pub dag_id: &'a str,
    /// None for runs that assets started.
    pub logical_date: Option<Timestamp>,
    /// The try that failed, from 1.
    pub number: u32,
}

/// What a task says about its retries.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RetryPolicy {
    /// Seconds.
    pub delay: f64,
    /// By how much each delay is longer than the last; 0 and 1: not at all.
    pub exponential_backoff: f64,
    /// Bounds what backing off comes to, in seconds; nothing and 0: it does not.
    pub max_delay: Option<f64>,
}

/// Seconds from the end of a failed try to the next one.
#[must_use]
pub fn delay(task: &Operator, tried: Try<'_>) -> f64 {
    let policy = RetryPolicy {
        delay: task.retry_delay,
        exponential_backoff: task.retry_exponential_backoff,
        max_delay: task.max_retry_delay,
    };
    policy.delay(&task.task_id, tried)
}

impl RetryPolicy {
    /// Seconds from the end of a failed try to the next one. With backing off, a part of it follows
    /// from a hash of the task instance, so that many do not come back at once.
    #[must_use]
    pub fn delay(&self, task_id: &str, tried: Try<'_>) -> f64 {
        let factor = if self.exponential_backoff == 0.0 { 1.0 } else { self.exponential_backoff };
        if factor == 1.0 || factor.is_nan() || factor <= 0.0 {
            return self.delay;
        }
        // With `pow`, as Python: multiplying step by step rounds elsewhere.
        let grown = (self.delay * factor.powf(f64::from(tried.number) - 1.0)).ceil();
        // Beyond 2^120 all that Python's integers could say is capped below.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let base =
            if grown.is_finite() && grown < 1.3e36 { (grown as u128).max(1) } else { MAX_DELAY };
        let seconds = (base + remainder(&hash(task_id, tried), base)).min(MAX_DELAY);
        #[expect(clippy::cast_precision_loss, reason = "at most a day")]
        let seconds = seconds as f64;
        self.max_delay.filter(|most| *most > 0.0).map_or(seconds, |most| seconds.min(most))
    }
}

/// The same for the same try, so that a delay does not change when it is computed again.
fn hash(task_id: &str, tried: Try<'_>) -> [u8; 20] {
    let date = tried.logical_date.map_or_else(|| "None".to_owned(), python_str);
    let words = format!("{}#{task_id}#{date}#{}", tried.dag_id, tried.number);
    Sha1::digest(words.as_bytes()).into()
}

/// The remainder of a number of many bytes, the most significant first.
fn remainder(number: &[u8], by: u128) -> u128 {
    number.iter().fold(0, |rest, byte| (rest * 256 + u128::from(*byte)) % by)
}

/// Whether a failed task is tried again. `max_tries` grows with each clear; `restarting`: it was
/// cleared while it ran.
#[must_use]
pub fn should_retry(restarting: bool, max_tries: u32, try_number: u32) -> bool {
    restarting || (max_tries != 0 && try_number <= max_tries)
}

#[cfg(test)]
mod tests {
    use super::{RetryPolicy, Try};

    #[test]
    fn a_plain_delay_is_not_bounded() {
        let tried = Try { dag_id: "d", logical_date: None, number: 9 };
        let policy = RetryPolicy { delay: 7.5, exponential_backoff: 0.0, max_delay: Some(1.0) };
        assert_eq!(policy.delay("t", tried), 7.5);
    }

    #[test]
    fn backing_off_is_capped_at_a_day_however_many_tries() {
        let policy = RetryPolicy { delay: 1.0, exponential_backoff: 2.0, max_delay: None };
        for number in [60, 120, 2000, u32::MAX] {
            let tried = Try { dag_id: "d", logical_date: None, number };
            assert_eq!(policy.delay("t", tried), 86_400.0);
        }
    }
}
