//! Slots of a schedule: which are due, and what to do about missed ones.

use kobza_model::Timestamp;

use super::{PUNCTUAL, Trigger};
use crate::spec::CatchUp;
use crate::step::Step;

/// Slots that one tick decides: a long catch-up lets other triggers in between.
const SLOTS_PER_TICK: usize = 100;

impl Trigger {
    pub(super) fn decide_slots(&mut self, now: Timestamp, steps: &mut Vec<Step>) {
        for _ in 0..SLOTS_PER_TICK {
            let Some(slot) = self.next_slot().filter(|slot| self.due_at(*slot) <= now) else {
                return;
            };
            let Some(schedule) = self.schedule() else { return };
            let interval = schedule.interval_of(slot);
            let late = now.0 - self.due_at(slot).0;
            let reason =
                if late > PUNCTUAL { "catch-up of a missed slot" } else { "the slot is due" };
            self.row.cursor = slot;
            self.offer(
                slot.to_jiff().to_string(),
                slot,
                &[],
                Some((interval.start, interval.end)),
                reason,
                now,
                steps,
            );
        }
    }

    /// Leaves out what the catch-up policy does not want, as one record.
    pub(super) fn catch_up(&mut self, now: Timestamp, steps: &mut Vec<Step>) {
        let Some(first) = self.next_slot().filter(|slot| *slot > self.kept_through) else { return };
        let punctual = match self.spec.catch_up {
            CatchUp::None { grace } => grace,
            CatchUp::Last { within: Some(within) } => within.min(PUNCTUAL),
            _ => PUNCTUAL,
        };
        if now.0.saturating_sub(self.due_at(first).0) <= punctual {
            return;
        }
        let Some(newest) = self.newest_due(now) else { return };
        let Some(schedule) = self.schedule() else { return };
        let (keep_from, reason) = match self.spec.catch_up {
            CatchUp::None { grace } => {
                let edge = Timestamp(now.0.saturating_sub(grace));
                let keep = std::iter::successors(Some(newest), |slot| schedule.prev_before(*slot))
                    .take_while(|slot| *slot >= first && self.due_at(*slot) >= edge)
                    .last();
                (keep, "missed; the trigger does not catch up".to_owned())
            }
            CatchUp::Last { within } => {
                let late = now.0.saturating_sub(self.due_at(newest).0);
                match within.filter(|within| late > *within) {
                    None => (
                        Some(newest),
                        "missed; the trigger catches up the last missed slot only".to_owned(),
                    ),
                    Some(_) => (None, "missed, and too late to be caught up".to_owned()),
                }
            }
            CatchUp::All { limit } => {
                let keep = std::iter::successors(Some(newest), |slot| schedule.prev_before(*slot))
                    .take(limit as usize)
                    .take_while(|slot| *slot >= first)
                    .last();
                (keep, format!("missed; the trigger catches up the newest {limit} slots"))
            }
        };
        let last_skipped = match keep_from {
            Some(keep) => schedule.prev_before(keep).filter(|slot| *slot >= first),
            None => Some(newest),
        };
        self.kept_through = newest;
        if let Some(last) = last_skipped {
            self.skip_range(first, last, &reason, now, steps);
        }
    }

    /// The newest slot whose time to start has come.
    pub(super) fn newest_due(&self, now: Timestamp) -> Option<Timestamp> {
        let schedule = self.schedule()?;
        let next = Timestamp(now.0.saturating_add(1));
        let edge = self.spec.end.map_or(next, |end| end.min(next));
        std::iter::successors(schedule.prev_before(edge), |slot| schedule.prev_before(*slot))
            .take_while(|slot| *slot > self.row.cursor)
            .find(|slot| self.due_at(*slot) <= now)
    }
}
