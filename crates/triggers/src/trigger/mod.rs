//! One trigger: its definition, its row, and what it decides.

mod events;
mod mapped;
mod slots;
mod timed;

use std::cell::Cell;
use std::collections::BTreeSet;

use kobza_expr::native::{self, Context};
use kobza_model::{Json, RunId, Timestamp};
use kobza_schedule::Schedule;
use serde_json::json;

use crate::TriggerEvent;
use crate::row::{Pending, SlotOutcome, SlotRow, TriggerRow};
use crate::spec::{CatchUp, Overlap, TriggerKind, TriggerSpec};
use crate::step::{StartSpec, Step, TriggerKey, run_id, spread};

/// A slot this much later than due was missed, and the catch-up policy decides about it.
const PUNCTUAL: i64 = 60_000_000;
/// Most starts that wait for a run's end.
const MAX_QUEUE: usize = 1_000;
/// Partitions that have some of what they need; beyond that the oldest is forgotten.
const MAX_OPEN_PARTITIONS: usize = 10_000;

pub(crate) struct Trigger {
    pub(crate) key: TriggerKey,
    pub(crate) spec: TriggerSpec,
    pub(crate) row: TriggerRow,
    /// Its workflow is paused as a whole.
    pub(crate) workflow_paused: bool,
    /// Missed slots up to here have passed the catch-up policy already.
    kept_through: Timestamp,
    /// The next slot after a cursor: searching the calendar costs more than all the rest.
    next_slot: Cell<Option<(Timestamp, Option<Timestamp>)>>,
    /// The timetable of its dialect, where it follows one.
    timed: Option<timed::Timed>,
    /// Partitions (empty: none, or all together) whose condition holds, while as many of its runs
    /// as may be are unfinished.
    held: BTreeSet<String>,
    /// Who maps partitions, where that is needed.
    mapper: Option<mapped::Mapper>,
}

pub(crate) use timed::Outside;

impl Trigger {
    /// A trigger that did not exist before.
    pub(crate) fn create(key: TriggerKey, spec: TriggerSpec, now: Timestamp, seen: u64) -> Self {
        let cursor = match (spec.catch_up, spec.start) {
            (CatchUp::All { .. }, Some(start)) => Timestamp(start.0 - 1),
            (_, Some(start)) => now.max(Timestamp(start.0 - 1)),
            (_, None) => now,
        };
        let row = TriggerRow {
            workflow: key.workflow.clone(),
            name: key.name.clone(),
            spec: spec.source.clone(),
            paused: spec.paused,
            created_at: now,
            cursor,
            seen,
            active: Vec::new(),
            queue: Vec::new(),
            collected: Vec::new(),
            collected_between: None,
            updated: std::collections::BTreeMap::new(),
            unmapped: std::collections::VecDeque::new(),
            mapped: std::collections::BTreeMap::new(),
            fired: seen,
            has_fired: false,
            last: None,
        };
        Self::restore(key, spec, row)
    }

    pub(crate) fn restore(key: TriggerKey, spec: TriggerSpec, row: TriggerRow) -> Self {
        let mut this = Self {
            key,
            spec,
            row,
            workflow_paused: false,
            kept_through: Timestamp(i64::MIN),
            next_slot: Cell::new(None),
            timed: None,
            held: BTreeSet::new(),
            mapper: None,
        };
        this.find_held();
        this
    }

    fn paused(&self) -> bool {
        self.row.paused || self.workflow_paused
    }

    fn schedule(&self) -> Option<&Schedule> {
        match &self.spec.kind {
            TriggerKind::Schedule(schedule) => Some(schedule),
            _ => None,
        }
    }

    fn due_at(&self, slot: Timestamp) -> Timestamp {
        slot.saturating_add_micros(spread(&self.key, slot, self.spec.jitter))
    }

    /// The first slot not decided yet.
    fn next_slot(&self) -> Option<Timestamp> {
        if let Some((cursor, slot)) = self.next_slot.get()
            && cursor == self.row.cursor
        {
            return slot;
        }
        let slot = self.find_next_slot();
        self.next_slot.set(Some((self.row.cursor, slot)));
        slot
    }

    fn find_next_slot(&self) -> Option<Timestamp> {
        let begin = self.spec.start.map_or(i64::MIN, |start| start.0 - 1);
        let slot = self.schedule()?.next_after(self.row.cursor.max(Timestamp(begin)))?;
        self.spec.end.is_none_or(|end| slot < end).then_some(slot)
    }

    /// When collected events must become a run.
    fn deadline(&self) -> Option<Timestamp> {
        let (first, last) = self.row.collected_between?;
        let debounce = self
            .spec
            .debounce
            .map(|d| last.saturating_add_micros(d.quiet).min(first.saturating_add_micros(d.max)));
        let batch = self.spec.batch.map(|b| first.saturating_add_micros(b.within));
        [debounce, batch].into_iter().flatten().min().or(Some(last))
    }

    /// When it wants a tick.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        if self.paused() {
            return None;
        }
        if !self.row.queue.is_empty() && self.row.active.is_empty() {
            return Some(Timestamp(i64::MIN));
        }
        if !self.held.is_empty() && !self.is_at_limit() {
            return Some(Timestamp(i64::MIN));
        }
        let slot = self.next_slot().map(|slot| self.due_at(slot));
        [slot, self.deadline(), self.tick_due(), self.mapping_due()].into_iter().flatten().min()
    }

    pub(crate) fn tick(&mut self, now: Timestamp, steps: &mut Vec<Step>) {
        if self.paused() {
            return;
        }
        self.drain_queue(now, steps);
        self.fire_held(now, steps);
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.fire_collected(now, steps);
        }
        if self.next_slot().is_some_and(|slot| self.due_at(slot) <= now) {
            self.catch_up(now, steps);
            self.decide_slots(now, steps);
        }
        self.take_ticks(now, steps);
        self.mapping_again(now);
    }

    fn skip_range(
        &mut self,
        first: Timestamp,
        last: Timestamp,
        reason: &str,
        now: Timestamp,
        steps: &mut Vec<Step>,
    ) {
        self.row.cursor = self.row.cursor.max(last);
        let mut slot = self.slot_row(first, SlotOutcome::Skipped, reason, now);
        slot.through = (last > first).then_some(last);
        steps.push(self.step(vec![(first.to_jiff().to_string(), slot)]));
    }

    /// Pauses or resumes. Slots of a pause are left out, unless the trigger catches up all.
    pub(crate) fn set_paused(&mut self, paused: bool, now: Timestamp, steps: &mut Vec<Step>) {
        let was = self.paused();
        self.row.paused = paused;
        self.resumed(was, now, steps);
        steps.push(self.step(Vec::new()));
    }

    pub(crate) fn set_workflow_paused(
        &mut self,
        paused: bool,
        now: Timestamp,
        steps: &mut Vec<Step>,
    ) {
        let was = self.paused();
        self.workflow_paused = paused;
        self.resumed(was, now, steps);
    }

    fn resumed(&mut self, was_paused: bool, now: Timestamp, steps: &mut Vec<Step>) {
        if was_paused && !self.paused() {
            self.plan_anew();
        }
        if !was_paused || self.paused() || matches!(self.spec.catch_up, CatchUp::All { .. }) {
            return;
        }
        let first = self.next_slot().filter(|slot| self.due_at(*slot) <= now);
        if let (Some(first), Some(newest)) = (first, self.newest_due(now)) {
            self.skip_range(first, newest, "the trigger was paused", now, steps);
        }
    }

    /// Takes over a changed definition.
    pub(crate) fn redefine(&mut self, spec: TriggerSpec, now: Timestamp, steps: &mut Vec<Step>) {
        if spec.source == self.spec.source {
            return;
        }
        let when = |source: &Json| {
            ["cron", "interval", "every", "anchor", "at", "rrule", "timezone", "start"]
                .map(|field| source.get(field).cloned())
        };
        // Slots of the old schedule that are due still happen; the new one counts from now.
        self.tick(now, steps);
        if when(&spec.source) != when(&self.spec.source) {
            self.row.cursor = self.row.cursor.max(now);
        }
        // What was mapped under another condition or mapping says nothing now.
        if spec.source.get("assets") != self.spec.source.get("assets") {
            self.row.mapped.clear();
        }
        self.row.spec = spec.source.clone();
        self.spec = spec;
        self.find_held();
        self.next_slot.set(None);
        steps.push(self.step(Vec::new()));
    }

    /// Renders a slot's parameters and offers it to the overlap policy.
    #[allow(clippy::too_many_arguments)] // One decision's facts, used once.
    fn offer(
        &mut self,
        slot: String,
        at: Timestamp,
        events: &[TriggerEvent],
        interval: Option<(Timestamp, Timestamp)>,
        reason: &str,
        now: Timestamp,
        steps: &mut Vec<Step>,
    ) {
        // Events have passed the filter one by one.
        let filtered =
            if events.is_empty() { self.passes_filter(at, events, interval) } else { Ok(true) };
        let context = self.context(at, events, interval);
        let params = match &self.spec.params {
            Json::Null => Ok(json!({})),
            params => native::render_json(params, &context).map_err(|e| format!("params: {e}")),
        };
        let params = match (filtered, params) {
            (Ok(true), Ok(params)) => params,
            (Ok(true), Err(error)) | (Err(error), _) => {
                let row = self.slot_row(at, SlotOutcome::Failed, &error, now);
                return steps.push(self.step(vec![(slot, row)]));
            }
            (Ok(false), _) => {
                let reason = "the filter does not hold";
                let row = self.slot_row(at, SlotOutcome::Skipped, reason, now);
                return steps.push(self.step(vec![(slot, row)]));
            }
        };
        let mut partitions = events.iter().map(TriggerEvent::partition);
        let partition = partitions.next().flatten().map(str::to_owned);
        let partition = partition.filter(|own| partitions.all(|p| p == Some(own)));
        let reason = reason.to_owned();
        let window = events.last().and_then(|event| self.window(event));
        self.start(Pending { slot, at, params, interval, partition, reason, window }, now, steps);
    }

    fn start(&mut self, pending: Pending, now: Timestamp, steps: &mut Vec<Step>) {
        let row =
            |this: &Self, outcome, reason: &str| this.slot_row(pending.at, outcome, reason, now);
        // What waits already is older.
        let blocked = !self.row.active.is_empty() || !self.row.queue.is_empty();
        match (self.spec.overlap, self.row.active.first().copied()) {
            (Overlap::Skip, Some(active)) => {
                let reason = format!("run {active} of this trigger has not ended");
                let row = row(self, SlotOutcome::Skipped, &reason);
                steps.push(self.step(vec![(pending.slot, row)]));
            }
            (Overlap::QueueOne, _) if blocked => {
                let mut slots = Vec::new();
                for older in std::mem::take(&mut self.row.queue) {
                    let reason = format!("replaced by the newer slot {}", pending.slot);
                    let row = self.slot_row(older.at, SlotOutcome::Skipped, &reason, now);
                    slots.push((older.slot, row));
                }
                slots.push((pending.slot.clone(), row(self, SlotOutcome::Queued, &pending.reason)));
                self.row.queue.push(pending);
                steps.push(self.step(slots));
            }
            (Overlap::QueueAll, _) if blocked => {
                if self.row.queue.len() >= MAX_QUEUE {
                    let reason = format!("{MAX_QUEUE} slots wait already");
                    let row = row(self, SlotOutcome::Skipped, &reason);
                    return steps.push(self.step(vec![(pending.slot, row)]));
                }
                let row = row(self, SlotOutcome::Queued, &pending.reason);
                let slot = pending.slot.clone();
                self.row.queue.push(pending);
                steps.push(self.step(vec![(slot, row)]));
            }
            (Overlap::CancelRunning, Some(_)) => {
                let reason =
                    format!("slot {} of trigger {} takes its place", pending.slot, self.key.name);
                let stop = self.row.active.iter().map(|run| (*run, reason.clone())).collect();
                let mut step = self.started(pending, now);
                step.stop = stop;
                steps.push(step);
            }
            _ => {
                let step = self.started(pending, now);
                steps.push(step);
            }
        }
    }

    fn started(&mut self, pending: Pending, now: Timestamp) -> Step {
        let TriggerKey { namespace, workflow, name } = &self.key;
        let run = run_id(&[namespace, workflow, name, &pending.slot], now);
        let key = self.key.run_key(&pending.slot);
        if self.spec.overlap != Overlap::Allow || self.max_active().is_some() {
            self.row.active.push(run);
        }
        let mut slot = self.slot_row(pending.at, SlotOutcome::Started, &pending.reason, now);
        slot.run = Some(run);
        let start = StartSpec {
            run,
            key,
            trigger: self.spec.kind.word(),
            at: pending.at,
            window: pending.window,
            backfill: None,
            interval: pending.interval,
            partition: pending.partition,
            params: pending.params,
            labels: json!({"trigger": self.key.name, "slot": pending.at.to_jiff().to_string()}),
            extra: Json::Null,
        };
        let mut step = self.step(vec![(pending.slot, slot)]);
        step.start = Some(start);
        step
    }

    /// One of its runs has ended.
    pub(crate) fn on_run_ended(&mut self, run: RunId, now: Timestamp, steps: &mut Vec<Step>) {
        let before = self.row.active.len();
        self.row.active.retain(|active| *active != run);
        if self.row.active.len() == before {
            return;
        }
        let already = steps.len();
        if !self.paused() {
            self.drain_queue(now, steps);
            self.fire_held(now, steps);
        }
        if steps.len() == already {
            steps.push(self.step(Vec::new()));
        }
    }

    fn drain_queue(&mut self, now: Timestamp, steps: &mut Vec<Step>) {
        if self.row.active.is_empty() && !self.row.queue.is_empty() {
            let pending = self.row.queue.remove(0);
            let step = self.started(pending, now);
            steps.push(step);
        }
    }

    fn context(
        &self,
        at: Timestamp,
        events: &[TriggerEvent],
        interval: Option<(Timestamp, Timestamp)>,
    ) -> Context {
        let interval = interval.unwrap_or((at, at));
        let views: Vec<Json> = events.iter().map(TriggerEvent::view).collect();
        let partition = events.last().and_then(TriggerEvent::partition);
        let values = json!({
            "slot": at,
            "interval": {"start": interval.0, "end": interval.1},
            "partition": partition,
            "event": views.last(),
            "events": views,
            "trigger": {
                "name": self.key.name,
                "kind": self.spec.kind.word(),
                "workflow": self.key.workflow,
            },
        });
        match values {
            Json::Object(values) => Context::new(&values),
            _ => Context::new(&serde_json::Map::new()),
        }
    }

    fn passes_filter(
        &self,
        at: Timestamp,
        events: &[TriggerEvent],
        interval: Option<(Timestamp, Timestamp)>,
    ) -> Result<bool, String> {
        match &self.spec.filter {
            None => Ok(true),
            Some(filter) => native::is_true(filter, &self.context(at, events, interval))
                .map_err(|e| format!("filter: {e}")),
        }
    }

    fn slot_row(
        &self,
        at: Timestamp,
        outcome: SlotOutcome,
        reason: &str,
        now: Timestamp,
    ) -> SlotRow {
        SlotRow {
            workflow: self.key.workflow.clone(),
            trigger: self.key.name.clone(),
            at,
            through: None,
            outcome,
            reason: reason.to_owned(),
            run: None,
            decided_at: now,
        }
    }

    fn step(&self, slots: Vec<(String, SlotRow)>) -> Step {
        Step {
            trigger: self.key.clone(),
            start: None,
            stop: Vec::new(),
            slots,
            row: Some(self.row.clone()),
        }
    }
}
