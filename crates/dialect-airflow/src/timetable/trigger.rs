//! Timetables that start a run at each tick, whatever data it covers.

use kobza_model::Timestamp;

use super::calendar::CronInZone;
use super::delta::Delta;
use super::error::TimetableError;
use super::{Asked, DataInterval, RunInfo};

/// What ticks.
#[derive(Clone, PartialEq, Debug)]
pub enum Ticks {
    Cron(CronInZone),
    /// From wherever one asks: it has no boundaries of its own.
    Delta(Delta),
}

impl Ticks {
    fn next(&self, at: Timestamp) -> Result<Timestamp, TimetableError> {
        match self {
            Self::Cron(cron) => cron.next(at),
            Self::Delta(delta) => delta.after(at),
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
}

/// Whether a DAG without a start date begins with the tick that has just passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunImmediately {
    /// Always.
    Yes,
    /// If it has passed less than this many microseconds ago.
    Within(i64),
    /// If a tenth of the time between ticks, at least five minutes, has not passed.
    Tenth,
}

/// Runs at ticks.
#[derive(Clone, PartialEq, Debug)]
pub struct TriggerTimetable {
    pub ticks: Ticks,
    /// How much data before the tick a run covers.
    pub interval: Delta,
    pub run_immediately: RunImmediately,
}

impl TriggerTimetable {
    /// When the next run starts. `last` is the end of the last one's data, or its start.
    pub(super) fn next_start(
        &self,
        last: Option<Timestamp>,
        asked: &Asked,
    ) -> Result<Option<Timestamp>, TimetableError> {
        let restriction = &asked.restriction;
        let start = if restriction.catchup {
            match (last, restriction.earliest) {
                (Some(last), _) => self.ticks.next(last)?,
                (None, None) => self.first_run(asked.now)?,
                (None, Some(earliest)) => self.ticks.align_to_next(earliest)?,
            }
        } else {
            let mut start = self.ticks.align_to_prev(asked.now)?;
            match (last, restriction.earliest) {
                (Some(last), _) => start = start.max(self.ticks.next(last)?),
                (None, None) => start = start.max(self.first_run(asked.now)?),
                (None, Some(_)) => {}
            }
            if let Some(earliest) = restriction.earliest {
                start = start.max(self.ticks.align_to_next(earliest)?);
            }
            start
        };
        Ok(restriction.latest.is_none_or(|latest| latest >= start).then_some(start))
    }

    pub(super) fn next(
        &self,
        last: Option<&DataInterval>,
        asked: &Asked,
    ) -> Result<Option<RunInfo>, TimetableError> {
        let Some(start) = self.next_start(last.map(|last| last.end), asked)? else {
            return Ok(None);
        };
        Ok(Some(RunInfo::over(self.data(start)?)))
    }

    /// The data of a run that starts at `at`.
    pub(super) fn data(&self, at: Timestamp) -> Result<DataInterval, TimetableError> {
        Ok(DataInterval { start: self.interval.before(at)?, end: at })
    }

    fn first_run(&self, now: Timestamp) -> Result<Timestamp, TimetableError> {
        let past = self.ticks.align_to_prev(now)?;
        if matches!(self.ticks, Ticks::Delta(_)) {
            return Ok(past);
        }
        let next = self.ticks.align_to_next(now)?;
        let within = match self.run_immediately {
            RunImmediately::Yes => return Ok(past),
            RunImmediately::Within(micros) => micros,
            RunImmediately::Tenth => tenth(next.0 - past.0).max(300_000_000),
        };
        Ok(if now.0 - past.0 <= within { past } else { next })
    }
}

/// A tenth, to the nearest, ties to the even one.
fn tenth(micros: i64) -> i64 {
    let (tenth, rest) = (micros / 10, micros % 10);
    tenth + i64::from(rest > 5 || (rest == 5 && tenth % 2 == 1))
}

/// Runs whenever one of several patterns ticks.
#[derive(Clone, PartialEq, Debug)]
pub struct MultipleCronTrigger {
    /// At least one; they differ in nothing but the pattern.
    pub timetables: Vec<TriggerTimetable>,
}

impl MultipleCronTrigger {
    pub(super) fn next(
        &self,
        last: Option<&DataInterval>,
        asked: &Asked,
    ) -> Result<Option<RunInfo>, TimetableError> {
        // The earliest; without catch-up the newest that has passed, if any has.
        let key = |info: &RunInfo| {
            let at = info.logical_date().map_or(i64::MAX, |at| at.0);
            if !asked.restriction.catchup && at <= asked.now.0 { -at } else { at }
        };
        let mut best: Option<RunInfo> = None;
        for timetable in &self.timetables {
            if let Some(info) = timetable.next(last, asked)?
                && best.as_ref().is_none_or(|best| key(&info) < key(best))
            {
                best = Some(info);
            }
        }
        Ok(best)
    }

    pub(super) fn data(&self, at: Timestamp) -> Result<DataInterval, TimetableError> {
        let first = self.timetables.first();
        first.map_or(Ok(DataInterval { start: at, end: at }), |timetable| timetable.data(at))
    }
}
