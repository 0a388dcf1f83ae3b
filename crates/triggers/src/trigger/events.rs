//! Events: conditions over them, and collecting them.

use std::collections::BTreeMap;

use kobza_model::Timestamp;

use super::{MAX_OPEN_PARTITIONS, Trigger};
use crate::row::{EventWindow, SlotOutcome};
use crate::spec::{TriggerKind, Updates};
use crate::step::Step;
use crate::{EventBody, TriggerEvent};

/// What a trigger collects before it fires at once, whatever its debounce says.
const MAX_COLLECTED: usize = 1_000;
const MAX_COLLECTED_BYTES: usize = 1 << 20;

impl Trigger {
    /// An event that may concern it.
    pub(crate) fn on_event(&mut self, event: &TriggerEvent, now: Timestamp, steps: &mut Vec<Step>) {
        if event.sequence != 0 {
            if event.sequence <= self.row.seen {
                return;
            }
            self.row.seen = event.sequence;
        }
        if let (TriggerKind::RunEnd { states, .. }, EventBody::RunEnded { state, .. }) =
            (&self.spec.kind, &event.body)
            && !states.contains(state)
        {
            let reason = format!("the run ended as {}", state.as_str());
            return self.skip_event(event, &reason, SlotOutcome::Skipped, now, steps);
        }
        let outside = self.spec.start.is_some_and(|start| event.at < start)
            || self.spec.end.is_some_and(|end| event.at >= end);
        if self.paused() || outside {
            let reason = if outside { "outside of start and end" } else { "the trigger is paused" };
            return self.skip_event(event, reason, SlotOutcome::Skipped, now, steps);
        }
        match self.passes_filter(event.at, std::slice::from_ref(event), None) {
            Ok(true) => {}
            Ok(false) => {
                let reason = "the filter does not hold";
                return self.skip_event(event, reason, SlotOutcome::Skipped, now, steps);
            }
            Err(reason) => {
                return self.skip_event(event, &reason, SlotOutcome::Failed, now, steps);
            }
        }
        if !self.counts(event) {
            return steps.push(self.step(Vec::new()));
        }
        if matches!(self.spec.kind, TriggerKind::Assets { mapping: Some(_), .. }) {
            return self.keep_unmapped(event, now, steps);
        }
        let events = match self.fulfilled(event) {
            Some(events) => events,
            None => return steps.push(self.step(Vec::new())),
        };
        if self.spec.debounce.is_none() && self.spec.batch.is_none() {
            return self.fire(&events, now, steps);
        }
        if self.row.collected.iter().any(|collected| collected.id == event.id) {
            return;
        }
        let first = self.row.collected_between.map_or(now, |(first, _)| first);
        self.row.collected_between = Some((first, now));
        self.row.collected.extend(events);
        let size = self.row.collected.len();
        let bytes: usize =
            self.row.collected.iter().map(|event| event.view().to_string().len()).sum();
        let full = self.spec.batch.is_some_and(|batch| size >= batch.size)
            || size >= MAX_COLLECTED
            || bytes > MAX_COLLECTED_BYTES;
        if full {
            self.fire_collected(now, steps);
        } else {
            steps.push(self.step(Vec::new()));
        }
    }

    /// The events to react to, if the trigger's condition holds with this one.
    pub(super) fn fulfilled(&mut self, event: &TriggerEvent) -> Option<Vec<TriggerEvent>> {
        let TriggerKind::Assets { condition, per_partition, .. } = &self.spec.kind else {
            return Some(vec![event.clone()]);
        };
        let EventBody::Asset { asset, partition, .. } = &event.body else { return None };
        let place =
            if *per_partition { partition.clone().unwrap_or_default() } else { String::new() };
        let open = self.row.updated.entry(place.clone()).or_default();
        open.insert(asset.clone(), event.clone());
        if condition.holds(&|name| open.contains_key(name)) {
            if self.is_at_limit() {
                self.held.insert(place);
                return None;
            }
            return Some(self.gathered(&place));
        }
        if self.row.updated.len() > MAX_OPEN_PARTITIONS {
            let oldest = self
                .row
                .updated
                .iter()
                .min_by_key(|(_, open)| open.values().map(|event| event.at).max())
                .map(|(place, _)| place.clone());
            oldest.and_then(|oldest| self.row.updated.remove(&oldest));
        }
        None
    }

    /// Whether its kind of update is one that the trigger reacts to.
    fn counts(&self, event: &TriggerEvent) -> bool {
        match &self.spec.kind {
            TriggerKind::Assets { updates: Updates::Whole, .. } => event.partition().is_none(),
            TriggerKind::Assets { updates: Updates::Partitions, .. } => event.partition().is_some(),
            _ => true,
        }
    }

    pub(super) fn max_active(&self) -> Option<u32> {
        match self.spec.kind {
            TriggerKind::Assets { max_active, .. } => max_active,
            _ => None,
        }
    }

    /// As many of its runs as may be are unfinished.
    pub(super) fn is_at_limit(&self) -> bool {
        self.max_active().is_some_and(|most| self.row.active.len() >= most as usize)
    }

    fn gathered(&mut self, place: &str) -> Vec<TriggerEvent> {
        let open = self.row.updated.remove(place).unwrap_or_default();
        let mut events: Vec<_> = open.into_values().collect();
        events.sort_by_key(|event| (event.sequence, event.at));
        events
    }

    /// Finds what holds and waits, as after a restart.
    pub(super) fn find_held(&mut self) {
        let TriggerKind::Assets { condition, max_active: Some(_), .. } = &self.spec.kind else {
            return self.held.clear();
        };
        let holds = |open: &BTreeMap<String, TriggerEvent>| {
            condition.holds(&|name| open.contains_key(name))
        };
        let held = self.row.updated.iter().filter(|(_, open)| holds(open));
        self.held = held.map(|(place, _)| place.clone()).collect();
        let complete = self.row.mapped.keys().filter(|key| self.is_complete(key));
        let complete: Vec<String> = complete.cloned().collect();
        self.held.extend(complete);
    }

    /// Starts what waited for the end of its runs.
    pub(super) fn fire_held(&mut self, now: Timestamp, steps: &mut Vec<Step>) {
        while !self.is_at_limit()
            && let Some(place) = self.held.pop_first()
        {
            if self.row.mapped.contains_key(&place) {
                self.fire_mapped(&place, now, steps);
            } else {
                let events = self.gathered(&place);
                self.fire(&events, now, steps);
            }
        }
    }

    /// The events of the log that a run stands for, from the one before on.
    pub(super) fn window(&mut self, last: &TriggerEvent) -> Option<EventWindow> {
        if !matches!(self.spec.kind, TriggerKind::Assets { .. }) || last.sequence == 0 {
            return None;
        }
        let (after, first) = (self.row.fired, !self.row.has_fired);
        self.row.fired = last.sequence.max(after);
        self.row.has_fired = true;
        Some(EventWindow { after, through: last.sequence, first, picked: None, date: None })
    }

    pub(super) fn fire_collected(&mut self, now: Timestamp, steps: &mut Vec<Step>) {
        let events = std::mem::take(&mut self.row.collected);
        self.row.collected_between = None;
        self.fire(&events, now, steps);
    }

    pub(super) fn fire(&mut self, events: &[TriggerEvent], now: Timestamp, steps: &mut Vec<Step>) {
        let Some(last) = events.last() else { return };
        let interval = match &last.body {
            EventBody::RunEnded { interval, .. } => *interval,
            _ => None,
        };
        let reason = match (&last.body, events.len()) {
            (EventBody::Asset { asset, .. }, 1) => format!("{asset:.200} was updated"),
            (EventBody::Asset { .. }, n) => format!("the asset condition holds, by {n} updates"),
            (EventBody::RunEnded { workflow, run, state, .. }, 1) => {
                format!("run {run} of {workflow:.200} ended as {}", state.as_str())
            }
            (EventBody::File { path, .. }, 1) => format!("{path:.500} arrived"),
            (_, 1) => format!("{} {:.200}", self.spec.kind.word(), last.id),
            (_, n) => format!("{n} events"),
        };
        self.offer(last.id.clone(), last.at, events, interval, &reason, now, steps);
    }

    pub(super) fn skip_event(
        &mut self,
        event: &TriggerEvent,
        reason: &str,
        outcome: SlotOutcome,
        now: Timestamp,
        steps: &mut Vec<Step>,
    ) {
        let row = self.slot_row(event.at, outcome, reason, now);
        steps.push(self.step(vec![(event.id.clone(), row)]));
    }
}
