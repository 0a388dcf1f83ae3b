//! Keeping a store: backup and restore, and the removal of old runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use kobza_blobs::LogStore;
use kobza_model::{RunState, Timestamp};
use kobza_runtime::{Handle, Submission, SubmitError, wall_now};
use kobza_store::{
    ObjectQuery, RunFilter, SqliteOptions, SqliteStore, StoredObject, ViewError, Views, Write,
    kinds,
};

use crate::cli::{BackupArgs, RestoreArgs};
use crate::failure::Failure;

/// How often old runs are looked for.
const EVERY: Duration = Duration::from_secs(600);
/// Runs deleted in one transaction: bounds how long others wait for it.
const AT_ONCE: u32 = 100;
/// Objects looked at in one go, and deleted in one transaction at most.
const PAGE: u32 = 1000;

/// `kobza backup`: a consistent copy, also while a server works on the store; through that server
/// when one is named.
pub(crate) fn backup(args: BackupArgs) -> Result<(), Failure> {
    let bytes = match args.look.client()? {
        Some(client) => client.download("POST", "/backup", &args.file)?,
        None => {
            let folder = args.look.folder()?;
            SqliteStore::open_read_only(&folder, SqliteOptions::default())?.backup(&args.file)?
        }
    };
    crate::out::show!("{} bytes in {}", bytes, args.file.display());
    Ok(())
}

/// `kobza restore`: puts a copy in place; never while a server has the store.
pub(crate) fn restore(args: RestoreArgs) -> Result<(), Failure> {
    Ok(SqliteStore::restore(&args.place.data()?, &args.file, args.force)?)
}

/// How often artifacts are looked for that no run has: all outputs are read for it.
const ARTIFACTS_EVERY: Duration = Duration::from_secs(6 * 3600);

/// What goes by its age as soon as `keep` is set: kinds of objects and what their keys begin with.
/// All other objects belong to definitions, accounts or settings, and go with them.
const AGEING: &[(&str, &str)] = &[
    (kinds::SLOT, ""),
    (kinds::DECISION, ""),
    (kinds::NOTIFICATION, ""),
    (kinds::CACHE, ""),
    (kinds::NOTE, ""),
    (kinds::WORKER, ""),
    (kinds::AIRFLOW_OBJECT, "hitl/"),
    (kinds::AIRFLOW_OBJECT, "task_state/"),
];

/// Answers to idempotency keys, and sessions, are of no use after so long, whatever `keep` says.
const A_DAY: Duration = Duration::from_secs(86_400);
/// Who did what is kept for so long at least.
const AUDIT: Duration = Duration::from_secs(366 * 86_400);
/// Objects are looked through once in so many rounds.
const ROUNDS: u32 = 6;

/// Keeps the store from growing for ever: again and again, until the loop stops, what is of no use
/// any more is deleted; and with `keep` what is older than that: runs that ended, their logs
/// and artifacts, events, and what [`AGEING`] names.
pub(crate) fn retain(
    handle: Handle,
    views: std::sync::Arc<dyn Views>,
    logs: LogStore,
    data: PathBuf,
    keep: Option<Duration>,
) -> std::io::Result<()> {
    std::thread::Builder::new().name("retention".to_owned()).spawn(move || {
        let upkeep = Upkeep { handle, views: views.as_ref(), logs };
        let mut artifacts_swept: Option<Instant> = None;
        for round in 0u32.. {
            match upkeep.round(keep, round % ROUNDS == 0) {
                Ok(()) => {
                    let due = artifacts_swept.is_none_or(|at| at.elapsed() >= ARTIFACTS_EVERY);
                    if let Some(keep) = keep.filter(|_| due) {
                        sweep_artifacts(&data, views.as_ref(), keep);
                        artifacts_swept = Some(Instant::now());
                    }
                }
                Err(Sweep::Stopped) => return,
                Err(Sweep::Failed(error)) => {
                    tracing::error!(error, "what is old could not be deleted; tried again later");
                }
            }
            std::thread::sleep(EVERY);
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

impl From<ViewError> for Sweep {
    fn from(error: ViewError) -> Self {
        Self::Failed(error.to_string())
    }
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)))
}

struct Upkeep<'a> {
    handle: Handle,
    views: &'a dyn Views,
    logs: LogStore,
}

impl Upkeep<'_> {
    fn round(&self, keep: Option<Duration>, objects: bool) -> Result<(), Sweep> {
        let now = wall_now();
        if let Some(keep) = keep {
            let cutoff = before(now, keep);
            self.runs(cutoff)?;
            self.events(cutoff)?;
            if objects {
                for (kind, prefix) in AGEING {
                    self.objects(kind, prefix, cutoff)?;
                }
                self.backfills(cutoff)?;
                self.objects(kinds::AUDIT, "", before(now, keep.max(AUDIT)))?;
            }
        }
        if objects {
            self.objects(kinds::IDEMPOTENCY, "", before(now, A_DAY))?;
            self.objects(kinds::SESSION, "", before(now, A_DAY))?;
        }
        Ok(())
    }

    fn write(&self, writes: Vec<Write>) -> Result<(), Sweep> {
        match self.handle.submit_blocking(Submission { commands: Vec::new(), writes }) {
            Ok(_) => Ok(()),
            Err(SubmitError::Stopped) => Err(Sweep::Stopped),
            Err(error) => Err(Sweep::Failed(error.to_string())),
        }
    }

    fn runs(&self, cutoff: Timestamp) -> Result<(), Sweep> {
        let filter = RunFilter {
            states: vec![RunState::Succeeded, RunState::Failed, RunState::Cancelled],
            created_until: Some(cutoff),
            ..RunFilter::default()
        };
        let mut cursor: Option<String> = None;
        loop {
            let page = self.views.list_runs(&filter, cursor.as_deref(), AT_ONCE)?;
            let ended = page.items.iter().filter(|r| r.ended_at.is_some_and(|end| end < cutoff));
            let old: Vec<_> = ended.map(|r| r.run).collect();
            if !old.is_empty() {
                self.write(old.iter().map(|&run| Write::DeleteRun { run }).collect())?;
                for run in old {
                    if let Err(error) = self.logs.remove_run(run) {
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

    /// Events, and what happened to assets, a bounded piece in each transaction.
    fn events(&self, cutoff: Timestamp) -> Result<(), Sweep> {
        loop {
            let before = self.oldest_event()?;
            self.write(vec![Write::Retain { ended_before: cutoff, limit: 0 }])?;
            let after = self.oldest_event()?;
            if before == after || after.is_none_or(|(_, at)| at >= cutoff) {
                return Ok(());
            }
        }
    }

    fn oldest_event(&self) -> Result<Option<(u64, Timestamp)>, Sweep> {
        let page = self.views.events_since(0, 1, None)?;
        Ok(page.events.first().map(|(number, event)| (*number, event.at)))
    }

    /// Deletes objects that have not changed since.
    fn objects(&self, kind: &'static str, prefix: &str, cutoff: Timestamp) -> Result<(), Sweep> {
        self.objects_if(kind, prefix, |object| object.updated_at < cutoff)
    }

    fn objects_if(
        &self,
        kind: &'static str,
        prefix: &str,
        old: impl Fn(&StoredObject) -> bool,
    ) -> Result<(), Sweep> {
        let mut cursor: Option<String> = None;
        loop {
            let query = ObjectQuery {
                kind,
                prefix,
                cursor: cursor.as_deref(),
                limit: PAGE,
                ..ObjectQuery::default()
            };
            let page = self.views.list_objects(&query)?;
            let writes: Vec<Write> = page
                .items
                .into_iter()
                .filter(&old)
                .map(|object| Write::PutObject {
                    kind,
                    namespace: object.namespace,
                    key: object.key,
                    value: None,
                })
                .collect();
            if !writes.is_empty() {
                self.write(writes)?;
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Backfills that ended before, each with what became of its slots.
    fn backfills(&self, cutoff: Timestamp) -> Result<(), Sweep> {
        let mut gone: BTreeSet<(String, String)> = BTreeSet::new();
        let ended = |object: &StoredObject| {
            let at = object.value["ended_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
            at.is_some_and(|at| at < cutoff)
        };
        let mut cursor: Option<String> = None;
        loop {
            let query = ObjectQuery {
                kind: kinds::BACKFILL,
                cursor: cursor.as_deref(),
                limit: PAGE,
                ..ObjectQuery::default()
            };
            let page = self.views.list_objects(&query)?;
            let own = page.items.iter().filter(|object| !object.key.contains('/'));
            gone.extend(own.filter(|o| ended(o)).map(|o| (o.namespace.clone(), o.key.clone())));
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        self.objects_if(kinds::BACKFILL, "", |object| {
            let id = object.key.split('/').next().unwrap_or_default().to_owned();
            gone.contains(&(object.namespace.clone(), id))
        })
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
