//! The pieces of an asset: which there are, which have data, which failed.

use std::collections::BTreeMap;

use kobza_model::{RunId, RunState, Timestamp};
use kobza_schedule::partition::PartitionDefinition;
use kobza_store::{PartitionStatus, RunFilter, ViewError, Views};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lineage::Lineage;

/// Partitions with data, and runs, that are looked at.
const MOST: usize = 1_000_000;
const MOST_RUNS: usize = 20_000;
/// Items of one answer.
const ITEMS: u64 = 20_000;
/// Keys of a dimension that are told.
const KEYS: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "PartitionState")]
pub(super) enum State {
    Present,
    /// A run for it failed after it was made last.
    Failed,
    /// A run for it is under way.
    Running,
    Missing,
}

impl State {
    const ALL: [Self; 4] = [Self::Present, Self::Failed, Self::Running, Self::Missing];

    fn word(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Failed => "failed",
            Self::Running => "running",
            Self::Missing => "missing",
        }
    }
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "PartitionDimension")]
pub(crate) struct Dimension {
    name: String,
    /// `time`, `static`, or `dynamic`.
    kind: &'static str,
    /// How many keys it has now.
    total: u64,
    first: Option<String>,
    last: Option<String>,
    /// The first of them, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<String>>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Partition")]
pub(super) struct Item {
    key: String,
    state: State,
    at: Option<Timestamp>,
    run: Option<RunId>,
}

/// Partitions that follow each other.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "PartitionBucket")]
pub(super) struct Bucket {
    /// The place of the first.
    offset: u64,
    count: u64,
    first: String,
    last: String,
    /// How many of each state.
    counts: BTreeMap<State, u64>,
}

/// The last dimension changes fastest; the first key of each is the oldest or the first written.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "PartitionsView")]
pub(super) struct View {
    dimensions: Vec<Dimension>,
    /// Of all states.
    total: u64,
    counts: BTreeMap<State, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<Item>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    buckets: Option<Vec<Bucket>>,
    /// Of the items that were asked for.
    next: Option<String>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "PartitionsAsked")]
pub(super) struct Asked {
    /// Words of states, separated by commas.
    pub(super) state: Option<String>,
    /// The place of the first item.
    pub(super) offset: Option<u64>,
    /// The key of the first item, or the beginning of one.
    pub(super) from_key: Option<String>,
    /// The `next` of the piece before.
    pub(super) cursor: Option<u64>,
    pub(super) limit: Option<u64>,
    /// The last one first.
    #[serde(default)]
    pub(super) newest: bool,
    /// So many buckets in place of items.
    pub(super) buckets: Option<u64>,
    /// The keys of each dimension too.
    #[serde(default)]
    pub(super) dimension_keys: bool,
}

#[derive(Clone, Copy)]
struct Known {
    state: State,
    at: Option<Timestamp>,
    run: Option<RunId>,
}

/// What is numbered from 0: a definition's partitions, or without one those with data.
enum Universe {
    Defined { definition: PartitionDefinition, lengths: Vec<u64> },
    Seen(Vec<String>),
}

impl Universe {
    fn total(&self) -> u64 {
        match self {
            Self::Defined { lengths, .. } => {
                lengths.iter().try_fold(1u64, |a, b| a.checked_mul(*b)).unwrap_or(u64::MAX)
            }
            Self::Seen(keys) => keys.len() as u64,
        }
    }

    fn key(&self, index: u64) -> String {
        match self {
            Self::Defined { definition, lengths } => {
                let mut place = vec![0; lengths.len()];
                let mut rest = index;
                for (at, length) in lengths.iter().enumerate().rev() {
                    place[at] = rest % (*length).max(1);
                    rest /= (*length).max(1);
                }
                definition.key(&place).unwrap_or_default()
            }
            Self::Seen(keys) => {
                usize::try_from(index).ok().and_then(|i| keys.get(i)).cloned().unwrap_or_default()
            }
        }
    }

    fn index(&self, key: &str) -> Option<u64> {
        match self {
            Self::Defined { definition, lengths } => {
                let place = definition.parse_key(key).ok()?;
                place.iter().zip(lengths).try_fold(0u64, |index, (part, length)| {
                    (part < length).then(|| index * length + part)
                })
            }
            Self::Seen(keys) => {
                keys.binary_search_by(|k| k.as_str().cmp(key)).ok().map(|i| i as u64)
            }
        }
    }

    /// Where to begin for a key: at it, or where it would stand.
    fn place_of(&self, key: &str) -> Option<u64> {
        if let Some(index) = self.index(key) {
            return Some(index);
        }
        let ordered = match self {
            Self::Defined { definition, .. } => {
                matches!(definition.dimensions().first(), Some(PartitionDefinition::Time(_)))
            }
            Self::Seen(_) => true,
        };
        // Keys of time are in the order of their texts.
        let (mut low, mut high) = (0, self.total());
        while ordered && low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle).as_str() < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (ordered && low < self.total()).then_some(low)
    }

    fn dimensions(&self, keys: bool) -> Vec<Dimension> {
        match self {
            Self::Defined { definition, lengths } => dimensions(definition, lengths, keys),
            Self::Seen(seen) => vec![Dimension {
                name: ONE.to_owned(),
                kind: "dynamic",
                total: self.total(),
                first: seen.first().cloned(),
                last: seen.last().cloned(),
                keys: keys.then(|| seen.iter().take(KEYS as usize).cloned().collect()),
            }],
        }
    }
}

/// What the only dimension is called.
const ONE: &str = "partition";

fn dimensions(definition: &PartitionDefinition, lengths: &[u64], keys: bool) -> Vec<Dimension> {
    let names: Vec<&str> = match definition {
        PartitionDefinition::Product(all) => all.iter().map(|(n, _)| n.as_str()).collect(),
        _ => vec![ONE],
    };
    let each = definition.dimensions().into_iter().zip(names).zip(lengths);
    each.map(|((dimension, name), total)| Dimension {
        name: name.to_owned(),
        kind: match dimension {
            PartitionDefinition::Time(_) => "time",
            PartitionDefinition::Static(_) => "static",
            _ => "dynamic",
        },
        total: *total,
        first: dimension.key(&[0]).filter(|_| *total > 0),
        last: total.checked_sub(1).and_then(|last| dimension.key(&[last])),
        keys: keys.then(|| (0..(*total).min(KEYS)).filter_map(|i| dimension.key(&[i])).collect()),
    })
    .collect()
}

/// The dimensions of a definition as they are now; those of keys with their keys.
pub(crate) fn of_definition(definition: &PartitionDefinition, now: Timestamp) -> Vec<Dimension> {
    let lengths: Vec<u64> = definition.dimensions().iter().map(|d| d.length_at(now)).collect();
    let mut all = dimensions(definition, &lengths, true);
    for dimension in all.iter_mut().filter(|d| d.kind == "time") {
        dimension.keys = None;
    }
    all
}

/// All partitions of an asset, with what is known of them.
pub(super) struct Partitions {
    universe: Universe,
    /// What is not here is missing.
    known: BTreeMap<u64, Known>,
}

/// How many there are now by definition; `None` without one.
pub(super) fn defined(lineage: &Lineage, asset: &str, now: Timestamp) -> Option<u64> {
    lineage.partitions_of(asset).map(|d| d.all_at(now).count())
}

impl Partitions {
    pub(super) fn read(
        views: &dyn Views,
        lineage: &Lineage,
        namespace: &str,
        asset: &str,
        now: Timestamp,
    ) -> Result<Self, ViewError> {
        let made = with_data(views, namespace, asset)?;
        let universe = match lineage.partitions_of(asset) {
            Some(definition) if !matches!(definition, PartitionDefinition::Dynamic { .. }) => {
                let lengths = definition.dimensions().iter().map(|d| d.length_at(now)).collect();
                Universe::Defined { definition: definition.clone(), lengths }
            }
            _ => {
                let mut keys: Vec<String> = made.iter().map(|p| p.partition.clone()).collect();
                keys.sort_unstable();
                Universe::Seen(keys)
            }
        };
        let mut known = BTreeMap::new();
        for status in made {
            if let Some(index) = universe.index(&status.partition) {
                let state = State::Present;
                known.insert(index, Known { state, at: Some(status.at), run: status.run });
            }
        }
        for workflow in lineage.producers_of(asset) {
            let runs = unsuccessful(views, namespace, workflow)?;
            // The newest run of a partition speaks for it: older ones come first here.
            for (partition, created, run, state) in runs.into_iter().rev() {
                let Some(index) = universe.index(&partition) else { continue };
                let at = known.get(&index).filter(|k| k.state == State::Present).and_then(|k| k.at);
                if at.is_none_or(|at| at < created) {
                    known.insert(index, Known { state, at, run: Some(run) });
                }
            }
        }
        Ok(Self { universe, known })
    }

    pub(super) fn total(&self) -> u64 {
        self.universe.total()
    }

    pub(super) fn count(&self, state: State) -> u64 {
        match state {
            State::Missing => self.total().saturating_sub(self.known.len() as u64),
            other => self.known.values().filter(|k| k.state == other).count() as u64,
        }
    }

    pub(super) fn view(&self, asked: &Asked) -> View {
        let total = self.total();
        let counts = State::ALL
            .into_iter()
            .map(|state| (state, self.count(state)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let dimensions = self.universe.dimensions(asked.dimension_keys);
        let mut view = View { dimensions, total, counts, items: None, buckets: None, next: None };
        if let Some(buckets) = asked.buckets {
            view.buckets = Some(self.buckets(buckets));
        } else {
            let (items, next) = self.items(asked);
            view.items = Some(items);
            view.next = next.map(|n| n.to_string());
        }
        view
    }

    fn buckets(&self, wanted: u64) -> Vec<Bucket> {
        let total = self.total();
        let size = total.div_ceil(wanted.clamp(1, ITEMS)).max(1);
        let mut all = Vec::new();
        let mut offset = 0;
        while offset < total {
            let count = size.min(total - offset);
            let mut counts: BTreeMap<State, u64> = BTreeMap::new();
            for known in self.known.range(offset..offset + count).map(|(_, k)| k) {
                *counts.entry(known.state).or_default() += 1;
            }
            let missing = count - counts.values().sum::<u64>();
            if missing > 0 {
                counts.insert(State::Missing, missing);
            }
            all.push(Bucket {
                offset,
                count,
                first: self.universe.key(offset),
                last: self.universe.key(offset + count - 1),
                counts,
            });
            offset += count;
        }
        all
    }

    /// Items in order, and where the next piece begins.
    fn items(&self, asked: &Asked) -> (Vec<Item>, Option<u64>) {
        let total = self.total();
        let wanted = |state: State| {
            asked.state.as_deref().is_none_or(|s| s.split(',').any(|s| s == state.word()))
        };
        let limit = asked.limit.unwrap_or(1000).clamp(1, ITEMS);
        let named = asked.from_key.as_deref().and_then(|key| self.universe.place_of(key));
        let named = named.map(|index| if asked.newest { total - 1 - index } else { index });
        let mut at = asked.cursor.or(asked.offset).or(named).unwrap_or(0);
        let mut items = Vec::new();
        while at < total && (items.len() as u64) < limit {
            let index = if asked.newest { total - 1 - at } else { at };
            at += 1;
            let known = self.known.get(&index);
            let state = known.map_or(State::Missing, |k| k.state);
            if wanted(state) {
                items.push(Item {
                    key: self.universe.key(index),
                    state,
                    at: known.and_then(|k| k.at),
                    run: known.and_then(|k| k.run),
                });
            }
        }
        (items, (at < total).then_some(at))
    }
}

fn with_data(
    views: &dyn Views,
    namespace: &str,
    asset: &str,
) -> Result<Vec<PartitionStatus>, ViewError> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = views.asset_partitions(namespace, asset, cursor.as_deref(), u32::MAX)?;
        all.extend(page.items);
        match page.next {
            Some(next) if all.len() < MOST => cursor = Some(next),
            _ => return Ok(all),
        }
    }
}

/// Runs for a partition that failed or have not ended, newest first.
fn unsuccessful(
    views: &dyn Views,
    namespace: &str,
    workflow: &str,
) -> Result<Vec<(String, Timestamp, RunId, State)>, ViewError> {
    let filter = RunFilter {
        namespaces: vec![namespace.to_owned()],
        workflow: Some(workflow.to_owned()),
        states: RunState::ALL.iter().copied().filter(|s| *s != RunState::Succeeded).collect(),
        ..RunFilter::default()
    };
    let (mut all, mut cursor, mut seen) = (Vec::new(), None, 0);
    loop {
        let page = views.list_runs(&filter, cursor.as_deref(), u32::MAX)?;
        seen += page.items.len();
        all.extend(page.items.into_iter().filter_map(|run| {
            let state = if run.state.is_finished() { State::Failed } else { State::Running };
            Some((run.partition?, run.created_at, run.run, state))
        }));
        match page.next {
            Some(next) if seen < MOST_RUNS => cursor = Some(next),
            _ => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn partitions(known: &[(&str, State)]) -> Partitions {
        let definition = PartitionDefinition::parse(&json!({"type": "product", "dimensions": {
            "day": {"type": "daily", "start": "2026-01-01"},
            "region": {"type": "static", "keys": ["eu", "us", "apac"]},
        }}))
        .unwrap();
        let universe = Universe::Defined { definition, lengths: vec![4, 3] };
        let known = known.iter().map(|(key, state)| {
            let known = Known { state: *state, at: None, run: None };
            (universe.index(key).unwrap(), known)
        });
        Partitions { known: known.collect(), universe }
    }

    #[test]
    fn keys_and_numbers_are_each_others() {
        let all = partitions(&[]);
        for index in 0..12 {
            assert_eq!(all.universe.index(&all.universe.key(index)), Some(index));
        }
        assert_eq!(all.universe.key(5), "2026-01-02|apac");
        for gone in ["2026-01-05|eu", "2026-01-01|asia", "2026-01-01", "eu|2026-01-01"] {
            assert_eq!(all.universe.index(gone), None, "{gone}");
        }
    }

    #[test]
    fn what_has_no_data_is_missing() {
        let all =
            partitions(&[("2026-01-01|us", State::Present), ("2026-01-04|apac", State::Failed)]);
        let view = all.view(&Asked { limit: Some(5), ..Asked::default() });
        assert_eq!((view.total, view.next.as_deref()), (12, Some("5")));
        assert_eq!(
            view.counts,
            BTreeMap::from([(State::Present, 1), (State::Failed, 1), (State::Missing, 10)])
        );
        let states: Vec<State> = view.items.unwrap().iter().map(|i| i.state).collect();
        assert_eq!(states[..2], [State::Missing, State::Present]);
        let failed = Asked { state: Some("failed".into()), newest: true, ..Asked::default() };
        let items = all.view(&failed).items.unwrap();
        assert_eq!((items.len(), items[0].key.as_str()), (1, "2026-01-04|apac"));
        for (newest, from, key) in [
            (false, "2026-01-02|us", "2026-01-02|us"),
            (true, "2026-01-02|us", "2026-01-02|us"),
            (false, "2026-01-03", "2026-01-03|eu"),
            (true, "unheard of", "2026-01-04|apac"),
        ] {
            let from_key = Some(from.to_owned());
            let items = all.view(&Asked { from_key, newest, ..Asked::default() }).items.unwrap();
            assert_eq!(items[0].key, key);
        }
    }

    #[test]
    fn buckets_hold_everything_once() {
        let all = partitions(&[("2026-01-01|us", State::Present)]);
        let buckets = all.view(&Asked { buckets: Some(5), ..Asked::default() }).buckets.unwrap();
        assert_eq!(buckets.iter().map(|b| b.count).collect::<Vec<_>>(), [3, 3, 3, 3]);
        assert_eq!(buckets[0].counts, BTreeMap::from([(State::Present, 1), (State::Missing, 2)]));
        assert_eq!(
            (buckets[3].first.as_str(), buckets[3].last.as_str()),
            ("2026-01-04|eu", "2026-01-04|apac")
        );
    }
}
