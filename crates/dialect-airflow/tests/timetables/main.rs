//! The timetables, against what the real Airflow answered.
//!
//! `conformance/airflow/timetables.py` writes the cases, `tests/airflow` runs it and names the file
//! by `KOBZA_AIRFLOW_TIMETABLES`; without it only the facts in [`facts`] are checked.

#![allow(clippy::unwrap_used)]

mod facts;
mod recorded;
