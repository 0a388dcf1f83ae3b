"""The workloads as DAGs: the same file for Airflow and for Kobza."""

import os
import time

from airflow.sdk import DAG, task


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def nop(*_):
    return None


def chain(name, length, body=nop):
    with DAG(name, schedule=None, catchup=False, max_active_runs=200):
        above = None
        for number in range(length):
            one = task(task_id=f"t{number}")(body)()
            if above is not None:
                above >> one
            above = one


def fan(width):
    with DAG(f"fan{width}", schedule=None, catchup=False, max_active_tasks=width):
        first, last = task(task_id="first")(nop)(), task(task_id="last")(nop)()
        for number in range(width):
            first >> task(task_id=f"t{number}")(nop)() >> last


chain("chain50", 50)
chain("chain5", 5)
chain("three", 3)
chain("light", 40, lambda: fib(10))
fan(200)
fan(1000)

with DAG("heavy", schedule=None, catchup=False):
    for i in range(10):
        task(task_id=f"t{i}")(lambda: fib(33))()

with DAG("first", schedule=None, catchup=False):

    @task
    def first_line():
        now = time.time()
        place = os.environ["BENCH_FIRST"]
        with open(f"{place}.new", "w") as file:
            file.write(str(now))
        os.rename(f"{place}.new", place)

    first_line()
