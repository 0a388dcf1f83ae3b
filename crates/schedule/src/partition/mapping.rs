//! Which partitions of one asset belong to which of another.

use std::collections::BTreeMap;

use kobza_model::Timestamp;

use crate::partition::{PartitionDefinition, PartitionSet, TimePartitions};

/// How the partitions of a downstream asset depend on those of an upstream one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionMapping {
    /// The same key; for time, all that overlaps. Dimensions of products are matched by name; one
    /// that the downstream lacks means all of it.
    Identity,
    /// For time: the downstream partition's own window, its begin and end moved by whole downstream
    /// partitions. `start: -1, end: 0` is the one before and itself.
    TimeWindow { start: i64, end: i64 },
    /// Everything upstream.
    All,
    /// The last upstream partition.
    Last,
    /// By key, from downstream to upstream.
    Static(BTreeMap<String, Vec<String>>),
}

impl PartitionMapping {
    /// The upstream partitions that `set`, of the downstream definition, depends on. `at` limits
    /// what "all" and "last" mean.
    #[must_use]
    pub fn upstream_of(
        &self,
        downstream: &PartitionDefinition,
        upstream: &PartitionDefinition,
        set: &PartitionSet,
        at: Timestamp,
    ) -> PartitionSet {
        self.apply(downstream, upstream, set, at, Way::Up)
    }

    /// The downstream partitions that depend on any of `set`, of the upstream definition.
    #[must_use]
    pub fn downstream_of(
        &self,
        upstream: &PartitionDefinition,
        downstream: &PartitionDefinition,
        set: &PartitionSet,
        at: Timestamp,
    ) -> PartitionSet {
        self.apply(upstream, downstream, set, at, Way::Down)
    }

    fn apply(
        &self,
        from: &PartitionDefinition,
        to: &PartitionDefinition,
        set: &PartitionSet,
        at: Timestamp,
        way: Way,
    ) -> PartitionSet {
        let none = PartitionSet::empty(to.dimensions().len());
        if set.is_empty() {
            return none;
        }
        match self {
            Self::All => to.all_at(at),
            Self::Last => match way {
                Way::Up => to.all_at(at).last().map_or(none, |last| PartitionSet::one(&last)),
                Way::Down => match from.all_at(at).last() {
                    Some(last) if set.contains(&last) => to.all_at(at),
                    _ => none,
                },
            },
            Self::Static(pairs) => static_pairs(pairs, from, to, set, way),
            Self::Identity => by_dimension(from, to, set, at, way, (0, 0)),
            Self::TimeWindow { start, end } => by_dimension(from, to, set, at, way, (*start, *end)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

fn static_pairs(
    pairs: &BTreeMap<String, Vec<String>>,
    from: &PartitionDefinition,
    to: &PartitionDefinition,
    set: &PartitionSet,
    way: Way,
) -> PartitionSet {
    let mut result = PartitionSet::empty(to.dimensions().len());
    for (down, ups) in pairs {
        for up in ups {
            let (source, target) = if way == Way::Up { (down, up) } else { (up, down) };
            let wanted = from.parse_key(source).is_ok_and(|place| set.contains(&place));
            if let (true, Ok(place)) = (wanted, to.parse_key(target)) {
                result.insert(&place);
            }
        }
    }
    result
}

fn by_dimension(
    from: &PartitionDefinition,
    to: &PartitionDefinition,
    set: &PartitionSet,
    at: Timestamp,
    way: Way,
    shift: (i64, i64),
) -> PartitionSet {
    let (sources, targets) = (named(from), named(to));
    let mut result = PartitionSet::empty(targets.len());
    for ranges in set.boxes() {
        let mapped: Vec<Vec<(u64, u64)>> = targets
            .iter()
            .enumerate()
            .map(|(number, (name, target))| {
                let source = match (sources.len(), targets.len()) {
                    (1, 1) => Some(0),
                    // One dimension against several: the first of its own kind.
                    (1, _) | (_, 1) => sources.iter().enumerate().position(|(at, (_, source))| {
                        same_kind(source, target)
                            && first_of_kind(&targets, number)
                            && at < ranges.len()
                    }),
                    _ => sources.iter().position(|(own, _)| own == name),
                };
                match source {
                    Some(source) => {
                        one_dimension(sources[source].1, target, ranges[source], way, shift)
                    }
                    None => vec![(0, target.length_at(at))],
                }
            })
            .collect();
        result = result.union(&PartitionSet::product(&mapped));
    }
    result
}

fn named(definition: &PartitionDefinition) -> Vec<(&str, &PartitionDefinition)> {
    match definition {
        PartitionDefinition::Product(dimensions) => {
            dimensions.iter().map(|(name, dimension)| (name.as_str(), dimension)).collect()
        }
        other => vec![("", other)],
    }
}

fn is_time(definition: &PartitionDefinition) -> bool {
    matches!(definition, PartitionDefinition::Time(_))
}

fn same_kind(a: &PartitionDefinition, b: &PartitionDefinition) -> bool {
    is_time(a) == is_time(b)
}

fn first_of_kind(dimensions: &[(&str, &PartitionDefinition)], number: usize) -> bool {
    let kind = is_time(dimensions[number].1);
    dimensions.iter().position(|(_, d)| is_time(d) == kind) == Some(number)
}

fn one_dimension(
    from: &PartitionDefinition,
    to: &PartitionDefinition,
    range: (u64, u64),
    way: Way,
    shift: (i64, i64),
) -> Vec<(u64, u64)> {
    use PartitionDefinition::Time;
    match (from, to) {
        (Time(from), Time(to)) => vec![time_range(from, to, range, way, shift).unwrap_or((0, 0))],
        (Time(_), _) | (_, Time(_)) => Vec::new(),
        _ => {
            let keys = (range.0..range.1).filter_map(|index| from.key_of(index));
            keys.filter_map(|key| to.index_of(&key).ok()).map(|i| (i, i + 1)).collect()
        }
    }
}

/// A run of partitions maps to a run: neighbours' windows overlap or touch.
fn time_range(
    from: &TimePartitions,
    to: &TimePartitions,
    (first, end): (u64, u64),
    way: Way,
    (shift_start, shift_end): (i64, i64),
) -> Option<(u64, u64)> {
    let shifted =
        |index: u64, by: i64| -> Option<i64> { i64::try_from(index).ok()?.checked_add(by) };
    let clip = |index: i64| u64::try_from(index.max(0)).ok();
    match way {
        Way::Up => {
            let (begin, last) = (shifted(first, shift_start)?, shifted(end - 1, shift_end)?);
            if last < 0 || last < begin {
                return None;
            }
            let (begin, last) = (from.window(clip(begin)?)?, from.window(clip(last)?)?);
            Some(to.overlapping(begin.start, last.end))
        }
        Way::Down => {
            let (begin, last) = (from.window(first)?, from.window(end - 1)?);
            let (first, end) = to.overlapping(begin.start, last.end);
            if first == end {
                return None;
            }
            let (begin, last) = (shifted(first, -shift_end)?, shifted(end - 1, -shift_start)?);
            if last < 0 || last < begin {
                return None;
            }
            let total = to.total().unwrap_or(u64::MAX);
            Some((clip(begin)?, clip(last)?.saturating_add(1).min(total)))
        }
    }
}
