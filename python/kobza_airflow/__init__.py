"""What Kobza runs inside an environment with Airflow: reading DAG files, tasks, triggers."""
