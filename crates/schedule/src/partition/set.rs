//! Compact sets of partitions.
//!
//! A set over one dimension is a list of index ranges. Over several dimensions it is a list of
//! ranges of the first, each with a set over the others; neighbours with equal inner sets are
//! merged, so each set has exactly one form and equality is comparison of forms. Every path from
//! the first dimension to the last is a box.

use std::sync::Arc;

/// A partition's index in each dimension.
pub type Place = Vec<u64>;

/// A set of partitions of a definition with a given number of dimensions. Sets of different
/// definitions must not be mixed: that is for a [`crate::partition::PartitionMapping`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionSet {
    dimensions: usize,
    root: Level,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Level {
    spans: Vec<Span>,
}

/// Indexes `from..to`, with the set over the further dimensions (none at the last).
#[derive(Clone, PartialEq, Eq, Debug)]
struct Span {
    from: u64,
    to: u64,
    inner: Option<Arc<Level>>,
}

#[derive(Clone, Copy)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

impl Operation {
    fn keeps(self, left: bool, right: bool) -> bool {
        match self {
            Self::Union => left || right,
            Self::Intersection => left && right,
            Self::Difference => left && !right,
        }
    }
}

impl PartitionSet {
    /// Nothing. `dimensions` is at least 1.
    #[must_use]
    pub fn empty(dimensions: usize) -> Self {
        Self { dimensions: dimensions.max(1), root: Level::default() }
    }

    /// All combinations of one list of half-open index ranges per dimension. Ranges may come in any
    /// order and overlap.
    #[must_use]
    pub fn product(ranges: &[Vec<(u64, u64)>]) -> Self {
        let mut set = Self::empty(ranges.len());
        let mut inner: Option<Arc<Level>> = None;
        for (depth, dimension) in ranges.iter().rev().enumerate() {
            if depth > 0 && inner.as_ref().is_none_or(|level| level.spans.is_empty()) {
                return set;
            }
            let mut sorted: Vec<_> = dimension.iter().filter(|(from, to)| from < to).collect();
            sorted.sort_unstable();
            let mut level = Level::default();
            for &&(from, to) in &sorted {
                match level.spans.last_mut() {
                    Some(last) if last.to >= from => last.to = last.to.max(to),
                    _ => level.spans.push(Span { from, to, inner: inner.clone() }),
                }
            }
            inner = Some(Arc::new(level));
        }
        if let Some(level) = inner {
            set.root = Arc::unwrap_or_clone(level);
        }
        set
    }

    /// Index ranges of a definition with one dimension.
    #[must_use]
    pub fn ranges(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        Self::product(&[ranges.into_iter().collect()])
    }

    /// One partition.
    #[must_use]
    pub fn one(place: &[u64]) -> Self {
        let ranges: Vec<_> = place.iter().map(|&i| vec![(i, i.saturating_add(1))]).collect();
        Self::product(&ranges)
    }

    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.spans.is_empty()
    }

    /// How many partitions, without listing them; saturating.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.root.count()
    }

    #[must_use]
    pub fn contains(&self, place: &[u64]) -> bool {
        let mut level = Some(&self.root);
        for &index in place {
            let Some(span) = level.and_then(|level| level.find(index)) else { return false };
            level = span.inner.as_deref();
        }
        place.len() == self.dimensions
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, Operation::Union)
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, Operation::Intersection)
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, Operation::Difference)
    }

    /// Adds one partition. Adding in ascending order is fast in one dimension.
    pub fn insert(&mut self, place: &[u64]) {
        if let ([index], Some(last)) = (place, self.root.spans.last_mut())
            && self.dimensions == 1
            && last.to == *index
        {
            last.to += 1;
            return;
        }
        if !self.contains(place) && place.len() == self.dimensions {
            *self = self.union(&Self::one(place));
        }
    }

    fn combine(&self, other: &Self, operation: Operation) -> Self {
        // A mixture of dimensions has no meaning; an empty set of any shape does.
        let other = if other.is_empty() { &Self::empty(self.dimensions) } else { other };
        if self.is_empty() && self.dimensions != other.dimensions {
            return Self::empty(other.dimensions).combine(other, operation);
        }
        assert_eq!(self.dimensions, other.dimensions, "sets of different definitions");
        Self {
            dimensions: self.dimensions,
            root: combine(&self.root, &other.root, self.dimensions, operation),
        }
    }

    /// The place of the `number`-th partition in ascending order, from 0.
    #[must_use]
    pub fn nth(&self, number: u64) -> Option<Place> {
        let mut place = Vec::with_capacity(self.dimensions);
        let mut rest = number;
        let mut level = &self.root;
        loop {
            let (span, each) = level.spans.iter().find_map(|span| {
                let each = span.inner.as_ref().map_or(1, |inner| inner.count());
                let here = (span.to - span.from).saturating_mul(each);
                if rest < here {
                    return Some((span, each));
                }
                rest -= here;
                None
            })?;
            place.push(span.from + rest / each);
            rest %= each;
            match span.inner.as_deref() {
                Some(inner) => level = inner,
                None => return Some(place),
            }
        }
    }

    #[must_use]
    pub fn first(&self) -> Option<Place> {
        self.nth(0)
    }

    #[must_use]
    pub fn last(&self) -> Option<Place> {
        self.count().checked_sub(1).and_then(|number| self.nth(number))
    }

    /// Up to `limit` partitions in ascending order, leaving out the first `offset`.
    pub fn page(&self, offset: u64, limit: usize) -> impl Iterator<Item = Place> + '_ {
        (offset..).take(limit).map_while(|number| self.nth(number))
    }

    /// The boxes that the set consists of: per dimension one half-open range. Disjoint, ascending.
    #[must_use]
    pub fn boxes(&self) -> Vec<Vec<(u64, u64)>> {
        let mut found = Vec::new();
        self.root.collect_boxes(&mut Vec::new(), &mut found);
        found
    }

    /// The ranges of the first dimension, whatever the others.
    #[must_use]
    pub fn first_dimension(&self) -> Vec<(u64, u64)> {
        self.root.spans.iter().map(|span| (span.from, span.to)).collect()
    }
}

impl Level {
    fn count(&self) -> u64 {
        self.spans.iter().fold(0u64, |sum, span| {
            let each = span.inner.as_ref().map_or(1, |inner| inner.count());
            sum.saturating_add((span.to - span.from).saturating_mul(each))
        })
    }

    fn find(&self, index: u64) -> Option<&Span> {
        let at = self.spans.partition_point(|span| span.to <= index);
        self.spans.get(at).filter(|span| span.from <= index)
    }

    fn push(&mut self, from: u64, to: u64, inner: Option<Arc<Level>>) {
        match self.spans.last_mut() {
            Some(last) if last.to == from && last.inner == inner => last.to = to,
            _ => self.spans.push(Span { from, to, inner }),
        }
    }

    fn collect_boxes(&self, path: &mut Vec<(u64, u64)>, found: &mut Vec<Vec<(u64, u64)>>) {
        for span in &self.spans {
            path.push((span.from, span.to));
            match &span.inner {
                Some(inner) => inner.collect_boxes(path, found),
                None => found.push(path.clone()),
            }
            path.pop();
        }
    }
}

/// Sweeps over both lists of spans at once.
fn combine(left: &Level, right: &Level, dimensions: usize, operation: Operation) -> Level {
    let mut result = Level::default();
    let (mut l, mut r) = (left.spans.iter().peekable(), right.spans.iter().peekable());
    let mut at = 0;
    loop {
        while l.next_if(|span| span.to <= at).is_some() {}
        while r.next_if(|span| span.to <= at).is_some() {}
        let edges = [l.peek(), r.peek()];
        // The nearest place where either list begins or ends a span.
        let next = edges
            .iter()
            .flatten()
            .map(|span| if span.from > at { span.from } else { span.to })
            .min();
        let Some(next) = next else { return result };
        let [a, b] = edges.map(|span| span.filter(|span| span.from <= at));
        if dimensions == 1 {
            if operation.keeps(a.is_some(), b.is_some()) {
                result.push(at, next, None);
            }
        } else if a.is_some() || b.is_some() {
            let nothing = Level::default();
            let inner = |span: Option<&Span>| span.and_then(|span| span.inner.clone());
            let (a, b) = (inner(a.copied()), inner(b.copied()));
            let combined = combine(
                a.as_deref().unwrap_or(&nothing),
                b.as_deref().unwrap_or(&nothing),
                dimensions - 1,
                operation,
            );
            if !combined.spans.is_empty() {
                result.push(at, next, Some(Arc::new(combined)));
            }
        }
        at = next;
    }
}
