//! Partitions: the pieces an asset or a backfill is made of.
//!
//! A *definition* numbers its partitions from 0 in each dimension and gives them keys; a *set* is
//! a set of such numbers, kept as ranges. Asset status, backfills and automation are algebra on
//! sets, so ten million partitions cost no more than the ranges they form.

mod definition;
mod mapping;
mod set;
mod text;
mod time;

pub use definition::{KeyList, MAX_KEYS, PartitionDefinition};
pub use mapping::PartitionMapping;
pub use set::{PartitionSet, Place};
pub use time::{TimeGrid, TimePartitions};
