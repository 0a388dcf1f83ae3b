//! Once, continuously, and at listed times.

use kobza_model::Timestamp;

use super::error::TimetableError;
use super::{Asked, DataInterval, RunInfo};

pub(super) fn once(last: Option<&DataInterval>, asked: &Asked) -> Option<RunInfo> {
    if last.is_some() {
        return None;
    }
    let at = asked.restriction.earliest.unwrap_or(asked.now);
    asked.restriction.latest.is_none_or(|latest| at <= latest).then(|| RunInfo::exact(at))
}

pub(super) fn continuous(
    last: Option<&DataInterval>,
    asked: &Asked,
) -> Result<Option<RunInfo>, TimetableError> {
    let begin = asked.restriction.earliest.unwrap_or(asked.now);
    let (start, end) = match last {
        None => (begin, begin.max(asked.now)),
        Some(last) if last.end > asked.now => {
            let length = i128::from(last.end.0) - i128::from(last.start.0);
            (begin, super::calendar::checked(i128::from(begin.0) + length)?)
        }
        Some(last) => (last.end, asked.now),
    };
    if asked.restriction.latest.is_some_and(|latest| end > latest) {
        return Ok(None);
    }
    Ok(Some(RunInfo::over(DataInterval { start, end })))
}

/// Runs at listed times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Events {
    /// In the order in which they are looked through.
    pub times: Vec<Timestamp>,
    /// A run that somebody starts takes the newest time that has passed.
    pub restrict_to_events: bool,
    pub description: Option<String>,
}

impl Events {
    pub(super) fn next(&self, last: Option<&DataInterval>, asked: &Asked) -> Option<RunInfo> {
        let mut earliest = asked.restriction.earliest;
        if !asked.restriction.catchup {
            earliest = Some(earliest.map_or(asked.now, |earliest| earliest.max(asked.now)));
        }
        let at = *self.times.iter().find(|at| {
            earliest.is_none_or(|earliest| **at >= earliest)
                && last.is_none_or(|last| **at > last.end)
        })?;
        asked.restriction.latest.is_none_or(|latest| at <= latest).then(|| RunInfo::exact(at))
    }

    pub(super) fn data(&self, at: Timestamp) -> Result<DataInterval, TimetableError> {
        let first = self.times.first().filter(|_| self.restrict_to_events);
        let Some(first) = first else { return Ok(DataInterval { start: at, end: at }) };
        let event = if at < *first {
            Some(first)
        } else {
            self.times.iter().rev().find(|time| **time <= at)
        };
        let event = *event.ok_or_else(|| TimetableError::failed("no event has passed"))?;
        Ok(DataInterval { start: event, end: event })
    }
}
