//! Calendars: when something is due, and which partitions a period of time or a key space has.
//!
//! Pure. Times come in as data; nothing here reads a clock. The time zone database is the
//! system's, or the one bundled when the system has none.
//!
//! # Daylight saving time
//! A schedule in a time zone names civil (wall clock) times. Where clocks jump, two rules decide:
//!
//! - *Fixed times* (neither the second, minute nor hour field of a cron pattern has a `*`; an RRULE
//!   of daily or coarser frequency): a civil time that does not exist moves to the first instant
//!   after the gap; one that exists twice means its first pass. So each civil time happens once.
//! - *Periodic times* (`*` or `*/n` in the second, minute or hour field; an RRULE of hourly or finer
//!   frequency): slots follow real time; civil times that do not exist are left out, those that
//!   exist twice happen twice.
//!
//! Two civil times that fall on one instant are one slot.

mod cron;
mod duration;
mod error;
mod interval;
mod once;
pub mod partition;
mod rrule;
mod rrule_subdaily;
mod schedule;
mod zone;

pub use cron::Cron;
pub use duration::{format_duration, parse_duration};
pub use error::ScheduleError;
pub use interval::Interval;
pub use once::At;
pub use rrule::RRule;
pub use schedule::{DataInterval, Schedule, Slots};
pub use zone::Zone;
