//! What the service does with steps, requests and time.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_engine::{StartRun, StopMode};
use kobza_model::{RunId, RunState, Timestamp, Workflow};
use kobza_runtime::{Submission, SubmitError};
use kobza_schedule::partition::PartitionDefinition;
use kobza_store::{RunFilter, StoredWorkflow, Write, kinds};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::commit::{Carried, End, Prepared, Proposal, carry_out};
use super::{DialectStart, NoStart, PLACE, SAVE_EVERY, Service, StartAs, Starter, TriggerError};
use crate::backfill::{BackfillItem, BackfillStep, ItemStatus};
use crate::row::{SlotRow, TriggerRow};
use crate::{StartSpec, Step, TriggerKey};

/// Triggers that are decided before the first of them is committed.
const AT_ONCE: usize = 256;

/// What became of steps.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) slots: Vec<(TriggerKey, SlotRow)>,
    /// Some machine was taken up again from its row: events may have to be read again.
    pub(super) incomplete: bool,
    pub(super) error: Option<SubmitError>,
}

impl Outcome {
    pub(super) fn into_result(self) -> Result<Self, TriggerError> {
        match self.error {
            Some(error) => Err(error.into()),
            None => Ok(self),
        }
    }
}

impl Service {
    /// Commits triggers' steps: each trigger's in order, all triggers at once.
    pub(super) async fn commit(&mut self, steps: Vec<Step>) -> Outcome {
        let mut under_way = JoinSet::new();
        self.begin(steps, &mut under_way);
        self.settle(under_way).await
    }

    /// Has triggers' steps committed meanwhile. No trigger may have others under way.
    fn begin(&mut self, steps: Vec<Step>, under_way: &mut JoinSet<(TriggerKey, Carried<Step>)>) {
        let mut groups: BTreeMap<TriggerKey, Vec<Prepared<Step>>> = BTreeMap::new();
        for step in steps {
            let key = step.trigger.clone();
            let prepared = self.prepare(&key.namespace, &key.workflow, None, step);
            groups.entry(key).or_default().push(prepared);
        }
        for (key, group) in groups {
            let runtime = self.options.runtime.clone();
            under_way.spawn(async move { (key, carry_out(runtime, group).await) });
        }
    }

    /// Waits for what is under way, and takes up again the triggers whose steps were not taken as
    /// they were proposed.
    async fn settle(&mut self, under_way: JoinSet<(TriggerKey, Carried<Step>)>) -> Outcome {
        let mut outcome = Outcome::default();
        for (key, carried) in under_way.join_all().await {
            let Carried { done, end } = carried;
            let last = done.last().and_then(|step| step.row.clone());
            for step in done {
                outcome.slots.extend(step.slots.into_iter().map(|(_, row)| (key.clone(), row)));
            }
            match end {
                End::Whole => continue,
                End::Altered => self.restore(&key, last),
                End::Failed(error) => {
                    tracing::warn!(trigger = key.object_key(), %error, "a step was not committed");
                    self.restore_from_store(&key);
                    self.retry_later();
                    outcome.error = Some(error);
                }
            }
            outcome.incomplete = true;
        }
        if outcome.incomplete {
            // Taken up again, they may wait for runs that have ended.
            if let Err(error) = Box::pin(self.check_active()).await {
                tracing::warn!(%error, "active runs could not be looked at");
                self.retry_later();
            }
        }
        outcome
    }

    fn restore(&mut self, key: &TriggerKey, row: Option<TriggerRow>) {
        let restored = match row {
            Some(row) => self.triggers.restore(&key.namespace, row),
            None => {
                self.triggers.remove(key);
                Ok(())
            }
        };
        if let Err(error) = restored {
            tracing::error!(trigger = key.object_key(), %error, "a stored trigger cannot be read");
        }
    }

    fn restore_from_store(&mut self, key: &TriggerKey) {
        let stored =
            self.options.views.get_object(kinds::TRIGGER, &key.namespace, &key.object_key());
        match stored {
            Ok(Some(object)) => match serde_json::from_value(object.value) {
                Ok(row) => self.restore(key, Some(row)),
                Err(error) => tracing::error!(%error, "a stored trigger cannot be read"),
            },
            Ok(None) => self.restore(key, None),
            Err(error) => {
                // Nothing of it may happen until its row can be read.
                tracing::warn!(trigger = key.object_key(), %error, "a trigger waits for its row");
                self.unread.insert(key.clone());
                self.triggers.remove(key);
            }
        }
    }

    async fn carry_out_all<K: Ord + Send + Clone + 'static, P: Proposal>(
        &mut self,
        groups: BTreeMap<K, Vec<Prepared<P>>>,
    ) -> Vec<(K, Carried<P>)> {
        let mut tasks = JoinSet::new();
        for (key, group) in groups {
            let runtime = self.options.runtime.clone();
            tasks.spawn(async move { (key, carry_out(runtime, group).await) });
        }
        tasks.join_all().await
    }

    /// Makes a proposal's start ready.
    fn prepare<P: Proposal>(
        &mut self,
        namespace: &str,
        workflow: &str,
        version: Option<&str>,
        proposal: P,
    ) -> Prepared<P> {
        let start = proposal.start().cloned();
        let starter = start.as_ref().and_then(|_| self.starter(namespace, workflow));
        let stop_mode = starter.as_ref().map_or(StopMode::Cancel, |starter| starter.stop_mode());
        let start = start
            .map(|start| self.start_run(namespace, workflow, version, start, starter.as_deref()));
        Prepared { start: start.transpose(), proposal, stop_mode }
    }

    fn start_run(
        &mut self,
        namespace: &str,
        workflow: &str,
        version: Option<&str>,
        start: StartSpec,
        starter: Option<&dyn Starter>,
    ) -> Result<DialectStart, NoStart> {
        let stored = self.workflow(namespace, workflow, version).map_err(|error| match error {
            TriggerError::Read(reason) => NoStart::Unreadable(reason),
            other => NoStart::Refused(other.to_string()),
        })?;
        if let Some(starter) = starter {
            return starter.start(namespace, &stored, start, self.now());
        }
        let params = (self.options.prepare)(&stored.workflow, start.params);
        let params = params.map_err(NoStart::Refused)?;
        let partition = start.partition.or_else(|| partition_of(&stored.workflow, start.interval));
        let run = Box::new(StartRun {
            run: start.run,
            namespace: namespace.to_owned(),
            workflow: stored.workflow,
            version: stored.version,
            params,
            key: Some(start.key),
            trigger: start.trigger.to_owned(),
            interval: start.interval,
            partition,
            labels: start.labels,
            parent: None,
            priority: 0,
            extra: start.extra,
        });
        Ok(DialectStart { commands: Vec::new(), run: StartAs::New(run), writes: Vec::new() })
    }

    /// How a workflow's dialect starts runs, if in its own way.
    pub(super) fn starter(&mut self, namespace: &str, workflow: &str) -> Option<Arc<dyn Starter>> {
        let stored = self.workflow(namespace, workflow, None).ok()?;
        self.options.starters.get(stored.workflow.dialect.as_str()).cloned()
    }

    pub(super) fn workflow(
        &mut self,
        namespace: &str,
        workflow: &str,
        version: Option<&str>,
    ) -> Result<StoredWorkflow, TriggerError> {
        let place = (namespace.to_owned(), workflow.to_owned());
        if let Some(stored) = self.workflows.get(&place)
            && version.is_none_or(|version| version == stored.version)
        {
            return Ok(stored.clone());
        }
        let stored = self
            .options
            .views
            .get_workflow(namespace, workflow, version)?
            .ok_or_else(|| TriggerError::Missing(format!("the workflow {workflow:?}")))?;
        if version.is_none() {
            self.remember(namespace, workflow, &stored);
        }
        Ok(stored)
    }

    /// Keeps a current version at hand: many slots at once need not read it each.
    pub(super) fn remember(&mut self, namespace: &str, workflow: &str, stored: &StoredWorkflow) {
        let kept = StoredWorkflow { source: None, ..stored.clone() };
        self.workflows.insert((namespace.to_owned(), workflow.to_owned()), kept);
    }

    pub(super) async fn tick(&mut self) {
        for key in std::mem::take(&mut self.unread) {
            self.restore_from_store(&key);
        }
        // Of many that are due at once the first are committed while the next are decided.
        let now = self.now();
        let mut under_way = JoinSet::new();
        for due in self.triggers.take_due(now).chunks(AT_ONCE) {
            let steps = self.triggers.tick_each(due, now);
            self.begin(steps, &mut under_way);
        }
        if !under_way.is_empty() {
            self.settle(under_way).await;
        }
    }

    /// Reports runs that have ended while nobody listened.
    pub(super) async fn check_active(&mut self) -> Result<(), TriggerError> {
        let mut steps = Vec::new();
        let now = self.now();
        for run in self.triggers.active_runs() {
            let row = self.options.views.get_run(run)?;
            if row.is_none_or(|row| row.state.is_finished()) {
                steps.extend(self.triggers.run_ended(run, now));
            }
        }
        if !steps.is_empty() {
            self.commit(steps).await.into_result()?;
        }
        let mut steps = Vec::new();
        for backfill in self.backfills.values_mut() {
            let active: Vec<_> = backfill.row().active.keys().copied().collect();
            for run in active {
                let row = self.options.views.get_run(run)?;
                let state = row.map_or(RunState::Failed, |row| row.state);
                if state.is_finished() {
                    steps.extend(backfill.run_ended(run, state, now));
                }
            }
        }
        self.commit_backfills(steps).await.into_result().map(|_| ())
    }

    pub(super) async fn commit_backfills(&mut self, steps: Vec<BackfillStep>) -> Outcome {
        let mut groups: BTreeMap<(String, String), Vec<Prepared<BackfillStep>>> = BTreeMap::new();
        for step in steps {
            let place = (step.namespace.clone(), step.row.id.clone());
            let (workflow, version) = (step.workflow.clone(), step.version.clone());
            let prepared = self.prepare(&place.0, &workflow, version.as_deref(), step);
            groups.entry(place).or_default().push(prepared);
        }
        let mut outcome = Outcome::default();
        for ((namespace, id), carried) in self.carry_out_all(groups).await {
            if let End::Failed(error) = &carried.end {
                tracing::warn!(backfill = id, %error, "a step was not committed");
                outcome.error = Some(error.clone());
                self.retry_later();
            }
            match (&carried.end, carried.done.last()) {
                (End::Whole, _) => continue,
                (End::Altered, Some(last)) => {
                    if let Some(backfill) = self.backfills.get_mut(&(namespace.clone(), id.clone()))
                    {
                        backfill.take_up(last);
                    }
                    continue;
                }
                _ => outcome.incomplete = true,
            }
            if let Err(error) = self.load_backfill(&namespace, &id) {
                tracing::warn!(backfill = id, %error, "a backfill waits for its row");
                self.backfills.remove(&(namespace.clone(), id.clone()));
                self.unread_backfills.insert((namespace, id));
                self.retry_later();
            }
        }
        outcome
    }

    /// Starts what may start of each backfill.
    pub(super) async fn advance_backfills(&mut self) {
        for (namespace, id) in std::mem::take(&mut self.unread_backfills) {
            if let Err(error) = self.load_backfill(&namespace, &id) {
                tracing::warn!(backfill = id, %error, "a backfill waits for its row");
                self.unread_backfills.insert((namespace, id));
                return self.retry_later();
            }
        }
        let now = self.now();
        loop {
            let views = Arc::clone(&self.options.views);
            let mut steps = Vec::new();
            let places: Vec<(String, String)> = self.backfills.keys().cloned().collect();
            for place in places {
                let Some(backfill) = self.backfills.get(&place) else { continue };
                if backfill.row().state.is_finished() {
                    continue;
                }
                let workflow = backfill.row().spec.workflow.clone();
                let starter = self.starter(&place.0, &workflow);
                let Some(backfill) = self.backfills.get_mut(&place) else { continue };
                steps.extend(backfill.advance(now, |item| {
                    let starter = starter.as_deref();
                    let newest = newest(views.as_ref(), starter, &place.0, &workflow, item);
                    ItemStatus::of(newest.map(|(_, state)| state))
                }));
            }
            if steps.is_empty() {
                return;
            }
            if self.commit_backfills(steps).await.incomplete {
                return;
            }
        }
    }

    /// Writes the place in the event log down, now and then.
    pub(super) async fn save_place(&mut self) {
        if self.seen == self.saved || self.saved_at.elapsed() < SAVE_EVERY {
            return;
        }
        let write = Write::PutObject {
            kind: kinds::SETTING,
            namespace: String::new(),
            key: PLACE.to_owned(),
            value: Some(json!({"seen": self.seen})),
        };
        let submission = Submission { commands: Vec::new(), writes: vec![write] };
        self.saved_at = Instant::now();
        if self.options.runtime.submit(submission).await.is_ok() {
            self.saved = self.seen;
        }
    }
}

/// The partition of a workflow's own division in which an interval begins.
fn partition_of(workflow: &Workflow, interval: Option<(Timestamp, Timestamp)>) -> Option<String> {
    let division = workflow.source.get("partitions").filter(|_| workflow.dialect == "native")?;
    match PartitionDefinition::parse(division).ok()? {
        PartitionDefinition::Time(times) => times.key(times.index_at(interval?.0)?),
        _ => None,
    }
}

/// The newest run of a backfill's piece.
pub(super) fn newest(
    views: &dyn kobza_store::Views,
    starter: Option<&dyn Starter>,
    namespace: &str,
    workflow: &str,
    item: &BackfillItem,
) -> Option<(RunId, RunState)> {
    if let Some(found) = starter.and_then(|s| s.newest(namespace, workflow, item)) {
        return found.unwrap_or_else(|error| {
            tracing::warn!(error, "runs of a backfill could not be read");
            None
        });
    }
    let mut filter = RunFilter {
        namespaces: vec![namespace.to_owned()],
        workflow: Some(workflow.to_owned()),
        ..RunFilter::default()
    };
    match &item.partition {
        Some(partition) => filter.partition = Some(partition.clone()),
        None => filter.labels = vec![("slot".to_owned(), item.key.clone())],
    }
    // What cannot be read is treated as missing: at worst a piece is run again.
    let page = views.list_runs(&filter, None, 1).ok()?;
    page.items.into_iter().next().map(|run| (run.run, run.state))
}
