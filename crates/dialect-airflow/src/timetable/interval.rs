//! Timetables whose runs cover one interval after the other, each run at its interval's end.

use kobza_model::Timestamp;

use super::calendar::{CronInZone, checked};
use super::delta::{Delta, micros_of_seconds};
use super::error::TimetableError;
use super::{Asked, DataInterval, RunInfo};

/// How many steps from the start date rounding may take.
const MAX_STEPS: usize = 1_000_000;

/// What bounds the intervals.
#[derive(Clone, PartialEq, Debug)]
pub enum Intervals {
    Cron(CronInZone),
    Delta(Delta),
}

impl Intervals {
    fn after(&self, at: Timestamp) -> Result<Timestamp, TimetableError> {
        match self {
            Self::Cron(cron) => cron.next(at),
            Self::Delta(delta) => delta.after(at),
        }
    }

    fn before(&self, at: Timestamp) -> Result<Timestamp, TimetableError> {
        match self {
            Self::Cron(cron) => cron.prev(at),
            Self::Delta(delta) => delta.before(at),
        }
    }

    fn align_to_next(&self, at: Timestamp) -> Result<Timestamp, TimetableError> {
        match self {
            Self::Cron(cron) => cron.align_to_next(at),
            Self::Delta(_) => Ok(at),
        }
    }

    fn align_to_prev(&self, at: Timestamp) -> Result<Timestamp, TimetableError> {
        match self {
            Self::Cron(cron) => cron.align_to_prev(at),
            Self::Delta(_) => Ok(at),
        }
    }

    /// Without catch-up: the start of the newest interval that has ended.
    fn skip_to_latest(
        &self,
        earliest: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Timestamp, TimetableError> {
        let start = match self {
            Self::Cron(cron) => {
                let last = cron.prev(now)?;
                let next = cron.next(last)?;
                if next < now {
                    return Err(TimetableError::failed(format!(
                        "{:?} has no boundary between {last} and {now}",
                        cron.cron.text()
                    )));
                }
                // An interval that ends right now has ended.
                if next == now { last } else { cron.prev(last)? }
            }
            Self::Delta(delta) => delta.before(floor(delta, now, earliest.unwrap_or(now))?)?,
        };
        match earliest {
            None => Ok(start),
            Some(earliest) => Ok(start.max(self.align_to_next(earliest)?)),
        }
    }

    pub(super) fn next(
        &self,
        last: Option<&DataInterval>,
        asked: &Asked,
    ) -> Result<Option<RunInfo>, TimetableError> {
        let restriction = &asked.restriction;
        let earliest = match restriction.earliest {
            earliest if !restriction.catchup => Some(self.skip_to_latest(earliest, asked.now)?),
            Some(earliest) => Some(self.align_to_next(earliest)?),
            None => None,
        };
        let start = match (last, earliest) {
            (None, None) => return Ok(None),
            (None, Some(earliest)) => earliest,
            (Some(last), earliest) => {
                // The schedule may have changed since.
                let aligned = self.align_to_prev(last.end)?;
                let mut start = earliest.map_or(aligned, |earliest| aligned.max(earliest));
                if start <= last.start {
                    start = self.after(start)?;
                    if start <= last.start {
                        return Err(TimetableError::failed(format!(
                            "the timetable does not get past {}",
                            last.start
                        )));
                    }
                }
                start
            }
        };
        if restriction.latest.is_some_and(|latest| start > latest) {
            return Ok(None);
        }
        Ok(Some(RunInfo::over(DataInterval { start, end: self.after(start)? })))
    }

    /// The data of a run that somebody starts at `at`: the newest whole interval.
    pub(super) fn data(&self, at: Timestamp) -> Result<DataInterval, TimetableError> {
        let end = match self {
            Self::Cron(cron) => cron.align_to_prev(at)?,
            Self::Delta(_) => at,
        };
        Ok(DataInterval { start: self.before(end)?, end })
    }
}

/// The newest boundary up to `at`: a multiple of the delta since 1970, or so many steps of months
/// and years from `anchor`.
fn floor(delta: &Delta, at: Timestamp, anchor: Timestamp) -> Result<Timestamp, TimetableError> {
    if delta.varies() {
        let mut boundary = anchor;
        for _ in 0..MAX_STEPS {
            let next = delta.after(boundary)?;
            if next > at {
                return Ok(boundary);
            }
            boundary = next;
        }
        return Err(TimetableError::failed(format!(
            "the delta does not lead from {anchor} to {at}"
        )));
    }
    let length = delta.in_seconds();
    if length == 0.0 {
        return Err(TimetableError::failed("the delta is zero"));
    }
    // In floating point, as Airflow computes it: the result may differ from the exact one.
    let seconds = at.0 as f64 / 1e6;
    let mut rest = seconds % length;
    if rest != 0.0 && (rest < 0.0) != (length < 0.0) {
        rest += length;
    }
    let micros = micros_of_seconds(seconds - rest)
        .ok_or_else(|| TimetableError::failed("the time is out of range"))?;
    checked(i128::from(micros))
}
