//! All tasks above and below each task, as bit sets: a DAG of 10,000 tasks takes 25 MB for a moment.

use crate::dag::DagError;

/// For each place the set of places that can be reached.
pub(super) struct Relatives {
    words: usize,
    upstream: Vec<u64>,
    downstream: Vec<u64>,
}

impl Relatives {
    /// From direct downstream places. An error names a place on a cycle.
    pub(super) fn new(
        downstream: &[Vec<usize>],
        name: impl Fn(usize) -> String,
    ) -> Result<Self, DagError> {
        let count = downstream.len();
        let words = count.div_ceil(64);
        let mut upstream: Vec<Vec<usize>> = vec![Vec::new(); count];
        for (place, below) in downstream.iter().enumerate() {
            for &one in below {
                upstream[one].push(place);
            }
        }
        let order = order(downstream, &upstream);
        if order.len() < count {
            let mut seen = vec![false; count];
            order.iter().for_each(|&place| seen[place] = true);
            let first = seen.iter().position(|done| !done).unwrap_or_default();
            return Err(DagError::new(
                format!("dag.tasks[{:?}]", name(first)),
                "it depends on itself, by way of others",
            ));
        }
        let above = reach(&upstream, order.iter().copied(), words);
        let below = reach(downstream, order.iter().rev().copied(), words);
        Ok(Self { words, upstream: above, downstream: below })
    }

    fn set(&self, all: &[u64], place: usize) -> impl Iterator<Item = usize> {
        let words = all[place * self.words..(place + 1) * self.words].to_vec();
        words.into_iter().enumerate().flat_map(|(word, bits)| {
            (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| word * 64 + bit)
        })
    }

    pub(super) fn upstream(&self, place: usize) -> impl Iterator<Item = usize> {
        self.set(&self.upstream, place)
    }

    pub(super) fn downstream(&self, place: usize) -> impl Iterator<Item = usize> {
        self.set(&self.downstream, place)
    }

    /// Whether `below` comes after `above`.
    pub(super) fn is_downstream(&self, above: usize, below: usize) -> bool {
        self.downstream[above * self.words + below / 64] & (1 << (below % 64)) != 0
    }
}

fn order(downstream: &[Vec<usize>], upstream: &[Vec<usize>]) -> Vec<usize> {
    let mut missing: Vec<usize> = upstream.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..downstream.len()).filter(|&p| missing[p] == 0).collect();
    let mut at = 0;
    while at < order.len() {
        for &next in &downstream[order[at]] {
            missing[next] -= 1;
            if missing[next] == 0 {
                order.push(next);
            }
        }
        at += 1;
    }
    order
}

fn reach(direct: &[Vec<usize>], order: impl Iterator<Item = usize>, words: usize) -> Vec<u64> {
    let mut all = vec![0u64; direct.len() * words];
    for place in order {
        for &one in &direct[place] {
            all[place * words + one / 64] |= 1 << (one % 64);
            for word in 0..words {
                all[place * words + word] |= all[one * words + word];
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::Relatives;

    #[test]
    fn a_chain_with_a_side_branch() {
        // 0 -> 1 -> 2, 0 -> 3, and 100 tasks after 2.
        let mut downstream = vec![vec![1, 3], vec![2], (4..104).collect(), vec![]];
        downstream.resize(104, Vec::new());
        let relatives = Relatives::new(&downstream, |p| p.to_string()).expect("no cycle");
        assert_eq!(relatives.upstream(103).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(relatives.downstream(0).count(), 103);
        assert!(relatives.is_downstream(1, 80) && !relatives.is_downstream(3, 80));
        downstream[2].push(0);
        let error = Relatives::new(&downstream, |p| p.to_string()).err().expect("a cycle");
        assert!(error.to_string().contains("depends on itself"));
    }
}
