//! The machines at work: one thread that waits for time, events and requests, and commits what
//! they decide through the runtime.
//!
//! Level-triggered: the store's rows are the truth. What could not be committed is taken up again
//! from its row, and events are read again from the log.

mod commit;
mod follow;
mod handle;
mod looks;
mod outside;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kobza_engine::{Command, StartRun, StopMode};
use kobza_model::{Json, RunId, RunState, Timestamp, Workflow};
use kobza_runtime::{Committed, Handle};
use kobza_store::{ObjectQuery, StoreError, StoredWorkflow, ViewError, Views, Write, kinds};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use crate::backfill::{Backfill, BackfillItem, BackfillRow, ItemRow, Items};
use crate::files::Watch;
use crate::row::TriggerRow;
use crate::{StartSpec, TimetableDialects, TriggerKey, Triggers, parse_triggers};

use handle::Request;
pub use handle::{BackfillAction, PreviewItem, TriggerHandle, TriggerView};

/// Longest sleep: the wall clock may be set while we sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(20);
/// Pause after the store refused something.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How often the place in the event log is written down. Reading a little twice does no harm.
const SAVE_EVERY: Duration = Duration::from_secs(5);
const REQUESTS: usize = 1024;
const PAGE: u32 = 1000;
/// The object that remembers the place in the event log.
const PLACE: &str = "triggers.seen";

/// Checks a run's parameters against the workflow and fills in defaults.
pub type Prepare = dyn Fn(&Workflow, Json) -> Result<Json, String> + Send + Sync;

/// A start that a dialect made of a slot: the run, and what belongs into the same transaction.
#[derive(Debug)]
pub struct DialectStart {
    /// Commands before the start.
    pub commands: Vec<Command>,
    pub run: StartAs,
    pub writes: Vec<Write>,
}

/// The run of a slot.
#[derive(Debug)]
pub enum StartAs {
    New(Box<StartRun>),
    /// One that there is already: the commands let it run again.
    Again(RunId),
}

/// Why a slot's run does not start.
#[derive(Debug)]
pub enum NoStart {
    /// It shall not: the slot is recorded as left out.
    Skipped(String),
    /// It cannot: the slot is recorded as failed.
    Refused(String),
    /// The store could not be read: it is tried again.
    Unreadable(String),
}

/// A dialect whose runs start in its own way: with its own names, conditions and objects.
pub trait Starter: Send + Sync {
    /// The run of a slot. Its id and its labels are those of `start`.
    fn start(
        &self,
        namespace: &str,
        workflow: &StoredWorkflow,
        start: StartSpec,
        now: Timestamp,
    ) -> Result<DialectStart, NoStart>;

    /// How the runs are stopped that a newer slot takes the place of.
    fn stop_mode(&self) -> StopMode;

    /// The newest run of a backfill's piece, where the dialect knows it by more than the trigger's
    /// own labels.
    fn newest(
        &self,
        _namespace: &str,
        _workflow: &str,
        _item: &BackfillItem,
    ) -> Option<Result<Option<(RunId, RunState)>, String>> {
        None
    }
}

/// What the service is made of.
#[derive(Clone)]
pub struct TriggerOptions {
    pub runtime: Handle,
    pub views: Arc<dyn Views>,
    pub prepare: Arc<Prepare>,
    /// Dialects that start runs in their own way, by name.
    pub starters: BTreeMap<&'static str, Arc<dyn Starter>>,
    /// The dialects that have timetables of their own.
    pub timetables: TimetableDialects,
    /// The wall clock.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl std::fmt::Debug for TriggerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TriggerOptions")
    }
}

/// Why the service could not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TriggerError {
    /// The caller's fault, in words for the caller.
    #[error("{0}")]
    Invalid(String),
    #[error("{0} does not exist")]
    Missing(String),
    /// Nothing was changed, or it is unknown whether it was.
    #[error(transparent)]
    Submit(#[from] kobza_runtime::SubmitError),
    #[error("reading failed: {0}")]
    Read(String),
    #[error("the trigger service has stopped")]
    Stopped,
}

impl From<ViewError> for TriggerError {
    fn from(error: ViewError) -> Self {
        Self::Read(error.to_string())
    }
}

impl From<StoreError> for TriggerError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.to_string())
    }
}

/// Starts the service on a thread of its own, with all that is stored: call it once the runtime
/// runs. Triggers are brought in line with the workflows' definitions first.
pub fn start(options: TriggerOptions) -> Result<TriggerHandle, TriggerError> {
    let (sender, receiver) = mpsc::channel(REQUESTS);
    let follower = options.runtime.follow();
    let (running, ended) = watch::channel(());
    let mut service = Service::new(options, sender.clone());
    service.load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Its views may block on a database: only this kind of runtime lets them.
        .worker_threads(1)
        .enable_time()
        .max_blocking_threads(2)
        .build()
        .map_err(|e| TriggerError::Invalid(format!("no timer for triggers: {e}")))?;
    std::thread::Builder::new()
        .name("kobza-triggers".to_owned())
        .spawn(move || {
            runtime.block_on(service.run(receiver, follower));
            // Only now nothing of the store is held any more.
            drop(runtime);
            drop(running);
        })
        .map_err(|e| TriggerError::Invalid(format!("no thread for triggers: {e}")))?;
    Ok(TriggerHandle::new(sender, ended))
}

struct Service {
    options: TriggerOptions,
    triggers: Triggers,
    backfills: BTreeMap<(String, String), Backfill>,
    /// Number of the newest event that was looked at; and as it is written down.
    seen: u64,
    saved: u64,
    saved_at: Instant,
    /// Events from here on must be read from the log.
    behind: bool,
    retry_at: Option<Instant>,
    /// Current versions; changed by [`TriggerHandle::set_workflow`] only.
    workflows: HashMap<(String, String), StoredWorkflow>,
    watches: BTreeMap<TriggerKey, (Watch, Instant)>,
    /// What waits until its rows can be read.
    unread: BTreeSet<TriggerKey>,
    unread_backfills: BTreeSet<(String, String)>,
    /// Pieces of backfills, which may have cost their dialects some time.
    items: HashMap<(String, String), Arc<Items>>,
    requests: mpsc::Sender<Request>,
}

impl Service {
    fn new(options: TriggerOptions, requests: mpsc::Sender<Request>) -> Self {
        Self {
            triggers: Triggers::with_timetables(options.timetables.clone()),
            options,
            backfills: BTreeMap::new(),
            seen: 0,
            saved: 0,
            saved_at: Instant::now(),
            behind: true,
            retry_at: None,
            workflows: HashMap::new(),
            watches: BTreeMap::new(),
            unread: BTreeSet::new(),
            unread_backfills: BTreeSet::new(),
            items: HashMap::new(),
            requests,
        }
    }

    fn now(&self) -> Timestamp {
        (self.options.clock)()
    }

    /// Reads all rows.
    fn load(&mut self) -> Result<(), TriggerError> {
        let views = Arc::clone(&self.options.views);
        let place = views.get_object(kinds::SETTING, "", PLACE)?;
        // Without a place the log is read from its begin: each trigger knows what it has reacted to.
        self.seen = place.and_then(|place| place.value["seen"].as_u64()).unwrap_or(0);
        self.saved = self.seen;
        for object in self.objects(kinds::TRIGGER, None, "")? {
            let row: Result<TriggerRow, _> = serde_json::from_value(object.value);
            let error = match row {
                Ok(row) => {
                    self.triggers.restore(&object.namespace, row).err().map(|e| e.to_string())
                }
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = error {
                // One bad row must not stop all the others.
                tracing::error!(trigger = object.key, error, "a stored trigger cannot be read");
            }
        }
        for object in self.objects(kinds::BACKFILL, None, "")? {
            if object.key.contains('/') {
                continue;
            }
            if let Err(error) = self.load_backfill(&object.namespace, &object.key) {
                tracing::error!(backfill = object.key, %error, "a stored backfill cannot be read");
            }
        }
        Ok(())
    }

    fn load_backfill(&mut self, namespace: &str, id: &str) -> Result<(), TriggerError> {
        let place = (namespace.to_owned(), id.to_owned());
        let Some(object) = self.options.views.get_object(kinds::BACKFILL, namespace, id)? else {
            self.backfills.remove(&place);
            return Ok(());
        };
        let unreadable = |e: serde_json::Error| TriggerError::Invalid(e.to_string());
        let row: BackfillRow = serde_json::from_value(object.value).map_err(unreadable)?;
        let items: Vec<ItemRow> = self
            .objects(kinds::BACKFILL, Some(namespace), &format!("{id}/"))?
            .into_iter()
            .map(|item| serde_json::from_value(item.value).map_err(unreadable))
            .collect::<Result<_, _>>()?;
        let known = self.items.get(&place).cloned();
        let pieces = match known {
            Some(pieces) => pieces,
            None if row.spec.timetable().is_some() => {
                self.find_items(place, row);
                return Ok(());
            }
            None => Arc::new(
                row.spec
                    .items(row.created_at, &self.options.timetables)
                    .map_err(|e| TriggerError::Invalid(e.to_string()))?,
            ),
        };
        self.backfills.insert(place, Backfill::restore(namespace, row, &items, pieces));
        Ok(())
    }

    /// Asks a dialect for a backfill's pieces, where that may take its time; it is taken up then.
    fn find_items(&self, place: (String, String), row: BackfillRow) {
        let (requests, dialects) = (self.requests.clone(), self.options.timetables.clone());
        std::thread::spawn(move || {
            let found = row.spec.items(row.created_at, &dialects);
            let items = found.map(Arc::new).map_err(|e| e.to_string());
            // The service may have ended: it will ask again when it begins anew.
            let _ended = requests.blocking_send(Request::Items { place, items });
        });
    }

    fn objects(
        &self,
        kind: &str,
        namespace: Option<&str>,
        prefix: &str,
    ) -> Result<Vec<kobza_store::StoredObject>, TriggerError> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let cursor_now = cursor.take();
            let query = ObjectQuery {
                kind,
                namespace,
                prefix,
                descending: false,
                cursor: cursor_now.as_deref(),
                limit: PAGE,
            };
            let page = self.options.views.list_objects(&query)?;
            all.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(all),
            }
        }
    }

    async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut follower: broadcast::Receiver<Committed>,
    ) {
        while let Err(error) = self.align().await {
            tracing::warn!(%error, "triggers wait for the store");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        loop {
            if self.retry_at.is_none_or(|at| at <= Instant::now()) {
                self.retry_at = None;
                self.catch_up().await;
                self.tick().await;
                self.advance_backfills().await;
            }
            self.save_place().await;
            self.ask_outside();
            self.ask_mappings();
            self.look_at_files();
            let wake = self.wake_at();
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::Stop) | None => return,
                    Some(request) => self.serve(request).await,
                },
                event = follower.recv() => match event {
                    Ok(committed) => self.committed(&committed).await,
                    Err(RecvError::Lagged(_)) => self.behind = true,
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// When there is something to do without anybody asking.
    fn wake_at(&mut self) -> Instant {
        let start = Instant::now();
        let mut wake = start + LONGEST_SLEEP;
        if let Some(retry) = self.retry_at {
            return wake.min(retry);
        }
        if let Some(due) = self.triggers.next_due() {
            let wait = due.0.saturating_sub(self.now().0).max(0);
            wake = wake.min(start + Duration::from_micros(wait.unsigned_abs()).min(LONGEST_SLEEP));
        }
        if self.seen != self.saved {
            wake = wake.min(self.saved_at + SAVE_EVERY);
        }
        self.watches.values().map(|(_, at)| *at).fold(wake, Instant::min)
    }

    fn retry_later(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY_PAUSE);
    }

    /// Brings triggers in line with the workflows: a crash may have come between the two.
    async fn align(&mut self) -> Result<(), TriggerError> {
        let mut known = BTreeSet::new();
        let mut cursor: Option<String> = None;
        loop {
            let filter = kobza_store::WorkflowFilter::default();
            let page = self.options.views.list_workflows(&filter, cursor.as_deref(), PAGE)?;
            for summary in page.items {
                let (namespace, name) = (summary.namespace, summary.name);
                let stored = self.options.views.get_workflow(&namespace, &name, None)?;
                let Some(stored) = stored else { continue };
                if !stored.workflow.triggers.is_null() {
                    self.remember(&namespace, &name, &stored);
                }
                known.insert((namespace.clone(), name.clone()));
                match parse_triggers(&stored.workflow.triggers) {
                    Ok(specs) => {
                        let (now, seen) = (self.now(), self.seen);
                        let mut steps =
                            self.triggers.set_workflow(&namespace, &name, specs, seen, now);
                        if summary.paused {
                            steps.extend(
                                self.triggers.set_workflow_paused(&namespace, &name, true, now),
                            );
                        }
                        self.commit(steps).await.into_result()?;
                    }
                    Err(errors) => {
                        let error = errors.first().map(ToString::to_string).unwrap_or_default();
                        tracing::error!(workflow = name, error, "its triggers cannot be read");
                    }
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let orphans: Vec<TriggerKey> = self
            .triggers
            .iter()
            .filter(|(key, _, _)| !known.contains(&(key.namespace.clone(), key.workflow.clone())))
            .map(|(key, _, _)| key.clone())
            .collect();
        let steps = orphans.iter().filter_map(|key| self.triggers.remove(key)).collect();
        self.commit(steps).await.into_result()?;
        self.check_active().await
    }
}
