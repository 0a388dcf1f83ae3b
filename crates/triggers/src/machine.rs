//! All triggers of a server, by when they are due and what they listen to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use kobza_model::{Json, RunId, Timestamp};
use kobza_schedule::ScheduleError;

use crate::mapping::{Mapped, MappingQuestion};
use crate::row::TriggerRow;
use crate::spec::{TriggerKind, TriggerSpec};
use crate::step::{Step, TriggerKey};
use crate::timetable::{Next, Tick, Timetable, TimetableDialects};
use crate::trigger::{Outside, Trigger};
use crate::{EventBody, TriggerEvent, parse_triggers};

/// What an event is filed under.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Topic {
    Asset(String),
    RunEnded(String),
    Custom(String),
    /// Webhooks and files are for one trigger.
    Direct(String, String),
}

/// The machine. Every input answers the steps to commit; see [`Step`] for the protocol.
#[derive(Default)]
pub struct Triggers {
    triggers: BTreeMap<TriggerKey, Trigger>,
    /// May hold entries that are no longer true: `scheduled` says which are.
    heap: BinaryHeap<Reverse<(Timestamp, TriggerKey)>>,
    scheduled: BTreeMap<TriggerKey, Timestamp>,
    listeners: BTreeMap<(String, Topic), BTreeSet<TriggerKey>>,
    /// Which trigger waits for the end of a run.
    active: BTreeMap<RunId, TriggerKey>,
    paused_workflows: BTreeSet<(String, String)>,
    /// How many listeners each asset and each named event has; and all ends of runs together.
    assets: BTreeMap<String, usize>,
    events: BTreeMap<String, usize>,
    run_end_listeners: usize,
    /// Triggers that look at files.
    files: BTreeSet<TriggerKey>,
    dialects: TimetableDialects,
    /// Triggers whose timetables have to be asked outside.
    asking: BTreeSet<TriggerKey>,
    /// Triggers that have partitions to be mapped.
    mapping: BTreeSet<TriggerKey>,
}

/// What a timetable cannot answer itself: call [`Timetable::ask`] where it may block, and give the
/// answer to [`Triggers::answered`].
#[derive(Clone, Debug)]
pub struct OutsideQuestion {
    pub trigger: TriggerKey,
    pub timetable: Arc<dyn Timetable>,
    pub last: Option<Tick>,
}

impl std::fmt::Debug for Triggers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Triggers({})", self.triggers.len())
    }
}

impl Triggers {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A machine whose triggers may follow timetables of these dialects.
    #[must_use]
    pub fn with_timetables(dialects: TimetableDialects) -> Self {
        Self { dialects, ..Self::default() }
    }

    /// What has to be asked outside since the last call.
    pub fn take_questions(&mut self) -> Vec<OutsideQuestion> {
        let asking = std::mem::take(&mut self.asking).into_iter();
        asking
            .filter_map(|trigger| {
                let Outside { timetable, last } =
                    self.triggers.get_mut(&trigger)?.take_question()?;
                Some(OutsideQuestion { trigger, timetable, last })
            })
            .collect()
    }

    /// The answer to a question. One that came too late, as the trigger has changed, means nothing.
    pub fn answered(
        &mut self,
        question: &OutsideQuestion,
        answer: Result<Next, String>,
        now: Timestamp,
    ) -> Vec<Step> {
        self.with(&question.trigger, |trigger, steps| {
            trigger.answered(question.last.as_ref(), answer, now, steps);
        })
    }

    /// What has to be mapped since the last call: call [`crate::PartitionMapping::map`] where it may
    /// block, and give the answer to [`Self::mapped`].
    pub fn take_mappings(&mut self) -> Vec<MappingQuestion> {
        let mapping = std::mem::take(&mut self.mapping).into_iter();
        mapping
            .filter_map(|trigger| {
                let (mapping, event, held) = self.triggers.get_mut(&trigger)?.take_mapping()?;
                Some(MappingQuestion { trigger, mapping, event, held })
            })
            .collect()
    }

    /// The answer to a question; too late, it means nothing.
    pub fn mapped(
        &mut self,
        question: &MappingQuestion,
        answer: Result<Result<Vec<Mapped>, String>, String>,
        now: Timestamp,
    ) -> Vec<Step> {
        self.with(&question.trigger, |trigger, steps| {
            trigger.mapped(&question.event, answer, now, steps);
        })
    }

    /// Why a trigger's timetable does not go on.
    #[must_use]
    pub fn problem(&self, key: &TriggerKey) -> Option<&str> {
        self.triggers.get(key)?.problem()
    }

    /// Takes up a trigger from its stored row: at start, and when a step could not be committed
    /// as it was (with the row that is stored now).
    pub fn restore(&mut self, namespace: &str, row: TriggerRow) -> Result<(), ScheduleError> {
        let mut specs = parse_triggers(&Json::Array(vec![row.spec.clone()]))
            .map_err(|errors| errors.into_iter().next().unwrap_or_else(|| unreadable(&row)))?;
        let mut spec = specs.pop().ok_or_else(|| unreadable(&row))?;
        spec.name.clone_from(&row.name);
        let key = TriggerKey::new(namespace, &row.workflow, &row.name);
        self.put(Trigger::restore(key, spec, row));
        Ok(())
    }

    /// The triggers that a workflow has from now on: new ones begin, known ones keep their state,
    /// others end. `seen` is the number of the newest event in the log.
    pub fn set_workflow(
        &mut self,
        namespace: &str,
        workflow: &str,
        specs: Vec<TriggerSpec>,
        seen: u64,
        now: Timestamp,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut old: BTreeSet<TriggerKey> = self.of_workflow(namespace, workflow);
        for spec in specs {
            let key = TriggerKey::new(namespace, workflow, &spec.name);
            old.remove(&key);
            let trigger = match self.take(&key) {
                Some(mut trigger) => {
                    trigger.redefine(spec, now, &mut steps);
                    trigger
                }
                None => {
                    let trigger = Trigger::create(key.clone(), spec, now, seen);
                    let row = Some(trigger.row.clone());
                    steps.push(Step {
                        trigger: key,
                        start: None,
                        stop: Vec::new(),
                        slots: Vec::new(),
                        row,
                    });
                    trigger
                }
            };
            self.put(trigger);
        }
        for key in old {
            steps.extend(self.remove(&key));
        }
        steps
    }

    /// Deletes a trigger. What became of its slots stays.
    pub fn remove(&mut self, key: &TriggerKey) -> Option<Step> {
        let trigger = self.take(key)?;
        Some(Step {
            trigger: trigger.key,
            start: None,
            stop: Vec::new(),
            slots: Vec::new(),
            row: None,
        })
    }

    /// Pauses or resumes a trigger; nothing when there is none of this name.
    pub fn set_paused(&mut self, key: &TriggerKey, paused: bool, now: Timestamp) -> Vec<Step> {
        self.with(key, |trigger, steps| trigger.set_paused(paused, now, steps))
    }

    /// Pauses or resumes all triggers of a workflow. Not kept here: the workflow's own row says it.
    pub fn set_workflow_paused(
        &mut self,
        namespace: &str,
        workflow: &str,
        paused: bool,
        now: Timestamp,
    ) -> Vec<Step> {
        let place = (namespace.to_owned(), workflow.to_owned());
        if paused {
            self.paused_workflows.insert(place);
        } else {
            self.paused_workflows.remove(&place);
        }
        let mut steps = Vec::new();
        for key in self.of_workflow(namespace, workflow) {
            steps.extend(self.with(&key, |trigger, steps| {
                trigger.set_workflow_paused(paused, now, steps);
            }));
        }
        steps
    }

    /// When the next tick is needed; a time in the past means at once.
    #[must_use]
    pub fn next_due(&mut self) -> Option<Timestamp> {
        while let Some(Reverse((due, key))) = self.heap.peek() {
            if self.scheduled.get(key) == Some(due) {
                return Some(*due);
            }
            self.heap.pop();
        }
        None
    }

    /// Time has passed: decides what is due. Looks at due triggers only, each once.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Step> {
        let due = self.take_due(now);
        self.tick_each(&due, now)
    }

    /// The triggers that are due. Each must be given to [`Self::tick_each`].
    pub fn take_due(&mut self, now: Timestamp) -> Vec<TriggerKey> {
        let mut due = Vec::new();
        while self.next_due().is_some_and(|at| at <= now) {
            if let Some(Reverse((_, key))) = self.heap.pop() {
                self.scheduled.remove(&key);
                due.push(key);
            }
        }
        due
    }

    /// Decides what is due of these triggers.
    pub fn tick_each(&mut self, due: &[TriggerKey], now: Timestamp) -> Vec<Step> {
        let mut steps = Vec::new();
        for key in due {
            steps.extend(self.with(key, |trigger, steps| trigger.tick(now, steps)));
        }
        steps
    }

    /// Something happened in a namespace. Events of the log must come in its order; those that a
    /// trigger has reacted to before are ignored by it.
    pub fn on_event(&mut self, namespace: &str, event: &TriggerEvent, now: Timestamp) -> Vec<Step> {
        let mut steps = Vec::new();
        if let EventBody::RunEnded { run, .. } = &event.body
            && let Some(key) = self.active.get(run).cloned()
        {
            steps.extend(self.with(&key, |trigger, steps| trigger.on_run_ended(*run, now, steps)));
        }
        for key in self.listeners(namespace, event) {
            steps.extend(self.on_event_for(&key, event, now));
        }
        steps
    }

    /// The triggers that an event of a namespace concerns.
    #[must_use]
    pub fn listeners(&self, namespace: &str, event: &TriggerEvent) -> Vec<TriggerKey> {
        let topic = match &event.body {
            EventBody::Asset { asset, .. } => Topic::Asset(asset.clone()),
            EventBody::RunEnded { workflow, .. } => Topic::RunEnded(workflow.clone()),
            EventBody::Custom { name, .. } => Topic::Custom(name.clone()),
            EventBody::Webhook { workflow, trigger, .. }
            | EventBody::File { workflow, trigger, .. } => {
                Topic::Direct(workflow.clone(), trigger.clone())
            }
        };
        let keys = self.listeners.get(&(namespace.to_owned(), topic));
        keys.into_iter().flatten().cloned().collect()
    }

    /// As [`Self::on_event`], for one of its listeners.
    pub fn on_event_for(
        &mut self,
        key: &TriggerKey,
        event: &TriggerEvent,
        now: Timestamp,
    ) -> Vec<Step> {
        self.with(key, |trigger, steps| trigger.on_event(event, now, steps))
    }

    /// Whether any trigger listens to an asset of this name, in any namespace.
    #[must_use]
    pub fn wants_asset(&self, asset: &str) -> bool {
        self.assets.contains_key(asset)
    }

    /// Whether any trigger listens to events of this name, in any namespace.
    #[must_use]
    pub fn wants_custom(&self, name: &str) -> bool {
        self.events.contains_key(name)
    }

    /// Whether the end of a run may matter: some trigger listens to ends, or waits for this one.
    #[must_use]
    pub fn wants_run_end(&self, run: RunId) -> bool {
        self.run_end_listeners > 0 || self.active.contains_key(&run)
    }

    /// Runs whose end triggers wait for. After a restart, report those that have ended meanwhile
    /// with [`Self::run_ended`].
    #[must_use]
    pub fn active_runs(&self) -> Vec<RunId> {
        self.active.keys().copied().collect()
    }

    /// As an event about a run's end, where only its id is known.
    pub fn run_ended(&mut self, run: RunId, now: Timestamp) -> Vec<Step> {
        match self.active.get(&run).cloned() {
            Some(key) => self.with(&key, |trigger, steps| trigger.on_run_ended(run, now, steps)),
            None => Vec::new(),
        }
    }

    #[must_use]
    pub fn get(&self, key: &TriggerKey) -> Option<(&TriggerSpec, &TriggerRow)> {
        self.triggers.get(key).map(|trigger| (&trigger.spec, &trigger.row))
    }

    /// The triggers that look at files.
    pub fn file_triggers(&self) -> impl Iterator<Item = (&TriggerKey, &TriggerSpec, &TriggerRow)> {
        let known = self.files.iter().filter_map(|key| self.triggers.get(key));
        known.map(|trigger| (&trigger.key, &trigger.spec, &trigger.row))
    }

    /// All triggers in order of namespace, workflow and name.
    pub fn iter(&self) -> impl Iterator<Item = (&TriggerKey, &TriggerSpec, &TriggerRow)> {
        self.triggers.values().map(|trigger| (&trigger.key, &trigger.spec, &trigger.row))
    }

    /// When a trigger will act next, if that is known.
    #[must_use]
    pub fn due(&self, key: &TriggerKey) -> Option<Timestamp> {
        self.scheduled.get(key).copied()
    }

    fn of_workflow(&self, namespace: &str, workflow: &str) -> BTreeSet<TriggerKey> {
        self.triggers
            .range(TriggerKey::new(namespace, workflow, "")..)
            .take_while(|(key, _)| key.namespace == namespace && key.workflow == workflow)
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn with(
        &mut self,
        key: &TriggerKey,
        act: impl FnOnce(&mut Trigger, &mut Vec<Step>),
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(trigger) = self.triggers.get_mut(key) else { return steps };
        let before = trigger.row.active.clone();
        act(trigger, &mut steps);
        let due = trigger.due();
        if trigger.asks() {
            self.asking.insert(key.clone());
        }
        if trigger.asks_mapping() {
            self.mapping.insert(key.clone());
        }
        if trigger.row.active != before {
            let after = trigger.row.active.clone();
            before.iter().for_each(|run| {
                self.active.remove(run);
            });
            self.active.extend(after.into_iter().map(|run| (run, key.clone())));
        }
        self.schedule(key, due);
        steps
    }

    fn schedule(&mut self, key: &TriggerKey, due: Option<Timestamp>) {
        match due {
            Some(due) if self.scheduled.get(key) == Some(&due) => {}
            Some(due) => {
                self.scheduled.insert(key.clone(), due);
                self.heap.push(Reverse((due, key.clone())));
            }
            None => {
                self.scheduled.remove(key);
            }
        }
    }

    fn put(&mut self, mut trigger: Trigger) {
        let key = trigger.key.clone();
        self.take(&key);
        let place = (key.namespace.clone(), key.workflow.clone());
        trigger.workflow_paused = self.paused_workflows.contains(&place);
        trigger.open(&self.dialects);
        for topic in topics(&trigger) {
            match &topic {
                Topic::Asset(asset) => *self.assets.entry(asset.clone()).or_default() += 1,
                Topic::Custom(name) => *self.events.entry(name.clone()).or_default() += 1,
                Topic::RunEnded(_) => self.run_end_listeners += 1,
                Topic::Direct(..) => {}
            }
            self.listeners.entry((key.namespace.clone(), topic)).or_default().insert(key.clone());
        }
        if matches!(trigger.spec.kind, TriggerKind::File { .. }) {
            self.files.insert(key.clone());
        }
        self.active.extend(trigger.row.active.iter().map(|run| (*run, key.clone())));
        let due = trigger.due();
        if trigger.asks_mapping() {
            self.mapping.insert(key.clone());
        }
        self.triggers.insert(key.clone(), trigger);
        self.schedule(&key, due);
    }

    fn take(&mut self, key: &TriggerKey) -> Option<Trigger> {
        let trigger = self.triggers.remove(key)?;
        self.scheduled.remove(key);
        self.files.remove(key);
        self.asking.remove(key);
        self.mapping.remove(key);
        for topic in topics(&trigger) {
            match &topic {
                Topic::Asset(asset) => one_less(&mut self.assets, asset),
                Topic::Custom(name) => one_less(&mut self.events, name),
                Topic::RunEnded(_) => self.run_end_listeners -= 1,
                Topic::Direct(..) => {}
            }
            let place = (key.namespace.clone(), topic);
            if let Some(keys) = self.listeners.get_mut(&place) {
                keys.remove(key);
                if keys.is_empty() {
                    self.listeners.remove(&place);
                }
            }
        }
        for run in &trigger.row.active {
            self.active.remove(run);
        }
        Some(trigger)
    }
}

/// Counts a listener off.
fn one_less(counts: &mut BTreeMap<String, usize>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count -= 1;
        if *count == 0 {
            counts.remove(name);
        }
    }
}

fn topics(trigger: &Trigger) -> Vec<Topic> {
    match &trigger.spec.kind {
        TriggerKind::Schedule(_) | TriggerKind::Timetable { .. } => Vec::new(),
        TriggerKind::Assets { condition, .. } => {
            condition.names().into_iter().map(|name| Topic::Asset(name.to_owned())).collect()
        }
        TriggerKind::RunEnd { workflow, .. } => vec![Topic::RunEnded(workflow.clone())],
        TriggerKind::Event { name } => vec![Topic::Custom(name.clone())],
        TriggerKind::Webhook { .. } | TriggerKind::File { .. } => {
            vec![Topic::Direct(trigger.key.workflow.clone(), trigger.key.name.clone())]
        }
    }
}

fn unreadable(row: &TriggerRow) -> ScheduleError {
    ScheduleError::new(format!("{}/{}", row.workflow, row.name), "the stored trigger is unreadable")
}
