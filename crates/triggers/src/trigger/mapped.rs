//! Triggers whose assets' partitions have to be mapped to those of their workflow.

use std::collections::BTreeSet;
use std::sync::Arc;

use kobza_model::{Json, Timestamp};
use serde_json::json;

use super::{MAX_OPEN_PARTITIONS, Trigger};
use crate::mapping::{Held, Mapped, PartitionMapping};
use crate::row::{EventWindow, Gathered, Pending, SlotOutcome};
use crate::spec::TriggerKind;
use crate::step::Step;
use crate::timetable::TimetableDialects;
use crate::{EventBody, TriggerEvent};

/// Updates that wait to be mapped; beyond that the oldest is given up.
const MAX_UNMAPPED: usize = 10_000;
/// Pause after nobody could be asked, in microseconds.
const ASK_AGAIN: i64 = 30_000_000;

/// The mapping of a trigger, and whether it has been asked.
pub(crate) struct Mapper {
    mapping: Result<Arc<dyn PartitionMapping>, String>,
    asked: bool,
    not_before: Option<Timestamp>,
    problem: Option<String>,
}

impl Trigger {
    pub(super) fn open_mapping(&mut self, dialects: &TimetableDialects) {
        let TriggerKind::Assets { mapping: Some(mapping), .. } = &self.spec.kind else {
            self.mapper = None;
            return;
        };
        let opened = match dialects.get(&mapping.dialect) {
            Some(dialect) => dialect.open_mapping(&mapping.definition),
            None => Err(format!("this server maps no partitions of {:.60}", mapping.dialect)),
        };
        let problem = opened.as_ref().err().cloned();
        self.mapper = Some(Mapper { mapping: opened, asked: false, not_before: None, problem });
    }

    pub(super) fn mapping_problem(&self) -> Option<&str> {
        self.mapper.as_ref()?.problem.as_deref()
    }

    /// Takes an update that has to be mapped first.
    pub(super) fn keep_unmapped(
        &mut self,
        event: &TriggerEvent,
        now: Timestamp,
        steps: &mut Vec<Step>,
    ) {
        self.row.unmapped.push_back(event.clone());
        steps.push(self.step(Vec::new()));
        if self.row.unmapped.len() > MAX_UNMAPPED
            && let Some(oldest) = self.row.unmapped.pop_front()
        {
            let reason = format!("{MAX_UNMAPPED} updates wait to be mapped");
            self.skip_event(&oldest, &reason, SlotOutcome::Failed, now, steps);
        }
    }

    pub(super) fn mapping_due(&self) -> Option<Timestamp> {
        let mapper = self.mapper.as_ref()?;
        mapper.not_before.filter(|_| !self.row.unmapped.is_empty() && !mapper.asked)
    }

    pub(super) fn mapping_again(&mut self, now: Timestamp) {
        if let Some(mapper) = &mut self.mapper
            && mapper.not_before.is_some_and(|at| at <= now)
        {
            mapper.not_before = None;
        }
    }

    /// Whether somebody has to be asked for a mapping.
    pub(crate) fn asks_mapping(&self) -> bool {
        let free = |mapper: &Mapper| {
            !mapper.asked && mapper.not_before.is_none() && mapper.mapping.is_ok()
        };
        !self.row.unmapped.is_empty() && self.mapper.as_ref().is_some_and(free)
    }

    /// What to ask; [`Self::mapped`] takes the answer.
    pub(crate) fn take_mapping(
        &mut self,
    ) -> Option<(Arc<dyn PartitionMapping>, TriggerEvent, Held)> {
        if !self.asks_mapping() {
            return None;
        }
        let mapper = self.mapper.as_mut()?;
        let mapping = Arc::clone(mapper.mapping.as_ref().ok()?);
        mapper.asked = true;
        let mut held = Held::new();
        for (key, gathered) in &self.row.mapped {
            let own = held.entry(key.clone()).or_default();
            for event in &gathered.events {
                if let EventBody::Asset { asset, partition: Some(partition), .. } = &event.body {
                    own.entry(asset.clone()).or_default().push(partition.clone());
                }
            }
        }
        Some((mapping, self.row.unmapped.front()?.clone(), held))
    }

    /// The answer for an event.
    pub(crate) fn mapped(
        &mut self,
        event: &TriggerEvent,
        answer: Result<Result<Vec<Mapped>, String>, String>,
        now: Timestamp,
        steps: &mut Vec<Step>,
    ) {
        let Some(mapper) = self.mapper.as_mut().filter(|mapper| mapper.asked) else { return };
        mapper.asked = false;
        if self.row.unmapped.front().is_none_or(|first| first.id != event.id) {
            return;
        }
        mapper.problem = match &answer {
            Err(problem) | Ok(Err(problem)) => Some(problem.clone()),
            Ok(Ok(_)) => None,
        };
        let keys = match answer {
            Err(_) => {
                mapper.not_before = Some(now.saturating_add_micros(ASK_AGAIN));
                return;
            }
            Ok(Err(problem)) => {
                self.row.unmapped.pop_front();
                return self.skip_event(event, &problem, SlotOutcome::Failed, now, steps);
            }
            Ok(Ok(keys)) => keys,
        };
        self.row.unmapped.pop_front();
        let mut ready = Vec::new();
        for Mapped { key, complete, date } in keys {
            let gathered = self.row.mapped.entry(key.clone()).or_default();
            gathered.date = match (gathered.events.is_empty(), gathered.date) {
                (true, _) | (_, None) => date,
                // Where its assets disagree, it stands for none.
                (_, Some(known)) if date.is_none_or(|date| date == known) => Some(known),
                _ => None,
            };
            gathered.events.push(event.clone());
            gathered.complete = complete.into_iter().collect::<BTreeSet<_>>();
            ready.push(key);
        }
        steps.push(self.step(Vec::new()));
        for key in ready {
            if !self.is_complete(&key) {
                continue;
            }
            if self.is_at_limit() {
                self.held.insert(key);
            } else {
                self.fire_mapped(&key, now, steps);
            }
        }
        while self.row.mapped.len() > MAX_OPEN_PARTITIONS {
            let age = |gathered: &Gathered| gathered.events.last().map(|event| event.sequence);
            let oldest = self.row.mapped.iter().min_by_key(|(_, gathered)| age(gathered));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            self.row.mapped.remove(&oldest);
        }
    }

    pub(super) fn is_complete(&self, key: &str) -> bool {
        let TriggerKind::Assets { condition, .. } = &self.spec.kind else { return false };
        let Some(gathered) = self.row.mapped.get(key) else { return false };
        condition.holds(&|asset| gathered.complete.contains(asset))
    }

    /// Starts the run of a partition that has all that it needs.
    pub(super) fn fire_mapped(&mut self, key: &str, now: Timestamp, steps: &mut Vec<Step>) {
        let Some(gathered) = self.row.mapped.remove(key) else { return };
        let Some(last) = gathered.events.iter().max_by_key(|event| event.sequence) else { return };
        let numbers: Vec<u64> = gathered.events.iter().map(|event| event.sequence).collect();
        let params = match &self.spec.params {
            Json::Null => json!({}),
            params => params.clone(),
        };
        let window = EventWindow {
            after: numbers.iter().min().map_or(0, |first| first.saturating_sub(1)),
            through: last.sequence,
            first: false,
            picked: Some(numbers),
            date: gathered.date,
        };
        let pending = Pending {
            slot: format!("{}:{key}", last.id),
            at: last.at,
            params,
            interval: None,
            partition: Some(key.to_owned()),
            reason: format!("the partition {key:.200} has all that it needs"),
            window: Some(window),
        };
        self.start(pending, now, steps);
    }
}
