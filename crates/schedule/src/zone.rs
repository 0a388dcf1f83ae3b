//! Time zones, and the one place where civil times become instants.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use kobza_model::Timestamp;

use crate::ScheduleError;
use crate::error::shown;

/// An IANA time zone.
#[derive(Clone)]
pub struct Zone {
    name: String,
    tz: TimeZone,
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether a civil time means one instant wherever clocks jump, or follows real time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Recurrence {
    Fixed,
    Periodic,
}

/// Civil times in ascending order, whole seconds only.
pub(crate) trait CivilTimes {
    /// The first one strictly after `from`.
    fn after(&self, from: DateTime) -> Option<DateTime>;
    /// The last one strictly before `from`.
    fn before(&self, from: DateTime) -> Option<DateTime>;
}

/// What a civil time is in a zone.
enum Place {
    One(jiff::Timestamp),
    /// It does not exist; the instant is the first one after the gap.
    Gap(jiff::Timestamp),
    /// It exists twice.
    Fold(jiff::Timestamp, jiff::Timestamp),
}

/// A repeated range of civil times: `[begin, end)`, passed first with offset `before`, then again
/// with offset `after`.
struct Fold {
    begin: DateTime,
    end: DateTime,
    before: Offset,
    after: Offset,
    in_second_pass: bool,
}

impl Zone {
    #[must_use]
    pub fn utc() -> Self {
        Self { name: "UTC".to_owned(), tz: TimeZone::UTC }
    }

    /// Finds a zone by its IANA name, such as `Europe/Kyiv`.
    pub fn parse(name: &str) -> Result<Self, ScheduleError> {
        let unknown = || {
            let error =
                ScheduleError::new("timezone", format!("{} is not an IANA time zone", shown(name)));
            match similar_zone(name) {
                Some(similar) => error.hint(format!("did you mean {similar}?")),
                None => error.hint("write a name such as Europe/Kyiv, America/New_York or UTC"),
            }
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(unknown());
        }
        if name.eq_ignore_ascii_case("utc") {
            return Ok(Self::utc());
        }
        let tz = TimeZone::get(name).map_err(|_| unknown())?;
        if tz.is_unknown() {
            return Err(unknown());
        }
        let name = tz.iana_name().unwrap_or(name).to_owned();
        Ok(Self { name, tz })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The wall clock at an instant.
    #[must_use]
    pub fn civil(&self, at: Timestamp) -> DateTime {
        self.tz.to_datetime(at.to_jiff())
    }

    /// The offset from UTC at an instant, such as `+02:00`.
    #[must_use]
    pub fn offset_text(&self, at: Timestamp) -> String {
        at.to_jiff().to_zoned(self.tz.clone()).strftime("%:z").to_string()
    }

    /// The instant of a fixed civil time: moved to the end of a gap, first pass of a repeated hour.
    /// `None` outside the years that an instant can have.
    #[must_use]
    pub fn instant(&self, civil: DateTime) -> Option<Timestamp> {
        let at = match self.place(civil)? {
            Place::One(at) | Place::Gap(at) | Place::Fold(at, _) => at,
        };
        Some(Timestamp::from_jiff(at))
    }

    fn place(&self, civil: DateTime) -> Option<Place> {
        let ambiguous = self.tz.to_ambiguous_timestamp(civil);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => ambiguous.unambiguous().ok().map(Place::One),
            AmbiguousOffset::Fold { .. } => {
                Some(Place::Fold(ambiguous.earlier().ok()?, ambiguous.later().ok()?))
            }
            AmbiguousOffset::Gap { .. } => {
                // Read with the offset after the gap, the civil time lies before the transition.
                let earlier = ambiguous.earlier().ok()?;
                let transition = self
                    .tz
                    .following(earlier)
                    .take(8)
                    .find(|t| t.offset().to_datetime(t.timestamp()) > civil)?;
                Some(Place::Gap(transition.timestamp()))
            }
        }
    }

    /// The repeated range that an instant lies in.
    fn fold_at(&self, at: jiff::Timestamp) -> Option<Fold> {
        let civil = self.tz.to_datetime(at);
        let AmbiguousOffset::Fold { before, after } =
            self.tz.to_ambiguous_timestamp(civil).offset()
        else {
            return None;
        };
        let in_second_pass = self.tz.to_offset(at) == after;
        let transition = if in_second_pass {
            let just_after = at.checked_add(jiff::SignedDuration::from_nanos(1)).ok()?;
            self.tz.preceding(just_after).take(8).find(|t| t.offset() == after)?
        } else {
            self.tz.following(at).take(8).find(|t| t.offset() == after)?
        };
        let (begin, end) =
            (after.to_datetime(transition.timestamp()), before.to_datetime(transition.timestamp()));
        Some(Fold { begin, end, before, after, in_second_pass })
    }

    /// The first slot strictly after `at`.
    pub(crate) fn next_after(
        &self,
        times: &dyn CivilTimes,
        recurrence: Recurrence,
        at: Timestamp,
    ) -> Option<Timestamp> {
        let at = at.to_jiff();
        let civil = self.tz.to_datetime(at);
        if recurrence == Recurrence::Periodic
            && let Some(fold) = self.fold_at(at)
            && !fold.in_second_pass
        {
            let rest_of_pass = times.after(civil).filter(|m| *m < fold.end);
            if let Some(slot) = rest_of_pass {
                return fold.before.to_timestamp(slot).ok().map(Timestamp::from_jiff);
            }
            let second_pass = first_from(times, fold.begin).filter(|m| *m < fold.end);
            if let Some(slot) = second_pass {
                return fold.after.to_timestamp(slot).ok().map(Timestamp::from_jiff);
            }
        }
        let mut cursor = civil;
        loop {
            cursor = times.after(cursor)?;
            let slot = match (self.place(cursor)?, recurrence) {
                (Place::One(slot), _)
                | (Place::Gap(slot) | Place::Fold(slot, _), Recurrence::Fixed) => Some(slot),
                (Place::Gap(_), Recurrence::Periodic) => None,
                (Place::Fold(first, second), Recurrence::Periodic) => {
                    Some(if first > at { first } else { second })
                }
            };
            if let Some(slot) = slot.filter(|slot| *slot > at) {
                return Some(Timestamp::from_jiff(slot));
            }
        }
    }

    /// The last slot strictly before `at`.
    pub(crate) fn prev_before(
        &self,
        times: &dyn CivilTimes,
        recurrence: Recurrence,
        at: Timestamp,
    ) -> Option<Timestamp> {
        let at = at.to_jiff();
        let civil = self.tz.to_datetime(at);
        let mut cursor = civil;
        if let Some(fold) = self.fold_at(at).filter(|fold| fold.in_second_pass) {
            match recurrence {
                // All of the first pass is over, also what the clock will show again.
                Recurrence::Fixed => cursor = fold.end,
                Recurrence::Periodic => {
                    let this_pass = times.before(civil).filter(|m| *m >= fold.begin);
                    if let Some(slot) = this_pass {
                        return fold.after.to_timestamp(slot).ok().map(Timestamp::from_jiff);
                    }
                    let first_pass = times.before(fold.end).filter(|m| *m >= fold.begin);
                    if let Some(slot) = first_pass {
                        return fold.before.to_timestamp(slot).ok().map(Timestamp::from_jiff);
                    }
                }
            }
        }
        loop {
            cursor = times.before(cursor)?;
            let slot = match (self.place(cursor)?, recurrence) {
                (Place::One(slot), _)
                | (Place::Gap(slot) | Place::Fold(slot, _), Recurrence::Fixed) => Some(slot),
                (Place::Gap(_), Recurrence::Periodic) => None,
                (Place::Fold(first, second), Recurrence::Periodic) => {
                    Some(if second < at { second } else { first })
                }
            };
            if let Some(slot) = slot.filter(|slot| *slot < at) {
                return Some(Timestamp::from_jiff(slot));
            }
        }
    }
}

/// The first civil time at or after `from`.
fn first_from(times: &dyn CivilTimes, from: DateTime) -> Option<DateTime> {
    times.after(from.checked_sub(jiff::SignedDuration::from_secs(1)).ok()?)
}

fn similar_zone(name: &str) -> Option<String> {
    let wanted = name.rsplit('/').next().filter(|part| part.len() > 2)?.replace(' ', "_");
    jiff::tz::db()
        .available()
        .map(|zone| zone.as_str().to_owned())
        .filter(|zone| zone.contains('/'))
        .find(|zone| zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(&wanted)))
}
