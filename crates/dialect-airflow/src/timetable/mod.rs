//! When a DAG's runs are due and what data they cover: Airflow's timetables. Pure.
