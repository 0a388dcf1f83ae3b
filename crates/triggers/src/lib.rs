//! What starts runs: schedules, assets, webhooks, files, ends of other runs; and backfills.
//!
//! The machines here are pure: time and events come in, *steps* come out. A step holds a run to
//! start together with the rows that say so; both are committed in one transaction, so that no
//! slot is lost and none happens twice. After a crash the machine is built again from its rows.

pub mod backfill;
mod condition;
mod event;
mod files;
mod machine;
mod mapping;
mod parse;
mod row;
pub mod service;
mod spec;
mod step;
mod timetable;
mod trigger;
pub mod webhook;

pub use condition::AssetCondition;
pub use event::{EventBody, TriggerEvent};
pub use machine::{OutsideQuestion, Triggers};
pub use mapping::{Held, Mapped, MappingQuestion, PartitionMapping};
pub use parse::parse_triggers;
pub use row::{EventWindow, Gathered, Pending, SlotOutcome, SlotRow, TriggerRow};
pub use spec::{
    Batching, CatchUp, Debounce, MappingSpec, Overlap, TriggerKind, TriggerSpec, Updates,
    WebhookScheme,
};
pub use step::{BackfillPiece, StartSpec, Step, TriggerKey};
pub use timetable::{Next, Tick, TickRange, Timetable, TimetableDialects, Timetables};
