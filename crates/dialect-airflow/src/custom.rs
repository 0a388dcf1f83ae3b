//! Timetables and weight rules of the user's own, asked in the Python that has their classes.

use std::time::Duration;

use kobza_model::{Json, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Weights;
use crate::parser::{ParseError, ParseHost};
use crate::schedule::CustomTimetables;
use crate::timetable::{Asked, DataInterval, RunInfo};

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A run on its way to Python and back.
#[derive(Serialize, Deserialize)]
struct Told {
    run_after: Timestamp,
    interval: Option<(Timestamp, Timestamp)>,
    partition_date: Option<Timestamp>,
    partition_key: Option<String>,
    #[serde(default, skip_serializing)]
    run_id: Option<String>,
}

impl From<&RunInfo> for Told {
    fn from(info: &RunInfo) -> Self {
        Self {
            run_after: info.run_after,
            interval: info.data_interval.map(|data| (data.start, data.end)),
            partition_date: info.partition_date,
            partition_key: info.partition_key.clone(),
            run_id: None,
        }
    }
}

impl From<Told> for RunInfo {
    fn from(told: Told) -> Self {
        Self {
            run_after: told.run_after,
            data_interval: told.interval.map(|(start, end)| DataInterval { start, end }),
            partition_date: told.partition_date,
            partition_key: told.partition_key,
        }
    }
}

/// With the last line that a process said before it failed.
fn words(error: ParseError) -> String {
    match &error {
        ParseError::File { message, output } => {
            let last = output.lines().rev().find(|line| !line.trim().is_empty());
            match last.filter(|last| *last != message) {
                Some(last) => format!("{message}: {}", last.trim()),
                None => message.clone(),
            }
        }
        other => other.to_string(),
    }
}

impl ParseHost {
    fn answer<T: for<'a> Deserialize<'a>>(&self, question: Json) -> Result<T, String> {
        let answer = self.ask(question, LIMIT).map_err(words)?;
        serde_json::from_value(answer).map_err(|e| format!("what it answered is not usable: {e}"))
    }

    /// What tasks with weight rules of their own weigh at their first try.
    pub fn weights(&self, serialised: &Json, tasks: &[&str]) -> Result<Weights, String> {
        self.answer(json!({"op": "weights", "dag": serialised, "tasks": tasks}))
    }
}

impl CustomTimetables for ParseHost {
    fn next(
        &self,
        timetable: &Json,
        last: Option<&RunInfo>,
        asked: &Asked,
    ) -> Result<Option<(RunInfo, String)>, String> {
        let restriction = asked.restriction;
        let told: Option<Told> = self.answer(json!({
            "op": "next",
            "timetable": timetable,
            "last": last.map(Told::from),
            "earliest": restriction.earliest,
            "latest": restriction.latest,
            "catchup": restriction.catchup,
        }))?;
        let Some(mut told) = told else { return Ok(None) };
        let run_id = told.run_id.take().ok_or("it gave no run id")?;
        Ok(Some((told.into(), run_id)))
    }

    fn manual(&self, timetable: &Json, at: Timestamp) -> Result<DataInterval, String> {
        let (start, end) =
            self.answer(json!({"op": "manual", "timetable": timetable, "at": at}))?;
        Ok(DataInterval { start, end })
    }

    fn between(
        &self,
        timetable: &Json,
        earliest: Timestamp,
        latest: Timestamp,
    ) -> Result<Option<Vec<RunInfo>>, String> {
        let told: Option<Vec<Told>> = self.answer(json!({
            "op": "between", "timetable": timetable, "earliest": earliest, "latest": latest,
        }))?;
        Ok(told.map(|all| all.into_iter().map(RunInfo::from).collect()))
    }

    fn partition(&self, question: Json) -> Result<Result<Json, String>, String> {
        match self.ask(question, LIMIT) {
            Ok(answer) => Ok(Ok(answer)),
            Err(error @ ParseError::File { .. }) => Ok(Err(words(error))),
            Err(error) => Err(error.to_string()),
        }
    }
}
