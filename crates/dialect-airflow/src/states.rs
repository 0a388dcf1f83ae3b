//! Airflow's words for states of runs and task instances, both ways.

use kobza_model::{Cause, RunState, TaskState, Timestamp};

/// The state of a DAG run. Airflow knows four.
#[must_use]
pub fn run_word(state: RunState) -> &'static str {
    match state {
        RunState::Queued => "queued",
        RunState::Running | RunState::Paused | RunState::Cancelling => "running",
        RunState::Succeeded => "success",
        RunState::Failed | RunState::Cancelled => "failed",
    }
}

/// The states that a word means, for filters. None if it is no word of Airflow's.
#[must_use]
pub fn runs_of(word: &str) -> Option<&'static [RunState]> {
    Some(match word {
        "queued" => &[RunState::Queued],
        "running" => &[RunState::Running, RunState::Paused, RunState::Cancelling],
        "success" => &[RunState::Succeeded],
        "failed" => &[RunState::Failed, RunState::Cancelled],
        _ => return None,
    })
}

/// The state of a task instance; none is Airflow's own "no status".
#[must_use]
pub fn task_word(state: TaskState, cause: Cause) -> Option<&'static str> {
    Some(match state {
        TaskState::Pending => return None,
        TaskState::Ready => "scheduled",
        TaskState::Queued => "queued",
        TaskState::Running => "running",
        TaskState::RetryWait => "up_for_retry",
        TaskState::Deferred => "deferred",
        TaskState::Rescheduled => "up_for_reschedule",
        TaskState::Suspended => "awaiting_input",
        TaskState::Cancelling => "restarting",
        TaskState::Succeeded => "success",
        TaskState::Failed => "failed",
        TaskState::Skipped => "skipped",
        TaskState::UpstreamFailed => "upstream_failed",
        // What had not begun when its run was stopped, or ran out of time, Airflow skips.
        TaskState::Cancelled if cause == Cause::RunCancelled || cause == Cause::FailFast => {
            "skipped"
        }
        TaskState::Cancelled => "failed",
        TaskState::Removed => "removed",
    })
}

/// The states that a word means, for filters. None if it is no word of Airflow's.
#[must_use]
pub fn tasks_of(word: &str) -> Option<&'static [TaskState]> {
    Some(match word {
        "none" | "no_status" => &[TaskState::Pending],
        "scheduled" => &[TaskState::Ready],
        "queued" => &[TaskState::Queued],
        "running" => &[TaskState::Running],
        "restarting" => &[TaskState::Cancelling],
        "up_for_retry" => &[TaskState::RetryWait],
        "up_for_reschedule" => &[TaskState::Rescheduled],
        "deferred" => &[TaskState::Deferred],
        "awaiting_input" => &[TaskState::Suspended],
        "success" => &[TaskState::Succeeded],
        "failed" => &[TaskState::Failed, TaskState::Cancelled],
        "skipped" => &[TaskState::Skipped, TaskState::Cancelled],
        "upstream_failed" => &[TaskState::UpstreamFailed],
        "removed" => &[TaskState::Removed],
        _ => return None,
    })
}

/// An instant as Airflow writes it in run ids: ISO 8601 in UTC, with `+00:00`.
#[must_use]
pub fn date(at: Timestamp) -> String {
    let Ok(instant) = jiff::Timestamp::from_microsecond(at.0) else { return at.0.to_string() };
    let zoned = instant.to_zoned(jiff::tz::TimeZone::UTC);
    let micros = at.0.rem_euclid(1_000_000);
    let part = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    format!("{}{part}+00:00", zoned.strftime("%Y-%m-%dT%H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_total_and_agree_both_ways() {
        for &state in RunState::ALL {
            assert!(runs_of(run_word(state)).is_some_and(|all| all.contains(&state)));
        }
        for &state in TaskState::ALL {
            for &cause in Cause::ALL {
                let word = task_word(state, cause).unwrap_or("none");
                assert!(tasks_of(word).is_some_and(|all| all.contains(&state)), "{state} {cause}");
            }
        }
        assert_eq!(date(Timestamp(1_704_067_200_000_001)), "2024-01-01T00:00:00.000001+00:00");
    }
}
