//! Keeping a store: backup and restore, and the removal of old runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use kobza_blobs::LogStore;
use kobza_model::{RunState, Timestamp};
use kobza_runtime::{Handle, Submission, SubmitError, wall_now};
use kobza_store::{RunFilter, SqliteOptions, SqliteStore, Views, Write};

use crate::cli::{BackupArgs, RestoreArgs};
use crate::failure::Failure;

/// How often old runs are looked for.
const EVERY: Duration = Duration::from_secs(600);
/// Runs deleted in one transaction: bounds how long others wait for it.
const AT_ONCE: u32 = 100;

/// `kobza backup`: a consistent copy, also while a server works on the store.
pub(crate) fn backup(args: BackupArgs) -> Result<(), Failure> {
    let store = SqliteStore::open_read_only(&args.place.data()?, SqliteOptions::default())?;
    let bytes = store.backup(&args.file)?;
    crate::out::show!("{} bytes in {}", bytes, args.file.display());
    Ok(())
}

/// `kobza restore`: puts a copy in place; never while a server has the store.
pub(crate) fn restore(args: RestoreArgs) -> Result<(), Failure> {
    Ok(SqliteStore::restore(&args.place.data()?, &args.file, args.force)?)
}

/// How often artifacts are looked for that no run has: all outputs are read for it.
const ARTIFACTS_EVERY: Duration = Duration::from_secs(6 * 3600);

/// Deletes runs that ended longer ago than `keep`, with their logs and then their artifacts, again
/// and again until the loop stops.
pub(crate) fn retain(
    handle: Handle,
    views: std::sync::Arc<dyn Views>,
    logs: LogStore,
    data: PathBuf,
    keep: Duration,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("retention".to_owned()).spawn(move || {
        let mut artifacts_swept: Option<Instant> = None;
        loop {
            match sweep(&handle, views.as_ref(), &logs, keep) {
                Ok(()) => {
                    if artifacts_swept.is_none_or(|at| at.elapsed() >= ARTIFACTS_EVERY) {
                        sweep_artifacts(&data, views.as_ref(), keep);
                        artifacts_swept = Some(Instant::now());
                    }
                    std::thread::sleep(EVERY);
                }
                Err(Sweep::Stopped) => return,
                Err(Sweep::Failed(error)) => {
                    tracing::error!(error, "old runs could not be deleted; tried again later");
                    std::thread::sleep(EVERY);
                }
            }
        }
    })?;
    Ok(())
}

fn sweep_artifacts(data: &Path, views: &dyn Views, keep: Duration) {
    let now = u64::try_from(wall_now().0).unwrap_or(0);
    let Some(before) = Duration::from_micros(now).checked_sub(keep) else { return };
    let before = SystemTime::UNIX_EPOCH + before;
    match crate::artifacts::sweep(data, views, before) {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "artifacts of deleted runs are removed"),
        Err(error) => tracing::error!(error, "old artifacts remain; tried again later"),
    }
}

enum Sweep {
    Stopped,
    Failed(String),
}

fn sweep(handle: &Handle, views: &dyn Views, logs: &LogStore, keep: Duration) -> Result<(), Sweep> {
    let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let cutoff = Timestamp(wall_now().0.saturating_sub(keep));
    let filter = RunFilter {
        states: vec![RunState::Succeeded, RunState::Failed, RunState::Cancelled],
        created_until: Some(cutoff),
        ..RunFilter::default()
    };
    let mut cursor: Option<String> = None;
    loop {
        let page = views
            .list_runs(&filter, cursor.as_deref(), AT_ONCE)
            .map_err(|e| Sweep::Failed(e.to_string()))?;
        let old: Vec<_> = page
            .items
            .iter()
            .filter(|r| r.ended_at.is_some_and(|end| end < cutoff))
            .map(|r| r.run)
            .collect();
        if !old.is_empty() {
            let writes = old.iter().map(|&run| Write::DeleteRun { run }).collect();
            match handle.submit_blocking(Submission { commands: Vec::new(), writes }) {
                Ok(_) => {}
                Err(SubmitError::Stopped) => return Err(Sweep::Stopped),
                Err(error) => return Err(Sweep::Failed(error.to_string())),
            }
            for run in old {
                if let Err(error) = logs.remove_run(run) {
                    tracing::warn!(%error, %run, "logs of a deleted run remain");
                }
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}

/// `30d`, `12h`, `90m`, `45s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 30d, 12h or 45m");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        'd' => 86_400,
        'h' => 3_600,
        'm' => 60,
        's' => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations() {
        assert_eq!(duration("2d").unwrap().as_secs(), 172_800);
        assert_eq!(duration("45s").unwrap().as_secs(), 45);
        for bad in ["", "d", "1", "1w", "-1d", "99999999999999999999d", "18446744073709551615d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
