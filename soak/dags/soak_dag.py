"""The soak's workflow of Airflow."""

import datetime
import time

from airflow.sdk import dag, task

AGAIN = {"retries": 100, "retry_delay": datetime.timedelta(seconds=1)}


@dag(schedule=None, catchup=False, default_args=AGAIN)
def soak_dag():
    @task
    def numbers():
        time.sleep(0.05)
        return [1, 2, 3]

    @task
    def double(n):
        return 2 * n

    @task
    def total(doubled):
        assert sum(doubled) == 12

    total(double.expand(n=numbers()))


soak_dag()
