//! What the machine wants committed.

use kobza_model::{Json, RunId, Timestamp};
use kobza_store::Write;
use sha2::{Digest, Sha256};

use crate::row::{EventWindow, SlotOutcome, SlotRow, TriggerRow};

/// Kinds of the store's objects that this crate owns.
pub(crate) const TRIGGER: &str = kobza_store::kinds::TRIGGER;
pub(crate) const SLOT: &str = kobza_store::kinds::SLOT;

/// Which trigger.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TriggerKey {
    pub namespace: String,
    pub workflow: String,
    pub name: String,
}

impl TriggerKey {
    #[must_use]
    pub fn new(namespace: &str, workflow: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), workflow: workflow.into(), name: name.into() }
    }

    /// Its key within the namespace.
    #[must_use]
    pub fn object_key(&self) -> String {
        format!("{}/{}", self.workflow, self.name)
    }

    /// The key of one of its slots within the namespace.
    #[must_use]
    pub fn slot_key(&self, slot: &str) -> String {
        format!("{}/{}/{slot}", self.workflow, self.name)
    }

    /// The key of the run of a slot, unique within the workflow.
    #[must_use]
    pub fn run_key(&self, slot: &str) -> String {
        format!("trigger:{}@{slot}", self.name)
    }
}

/// A run to start.
#[derive(Clone, PartialEq, Debug)]
pub struct StartSpec {
    pub run: RunId,
    /// Unique within the workflow: a second start of the same slot is refused by it.
    pub key: String,
    /// `schedule`, `asset`, ...
    pub trigger: &'static str,
    /// The time of the slot.
    pub at: Timestamp,
    /// The asset events that it stands for.
    pub window: Option<EventWindow>,
    /// The backfill that it is of.
    pub backfill: Option<BackfillPiece>,
    pub interval: Option<(Timestamp, Timestamp)>,
    pub partition: Option<String>,
    /// Not yet checked against the workflow's schema, defaults not filled in.
    pub params: Json,
    pub labels: Json,
    /// What the workflow's dialect keeps with the run.
    pub extra: Json,
}

/// A piece of a backfill.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackfillPiece {
    pub id: String,
    /// Place in the order of execution, from 0.
    pub position: u64,
    pub created_by: String,
}

/// One change of one trigger: commit its commands and [`Step::writes`] in one transaction, in the
/// order in which a trigger's steps come. If a step cannot be committed, none of its later ones
/// may be: call [`crate::Triggers::restore`] with the stored row.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    pub trigger: TriggerKey,
    pub start: Option<StartSpec>,
    /// Runs to cancel first, with the reason.
    pub stop: Vec<(RunId, String)>,
    /// Slots that this decides, by their key within the trigger.
    pub slots: Vec<(String, SlotRow)>,
    /// The trigger after it; `None` when it is deleted.
    pub row: Option<TriggerRow>,
}

impl Step {
    /// The rows, as writes that belong into the transaction of the step's commands.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        let put = |kind, key, value| Write::PutObject {
            kind,
            namespace: self.trigger.namespace.clone(),
            key,
            value,
        };
        // Rows are plain data: they always have a JSON form.
        let slots = self.slots.iter().map(|(slot, row)| {
            put(SLOT, self.trigger.slot_key(slot), serde_json::to_value(row).ok())
        });
        let row = self.row.as_ref().and_then(|row| serde_json::to_value(row).ok());
        slots.chain([put(TRIGGER, self.trigger.object_key(), row)]).collect()
    }

    /// Turns a start that cannot or shall not be into a record of why, so that the slot is not
    /// tried for ever.
    pub fn refuse_start(&mut self, outcome: SlotOutcome, reason: &str) {
        self.start = None;
        // Those whose place it would have taken go on.
        self.stop.clear();
        for (_, slot) in &mut self.slots {
            if slot.outcome == SlotOutcome::Started {
                slot.outcome = outcome;
                if let (Some(run), Some(row)) = (slot.run.take(), &mut self.row) {
                    row.active.retain(|active| *active != run);
                }
                slot.reason = format!("{}; not started: {reason:.500}", slot.reason);
            }
        }
    }

    /// The slot's run exists already, under this id: keep the rows and start nothing.
    pub fn start_exists(&mut self, existing: RunId) {
        let Some(start) = self.start.take() else { return };
        for (_, slot) in &mut self.slots {
            if slot.run == Some(start.run) {
                slot.run = Some(existing);
            }
        }
        if let Some(row) = &mut self.row {
            row.active.iter_mut().filter(|run| **run == start.run).for_each(|run| *run = existing);
        }
    }
}

/// A UUID version 7 whose random part comes from what it is for: pure, and the same decision at the
/// same time has the same id.
pub(crate) fn run_id(purpose: &[&str], now: Timestamp) -> RunId {
    let mut hash = Sha256::new();
    for part in purpose {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut random = [0u8; 10];
    random.copy_from_slice(&digest[..10]);
    let millis = u64::try_from(now.0 / 1000).unwrap_or(0);
    RunId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

/// A fraction of `range` that is always the same for the same trigger and slot.
pub(crate) fn spread(trigger: &TriggerKey, slot: Timestamp, range: i64) -> i64 {
    if range <= 0 {
        return 0;
    }
    let mut hash = Sha256::new();
    for part in [&trigger.namespace, &trigger.workflow, &trigger.name] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(slot.0.to_le_bytes());
    let digest = hash.finalize();
    let mut bytes = [0u8; 8];
    bytes.copy_from_slice(&digest[..8]);
    i64::try_from(u64::from_le_bytes(bytes) % range.unsigned_abs()).unwrap_or(0)
}
