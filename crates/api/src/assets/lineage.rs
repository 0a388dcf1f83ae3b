//! Who makes and who reads which asset, and when it is due.

use std::collections::{BTreeMap, BTreeSet};

use kobza_model::Timestamp;
use kobza_schedule::Schedule;
use kobza_schedule::partition::PartitionDefinition;
use kobza_store::{Origin, ViewError, Views, WorkflowFilter};
use kobza_triggers::TriggerKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::shape::Shapes;
use crate::state::ApiState;

/// Assets that are asked what they were made from.
const MAX_ORIGINS: u32 = 10_000;

/// Which workflows make and read each asset.
#[derive(Default)]
pub(super) struct Lineage {
    pub(super) producers: BTreeMap<String, Vec<String>>,
    pub(super) consumers: BTreeMap<String, Vec<String>>,
    /// (from, to, workflow)
    pub(super) edges: BTreeSet<(String, String, String)>,
    /// Of producers whose runs each stand for a partition.
    partitions: BTreeMap<String, PartitionDefinition>,
}

impl Lineage {
    pub(super) fn read(
        views: &dyn Views,
        shapes: &Shapes,
        namespace: &str,
    ) -> Result<Self, ViewError> {
        let mut found = Self::default();
        let mut cursor = None;
        let filter =
            WorkflowFilter { namespaces: vec![namespace.to_owned()], ..Default::default() };
        loop {
            let page = views.list_workflows(&filter, cursor.as_deref(), 1000)?;
            for workflow in page.items {
                let Some(shape) =
                    shapes.get(views, namespace, &workflow.name, &workflow.version)?
                else {
                    continue;
                };
                let (made, read) = shape.assets();
                if let Some(definition) = shape.partitions().filter(|_| !made.is_empty()) {
                    found.partitions.insert(workflow.name.clone(), definition.clone());
                }
                for asset in &made {
                    found.producers.entry(asset.clone()).or_default().push(workflow.name.clone());
                    for from in read.iter().filter(|r| *r != asset) {
                        found.edges.insert((from.clone(), asset.clone(), workflow.name.clone()));
                    }
                }
                for asset in read {
                    found.consumers.entry(asset).or_default().push(workflow.name.clone());
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        for origin in views.asset_origins(namespace, MAX_ORIGINS)? {
            found.made_from(&origin);
        }
        Ok(found)
    }

    /// What data itself says of where it came from: of workflows that are not known beforehand.
    fn made_from(&mut self, origin: &Origin) {
        #[derive(Deserialize)]
        struct Told {
            made_from: BTreeSet<String>,
        }
        let Ok(told) = serde_json::from_str::<Told>(&origin.metadata) else { return };
        let add = |list: &mut Vec<String>| {
            if !list.contains(&origin.workflow) {
                list.push(origin.workflow.clone());
            }
        };
        add(self.producers.entry(origin.asset.clone()).or_default());
        for from in told.made_from.into_iter().filter(|from| *from != origin.asset) {
            add(self.consumers.entry(from.clone()).or_default());
            self.edges.insert((from, origin.asset.clone(), origin.workflow.clone()));
        }
    }

    pub(super) fn producers_of(&self, asset: &str) -> &[String] {
        self.producers.get(asset).map_or(&[], Vec::as_slice)
    }

    pub(super) fn consumers_of(&self, asset: &str) -> &[String] {
        self.consumers.get(asset).map_or(&[], Vec::as_slice)
    }

    /// The pieces that an asset is made of, by the first producer that says so.
    pub(super) fn partitions_of(&self, asset: &str) -> Option<&PartitionDefinition> {
        self.producers_of(asset).iter().find_map(|name| self.partitions.get(name))
    }
}

/// Whether an asset is as new as its producers' schedules promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FreshnessStatus {
    /// No schedule promises anything.
    None,
    Fresh,
    /// A slot passed, and nothing was made since.
    Stale,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Freshness {
    pub(super) status: FreshnessStatus,
    /// When it is to be made next; of a stale one, when it should have been.
    pub(super) due_at: Option<Timestamp>,
}

/// The schedules that are on, by workflow.
#[derive(Default)]
pub(super) struct Promises(BTreeMap<String, Vec<Schedule>>);

impl Promises {
    pub(super) async fn read(state: &ApiState, namespace: &str) -> Result<Self, ApiError> {
        let mut promises = Self::default();
        // A server that only shows has no triggers to ask.
        let Some(triggers) = &state.triggers else { return Ok(promises) };
        for trigger in triggers.list(Some(namespace)).await? {
            if let (TriggerKind::Schedule(schedule), false) =
                (trigger.spec.kind, trigger.row.paused)
            {
                promises.0.entry(trigger.key.workflow).or_default().push(schedule);
            }
        }
        Ok(promises)
    }

    /// Of something made last at `made`, by any of the producers.
    pub(super) fn freshness(
        &self,
        producers: &[String],
        made: Option<Timestamp>,
        now: Timestamp,
    ) -> Freshness {
        let schedules = producers.iter().filter_map(|p| self.0.get(p)).flatten();
        let (mut due, mut next) = (None, None);
        for schedule in schedules {
            due = due.max(schedule.prev_before(now));
            next = match (next, schedule.next_after(now)) {
                (Some(a), Some(b)) => Some(std::cmp::min(a, b)),
                (a, b) => a.or(b),
            };
        }
        match due {
            Some(due) if made.is_none_or(|made| made < due) => {
                Freshness { status: FreshnessStatus::Stale, due_at: Some(due) }
            }
            None if next.is_none() => Freshness { status: FreshnessStatus::None, due_at: None },
            _ => Freshness { status: FreshnessStatus::Fresh, due_at: next },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_slot_without_data_makes_stale() {
        let hour = 3_600_000_000;
        let hourly = Schedule::parse(&json!({"cron": "0 * * * *"})).unwrap();
        let promises = Promises(BTreeMap::from([("w".to_owned(), vec![hourly])]));
        let now = Timestamp(1_000_000 * hour + 600_000_000);
        let at =
            |made: Option<i64>| promises.freshness(&["w".to_owned()], made.map(Timestamp), now);
        let due = Timestamp(1_000_000 * hour);
        let stale = Freshness { status: FreshnessStatus::Stale, due_at: Some(due) };
        assert_eq!(at(None), stale);
        assert_eq!(at(Some(due.0 - 1)), stale);
        let next = Some(Timestamp(due.0 + hour));
        assert_eq!(at(Some(due.0 + 1)), Freshness { status: FreshnessStatus::Fresh, due_at: next });
        let nobody = promises.freshness(&["other".to_owned()], None, now);
        assert_eq!(nobody, Freshness { status: FreshnessStatus::None, due_at: None });
    }
}
