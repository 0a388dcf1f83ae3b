//! Airflow: its DAGs, as its own packages serialise them, on Kobza's engine.

pub mod retry;
pub mod timetable;
