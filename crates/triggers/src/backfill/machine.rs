//! The state machine of one backfill.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kobza_model::{Json, RunId, RunState, Timestamp};
use kobza_store::Write;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{BackfillItem, BackfillSpec, Items, Only};
use crate::row::SlotOutcome;
use crate::step::run_id;
use crate::{BackfillPiece, StartSpec};

const BACKFILL: &str = kobza_store::kinds::BACKFILL;
/// Pieces that one call looks at: long stretches of skipped pieces let others in between.
const LOOKS_PER_CALL: usize = 500;

/// What became of a piece before, as far as the store knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ItemStatus {
    Missing,
    Succeeded,
    Failed,
    /// It runs or waits now.
    Active,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackfillState {
    Running,
    /// Starts nothing; what runs goes on.
    Paused,
    /// What runs is being cancelled.
    Cancelling,
    Cancelled,
    /// All pieces have ended well, or were left out.
    Succeeded,
    /// All pieces have ended, some not well.
    Failed,
}

impl ItemStatus {
    /// Of a piece whose newest run is in a state.
    #[must_use]
    pub fn of(newest: Option<RunState>) -> Self {
        match newest {
            None => Self::Missing,
            Some(RunState::Succeeded) => Self::Succeeded,
            Some(state) if state.is_finished() => Self::Failed,
            Some(_) => Self::Active,
        }
    }
}

impl BackfillState {
    #[must_use]
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Cancelled | Self::Succeeded | Self::Failed)
    }
}

/// The durable state; key: its id.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BackfillRow {
    pub id: String,
    pub spec: BackfillSpec,
    /// The version that runs take, unless each takes the latest.
    pub version: String,
    pub state: BackfillState,
    pub created_at: Timestamp,
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    pub created_by: String,
    pub total: u64,
    /// Positions before this one have been started or left out.
    pub next: u64,
    /// Pieces to run again, before the others.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub again: VecDeque<u64>,
    /// Unfinished runs, with their positions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub active: BTreeMap<RunId, u64>,
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub skipped: u64,
    /// How often failed pieces were asked to run again.
    #[serde(default)]
    pub reruns: u32,
}

/// What became of one piece; key: `{id}/{position}`, ten digits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ItemRow {
    pub position: u64,
    pub key: String,
    pub outcome: ItemOutcome,
    pub run: Option<RunId>,
    pub reason: String,
    pub at: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemOutcome {
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Skipped,
}

/// A change to commit in one transaction: at most one run to start, runs to stop before it, rows.
#[derive(Clone, PartialEq, Debug)]
pub struct BackfillStep {
    pub namespace: String,
    pub workflow: String,
    /// The version to start, or the current one.
    pub version: Option<String>,
    pub start: Option<StartSpec>,
    pub stop: Vec<(RunId, String)>,
    pub items: Vec<ItemRow>,
    pub row: BackfillRow,
}

impl BackfillStep {
    /// The rows, as writes that belong into the transaction of the step's commands.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        let put = |key, value: Option<Json>| Write::PutObject {
            kind: BACKFILL,
            namespace: self.namespace.clone(),
            key,
            value,
        };
        // Rows are plain data: they always have a JSON form.
        self.items
            .iter()
            .map(|item| put(item_key(&self.row.id, item.position), serde_json::to_value(item).ok()))
            .chain([put(self.row.id.clone(), serde_json::to_value(&self.row).ok())])
            .collect()
    }
}

impl BackfillStep {
    /// The run exists already, under this id: keep the rows and start nothing.
    pub fn start_exists(&mut self, existing: RunId) {
        let Some(start) = self.start.take() else { return };
        if let Some(position) = self.row.active.remove(&start.run) {
            self.row.active.insert(existing, position);
        }
        for item in self.items.iter_mut().filter(|item| item.run == Some(start.run)) {
            item.run = Some(existing);
        }
    }

    /// Turns a start that is impossible into a failed piece with the reason, and one that shall not
    /// be into a piece that is left out.
    pub fn refuse_start(&mut self, outcome: SlotOutcome, reason: &str) {
        let Some(start) = self.start.take() else { return };
        self.row.active.remove(&start.run);
        let outcome = match outcome {
            SlotOutcome::Skipped => ItemOutcome::Skipped,
            _ => ItemOutcome::Failed,
        };
        match outcome {
            ItemOutcome::Skipped => self.row.skipped += 1,
            _ => self.row.failed += 1,
        }
        for item in self.items.iter_mut().filter(|item| item.run == Some(start.run)) {
            item.run = None;
            item.outcome = outcome;
            item.reason = format!("not started: {reason:.500}");
        }
    }
}

fn item_key(id: &str, position: u64) -> String {
    format!("{id}/{position:010}")
}

/// A backfill in memory.
#[derive(Debug)]
pub struct Backfill {
    namespace: String,
    row: BackfillRow,
    items: Arc<Items>,
    /// Positions whose newest run failed or was cancelled.
    unsuccessful: BTreeSet<u64>,
}

impl Backfill {
    /// A new backfill. Commit the step, then call [`Self::advance`].
    pub fn create(
        id: &str,
        namespace: &str,
        mut spec: BackfillSpec,
        items: Arc<Items>,
        version: &str,
        created_by: &str,
        now: Timestamp,
    ) -> (Self, BackfillStep) {
        // Open ranges mean what they mean now, also after a restart.
        if let (Some(choice), Some(text)) = (&mut spec.partitions, items.set_text()) {
            choice.set = text;
        }
        let row = BackfillRow {
            id: id.to_owned(),
            spec,
            version: version.to_owned(),
            state: BackfillState::Running,
            created_at: now,
            ended_at: None,
            created_by: created_by.to_owned(),
            total: items.count(),
            next: 0,
            again: VecDeque::new(),
            active: BTreeMap::new(),
            succeeded: 0,
            failed: 0,
            cancelled: 0,
            skipped: 0,
            reruns: 0,
        };
        let this =
            Self { namespace: namespace.to_owned(), row, items, unsuccessful: BTreeSet::new() };
        let step = this.step(Vec::new());
        (this, step)
    }

    /// Takes it up from its rows, with the pieces that its spec means.
    pub fn restore(
        namespace: &str,
        row: BackfillRow,
        known: &[ItemRow],
        items: Arc<Items>,
    ) -> Self {
        let unsuccessful = known
            .iter()
            .filter(|item| matches!(item.outcome, ItemOutcome::Failed | ItemOutcome::Cancelled))
            .map(|item| item.position)
            .filter(|position| !row.again.contains(position))
            .collect();
        Self { namespace: namespace.to_owned(), row, items, unsuccessful }
    }

    /// Goes on from a step that was committed otherwise than it was proposed.
    pub fn take_up(&mut self, committed: &BackfillStep) {
        self.row = committed.row.clone();
        let failed =
            |item: &&ItemRow| matches!(item.outcome, ItemOutcome::Failed | ItemOutcome::Cancelled);
        let failed = committed.items.iter().filter(failed).map(|item| item.position);
        self.unsuccessful.extend(failed);
    }

    #[must_use]
    pub fn row(&self) -> &BackfillRow {
        &self.row
    }

    #[must_use]
    pub fn items(&self) -> &Arc<Items> {
        &self.items
    }

    /// Starts what may start now. Call it after creation, restore, [`Self::run_ended`] and
    /// [`Self::resume`], until it answers nothing. `status` tells what became of a piece so far.
    pub fn advance(
        &mut self,
        now: Timestamp,
        mut status: impl FnMut(&BackfillItem) -> ItemStatus,
    ) -> Vec<BackfillStep> {
        let mut steps = Vec::new();
        if self.row.state != BackfillState::Running {
            return steps;
        }
        let mut skipped = Vec::new();
        for _ in 0..LOOKS_PER_CALL {
            if self.row.active.len() >= self.row.spec.parallelism as usize {
                break;
            }
            let repeated = self.row.again.pop_front();
            let position = match repeated {
                Some(position) => position,
                None if self.row.next < self.row.total => {
                    self.row.next += 1;
                    self.row.next - 1
                }
                None => break,
            };
            let Some(item) = self.items.get(position, self.row.spec.newest_first()) else {
                continue;
            };
            let known = if repeated.is_none() { status(&item) } else { ItemStatus::Missing };
            if repeated.is_none() && !self.row.spec.wants(known) {
                self.row.skipped += 1;
                let reason = match known {
                    ItemStatus::Succeeded | ItemStatus::Failed
                        if self.row.spec.only == Only::New =>
                    {
                        "it has a run already"
                    }
                    ItemStatus::Succeeded => "it has succeeded before",
                    ItemStatus::Active => "a run of it is active",
                    ItemStatus::Missing | ItemStatus::Failed => "it has not failed before",
                };
                skipped.push(self.item_row(&item, ItemOutcome::Skipped, None, reason, now));
                continue;
            }
            match self.row.spec.render_params(&self.row.id, &item) {
                Ok(params) => {
                    let mut step = self.started(&item, params, now);
                    step.items.append(&mut skipped);
                    steps.push(step);
                }
                Err(error) => {
                    self.row.failed += 1;
                    self.unsuccessful.insert(position);
                    let reason = format!("params: {error}");
                    skipped.push(self.item_row(&item, ItemOutcome::Failed, None, &reason, now));
                }
            }
        }
        let ended = self.settle(now);
        if ended || !skipped.is_empty() {
            steps.push(self.step(skipped));
        }
        steps
    }

    fn started(&mut self, item: &BackfillItem, params: Json, now: Timestamp) -> BackfillStep {
        let attempt = self.row.reruns;
        let key = match attempt {
            0 => format!("backfill:{}@{}", self.row.id, item.key),
            n => format!("backfill:{}@{}#{}", self.row.id, item.key, n + 1),
        };
        let run = run_id(&[&self.namespace, &self.row.spec.workflow, &key], now);
        self.row.active.insert(run, item.position);
        self.unsuccessful.remove(&item.position);
        let running = self.item_row(item, ItemOutcome::Running, Some(run), "", now);
        let mut step = self.step(vec![running]);
        step.start = Some(StartSpec {
            run,
            key,
            trigger: "backfill",
            at: item.tick.as_ref().map_or(now, |tick| tick.at),
            window: None,
            backfill: Some(BackfillPiece {
                id: self.row.id.clone(),
                position: item.position,
                created_by: self.row.created_by.clone(),
            }),
            interval: item.interval,
            partition: item.partition.clone(),
            params,
            labels: json!({"backfill": self.row.id, "slot": item.key}),
            extra: item.tick.as_ref().map_or(Json::Null, |tick| tick.extra.clone()),
        });
        step
    }

    /// A run has ended; nothing if it is none of ours. Follow with [`Self::advance`].
    pub fn run_ended(
        &mut self,
        run: RunId,
        state: RunState,
        now: Timestamp,
    ) -> Option<BackfillStep> {
        let position = self.row.active.remove(&run)?;
        let outcome = match state {
            RunState::Succeeded => ItemOutcome::Succeeded,
            RunState::Cancelled => ItemOutcome::Cancelled,
            _ => ItemOutcome::Failed,
        };
        match outcome {
            ItemOutcome::Succeeded => self.row.succeeded += 1,
            ItemOutcome::Cancelled => self.row.cancelled += 1,
            _ => self.row.failed += 1,
        }
        if outcome != ItemOutcome::Succeeded {
            self.unsuccessful.insert(position);
        }
        let item = self.items.get(position, self.row.spec.newest_first())?;
        let row = self.item_row(&item, outcome, Some(run), state.as_str(), now);
        self.settle(now);
        Some(self.step(vec![row]))
    }

    /// Starts nothing more until resumed. False in the answer's place when it has ended.
    pub fn pause(&mut self) -> Option<BackfillStep> {
        self.switch(BackfillState::Running, BackfillState::Paused)
    }

    pub fn resume(&mut self) -> Option<BackfillStep> {
        self.switch(BackfillState::Paused, BackfillState::Running)
    }

    fn switch(&mut self, from: BackfillState, to: BackfillState) -> Option<BackfillStep> {
        if self.row.state != from {
            return None;
        }
        self.row.state = to;
        Some(self.step(Vec::new()))
    }

    /// Cancels what runs and starts nothing more.
    pub fn cancel(&mut self, now: Timestamp) -> Option<BackfillStep> {
        if self.row.state.is_finished() || self.row.state == BackfillState::Cancelling {
            return None;
        }
        self.row.state = BackfillState::Cancelling;
        self.settle(now);
        let mut step = self.step(Vec::new());
        let reason = format!("backfill {} was cancelled", self.row.id);
        step.stop = self.row.active.keys().map(|run| (*run, reason.clone())).collect();
        Some(step)
    }

    /// Runs the pieces again that failed or were cancelled; nothing if there are none. The counts
    /// speak of each piece's newest run.
    pub fn rerun_failed(&mut self) -> Option<BackfillStep> {
        if self.unsuccessful.is_empty() || self.row.state == BackfillState::Cancelling {
            return None;
        }
        self.row.reruns += 1;
        self.row.again.extend(std::mem::take(&mut self.unsuccessful));
        self.row.failed = 0;
        self.row.cancelled = 0;
        self.row.ended_at = None;
        if self.row.state != BackfillState::Paused {
            self.row.state = BackfillState::Running;
        }
        Some(self.step(Vec::new()))
    }

    /// Ends it when nothing is left; true if it has just ended.
    fn settle(&mut self, now: Timestamp) -> bool {
        let row = &mut self.row;
        let left = row.next < row.total || !row.again.is_empty();
        let state = match row.state {
            BackfillState::Cancelling if row.active.is_empty() => BackfillState::Cancelled,
            BackfillState::Running if row.active.is_empty() && !left => {
                if row.failed + row.cancelled > 0 {
                    BackfillState::Failed
                } else {
                    BackfillState::Succeeded
                }
            }
            _ => return false,
        };
        row.state = state;
        row.ended_at = Some(now);
        true
    }

    fn item_row(
        &self,
        item: &BackfillItem,
        outcome: ItemOutcome,
        run: Option<RunId>,
        reason: &str,
        at: Timestamp,
    ) -> ItemRow {
        ItemRow {
            position: item.position,
            key: item.key.clone(),
            outcome,
            run,
            reason: reason.to_owned(),
            at,
        }
    }

    fn step(&self, items: Vec<ItemRow>) -> BackfillStep {
        BackfillStep {
            namespace: self.namespace.clone(),
            workflow: self.row.spec.workflow.clone(),
            version: (!self.row.spec.latest).then(|| self.row.version.clone()),
            start: None,
            stop: Vec::new(),
            items,
            row: self.row.clone(),
        }
    }
}
