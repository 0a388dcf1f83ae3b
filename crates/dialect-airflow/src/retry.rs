//! Whether and when Airflow tries a task again. Pure.
