//! Runs that people start: the id, the logical date and the data interval that Airflow gives them.

use kobza_engine::StartRun;
use kobza_model::{Timestamp, Workflow};
use serde_json::json;

use crate::schedule::{CustomTimetables, manual_interval};
use crate::timetable::isoformat;

/// The data interval of a run for a date, by the DAG's timetable; of one that cannot say, the date
/// itself.
#[must_use]
pub fn data_interval(
    workflow: &Workflow,
    logical_date: Timestamp,
    custom: Option<&dyn CustomTimetables>,
) -> (Timestamp, Timestamp) {
    let timetable = &workflow.source["airflow"]["dag"]["timetable"];
    match manual_interval(timetable, logical_date, custom) {
        Ok(interval) => (interval.start, interval.end),
        Err(error) => {
            tracing::warn!(dag = workflow.name, error, "no data interval for a run by hand");
            (logical_date, logical_date)
        }
    }
}

/// Completes a start that did not come through Airflow's own API: the date is the interval's begin
/// where one is given, else now.
pub fn complete(start: &mut StartRun, now: Timestamp, custom: Option<&dyn CustomTimetables>) {
    if start.extra["airflow"].is_object() {
        return;
    }
    let date = start.interval.map_or(now, |(begin, _)| begin);
    if start.interval.is_none() {
        start.interval = Some(data_interval(&start.workflow, date, custom));
    }
    if start.key.is_none() {
        start.key = Some(format!("manual__{}", isoformat(now)));
    }
    let note = start.extra["note"].clone();
    let own = json!({
        "logical_date": date,
        "run_after": now,
        "run_type": "manual",
        "triggered_by": "rest_api",
        "note": note,
        "partition_key": start.partition,
    });
    if !start.extra.is_object() {
        start.extra = json!({});
    }
    start.extra["airflow"] = own;
}
