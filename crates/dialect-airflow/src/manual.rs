//! Runs that people start: the id, the logical date and the data interval that Airflow gives them.

use kobza_engine::StartRun;
use kobza_model::{Timestamp, Workflow};
use serde_json::json;

use crate::timetable::{Timetable, isoformat};

/// The data interval of a run for a date, by the DAG's timetable; of a timetable that only Python
/// knows, the date itself.
#[must_use]
pub fn data_interval(workflow: &Workflow, logical_date: Timestamp) -> (Timestamp, Timestamp) {
    Timetable::parse(&workflow.source["airflow"]["dag"]["timetable"])
        .and_then(|timetable| timetable.manual_data_interval(logical_date))
        .map_or((logical_date, logical_date), |interval| (interval.start, interval.end))
}

/// Completes a start that did not come through Airflow's own API: the date is the interval's begin
/// where one is given, else now.
pub fn complete(start: &mut StartRun, now: Timestamp) {
    if start.extra["airflow"].is_object() {
        return;
    }
    let date = start.interval.map_or(now, |(begin, _)| begin);
    if start.interval.is_none() {
        start.interval = Some(data_interval(&start.workflow, date));
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
    });
    if !start.extra.is_object() {
        start.extra = json!({});
    }
    start.extra["airflow"] = own;
}
