//! What follows the ends of workflows: counts and history of cron workflows, the deletion of
//! workflows whose time to live is over, and of logs and artifacts that go before them.
//!
//! Level-triggered: each look starts from the store, so a crash between the end of a run and what
//! follows from it loses nothing, and what was counted is written down with the count.

use std::collections::BTreeSet;
use std::time::Duration;

use kobza_blobs::LogStore;
use kobza_model::{EventKind, Json, RunId, RunRow, RunState, Timestamp};
use kobza_runtime::Submission;
use kobza_store::{ObjectQuery, RunFilter, Write};
use tokio::sync::broadcast::error::RecvError;

use super::acts::CACHE;
use super::collect;
use super::cron::record_write;
use super::runs::start_key;
use super::{ArgoError, ArgoState, OBJECT, blocking};
use crate::cron::{CRON_LABEL, history_limits, stops};

/// Runs of one page.
const PAGE: u32 = 500;
/// Longest sleep: the wall clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// Pause after something could not be read or written.
const PAUSE: Duration = Duration::from_secs(1);

struct Upkeep {
    state: ArgoState,
    /// Cron workflows to look at, by namespace and name.
    crons: BTreeSet<(String, String)>,
    /// What is to be done with finished runs, and when.
    due: BTreeSet<(Timestamp, RunId, Due)>,
}

/// What comes due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Due {
    Logs,
    Artifacts,
    /// The run itself goes.
    Run,
}

impl ArgoState {
    /// Starts the upkeep on a thread of its own; it ends with the loop.
    pub fn start_upkeep(&self) -> std::io::Result<()> {
        let state = self.clone();
        let mut events = self.handle.follow();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // Its reads block on a database: only this kind of runtime lets them.
            .worker_threads(1)
            .enable_time()
            .build()?;
        std::thread::Builder::new().name("argo-upkeep".to_owned()).spawn(move || {
            let mut upkeep = Upkeep { state, crons: BTreeSet::new(), due: BTreeSet::new() };
            runtime.block_on(async {
                let mut fresh = true;
                loop {
                    if std::mem::take(&mut fresh)
                        && let Err(error) = upkeep.look_at_all()
                    {
                        tracing::warn!(error = error.message, "workflows could not be looked at");
                        fresh = true;
                    }
                    let worked = upkeep.work().await;
                    if let Err(error) = &worked {
                        tracing::warn!(error = error.message, "upkeep of workflows waits");
                    }
                    let wait = if fresh || worked.is_err() { PAUSE } else { upkeep.wait() };
                    tokio::select! {
                        received = events.recv() => match received {
                            Ok(committed) => {
                                let ended = committed.events.iter().filter_map(|event| match &event.kind {
                                    EventKind::Run { state, .. } if state.is_finished() => event.run,
                                    _ => None,
                                });
                                for run in ended {
                                    fresh |= upkeep.ended(run).is_err();
                                }
                            }
                            Err(RecvError::Lagged(_)) => fresh = true,
                            Err(RecvError::Closed) => return,
                        },
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            });
        })?;
        Ok(())
    }
}

/// When a finished run is deleted by its time to live.
fn time_to_live(run: &RunRow) -> Option<Timestamp> {
    let strategy = &run.extra["argo"]["retention"]["ttlStrategy"];
    let own = match run.state {
        RunState::Succeeded => &strategy["secondsAfterSuccess"],
        _ => &strategy["secondsAfterFailure"],
    };
    let seconds = own.as_i64().or(strategy["secondsAfterCompletion"].as_i64())?;
    Some(run.ended_at?.saturating_add_micros(seconds.saturating_mul(1_000_000)))
}

impl Upkeep {
    fn wait(&self) -> Duration {
        let Some((due, ..)) = self.due.first() else { return LONGEST_SLEEP };
        let left = due.0.saturating_sub(kobza_runtime::wall_now().0).max(0);
        Duration::from_micros(left.unsigned_abs()).min(LONGEST_SLEEP)
    }

    /// Everything that is stored: after a start, and after lost events.
    fn look_at_all(&mut self) -> Result<(), ArgoError> {
        let filter = RunFilter {
            states: vec![RunState::Succeeded, RunState::Failed, RunState::Cancelled],
            ..RunFilter::default()
        };
        let mut cursor: Option<String> = None;
        loop {
            let page = self.state.views.list_runs(&filter, cursor.as_deref(), PAGE)?;
            for run in &page.items {
                self.note(run);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    fn ended(&mut self, run: RunId) -> Result<(), ArgoError> {
        if let Some(run) = self.state.views.get_run(run)? {
            self.note(&run);
        }
        Ok(())
    }

    fn note(&mut self, run: &RunRow) {
        if run.dialect != "argo" || !run.state.is_finished() {
            return;
        }
        if let Some(cron) = run.labels[CRON_LABEL].as_str() {
            self.crons.insert((run.namespace.clone(), cron.to_owned()));
        }
        if let Some(due) = time_to_live(run) {
            self.due.insert((due, run.run, Due::Run));
        }
        if let Some(due) = collect::logs_due(run) {
            self.due.insert((due, run.run, Due::Logs));
        }
        if let (true, Some(ended)) = (collect::has_artifacts_to_go(run), run.ended_at) {
            self.due.insert((ended, run.run, Due::Artifacts));
        }
    }

    async fn work(&mut self) -> Result<(), ArgoError> {
        while let Some((namespace, name)) = self.crons.first().cloned() {
            self.count(&namespace, &name).await?;
            self.crons.remove(&(namespace, name));
        }
        while let Some(&(at, run, what)) = self.due.first() {
            if at > kobza_runtime::wall_now() {
                break;
            }
            // A retried workflow lives again, and gets other times.
            if let Some(row) = self.state.views.get_run(run)?
                && row.state.is_finished()
            {
                self.come_due(row, at, what).await?;
            }
            self.due.remove(&(at, run, what));
        }
        Ok(())
    }

    async fn come_due(&mut self, run: RunRow, at: Timestamp, what: Due) -> Result<(), ArgoError> {
        let state = self.state.clone();
        match what {
            Due::Run if time_to_live(&run) == Some(at) => self.delete(vec![run], None).await,
            Due::Logs if collect::logs_due(&run) == Some(at) => {
                blocking(move || state.collect_logs(&run)).await
            }
            Due::Artifacts if run.ended_at == Some(at) => {
                let write = blocking(move || {
                    let key = collect::gone_key(crate::names::workflow_name(&run));
                    if state.store.object(OBJECT, &run.namespace, &key)?.is_some() {
                        return Ok(None);
                    }
                    let data = state.load(run.run)?;
                    Ok(Some(state.collect_artifacts(&data, collect::When::Completion)))
                });
                let writes = write.await?.into_iter().collect();
                self.state.handle.submit(Submission { commands: Vec::new(), writes }).await?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Counts finished workflows of a cron workflow, and deletes those that are too many.
    async fn count(&mut self, namespace: &str, name: &str) -> Result<(), ArgoError> {
        let key = format!("CronWorkflow/{name}");
        let Some(cron) = self.state.store.object(OBJECT, namespace, &key)? else { return Ok(()) };
        let before = self.state.cron_record(namespace, name)?;
        let mut record = before.clone();
        let mut finished: Vec<RunRow> = Vec::new();
        let mut cursor: Option<String> = None;
        let filter = self.state.of_cron(namespace, name);
        loop {
            let page = self.state.views.list_runs(&filter, cursor.as_deref(), PAGE)?;
            finished.extend(page.items.into_iter().filter(|run| run.state.is_finished()));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        for run in &finished {
            let id = run.run.to_string();
            if !record.counted.contains(&id) {
                match run.state {
                    RunState::Succeeded => record.succeeded += 1,
                    _ => record.failed += 1,
                }
                record.counted.push(id);
            }
        }
        let (succeeded, failed) = history_limits(&cron["spec"]);
        finished.sort_by_key(|run| std::cmp::Reverse(run.ended_at));
        let (mut kept_well, mut kept_badly) = (0, 0);
        let old: Vec<RunRow> = finished
            .into_iter()
            .filter(|run| {
                let (kept, limit) = match run.state {
                    RunState::Succeeded => (&mut kept_well, succeeded),
                    _ => (&mut kept_badly, failed),
                };
                *kept += 1;
                *kept > limit
            })
            .collect();
        record.counted.retain(|id| !old.iter().any(|run| run.run.to_string() == *id));
        let now = kobza_runtime::wall_now();
        record.stopped |= stops(&cron, &record, now).unwrap_or(false);
        if record == before && old.is_empty() {
            return Ok(());
        }
        self.delete(old, Some(record_write(namespace, name, Some(&record)))).await
    }

    async fn delete(&self, runs: Vec<RunRow>, more: Option<Write>) -> Result<(), ArgoError> {
        delete(&self.state, runs, more).await
    }
}

/// Removes finished workflows, with their logs and those of their artifacts that go with them.
pub(super) async fn delete(
    state: &ArgoState,
    runs: Vec<RunRow>,
    more: Option<Write>,
) -> Result<(), ArgoError> {
    let reading = state.clone();
    let (runs, mut writes) = blocking(move || {
        let mut writes = Vec::new();
        for run in &runs {
            if collect::has_artifacts_to_go(run) {
                let data = reading.load(run.run)?;
                // What it could not remove is told in the server's log: the note goes as well.
                let _note = reading.collect_artifacts(&data, collect::When::Deletion);
            }
            writes.extend(removal(&reading, run)?);
        }
        Ok((runs, writes))
    })
    .await?;
    writes.extend(more);
    state.handle.submit(Submission { commands: Vec::new(), writes }).await?;
    remove_logs(&state.logs, &runs);
    Ok(())
}

/// The writes that remove a finished workflow, and what is kept beside it.
fn removal(state: &ArgoState, run: &RunRow) -> Result<Vec<Write>, ArgoError> {
    let name = crate::names::workflow_name(run);
    let gone = |kind, key| Write::PutObject {
        kind,
        namespace: run.namespace.clone(),
        key,
        value: None::<Json>,
    };
    let mut writes = vec![
        Write::DeleteRun { run: run.run },
        gone(OBJECT, start_key(name)),
        gone(OBJECT, collect::gone_key(name)),
    ];
    if let Some(token) = run.extra["argo"]["memoized"].as_str() {
        let mut cursor: Option<String> = None;
        loop {
            let page = state.views.list_objects(&ObjectQuery {
                kind: CACHE,
                namespace: Some(&run.namespace),
                prefix: &crate::decide::resubmit_key(token, ""),
                descending: false,
                cursor: cursor.as_deref(),
                limit: PAGE,
            })?;
            writes.extend(page.items.into_iter().map(|object| gone(CACHE, object.key)));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(writes)
}

fn remove_logs(logs: &LogStore, runs: &[RunRow]) {
    for run in runs {
        if let Err(error) = logs.remove_run(run.run) {
            tracing::warn!(%error, run = %run.run, "logs of a deleted workflow remain");
        }
    }
}
