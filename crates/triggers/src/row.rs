//! Rows of the store: a trigger's state, and what became of its slots.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kobza_model::{Json, RunId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Tick, TriggerEvent};

/// A trigger with all that must outlive a crash. Key: `{workflow}/{name}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TriggerRow {
    pub workflow: String,
    pub name: String,
    /// The definition as written.
    pub spec: Json,
    pub paused: bool,
    pub created_at: Timestamp,
    /// Every slot up to here has been decided.
    pub cursor: Timestamp,
    /// The newest event of the log that it reacted to.
    #[serde(default)]
    pub seen: u64,
    /// Its unfinished runs, where the overlap policy or a timetable's limit asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<RunId>,
    /// Slots that wait for the end of `active`, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queue: Vec<Pending>,
    /// Events collected for one run, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collected: Vec<TriggerEvent>,
    /// When the first and the last of `collected` came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected_between: Option<(Timestamp, Timestamp)>,
    /// The newest update of each asset since the condition last held, by partition (empty: none or
    /// not kept apart).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub updated: BTreeMap<String, BTreeMap<String, TriggerEvent>>,
    /// Updates whose partitions are not mapped yet, oldest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub unmapped: VecDeque<TriggerEvent>,
    /// Updates by the partition that they are mapped to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mapped: BTreeMap<String, Gathered>,
    /// The number of the newest event when its condition last held; before that, when it began.
    #[serde(default)]
    pub fired: u64,
    /// Whether its condition has ever held.
    #[serde(default)]
    pub has_fired: bool,
    /// The last tick of its timetable that became a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Tick>,
}

/// A start that waits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Pending {
    /// Key of its slot within the trigger.
    pub slot: String,
    pub at: Timestamp,
    pub params: Json,
    pub interval: Option<(Timestamp, Timestamp)>,
    pub partition: Option<String>,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<EventWindow>,
}

/// The events of the log that a run of an asset trigger stands for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventWindow {
    /// Numbers after this one ...
    pub after: u64,
    /// ... up to here.
    pub through: u64,
    /// The trigger has not fired before: `after` says when it began.
    pub first: bool,
    /// Of these, only those with these numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picked: Option<Vec<u64>>,
    /// The time that the run's partition stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Timestamp>,
}

/// What there is of a partition whose run has not started.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Gathered {
    pub events: Vec<TriggerEvent>,
    /// Assets of which it has all that it needs.
    pub complete: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Timestamp>,
}

/// What became of a slot. Key: `{workflow}/{name}/{slot}`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SlotRow {
    pub workflow: String,
    pub trigger: String,
    /// The logical time, or the event's.
    pub at: Timestamp,
    /// A skip of all slots from `at` through here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<Timestamp>,
    pub outcome: SlotOutcome,
    /// Why, for people.
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    pub decided_at: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotOutcome {
    Started,
    Skipped,
    /// It waits for an earlier run's end; the row is written again then.
    Queued,
    /// It should have started and could not: its parameters or its filter are wrong.
    Failed,
}
