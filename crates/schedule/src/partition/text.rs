//! Sets as people write them: `2013-03-01..2013-03-14,2013-04-01|eu;2013-05-01|*`.
//!
//! Items of a dimension are separated by `,`; an item is a key, a range with both ends included
//! (an end may be left out: from the first, to the last complete one), or `*`. Dimensions are
//! separated by `|`, boxes of a product by `;`.

use kobza_model::Timestamp;

use crate::ScheduleError;
use crate::error::shown;
use crate::partition::{PartitionDefinition, PartitionSet};

/// Longest text accepted, in bytes: sets are ranges, not lists of keys.
const MAX_BYTES: usize = 1 << 20;

impl PartitionDefinition {
    /// Reads a set. `at` says what open ranges and `*` mean: what exists at that instant.
    pub fn parse_set(&self, text: &str, at: Timestamp) -> Result<PartitionSet, ScheduleError> {
        if text.len() > MAX_BYTES {
            return Err(ScheduleError::new("partitions", "the text is longer than 1 MiB"));
        }
        let dimensions = self.dimensions();
        let mut set = PartitionSet::empty(dimensions.len());
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let columns: Vec<&str> = part.split('|').collect();
            if columns.len() != dimensions.len() {
                let message = format!(
                    "{} has {} dimensions, the definition has {}",
                    shown(part),
                    columns.len(),
                    dimensions.len()
                );
                return Err(ScheduleError::new("partitions", message)
                    .hint("separate dimensions by |, such as 2013-03-01..2013-03-14|eu,us"));
            }
            let ranges =
                dimensions.iter().zip(columns).map(|(d, column)| parse_items(d, column, at));
            set = set.union(&PartitionSet::product(&ranges.collect::<Result<Vec<_>, _>>()?));
        }
        Ok(set)
    }

    /// The text that [`Self::parse_set`] reads back.
    #[must_use]
    pub fn format_set(&self, set: &PartitionSet) -> String {
        let dimensions = self.dimensions();
        let mut rows: Vec<Vec<String>> = Vec::new();
        for ranges in set.boxes() {
            let row: Vec<String> =
                dimensions.iter().zip(ranges).map(|(d, range)| format_range(d, range)).collect();
            // Boxes that differ in the last dimension only are one row.
            match rows.last_mut() {
                Some(last) if last[..last.len() - 1] == row[..row.len() - 1] => {
                    if let (Some(items), Some(item)) = (last.last_mut(), row.last()) {
                        items.push(',');
                        items.push_str(item);
                    }
                }
                _ => rows.push(row),
            }
        }
        rows.iter().map(|row| row.join("|")).collect::<Vec<_>>().join(";")
    }
}

fn parse_items(
    dimension: &PartitionDefinition,
    text: &str,
    at: Timestamp,
) -> Result<Vec<(u64, u64)>, ScheduleError> {
    let length = dimension.length_at(at);
    let mut ranges = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        if item == "*" {
            ranges.push((0, length));
            continue;
        }
        let Some((first, last)) = item.split_once("..") else {
            let index = dimension.index_of(item)?;
            ranges.push((index, index + 1));
            continue;
        };
        let first = if first.is_empty() { 0 } else { dimension.index_of(first)? };
        let end = if last.is_empty() { length } else { dimension.index_of(last)? + 1 };
        if end <= first && !last.is_empty() {
            return Err(ScheduleError::new("partitions", format!("{} is backwards", shown(item)))
                .hint("write the earlier end first"));
        }
        ranges.push((first, end));
    }
    Ok(ranges)
}

fn format_range(dimension: &PartitionDefinition, (from, to): (u64, u64)) -> String {
    let key = |index: u64| dimension.key_of(index).unwrap_or_else(|| format!("#{index}"));
    if to == from + 1 { key(from) } else { format!("{}..{}", key(from), key(to - 1)) }
}
