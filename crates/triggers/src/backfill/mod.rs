//! Backfills: many runs of one workflow over a time range or a set of partitions, as one thing that
//! can be previewed, paused, resumed, cancelled and repeated where it failed.

mod items;
mod machine;
mod spec;

pub use items::{BackfillItem, Items};
pub use machine::{
    Backfill, BackfillRow, BackfillState, BackfillStep, ItemOutcome, ItemRow, ItemStatus,
};
pub use spec::{BackfillSpec, MAX_RUNS, Only, Order, Preview, RefusedBackfill};
