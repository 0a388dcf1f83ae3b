//! Limits: who holds them, who waits, who is next. Acquisition of several is all or nothing.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use kobza_model::{LimitRow, RunId, TaskId};

/// What holds tasks back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LimitKey {
    /// A pool, mutex or semaphore, by name.
    Named(String),
    /// Parallelism of one activation of a graph.
    Scope(RunId, u32),
    /// Bodies that all executors may hold at once.
    Slots,
}

impl std::fmt::Display for LimitKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(name) => write!(f, "{name}"),
            Self::Scope(..) => f.write_str("parallelism of its graph"),
            Self::Slots => f.write_str("worker slots"),
        }
    }
}

#[derive(Debug)]
struct Limit {
    /// `None`: nobody defined it, so nothing fits.
    capacity: Option<u32>,
    strict: bool,
    description: Option<String>,
    used: u32,
    holders: BTreeMap<TaskId, u32>,
    waiters: BTreeMap<(Reverse<i32>, u64), TaskId>,
}

impl Limit {
    fn new(capacity: Option<u32>) -> Self {
        Self {
            capacity,
            strict: false,
            description: None,
            used: 0,
            holders: BTreeMap::new(),
            waiters: BTreeMap::new(),
        }
    }

    fn fits(&self, weight: u32) -> bool {
        self.capacity.is_some_and(|capacity| self.used.saturating_add(weight) <= capacity)
    }
}

/// A limit as people see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitView {
    pub name: String,
    pub capacity: Option<u32>,
    pub used: u32,
    pub holders: Vec<(TaskId, u32)>,
    pub waiters: Vec<TaskId>,
    pub description: Option<String>,
}

/// What holds a task back at a limit.
pub(crate) struct Blocked<'a> {
    pub(crate) key: &'a LimitKey,
    pub(crate) capacity: Option<u32>,
    pub(crate) used: u32,
    /// How much of it the task needs.
    pub(crate) weight: u32,
    pub(crate) holders: Vec<TaskId>,
    /// Who must go first though the task itself would fit: the queue is strict.
    pub(crate) before: Option<TaskId>,
}

#[derive(Debug, Default)]
pub(crate) struct Limits {
    limits: BTreeMap<LimitKey, Limit>,
    /// What each holder holds.
    held: BTreeMap<TaskId, Vec<(LimitKey, u32)>>,
    /// What each waiter wants, and at which limit it stands.
    waiting: BTreeMap<TaskId, Waiter>,
    sequence: u64,
}

#[derive(Debug)]
struct Waiter {
    wants: Vec<(LimitKey, u32)>,
    place: (Reverse<i32>, u64),
    at: LimitKey,
}

impl Limits {
    pub(crate) fn set(
        &mut self,
        key: LimitKey,
        capacity: Option<u32>,
        strict: bool,
        description: Option<String>,
    ) {
        let limit = self.limits.entry(key).or_insert_with(|| Limit::new(None));
        limit.capacity = capacity;
        limit.strict = strict;
        limit.description = description;
    }

    pub(crate) fn exists(&self, key: &LimitKey) -> bool {
        self.limits.get(key).is_some_and(|l| l.capacity.is_some())
    }

    /// Forgets a scope's parallelism.
    pub(crate) fn forget(&mut self, key: &LimitKey) {
        if self.limits.get(key).is_some_and(|l| l.holders.is_empty() && l.waiters.is_empty()) {
            self.limits.remove(key);
        }
    }

    /// Takes all of `wants`, or stands in the queue of the first that does not fit.
    pub(crate) fn acquire(
        &mut self,
        task: TaskId,
        wants: Vec<(LimitKey, u32)>,
        priority: i32,
    ) -> bool {
        if wants.is_empty() || self.held.contains_key(&task) {
            return true;
        }
        self.sequence += 1;
        let place = (Reverse(priority), self.sequence);
        self.try_take(task, wants, place)
    }

    fn try_take(
        &mut self,
        task: TaskId,
        wants: Vec<(LimitKey, u32)>,
        place: (Reverse<i32>, u64),
    ) -> bool {
        let blocking = wants.iter().find(|(key, weight)| {
            let limit = self.limits.entry(key.clone()).or_insert_with(|| Limit::new(None));
            let behind = limit.strict
                && limit.waiters.first_key_value().is_some_and(|(first, _)| *first < place);
            !limit.fits(*weight) || behind
        });
        if let Some((key, _)) = blocking {
            let key = key.clone();
            if let Some(limit) = self.limits.get_mut(&key) {
                limit.waiters.insert(place, task);
            }
            self.waiting.insert(task, Waiter { wants, place, at: key });
            return false;
        }
        for (key, weight) in &wants {
            if let Some(limit) = self.limits.get_mut(key) {
                limit.used += weight;
                limit.holders.insert(task, *weight);
            }
        }
        self.held.insert(task, wants);
        true
    }

    /// Takes without asking: a task that held them before a restart.
    pub(crate) fn force(&mut self, task: TaskId, wants: Vec<(LimitKey, u32)>) {
        for (key, weight) in &wants {
            let limit = self.limits.entry(key.clone()).or_insert_with(|| Limit::new(None));
            limit.used += weight;
            limit.holders.insert(task, *weight);
        }
        if !wants.is_empty() {
            self.held.insert(task, wants);
        }
    }

    /// Gives back what a task holds (or only what `which` names); tells who may start now.
    pub(crate) fn release(
        &mut self,
        task: TaskId,
        which: impl Fn(&LimitKey) -> bool,
        woken: &mut Vec<TaskId>,
    ) {
        let Some(held) = self.held.remove(&task) else { return };
        let (freed, kept): (Vec<_>, Vec<_>) = held.into_iter().partition(|(key, _)| which(key));
        if !kept.is_empty() {
            self.held.insert(task, kept);
        }
        for (key, weight) in &freed {
            if let Some(limit) = self.limits.get_mut(key) {
                limit.used = limit.used.saturating_sub(*weight);
                limit.holders.remove(&task);
            }
        }
        for (key, _) in freed {
            self.wake(&key, woken);
        }
    }

    /// Takes a waiter out of its queue.
    pub(crate) fn withdraw(&mut self, task: TaskId, woken: &mut Vec<TaskId>) {
        if let Some(waiter) = self.waiting.remove(&task) {
            if let Some(limit) = self.limits.get_mut(&waiter.at) {
                limit.waiters.remove(&waiter.place);
            }
            self.wake(&waiter.at, woken);
        }
    }

    /// Lets waiters of a limit take what has become free, in order. A waiter that fits here but
    /// not elsewhere moves to that queue, so each is looked at once per limit that blocks it.
    pub(crate) fn wake(&mut self, key: &LimitKey, woken: &mut Vec<TaskId>) {
        let mut after = None;
        loop {
            let Some(limit) = self.limits.get(key) else { return };
            if limit.capacity.is_none_or(|capacity| limit.used >= capacity) {
                return;
            }
            let next = match after {
                None => limit.waiters.first_key_value(),
                Some(place) => limit
                    .waiters
                    .range((std::ops::Bound::Excluded(place), std::ops::Bound::Unbounded))
                    .next(),
            };
            let Some((&place, &task)) = next else { return };
            after = Some(place);
            let Some(waiter) = self.waiting.get(&task) else { continue };
            let weight = waiter.wants.iter().find(|(k, _)| k == key).map_or(0, |(_, w)| *w);
            if !limit.fits(weight) {
                if limit.strict {
                    return;
                }
                continue;
            }
            if let (Some(waiter), Some(limit)) =
                (self.waiting.remove(&task), self.limits.get_mut(key))
            {
                limit.waiters.remove(&place);
                if self.try_take(task, waiter.wants, place) {
                    woken.push(task);
                }
            }
        }
    }

    pub(crate) fn holds(&self, task: TaskId) -> bool {
        self.held.contains_key(&task)
    }

    /// What holds a waiting task back.
    pub(crate) fn blocked(&self, task: TaskId) -> Option<Blocked<'_>> {
        let waiter = self.waiting.get(&task)?;
        let limit = self.limits.get(&waiter.at)?;
        let weight = waiter.wants.iter().find(|(key, _)| *key == waiter.at).map_or(0, |w| w.1);
        let before = limit.waiters.range(..waiter.place).next_back().map(|(_, task)| *task);
        Some(Blocked {
            key: &waiter.at,
            capacity: limit.capacity,
            used: limit.used,
            weight,
            holders: limit.holders.keys().copied().collect(),
            before: before.filter(|_| limit.strict && limit.fits(weight)),
        })
    }

    pub(crate) fn rows(&self) -> Vec<LimitView> {
        self.limits
            .iter()
            .filter_map(|(key, limit)| {
                let name = match key {
                    LimitKey::Named(name) => name.clone(),
                    LimitKey::Slots => "$slots".to_owned(),
                    LimitKey::Scope(..) => return None,
                };
                Some(LimitView {
                    name,
                    capacity: limit.capacity,
                    used: limit.used,
                    holders: limit.holders.iter().map(|(t, w)| (*t, *w)).collect(),
                    waiters: limit.waiters.values().copied().collect(),
                    description: limit.description.clone(),
                })
            })
            .collect()
    }

    pub(crate) fn row(&self, name: &str) -> Option<LimitRow> {
        let limit = self.limits.get(&LimitKey::Named(name.to_owned()))?;
        Some(LimitRow {
            name: name.to_owned(),
            capacity: limit.capacity?,
            strict: limit.strict,
            description: limit.description.clone(),
        })
    }

    /// For checks: used equals what holders hold, and never exceeds the capacity unless it shrank.
    pub(crate) fn consistent(&self) -> Result<(), String> {
        for (key, limit) in &self.limits {
            let sum: u32 = limit.holders.values().sum();
            if sum != limit.used {
                return Err(format!("limit {key}: used {} but held {sum}", limit.used));
            }
        }
        Ok(())
    }
}
