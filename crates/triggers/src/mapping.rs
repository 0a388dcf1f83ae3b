//! Which partitions of a workflow an asset's partition belongs to, where only its dialect knows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kobza_model::Timestamp;

use crate::{TriggerEvent, TriggerKey};

/// Source keys that came before, by the workflow's partition and the asset.
pub type Held = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// Maps partitions of assets to those of a workflow.
pub trait PartitionMapping: Send + Sync + fmt::Debug {
    /// The partitions that an update belongs to. May take its time, on a thread of its own. The
    /// outer error: nobody could be asked, so it is tried again.
    fn map(&self, event: &TriggerEvent, held: &Held)
    -> Result<Result<Vec<Mapped>, String>, String>;
}

/// A partition of the workflow that an update belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapped {
    pub key: String,
    /// Assets of which it has all that it needs, with this update.
    pub complete: Vec<String>,
    /// The time that the partition stands for.
    pub date: Option<Timestamp>,
}

/// What a trigger wants mapped; [`crate::Triggers::mapped`] takes the answer.
#[derive(Clone, Debug)]
pub struct MappingQuestion {
    pub trigger: TriggerKey,
    pub mapping: Arc<dyn PartitionMapping>,
    pub event: TriggerEvent,
    pub held: Held,
}
